"""A new plan takes the place of the one before: what changed is named, what is valid is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nsynth_super.blocks import begun, complete
from nsynth_super.files import write_array
from nsynth_super.plan import REPLAN, Plan
from nsynth_super.problems import BadInput, Problem
from nsynth_super.progress import say
from nsynth_super.settings import Settings
from nsynth_super.workspace import Workspace


def settle(
    workspace: Workspace, settings: Settings, plan: Plan, replan: bool
) -> tuple[Plan, int, bool]:
    """Let `plan` take the place of the one on disk, unless that is the same work.

    Parameters
    ----------
    workspace : Workspace
    settings : Settings
    plan : Plan
        What the pack needs now.
    replan : bool
        Whether clips of the plan before may be given up.

    Returns
    -------
    plan : Plan
        The one that holds.
    kept : int
        Clips of the one before that it goes on with.
    changed : bool
        Whether a file was written.

    Raises
    ------
    BadInput
        If clips would be given up without `replan`; what changed is named.
    """
    standing = None if replan else worth_keeping(workspace)
    if standing is not None:
        refuse_loss(workspace, standing, settings, plan)
    try:
        before = Plan.read(workspace.plan)
    except BadInput as damaged:
        say(f"prepare: {damaged.problems[0].where} {damaged.problems[0].what}: planned anew")
        before = None
    # Which clips the blocks hold is in the plan they were made for: its copy is for that.
    before = before or _copy(workspace)
    if before is not None and _same_work(before, plan):
        _forget_begun(workspace, before)
        return before, 0, _write(workspace, before)
    kept = 0
    if before is not None and (drawn := dict(_drawn(workspace, before))):
        plan = plan.going_on_with({identity: len(codes) for identity, codes in drawn.items()})
        kept = _carry_over(workspace, plan, drawn)
    changed = _write(workspace, plan)
    _forget_begun(workspace, plan)
    return plan, kept, changed


def worth_keeping(workspace: Workspace) -> Plan | None:
    """Return the plan that the clips on disk were made for; None if there are no clips.

    Raises
    ------
    BadInput
        If there are clips, and the plan is damaged.
    """
    if not any(workspace.clips.glob("*.npy")):
        return None
    return Plan.read(workspace.plan) or _copy(workspace)


def refuse_loss(workspace: Workspace, standing: Plan, settings: Settings, plan: Plan) -> None:
    """Refuse a plan that gives up clips of the one that stands; what changed is named.

    Raises
    ------
    BadInput
        If the two are not the same work.
    """
    if not _same_work(standing, plan):
        what = _what_changed(standing, settings, plan)
        raise BadInput(Problem(str(workspace.plan), what, REPLAN))


def _copy(workspace: Workspace) -> Plan | None:
    try:
        return Plan.read(workspace.plan_copy)
    except BadInput:
        return None


def _write(workspace: Workspace, plan: Plan) -> bool:
    """Write plan.json and its copy where they are not this plan; return whether one was not."""
    written = False
    for path in (workspace.plan_copy, workspace.plan):
        try:
            there = Plan.read(path) == plan
        except BadInput:
            there = False
        if not there:
            plan.write(path)
            written = True
    return written


def _same_work(before: Plan, now: Plan) -> bool:
    return replace(before, mixes=sorted(before.mixes)) == replace(now, mixes=sorted(now.mixes))


def _what_changed(before: Plan, settings: Settings, now: Plan) -> str:
    changed = before.differences(settings)
    if before.seed != now.seed and not any(line.startswith("seed") for line in changed):
        changed.append(f"seed: was {before.seed}, is {now.seed}")
    if before.checkpoint != now.checkpoint:
        changed.append("another checkpoint: every clip is made anew")
    notes = [
        n
        for n in now.embeddings
        if before.embeddings.get(n, now.embeddings[n]) != now.embeddings[n]
    ]
    if notes and before.checkpoint == now.checkpoint:
        valid = {before.clip_identity(mix) for mix in before.mixes}
        stale = sum(now.clip_identity(mix) not in valid for mix in now.mixes)
        changed.append(
            f"{', '.join(notes)} sound different: {stale} of {len(now.mixes)} clips are made anew"
        )
    return f"is for something else: {'; '.join(changed) or 'another version of this program'}"


def _drawn(workspace: Workspace, plan: Plan) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield the identity and the codes of every clip that has some on disk, whole or begun."""
    for block in range(plan.blocks):
        codes = _codes(workspace, plan, block)
        if codes.shape[1]:
            for clip, row in zip(plan.clips_of(block), codes, strict=True):
                yield plan.clip_identity(plan.mixes[clip]), row


def _carry_over(workspace: Workspace, plan: Plan, drawn: Mapping[str, NDArray[np.uint8]]) -> int:
    """Write the blocks of `plan` whose every clip has codes; return how many clips are whole."""
    kept = 0
    for block in range(plan.blocks):
        clips = [plan.clip_identity(plan.mixes[clip]) for clip in plan.clips_of(block)]
        rows = [drawn[clip] for clip in clips if clip in drawn]
        if len(rows) < len(clips):
            break
        samples = min(plan.samples, *map(len, rows))
        if _codes(workspace, plan, block).shape[1] < samples:
            path = workspace.block if samples == plan.samples else workspace.partial
            codes = np.stack([row[:samples] for row in rows])
            write_array(path(block, plan.block_identity(block)), codes)
        if samples == plan.samples:
            kept += len(clips)
    return kept


def _forget_begun(workspace: Workspace, plan: Plan) -> None:
    """Remove the blocks that earlier plans began: what is valid of them has been carried over."""
    ours = {workspace.partial(block, plan.block_identity(block)) for block in range(plan.blocks)}
    for path in set(workspace.clips.glob("*.part.npy")) - ours:
        with suppress(OSError):
            path.unlink()


def _codes(workspace: Workspace, plan: Plan, block: int) -> NDArray[np.uint8]:
    """Map the codes of a block, whole or begun, `[clips, samples so far]`."""
    whole = complete(workspace, plan, block)
    return begun(workspace, plan, block) if whole is None else whole
