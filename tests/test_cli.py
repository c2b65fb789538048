"""The command line, in processes, folders and a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from nsynth_super.base.workspace import Workspace
from nsynth_super.runtime import progress
from tests.commands import start

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_run_makes_a_pack_and_a_second_run_changes_nothing(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    done = command("run", "-w", workspace.root)
    assert done.returncode == 0, done.stderr
    assert "prepare: 8 notes encoded, planned 18 clips" in done.stderr
    assert "Your pack is in" in done.stderr
    pad = workspace.pad("flute_oboe_tin_drum_viola")
    assert pad.stat().st_size == 9 * 2 * 300 * 2
    assert np.fromfile(pad, "<i2").any()

    before = {path: path.stat().st_mtime_ns for path in workspace.root.rglob("*.[nb][pi][yn]")}
    again = command("run", "-w", workspace.root)
    assert again.returncode == 0
    assert "0 notes encoded, the plan is unchanged" in again.stderr
    assert "18 clips complete, 0 of them new" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_the_three_stages_make_the_same_pads_as_run(
    made_pack: Workspace, make_workspace: Callable[..., Workspace], command: Command
):
    whole, staged = made_pack, make_workspace("staged")
    for stage in ("prepare", "generate", "pads"):
        assert command(stage, "-w", staged.root).returncode == 0
    for pad in whole.pads.glob("*.bin"):
        assert pad.read_bytes() == (staged.pads / pad.name).read_bytes()


@pytest.mark.slow
def test_another_seed_makes_another_pack_and_stays_in_the_plan(
    made_pack: Workspace, make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace("another")
    assert command("run", "-w", workspace.root, "--seed", 2).returncode == 0
    pads = [w.pad("flute_oboe_tin_drum_viola").read_bytes() for w in (made_pack, workspace)]
    assert pads[0] != pads[1]
    # Later stages take the seed from the plan; prepare requires the option again.
    assert command("generate", "-w", workspace.root).returncode == 0
    refused = command("prepare", "-w", workspace.root)
    assert refused.returncode == 2
    assert "seed: was 2, is 0" in refused.stderr


def test_prepare_reports_the_problems_of_all_notes(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    for name in ("oboe_48", "viola_60"):
        (workspace.notes / f"{name}.wav").write_bytes(b"no sound")
    done = command("prepare", "-w", workspace.root)
    assert done.returncode == 2
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 2
    assert not workspace.embeddings.exists()


@pytest.mark.slow
def test_missing_notes_are_filled_with_an_option(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    (workspace.notes / "oboe_48.wav").unlink()
    assert command("run", "-w", workspace.root).returncode == 2
    done = command("run", "-w", workspace.root, "--fill-missing", "repitch")
    assert done.returncode == 0, done.stderr
    assert (
        "oboe_60.wav -> oboe_48: filled in from pitch 60, re-pitched by -12 semitones"
        in done.stderr
    )


def test_new_creates_a_workspace_and_prints_the_next_steps(tmp_path: Path, command: Command):
    done = command("new", tmp_path / "my-pack")
    assert done.returncode == 0
    assert "nsynth-super check" in done.stdout
    assert (tmp_path / "my-pack" / "audio_input").is_dir()
    report = json.loads(command("check", "-w", tmp_path / "my-pack", "--json").stdout)
    assert report["clips"] == 1_232
    assert all("audio_input" in problem["where"] for problem in report["problems"])
    again = command("new", tmp_path / "my-pack")
    assert again.returncode == 2
    assert "already exists" in again.stderr


def test_status_reports_every_stage_from_another_process(
    made_pack: Workspace, make_workspace: Callable[..., Workspace], command: Command
):
    new, workspace = make_workspace("new"), made_pack
    assert "no plan yet" in command("status", "-w", new.root).stdout
    status = json.loads(command("status", "-w", workspace.root, "--json").stdout)
    assert (status["clips"], status["clips_total"], status["pads"]) == (18, 18, 1)
    assert {run["stage"]: run["state"] for run in status["runs"]} == {
        "prepare": "done",
        "generate": "done",
        "pads": "done",
    }
    assert "18 of 18 (100.0%)" in command("status", "-w", workspace.root).stdout


def test_status_reports_a_running_and_a_killed_stage(
    make_workspace: Callable[..., Workspace], command: Command, tiny_checkpoint: Path
):
    workspace = make_workspace(final_length=60_000)
    assert command("prepare", "-w", workspace.root).returncode == 0
    environment = {**os.environ, "NSYNTH_CHECKPOINT": str(tiny_checkpoint)}
    with open(os.devnull, "r+") as nothing:
        words = ["-q", "generate", "-w", workspace.root]
        process = start(words, environment, (nothing, nothing, nothing))
    try:
        out = ""
        while "clips an hour" not in out:
            assert process.is_alive()
            out = command("status", "-w", workspace.root).stdout
        assert "running" in out
    finally:
        process.kill()
        process.join()
    assert "killed?" in command("status", "-w", workspace.root).stdout


def test_a_terminal_gets_a_progress_bar(
    make_workspace: Callable[..., Workspace], command: Command, tiny_checkpoint: Path
):
    workspace = make_workspace()
    assert command("prepare", "-w", workspace.root).returncode == 0
    environment = {**os.environ, "NSYNTH_CHECKPOINT": str(tiny_checkpoint)}
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with open(os.devnull, "r+") as nothing, open(follower, "wb", buffering=0) as terminal:
        process = start(
            ["generate", "-w", workspace.root], environment, (nothing, nothing, terminal)
        )
    shown = b""
    with suppress(OSError):  # Linux raises EIO once the terminal is closed
        while piece := os.read(leader, 4096):
            shown += piece
    os.close(leader)
    process.join()
    assert process.exitcode == 0
    assert b"\r" in shown
    assert b"% |" in shown
    assert b"left" in shown


def test_a_log_gets_plain_lines(make_workspace: Callable[..., Workspace], command: Command):
    workspace = make_workspace()
    assert command("prepare", "-w", workspace.root).returncode == 0
    at_once = "from nsynth_super.runtime import progress; progress.FIRST_LINES = (0.0, 0.0, 0.0)"
    log = command("generate", "-w", workspace.root, before=at_once).stderr
    assert "\r" not in log
    assert "clips an hour" in log
    assert len(log.splitlines()) < 10


def test_quiet_prints_nothing_before_or_after_the_command(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    for words in (["-q", "run"], ["run", "--quiet"]):
        done = command(*words, "-w", workspace.root)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_log_gets_a_line_every_minute_and_more_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    log = progress.Progress("generate", 1000, "clips", tmp_path / "status.json")
    for _ in range(600):
        now += 1.0
        log.advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 + 9
    assert lines[-1].startswith("generate: 570/1000 clips (57.0%), 3,600 clips an hour, 7 min left")


def test_the_time_left_does_not_include_the_start_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """On a GPU, kernels are compiled first, in many times the duration of a clip."""
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    log = progress.Progress("generate", 100, "clips", tmp_path / "status.json", done=10)
    now += 300
    log.advance(1)
    assert log.left is None
    now += 10
    log.advance(10)
    assert log.left == pytest.approx(79)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "generate: 11/100 clips (11.0%)"
    assert second == "generate: 21/100 clips (21.0%), 3,600 clips an hour, 79 s left"


def test_status_refuses_a_folder_that_is_not_a_workspace(tmp_path: Path, command: Command):
    done = command("status", "-w", tmp_path)
    assert done.returncode == 2
    assert "is not a workspace" in done.stderr


def test_missing_synth_settings_are_refused_before_anything_runs(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    done = command("run", "-w", workspace.root, "--synth-settings", workspace.root / "none.json")
    assert done.returncode == 2
    assert "give the synth's settings.json" in done.stderr
    assert not workspace.embeddings.exists()


def test_device_settings_is_a_deprecated_name_of_synth_settings(
    made_pack: Workspace, tmp_path: Path, command: Command
):
    given = tmp_path / "synth.json"
    given.write_text(json.dumps({"midi": {"channel": 7}}))
    results = []
    for option, notes in (
        ("--synth-settings", ""),
        ("--device-settings", "note: --device-settings is deprecated -> use --synth-settings\n"),
    ):
        made_pack.synth_settings.unlink()
        done = command("pads", "-w", made_pack.root, option, given)
        assert done.returncode == 0, done.stderr
        assert "".join(re.findall("note: .*\n", done.stderr)) == notes
        results.append(made_pack.synth_settings.read_text())
    assert json.loads(results[0])["midi"]["channel"] == 7
    assert results[0] == results[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:-100], lambda _: b"[1, 2]", lambda _: b"\xff\x00"],
    ids=["truncated", "other JSON", "binary"],
)
def test_a_damaged_manifest_stops_no_command_and_is_written_again(
    damage: Callable[[bytes], bytes], made_pack: Workspace, tmp_path: Path, command: Command
):
    intact = made_pack.manifest.read_bytes()
    made_pack.manifest.write_bytes(damage(intact))
    for words in (["check"], ["status"], ["preview", "--export", tmp_path / "pad.html"], ["pads"]):
        done = command(*words, "-w", made_pack.root)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    assert made_pack.manifest.read_bytes() == intact


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "--shard", "2/2"],
        ["generate", "--shard", "one"],
        ["generate", "--batch-clips", "1"],
        ["run", "--engine", "other"],
        ["run", "--seed", "-1"],
        ["nonsense"],
        ["checkpoint", "random", "weights.bin"],
        ["export"],
        ["pads", "--synth-settings", "nowhere.json"],
    ],
)
def test_wrong_usage_exits_with_2_and_no_traceback(
    words: list[str], command: Command, tmp_path: Path
):
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr


def test_a_bug_prints_one_line_and_a_traceback_only_with_v(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    bug = "import nsynth_super.reports.status as s; s.collect = lambda w: 1 / 0"
    for words, traced in (([], False), (["-v"], True)):
        done = command(*words, "status", "-w", workspace.root, before=bug)
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) is traced
        assert "ZeroDivisionError" in done.stderr


def test_the_program_runs_as_a_module(new_process: Command, tmp_path: Path):
    words = [sys.executable, "-m", "nsynth_super"]
    done = subprocess.run([*words, "status"], cwd=tmp_path, capture_output=True, text=True)
    from_console_script = new_process("status", cwd=tmp_path)
    assert done.returncode == from_console_script.returncode == 2
    assert done.stderr == from_console_script.stderr != ""


def test_checkpoint_verify_accepts_the_result_of_random(command: Command, tmp_path: Path):
    path = tmp_path / "tiny.safetensors"
    sizes = [
        "--width",
        8,
        "--skip-width",
        8,
        "--layers",
        3,
        "--encoder-width",
        4,
        "--encoder-layers",
        2,
    ]
    assert command("checkpoint", "random", path, *sizes).returncode == 0
    done = command("checkpoint", "verify", path)
    assert done.returncode == 0
    assert "all finite; width 8" in done.stdout
    assert command("checkpoint", "verify", tmp_path / "none").returncode == 2


@pytest.mark.process
def test_only_decoding_imports_torch():
    code = (
        "import sys, nsynth_super.cli, nsynth_super.reports.check, nsynth_super.reports.status\n"
        "from nsynth_super.stages import prepare, generate, pads, export\n"
        "assert 'torch' not in sys.modules and 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def imported_by(*words: object, folder: Path, ends: int = 0) -> set[str]:
    """Return the modules that a command run in `folder` imports."""
    code = (
        "import sys\n"
        "from nsynth_super.cli import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    print('imported:', *sys.modules, file=sys.stderr)\n"
    )
    run = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == ends, done.stderr
    return set(done.stderr.rpartition("imported:")[2].split())


def test_commands_without_a_model_do_not_import_its_libraries(
    made_pack: Workspace, make_workspace: Callable[..., Workspace]
):
    pack, bad = made_pack.root, make_workspace("bad")
    bad.settings.write_text("{")
    for_a_model = {"torch", "tensorflow", "safetensors", "requests"}
    for_sound = {"soundfile", "soxr"}
    for words in (["--help"], ["--version"], ["new", "other"], ["status"], ["pads"]):
        found = imported_by(*words, folder=pack)
        assert "nsynth_super.cli" in found
        assert not found & (for_a_model | for_sound), words
    assert not imported_by("export", "wav", folder=pack) & for_a_model
    # `check` opens no model if there is none.
    for folder in (pack, bad.root):
        assert not imported_by("check", folder=folder, ends=2) & {"torch", "tensorflow", "requests"}
