"""The `check` command: problems, estimates and the next command."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nsynth_super.base.files import write_array
from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.blocks import clips_done
from nsynth_super.pack.plan import Plan
from nsynth_super.settings import inspect
from tests.conftest import SETTINGS, write_note

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_check_measures_the_speed_and_reports_size_and_time(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    done = command("check", "-w", workspace.root, "--json", measures=True)
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


def test_check_warns_about_a_note_at_another_pitch(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    write_note(workspace.notes / "flute_60.wav", 130.81)
    done = command("check", "-w", workspace.root)
    assert done.returncode == 0
    assert done.stdout.startswith(
        "warning: audio_input/flute_60.wav: sounds 12 semitones lower than its file name says"
        " -> if it is flute_48, rename it (middle C is 60)\n"
    )
    (problem,) = json.loads(command("check", "-w", workspace.root, "--json").stdout)["problems"]
    assert problem["level"] == "warning"


def test_the_estimate_is_proportional_to_the_samples(
    make_workspace: Callable[..., Workspace], tiny_checkpoint: Path
):
    """With a fixed speed, to test the arithmetic and not the machine."""
    from nsynth_super.engines.opening import open_engine
    from nsynth_super.reports import check

    engine = open_engine(tiny_checkpoint)
    engine.measure = lambda clips, seconds=0.0: 0.001 * clips  # type: ignore[method-assign]
    engine.measure_encoder = lambda: 0.0  # type: ignore[method-assign]
    short = check.check_workspace(make_workspace("short", final_length=1_000), lambda: engine)
    long = check.check_workspace(make_workspace("long", final_length=46_000), lambda: engine)
    assert short.seconds == pytest.approx(18 * 0.001 * 5_000, rel=0.02)
    assert long.seconds == pytest.approx(18 * 0.001 * 50_000, rel=0.02)


def test_check_lists_problems_of_every_kind_at_once(
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
    text = "\n".join(f"{p['where']}: {p['what']}" for p in report["problems"])
    assert "oboe_48: missing" in text
    assert "viola_60.wav: cannot be read" in text
    assert "what.wav: the name has no" in text
    assert "none.safetensors: does not exist" in text
    assert report["clips"] == 18
    assert report["seconds"] is None
    assert report["ready"] is False


def test_check_prints_json_for_missing_and_invalid_settings(tmp_path: Path, command: Command):
    (tmp_path / "settings.json").write_text("{")
    done = command("check", "-w", tmp_path, "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["problems"]
    assert command("check", "-w", tmp_path / "nowhere", "--json").returncode == 2


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (lambda w: w.plan.mkdir(), "plan.json"),
        (lambda w: w.plan.write_text("{"), "plan.json: is damaged"),
        (
            lambda w: [f.unlink() for f in w.notes.iterdir()] and w.notes.rmdir(),
            "audio_input: does not exist",
        ),
        (lambda w: (w.status_folder).mkdir() or w.settings.write_text("[]"), "a JSON object"),
        (lambda w: (w.root / "odd.bin").write_bytes(b"x"), "odd.bin: is not a checkpoint"),
    ],
    ids=["plan is a folder", "plan is damaged", "no notes", "no settings", "odd checkpoint"],
)
def test_check_prints_one_json_object_for_any_damage(
    harm: Callable[[Workspace], object],
    expected: str,
    make_workspace: Callable[..., Workspace],
    command: Command,
):
    workspace = make_workspace()
    harm(workspace)
    odd = ["--checkpoint", workspace.root / "odd.bin"] if "odd" in expected else []
    done = command("check", "-w", workspace.root, "--json", *odd)
    assert done.returncode == 2, done.stderr
    report = json.loads(done.stdout)
    assert any(expected in f"{p['where']}: {p['what']}" for p in report["problems"])
    assert report["ready"] is False


@pytest.mark.parametrize("change", ["settings", "note", "checkpoint"])
def test_check_reports_what_run_would_refuse(change: str, made_pack: Workspace, command: Command):
    workspace = made_pack
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


def test_check_counts_no_blocks_of_another_plan_as_done(
    make_workspace: Callable[..., Workspace],
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    import shutil

    from nsynth_super.engines.opening import open_engine
    from nsynth_super.reports import check

    workspace = make_workspace()
    workspace.clips.mkdir()
    (workspace.clips / "00000-0123456789ab.npy").write_bytes(bytes(10**6))
    usage = shutil._ntuple_diskusage(10**9, 10**9, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert not check.check_workspace(workspace, lambda: open_engine(tiny_checkpoint)).ready


def test_check_prints_the_next_command_with_its_own_options(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace("a pack")
    done = command("check", "-w", workspace.root, "--fill-missing", "repeat")
    assert f"ready: nsynth-super run -w '{workspace.root}' --fill-missing repeat" in done.stdout


def test_check_reports_a_disk_that_is_too_small(
    make_workspace: Callable[..., Workspace],
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    import shutil

    from nsynth_super.engines.opening import open_engine
    from nsynth_super.reports import check

    workspace = make_workspace()
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000)
    )
    report = check.check_workspace(workspace, lambda: open_engine(tiny_checkpoint))
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
