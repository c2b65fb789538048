"""Run the bundled demo model in Magenta's own graph, zero-padded to its hard-coded sizes.

Channels of zeros stay zero (tanh and ReLU of 0 are 0), and layers of zeros add nothing, so the
padded model computes exactly what the small model computes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import agreement
import numpy as np
import pytest
import torch
from oracle import Oracle, python, read_notes

from nsynth_super.wavenet import checkpoint, magenta_format, mulaw
from nsynth_super.wavenet.dimensions import HOP, PUBLISHED
from nsynth_super.wavenet.encoder import encode
from nsynth_super.wavenet.sampling import uniforms
from training.autoencoder import amplitude, decode

SAMPLES = 300

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(
        python() is None, reason="no Python 2.7 with Magenta here: run tests/oracle/setup"
    ),
]


def padded(weights: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]) -> dict:
    """Return the weights zero-padded to larger shapes; gated convolutions are padded by halves."""
    large = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    for name, w in weights.items():
        if name.startswith(("dilatedconv_", "cond_map_")) and "out1" not in name:
            for half in (0, 1):
                part = np.split(w, 2, axis=-1)[half]
                into = np.split(large[name], 2, axis=-1)[half]
                into[tuple(slice(size) for size in part.shape)] = part
        else:
            large[name][tuple(slice(size) for size in w.shape)] = w
    return large


@pytest.fixture(scope="module")
def demo():
    return checkpoint.load(Path("demo"))


@pytest.fixture(scope="module")
def magenta(demo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("magenta")
    large = padded(demo.weights, PUBLISHED.shapes())
    checkpoint.save(large, folder / "weights.safetensors", "the demo model, padded")
    oracle = Oracle(python(), folder / magenta_format.PUBLISHED_NAME)
    oracle.save_checkpoint(folder / "weights.safetensors", slots=False)
    yield oracle
    shutil.rmtree(folder)


def test_magenta_training_and_the_engine_agree_on_the_demo_model(magenta, demo):
    weights, sizes = agreement.tensors(demo.weights), demo.dimensions
    theirs = magenta.encode(read_notes())
    codes = torch.from_numpy(mulaw.encode(read_notes()))
    with torch.inference_mode():
        ours = encode(weights, sizes, codes)
    assert np.abs(ours.numpy() - theirs).max() <= agreement.EMBEDDING * np.abs(theirs).max()

    decoded = magenta.decode(theirs, uniforms(1, range(len(theirs)), 0, SAMPLES))
    fed = torch.from_numpy(decoded["fed"].T.astype(np.int64))  # silence, then the sampled codes
    with torch.inference_mode():
        logits = decode(weights, sizes, amplitude(fed), ours[:, torch.arange(SAMPLES) // HOP])
    logits = logits.transpose(0, 1).numpy()
    assert np.abs(logits - decoded["logits"]).max() <= agreement.LOGITS
    assert agreement.divergence(decoded["logits"], logits).mean(1).max() <= agreement.DIVERGENCE
