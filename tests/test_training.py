"""Training uses the same model as encoding and decoding, and a stopped run resumes exactly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nsynth_super.wavenet import checkpoint, mulaw, random
from nsynth_super.wavenet.decoder import Decoder
from nsynth_super.wavenet.dimensions import CODES, HOP, Dimensions
from nsynth_super.wavenet.encoder import encode
from training import autoencoder
from training.train import Run, Windows, learning_rate, mix, untrained

TINY = Dimensions(width=12, skip_width=10, layers=12, encoder_width=8, encoder_layers=10)
"""More than ten layers, so that dilations repeat; a receptive field of 2,054 samples."""

FRAMES = 6


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(w).double() for k, w in random.weights(TINY, 0).items()}


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    return np.random.default_rng(0).integers(0, CODES, (2, 24 * HOP), dtype=np.uint8)


def window(codes: np.ndarray, note: int, place: int) -> dict[str, torch.Tensor]:
    """Return one window of a note, without noise, in float64."""
    windows = Windows(codes, TINY, 0.0, other=0.0)
    found = windows.cut(np.array([note]), np.array([place]), FRAMES, np.random.default_rng(0))
    return {name: t if name == "answer" else t.double() for name, t in found.items()}


def logits(weights: dict[str, torch.Tensor], heard: dict[str, torch.Tensor]) -> torch.Tensor:
    encoding = autoencoder.encode(weights, TINY, heard["heard"], heard["inside"])
    encoding = mix(encoding, heard["shares"])
    each_sample = encoding.repeat_interleave(HOP, dim=1)
    return autoencoder.decode(weights, TINY, heard["past"], each_sample)


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1, 4, 18])
def test_windows_agree_with_the_encoder_and_the_decoder(weights, codes, place):
    """For windows at a note's start, near it, in the middle, and at its end."""
    heard = window(codes, 1, place)
    answer = codes[1, place * HOP :][: FRAMES * HOP]
    np.testing.assert_array_equal(heard["answer"][0], answer)
    whole = encode(weights, TINY, torch.from_numpy(codes[1:]))[:, place : place + FRAMES]
    encoding = autoencoder.encode(weights, TINY, heard["heard"], heard["inside"])
    torch.testing.assert_close(encoding, whole)

    decoder, stepped = Decoder(weights, TINY, 1), []
    for t, before in enumerate(torch.tensor([128, *answer[:-1]])):
        stepped.append(decoder.step(before[None], whole[:, t // HOP]))
    torch.testing.assert_close(logits(weights, heard), torch.stack(stepped, dim=1))


def test_every_weight_is_trained(weights, codes):
    learned = {name: w.clone().requires_grad_() for name, w in weights.items()}
    logits(learned, window(codes, 0, 7)).square().mean().backward()
    untouched = {name for name, w in learned.items() if w.grad is None or not w.grad.any()}
    assert untouched == {"res_12/W", "res_12/biases"}, "the last layer's res is unused"


def test_all_steps_have_equally_many_samples_in_windows_of_different_lengths(codes):
    for mixed in (0.0, 0.5):
        windows = Windows(codes, TINY, 4.0, mixed=mixed, pitches=np.array([60, 60]))
        shapes = {tuple(windows.step(0, number)["answer"].shape) for number in range(30)}
        assert shapes == {(32, 512), (16, 1024), (8, 2048), (4, 4096)}


def test_silent_windows_are_rare_and_first_windows_are_frequent(codes):
    silent = codes.copy()
    silent[1] = 128
    probabilities = Windows(silent, TINY, 0.0).probabilities(2)
    assert probabilities.shape == (2, 23)
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities[1].sum() / probabilities[0].sum() == pytest.approx(0.05)
    assert probabilities[0, 0] == pytest.approx(10 * probabilities[0, 1])


@pytest.mark.parametrize(("noise", "other"), [(4.0, 0.0), (0.0, 0.5)])
def test_noise_and_other_notes_affect_only_the_past(codes, noise: float, other: float):
    clean = Windows(codes, TINY, 0.0, other=0.0, mixed=0.0).step(0, 3)
    disturbed = Windows(codes, TINY, noise, other=other, mixed=0.0).step(0, 3)
    assert not torch.equal(clean.pop("past"), disturbed.pop("past"))
    for name, value in clean.items():
        assert torch.equal(value, disturbed[name])


def test_windows_are_mixed_like_the_cells_of_a_pad():
    """A mix of four notes of one pitch: their embeddings, and the target sounds."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, CODES, (6, 24 * HOP), dtype=np.uint8)
    pitches = np.array([60, 48, 60, 60, 48, 60])
    windows = Windows(codes, TINY, 0.0, other=0.0, mixed=1.0, pitches=pitches)
    places, notes = np.array([7, 7, 7, 7]), windows._of_one_pitch(2, rng)
    assert sorted(notes) == [0, 2, 3, 5]
    assert set(windows._of_one_pitch(1, rng)) == {1, 4}
    shares = windows._shares(rng)
    assert shares.min() >= 0
    np.testing.assert_allclose(shares.sum(1), 1)
    cut = windows.cut(notes, places, 2, rng, shares[None])
    sounds = mulaw.decode(codes[notes, 7 * HOP : 9 * HOP])
    np.testing.assert_array_equal(cut["answer"], mulaw.encode(shares @ sounds))
    embeddings = torch.randn(4, 2, 16)
    mixed = torch.einsum("wn,nfe->wfe", torch.from_numpy(shares).float(), embeddings)
    torch.testing.assert_close(mix(embeddings, cut["shares"]), mixed)


def test_training_starts_from_an_existing_model(tmp_path: Path):
    weights = random.weights(TINY, 0)
    checkpoint.save(weights, tmp_path / "model.safetensors", "random")
    begun = Run(tmp_path / "new.state", TINY, 1, tmp_path / "model.safetensors")
    assert begun.step == 0
    for name, w in begun.weights.items():
        np.testing.assert_array_equal(w.detach(), weights[name])


def test_sharper_scales_only_the_logits(tmp_path: Path):
    run = Run(tmp_path / "new.state", TINY, 0)
    for sharper in (1.0, 2.0):
        run.export(tmp_path / f"{sharper}.safetensors", "untrained", sharper)
    plain, steep = (checkpoint.load(tmp_path / f"{s}.safetensors").weights for s in (1.0, 2.0))
    for name, w in plain.items():
        factor = 2 if name in ("logits/W", "logits/biases") else 1
        np.testing.assert_array_equal(steep[name], factor * w)


def test_training_starts_nearly_uniform_and_its_learning_rate_decays():
    assert untrained(TINY, 0)["logits/W"].std() < 0.1
    rates = [learning_rate(step, 9000) for step in (0, 199, 4500, 8999)]
    assert rates == pytest.approx([1e-5, 2e-3, 1.01e-3, 2e-5], rel=0.01)


@pytest.mark.slow
def test_a_stopped_run_resumes_with_the_same_result(tmp_path: Path, codes):
    np.savez(tmp_path / "notes.npz", codes=codes, names=["a_60", "b_60"])

    def train(out: str, *steps: int) -> dict[str, np.ndarray]:
        for count in steps:
            words = [
                "notes.npz",
                out,
                "--steps",
                "4",
                "--stop-after",
                str(count),
                "--device",
                "cpu",
            ]
            run = [sys.executable, "-m", "training.train", *words]
            env = {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
            subprocess.run(run, cwd=tmp_path, env=env, check=True, capture_output=True)
        return checkpoint.load(tmp_path / out).weights

    at_once, in_two = train("once.safetensors", 4), train("twice.safetensors", 2, 4)
    for name, w in at_once.items():
        np.testing.assert_array_equal(w, in_two[name])
    lines = (tmp_path / "twice.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]
