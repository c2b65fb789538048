"""Fixtures: the image, a running Slurm, and a reference pack made without Slurm."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from nsynth_super.base.workspace import Workspace
from nsynth_super.wavenet import checkpoint, random
from nsynth_super.wavenet.dimensions import Dimensions
from tests.cluster import container, packs, slurm

ALIKE = {"NSYNTH_BATCH_CLIPS": "64"}
"""With one thread per worker, equal batches make the bytes independent of the worker."""

MODEL = Dimensions(width=24, skip_width=24, layers=12, encoder_width=8, encoder_layers=6)
"""Slow enough for a job to reach its time limit."""


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "cluster.safetensors"
    checkpoint.save(random.weights(MODEL, 3), path, "test")
    return path


@pytest.fixture(scope="session")
def image() -> Path:
    path = container.image()
    if path is None:
        pytest.skip("no singularity or no image: run tests/cluster/setup, then tests/cluster/image")
    return path


@pytest.fixture(scope="session")
def cluster(
    image: Path, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[slurm.Slurm]:
    """A Slurm cluster whose environment selects the image and a small model."""
    if missing := slurm.missing_programs():
        pytest.skip(f"Slurm is not installed ({', '.join(missing)}): run tests/cluster/setup")
    running = slurm.Slurm(tmp_path_factory.mktemp("slurm"))
    running.environment |= container.environment() | ALIKE
    running.environment |= {"SLURM_CONF": str(running.folder / "slurm.conf")}
    running.environment |= {"NSYNTH_IMAGE": str(image), "NSYNTH_CHECKPOINT": str(model)}
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def reference(image: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The pack made without Slurm, by the image's three entrypoints."""
    workspace = packs.new(tmp_path_factory.mktemp("reference") / "pack")
    environment = ALIKE | {"NSYNTH_CHECKPOINT": str(model)}
    for words in (
        ("prepare", "--threads", "1"),
        ("generate", "--threads", "1"),
        ("pads",),
    ):
        stage, *options = words
        container.singularity("exec", image, stage, "-w", workspace.root, *options, env=environment)
    return workspace


@pytest.fixture
def prepared(reference: Workspace, tmp_path: Path) -> Workspace:
    """A pack with a plan but no clips."""
    workspace = Workspace(tmp_path / "pack")
    skip = shutil.ignore_patterns("clips", "pads_output", "status")
    shutil.copytree(reference.root, workspace.root, ignore=skip)
    return workspace
