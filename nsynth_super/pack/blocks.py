"""Read the blocks of clips on disk, complete and unfinished."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nsynth_super.base.files import read_array
from nsynth_super.base.text import say
from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.plan import Plan


def complete(workspace: Workspace, plan: Plan, block: int) -> NDArray[np.uint8] | None:
    """Memory-map the codes of a complete block, `[clips, samples]`; return None if incomplete."""
    path = workspace.block(block, plan.block_identity(block))
    codes = read_array(path, "u1", 2)
    if codes is not None and codes.shape == (len(plan.clips_of(block)), plan.samples):
        return codes
    if path.exists():
        say(f"{path}: is damaged and will be generated again")
    return None


def begun(workspace: Workspace, plan: Plan, block: int) -> NDArray[np.uint8]:
    """Memory-map the codes of an unfinished block, `[clips, samples so far]`; may be empty."""
    codes = read_array(workspace.partial(block, plan.block_identity(block)), "u1", 2)
    clips = len(plan.clips_of(block))
    if codes is None or codes.shape[0] != clips or codes.shape[1] > plan.samples:
        return np.empty((clips, 0), dtype=np.uint8)
    return codes


def _done(workspace: Workspace, plan: Plan, block: int) -> float:
    """Return the number of clips done in a block; an unfinished block counts as a fraction."""
    if workspace.block(block, plan.block_identity(block)).exists():
        return len(plan.clips_of(block))
    return begun(workspace, plan, block).size / plan.samples


def clips_done(workspace: Workspace, plan: Plan, blocks: Iterable[int] | None = None) -> float:
    """Return the number of clips done in `blocks` (default: all); may have a fraction."""
    chosen = range(plan.blocks) if blocks is None else blocks
    stored = _with_files(workspace)
    return sum(_done(workspace, plan, block) for block in chosen if block in stored)


def _with_files(workspace: Workspace) -> set[int]:
    """Return the indices of blocks with a file, which may belong to another plan.

    Computing the identity of every other block would be slow.
    """
    indices = (path.name.partition("-")[0] for path in workspace.clips.glob("*.npy"))
    return {int(index) for index in indices if index.isdecimal()}
