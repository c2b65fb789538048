"""What is on disk of a plan's clips: blocks that are whole, and blocks under way."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nsynth_super.files import read_array
from nsynth_super.plan import Plan
from nsynth_super.progress import say
from nsynth_super.workspace import Workspace


def complete(workspace: Workspace, plan: Plan, block: int) -> NDArray[np.uint8] | None:
    """Map a block's codes, `[clips, samples]`; None if they are not all there."""
    path = workspace.block(block, plan.block_identity(block))
    codes = read_array(path, "u1", 2)
    if codes is not None and codes.shape == (len(plan.clips_of(block)), plan.samples):
        return codes
    if path.exists():
        say(f"{path}: is damaged, and will be made again")
    return None


def begun(workspace: Workspace, plan: Plan, block: int) -> NDArray[np.uint8]:
    """Map the codes drawn so far of a block under way, `[clips, samples so far]`; maybe none."""
    codes = read_array(workspace.partial(block, plan.block_identity(block)), "u1", 2)
    clips = len(plan.clips_of(block))
    if codes is None or codes.shape[0] != clips or codes.shape[1] > plan.samples:
        return np.empty((clips, 0), dtype=np.uint8)
    return codes


def _done(workspace: Workspace, plan: Plan, block: int) -> float:
    """Return how many clips of a block are done, begun ones by their share."""
    if workspace.block(block, plan.block_identity(block)).exists():
        return len(plan.clips_of(block))
    return begun(workspace, plan, block).size / plan.samples


def clips_done(workspace: Workspace, plan: Plan, blocks: Iterable[int] | None = None) -> float:
    """Return how many clips of these blocks, or of all, are on disk, begun ones by their share."""
    every = range(plan.blocks) if blocks is None else blocks
    some = _with_files(workspace)
    return sum(_done(workspace, plan, block) for block in every if block in some)


def _with_files(workspace: Workspace) -> set[int]:
    """Return the blocks that have a file, this plan's or another's; only they need be named."""
    indices = (path.name.partition("-")[0] for path in workspace.clips.glob("*.npy"))
    return {int(index) for index in indices if index.isdecimal()}
