"""Compare the encoder's speed with the device's throughput for matrix products.

    python benchmarks/encoder.py [--device cuda] [--json]

Encodes a note of four seconds. The roofline is the time for the same number of multiplications at
the rate of a large float32 product on the same device, measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch

from nsynth_super.base import allocation
from nsynth_super.engines.pytorch import TorchEngine
from nsynth_super.settings import NOTE_SAMPLES
from nsynth_super.wavenet import random
from nsynth_super.wavenet.checkpoint import Checkpoint
from nsynth_super.wavenet.dimensions import PUBLISHED, TAPS
from nsynth_super.wavenet.linear import Linear

SIDE = 2048


def median(action: Callable[[], object], device: torch.device, times: int = 7) -> float:
    """Return the median duration of an action after a warm-up, in seconds."""
    durations = []
    for _ in range(times + 1):
        begin = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        durations.append(time.perf_counter() - begin)
    return float(np.median(durations[1:]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    weights = Checkpoint(random.weights(PUBLISHED, 0), PUBLISHED, "random")
    engine = TorchEngine(weights, allocation.processors(), args.device)
    device = engine.hardware.device
    channels, layers = PUBLISHED.encoder_width, PUBLISHED.encoder_layers
    work = 2 * NOTE_SAMPLES * layers * (TAPS + 1) * channels**2
    x, w = (torch.randn(SIDE, SIDE, device=device) for _ in range(2))
    product = Linear(w, rows=SIDE) if device.type == "cpu" else lambda x: x @ w
    note = np.zeros((1, NOTE_SAMPLES), dtype=np.float32)
    with torch.inference_mode():
        rate = 2 * SIDE**3 / median(lambda: product(x), device)
        seconds = median(lambda: next(engine.encode(note)), device)
    found = {
        "device": str(engine.hardware).split(",")[0],
        "seconds_a_note": round(seconds, 3),
        "roofline_seconds": round(work / rate, 3),
        "share_of_roofline": round(work / rate / seconds, 3),
    }
    print(json.dumps(found) if args.json else "\n".join(f"{k}: {v}" for k, v in found.items()))


if __name__ == "__main__":
    main()
