"""The checkpoint for the image: a local file or folder, or a URL of a loopback server."""

from __future__ import annotations

import http.server
import os
import re
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from image_build import weights
from nsynth_super.wavenet.magenta_format import DATA, INDEX, PUBLISHED_BYTES, PUBLISHED_NAME


def published_tar(path: Path) -> Path:
    """Make a .tar of the published checkpoint's sizes, as a sparse file."""
    with path.open("wb") as file:
        for ending, size in PUBLISHED_BYTES.items():
            member = tarfile.TarInfo(f"wavenet-ckpt/{PUBLISHED_NAME}{ending}")
            member.size = size
            file.write(member.tobuf())
            file.seek(-(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, os.SEEK_CUR)
        file.truncate(file.tell() + 2 * tarfile.BLOCKSIZE)
    return path


def wrong_with(checkpoint: Path, **values: str) -> list[str]:
    given = {"CHECKPOINT": str(checkpoint), "CHECKPOINT_SHA256": "any", **values}
    return [f"{p.level}: {p}" for p in weights.problems(given, Path("/"))]


def test_a_complete_checkpoint_is_accepted_in_any_format(tmp_path: Path) -> None:
    tar = published_tar(tmp_path / "a.tar")
    save_file({"a": np.zeros(3)}, tmp_path / "b.safetensors")
    (tmp_path / "folder" / "deeper").mkdir(parents=True)
    for ending in (INDEX, DATA):
        (tmp_path / "folder" / "deeper" / f"model{ending}").write_bytes(b"")
    for whole in (tar, tmp_path / "b.safetensors", tmp_path / "folder"):
        assert wrong_with(whole) == []


def test_an_incomplete_checkpoint_is_refused(tmp_path: Path) -> None:
    tar = published_tar(tmp_path / "a.tar")
    os.truncate(tar, tar.stat().st_size // 2)
    assert "is truncated or damaged (unexpected end of data)" in wrong_with(tar)[0]
    tar.write_text("<html>404 in disguise</html>")
    assert "is truncated or damaged" in wrong_with(tar)[0]
    save_file({"a": np.zeros(300)}, tmp_path / "b.safetensors")
    os.truncate(tmp_path / "b.safetensors", 1000)
    assert "is truncated or damaged" in wrong_with(tmp_path / "b.safetensors")[0]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / f"model{INDEX}").write_bytes(b"")
    assert "is missing beside its .index" in wrong_with(tmp_path / "folder")[0]
    assert "name the folder" in wrong_with(tmp_path / "folder" / f"model{INDEX}")[0]


def test_an_ambiguous_or_unusable_checkpoint_is_refused(tmp_path: Path) -> None:
    tar = tmp_path / "a.tar"
    tar.write_bytes(b"")
    assert "requires 00ff" in wrong_with(tar, CHECKPOINT_SHA256="00ff")[0]
    (tmp_path / "b.tar").symlink_to(tar)
    assert "holds several checkpoints: a.tar, b.tar" in wrong_with(tmp_path)[0]
    (tmp_path / "with space").mkdir()
    assert "has a space" in wrong_with(tmp_path / "with space")[0]
    (tmp_path / "c.txt").write_text("")
    assert "is not a checkpoint" in wrong_with(tmp_path / "c.txt")[0]


def test_an_unpublished_checkpoint_is_a_warning(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "mine.tar", "w") as tar:
        tar.add(__file__)
    assert wrong_with(tmp_path / "mine.tar")[0].startswith("warning: ")


class _Answers(http.server.BaseHTTPRequestHandler):
    """A server that announces as many bytes as its path says, and sends none."""

    def do_GET(self) -> None:
        promised = self.path.strip("/")
        self.send_response(404 if promised == "missing" else 200)
        if promised.isdigit():
            self.send_header("Content-Length", promised)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("993899520", None),
        ("1256", "error: .*: offers 1 kB, and the checkpoint is 986.8 MB or more"),
        ("missing", "error: .*404 Client Error"),
        ("chunked", "warning: .*does not report"),
    ],
)
def test_the_checkpoints_url_is_requested_before_the_build(
    server: str, tmp_path: Path, path: str, says: str | None
) -> None:
    (tmp_path / "README.md").write_text("put it here")
    found = wrong_with(tmp_path, CHECKPOINT_URL=f"{server}/{path}")
    assert len(found) == (says is not None)
    for line in found:
        assert re.match(str(says), line)


def test_an_unreachable_server_is_reported_with_alternatives(tmp_path: Path) -> None:
    (line,) = wrong_with(tmp_path, CHECKPOINT_URL="http://127.0.0.1:9/wavenet-ckpt.tar")
    assert "Connection refused" in line
    assert "put wavenet-ckpt.tar into checkpoint/, or name one with --checkpoint" in line
