"""The command line as a newcomer meets it: real processes, real folders."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nsynth_super import progress
from nsynth_super.workspace import Workspace
from tests.conftest import nsynth_super

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_a_pack_from_notes_to_pads_in_one_command(
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
    assert "0 notes encoded, the plan stands" in again.stderr
    assert "18 clips are there, 0 of them made now" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_three_stages_are_the_same_as_run(
    make_workspace: Callable[..., Workspace], command: Command
):
    whole, staged = make_workspace("whole"), make_workspace("staged")
    assert command("run", "-w", whole.root).returncode == 0
    for stage in ("prepare", "generate", "pads"):
        assert command(stage, "-w", staged.root).returncode == 0
    for pad in whole.pads.glob("*.bin"):
        assert pad.read_bytes() == (staged.pads / pad.name).read_bytes()


def test_a_seed_makes_a_pack_and_another_seed_another(
    make_workspace: Callable[..., Workspace], command: Command
):
    packs = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        workspace = make_workspace(name)
        assert command("run", "-w", workspace.root, "--seed", seed).returncode == 0
        packs.append(workspace.pad("flute_oboe_tin_drum_viola").read_bytes())
    assert packs[0] == packs[1] != packs[2]
    # The stages behind prepare take the seed from the plan; prepare wants it said again.
    assert command("generate", "-w", workspace.root).returncode == 0
    refused = command("prepare", "-w", workspace.root)
    assert refused.returncode == 2
    assert "seed: was 2, is 0" in refused.stderr


def test_prepare_refuses_with_every_problem_of_every_note(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    for name in ("oboe_48", "viola_60"):
        (workspace.notes / f"{name}.wav").write_bytes(b"no sound")
    done = command("prepare", "-w", workspace.root)
    assert done.returncode == 2
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 2
    assert not workspace.embeddings.exists()


def test_gaps_are_filled_when_asked(make_workspace: Callable[..., Workspace], command: Command):
    workspace = make_workspace()
    (workspace.notes / "oboe_48.wav").unlink()
    assert command("run", "-w", workspace.root).returncode == 2
    done = command("run", "-w", workspace.root, "--fill-missing", "repitch")
    assert done.returncode == 0, done.stderr
    assert (
        "oboe_60.wav -> oboe_48: filled in from pitch 60, re-pitched by -12 semitones"
        in done.stderr
    )


def test_new_makes_a_workspace_that_says_what_to_do(tmp_path: Path, command: Command):
    done = command("new", tmp_path / "my-pack")
    assert done.returncode == 0
    assert "nsynth-super check" in done.stdout
    assert (tmp_path / "my-pack" / "audio_input").is_dir()
    report = json.loads(command("check", "-w", tmp_path / "my-pack", "--json").stdout)
    assert report["clips"] == 1_232
    assert all("audio_input" in problem["where"] for problem in report["problems"])
    again = command("new", tmp_path / "my-pack")
    assert again.returncode == 2
    assert "is there already" in again.stderr


def test_status_tells_from_another_shell(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    assert "there is no plan yet" in command("status", "-w", workspace.root).stdout
    assert command("run", "-w", workspace.root).returncode == 0
    status = json.loads(command("status", "-w", workspace.root, "--json").stdout)
    assert (status["clips"], status["clips_total"], status["pads"]) == (18, 18, 1)
    assert {run["stage"]: run["state"] for run in status["runs"]} == {
        "prepare": "done",
        "generate": "done",
        "pads": "done",
    }
    assert "18 of 18 (100.0%)" in command("status", "-w", workspace.root).stdout


def test_status_follows_a_run_and_notices_its_death(
    make_workspace: Callable[..., Workspace], command: Command, small_checkpoint: Path
):
    workspace = make_workspace(final_length=60_000)
    assert command("prepare", "-w", workspace.root).returncode == 0
    environment = {**os.environ, "NSYNTH_CHECKPOINT": str(small_checkpoint)}
    process = subprocess.Popen(
        nsynth_super("-q", "generate", "-w", workspace.root), env=environment
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            out = command("status", "-w", workspace.root).stdout
            if "running" in out:
                break
        assert "clips an hour" in out
    finally:
        process.kill()
        process.wait()
    assert "killed?" in command("status", "-w", workspace.root).stdout


def test_a_log_gets_plain_lines_and_a_terminal_a_bar(
    make_workspace: Callable[..., Workspace], command: Command, small_checkpoint: Path
):
    workspace = make_workspace(final_length=20_000)
    assert command("prepare", "-w", workspace.root).returncode == 0
    environment = {**os.environ, "NSYNTH_CHECKPOINT": str(small_checkpoint)}
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        nsynth_super("generate", "-w", workspace.root), env=environment, stderr=follower
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    assert process.wait() == 0
    assert b"\r" in shown
    assert b"% |" in shown
    assert b"left" in shown

    for path in workspace.clips.iterdir():
        path.unlink()
    log = command("generate", "-w", workspace.root).stderr
    assert "\r" not in log
    assert "clips an hour" in log
    assert len(log.splitlines()) < 10


def test_quiet_is_quiet_wherever_it_stands(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    for words in (["-q", "run"], ["run", "--quiet"]):
        done = command(*words, "-w", workspace.root)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_log_gets_a_line_every_minute_and_sooner_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    told = progress.Progress("generate", 1000, "clips", tmp_path / "status.json")
    for _ in range(600):
        now += 1.0
        told.advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 + 9
    assert lines[-1].startswith("generate: 570/1000 clips (57.0%), 3,600 clips an hour, 7 min left")


def test_status_of_something_that_is_no_workspace_says_so(tmp_path: Path, command: Command):
    done = command("status", "-w", tmp_path)
    assert done.returncode == 2
    assert "is no workspace" in done.stderr


def test_wrong_device_settings_are_refused_before_anything_runs(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    done = command("run", "-w", workspace.root, "--device-settings", workspace.root / "none.json")
    assert done.returncode == 2
    assert "name the device's own settings.json" in done.stderr
    assert not workspace.embeddings.exists()


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
        ["pads", "--device-settings", "nowhere.json"],
    ],
)
def test_wrong_use_is_exit_code_2_and_no_traceback(
    words: list[str], command: Command, tmp_path: Path
):
    done = command(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr


def test_a_bug_is_one_line_and_a_traceback_only_with_v(
    make_workspace: Callable[..., Workspace], small_checkpoint: Path
):
    workspace = make_workspace()
    code = (
        "import nsynth_super.status as s; s.collect = lambda w: 1 / 0\n"
        "from nsynth_super.cli import main; main()"
    )
    for words, traced in (([], False), (["-v"], True)):
        done = subprocess.run(
            [sys.executable, "-c", code, *words, "status", "-w", workspace.root],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert ("Traceback" in done.stderr) is traced
        assert "ZeroDivisionError" in done.stderr


def test_checkpoint_random_and_verify(command: Command, tmp_path: Path):
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


def test_nothing_but_decoding_waits_for_torch():
    code = (
        "import sys, nsynth_super.cli, nsynth_super.check, nsynth_super.status\n"
        "from nsynth_super.stages import prepare, generate, pads, export\n"
        "assert 'torch' not in sys.modules and 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def imported_by(*words: object, folder: Path, ends: int = 0) -> set[str]:
    """Return the modules that a command has imported when it ends; it runs in `folder`."""
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


def test_a_command_that_needs_no_model_imports_nothing_that_only_a_model_needs(
    make_workspace: Callable[..., Workspace], command: Command
):
    pack, bad = make_workspace().root, make_workspace("bad")
    assert command("run", "-w", pack).returncode == 0
    bad.settings.write_text("{")
    for_a_model = {"torch", "tensorflow", "safetensors", "requests"}
    for_sound = {"soundfile", "soxr"}
    for words in (["--help"], ["--version"], ["new", "other"], ["status"], ["pads"]):
        found = imported_by(*words, folder=pack)
        assert "nsynth_super.cli" in found
        assert not found & (for_a_model | for_sound), words
    assert not imported_by("export", "wav", folder=pack) & for_a_model
    # `check` knows what a model is, but opens none where there is none, or none is named.
    for folder in (pack, bad.root):
        assert not imported_by("check", folder=folder, ends=2) & {"torch", "tensorflow", "requests"}
