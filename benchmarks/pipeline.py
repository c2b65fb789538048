"""Measure everything that needs no model: `pads`, the planning in `check`, and startup times.

    .venv/bin/python benchmarks/pipeline.py           # a line per figure
    .venv/bin/python benchmarks/pipeline.py --json    # a JSON object

Creates workspaces in a temporary folder and runs the commands on them:

- `pads` with 2 instruments per corner at the factory's geometry: 16 pads of 155.5 MB, from codes on
  disk (in the system's cache, as after a short `generate`) to synced pads and a manifest. The codes
  are decaying noisy tones, because silence is processed faster.
- `check` and `status` with 4 instruments per corner, 118,016 clips: with a plan, 256 recordings at
  44.1 kHz, the names of all 1,844 blocks, and no model to measure, so that only planning remains.
- the startup of commands with nothing to do.

Takes half a minute and 3.2 GB of disk space (`--folder` chooses where). Times are the minimum and
memory is the maximum of several runs (`--runs`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import soundfile
from numpy.typing import NDArray

from nsynth_super import __version__
from nsynth_super.base import allocation
from nsynth_super.base.files import write_array, write_json
from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.grid import Grid
from nsynth_super.pack.plan import BLOCK, Plan
from nsynth_super.settings import CORNERS, ONSET_SEARCH, SAMPLE_RATE, Settings, read
from nsynth_super.wavenet import mulaw

RECORDED_AT = 44_100  # Hz
T = TypeVar("T")


@dataclass(frozen=True)
class Ran:
    """The cost of a command.

    Attributes
    ----------
    seconds : float
        Wall-clock time.
    peak : int
        Peak memory, in bytes.
    """

    seconds: float
    peak: int


def run(*arguments: object, expected_code: int = 0) -> Ran:
    """Run `nsynth-super` in a process of its own and require an exit code."""
    argv = [sys.executable, "-m", "nsynth_super", "-q", *map(str, arguments)]
    began = time.perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != expected_code:
        raise SystemExit(f"{' '.join(argv)}: {errors.decode(errors='replace')}")
    return Ran(seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Return the duration of `work` in seconds, and its result."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def tones(count: int, samples: int, rate: int, chance: np.random.Generator) -> NDArray[np.float32]:
    """Return decaying tones with some noise, which is also audible before their onset.

    Returns
    -------
    ndarray of float32, `[count, samples]`
        Amplitudes from -1 to 1; the onsets are at a quarter of a second.
    """
    t = np.arange(samples) / rate - ONSET_SEARCH / SAMPLE_RATE
    frequency = 440 * 2 ** (chance.uniform(-45, 15, (count, 1)) / 12)
    decay = np.exp(-chance.uniform(0.3, 4, (count, 1)) * np.maximum(t, 0))
    envelope = np.where(t < 0, 0.002, decay) * chance.uniform(0.2, 0.9, (count, 1))
    sound = 0.8 * np.sin(2 * np.pi * frequency * t) + 0.05 * chance.normal(size=(count, samples))
    return np.asarray(np.clip(envelope * sound, -1, 1), dtype=np.float32)


def planned(root: Path, instruments: int) -> tuple[Workspace, Settings, Plan]:
    """Create a workspace at the factory's geometry, with its plan and without clips."""
    workspace = Workspace(root)
    template = {
        "pads": {c: [f"{c.lower()}{n}" for n in range(instruments)] for c in CORNERS},
        "pitches": list(range(24, 85, 4)),
        "resolution": 9,
        "final_length": 60_000,
    }
    write_json(workspace.settings, template)
    settings, problems = read(workspace.settings)
    if settings is None:
        raise SystemExit("\n".join(map(str, problems)))
    named = {f"{i}_{p}": "0" * 64 for i in settings.instruments for p in settings.pitches}
    plan = Plan.of(settings, settings.seed, "0" * 64, named)
    plan.write(workspace.plan)
    return workspace, settings, plan


def generated(root: Path, instruments: int) -> None:
    """Create a workspace with all its clips: tones cut at random times."""
    workspace, _, plan = planned(root, instruments)
    chance = np.random.default_rng(0)
    longer = plan.samples + ONSET_SEARCH
    pool = mulaw.encode(tones(2 * BLOCK, longer, SAMPLE_RATE, chance))
    for block in range(plan.blocks):
        clips = len(plan.clips_of(block))
        which = chance.integers(len(pool), size=clips)
        begin = chance.integers(ONSET_SEARCH, size=clips)
        codes = [pool[w, b : b + plan.samples] for w, b in zip(which, begin, strict=True)]
        write_array(workspace.block(block, plan.block_identity(block)), np.stack(codes))


def recorded(root: Path, instruments: int) -> None:
    """Create a workspace with its recordings, its plan, and empty files for all its blocks."""
    workspace, settings, plan = planned(root, instruments)
    workspace.notes.mkdir()
    workspace.clips.mkdir()
    (mono,) = tones(1, 4 * RECORDED_AT, RECORDED_AT, np.random.default_rng(0))
    for instrument in settings.instruments:
        for pitch in settings.pitches:
            path = workspace.notes / f"{instrument}_{pitch}.wav"
            soundfile.write(path, np.stack([mono, mono], axis=1), RECORDED_AT, "PCM_24")
    for block in range(plan.blocks):
        workspace.block(block, plan.block_identity(block)).touch()


def in_subprocess(work: Callable[[Path, int], None], root: Path, instruments: int) -> Workspace:
    """Create a workspace in a subprocess, because commands inherit the parent's peak memory."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=(root, instruments))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{root}: creating the workspace failed")
    return Workspace(root)


def pads(folder: Path, instruments: int, runs: int) -> dict[str, Any]:
    """Measure `pads` without existing pads."""
    workspace = in_subprocess(generated, folder / "pads", instruments)
    ran = []
    for _ in range(runs):
        shutil.rmtree(workspace.pads, ignore_errors=True)
        os.sync()
        ran.append(run("pads", "-w", workspace.root))
    written = sum(path.stat().st_size for path in workspace.pads.glob("*.bin"))
    seconds = min(each.seconds for each in ran)
    shutil.rmtree(workspace.root)
    return {
        "instruments_a_corner": instruments,
        "bytes": written,
        "seconds": round(seconds, 2),
        "megabytes_a_second": round(written / 1e6 / seconds, 1),
        "peak_bytes": max(each.peak for each in ran),
    }


def planning(folder: Path, instruments: int, runs: int) -> dict[str, Any]:
    """Measure `check` and `status` of a large pack, and their parts."""
    workspace = in_subprocess(recorded, folder / "planning", instruments)
    settings, _ = read(workspace.settings)
    assert settings is not None
    checks = [run("check", "-w", workspace.root, expected_code=2) for _ in range(runs)]
    states = [run("status", "-w", workspace.root) for _ in range(runs)]
    grid_seconds, grid = timed(lambda: Grid.of(settings))
    plan_seconds, plan = timed(lambda: Plan.of(settings, 0, "0" * 64, _embeddings(workspace)))
    write_seconds, _ = timed(lambda: plan.write(workspace.plan))
    read_seconds, plan_read = timed(lambda: Plan.read(workspace.plan))
    assert plan_read is not None
    names_seconds, _ = timed(lambda: plan_read.block_identity(0))
    return {
        "instruments_a_corner": instruments,
        "clips": len(grid.mixes),
        "check_seconds": round(min(each.seconds for each in checks), 2),
        "check_peak_bytes": max(each.peak for each in checks),
        "status_seconds": round(min(each.seconds for each in states), 2),
        "grid_seconds": round(grid_seconds, 2),
        "plan_seconds": round(plan_seconds, 2),
        "write_seconds": round(write_seconds, 2),
        "read_seconds": round(read_seconds, 2),
        "block_names_seconds": round(names_seconds, 2),
    }


def _embeddings(workspace: Workspace) -> dict[str, str]:
    return {path.stem: "0" * 64 for path in workspace.notes.iterdir()}


def starting(folder: Path, runs: int) -> dict[str, float]:
    """Measure commands with almost nothing to do; return the seconds by name."""
    workspace = planned(folder / "starting", 1)[0]
    bad = folder / "bad"
    write_json(bad / "settings.json", {"pads": {}})
    commands: dict[str, Callable[[int], Ran]] = {
        "--version": lambda _: run("--version"),
        "--help": lambda _: run("--help"),
        "new": lambda time: run("new", folder / f"new-{time}"),
        "status": lambda _: run("status", "-w", workspace.root),
        "check of bad settings": lambda _: run("check", "-w", bad, expected_code=2),
    }
    return {
        name: round(min(command(time).seconds for time in range(max(runs, 3))), 2)
        for name, command in commands.items()
    }


def environment() -> dict[str, Any]:
    """Return the versions and the machine that the figures belong to."""
    return {
        "nsynth-super": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "processors": allocation.processors(),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """Return the figures as readable lines."""
    made, plan = found["pads"], found["planning"]
    parts = ("grid", "plan", "write", "read", "block_names")
    return [
        ", ".join(f"{name} {value}" for name, value in found["where"].items()),
        f"pads     {made['bytes'] / 1e9:.2f} GB in {made['seconds']:.2f} s, "
        f"{made['megabytes_a_second']:.0f} MB/s, {made['peak_bytes'] / 1e6:.0f} MB of memory",
        f"check    {plan['clips']:,} clips without a model in {plan['check_seconds']:.2f} s, "
        f"{plan['check_peak_bytes'] / 1e6:.0f} MB of memory",
        f"status   {plan['clips']:,} clips in {plan['status_seconds']:.2f} s",
        "  of it  " + ", ".join(f"{p.replace('_', ' ')} {plan[f'{p}_seconds']}" for p in parts),
        *(f"start    {name}: {seconds:.2f} s" for name, seconds in found["starting"].items()),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything and print the figures."""
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_argument("--runs", type=int, default=3, help="runs of each command (3)")
    parser.add_argument(
        "--instruments", type=int, default=2, help="instruments per corner for pads (2)"
    )
    parser.add_argument(
        "--planned", type=int, default=4, help="instruments per corner for check (4)"
    )
    parser.add_argument("--folder", type=Path, help="parent of the temporary folder")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        # Hide a downloaded model: `check` would measure its speed.
        os.environ["NSYNTH_CACHE"] = str(folder / "cache")
        os.environ.pop("NSYNTH_CHECKPOINT", None)
        found = {
            "where": environment(),
            "pads": pads(folder, options.instruments, options.runs),
            "planning": planning(folder, options.planned, options.runs),
            "starting": starting(folder, options.runs),
        }
    print(json.dumps(found, indent=1) if options.json else "\n".join(lines(found)))


if __name__ == "__main__":
    main()
