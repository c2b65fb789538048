"""Compare the PyTorch engine with the real Magenta's results, stored in tests/golden."""

from __future__ import annotations

import hashlib

import agreement
import numpy as np
import pytest
import torch
from oracle import GOLDEN, NOTES, read_notes

from nsynth_super.wavenet import checkpoint, mulaw, random
from nsynth_super.wavenet.cpu import CpuDecoder
from nsynth_super.wavenet.decoder import Decoder
from nsynth_super.wavenet.dimensions import HOP, PUBLISHED
from nsynth_super.wavenet.encoder import encode
from nsynth_super.wavenet.rewrites import Rewritten
from nsynth_super.wavenet.sampling import draw, uniforms

SIXTEEN_BIT = np.arange(-32768, 32768)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def weights(golden):
    weights = random.weights(PUBLISHED, int(golden["seed"]))
    assert checkpoint.verified(weights, "random").sha256 == golden["weights_sha256"], (
        "the untrained weights differ from those of the golden file"
    )
    return agreement.tensors(weights)


@pytest.fixture(scope="module")
def encoding(golden):
    return torch.from_numpy(golden["embeddings"][golden["decoded_note"]])[None]


def test_every_16_bit_amplitude_has_magentas_code(golden):
    magentas = np.searchsorted(golden["first_amplitude"], SIXTEEN_BIT, side="right") - 1
    assert (mulaw.encode((SIXTEEN_BIT / 32768).astype(np.float32)) == magentas).all()


def test_every_code_has_magentas_amplitude(golden):
    np.testing.assert_array_equal(mulaw.AMPLITUDES, golden["amplitudes"])


def test_the_random_numbers_are_those_of_the_golden_file(golden):
    ours = uniforms(int(golden["seed"]), [0], 0, len(golden["uniform"]))[0]
    np.testing.assert_array_equal(ours, golden["uniform"])


def test_the_notes_are_those_of_the_golden_file(golden):
    notes = read_notes()
    assert [note.stem for note in NOTES] == list(golden["notes"])
    assert hashlib.sha256(notes.tobytes()).hexdigest() == golden["notes_sha256"], (
        "the demo's notes differ from those of the golden file"
    )


@pytest.mark.parametrize(
    "which", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 2, 3))]
)
def test_the_encoder_computes_magentas_embedding_of_a_note(golden, weights, which):
    codes = mulaw.encode(read_notes()[which])
    with torch.inference_mode():
        ours = encode(weights, PUBLISHED, torch.from_numpy(codes)[None])[0].numpy()
    theirs = golden["embeddings"]
    assert np.abs(ours - theirs[which]).max() <= agreement.EMBEDDING * np.abs(theirs).max()


def test_the_reference_decoder_computes_magentas_logits(golden, weights, encoding):
    decoder = Decoder(weights, PUBLISHED, clips=1)
    logits = run(100, golden, lambda t, code: decoder.step(code, encoding[:, t // HOP]))
    assert_agreement(golden, logits)


@pytest.mark.slow
def test_the_fast_decoder_computes_magentas_logits_beyond_the_receptive_field(
    golden, weights, encoding
):
    samples = len(golden["fed"])
    assert samples > PUBLISHED.receptive_field + 100
    decoder = CpuDecoder(Rewritten(weights, PUBLISHED, torch.float32), clips=1)

    def step(t, code):
        if t % HOP == 0:
            decoder.condition(encoding[:, t // HOP])
        return decoder.step(code)

    assert_agreement(golden, run(samples, golden, step))


def run(samples, golden, step):
    """Step through Magenta's input codes; return the logits, `[samples, 256]`."""
    codes = torch.from_numpy(golden["fed"].astype(np.int64))
    with torch.inference_mode():
        return np.concatenate([step(t, codes[t, None]).numpy() for t in range(samples)])


def assert_agreement(golden, ours):
    """Compare the logits of the first times with Magenta's: all where stored, else two values."""
    samples = len(ours)
    drawn = golden["drawn"][:samples].astype(np.int64)
    drawn_logit = np.take_along_axis(ours, drawn[:, None], 1)[:, 0]
    assert np.abs(drawn_logit - golden["drawn_logit"][:samples]).max() <= agreement.LOGITS
    log_sum_exp = agreement.log_sum_exp(ours)
    assert np.abs(log_sum_exp - golden["log_sum_exp"][:samples]).max() <= agreement.LOGITS

    stored = golden["stored"][golden["stored"] < samples]
    theirs = golden["logits"][: len(stored)]
    assert len(stored) > samples // 50
    assert np.abs(ours[stored] - theirs).max() <= agreement.LOGITS
    assert agreement.divergence(theirs, ours[stored]).mean() <= agreement.DIVERGENCE

    uniform = torch.from_numpy(golden["uniform"][:samples])
    same = draw(torch.from_numpy(ours), uniform).numpy() == drawn
    assert same.mean() >= agreement.SAME_CODES
