"""Installing packs on the synth's SD card and verifying them."""

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

from nsynth_super.base.errors import BadInput, Failed, NsynthSuperError, Stopped
from nsynth_super.base.files import sha256
from nsynth_super.base.workspace import Workspace
from nsynth_super.settings import read
from nsynth_super.synth import card as cards
from nsynth_super.synth import install, install_plan, looping, verify
from tests.cards import SMALL, SYNTH, make_card, make_pack, program, tree

Command = Callable[..., subprocess.CompletedProcess[str]]

OTHER_CORNER = {**SMALL["pads"], "SE": ["bell"]}
OTHERS = {"NW": ["a"], "NE": ["b"], "SW": ["c"], "SE": ["d"]}
FLUTE, HARP = "flute_oboe_drum_viola.bin", "harp_oboe_drum_viola.bin"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workspace]:
    """Packs that tests only read."""
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
    """A copy of the small pack that tests may change."""
    shutil.copytree(made["small"].root, tmp_path / "pack")
    return Workspace(tmp_path / "pack")


@pytest.fixture
def card(tmp_path: Path) -> Path:
    return make_card(tmp_path / "card")


def install_on(
    workspace: Workspace, target: Path, folder: str | None = None, named: Path | None = None, **how
) -> Path | None:
    """Install a pack; return the backup of the settings."""
    settings = read(workspace.settings)[0]
    assert settings is not None
    found = cards.find_card(target, folder, named)
    plan = install_plan.plan_install(
        workspace, settings, found, install_plan.InstallOptions(**how), quiet=True
    )
    return install.install_pack(workspace, plan, quiet=True)


def errors_found(target: Path, named: Path | None = None) -> list[str]:
    """Return the errors that `verify` reports."""
    report = verify.verify_card(cards.find_card(target, None, named), quiet=True)
    return [str(problem) for problem in report.problems if problem.level == "error"]


def synth_settings(card: Path, name: str = "settings.json") -> dict[str, Any]:
    return json.loads((program(card) / name).read_text())


def listed(given: dict[str, Any]) -> list[list[str]]:
    return [[entry["name"] for entry in corner["instruments"]] for corner in given["corners"]]


def refused(*words: str) -> Any:
    return pytest.raises(NsynthSuperError, match=".*".join(words))


# Installing a pack


def test_install_copies_the_pads_and_selects_them_in_the_settings(pack: Workspace, card: Path):
    install_on(pack, card)
    pads = card / "home/pi/pads"
    assert {p.name: p.read_bytes() for p in pads.glob("*.bin")} == {
        p.name: p.read_bytes() for p in pack.pads.glob("*.bin")
    }
    nsynth = synth_settings(card)["nsynth"]
    assert (nsynth["resolution"], nsynth["pitches"], nsynth["length"]) == (2, [48, 60], 40)
    assert listed(synth_settings(card)) == [["flute", "harp"], ["oboe"], ["drum"], ["viola"]]
    assert errors_found(card) == []


def test_install_changes_only_the_packs_settings_and_keeps_the_key_order(
    pack: Workspace, card: Path
):
    install_on(pack, card)
    after = synth_settings(card)
    ours = {"dataDirectory", "resolution", "pitches", "length", "sampleRate"}
    assert list(after) == list(SYNTH)
    assert list(after["nsynth"]) == list(SYNTH["nsynth"])
    assert {k: v for k, v in after.items() if k not in ("nsynth", "corners")} == {
        k: v for k, v in SYNTH.items() if k not in ("nsynth", "corners")
    }
    for key in SYNTH["nsynth"].keys() - ours:
        assert after["nsynth"][key] == SYNTH["nsynth"][key]


def test_each_install_keeps_its_own_backup_of_the_settings(
    pack: Workspace, made: dict[str, Workspace], card: Path
):
    before = (program(card) / "settings.json").read_bytes()
    kept = [install_on(pack, card), install_on(made["others"], card), install_on(pack, card)]
    assert len(set(kept)) == 3
    assert kept[0].read_bytes() == before
    assert install_on(pack, card) is None
    assert len(list(program(card).iterdir())) == 4


def test_a_second_install_changes_nothing(pack: Workspace, card: Path):
    install_on(pack, card)
    before = tree(card)
    install_on(pack, card)
    assert tree(card) == before


def test_a_dry_run_prints_every_change_and_writes_nothing(
    pack: Workspace, card: Path, command: Command
):
    shutil.rmtree(card / "home/pi/pads")
    before = sorted(card.rglob("*")), tree(card), tree(pack.root)
    done = command("install", card, "-w", pack.root, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert (sorted(card.rglob("*")), tree(card), tree(pack.root)) == before
    for line in (
        f"would write {card}/home/pi/pads/{HARP} (640 bytes)",
        "nsynth.length: 60000 -> 40",
    ):
        assert line in done.stdout
    assert "corners NW: flute, harp" in done.stdout


def test_install_and_verify_print_their_results(pack: Workspace, card: Path, command: Command):
    done = command("install", card, "-w", pack.root)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 pads copied and read back, 0 already present" in done.stderr
    assert "settings.json.backup-" in done.stderr
    verified = command("verify", card)
    assert (verified.returncode, verified.stdout) == (
        0,
        "ok: 2 pads (1 kB), and settings that match them\n",
    )
    (card / "home/pi/pads" / HARP).unlink()
    verified = command("verify", card, "--json")
    assert verified.returncode == 2
    report = json.loads(verified.stdout)
    assert not report["whole"]
    assert [problem["where"] for problem in report["problems"]] == [
        f"{card}/home/pi/pads/{HARP}",
        f"{program(card)}/settings.json",
    ]


# Locating pads and settings


def test_the_target_may_be_the_cards_pads_folder(pack: Workspace, card: Path):
    install_on(pack, card / "home/pi/pads")
    assert listed(synth_settings(card))[0] == ["flute", "harp"]
    assert errors_found(card) == errors_found(card / "home/pi/pads") == []


def test_any_folder_gets_pads_and_a_settings_file(
    pack: Workspace, tmp_path: Path, command: Command
):
    (tmp_path / "stick").mkdir()
    done = command("install", tmp_path / "stick", "-w", pack.root)
    assert done.returncode == 0, done.stderr
    assert "install: copy the keys nsynth and corners of" in done.stderr
    same_disk = tmp_path.stat().st_dev == Path("/").stat().st_dev
    assert ("is an empty folder on this computer's disk, not a card" in done.stderr) is same_disk
    beside = json.loads((tmp_path / "stick/settings.json").read_text())
    assert beside["nsynth"]["dataDirectory"] == "/home/pi/pads"
    assert errors_found(tmp_path / "stick") == []


def test_any_folder_refuses_another_geometry_and_the_folder_option(
    made: dict[str, Workspace], pack: Workspace, tmp_path: Path
):
    (tmp_path / "stick").mkdir()
    install_on(pack, tmp_path / "stick")
    with refused("another geometry", "another TARGET avoids the conflict"):
        install_on(made["finer"], tmp_path / "stick")
    with refused("--folder: .*stick is not a card's root", "give the pads folder as TARGET"):
        install_on(made["finer"], tmp_path / "stick", folder="finer")


@pytest.mark.parametrize("key", ["resolution", "length", "sampleRate", "pitches"])
def test_invalid_synth_settings_are_reported_in_one_line(pack: Workspace, card: Path, key: str):
    given = {**SYNTH, "nsynth": {**SYNTH["nsynth"], key: None}}
    (program(card) / "settings.json").write_text(json.dumps(given))
    with refused(f"settings.json nsynth.{key}: is not valid for the synth"):
        install_on(pack, card)
    with refused(f"settings.json nsynth.{key}: is not valid for the synth"):
        errors_found(card)


def test_the_synths_settings_may_be_elsewhere(pack: Workspace, tmp_path: Path):
    (tmp_path / "stick").mkdir()
    named = tmp_path / "synth.json"
    named.write_text(json.dumps(SYNTH))
    install_on(pack, tmp_path / "stick", named=named)
    assert json.loads(named.read_text())["mine"] == [1, 2]
    assert not (tmp_path / "stick/settings.json").exists()
    assert errors_found(tmp_path / "stick", named) == []


def test_pads_go_to_the_data_directory_and_links_resolve_within_the_card(
    pack: Workspace, tmp_path: Path
):
    nsynth = {**SYNTH["nsynth"], "dataDirectory": "/media/pads"}
    card = make_card(tmp_path / "card", {**SYNTH, "nsynth": nsynth})
    (card / "media").symlink_to("/data/../data")
    install_on(pack, card)
    assert (card / "data/pads" / FLUTE).exists()
    assert synth_settings(card)["nsynth"]["dataDirectory"] == "/media/pads"
    assert errors_found(card) == errors_found(card / "data/pads") == []


def test_pads_are_not_written_to_an_unmounted_partitions_mount_point(
    pack: Workspace, tmp_path: Path
):
    nsynth = {**SYNTH["nsynth"], "dataDirectory": "/media/data/pads"}
    card = make_card(tmp_path / "card", {**SYNTH, "nsynth": nsynth})
    (card / "etc/fstab").write_text("proc /proc proc\n/dev/mmcblk0p3 /media/data ext4 ro # mine\n")
    with refused("/media/data/pads is on a separate partition", "mount it there"):
        install_on(pack, card)


def test_local_settings_override_the_settings(pack: Workspace, card: Path, command: Command):
    shutil.copy(program(card) / "settings.json", program(card) / "localSettings.json")
    done = command("install", card, "-w", pack.root)
    assert done.returncode == 0, done.stderr
    assert "localSettings.json: the synth reads this file instead of settings.json" in done.stderr
    assert synth_settings(card) == SYNTH
    assert listed(synth_settings(card, "localSettings.json"))[1] == ["oboe"]
    assert "the synth reads this file instead of settings.json" in command("verify", card).stdout
    assert errors_found(card) == []
    named = program(card) / "settings.json"
    with refused("the synth reads .*localSettings.json instead -> use --synth-settings"):
        install_on(pack, card, named=named)


def test_install_creates_missing_settings(pack: Workspace, tmp_path: Path):
    card = make_card(tmp_path / "card", None)
    install_on(pack, card)
    assert synth_settings(card)["audio"]["sampleRate"] == 48_000
    assert errors_found(card) == []


def test_install_adds_keys_that_the_synth_requires_with_a_warning(
    pack: Workspace, tmp_path: Path, command: Command
):
    card = make_card(tmp_path / "card", {**SYNTH, "audio": {"bufferSize": 64}})
    assert any("has no audio.sampleRate" in line for line in errors_found(card))
    done = command("install", card, "-w", pack.root)
    assert "has no audio.sampleRate, which the synth's program requires" in done.stderr
    assert synth_settings(card)["audio"] == {"bufferSize": 64, "sampleRate": 48_000}


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("nothing", ("does not exist", "mount the card")),
        ("a file", ("is not a folder", "the card's mount point")),
        ("boot", ("is the card's boot partition", "home/pi")),
        ("linux", ("a Linux system without the synth's program", "give the synth's")),
        ("workspace", ("is a workspace", "-w")),
        ("template", ("is a workspace", "-w")),
        ("pads_output", ("is the workspace's pack itself",)),
        ("home", ("is a folder on the card, but not of pads", "give .*card")),
    ],
)
def test_a_target_that_is_not_a_card_is_refused_in_one_line(
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
        install_on(pack, target)
    assert tree(tmp_path) == before


def test_a_running_desktop_is_not_a_card(pack: Workspace):
    with refused("^/: is a Linux system without the synth's program"):
        install_on(pack, Path("/"))


def test_a_read_only_card_is_refused_with_the_command_to_remount_it(
    pack: Workspace, card: Path, monkeypatch: pytest.MonkeyPatch
):
    mounted = SimpleNamespace(f_flag=os.ST_RDONLY)
    monkeypatch.setattr(cards.os, "statvfs", lambda _: mounted)
    monkeypatch.setattr(cards.os.path, "ismount", lambda path: path == card)
    with refused("is mounted read-only -> run `sudo mount -o remount,rw", "card`"):
        install_on(pack, card)


# Several packs on one card


def test_packs_of_one_geometry_share_a_folder_and_installing_one_again_switches(
    made: dict[str, Workspace], card: Path, command: Command
):
    install_on(made["small"], card)
    install_on(made["others"], card)
    assert listed(synth_settings(card)) == [["a"], ["b"], ["c"], ["d"]]
    assert errors_found(card) == []
    manifest = json.loads((card / "home/pi/pads/manifest.json").read_text())
    assert sorted(manifest["pads"]) == ["a_b_c_d.bin", FLUTE, HARP]
    assert [len(pack["pads"]) for pack in manifest["packs"]] == [2, 1]
    done = command("install", card, "-w", made["small"].root)
    assert "0 of 2 pads copied and read back, 2 already present" in done.stderr
    assert "a, b, c, d: no longer listed; their pads stay" in done.stderr
    assert listed(synth_settings(card))[0] == ["flute", "harp"]
    assert errors_found(card) == []


def test_two_packs_are_listed_together_if_every_combination_has_a_pad(
    made: dict[str, Workspace], card: Path
):
    install_on(made["small"], card)
    install_on(made["one corner else"], card, add=True)
    assert listed(synth_settings(card)) == [
        ["flute", "harp"],
        ["oboe"],
        ["drum"],
        ["viola", "bell"],
    ]
    assert errors_found(card) == []


def test_two_packs_are_not_listed_together_if_pads_would_be_missing(
    made: dict[str, Workspace], card: Path
):
    install_on(made["small"], card)
    before = tree(card)
    with refused("--add: a_b_c_viola.bin, .* and 18 more would be missing"):
        install_on(made["others"], card, add=True)
    assert tree(card) == before
    with refused("--add: .*lists no instruments with this geometry", "omit it"):
        install_on(made["others"], card, folder="others", add=True)


@pytest.mark.parametrize(
    ("which", "differs"), [("finer", "resolution 2, not 3"), ("other order", "pitches 48 60, not")]
)
def test_another_geometry_in_the_same_folder_is_refused(
    made: dict[str, Workspace], card: Path, which: str, differs: str
):
    install_on(made["small"], card)
    before = tree(card)
    with refused(f"another geometry .{differs}", "--folder NAME", "--replace"):
        install_on(made[which], card)
    assert tree(card) == before
    install_on(made[which], card, folder="pads-new")
    assert synth_settings(card)["nsynth"]["dataDirectory"] == "/home/pi/pads-new"
    assert (card / "home/pi/pads" / FLUTE).exists()
    assert errors_found(card) == []
    install_on(made["small"], card, folder="/home/pi/pads")
    assert errors_found(card) == []
    install_on(made[which], card, replace=True)
    assert errors_found(card) == []


def test_pads_without_a_manifest_are_identified_by_size_and_the_synths_settings(
    made: dict[str, Workspace], card: Path
):
    factory = card / "home/pi/pads/brass_viola_snare_windfx.bin"
    factory.write_bytes(bytes(640))
    with refused("another geometry .resolution 9, not 2; pitches 24 28, not 48 60"):
        install_on(made["small"], card)
    factory.write_bytes(bytes(9))
    firmware = card / "home/pi/pads/firmware.bin"
    firmware.write_bytes(b"no pad")
    with refused("another geometry .resolution 9, not 2"):
        install_on(made["small"], card)
    with refused("firmware.bin: has 6 bytes", "is not known to be a pad", "move it elsewhere"):
        install_on(made["small"], card, replace=True)
    assert factory.exists()
    firmware.unlink()
    install_on(made["small"], card, replace=True)
    assert not factory.exists()
    assert errors_found(card) == []


def truncate(pad: Path) -> Path:
    """Truncate a pad."""
    pad.write_bytes(bytes(10))
    return pad


@pytest.mark.parametrize("manifest", [True, False])
def test_replace_removes_only_truncated_pads_of_the_same_geometry(
    made: dict[str, Workspace], card: Path, manifest: bool
):
    pads = card / "home/pi/pads"
    install_on(made["small"], card)
    short = truncate(pads / "a_b_c_d.bin") if manifest else truncate(pads / FLUTE)
    if not manifest:
        (pads / "manifest.json").unlink()
    before = tree(card)
    with refused(f"{short.name}: truncated", "has 10 bytes, expected 640", "--replace"):
        install_on(made["one corner else"] if manifest else made["others"], card)
    assert tree(card) == before
    if manifest:
        install_on(made["others"], card, replace=True)
        assert short.stat().st_size == 640
        assert (pads / FLUTE).exists()
    else:
        install_on(made["others"], card, replace=True)
        assert not short.exists()
    assert (pads / HARP).exists()
    assert errors_found(card) == []


def test_a_truncated_pad_of_another_pack_stays_listed_until_it_is_repaired(
    made: dict[str, Workspace], card: Path, command: Command
):
    install_on(made["small"], card)
    truncate(card / "home/pi/pads" / HARP)
    done = command("install", card, "-w", made["others"].root)
    assert (
        f"warning: {card / 'home/pi/pads'}: {HARP} of an earlier pack are truncated" in done.stderr
    )
    assert [HARP in line and "run install again" in line for line in errors_found(card)] == [True]
    install_on(made["small"], card)
    assert errors_found(card) == []


def test_install_reports_removed_pads(made: dict[str, Workspace], card: Path, command: Command):
    install_on(made["others"], card)
    done = command("install", card, "-w", made["finer"].root, "--replace")
    assert "a, b, c, d: no longer listed; their pads are removed" in done.stderr
    assert f"install: 1 pad removed from {card / 'home/pi/pads'}" in done.stderr


def test_a_damaged_pack_replaces_nothing(made: dict[str, Workspace], pack: Workspace, card: Path):
    install_on(made["finer"], card)
    (pack.pads / HARP).write_bytes(bytes(640))
    before = tree(card)
    with refused(f"{HARP}: does not match the manifest.json in its folder"):
        install_on(pack, card, replace=True)
    assert tree(card) == before


def test_pads_with_other_content_are_overwritten_only_with_replace(
    made: dict[str, Workspace], card: Path
):
    install_on(made["small"], card)
    before = tree(card)
    with refused(f"{FLUTE}, {HARP}: other pads with the same names exist", "--replace"):
        install_on(made["other take"], card)
    assert tree(card) == before
    install_on(made["other take"], card, replace=True)
    assert sha256(card / "home/pi/pads" / HARP) == sha256(made["other take"].pads / HARP)
    assert errors_found(card) == []


def test_pads_removed_by_hand_are_removed_from_the_manifest(made: dict[str, Workspace], card: Path):
    install_on(made["others"], card)
    (card / "home/pi/pads/a_b_c_d.bin").unlink()
    install_on(made["small"], card)
    assert errors_found(card) == []


# Damage and errors


def test_verify_reports_all_damage_and_install_repairs_it(made: dict[str, Workspace], card: Path):
    install_on(made["one corner else"], card)
    install_on(made["small"], card)
    pads = card / "home/pi/pads"
    flipped = bytearray((pads / FLUTE).read_bytes())
    flipped[333] ^= 1
    (pads / FLUTE).write_bytes(flipped)
    os.truncate(pads / HARP, 600)
    (pads / "flute_oboe_drum_bell.bin").unlink()
    (pads / "stray.bin").write_bytes(b"")
    settings = synth_settings(card)
    settings["nsynth"]["length"] = 41
    settings["corners"][2]["instruments"] = []
    (program(card) / "settings.json").write_text(json.dumps(settings))
    found = "\n".join(errors_found(card))
    for line in (
        f"{FLUTE}: does not match the manifest",
        f"{HARP}: has 600 bytes, expected 640",
        "flute_oboe_drum_bell.bin: is missing",
        "stray.bin: has 0 bytes, expected 640 -> move it elsewhere",
        "nsynth.length 41, not 40",
        "lists no instrument in corner SW",
    ):
        assert line in found
    (pads / "stray.bin").unlink()
    install_on(made["small"], card)
    assert errors_found(card) == []


def test_verify_checks_a_plain_folder_of_pads(pack: Workspace, tmp_path: Path):
    shutil.copytree(pack.pads, tmp_path / "copied")
    assert errors_found(tmp_path / "copied") == []
    os.truncate(tmp_path / "copied" / HARP, 2)
    assert len(errors_found(tmp_path / "copied")) == 2


def test_a_card_that_reads_back_other_data_gets_no_pad(
    pack: Workspace, card: Path, monkeypatch: pytest.MonkeyPatch
):
    before = tree(card)
    monkeypatch.setattr(install, "digest", lambda *_: "0" * 64)
    with pytest.raises(Failed, match="reads back differently than written -> the card"):
        install_on(pack, card)
    settings = program(card) / "settings.json"
    assert [name for name in tree(card) if name not in before] == [
        str(backup.relative_to(card)) for backup in settings.parent.glob("*.backup-*")
    ]


def test_a_damaged_pad_of_the_workspace_is_reported(pack: Workspace, card: Path):
    (pack.pads / HARP).write_bytes(bytes(640))
    with pytest.raises(BadInput, match=f"{HARP}: does not match the manifest.json in its folder"):
        install_on(pack, card)
    assert not (card / "home/pi/pads" / HARP).exists()


@pytest.mark.parametrize("harm", ["no pads", "truncated", "other settings", "card's manifest"])
def test_a_pack_that_is_not_ready_is_refused(pack: Workspace, card: Path, harm: str):
    if harm == "no pads":
        shutil.rmtree(pack.pads)
    elif harm == "truncated":
        os.truncate(pack.pads / HARP, 5)
    elif harm == "other settings":
        pack.settings.write_text(json.dumps({**SMALL, "final_length": 41}))
    else:
        (card / "home/pi/pads/manifest.json").write_text('{"pads": {"../../x.bin": ""}}')
    before = tree(card)
    with refused(
        {
            "no pads": "has no pads yet -> run `nsynth-super pads` first",
            "truncated": f"{HARP}: is missing or truncated -> run `nsynth-super pads`",
            "other settings": "made with other settings than the current settings.json",
            "card's manifest": "manifest.json: is damaged or from another program -> remove it",
        }[harm]
    ):
        install_on(pack, card)
    assert tree(card) == before


def test_a_full_card_is_refused_before_anything_is_written(
    pack: Workspace, card: Path, monkeypatch: pytest.MonkeyPatch
):
    before = tree(card)
    monkeypatch.setattr(install_plan.shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000))
    with refused("2 pads and the settings need 1.0 MB, 100 kB are free -> free some"):
        install_on(pack, card)
    assert tree(card) == before


def test_a_stopped_install_keeps_complete_pads_and_resumes(
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
        install_on(pack, card)
    assert stopped.value.exit_code == 75
    pads = card / "home/pi/pads"
    assert [path.name for path in pads.iterdir() if path.name != ".install.lock"] == [FLUTE]
    (pads / f".{HARP}.01234567.part").write_bytes(b"left by a kill")
    inode = (pads / FLUTE).stat().st_ino
    monkeypatch.setattr(install, "_copy", copy)
    install_on(pack, card)
    assert (pads / FLUTE).stat().st_ino == inode
    assert not list(pads.glob(".*.part"))
    assert errors_found(card) == []


# Names and looping


def test_labels_come_from_the_settings_and_are_unique(tmp_path: Path, card: Path):
    corners = {
        **SMALL["pads"],
        "NW": ["acoustic_guitar", "acoustic_bass"],
        "SE": ["electricpiano"],
    }
    names = {"electricpiano": {"display": "E PIANO", "abbr": "EP"}, "drum": {"display": "Boom"}}
    install_on(make_pack(tmp_path / "named", pads=corners, names=names), card)
    entries = [
        entry for corner in synth_settings(card)["corners"] for entry in corner["instruments"]
    ]
    assert {entry["name"]: (entry["display"], entry["abbr"]) for entry in entries} == {
        "acoustic_bass": ("ACOUSTIC", "AB"),
        "acoustic_guitar": ("ACO GUIT", "AG"),
        "oboe": ("OBOE", "OB"),
        "drum": ("Boom", "DR"),
        "electricpiano": ("E PIANO", "EP"),
    }


def test_the_synths_looping_is_kept_unless_an_option_or_setting_changes_it(
    pack: Workspace, card: Path
):
    install_on(pack, card)
    assert synth_settings(card)["nsynth"]["looping"] is True
    install_on(pack, card, looping=False)
    assert synth_settings(card)["nsynth"]["looping"] is False
    install_on(pack, card)
    assert synth_settings(card)["nsynth"]["looping"] is False
    pack.settings.write_text(json.dumps({**SMALL, "looping": True}))
    install_on(pack, card)
    assert synth_settings(card)["nsynth"]["looping"] is True


def tone(half_life: float, length: int = 60_000) -> np.ndarray:
    t = np.arange(length) / 16_000
    return (8231 * 0.5 ** (t / half_life) * np.sin(440 * t * 2 * np.pi)).astype("<i2")


@pytest.mark.parametrize(("half_life", "decays"), [(0.1, True), (0.3, True), (2.0, False)])
def test_decaying_sounds_are_distinguished_from_sustained_ones(half_life: float, decays: bool):
    assert looping.decays(tone(half_life)) is decays


def test_silence_and_very_short_sounds_do_not_count_as_decaying():
    assert not looping.decays(np.zeros(60_000, "<i2"))
    assert not looping.decays(tone(0.1, 100))


def test_decaying_sounds_are_counted_in_the_corners_of_the_pads(
    tmp_path: Path, card: Path, command: Command
):
    pack = make_pack(tmp_path / "decaying", final_length=16_000)
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
    assert "note: looping: 8 of 10 notes decay" in done.stdout
    assert "--no-looping plays them to their end" in done.stdout
    done = command("install", card, "-w", pack.root, "--no-looping")
    assert "notes decay" not in done.stderr
    assert synth_settings(card)["nsynth"]["looping"] is False


# Random sequences of installs and damage

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
@example(  # a pad is damaged, its own pack is refused, and another pack is installed next to it
    steps=[
        ("small", False, False, None, ""),
        ("other take", False, False, None, "flip"),
        ("one corner else", False, False, None, ""),
    ]
)
def test_verify_confirms_whatever_install_reports_as_done(
    made: dict[str, Workspace], tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
):
    card = make_card(tmp_path_factory.mktemp("card") / "card")
    harmed: dict[Path, str] = {}  # damaged pads, until their own pack is installed
    for which, replace, add, folder, harm in steps:
        pads = cards.find_card(card, folder).pads
        _harm(card, pads, made[which], harm, harmed)
        before = tree(card)
        try:
            install_on(made[which], card, folder, replace=replace, add=add)
        except BadInput:
            assert tree(card) == before
        else:
            for pad in made[which].pads.glob("*.bin"):
                harmed.pop(pads / pad.name, None)
            repaired_later = {f"{pad}: {what} -> run install again" for pad, what in harmed.items()}
            assert set(errors_found(card)) <= repaired_later


def _harm(card: Path, folder: Path, pack: Workspace, harm: str, harmed: dict[Path, str]) -> None:
    """Damage a pad that is about to be installed, or its manifest; or override the settings.

    `harmed` collects the errors that `verify` may report for pads from now on.
    """
    pad = folder / min(pack.pads.glob("*.bin")).name
    if harm == "flip" and pad.exists():
        pad.write_bytes(bytes([pad.read_bytes()[0] ^ 1]) + pad.read_bytes()[1:])
        harmed.setdefault(pad, "does not match the manifest")
    elif harm == "cut" and pad.exists():
        if (size := pad.stat().st_size) != 10:
            harmed[pad] = f"has 10 bytes, expected {size:,}"
        os.truncate(pad, 10)
    elif harm == "remove":
        pad.unlink(missing_ok=True)
        harmed.pop(pad, None)
    elif harm == "manifest":
        (folder / "manifest.json").unlink(missing_ok=True)
    elif harm == "local":
        shutil.copy(program(card) / "settings.json", program(card) / "localSettings.json")
