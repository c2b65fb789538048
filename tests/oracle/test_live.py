"""Compare the PyTorch engine with the running Magenta, on other weights than the golden file's."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import agreement
import numpy as np
import pytest
import torch
from oracle import Oracle, python, read_notes

from nsynth_super.wavenet import checkpoint, magenta_format, mulaw, random
from nsynth_super.wavenet.cpu import CpuDecoder
from nsynth_super.wavenet.dimensions import HOP, PUBLISHED
from nsynth_super.wavenet.encoder import encode
from nsynth_super.wavenet.rewrites import Rewritten
from nsynth_super.wavenet.sampling import draw, uniforms

SEED = 1  # differs from the golden file's
SAMPLES = 300
CLIPS = range(4)

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(
        python() is None, reason="no Python 2.7 with Magenta here: run tests/oracle/setup"
    ),
]


@pytest.fixture(scope="module")
def weights():
    return random.weights(PUBLISHED, SEED)


@pytest.fixture(scope="module")
def magenta(weights, tmp_path_factory):
    """The real Magenta, with a checkpoint as training writes it."""
    folder = tmp_path_factory.mktemp("magenta")
    checkpoint.save(weights, folder / "weights.safetensors", f"random, seed {SEED}")
    oracle = Oracle(python(), folder / magenta_format.PUBLISHED_NAME)
    oracle.save_checkpoint(folder / "weights.safetensors", slots=True)
    yield oracle
    shutil.rmtree(folder)  # pytest would keep the gigabyte


@pytest.fixture(scope="module")
def embeddings(magenta):
    return magenta.encode(read_notes())


@pytest.fixture(scope="module")
def decoded(magenta, embeddings, weights):
    """Logits and codes of both engines, given the codes that Magenta sampled."""
    uniform = uniforms(SEED, CLIPS, 0, SAMPLES)
    theirs = magenta.decode(embeddings, uniform)
    encodings = torch.from_numpy(embeddings)
    decoder = CpuDecoder(
        Rewritten(agreement.tensors(weights), PUBLISHED, torch.float32), len(CLIPS)
    )
    logits, drawn = [], []
    with torch.inference_mode():
        for t, codes in enumerate(torch.from_numpy(theirs["fed"].astype(np.int64))):
            if t % HOP == 0:
                decoder.condition(encodings[:, t // HOP])
            logits.append(decoder.step(codes))
            drawn.append(draw(logits[-1], torch.from_numpy(uniform[:, t].copy())))
    ours = {"logits": torch.stack(logits).numpy(), "drawn": torch.stack(drawn).numpy()}
    return SimpleNamespace(theirs=theirs, ours=ours)


def test_a_training_checkpoint_has_exactly_the_published_file_sizes(magenta):
    assert magenta_format.has_published_sizes(magenta.prefix)


def test_a_training_checkpoint_is_converted_bit_for_bit(magenta, weights, monkeypatch):
    monkeypatch.setenv("NSYNTH_CACHE", str(magenta.prefix.with_name("cache")))
    converted = checkpoint.load(magenta.prefix)
    assert converted.dimensions == PUBLISHED
    assert set(converted.weights) == set(weights), "the optimizer's slots are not converted"
    for name, array in weights.items():
        np.testing.assert_array_equal(converted.weights[name].view("u4"), array.view("u4"), name)
    assert converted.sha256 == checkpoint.verified(weights, "the original").sha256


def test_the_encoder_computes_magentas_embeddings(embeddings, weights):
    codes = torch.from_numpy(mulaw.encode(read_notes()))
    with torch.inference_mode():
        tensors = agreement.tensors(weights)
        ours = torch.cat([encode(tensors, PUBLISHED, code[None]) for code in codes]).numpy()
    assert np.abs(ours - embeddings).max() <= agreement.EMBEDDING * np.abs(embeddings).max()


def test_magentas_decoder_starts_from_silence_and_feeds_back_its_codes(decoded):
    fed, drawn = decoded.theirs["fed"], decoded.theirs["drawn"]
    assert (fed[0] == mulaw.ZERO).all()
    assert (fed[1:] == drawn[:-1]).all()


def test_the_decoder_computes_magentas_logits_at_every_step(decoded):
    theirs, ours = decoded.theirs["logits"], decoded.ours["logits"]
    assert theirs.shape == (SAMPLES, len(CLIPS), 256)
    assert np.abs(ours - theirs).max() <= agreement.LOGITS
    per_step = agreement.divergence(theirs, ours).mean(1)
    assert per_step.max() <= agreement.DIVERGENCE


def test_the_same_random_numbers_yield_magentas_codes(decoded):
    same = decoded.ours["drawn"] == decoded.theirs["drawn"]
    assert same.mean() >= agreement.SAME_CODES


def test_the_logits_are_varied_enough_for_a_meaningful_comparison(decoded):
    logits = decoded.theirs["logits"]
    assert 2 <= logits.std(-1).mean() <= 4
    assert 2 <= agreement.entropy(logits).mean() <= 4
    for clip in decoded.theirs["drawn"].T:
        assert len(np.unique(clip)) >= 32


def test_magenta_generates_34_minutes_from_a_four_second_encoding(magenta, embeddings, tmp_path):
    np.save(tmp_path / "flute_60.npy", embeddings[0])
    frames, samples = embeddings.shape[1], embeddings.shape[1] * HOP
    assert magenta.generated_samples(tmp_path / "flute_60.npy") == samples * HOP
    given = magenta.generated_samples(tmp_path / "flute_60.npy", f"--sample_length={frames}")
    assert given == samples
