"""The model in the box, by ear: how much of what `make demo` makes is in tune and like its note."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nsynth_super.wavenet import checkpoint
from nsynth_super.workspace import Workspace
from training.listening import Pack, distance, hiss, log_mel

EXAMPLES = Path(__file__).parents[1] / "examples"
HISS = -15.0
"""dB of the whole between the harmonics, the median of the corners: noise alone has 0."""


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """What the README's demo makes."""
    root = tmp_path_factory.mktemp("demo")
    shutil.copy(EXAMPLES / "settings.json", root)
    shutil.copytree(EXAMPLES / "audio_input", root / "audio_input")
    words = ["-q", "run", "-w", str(root), "--checkpoint", "demo"]
    subprocess.run([sys.executable, "-m", "nsynth_super", *words], check=True)
    return Pack(Workspace(root))


def test_the_model_is_small_and_says_what_it_is():
    assert checkpoint.DEMO.stat().st_size < 4e6
    demo = checkpoint.load(Path("demo"))
    assert demo.source == str(checkpoint.DEMO)
    card = checkpoint.DEMO.with_suffix(".md").read_text(encoding="utf-8")
    assert demo.sha256 in card
    for word in ("FluidR3_GM", "MIT", "steps", "nat", "python -m training.train"):
        assert word in card


def test_notes_come_out_at_their_pitch(pack: Pack):
    """Within 50 cents, in four fifths of the corners' cells."""
    in_tune = [cell.in_tune for cell in pack.corners]
    assert len(in_tune) == 12
    assert np.mean(in_tune) >= 0.8, pack.corners


def test_corners_sound_like_their_own_instrument(pack: Pack):
    """Nearer to the note they were made from than to the three others."""
    likeness = [cell.sounds_like_itself for cell in pack.corners]
    assert np.mean(likeness) >= 0.8, pack.corners


def test_a_mix_lies_between_what_it_is_mixed_of(pack: Pack):
    """Nearer to each than they are to each other, half of them; on average, and in tune, most."""
    mixes = pack.halfway()
    assert len(mixes) == 12
    assert np.mean([mix.between for mix in mixes]) >= 0.5, mixes
    assert np.mean([mix.near for mix in mixes]) >= 0.75, mixes
    assert np.mean([mix.in_tune for mix in mixes]) >= 0.75, mixes


def test_hiss_is_below_what_the_model_card_states(pack: Pack):
    assert np.median([cell.hiss for cell in pack.corners]) <= HISS, pack.corners


def test_the_measures_measure():
    noise = np.random.default_rng(0).standard_normal(16_000)
    time = np.arange(16_000) / 16_000
    tone = np.sin(2 * np.pi * 261.63 * time) + 0.5 * np.sin(2 * np.pi * 523.25 * time)
    assert hiss(noise, 60) == pytest.approx(0, abs=1)
    assert hiss(tone, 60) < -60
    assert hiss(tone + 0.1 * noise, 60) == pytest.approx(-18, abs=2)
    assert distance(tone, 3 * tone) < 1e-6
    assert distance(tone, tone + 0.1 * noise) < distance(tone, noise)
    assert np.isfinite(log_mel(np.zeros(4_000))).all()
