"""Replace an existing plan: report the differences and keep the clips that are still valid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nsynth_super.base.errors import BadInput, Problem
from nsynth_super.base.files import write_array
from nsynth_super.base.text import say
from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.blocks import begun, complete
from nsynth_super.pack.plan import REPLAN, Plan
from nsynth_super.settings import Settings


def settle(
    workspace: Workspace, settings: Settings, plan: Plan, replan: bool
) -> tuple[Plan, int, bool]:
    """Replace the plan on disk with `plan`, unless both consist of the same clips.

    Parameters
    ----------
    workspace : Workspace
    settings : Settings
    plan : Plan
        Plan for the current settings, notes and checkpoint.
    replan : bool
        Whether clips of the existing plan may be discarded.

    Returns
    -------
    plan : Plan
        The plan that is now on disk.
    kept : int
        Clips of the previous plan that remain valid.
    changed : bool
        Whether a file was written.

    Raises
    ------
    BadInput
        If clips would be discarded without `replan`; lists the differences.
    """
    existing = None if replan else worth_keeping(workspace)
    if existing is not None:
        refuse_loss(workspace, existing, settings, plan)
    try:
        before = Plan.read(workspace.plan)
    except BadInput as damaged:
        say(f"prepare: {damaged.problems[0].where} {damaged.problems[0].what}: making a new one")
        before = None
    # Only the plan that the blocks were made for tells their content, hence the copy.
    before = before or _copy(workspace)
    if before is not None and _same_work(before, plan):
        _remove_unfinished(workspace, before)
        return before, 0, _write(workspace, before)
    kept = 0
    if before is not None and (stored := dict(_stored_codes(workspace, before))):
        plan = plan.with_decoded_first({identity: len(codes) for identity, codes in stored.items()})
        kept = _carry_over(workspace, plan, stored)
    changed = _write(workspace, plan)
    _remove_unfinished(workspace, plan)
    return plan, kept, changed


def worth_keeping(workspace: Workspace) -> Plan | None:
    """Return the plan of the clips on disk; None if there are no clips.

    Raises
    ------
    BadInput
        If there are clips but the plan is damaged.
    """
    if not any(workspace.clips.glob("*.npy")):
        return None
    return Plan.read(workspace.plan) or _copy(workspace)


def refuse_loss(workspace: Workspace, existing: Plan, settings: Settings, plan: Plan) -> None:
    """Check that `plan` keeps all clips of the existing plan.

    Raises
    ------
    BadInput
        If the plans differ in more than order; lists the differences.
    """
    if not _same_work(existing, plan):
        what = _what_changed(existing, settings, plan)
        raise BadInput(Problem(str(workspace.plan), what, REPLAN))


def _copy(workspace: Workspace) -> Plan | None:
    try:
        return Plan.read(workspace.plan_copy)
    except BadInput:
        return None


def _write(workspace: Workspace, plan: Plan) -> bool:
    """Write plan.json and its copy where they differ from `plan`; return whether one did."""
    written = False
    for path in (workspace.plan_copy, workspace.plan):
        try:
            current = Plan.read(path) == plan
        except BadInput:
            current = False
        if not current:
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
        changed.append("the checkpoint changed: every clip must be regenerated")
    notes = [
        n
        for n in now.embeddings
        if before.embeddings.get(n, now.embeddings[n]) != now.embeddings[n]
    ]
    if notes and before.checkpoint == now.checkpoint:
        valid = {before.clip_identity(mix) for mix in before.mixes}
        stale = sum(now.clip_identity(mix) not in valid for mix in now.mixes)
        changed.append(
            f"notes changed ({', '.join(notes)}): "
            f"{stale} of {len(now.mixes)} clips must be regenerated"
        )
    return f"is out of date: {'; '.join(changed) or 'another version of this program made it'}"


def _stored_codes(workspace: Workspace, plan: Plan) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield the identity and the codes of every clip on disk, complete or not."""
    for block in range(plan.blocks):
        codes = _codes(workspace, plan, block)
        if codes.shape[1]:
            for clip, row in zip(plan.clips_of(block), codes, strict=True):
                yield plan.clip_identity(plan.mixes[clip]), row


def _carry_over(workspace: Workspace, plan: Plan, stored: Mapping[str, NDArray[np.uint8]]) -> int:
    """Write the blocks of `plan` in which every clip has codes; return the complete clips."""
    kept = 0
    for block in range(plan.blocks):
        clips = [plan.clip_identity(plan.mixes[clip]) for clip in plan.clips_of(block)]
        rows = [stored[clip] for clip in clips if clip in stored]
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


def _remove_unfinished(workspace: Workspace, plan: Plan) -> None:
    """Remove unfinished blocks of earlier plans, after their valid clips were carried over."""
    current = {workspace.partial(block, plan.block_identity(block)) for block in range(plan.blocks)}
    for path in set(workspace.clips.glob("*.part.npy")) - current:
        with suppress(OSError):
            path.unlink()


def _codes(workspace: Workspace, plan: Plan, block: int) -> NDArray[np.uint8]:
    """Memory-map the codes of a block, complete or not, `[clips, samples so far]`."""
    codes = complete(workspace, plan, block)
    return begun(workspace, plan, block) if codes is None else codes
