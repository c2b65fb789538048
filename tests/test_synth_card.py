"""The card: what is found there, what goes onto it, what is proved, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from nsynth_super import card as cards
from nsynth_super.card import install, installation, looping, verify
from nsynth_super.files import sha256
from nsynth_super.problems import BadInput, Failed, NsynthSuperError, Stopped
from nsynth_super.settings import read
from nsynth_super.workspace import Workspace
from tests.cards import DEVICE, SMALL, make_card, make_pack, program, tree

Command = Callable[..., subprocess.CompletedProcess[str]]

OTHER_CORNER = {**SMALL["pads"], "SE": ["bell"]}
OTHERS = {"NW": ["a"], "NE": ["b"], "SW": ["c"], "SE": ["d"]}
FLUTE, HARP = "flute_oboe_drum_viola.bin", "harp_oboe_drum_viola.bin"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workspace]:
    """Packs that are only read."""
    root = tmp_path_factory.mktemp("packs")
    return {
        "small": make_pack(root / "small"),
        "other take": make_pack(root / "take", sounds=1),
        "one corner else": make_pack(root / "corner", pads=OTHER_CORNER),
        "others": make_pack(root / "others", pads=OTHERS),
        "finer": make_pack(root / "finer", resolution=3),
        "other order": make_pack(root / "order", pitches=[60, 48]),
    }


@pytest.fixture
def pack(made: dict[str, Workspace], tmp_path: Path) -> Workspace:
    """The small pack, to do anything to."""
    shutil.copytree(made["small"].root, tmp_path / "pack")
    return Workspace(tmp_path / "pack")


@pytest.fixture
def card(tmp_path: Path) -> Path:
    return make_card(tmp_path / "card")


def put(
    workspace: Workspace, target: Path, folder: str | None = None, named: Path | None = None, **how
) -> Path | None:
    """Install a pack; return where the settings were kept."""
    settings = read(workspace.settings)[0]
    assert settings is not None
    found = cards.find(target, folder, named)
    work = installation.plan(workspace, settings, found, installation.Choices(**how), quiet=True)
    return install.run(workspace, work, quiet=True)


def proved(target: Path, named: Path | None = None) -> list[str]:
    """Return the errors that `verify` lists."""
    report = verify.run(cards.find(target, None, named), quiet=True)
    return [str(problem) for problem in report.problems if problem.level == "error"]


def device(card: Path, name: str = "settings.json") -> dict[str, Any]:
    return json.loads((program(card) / name).read_text())


def listed(given: dict[str, Any]) -> list[list[str]]:
    return [[entry["name"] for entry in corner["instruments"]] for corner in given["corners"]]


def refused(*words: str) -> Any:
    return pytest.raises(NsynthSuperError, match=".*".join(words))


# What lands on the card


def test_the_pads_are_on_the_card_and_the_settings_name_them(pack: Workspace, card: Path):
    put(pack, card)
    pads = card / "home/pi/pads"
    assert {p.name: p.read_bytes() for p in pads.glob("*.bin")} == {
        p.name: p.read_bytes() for p in pack.pads.glob("*.bin")
    }
    nsynth = device(card)["nsynth"]
    assert (nsynth["resolution"], nsynth["pitches"], nsynth["length"]) == (2, [48, 60], 40)
    assert listed(device(card)) == [["flute", "harp"], ["oboe"], ["drum"], ["viola"]]
    assert proved(card) == []


def test_of_the_settings_only_the_packs_part_changes_in_its_old_order(pack: Workspace, card: Path):
    put(pack, card)
    after = device(card)
    ours = {"dataDirectory", "resolution", "pitches", "length", "sampleRate"}
    assert list(after) == list(DEVICE)
    assert list(after["nsynth"]) == list(DEVICE["nsynth"])
    assert {k: v for k, v in after.items() if k not in ("nsynth", "corners")} == {
        k: v for k, v in DEVICE.items() if k not in ("nsynth", "corners")
    }
    for key in DEVICE["nsynth"].keys() - ours:
        assert after["nsynth"][key] == DEVICE["nsynth"][key]


def test_the_settings_from_before_are_kept_and_no_backup_is_overwritten(
    pack: Workspace, made: dict[str, Workspace], card: Path
):
    before = (program(card) / "settings.json").read_bytes()
    kept = [put(pack, card), put(made["others"], card), put(pack, card)]
    assert len(set(kept)) == 3
    assert kept[0].read_bytes() == before
    assert put(pack, card) is None
    assert len(list(program(card).iterdir())) == 4


def test_a_second_install_changes_nothing(pack: Workspace, card: Path):
    put(pack, card)
    before = tree(card)
    put(pack, card)
    assert tree(card) == before


def test_a_dry_run_says_everything_and_writes_nothing(
    pack: Workspace, card: Path, command: Command
):
    shutil.rmtree(card / "home/pi/pads")
    before = sorted(card.rglob("*")), tree(card), tree(pack.root)
    done = command("install", card, "-w", pack.root, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert (sorted(card.rglob("*")), tree(card), tree(pack.root)) == before
    for said in (
        f"would write {card}/home/pi/pads/{HARP} (640 bytes)",
        "nsynth.length: 60000 -> 40",
    ):
        assert said in done.stdout
    assert "corners NW: flute, harp" in done.stdout


def test_the_commands_say_what_they_did(pack: Workspace, card: Path, command: Command):
    done = command("install", card, "-w", pack.root)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 pads copied and read back, 0 there already" in done.stderr
    assert "settings.json.backup-" in done.stderr
    proof = command("verify", card)
    assert (proof.returncode, proof.stdout) == (
        0,
        "whole: 2 pads (1 kB), and settings that fit them\n",
    )
    (card / "home/pi/pads" / HARP).unlink()
    proof = command("verify", card, "--json")
    assert proof.returncode == 2
    said = json.loads(proof.stdout)
    assert not said["whole"]
    assert [problem["where"] for problem in said["problems"]] == [
        f"{card}/home/pi/pads/{HARP}",
        f"{program(card)}/settings.json",
    ]


# Where things are on a card


def test_a_pads_folder_of_a_card_is_a_way_to_name_it(pack: Workspace, card: Path):
    put(pack, card / "home/pi/pads")
    assert listed(device(card))[0] == ["flute", "harp"]
    assert proved(card) == proved(card / "home/pi/pads") == []


def test_a_folder_anywhere_gets_settings_beside_the_pads(
    pack: Workspace, tmp_path: Path, command: Command
):
    (tmp_path / "stick").mkdir()
    done = command("install", tmp_path / "stick", "-w", pack.root)
    assert done.returncode == 0, done.stderr
    assert "let the device's own settings.json take the parts nsynth and corners" in done.stderr
    ours = tmp_path.stat().st_dev == Path("/").stat().st_dev
    assert ("is an empty folder of this computer's own disk, no card" in done.stderr) is ours
    beside = json.loads((tmp_path / "stick/settings.json").read_text())
    assert beside["nsynth"]["dataDirectory"] == "/home/pi/pads"
    assert proved(tmp_path / "stick") == []


def test_a_folder_anywhere_is_where_the_pads_go(
    made: dict[str, Workspace], pack: Workspace, tmp_path: Path
):
    (tmp_path / "stick").mkdir()
    put(pack, tmp_path / "stick")
    with refused("another geometry", "another TARGET leaves it alone"):
        put(made["finer"], tmp_path / "stick")
    with refused("--folder: .*stick is no card", "name the folder that you want as TARGET"):
        put(made["finer"], tmp_path / "stick", folder="finer")


@pytest.mark.parametrize("key", ["resolution", "length", "sampleRate", "pitches"])
def test_settings_that_no_device_reads_are_one_line(pack: Workspace, card: Path, key: str):
    given = {**DEVICE, "nsynth": {**DEVICE["nsynth"], key: None}}
    (program(card) / "settings.json").write_text(json.dumps(given))
    with refused(f"settings.json nsynth.{key}: is not what the device reads"):
        put(pack, card)
    with refused(f"settings.json nsynth.{key}: is not what the device reads"):
        proved(card)


def test_a_devices_settings_may_be_named(pack: Workspace, tmp_path: Path):
    (tmp_path / "stick").mkdir()
    named = tmp_path / "device.json"
    named.write_text(json.dumps(DEVICE))
    put(pack, tmp_path / "stick", named=named)
    assert json.loads(named.read_text())["mine"] == [1, 2]
    assert not (tmp_path / "stick/settings.json").exists()
    assert proved(tmp_path / "stick", named) == []


def test_the_data_directory_decides_where_pads_go_and_links_stay_within_the_card(
    pack: Workspace, tmp_path: Path
):
    nsynth = {**DEVICE["nsynth"], "dataDirectory": "/media/pads"}
    card = make_card(tmp_path / "card", {**DEVICE, "nsynth": nsynth})
    (card / "media").symlink_to("/data/../data")
    put(pack, card)
    assert (card / "data/pads" / FLUTE).exists()
    assert device(card)["nsynth"]["dataDirectory"] == "/media/pads"
    assert proved(card) == proved(card / "data/pads") == []


def test_pads_on_another_partition_are_not_written_beneath_its_mount_point(
    pack: Workspace, tmp_path: Path
):
    nsynth = {**DEVICE["nsynth"], "dataDirectory": "/media/data/pads"}
    card = make_card(tmp_path / "card", {**DEVICE, "nsynth": nsynth})
    (card / "etc/fstab").write_text("proc /proc proc\n/dev/mmcblk0p3 /media/data ext4 ro # mine\n")
    with refused("/media/data/pads is on a partition of its own", "mount it there"):
        put(pack, card)


def test_local_settings_are_what_the_device_reads(pack: Workspace, card: Path, command: Command):
    shutil.copy(program(card) / "settings.json", program(card) / "localSettings.json")
    done = command("install", card, "-w", pack.root)
    assert done.returncode == 0, done.stderr
    assert "localSettings.json: the device reads this and nothing of settings.json" in done.stderr
    assert device(card) == DEVICE
    assert listed(device(card, "localSettings.json"))[1] == ["oboe"]
    assert "the device reads this and nothing of settings.json" in command("verify", card).stdout
    assert proved(card) == []
    named = program(card) / "settings.json"
    with refused("the device reads .*localSettings.json instead -> --device-settings"):
        put(pack, card, named=named)


def test_a_card_without_settings_gets_some(pack: Workspace, tmp_path: Path):
    card = make_card(tmp_path / "card", None)
    put(pack, card)
    assert device(card)["audio"]["sampleRate"] == 48_000
    assert proved(card) == []


def test_what_the_device_cannot_start_without_is_added_and_told(
    pack: Workspace, tmp_path: Path, command: Command
):
    card = make_card(tmp_path / "card", {**DEVICE, "audio": {"bufferSize": 64}})
    assert any("has no audio.sampleRate" in line for line in proved(card))
    done = command("install", card, "-w", pack.root)
    assert "has no audio.sampleRate, without which the device's program ends" in done.stderr
    assert device(card)["audio"] == {"bufferSize": 64, "sampleRate": 48_000}


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("nothing", ("there is no such folder", "mount the card")),
        ("a file", ("is no folder", "where the card is mounted")),
        ("boot", ("is the card's boot partition", "home/pi")),
        ("linux", ("a Linux system without the instrument's program", "name the instrument's")),
        ("workspace", ("is a workspace", "-w")),
        ("template", ("is a workspace", "-w")),
        ("pads_output", ("is where the pack lies already",)),
        ("home", ("is a folder of the card, and not of pads", "name .*card")),
    ],
)
def test_what_is_no_card_is_refused_in_one_line(
    pack: Workspace, card: Path, tmp_path: Path, command: Command, what: str, says: tuple[str, ...]
):
    target = tmp_path / what
    if what == "a file":
        target.write_text("")
    elif what == "boot":
        target.mkdir()
        for name in ("cmdline.txt", "config.txt"):
            (target / name).write_text("")
    elif what == "linux":
        for name in ("etc", "usr", "home/pi"):
            (target / name).mkdir(parents=True)
    elif what == "template":
        target.mkdir()
        shutil.copy(pack.settings, target)
    target = {"workspace": pack.root, "pads_output": pack.pads, "home": card / "home"}.get(
        what, target
    )
    before = tree(tmp_path)
    done = command("install", target, "-w", pack.root)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    with refused(*says):
        put(pack, target)
    assert tree(tmp_path) == before


def test_a_running_desktop_is_no_card(pack: Workspace):
    with refused("^/: is a Linux system without the instrument's program"):
        put(pack, Path("/"))


def test_a_card_that_is_mounted_read_only_is_told_how_to_change_that(
    pack: Workspace, card: Path, monkeypatch: pytest.MonkeyPatch
):
    mounted = SimpleNamespace(f_flag=os.ST_RDONLY)
    monkeypatch.setattr(cards.os, "statvfs", lambda _: mounted)
    monkeypatch.setattr(cards.os.path, "ismount", lambda path: path == card)
    with refused("is mounted read-only -> `sudo mount -o remount,rw", "card`"):
        put(pack, card)


# Packs side by side


def test_packs_of_one_geometry_lie_side_by_side_and_installing_one_again_switches(
    made: dict[str, Workspace], card: Path, command: Command
):
    put(made["small"], card)
    put(made["others"], card)
    assert listed(device(card)) == [["a"], ["b"], ["c"], ["d"]]
    assert proved(card) == []
    manifest = json.loads((card / "home/pi/pads/manifest.json").read_text())
    assert sorted(manifest["pads"]) == ["a_b_c_d.bin", FLUTE, HARP]
    assert [len(pack["pads"]) for pack in manifest["packs"]] == [2, 1]
    done = command("install", card, "-w", made["small"].root)
    assert "0 of 2 pads copied and read back, 2 there already" in done.stderr
    assert "a, b, c, d: listed no more; pads stay" in done.stderr
    assert listed(device(card))[0] == ["flute", "harp"]
    assert proved(card) == []


def test_two_packs_are_listed_together_where_every_combination_has_its_pad(
    made: dict[str, Workspace], card: Path
):
    put(made["small"], card)
    put(made["one corner else"], card, add=True)
    assert listed(device(card)) == [["flute", "harp"], ["oboe"], ["drum"], ["viola", "bell"]]
    assert proved(card) == []


def test_two_packs_are_not_listed_together_where_pads_would_be_missing(
    made: dict[str, Workspace], card: Path
):
    put(made["small"], card)
    before = tree(card)
    with refused("--add: a_b_c_viola.bin, .* and 18 more would be missing"):
        put(made["others"], card, add=True)
    assert tree(card) == before
    with refused("--add: .*lists no instruments of this geometry", "leave it away"):
        put(made["others"], card, folder="others", add=True)


@pytest.mark.parametrize(
    ("which", "differs"), [("finer", "resolution 2, not 3"), ("other order", "pitches 48 60, not")]
)
def test_another_geometry_in_one_folder_is_a_clear_no(
    made: dict[str, Workspace], card: Path, which: str, differs: str
):
    put(made["small"], card)
    before = tree(card)
    with refused(f"another geometry .{differs}", "--folder NAME", "--replace"):
        put(made[which], card)
    assert tree(card) == before
    put(made[which], card, folder="pads-new")
    assert device(card)["nsynth"]["dataDirectory"] == "/home/pi/pads-new"
    assert (card / "home/pi/pads" / FLUTE).exists()
    assert proved(card) == []
    put(made["small"], card, folder="/home/pi/pads")
    assert proved(card) == []
    put(made[which], card, replace=True)
    assert proved(card) == []


def test_pads_that_no_manifest_lists_are_known_by_size_and_by_the_devices_settings(
    made: dict[str, Workspace], card: Path
):
    factory = card / "home/pi/pads/brass_viola_snare_windfx.bin"
    factory.write_bytes(bytes(640))
    with refused("another geometry .resolution 9, not 2; pitches 24 28, not 48 60"):
        put(made["small"], card)
    factory.write_bytes(bytes(9))
    firmware = card / "home/pi/pads/firmware.bin"
    firmware.write_bytes(b"no pad")
    with refused("another geometry .resolution 9, not 2"):
        put(made["small"], card)
    with refused("firmware.bin: has 6 bytes", "nothing says what it is", "move it away"):
        put(made["small"], card, replace=True)
    assert factory.exists()
    firmware.unlink()
    put(made["small"], card, replace=True)
    assert not factory.exists()
    assert proved(card) == []


def cut(pad: Path) -> Path:
    """Cut a pad short."""
    pad.write_bytes(bytes(10))
    return pad


@pytest.mark.parametrize("manifest", [True, False])
def test_of_pads_of_the_same_geometry_only_those_cut_short_make_way(
    made: dict[str, Workspace], card: Path, manifest: bool
):
    pads = card / "home/pi/pads"
    put(made["small"], card)
    short = cut(pads / "a_b_c_d.bin") if manifest else cut(pads / FLUTE)
    if not manifest:
        (pads / "manifest.json").unlink()
    before = tree(card)
    with refused(f"{short.name} are cut short", "has 10 bytes, not 640", "--replace"):
        put(made["one corner else"] if manifest else made["others"], card)
    assert tree(card) == before
    if manifest:
        put(made["others"], card, replace=True)
        assert short.stat().st_size == 640
        assert (pads / FLUTE).exists()
    else:
        put(made["others"], card, replace=True)
        assert not short.exists()
    assert (pads / HARP).exists()
    assert proved(card) == []


def test_a_pad_of_another_pack_that_is_cut_short_stays_listed_until_it_is_mended(
    made: dict[str, Workspace], card: Path, command: Command
):
    put(made["small"], card)
    cut(card / "home/pi/pads" / HARP)
    done = command("install", card, "-w", made["others"].root)
    assert (
        f"warning: {card / 'home/pi/pads'}: {HARP} of an earlier pack are cut short" in done.stderr
    )
    assert [HARP in line and "run install again" in line for line in proved(card)] == [True]
    put(made["small"], card)
    assert proved(card) == []


def test_what_is_removed_is_told(made: dict[str, Workspace], card: Path, command: Command):
    put(made["others"], card)
    done = command("install", card, "-w", made["finer"].root, "--replace")
    assert "a, b, c, d: listed no more; pads are removed" in done.stderr
    assert f"install: 1 pad removed from {card / 'home/pi/pads'}" in done.stderr


def test_nothing_makes_way_for_a_pack_that_is_not_whole(
    made: dict[str, Workspace], pack: Workspace, card: Path
):
    put(made["finer"], card)
    (pack.pads / HARP).write_bytes(bytes(640))
    before = tree(card)
    with refused(f"{HARP}: is not what manifest.json beside it says"):
        put(pack, card, replace=True)
    assert tree(card) == before


def test_pads_of_one_name_and_other_sounds_are_overwritten_only_on_request(
    made: dict[str, Workspace], card: Path
):
    put(made["small"], card)
    before = tree(card)
    with refused(f"{FLUTE}, {HARP} are there with other sounds", "--replace"):
        put(made["other take"], card)
    assert tree(card) == before
    put(made["other take"], card, replace=True)
    assert sha256(card / "home/pi/pads" / HARP) == sha256(made["other take"].pads / HARP)
    assert proved(card) == []


def test_pads_of_an_earlier_pack_that_somebody_removed_are_listed_no_more(
    made: dict[str, Workspace], card: Path
):
    put(made["others"], card)
    (card / "home/pi/pads/a_b_c_d.bin").unlink()
    put(made["small"], card)
    assert proved(card) == []


# What is damaged, and what is in the way


def test_verify_lists_everything_and_install_mends_it(made: dict[str, Workspace], card: Path):
    put(made["one corner else"], card)
    put(made["small"], card)
    pads = card / "home/pi/pads"
    flipped = bytearray((pads / FLUTE).read_bytes())
    flipped[333] ^= 1
    (pads / FLUTE).write_bytes(flipped)
    os.truncate(pads / HARP, 600)
    (pads / "flute_oboe_drum_bell.bin").unlink()
    (pads / "stray.bin").write_bytes(b"")
    settings = device(card)
    settings["nsynth"]["length"] = 41
    settings["corners"][2]["instruments"] = []
    (program(card) / "settings.json").write_text(json.dumps(settings))
    found = "\n".join(proved(card))
    for said in (
        f"{FLUTE}: is not what the manifest says",
        f"{HARP}: has 600 bytes, not 640",
        "flute_oboe_drum_bell.bin: is missing",
        "stray.bin: has 0 bytes, not 640 -> move it away",
        "nsynth.length 41, not 40",
        "lists no instrument in corner SW",
    ):
        assert said in found
    (pads / "stray.bin").unlink()
    put(made["small"], card)
    assert proved(card) == []


def test_verify_holds_a_packs_own_folder_too(pack: Workspace, tmp_path: Path):
    shutil.copytree(pack.pads, tmp_path / "copied")
    assert proved(tmp_path / "copied") == []
    os.truncate(tmp_path / "copied" / HARP, 2)
    assert len(proved(tmp_path / "copied")) == 2


def test_a_card_that_reads_back_something_else_gets_no_pad(
    pack: Workspace, card: Path, monkeypatch: pytest.MonkeyPatch
):
    before = tree(card)
    monkeypatch.setattr(install, "digest", lambda *_: "0" * 64)
    with pytest.raises(Failed, match="reads back other than it was written -> the card"):
        put(pack, card)
    settings = program(card) / "settings.json"
    assert [name for name in tree(card) if name not in before] == [
        str(kept.relative_to(card)) for kept in settings.parent.glob("*.backup-*")
    ]


def test_a_damaged_pad_of_the_workspace_is_named(pack: Workspace, card: Path):
    (pack.pads / HARP).write_bytes(bytes(640))
    with pytest.raises(BadInput, match=f"{HARP}: is not what manifest.json beside it says"):
        put(pack, card)
    assert not (card / "home/pi/pads" / HARP).exists()


@pytest.mark.parametrize("harm", ["no pads", "cut short", "other settings", "card's manifest"])
def test_a_pack_that_is_not_ready_is_refused(pack: Workspace, card: Path, harm: str):
    if harm == "no pads":
        shutil.rmtree(pack.pads)
    elif harm == "cut short":
        os.truncate(pack.pads / HARP, 5)
    elif harm == "other settings":
        pack.settings.write_text(json.dumps({**SMALL, "final_length": 41}))
    else:
        (card / "home/pi/pads/manifest.json").write_text('{"pads": {"../../x.bin": ""}}')
    before = tree(card)
    with refused(
        {
            "no pads": "there are no pads yet -> run `nsynth-super pads` first",
            "cut short": f"{HARP}: is missing or cut short -> run `nsynth-super pads`",
            "other settings": "made for other settings than settings.json has now",
            "card's manifest": "manifest.json: is damaged, or not ours -> remove it",
        }[harm]
    ):
        put(pack, card)
    assert tree(card) == before


def test_a_card_without_room_is_refused_before_anything_is_written(
    pack: Workspace, card: Path, monkeypatch: pytest.MonkeyPatch
):
    before = tree(card)
    monkeypatch.setattr(installation.shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000))
    with refused("2 pads and the settings need 1.0 MB, 100 kB are free -> free some"):
        put(pack, card)
    assert tree(card) == before


def test_a_stop_leaves_whole_pads_and_goes_on_with_the_rest(
    pack: Workspace, card: Path, monkeypatch: pytest.MonkeyPatch
):
    copies = []

    def stopping(*given: Any) -> None:
        if copies:
            os.kill(os.getpid(), signal.SIGTERM)
        copies.append(given)
        copy(*given)

    copy = install._copy
    monkeypatch.setattr(install, "_copy", stopping)
    with pytest.raises(Stopped, match="1 of 2 pads are on the card; run it again") as stopped:
        put(pack, card)
    assert stopped.value.exit_code == 75
    pads = card / "home/pi/pads"
    assert [path.name for path in pads.iterdir() if path.name != ".install.lock"] == [FLUTE]
    (pads / f".{HARP}.01234567.part").write_bytes(b"left by a kill")
    inode = (pads / FLUTE).stat().st_ino
    monkeypatch.setattr(install, "_copy", copy)
    put(pack, card)
    assert (pads / FLUTE).stat().st_ino == inode
    assert not list(pads.glob(".*.part"))
    assert proved(card) == []


# Names and looping


def test_labels_come_from_the_settings_and_are_no_two_alike(tmp_path: Path, card: Path):
    corners = {
        **SMALL["pads"],
        "NW": ["acoustic_guitar", "acoustic_bass"],
        "SE": ["electricpiano"],
    }
    names = {"electricpiano": {"display": "E PIANO", "abbr": "EP"}, "drum": {"display": "Boom"}}
    put(make_pack(tmp_path / "named", pads=corners, names=names), card)
    entries = [entry for corner in device(card)["corners"] for entry in corner["instruments"]]
    assert {entry["name"]: (entry["display"], entry["abbr"]) for entry in entries} == {
        "acoustic_bass": ("ACOUSTIC", "AB"),
        "acoustic_guitar": ("ACO GUIT", "AG"),
        "oboe": ("OBOE", "OB"),
        "drum": ("Boom", "DR"),
        "electricpiano": ("E PIANO", "EP"),
    }


def test_looping_is_the_devices_own_unless_somebody_says_otherwise(pack: Workspace, card: Path):
    put(pack, card)
    assert device(card)["nsynth"]["looping"] is True
    put(pack, card, looping=False)
    assert device(card)["nsynth"]["looping"] is False
    put(pack, card)
    assert device(card)["nsynth"]["looping"] is False
    pack.settings.write_text(json.dumps({**SMALL, "looping": True}))
    put(pack, card)
    assert device(card)["nsynth"]["looping"] is True


def tone(half_life: float, length: int = 60_000) -> np.ndarray:
    t = np.arange(length) / 16_000
    return (8231 * 0.5 ** (t / half_life) * np.sin(440 * t * 2 * np.pi)).astype("<i2")


@pytest.mark.parametrize(("half_life", "dies"), [(0.1, True), (0.3, True), (2.0, False)])
def test_a_sound_that_dies_away_is_told_from_one_that_lasts(half_life: float, dies: bool):
    assert looping.decays(tone(half_life)) is dies


def test_silence_and_the_shortest_sound_do_not_die_away():
    assert not looping.decays(np.zeros(60_000, "<i2"))
    assert not looping.decays(tone(0.1, 100))


def test_dying_sounds_are_counted_where_the_pads_hold_the_notes(
    tmp_path: Path, card: Path, command: Command
):
    pack = make_pack(tmp_path / "dying", final_length=16_000)
    assert looping.count(pack.pads, read(pack.settings)[0]) == (0, 10)
    manifest = json.loads(pack.manifest.read_text())
    for name in (FLUTE, HARP):  # of the five instruments, all but the viola
        pad = np.fromfile(pack.pads / name, "<i2").reshape(2, 2, 2, 16_000)
        for y, x in ((0, 0), (0, 1), (1, 0)):
            pad[y, x] = tone(0.02, 16_000)
        pad.tofile(pack.pads / name)
        manifest["pads"][name] = sha256(pack.pads / name)
    pack.manifest.write_text(json.dumps(manifest))
    done = command("install", card, "-w", pack.root, "--dry-run")
    assert "note: looping: 8 of 10 notes die away" in done.stdout
    assert "--no-looping plays them to their end" in done.stdout
    done = command("install", card, "-w", pack.root, "--no-looping")
    assert "die away" not in done.stderr
    assert device(card)["nsynth"]["looping"] is False


# Whatever happens in whatever order

steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["small", "other take", "one corner else", "others", "finer", "other order"]
        ),
        st.booleans(),
        st.booleans(),
        st.sampled_from([None, None, "pads", "pads-2"]),
        st.sampled_from(["", "", "flip", "cut", "remove", "manifest", "local"]),
    ),
    min_size=1,
    max_size=5,
)


@hypothesis_settings(max_examples=hypothesis_settings.default.max_examples // 4)
@given(steps=steps)
@example(  # a pad is damaged, its own pack refused, and another put beside it
    steps=[
        ("small", False, False, None, ""),
        ("other take", False, False, None, "flip"),
        ("one corner else", False, False, None, ""),
    ]
)
def test_what_install_says_is_done_verify_finds_whole(
    made: dict[str, Workspace], tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
):
    card = make_card(tmp_path_factory.mktemp("card") / "card")
    harmed: dict[Path, str] = {}  # pads, until their own pack is installed
    for which, replace, add, folder, harm in steps:
        pads = cards.find(card, folder).pads
        _harm(card, pads, made[which], harm, harmed)
        before = tree(card)
        try:
            put(made[which], card, folder, replace=replace, add=add)
        except BadInput:
            assert tree(card) == before
        else:
            for pad in made[which].pads.glob("*.bin"):
                harmed.pop(pads / pad.name, None)
            mended_later = {f"{pad}: {what} -> run install again" for pad, what in harmed.items()}
            assert set(proved(card)) <= mended_later


def _harm(card: Path, folder: Path, pack: Workspace, harm: str, harmed: dict[Path, str]) -> None:
    """Damage a pad that is about to be installed, or its manifest; or override the settings.

    `harmed` is what `verify` may say of pads from now on.
    """
    pad = folder / min(pack.pads.glob("*.bin")).name
    if harm == "flip" and pad.exists():
        pad.write_bytes(bytes([pad.read_bytes()[0] ^ 1]) + pad.read_bytes()[1:])
        harmed.setdefault(pad, "is not what the manifest says")
    elif harm == "cut" and pad.exists():
        if (size := pad.stat().st_size) != 10:
            harmed[pad] = f"has 10 bytes, not {size:,}"
        os.truncate(pad, 10)
    elif harm == "remove":
        pad.unlink(missing_ok=True)
        harmed.pop(pad, None)
    elif harm == "manifest":
        (folder / "manifest.json").unlink(missing_ok=True)
    elif harm == "local":
        shutil.copy(program(card) / "settings.json", program(card) / "localSettings.json")
