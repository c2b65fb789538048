"""The model in the box in Magenta's own graph, whose sizes are typed: filled up with zeros.

A channel of zeros stays one (tanh of 0 is 0, so is the rectified), a layer of zeros adds nothing:
the model of the published size that comes of it computes exactly what the small one does.
"""

from __future__ import annotations

import shutil

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

pytestmark = pytest.mark.skipif(
    python() is None, reason="no Python 2.7 with Magenta here: run tests/oracle/setup"
)


def filled_up(weights: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]) -> dict:
    """Return the weights in larger variables; what a gated convolution makes stays in halves."""
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
    return checkpoint.load(checkpoint.DEMO)


@pytest.fixture(scope="module")
def magenta(demo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("magenta")
    large = filled_up(demo.weights, PUBLISHED.shapes())
    checkpoint.save(large, folder / "weights.safetensors", "the demo, filled up")
    oracle = Oracle(python(), folder / magenta_format.PUBLISHED_NAME)
    oracle.save_checkpoint(folder / "weights.safetensors", slots=False)
    yield oracle
    shutil.rmtree(folder)


def test_magenta_training_and_the_engine_agree_on_the_model_in_the_box(magenta, demo):
    weights, sizes = agreement.tensors(demo.weights), demo.dimensions
    theirs = magenta.encode(read_notes())
    codes = torch.from_numpy(mulaw.encode(read_notes()))
    with torch.inference_mode():
        ours = encode(weights, sizes, codes)
    assert np.abs(ours.numpy() - theirs).max() <= agreement.EMBEDDING * np.abs(theirs).max()

    decoded = magenta.decode(theirs, uniforms(1, range(len(theirs)), 0, SAMPLES))
    fed = torch.from_numpy(decoded["fed"].T.astype(np.int64))  # silence, and what was drawn
    with torch.inference_mode():
        logits = decode(weights, sizes, amplitude(fed), ours[:, torch.arange(SAMPLES) // HOP])
    logits = logits.transpose(0, 1).numpy()
    assert np.abs(logits - decoded["logits"]).max() <= agreement.LOGITS
    assert agreement.divergence(decoded["logits"], logits).mean(1).max() <= agreement.DIVERGENCE
