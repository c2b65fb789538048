"""Makes tests/golden/magenta-1.1.7.npz: what the real Magenta computes, to be had without it.

    tests/oracle/setup
    python tests/oracle/make_golden.py [--seed N] [--samples N] [--output FILE]

Magenta is given untrained weights of the published size, encodes four notes of the examples, and
decodes one of them, drawing from given uniforms and hearing what it drew, past the decoder's
receptive field. Takes about ten minutes on two cores. The file holds

    seed, weights_sha256 of the weights (`wavenet.random`); the uniforms have the seed too
    magenta, tensorflow, numpy, python, made_by    what computed
    notes, notes_sha256  their names, and the hash of all of their samples
    first_amplitude      [256]: the lowest 16-bit amplitude, in 1/32768, of each code
    amplitudes           [256]: the amplitude of each code
    embeddings           [notes, 125, 16]
    decoded_note         which of the notes was decoded
    fed, uniform, drawn  [samples]: the code before, the uniform, the code that was drawn
    drawn_logit          [samples]: the logit of the code drawn
    log_sum_exp          [samples]: of all 256 logits
    stored, logits       [stored] times, and [stored, 256]: all logits of those
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

DECODED = 0  # of the notes
CLIP = 0  # the key that the uniforms are drawn with
SAMPLES = PUBLISHED.receptive_field + 120


def stored_times(samples: int) -> NDArray[np.int64]:
    """Return the times whose logits are kept: the start, the receptive field's end, and between."""
    start, field = 64, PUBLISHED.receptive_field
    return np.concatenate(
        [np.arange(start), np.arange(start, field - 2, 48), np.arange(field - 2, samples)]
    )


def first_amplitudes(codes: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return the lowest 16-bit amplitude of each code; they say everything, as codes only rise."""
    if (np.diff(codes) < 0).any() or len(np.unique(codes)) != 256:
        raise ValueError("the codes of the 16-bit amplitudes do not rise through all 256")
    return (np.searchsorted(codes, np.arange(256)) - 32768).astype(np.int16)


def golden(oracle: Oracle, seed: int, samples: int) -> dict[str, object]:
    """Ask Magenta everything; return the arrays of the file."""
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
    """Parse the command line, and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the uniforms [0]")
    parser.add_argument("--samples", type=int, default=SAMPLES, help=f"to decode [{SAMPLES}]")
    parser.add_argument("--output", type=Path, default=GOLDEN)
    args = parser.parse_args()
    magenta = python()
    if magenta is None:
        sys.exit("the real Magenta is not here: run tests/oracle/setup first")
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
