"""check: everything that is wrong at once, what it will take, what comes next."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nsynth_super.blocks import clips_done
from nsynth_super.files import write_array
from nsynth_super.plan import Plan
from nsynth_super.settings import inspect
from nsynth_super.workspace import Workspace
from tests.conftest import SETTINGS, write_note

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_check_says_how_much_and_how_long(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    done = command("check", "-w", workspace.root, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["clips"] == 18
    assert report["pads"] == 1
    assert report["bytes"] == 18 * 4_300 + 9 * 2 * 300 * 2
    assert report["seconds"] > 0
    assert report["problems"] == []
    assert report["ready"] is True
    plain = command("check", "-w", workspace.root)
    assert "ready: nsynth-super run" in plain.stdout


def test_check_warns_of_a_note_that_sounds_another_pitch(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    write_note(workspace.notes / "flute_60.wav", 130.81)
    done = command("check", "-w", workspace.root)
    assert done.returncode == 0
    assert done.stdout.startswith(
        "warning: audio_input/flute_60.wav: sounds 12 semitones lower than its file name says"
        " -> is it flute_48? middle C is 60\n"
    )
    (problem,) = json.loads(command("check", "-w", workspace.root, "--json").stdout)["problems"]
    assert problem["level"] == "warning"


def test_checks_estimate_grows_with_the_work(
    make_workspace: Callable[..., Workspace], small_checkpoint: Path
):
    """In one process, with one measured speed: the arithmetic, not the machine."""
    from nsynth_super import check
    from nsynth_super.engines import open_engine

    engine = open_engine(small_checkpoint)
    engine.measure = lambda clips, seconds=0.0: 0.001 * clips  # type: ignore[method-assign]
    engine.measure_encoder = lambda: 0.0  # type: ignore[method-assign]
    short = check.run(make_workspace("short", final_length=1_000), lambda: engine)
    long = check.run(make_workspace("long", final_length=46_000), lambda: engine)
    assert short.seconds == pytest.approx(18 * 0.001 * 5_000, rel=0.02)
    assert long.seconds == pytest.approx(18 * 0.001 * 50_000, rel=0.02)


def test_check_lists_every_problem_of_every_kind_at_once(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    (workspace.notes / "oboe_48.wav").unlink()
    (workspace.notes / "viola_60.wav").write_bytes(b"no sound")
    (workspace.notes / "what.wav").write_bytes(b"no name")
    done = command(
        "check", "-w", workspace.root, "--json", "--checkpoint", workspace.root / "none.safetensors"
    )
    assert done.returncode == 2
    report = json.loads(done.stdout)
    said = "\n".join(f"{p['where']}: {p['what']}" for p in report["problems"])
    assert "oboe_48: missing" in said
    assert "viola_60.wav: cannot be read" in said
    assert "what.wav: does not name" in said
    assert "none.safetensors: there is no checkpoint" in said
    assert report["clips"] == 18
    assert report["seconds"] is None
    assert report["ready"] is False


def test_check_prints_an_object_even_for_settings_that_are_none(tmp_path: Path, command: Command):
    (tmp_path / "settings.json").write_text("{")
    done = command("check", "-w", tmp_path, "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["problems"]
    assert command("check", "-w", tmp_path / "nowhere", "--json").returncode == 2


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda w: w.plan.mkdir(), "plan.json"),
        (lambda w: w.plan.write_text("{"), "plan.json: is damaged"),
        (lambda w: [f.unlink() for f in w.notes.iterdir()] and w.notes.rmdir(), "no such folder"),
        (lambda w: (w.status_folder).mkdir() or w.settings.write_text("[]"), "no JSON object"),
        (lambda w: (w.root / "odd.bin").write_bytes(b"x"), "odd.bin: is no checkpoint"),
    ],
    ids=["plan is a folder", "plan is damaged", "no notes", "no settings", "odd checkpoint"],
)
def test_check_prints_one_object_whatever_is_wrong(
    harm: Callable[[Workspace], object],
    says: str,
    make_workspace: Callable[..., Workspace],
    command: Command,
):
    workspace = make_workspace()
    harm(workspace)
    odd = ["--checkpoint", workspace.root / "odd.bin"] if "odd" in says else []
    done = command("check", "-w", workspace.root, "--json", *odd)
    assert done.returncode == 2, done.stderr
    report = json.loads(done.stdout)
    assert any(says in f"{p['where']}: {p['what']}" for p in report["problems"])
    assert report["ready"] is False


@pytest.mark.parametrize("change", ["settings", "note", "checkpoint"])
def test_check_sees_what_run_would_refuse(
    change: str, make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    assert command("run", "-w", workspace.root).returncode == 0
    assert command("check", "-w", workspace.root).returncode == 0
    options = []
    if change == "settings":
        workspace.settings.write_text(json.dumps({**SETTINGS, "final_length": 200}))
    elif change == "note":
        write_note(workspace.notes / "flute_48.wav", 999)
    else:
        other = workspace.root / "other.safetensors"
        sizes = ("--width", 8, "--skip-width", 8, "--layers", 3, "--encoder-width", 4)
        assert command("checkpoint", "random", other, *sizes).returncode == 0
        options = ["--checkpoint", other]
    for stage in ("check", "run"):
        done = command(stage, "-w", workspace.root, *options)
        assert done.returncode == 2, stage
        assert "--replan" in done.stdout + done.stderr
    assert command("check", "-w", workspace.root).returncode == (0 if options else 2)


def test_check_does_not_count_what_is_of_no_use_to_this_pack(
    make_workspace: Callable[..., Workspace],
    small_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    import shutil

    from nsynth_super import check
    from nsynth_super.engines import open_engine

    workspace = make_workspace()
    workspace.clips.mkdir()
    (workspace.clips / "00000-0123456789ab.npy").write_bytes(bytes(10**6))
    usage = shutil._ntuple_diskusage(10**9, 10**9, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert not check.run(workspace, lambda: open_engine(small_checkpoint)).ready


def test_check_names_the_next_command_with_the_options_it_was_given(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace("a pack")
    done = command("check", "-w", workspace.root, "--fill-missing", "repeat")
    assert f"ready: nsynth-super run -w '{workspace.root}' --fill-missing repeat" in done.stdout


def test_check_refuses_what_the_disk_cannot_hold(
    make_workspace: Callable[..., Workspace],
    small_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    import shutil

    from nsynth_super import check
    from nsynth_super.engines import open_engine

    workspace = make_workspace()
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000)
    )
    report = check.run(workspace, lambda: open_engine(small_checkpoint))
    assert not report.ready
    assert "are free" in str(report.problems[0])


def test_only_this_plans_blocks_count_as_done(tmp_path: Path):
    found, _ = inspect({**SETTINGS, "resolution": 9})
    names = {f"{i}_{p}": "0" * 64 for i in found.instruments for p in found.pitches}
    plan = Plan.of(found, 0, "0" * 64, names)
    workspace = Workspace(tmp_path)
    assert clips_done(workspace, plan) == 0
    codes = np.zeros((64, plan.samples), dtype=np.uint8)
    write_array(workspace.block(0, plan.block_identity(0)), codes)
    write_array(workspace.partial(1, plan.block_identity(1)), codes[:, : plan.samples // 4])
    write_array(workspace.block(2, "0123456789ab"), codes)
    (workspace.clips / "notes-of-mine.npy").touch()
    assert plan.blocks == 3
    assert clips_done(workspace, plan) == 64 + 16
    assert clips_done(workspace, plan, range(1, 3)) == 16
