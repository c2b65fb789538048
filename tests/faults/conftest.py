"""Fixtures: packs at every stage, made once and copied, and commands to run on them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.plan import BLOCK
from tests.faults.packs import ONE_BLOCK, RUN, START, TWO_BLOCKS
from tests.faults.processes import (
    Command,
    copied,
    done,
    prepared,
)


@pytest.fixture
def start(small_checkpoint: Path) -> START:
    """Return a function that starts a command on a workspace."""

    def start(stage: str, workspace: Workspace, *words: object, before: str = "") -> Command:
        words = (stage, "-w", workspace.root, *words)
        return Command(*words, checkpoint=small_checkpoint, before=before)

    return start


@pytest.fixture
def run(start: START) -> RUN:
    """Return a function that runs a command on a workspace and waits for it."""
    return lambda *words, **options: start(*words, **options).wait()


@pytest.fixture(scope="session")
def one_block(
    small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workspace, Workspace]:
    """Return a planned and a finished pack of one block."""
    return _planned_and_finished(small_checkpoint, tmp_path_factory, ONE_BLOCK)


@pytest.fixture(scope="session")
def two_blocks(
    small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workspace, Workspace]:
    """Return a planned and a finished pack of two blocks, decoded in separate batches."""
    return _planned_and_finished(small_checkpoint, tmp_path_factory, TWO_BLOCKS)


def _planned_and_finished(
    model: Path, folders: pytest.TempPathFactory, settings: dict[str, Any]
) -> tuple[Workspace, Workspace]:
    planned = prepared(folders.mktemp("planned") / "pack", model, **settings)
    finished = copied(planned, folders.mktemp("finished") / "pack")
    done(
        Command("generate", "-w", finished.root, "--batch-clips", BLOCK, checkpoint=model).wait(),
    )
    done(Command("pads", "-w", finished.root, checkpoint=model).wait())
    return planned, finished


@pytest.fixture
def planned(one_block: tuple[Workspace, Workspace], tmp_path: Path) -> Workspace:
    """Return a copy of the planned pack of one block."""
    return copied(one_block[0], tmp_path / "planned")


@pytest.fixture
def finished(one_block: tuple[Workspace, Workspace], tmp_path: Path) -> Workspace:
    """Return a copy of the finished pack of one block."""
    return copied(one_block[1], tmp_path / "finished")


@pytest.fixture
def half(two_blocks: tuple[Workspace, Workspace], tmp_path: Path) -> Workspace:
    """Return a pack with one complete and one unfinished block."""
    workspace = copied(two_blocks[1], tmp_path / "half")
    last = sorted(workspace.clips.iterdir())[-1]
    np.save(last.with_suffix(".part.npy"), np.load(last)[:, :4000])
    last.unlink()
    shutil.rmtree(workspace.pads)
    return workspace
