"""How cost grows with the work: clips, samples, processes.

    python benchmarks/scaling.py [--json] [--svg FOLDER]

Runs `nsynth-super generate` itself, with a model of a hundredth of the published size: on packs of
64 to 4,096 clips, each of the fewest samples that a pad can have, then on packs of longer clips.
Time and peak memory of the whole process are the operating system's. Then two blocks with a model
of the published size, by one process of one thread and by two.
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
RESOLUTION = 8  # 64 cells: with four instruments a block for each pitch
LEAST = ONSET_SEARCH + 1
BLOCKS = (1, 4, 16, 64)
SAMPLES = (LEAST, 2 * LEAST, 4 * LEAST, 8 * LEAST)


def workspace(folder: Path, pitches: int, samples: int) -> Path:
    """Make a workspace of 64 clips for each pitch, of so many samples."""
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


def measured(words: list[str]) -> tuple[float, int]:
    """Run the command line; return its seconds and its peak memory in bytes, children's too."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (words,))


def _measured(words: list[str]) -> tuple[float, int]:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "nsynth_super", "-q", *words], check=True)
    seconds = time.perf_counter() - begin
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def pack(folder: Path, model: Path, blocks: int, samples: int, *options: str) -> dict[str, Any]:
    """Prepare a pack, decode it, and decode it again when all is there: what it takes to start."""
    root = str(workspace(folder, blocks, samples))
    measured(["prepare", "-w", root, "--checkpoint", str(model), "--device", "cpu"])
    words = ["generate", "-w", root, "--checkpoint", str(model), "--device", "cpu", *options]
    (seconds, memory), (start, _) = measured(words), measured(words)
    return {
        "clips": blocks * RESOLUTION**2,
        "samples": samples,
        "seconds": round(seconds - start, 2),
        "start_seconds": round(start, 2),
        "peak_megabytes": round(memory / 1e6),
    }


def growth(rows: list[dict[str, Any]], by: str) -> float:
    """Return the exponent that seconds grow with: 1 is linear."""
    x, y = ([np.log(row[name]) for row in rows] for name in (by, "seconds"))
    return round(float(np.polyfit(x, y, 1)[0]), 3)


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--svg", type=Path, help="a folder to draw curves in")
    parser.add_argument("--of", nargs="+", default=["clips", "samples", "processes"])
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
