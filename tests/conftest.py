"""Small real things that many tests need: weights, notes, a workspace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

import nsynth_super.engines
from nsynth_super.wavenet import checkpoint, random
from nsynth_super.wavenet.dimensions import Dimensions
from nsynth_super.workspace import Workspace

# What a commit's tests say depends on the commit alone. To look for what nobody has thought of yet:
# `pytest --hypothesis-profile search -k 'says_is_done'`, and write what it finds as an @example.
_patient = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
hypothesis_settings.register_profile("same-each-time", **_patient, derandomize=True)
hypothesis_settings.register_profile("search", **_patient, max_examples=20_000)
hypothesis_settings.load_profile("same-each-time")

SMALL = Dimensions(width=24, skip_width=24, layers=6, encoder_width=8, encoder_layers=6)
"""A receptive field of 128 samples: small enough to run past it many times in a test."""

SETTINGS: dict[str, Any] = {
    "pads": {"NW": ["flute"], "NE": ["oboe"], "SW": ["tin_drum"], "SE": ["viola"]},
    "pitches": [48, 60],
    "resolution": 3,
    "final_length": 300,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips", action="store_true", help="a skipped test is an error, unless it needs a GPU"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if (
        report.skipped
        and item.config.getoption("--no-skips")
        and not item.get_closest_marker("gpu")
    ):
        report.outcome = "failed"
        report.longrepr = f"--no-skips allows a skip only for a GPU: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def _no_users_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NSYNTH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("NSYNTH_CHECKPOINT", raising=False)


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of a few thousand numbers."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    checkpoint.save(random.weights(SMALL, 3), path, "test")
    return path


def write_note(path: Path, frequency: float, seconds: float = 4.0, rate: int = 16_000) -> None:
    """Record a decaying tone."""
    t = np.arange(int(seconds * rate)) / rate
    soundfile.write(path, 0.5 * np.exp(-t) * np.sin(2 * np.pi * frequency * t), rate)


@pytest.fixture
def make_workspace(tmp_path: Path) -> Callable[..., Workspace]:
    """Return a function that makes a whole workspace; keywords change its settings."""

    def make(name: str = "pack", **changes: Any) -> Workspace:
        workspace = Workspace(tmp_path / name)
        workspace.notes.mkdir(parents=True)
        settings = {**SETTINGS, **changes}
        workspace.settings.write_text(json.dumps(settings), encoding="utf-8")
        instruments = dict.fromkeys(i for names in settings["pads"].values() for i in names)
        for number, instrument in enumerate(instruments):
            for pitch in settings["pitches"]:
                frequency = 440.0 * 2 ** ((pitch - 69) / 12) * (1 + number / 200)
                write_note(workspace.notes / f"{instrument}_{pitch}.wav", frequency)
        return workspace

    return make


@pytest.fixture
def command(small_checkpoint: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs `nsynth-super` as a process, on the small model."""

    def run(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            nsynth_super(*words),
            env={
                **os.environ,
                "NSYNTH_CHECKPOINT": str(small_checkpoint),
                **options.pop("env", {}),
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            **options,
        )

    return run


def nsynth_super(*words: object) -> list[str]:
    """Return the argv of the command line under test."""
    code = "from nsynth_super.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, words)]
