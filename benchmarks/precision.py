"""Measure the divergence of reduced precisions from float32, in nats per sample.

    python benchmarks/precision.py [--checkpoint FILE] [--steps 6600] [--json]

The float32 reference samples codes for encodings of the demo's notes. Each precision receives the
same codes, past the receptive field, and its divergence is averaged over all steps. Without a
checkpoint, the weights are random ones of the published size, as in the tests.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile
import torch

from nsynth_super.demo import NOTES
from nsynth_super.engines.pytorch_device import PRECISIONS
from nsynth_super.wavenet import checkpoint, mulaw, random
from nsynth_super.wavenet.cpu import CpuDecoder
from nsynth_super.wavenet.dimensions import PUBLISHED
from nsynth_super.wavenet.divergence import divergences
from nsynth_super.wavenet.encoder import encode
from nsynth_super.wavenet.rewrites import Rewritten

CLIPS = 4


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="seed of the random weights")
    parser.add_argument("--steps", type=int, default=PUBLISHED.receptive_field + 460)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=PRECISIONS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    arrays = random.weights(PUBLISHED, args.seed)
    dimensions = PUBLISHED
    if args.checkpoint:
        loaded = checkpoint.load(args.checkpoint)
        arrays, dimensions = dict(loaded.weights), loaded.dimensions
    weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
    files = sorted(NOTES.glob("*_60.flac"))[:CLIPS] or sorted(NOTES.glob("*.flac"))[:CLIPS]
    notes = np.stack([soundfile.read(file, dtype="float32")[0] for file in files])
    with torch.inference_mode():
        encodings = encode(weights, dimensions, torch.from_numpy(mulaw.encode(notes)))
    paths = [
        CpuDecoder(Rewritten(weights, dimensions, PRECISIONS[name]), len(notes))
        for name in args.precisions
    ]
    nats = divergences(weights, dimensions, paths, encodings, args.steps)
    found = dict(zip(args.precisions, nats, strict=True))
    if args.json:
        print(json.dumps({"steps": args.steps, "clips": len(notes), "nat_a_sample": found}))
        return
    for name, nat in found.items():
        print(f"{name}: {nat:.2g} nats per sample ({args.steps:,} steps of {len(notes)} clips)")


if __name__ == "__main__":
    main()
