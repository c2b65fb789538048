"""Packs at every stage, made once and copied, and a way to start commands on them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsynth_super.plan import BLOCK
from nsynth_super.workspace import Workspace
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
    """Return a function that runs a command on a workspace to its end."""
    return lambda *words, **options: start(*words, **options).wait()


@pytest.fixture(scope="session")
def one_block(
    small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workspace, Workspace]:
    """A pack that is planned, and the same when it is done."""
    return _planned_and_whole(small_checkpoint, tmp_path_factory, ONE_BLOCK)


@pytest.fixture(scope="session")
def two_blocks(
    small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workspace, Workspace]:
    """A pack that is planned, and the same when it is done, decoded block by block."""
    return _planned_and_whole(small_checkpoint, tmp_path_factory, TWO_BLOCKS)


def _planned_and_whole(
    model: Path, folders: pytest.TempPathFactory, settings: dict[str, Any]
) -> tuple[Workspace, Workspace]:
    planned = prepared(folders.mktemp("planned") / "pack", model, **settings)
    whole = copied(planned, folders.mktemp("whole") / "pack")
    done(
        Command("generate", "-w", whole.root, "--batch-clips", BLOCK, checkpoint=model).wait(),
    )
    done(Command("pads", "-w", whole.root, checkpoint=model).wait())
    return planned, whole


@pytest.fixture
def planned(one_block: tuple[Workspace, Workspace], tmp_path: Path) -> Workspace:
    """A pack of one block, with nothing made."""
    return copied(one_block[0], tmp_path / "planned")


@pytest.fixture
def whole(one_block: tuple[Workspace, Workspace], tmp_path: Path) -> Workspace:
    """The same with everything made."""
    return copied(one_block[1], tmp_path / "whole")


@pytest.fixture
def half(two_blocks: tuple[Workspace, Workspace], tmp_path: Path) -> Workspace:
    """A block whole, the other begun."""
    workspace = copied(two_blocks[1], tmp_path / "half")
    last = sorted(workspace.clips.iterdir())[-1]
    np.save(last.with_suffix(".part.npy"), np.load(last)[:, :4000])
    last.unlink()
    shutil.rmtree(workspace.pads)
    return workspace
