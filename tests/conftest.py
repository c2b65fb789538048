"""Shared fixtures: small models, notes, workspaces and packs; markers by folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from nsynth_super.base.workspace import Workspace
from nsynth_super.wavenet import checkpoint, random
from nsynth_super.wavenet.dimensions import Dimensions
from tests import commands

# Examples are derandomized, so that a commit's tests always give the same result. To search for
# new failures, run `pytest --hypothesis-profile search -k NAME`, and add each one as an @example.
_patient = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
hypothesis_settings.register_profile("deterministic", **_patient, derandomize=True)
hypothesis_settings.register_profile("search", **_patient, max_examples=20_000)
hypothesis_settings.load_profile("deterministic")

SMALL = Dimensions(width=24, skip_width=24, layers=6, encoder_width=8, encoder_layers=6)
"""Model with a receptive field of 128 samples, which a test exceeds many times."""

TINY = Dimensions(width=8, skip_width=8, layers=2, encoder_width=4, encoder_layers=2)
"""Smallest model with a dilated layer, for tests that need a pack of any sound."""

SETTINGS: dict[str, Any] = {
    "pads": {"NW": ["flute"], "NE": ["oboe"], "SW": ["tin_drum"], "SE": ["viola"]},
    "pitches": [48, 60],
    "resolution": 3,
    "final_length": 300,
}


MAY_BE_SKIPPED = ("gpu", "published")
"""Markers of tests that need what not everybody can have."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips",
        action="store_true",
        help=f"a skipped test is an error, unless marked as one of {', '.join(MAY_BE_SKIPPED)}",
    )


FOLDERS = {"browser": "browser", "cluster": "cluster", "faults": "process"}
"""Marker of every test in a folder; described in pyproject.toml."""

PROCESS_FIXTURES = {"command", "new_process", "made_pack", "start_stage"}
"""Fixtures whose tests get the marker `process`."""


@pytest.hookimpl(tryfirst=True)  # before tests are deselected by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in FOLDERS:
            item.add_marker(FOLDERS[folder])
        if PROCESS_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("process")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if (
        report.skipped
        and item.config.getoption("--no-skips")
        and not any(item.get_closest_marker(name) for name in MAY_BE_SKIPPED)
    ):
        report.outcome = "failed"
        report.longrepr = f"--no-skips does not allow this skip: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSYNTH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("NSYNTH_CHECKPOINT", raising=False)


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an untrained model of the dimensions `SMALL`."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    checkpoint.save(random.weights(SMALL, 3), path, "test")
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an untrained model of the dimensions `TINY`."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    checkpoint.save(random.weights(TINY, 3), path, "test")
    return path


def write_note(path: Path, frequency: float, seconds: float = 4.0, rate: int = 16_000) -> None:
    """Write a decaying tone as a WAV file."""
    t = np.arange(int(seconds * rate)) / rate
    soundfile.write(path, 0.5 * np.exp(-t) * np.sin(2 * np.pi * frequency * t), rate)


def new_workspace(root: Path, **changes: Any) -> Workspace:
    """Create a workspace with settings and notes; keywords override settings."""
    workspace = Workspace(root)
    workspace.notes.mkdir(parents=True)
    settings = {**SETTINGS, **changes}
    workspace.settings.write_text(json.dumps(settings), encoding="utf-8")
    instruments = dict.fromkeys(i for names in settings["pads"].values() for i in names)
    for number, instrument in enumerate(instruments):
        for pitch in settings["pitches"]:
            frequency = 440.0 * 2 ** ((pitch - 69) / 12) * (1 + number / 200)
            write_note(workspace.notes / f"{instrument}_{pitch}.wav", frequency)
    return workspace


@pytest.fixture
def make_workspace(tmp_path: Path) -> Callable[..., Workspace]:
    """Return a function that creates a workspace; keywords override settings."""

    return lambda name="pack", **changes: new_workspace(tmp_path / name, **changes)


@pytest.fixture(scope="session")
def _pack_made_once(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = new_workspace(tmp_path_factory.mktemp("made") / "pack")
    done = commands.run(["run", "-w", workspace.root], _environment(tiny_checkpoint))
    assert done.returncode == 0, done.stderr
    return workspace


@pytest.fixture
def made_pack(_pack_made_once: Workspace, tmp_path: Path) -> Workspace:
    """Return a workspace after `run`: a copy of one made once per session, with its times."""
    shutil.copytree(_pack_made_once.root, tmp_path / "pack")
    return Workspace(tmp_path / "pack")


@pytest.fixture
def command(tiny_checkpoint: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs `nsynth-super` with the tiny model in the fork server."""

    def run(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        if "cwd" in options:
            options["folder"] = options.pop("cwd")
        environment = {**_environment(tiny_checkpoint), **options.pop("env", {})}
        return commands.run(words, environment, **options)

    return run


@pytest.fixture
def new_process(tiny_checkpoint: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs `nsynth-super` with the tiny model in a new interpreter.

    This is slow because it imports everything again; use it to test the start-up.
    """

    def run(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        environment = {**_environment(tiny_checkpoint), **options.pop("env", {})}
        words = commands.nsynth_super(*words)
        settings = {"capture_output": True, "text": True, "timeout": 300, "check": False}
        return subprocess.run(words, env=environment, **settings, **options)

    return run


def _environment(model: Path) -> dict[str, str]:
    return {**os.environ, "NSYNTH_CHECKPOINT": str(model)}
