"""Measure how time and memory grow with the number of clips, samples and processes.

    python benchmarks/scaling.py [--json] [--svg FOLDER]

Runs `nsynth-super generate` with a model of a hundredth of the published size on packs of 64 to
4,096 clips of the minimum length, then on packs of longer clips. The operating system provides the
time and the peak memory of the process. Then one process and two processes, of one thread each,
decode two blocks with a model of the published size.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from nsynth_super.settings import ONSET_SEARCH, SAMPLE_RATE
from nsynth_super.wavenet import checkpoint, random
from nsynth_super.wavenet.dimensions import PUBLISHED, Dimensions

SMALL = Dimensions(width=64, skip_width=64, layers=20, encoder_width=8, encoder_layers=2)
CORNERS = ("NW", "NE", "SW", "SE")
RESOLUTION = 8  # 64 cells: with four instruments, a block per pitch
LEAST = ONSET_SEARCH + 1
BLOCKS = (1, 4, 16, 64)
SAMPLES = (LEAST, 2 * LEAST, 4 * LEAST, 8 * LEAST)


def workspace(folder: Path, pitches: int, samples: int) -> Path:
    """Create a workspace with 64 clips of `samples` samples per pitch."""
    notes = folder / "audio_input"
    notes.mkdir(parents=True)
    numbers = list(range(24, 24 + pitches))
    for corner, name in enumerate(CORNERS):
        for pitch in numbers:
            t = np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE
            tone = np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * t) * np.exp(
                -(corner + 1) * t
            )
            soundfile.write(notes / f"{name.lower()}_{pitch}.wav", 0.5 * tone, SAMPLE_RATE)
    settings = {
        "pads": {corner: [corner.lower()] for corner in CORNERS},
        "pitches": numbers,
        "resolution": RESOLUTION,
        "final_length": samples - ONSET_SEARCH,
    }
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def measured(arguments: list[str]) -> tuple[float, int]:
    """Run a command; return its duration in seconds and peak memory in bytes, with children."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (arguments,))


def _measured(arguments: list[str]) -> tuple[float, int]:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "nsynth_super", "-q", *arguments], check=True)
    seconds = time.perf_counter() - begin
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def pack(folder: Path, model: Path, blocks: int, samples: int, *options: str) -> dict[str, Any]:
    """Measure decoding a pack, without the startup time (that of a second, empty run)."""
    root = str(workspace(folder, blocks, samples))
    measured(["prepare", "-w", root, "--checkpoint", str(model), "--device", "cpu"])
    command = ["generate", "-w", root, "--checkpoint", str(model), "--device", "cpu", *options]
    (seconds, memory), (start, _) = measured(command), measured(command)
    return {
        "clips": blocks * RESOLUTION**2,
        "samples": samples,
        "seconds": round(seconds - start, 2),
        "start_seconds": round(start, 2),
        "peak_megabytes": round(memory / 1e6),
    }


def growth(rows: list[dict[str, Any]], by: str) -> float:
    """Return the exponent with which the time grows; 1 is linear."""
    x, y = ([np.log(row[name]) for row in rows] for name in (by, "seconds"))
    return round(float(np.polyfit(x, y, 1)[0]), 3)


def main() -> None:
    """Measure, print and plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--svg", type=Path, help="folder for plots")
    parser.add_argument(
        "--of", nargs="+", default=["clips", "samples", "processes"], help="what to vary"
    )
    args = parser.parse_args()
    one = ("--workers", "1", "--threads", "1")
    two = ("--workers", "2", "--threads", "1")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        small, large = folder / "small.safetensors", folder / "published.safetensors"
        checkpoint.save(random.weights(SMALL, 0), small, "random")
        checkpoint.save(random.weights(PUBLISHED, 0), large, "random")
        if "clips" in args.of:
            rows = [pack(folder / f"clips-{n}", small, n, LEAST, *one) for n in BLOCKS]
            found["by_clips"], found["growth_by_clips"] = rows, growth(rows[1:], "clips")
        if "samples" in args.of:
            rows = [pack(folder / f"samples-{n}", small, 1, n, *one) for n in SAMPLES]
            found["by_samples"], found["growth_by_samples"] = rows, growth(rows, "samples")
        if "processes" in args.of:
            alone = pack(folder / "one", large, 2, LEAST, *one)
            both = pack(folder / "two", large, 2, LEAST, *two)
            found["one_process"], found["two_processes"] = alone, both
            found["two_are_faster"] = round(alone["seconds"] / both["seconds"], 2)
    if args.svg:
        from pictures import curves

        for by in ("clips", "samples"):
            if by in args.of:
                curves(args.svg / f"scaling-{by}.svg", found[f"by_{by}"], by)
    print(json.dumps(found, indent=None if args.json else 1))


if __name__ == "__main__":
    main()
