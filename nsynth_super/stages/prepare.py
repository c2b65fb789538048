"""The `prepare` stage: encode the notes and plan the clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from nsynth_super.base.errors import BadInput, Problem, refuse
from nsynth_super.base.files import only_one, sweep, write_array, write_json
from nsynth_super.base.text import say
from nsynth_super.base.workspace import Workspace
from nsynth_super.engines.base import Engine
from nsynth_super.notes import recordings as source_notes
from nsynth_super.notes.recordings import Fill, Note
from nsynth_super.pack.embeddings import embedding_hash, load_embedding, read_origins
from nsynth_super.pack.plan import Plan
from nsynth_super.runtime.progress import Progress, following
from nsynth_super.runtime.signals import Stop
from nsynth_super.settings import Settings
from nsynth_super.stages.replan import refuse_loss, settle, worth_keeping


@dataclass(frozen=True)
class PrepareResult:
    """Result of the `prepare` stage.

    Attributes
    ----------
    plan : Plan
    encoded : int
        Notes that this run encoded; the other embeddings were current.
    kept : int
        Clips of an earlier plan that remain valid.
    changed : bool
        Whether the plan changed.
    """

    plan: Plan
    encoded: int
    kept: int
    changed: bool


def run_prepare(
    workspace: Workspace,
    settings: Settings,
    engine: Engine,
    fill: Fill | None = None,
    seed: int | None = None,
    replan: bool = False,
    quiet: bool = False,
) -> PrepareResult:
    """Encode the notes without a current embedding, and plan the pack.

    Parameters
    ----------
    workspace : Workspace
    settings : Settings
    engine : Engine
    fill : {"repeat", "repitch"}, optional
        Derive missing pitches from the nearest note.
    seed : int, optional
        Overrides the seed of the settings.
    replan : bool
        Replace the plan if something changed; clips that are still valid are kept.
    quiet : bool

    Raises
    ------
    BadInput
        If notes have problems, with all of them; or if the existing plan would become invalid and
        `replan` is not set.
    """
    found, problems = source_notes.find(workspace.notes, settings, fill)
    refuse(problems)
    busy = f"{workspace.root}: another `prepare` is running"
    with only_one(workspace.lock("prepare"), busy), Stop() as stop:
        sweep(workspace.embeddings)
        sweep(workspace.root, workspace.plan.name)
        sweep(workspace.root, workspace.plan_copy.name)
        sweep(workspace.status_folder, workspace.status("prepare").name)
        seed = settings.seed if seed is None else seed
        todo = _todo(workspace, found, engine)
        existing = worth_keeping(workspace) if todo and not replan else None

        def plan_of(embeddings: Mapping[str, str]) -> Plan:
            return Plan.of(settings, seed, engine.checkpoint_sha256, embeddings)

        def check_plan(embeddings: Mapping[str, str]) -> None:
            if existing is not None:
                refuse_loss(workspace, existing, settings, plan_of(embeddings))

        expected = _expected_hashes(workspace, found, existing, engine)
        check_plan(expected)
        _encode(workspace, todo, engine, expected, check_plan, stop, quiet)
        embeddings = {
            str(note.name): embedding_hash(
                load_embedding(workspace, note.name, engine.dimensions.embedding)
            )
            for note in found
        }
        plan, kept, changed = settle(workspace, settings, plan_of(embeddings), replan)
        return PrepareResult(plan, len(todo), kept, changed)


def _todo(workspace: Workspace, found: list[Note], engine: Engine) -> dict[Note, str]:
    """Return the notes without a current embedding, with the identity of each."""
    origins = read_origins(workspace)
    identities = {note: source_notes.identity(note) for note in found}
    return {
        note: identity
        for note, identity in identities.items()
        if not _is_current(workspace, note, identity, origins, engine)
    }


def _expected_hashes(
    workspace: Workspace, found: list[Note], existing: Plan | None, engine: Engine
) -> dict[str, str]:
    """Predict the embeddings' hashes, by note name, before any note is encoded.

    A recording that differs from the plan's gets a placeholder that equals no hash. Without
    information about a note, the prediction is the hash in the plan.
    """
    if existing is None:
        return {}
    origins = read_origins(workspace)
    expected = {}
    for note in found:
        name, identity = str(note.name), source_notes.identity(note)
        origin = origins.get(name, {})
        planned = existing.embeddings.get(name, "")
        if (origin.get("note"), origin.get("checkpoint")) == (identity, engine.checkpoint_sha256):
            expected[name] = origin.get("embedding", "")
        elif origin.get("embedding") == planned:
            expected[name] = f"of the recording {identity}"
        else:
            expected[name] = planned
    return expected


def _encode(
    workspace: Workspace,
    todo: Mapping[Note, str],
    engine: Engine,
    expected: dict[str, str],
    check_plan: Callable[[Mapping[str, str]], None],
    stop: Stop,
    quiet: bool,
) -> None:
    """Encode notes and write each embedding; first call `check_plan` if its hash is unexpected."""
    if not todo:
        return
    conformed = {note: source_notes.read(note) for note in todo}
    refuse(problem for sound in conformed.values() for problem in sound.problems)
    stop.here(lambda: "no notes were encoded; run it again")
    origins = read_origins(workspace)
    progress = Progress("prepare", len(todo), "notes", workspace.status("prepare"), quiet=quiet)
    sounds = np.stack([sound.audio for sound in conformed.values()])
    left = iter(todo.items())
    with following(progress), closing(engine.encode(sounds)) as pieces:
        for piece in pieces:
            for embedding in piece:
                note, identity = next(left)
                name, digest = str(note.name), embedding_hash(embedding)
                if conformed[note].done and not quiet:
                    say(f"  {note.path.name} -> {name}: {', '.join(conformed[note].done)}")
                if not np.isfinite(embedding).all():
                    raise BadInput(
                        Problem(name, "the embedding is not finite", "check the checkpoint")
                    )
                if expected.get(name) != digest:
                    expected[name] = digest
                    check_plan(expected)
                write_array(workspace.embedding(note.name), embedding.astype("<f4"))
                origins[name] = {
                    "note": identity,
                    "checkpoint": engine.checkpoint_sha256,
                    "embedding": digest,
                }
                write_json(workspace.origins, origins)
                progress.advance(1)
            progress.advance(0)
            stop.here(lambda: "the notes encoded so far are saved; run it again to resume")
    if missing := [str(note.name) for note, _ in left]:
        raise RuntimeError(f"the engine returned no embedding of {', '.join(missing)}")


def _is_current(
    workspace: Workspace,
    note: Note,
    identity: str,
    origins: Mapping[str, Mapping[str, str]],
    engine: Engine,
) -> bool:
    """Return whether the hashes of the embedding, note and weights match origins.json."""
    try:
        embedding = load_embedding(workspace, note.name, engine.dimensions.embedding)
    except BadInput:
        return False
    return origins.get(str(note.name)) == {
        "note": identity,
        "checkpoint": engine.checkpoint_sha256,
        "embedding": embedding_hash(embedding),
    }
