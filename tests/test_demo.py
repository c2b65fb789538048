"""The bundled model's sound: the demo's clips are in tune and resemble their notes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nsynth_super.base.workspace import Workspace
from nsynth_super.demo import MODEL, MODEL_CARD, copy_workspace
from nsynth_super.wavenet import checkpoint
from training.listening import Pack, distance, hiss, log_mel

HISS = -15.0
"""Maximum median over the corners of the energy between harmonics, in dB relative to the total."""


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """The pack that `make demo` builds."""
    root = tmp_path_factory.mktemp("demo")
    copy_workspace(root)
    words = ["-q", "run", "-w", str(root), "--checkpoint", "demo"]
    subprocess.run([sys.executable, "-m", "nsynth_super", *words], check=True)
    return Pack(Workspace(root))


def test_the_model_is_small_and_documented():
    assert MODEL.stat().st_size < 4e6
    loaded = checkpoint.load(Path("demo"))
    assert loaded.source == str(MODEL)
    card = MODEL_CARD.read_text(encoding="utf-8")
    assert loaded.sha256 in card
    for word in ("FluidR3_GM", "MIT", "steps", "nat", "python -m training.train"):
        assert word in card


@pytest.mark.process
@pytest.mark.slow
def test_corner_cells_are_in_tune(pack: Pack):
    """At least four fifths of the corner cells are within 50 cents of their pitch."""
    in_tune = [cell.in_tune for cell in pack.corners]
    assert len(in_tune) == 12
    assert np.mean(in_tune) >= 0.8, pack.corners


@pytest.mark.process
@pytest.mark.slow
def test_corner_cells_sound_like_their_instrument(pack: Pack):
    """At least four fifths are nearer to their own note than to the three others."""
    likeness = [cell.sounds_like_itself for cell in pack.corners]
    assert np.mean(likeness) >= 0.8, pack.corners


@pytest.mark.process
@pytest.mark.slow
def test_a_mix_lies_between_its_notes(pack: Pack):
    """Most mixes are in tune and nearer to their notes than those are to each other."""
    mixes = pack.halfway()
    assert len(mixes) == 12
    assert np.mean([mix.between for mix in mixes]) >= 0.5, mixes
    assert np.mean([mix.near for mix in mixes]) >= 0.75, mixes
    assert np.mean([mix.in_tune for mix in mixes]) >= 0.75, mixes


@pytest.mark.process
@pytest.mark.slow
def test_hiss_is_below_the_limit_of_the_model_card(pack: Pack):
    assert np.median([cell.hiss for cell in pack.corners]) <= HISS, pack.corners


def test_the_measures_of_noise_and_tones_are_correct():
    noise = np.random.default_rng(0).standard_normal(16_000)
    time = np.arange(16_000) / 16_000
    tone = np.sin(2 * np.pi * 261.63 * time) + 0.5 * np.sin(2 * np.pi * 523.25 * time)
    assert hiss(noise, 60) == pytest.approx(0, abs=1)
    assert hiss(tone, 60) < -60
    assert hiss(tone + 0.1 * noise, 60) == pytest.approx(-18, abs=2)
    assert distance(tone, 3 * tone) < 1e-6
    assert distance(tone, tone + 0.1 * noise) < distance(tone, noise)
    assert np.isfinite(log_mel(np.zeros(4_000))).all()
