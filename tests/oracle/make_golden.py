"""Create tests/golden/magenta-1.1.7.npz, the real Magenta's results for tests without Magenta.

    tests/oracle/setup
    python tests/oracle/make_golden.py [--seed N] [--samples N] [--output FILE]

Magenta, with untrained weights of the published size, encodes four notes of the demo and decodes
one of them past the decoder's receptive field, sampling with given random numbers. This takes about
ten minutes on two cores. The file contains

    seed, weights_sha256 of the weights (`wavenet.random`); the seed also of the random numbers
    magenta, tensorflow, numpy, python, made_by    versions
    notes, notes_sha256  names of the notes, and the hash of all their samples
    first_amplitude      [256]: the lowest 16-bit amplitude of each code, in 1/32768
    amplitudes           [256]: the amplitude of each code
    embeddings           [notes, 125, 16]
    decoded_note         index of the decoded note
    fed, uniform, drawn  [samples]: the previous code, the random number, the sampled code
    drawn_logit          [samples]: the logit of the sampled code
    log_sum_exp          [samples]: over all 256 logits
    stored, logits       [stored]: selected times; [stored, 256]: all logits at these times
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path

import numpy as np
from agreement import log_sum_exp
from numpy.typing import NDArray
from oracle import GOLDEN, NOTES, Oracle, python, read_notes

from nsynth_super import __version__
from nsynth_super.wavenet import checkpoint, random
from nsynth_super.wavenet.dimensions import PUBLISHED
from nsynth_super.wavenet.sampling import uniforms

DECODED = 0  # index of the decoded note
CLIP = 0  # key of the random numbers
SAMPLES = PUBLISHED.receptive_field + 120


def stored_times(samples: int) -> NDArray[np.int64]:
    """Return the times whose logits are stored: start, end of the receptive field, some between."""
    start, field = 64, PUBLISHED.receptive_field
    return np.concatenate(
        [np.arange(start), np.arange(start, field - 2, 48), np.arange(field - 2, samples)]
    )


def first_amplitudes(codes: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return the lowest 16-bit amplitude of each code, which suffices as codes are monotonic."""
    if (np.diff(codes) < 0).any() or len(np.unique(codes)) != 256:
        raise ValueError("the codes of the 16-bit amplitudes are not monotonic or not complete")
    return (np.searchsorted(codes, np.arange(256)) - 32768).astype(np.int16)


def golden(oracle: Oracle, seed: int, samples: int) -> dict[str, object]:
    """Run Magenta; return the arrays of the file."""
    notes = read_notes()
    mulaw = oracle.mulaw()
    embeddings = oracle.encode(notes)
    print("encoded", file=sys.stderr)
    uniform = uniforms(seed, [CLIP], 0, samples)
    run = {
        name: array[:, 0]
        for name, array in oracle.decode(embeddings[DECODED, None], uniform).items()
    }
    stored = stored_times(samples)
    drawn_logit = np.take_along_axis(run["logits"], run["drawn"][:, None].astype(np.int64), 1)
    return {
        "seed": seed,
        **oracle.versions(),
        "made_by": f"nsynth-super {__version__}, tests/oracle/make_golden.py",
        "notes": [note.stem for note in NOTES],
        "notes_sha256": hashlib.sha256(notes.tobytes()).hexdigest(),
        "first_amplitude": first_amplitudes(mulaw["codes"]),
        "amplitudes": mulaw["amplitudes"],
        "embeddings": embeddings,
        "decoded_note": DECODED,
        "fed": run["fed"].astype(np.uint8),
        "uniform": uniform[0],
        "drawn": run["drawn"],
        "drawn_logit": drawn_logit[:, 0],
        "log_sum_exp": log_sum_exp(run["logits"]).astype(np.float32),
        "stored": stored.astype(np.int16),
        "logits": run["logits"][stored],
    }


def main() -> None:
    """Parse the command line and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers [0]")
    parser.add_argument("--samples", type=int, default=SAMPLES, help=f"clip length [{SAMPLES}]")
    parser.add_argument("--output", type=Path, default=GOLDEN)
    args = parser.parse_args()
    magenta = python()
    if magenta is None:
        sys.exit("Magenta is not installed: run tests/oracle/setup first")
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        given = random.weights(PUBLISHED, args.seed)
        checkpoint.save(given, weights, f"random, seed {args.seed}")
        oracle = Oracle(magenta, Path(folder) / "model.ckpt")
        oracle.save_checkpoint(weights, slots=False)
        arrays = golden(oracle, args.seed, args.samples)
        arrays["weights_sha256"] = checkpoint.verified(given, "random").sha256
    args.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.output, **arrays)
    print(f"{args.output}: {args.output.stat().st_size:,} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
