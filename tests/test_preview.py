"""The preview's server and exported page, without a browser."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from nsynth_super.base.errors import BadInput
from nsynth_super.base.workspace import Workspace
from nsynth_super.notes import recordings as notes
from nsynth_super.pack.geometry import Geometry
from nsynth_super.pack.grid import corner_weights
from nsynth_super.preview import export
from nsynth_super.preview.document import page_files, single_file
from nsynth_super.preview.pack import Preview
from nsynth_super.preview.server import Server, listen
from nsynth_super.settings import Settings, pad_name
from nsynth_super.stages import pads
from tests.commands import nsynth_super
from tests.preview_packs import draw, plan_of

Make = Callable[..., Workspace]
PACK: dict[str, Any] = {
    "pads": {
        "NW": ["flute", "oboe"],
        "NE": ["tin drum"],
        "SW": ["flûte#1%25é"],
        "SE": ["a&b=c;d+e"],
    },
    "pitches": [60, 48],
    "resolution": 3,
    "final_length": 1000,
}
ROW = 2 * PACK["final_length"]


@pytest.fixture
def planned(make_workspace: Make) -> tuple[Workspace, Settings, Any]:
    workspace = make_workspace(**PACK | {"resolution": 6})
    settings, plan = plan_of(workspace)
    assert plan.blocks > 1
    return workspace, settings, plan


@pytest.fixture
def packed(make_workspace: Make) -> tuple[Workspace, Settings]:
    workspace = make_workspace(**PACK)
    settings, plan = plan_of(workspace)
    draw(workspace, settings, plan, range(plan.blocks))
    pads.run_pads(workspace, settings, quiet=True)
    return workspace, settings


@contextmanager
def served(workspace: Workspace) -> Iterator[Server]:
    with Server(Preview(workspace), 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.content = response.status, response.headers, response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.content)


def ask(server: Server, target: str, method: str = "GET", **headers: str) -> Answer:
    """Request `target` without normalizing it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    headers = {"Host": f"127.0.0.1:{server.server_port}", **headers}
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = Answer(connection.getresponse())
    connection.close()
    return answer


def address(kind: str, name: str, ending: str) -> str:
    return f"/{kind}/{urllib.parse.quote(name, safe='')}.{ending}"


def test_page_and_all_its_files_are_served(packed: tuple[Workspace, Settings]):
    with served(packed[0]) as server:
        index = ask(server, "/")
        assert index.status == 200
        assert index.headers["Content-Type"] == "text/html; charset=utf-8"
        named = re.findall(r'(?:href|src)="([^"]+)"', index.content.decode())
        assert {"./style.css", "./page.js", "./icon.svg"} == set(named)
        import_map = re.search(r'<script type="importmap">(.*?)</script>', index.content.decode())
        assert import_map
        digest = base64.b64encode(hashlib.sha256(import_map[1].encode()).digest()).decode()
        assert f"script-src 'self' 'sha256-{digest}'" in index.headers["Content-Security-Policy"]
        for name in page_files():
            answer = ask(server, f"/{name}")
            assert answer.status == 200
            assert answer.content == page_files()[name]
            assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_page_references_no_other_site():
    for name, content in page_files().items():
        addresses = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", content.decode())
        assert [a for a in addresses if "www.w3.org" not in a] == [], name
        assert not re.search(r"\son\w+=|<script>|<style>| style=", content.decode()), name


def test_description_of_the_pack(packed: tuple[Workspace, Settings]):
    workspace, settings = packed
    device = json.loads(workspace.synth_settings.read_text())
    device["nsynth"].update(looping=False, loopStart=0.5)
    device["corners"][0]["instruments"][0].update(display="Flöte", abbr="Fl")
    device["audio"]["sampleRate"] = 44_100
    workspace.synth_settings.write_text(json.dumps(device))
    (workspace.notes / "oboe_48.wav").unlink()
    with served(workspace) as server:
        said = ask(server, "/pack.json").json
    assert said["title"] == "pack"
    assert (said["resolution"], said["pitches"], said["length"]) == (3, [60, 48], 1000)
    assert (said["looping"], said["loopStart"], said["loopEnd"]) == (False, 0.5, 0.41)
    assert (said["sampleRate"], said["outputRate"]) == (16_000, 44_100)
    assert [corner["corner"] for corner in said["corners"]] == ["NW", "NE", "SW", "SE"]
    assert said["corners"][0]["instruments"][0] == {
        "name": "flute",
        "display": "Flöte",
        "abbr": "Fl",
    }
    names = [[i["name"] for i in corner["instruments"]] for corner in said["corners"]]
    assert names == [list(corner) for corner in settings.corners]
    assert said["weights"][4] == [0.25] * 4
    assert said["notes"]["oboe"] == [60]
    assert said["notes"]["flute"] == [60, 48]


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        (f"bytes={ROW}-{2 * ROW - 1}", ROW, 2 * ROW),
        (f"bytes={ROW - 3}-{3 * ROW + 4}", ROW - 3, 3 * ROW + 5),
        (f"bytes={17 * ROW}-", 17 * ROW, 18 * ROW),
        ("bytes=-5", 18 * ROW - 5, 18 * ROW),
        ("bytes=-99999999", 0, 18 * ROW),
        ("bytes=7-99999999", 7, 18 * ROW),
    ],
)
@pytest.mark.parametrize("from_clips", [False, True])
def test_range_has_the_pads_bytes(
    packed: tuple[Workspace, Settings], asked: str, start: int, stop: int, from_clips: bool
):
    workspace, settings = packed
    pads_by_name = {
        name: workspace.pad(pad_name(name)).read_bytes() for name in settings.combinations
    }
    if from_clips:
        workspace.manifest.unlink()
        for path in workspace.pads.glob("*.bin"):
            path.unlink()
    with served(workspace) as server:
        for combination, content in pads_by_name.items():
            answer = ask(server, address("pads", pad_name(combination), "bin"), Range=asked)
            assert answer.status == 206
            assert answer.content == content[start:stop]
            assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{18 * ROW}"
            assert answer.headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize("from_clips", [False, True])
def test_invalid_or_multiple_ranges_give_the_full_pad(
    packed: tuple[Workspace, Settings], from_clips: bool
):
    workspace, settings = packed
    name = pad_name(settings.combinations[1])
    content = workspace.pad(name).read_bytes()
    if from_clips:
        workspace.manifest.unlink()
    with served(workspace) as server:
        target = address("pads", name, "bin")
        for headers in (
            {},
            {"Range": "bytes=0-1,4-5"},
            {"Range": "rows=1-2"},
            {"Range": "bytes=9-3"},
            {"Range": "bytes=-"},
            {"Range": "bytes=0-9", "If_Range": '"yesterday"'},
        ):
            answer = ask(server, target, **headers)
            assert answer.status == 200, headers
            assert answer.content == content
        head = ask(server, target, "HEAD", Range="bytes=0-9")
        assert (head.status, head.content, head.headers["Content-Length"]) == (206, b"", "10")


@pytest.mark.parametrize(
    "asked", [f"bytes={18 * ROW}-", f"bytes={99 * ROW}-{99 * ROW}", "bytes=-0"]
)
def test_range_behind_the_end_is_refused(packed: tuple[Workspace, Settings], asked: str):
    workspace, settings = packed
    with served(workspace) as server:
        target = address("pads", pad_name(settings.combinations[0]), "bin")
        answer = ask(server, target, Range=asked)
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{18 * ROW}"


def test_clips_are_served_as_soon_as_generated(
    planned: tuple[Workspace, Settings, Any],
):
    workspace, settings, plan = planned
    names = [pad_name(combination) for combination in settings.combinations]
    size = Geometry.of(settings).bytes
    heard: dict[tuple[str, int], bytes] = {}
    with served(workspace) as server:
        identity = ask(server, "/pack.json").json["identity"]
        before = ask(server, address("progress", names[0], "json")).json
        assert before["made"] == "0" * (size // ROW)
        assert (before["clips"], before["total"], before["final"]) == (0, len(plan.mixes), False)
        for block in range(plan.blocks):
            draw(workspace, settings, plan, [block])
            for name in names:
                said = ask(server, address("progress", name, "json")).json
                assert said["identity"] == identity
                assert said["clips"] == min(64 * (block + 1), len(plan.mixes))
                for row, made in enumerate(said["made"]):
                    asked = f"bytes={row * ROW}-{(row + 1) * ROW - 1}"
                    answer = ask(server, address("pads", name, "bin"), Range=asked)
                    assert answer.status == (206 if made == "1" else 404)
                    if made == "1":
                        assert heard.setdefault((name, row), answer.content) == answer.content
        assert said["made"] == "1" * (size // ROW)
        assert not said["final"]
        pads.run_pads(workspace, settings, quiet=True)
        after = ask(server, address("progress", names[0], "json")).json
        assert after["final"]
        assert after["identity"] == identity, "equal sounds must not require a reload"
        for name in names:
            content = workspace.pad(name).read_bytes()
            assert content == b"".join(heard[name, row] for row in range(size // ROW))
            assert ask(server, address("pads", name, "bin")).content == content


def test_corners_are_generated_before_edges_and_the_middle(
    planned: tuple[Workspace, Settings, Any],
):
    workspace, settings, plan = planned
    corners_in = (corner_weights(settings.resolution) > 0).sum(axis=1)
    for block in range(plan.blocks - 1):
        draw(workspace, settings, plan, [block])
        made = Preview(workspace).now().sounds.made(0).reshape(36, 2)
        assert made[[0, 5, 30, 35]].all()
        done, begun = made.all(axis=1), made.any(axis=1)
        assert corners_in[begun].max() <= corners_in[~done].min()


def test_pads_of_another_plan_are_not_used(
    packed: tuple[Workspace, Settings],
):
    workspace, settings = packed
    manifest = json.loads(workspace.manifest.read_text())
    with served(workspace) as server:
        first = ask(server, "/pack.json").json["identity"]
        assert ask(server, address("progress", pad_name(settings.combinations[0]), "json")).json[
            "final"
        ]
        workspace.manifest.write_text(json.dumps(manifest | {"plan": "another"}))
        said = ask(server, address("progress", pad_name(settings.combinations[0]), "json")).json
        assert not said["final"]
        assert said["identity"] == first


def test_pads_are_served_without_plan_and_clips(packed: tuple[Workspace, Settings]):
    workspace, settings = packed
    workspace.plan.unlink()
    for path in workspace.clips.iterdir():
        path.unlink()
    name = pad_name(settings.combinations[0])
    with served(workspace) as server:
        answer = ask(server, address("pads", name, "bin"))
    assert answer.content == workspace.pad(name).read_bytes()


def test_changed_settings_are_reported(packed: tuple[Workspace, Settings]):
    workspace, _ = packed
    with served(workspace) as server:
        assert ask(server, "/pack.json").status == 200
        workspace.settings.write_text(json.dumps(PACK | {"pitches": [60]}))
        answer = ask(server, "/pack.json")
    assert answer.status == 503
    assert b"changed since the plan was made" in answer.content
    assert answer.content.count(b"\n") == 1


def test_damaged_block_is_not_available(planned: tuple[Workspace, Settings, Any]):
    workspace, settings, plan = planned
    draw(workspace, settings, plan, [0])
    path = workspace.block(0, plan.block_identity(0))
    path.write_bytes(path.read_bytes()[:-1])
    sounds = Preview(workspace).now().sounds
    assert not sounds.made(0).any()
    draw(workspace, settings, plan, [0])
    assert sounds.made(0).any()


def test_source_notes_are_conformed_for_the_encoder(packed: tuple[Workspace, Settings]):
    workspace, settings = packed
    (workspace.notes / "oboe_48.wav").write_bytes(b"no sound")
    found = {note.name: note for note in notes.find(workspace.notes, settings)[0]}
    with served(workspace) as server:
        for name in settings.instruments:
            answer = ask(server, address("notes", f"{name}_60", "wav"))
            assert answer.headers["Content-Type"] == "audio/wav"
            sound, rate = soundfile.read(io.BytesIO(answer.content))
            assert rate == 16_000
            np.testing.assert_allclose(sound, notes.read(found[name, 60]).audio, atol=2**-15)
        assert ask(server, address("notes", "oboe_48", "wav")).status == 404
        assert ask(server, address("notes", "oboe_61", "wav")).status == 404


@pytest.mark.parametrize(
    "target",
    [
        "/../settings.json",
        "/%2e%2e/settings.json",
        "/..%2fsettings.json",
        "/settings.json",
        "/plan.json",
        "/pads/../settings.json",
        "/pads/..%2f..%2fsettings.json.bin",
        "/pads/%2fetc%2fpasswd.bin",
        "/pads/settings.json",
        "/pads/.bin",
        "/pads/",
        "/pads/%00.bin",
        "/pads/%ff%fe.bin",
        "/notes/../../x_60.wav",
        "/notes/..%2fflute_60.wav",
        "/notes/flute_999.wav",
        "/progress/nobody.json",
        "/page/page.js",
        "/__init__.py",
        "/sounds.py",
        "//127.0.0.1/pack.json/x",
        "/page.js/",
        "/%",
        "*",
    ],
)
def test_unknown_target_is_not_found(packed: tuple[Workspace, Settings], target: str):
    with served(packed[0]) as server:
        answer = ask(server, target)
    assert answer.status == 404
    assert answer.content == b"not found\n"


def test_query_is_ignored_and_other_methods_are_refused(
    packed: tuple[Workspace, Settings],
):
    with served(packed[0]) as server:
        assert ask(server, "/pack.json?x=../..").status == 200
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert ask(server, "/pack.json", method).status == 501


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "",
        "127.0.0.2",
        "[::]",
    ],
)
def test_other_host_names_are_refused(packed: tuple[Workspace, Settings], host: str):
    with served(packed[0]) as server:
        for target in ("/", "/pack.json", "/page.js"):
            answer = ask(server, target, Host=host)
            assert answer.status == 403
            assert b"127.0.0.1" in answer.content
            assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:9000", "[::1]:5"]
)
def test_loopback_host_names_are_accepted_with_any_port(
    packed: tuple[Workspace, Settings], host: str
):
    with served(packed[0]) as server:
        assert ask(server, "/pack.json", Host=host).status == 200


def test_server_listens_on_the_loopback_interface_only(packed: tuple[Workspace, Settings]):
    with served(packed[0]) as server:
        assert server.socket.getsockname()[0] == "127.0.0.1"


def test_port_in_use_is_skipped_unless_requested(
    packed: tuple[Workspace, Settings], monkeypatch: pytest.MonkeyPatch
):
    preview = Preview(packed[0])
    with socket.create_server(("127.0.0.1", 0)) as busy:
        taken = busy.getsockname()[1]
        monkeypatch.setattr("nsynth_super.preview.server.PORT", taken)
        with listen(preview, None) as server:
            assert taken < server.server_port < taken + 20
        with pytest.raises(BadInput, match=f"port {taken} is in use"):
            listen(preview, taken)


def test_preview_requires_a_plan_and_valid_settings(make_workspace: Make):
    workspace = make_workspace(**PACK)
    with pytest.raises(BadInput, match="nsynth-super prepare"):
        Preview(workspace)
    workspace.settings.write_text("{}")
    with pytest.raises(BadInput, match="pitches"):
        Preview(workspace)


def embedded(html: str, name: str) -> str:
    match = re.search(f'<script type="[a-z/]+" id="{name}">(.*?)</script>', html, re.DOTALL)
    assert match
    return match[1]


def test_exported_page_contains_the_pads_bytes(packed: tuple[Workspace, Settings], tmp_path: Path):
    workspace, settings = packed
    path = tmp_path / "page.html"
    written = export.export_page(Preview(workspace).now(), path)
    html = path.read_text(encoding="utf-8")
    data = json.loads(embedded(html, "embedded"))
    for combination in settings.combinations:
        name = pad_name(combination)
        content = b"".join(
            base64.b64decode(embedded(html, f"sound-{number}")) for number in data["pads"][name]
        )
        assert content == workspace.pad(name).read_bytes()
    assert written.size == path.stat().st_size
    assert written.notices == []
    distinct = {number for rows in data["pads"].values() for number in rows}
    assert distinct == set(range(written.sounds))
    number = data["notes"]["flute"]["48"]
    sound, _ = soundfile.read(io.BytesIO(base64.b64decode(embedded(html, f"note-{number}"))))
    assert len(sound) == 64_000


def test_exported_page_loads_nothing_else(packed: tuple[Workspace, Settings], tmp_path: Path):
    path = tmp_path / "page.html"
    export.export_page(Preview(packed[0]).now(), path)
    html = path.read_text(encoding="utf-8")
    for name in ("sound", "note"):
        html = re.sub(rf'<script type="text/plain" id="{name}-\d+">[^<]*</script>', "", html)
    nonce = re.search(r"default-src 'none'; script-src 'nonce-(\w{32})'; style-src 'nonce-", html)
    assert nonce
    tags = re.findall(r"<(?:script|style|link)\b[^>]*>", html)
    loading = [tag for tag in tags if not re.search('rel="icon"|type="application/json"', tag)]
    assert len(loading) == 3
    assert all(f' nonce="{nonce[1]}"' in tag for tag in loading)
    assert not re.search(r'(?:src|href)="(?!data:)', html)


def test_exported_page_contains_the_served_modules_unchanged(
    packed: tuple[Workspace, Settings], tmp_path: Path
):
    path = tmp_path / "page.html"
    export.export_page(Preview(packed[0]).now(), path)
    html = path.read_text(encoding="utf-8")
    import_map = re.search(r'<script type="importmap"[^>]*>(.*?)</script>', html)
    assert import_map
    modules = {
        name.removeprefix("page/"): base64.b64decode(url.partition(",")[2])
        for name, url in json.loads(import_map[1])["imports"].items()
    }
    served = {name: content for name, content in page_files().items() if name.endswith(".js")}
    assert modules == served


def test_nonce_depends_on_all_embedded_content():
    def nonce(*content: Any) -> bytes:
        found = re.search(rb"'nonce-(\w+)'", single_file(*content))
        assert found
        return found[1]

    nonces = [
        nonce({"title": "a"}, [b"1"], [b"2"]),
        nonce({"title": "b"}, [b"1"], [b"2"]),
        nonce({"title": "a"}, [b"3"], [b"2"]),
        nonce({"title": "a"}, [b"1"], [b"4"]),
    ]
    assert len(set(nonces)) == 4
    assert nonce({"title": "a"}, [b"1"], [b"2"]) == nonces[0]


def test_hostile_name_is_escaped_in_the_exported_page(make_workspace: Make, tmp_path: Path):
    workspace = make_workspace(**PACK)
    settings, plan = plan_of(workspace)
    draw(workspace, settings, plan, range(plan.blocks))
    preview = Preview(workspace)
    pack = preview.now()
    pack.described["title"] = "</script><script>alert(1)</script><!--"
    export.export_page(pack, tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "</script><script>alert" not in html
    assert json.loads(embedded(html, "embedded"))["pack"]["title"] == pack.described["title"]


def test_incomplete_pack_is_exported_with_a_notice(
    planned: tuple[Workspace, Settings, Any], tmp_path: Path
):
    workspace, settings, plan = planned
    path = tmp_path / "page.html"
    with pytest.raises(BadInput, match="no clip is generated yet"):
        export.export_page(Preview(workspace).now(), path)
    assert not path.exists()
    draw(workspace, settings, plan, [0])
    written = export.export_page(Preview(workspace).now(), path)
    assert written.sounds <= 64
    assert "2 of 2 pads are incomplete" in written.notices[0]
    data = json.loads(embedded(path.read_text(encoding="utf-8"), "embedded"))
    assert {-1} < set(data["pads"][pad_name(settings.combinations[0])])


def test_pack_too_large_for_a_page_is_refused(
    packed: tuple[Workspace, Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(export, "MAX_SOUND_BYTES", 40_000)
    with pytest.raises(BadInput, match="fewer instruments") as refused:
        export.export_page(Preview(packed[0]).now(), tmp_path / "page.html")
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "page.html").exists()
    monkeypatch.setattr(export, "MAX_SOUND_BYTES", 200_000)
    written = export.export_page(Preview(packed[0]).now(), tmp_path / "page.html")
    assert "recordings are omitted" in written.notices[0]


@pytest.mark.process
def test_command_prints_the_url_and_stops_on_a_signal(packed: tuple[Workspace, Settings]):
    for ask_to_end in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen(
            nsynth_super("preview", "-w", packed[0].root, "--no-open"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout
        assert process.stderr
        url = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", url)
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=30)
        connection.request("GET", "/pack.json")
        assert connection.getresponse().status == 200
        process.send_signal(ask_to_end)
        assert process.wait(timeout=30) == 0
        assert "Traceback" not in process.stderr.read()
        connection.close()


@pytest.mark.slow
def test_command_exports(packed: tuple[Workspace, Settings], tmp_path: Path, command: Any):
    path = tmp_path / "sub" / "pad.html"
    done = command("preview", "-w", packed[0].root, "--export", path)
    assert done.returncode == 0, done.stderr
    assert "wrote" in done.stderr
    assert path.stat().st_size > 10_000
    assert command("-q", "preview", "-w", packed[0].root, "--export", path).stderr == ""


def test_command_refuses_in_one_line(make_workspace: Make, command: Any):
    workspace = make_workspace(**PACK)
    done = command("preview", "-w", workspace.root, "--no-open")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
