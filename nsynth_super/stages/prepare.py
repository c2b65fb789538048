"""prepare: notes to embeddings, embeddings to the plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nsynth_super import notes as source_notes
from nsynth_super.engines import Engine
from nsynth_super.files import only_one, read_array, sweep, write_array, write_json
from nsynth_super.notes import Fill, Note
from nsynth_super.plan import REPLAN, Plan
from nsynth_super.problems import BadInput, Problem, refuse
from nsynth_super.progress import Progress, Stop, following, say
from nsynth_super.settings import NOTE_SAMPLES, Settings
from nsynth_super.wavenet.dimensions import HOP
from nsynth_super.workspace import Workspace


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made or found.

    Attributes
    ----------
    plan : Plan
    encoded : int
        Notes encoded by this run; the others' embeddings were there.
    kept : int
        Clips of an earlier plan that the new one goes on with.
    changed : bool
        Whether the plan is another than before.
    """

    plan: Plan
    encoded: int
    kept: int
    changed: bool


def run(
    workspace: Workspace,
    settings: Settings,
    engine: Engine,
    fill: Fill | None = None,
    seed: int | None = None,
    replan: bool = False,
    quiet: bool = False,
) -> Prepared:
    """Encode every note that needs it, and plan the pack.

    Parameters
    ----------
    workspace : Workspace
    settings : Settings
    engine : Engine
    fill : {"repeat", "repitch"}, optional
        Fill missing pitches from the nearest.
    seed : int, optional
        In the place of the settings'.
    replan : bool
        Plan anew if something changed; clips that are still valid are kept.
    quiet : bool

    Raises
    ------
    BadInput
        With every problem of every note; or if an existing plan would be invalidated and
        `replan` is not set.
    """
    found, problems = source_notes.find(workspace.notes, settings, fill)
    refuse(problems)
    busy = f"{workspace.root}: another `prepare` is at work there"
    with only_one(workspace.lock("prepare"), busy), Stop() as stop:
        sweep(workspace.embeddings)
        sweep(workspace.root, workspace.plan.name)
        sweep(workspace.root, workspace.plan_copy.name)
        sweep(workspace.status_folder, workspace.status("prepare").name)
        encoded = _encode(workspace, found, engine, stop, quiet)
        embeddings = {
            f"{instrument}_{pitch}": embedding_hash(
                load_embedding(workspace, (instrument, pitch), engine)
            )
            for instrument, pitch in (note.name for note in found)
        }
        seed = settings.seed if seed is None else seed
        wanted = Plan.of(settings, seed, engine.checkpoint_sha256, embeddings)
        plan, kept, changed = _plan(workspace, settings, wanted, replan)
        _forget_begun(workspace, plan)
        return Prepared(plan, encoded, kept, changed)


def embedding_hash(embedding: NDArray[np.float32]) -> str:
    """Return the sha256 of an embedding's numbers."""
    return hashlib.sha256(np.ascontiguousarray(embedding, dtype="<f4").tobytes()).hexdigest()


def load_embedding(
    workspace: Workspace, name: source_notes.Name, engine: Engine
) -> NDArray[np.float32]:
    """Read one embedding.

    Raises
    ------
    BadInput
        If it is missing, cut short or not finite.
    """
    path = workspace.embedding(*name)
    array = read_array(path, "<f4", 2)
    shape = (NOTE_SAMPLES // HOP, engine.dimensions.embedding)
    if array is None or array.shape != shape or not np.isfinite(array).all():
        raise BadInput(
            Problem(str(path), "is missing or damaged", "run `nsynth-super prepare` again")
        )
    return np.asarray(array, dtype=np.float32)


def _encode(
    workspace: Workspace, found: list[Note], engine: Engine, stop: Stop, quiet: bool
) -> int:
    origins = read_origins(workspace)
    wanted = {note: source_notes.identity(note) for note in found}
    todo = [
        note for note in found if not _is_current(workspace, note, wanted[note], origins, engine)
    ]
    if not todo:
        return 0
    conformed = {note: source_notes.read(note) for note in todo}
    refuse(problem for sound in conformed.values() for problem in sound.problems)
    stop.here(lambda: "no note was encoded; run it again")
    progress = Progress("prepare", len(todo), "notes", workspace.status("prepare"), quiet=quiet)
    with following(progress):
        for note in todo:
            name = f"{note.name[0]}_{note.name[1]}"
            sound = conformed[note]
            if sound.done and not quiet:
                say(f"  {note.path.name} -> {name}: {', '.join(sound.done)}")
            embedding = engine.encode(sound.audio[None])[0]
            if not np.isfinite(embedding).all():
                raise BadInput(Problem(name, "its embedding is not finite", "check the checkpoint"))
            write_array(workspace.embedding(*note.name), embedding.astype("<f4"))
            origins[name] = {
                "note": wanted[note],
                "checkpoint": engine.checkpoint_sha256,
                "embedding": embedding_hash(embedding),
            }
            write_json(workspace.origins, origins)
            progress.advance(1)
            stop.here(lambda: "the notes encoded so far are safe; run it again to go on")
    return len(todo)


def read_origins(workspace: Workspace) -> dict[str, dict[str, str]]:
    """Return which note and weights each embedding was made from; nothing if that is lost."""
    try:
        origins = json.loads(workspace.origins.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return origins if isinstance(origins, dict) else {}


def _is_current(
    workspace: Workspace,
    note: Note,
    identity: str,
    origins: Mapping[str, Mapping[str, str]],
    engine: Engine,
) -> bool:
    """Tell whether the embedding on disk is the one of this note and these weights, by hashes."""
    try:
        embedding = load_embedding(workspace, note.name, engine)
    except BadInput:
        return False
    return origins.get(f"{note.name[0]}_{note.name[1]}") == {
        "note": identity,
        "checkpoint": engine.checkpoint_sha256,
        "embedding": embedding_hash(embedding),
    }


def _plan(
    workspace: Workspace, settings: Settings, plan: Plan, replan: bool
) -> tuple[Plan, int, bool]:
    """Let `plan` take the place of the one on disk, unless that is the same work.

    Returns the plan that holds, how many clips it keeps, and whether it is new.
    """
    try:
        before = Plan.read(workspace.plan)
    except BadInput as damaged:
        if not replan and any(workspace.clips.glob("*.npy")):
            raise
        say(f"prepare: {damaged.problems[0].where} {damaged.problems[0].what}: planned anew")
        before = None
    # Which clips the blocks hold is in the plan they were made for: its copy is for that.
    before = before or _copy(workspace)
    if before is not None and _same_work(before, plan):
        return before, 0, _write(workspace, before)
    if before is not None and any(workspace.clips.glob("*.npy")) and not replan:
        raise BadInput(Problem(str(workspace.plan), _what_changed(before, settings, plan), REPLAN))
    kept = 0
    if before is not None and (drawn := dict(_drawn(workspace, before))):
        plan = plan.going_on_with({identity: len(codes) for identity, codes in drawn.items()})
        kept = _carry_over(workspace, plan, drawn)
    return plan, kept, _write(workspace, plan)


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
        if codes is not None:
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
        there = _codes(workspace, plan, block)
        if there is None or there.shape[1] < samples:
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


def _codes(workspace: Workspace, plan: Plan, block: int) -> NDArray[np.uint8] | None:
    """Map the codes of a block, whole or begun, `[clips, samples so far]`; None if it has none."""
    clips = len(plan.clips_of(block))
    whole = read_array(workspace.block(block, plan.block_identity(block)), "u1", 2)
    if whole is not None and whole.shape == (clips, plan.samples):
        return whole
    begun = read_array(workspace.partial(block, plan.block_identity(block)), "u1", 2)
    if begun is not None and len(begun) == clips and 0 < begun.shape[1] <= plan.samples:
        return begun
    return None
