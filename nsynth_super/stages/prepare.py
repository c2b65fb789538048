"""prepare: notes to embeddings, embeddings to the plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nsynth_super import notes as source_notes
from nsynth_super.engines import Engine
from nsynth_super.files import only_one, read_array, sweep, write_array, write_json
from nsynth_super.notes import Fill, Note
from nsynth_super.plan import Plan
from nsynth_super.problems import BadInput, Problem, refuse
from nsynth_super.progress import Progress, Stop, following, say
from nsynth_super.settings import NOTE_SAMPLES, Settings
from nsynth_super.stages.planning import refuse_loss, settle, worth_keeping
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
        seed = settings.seed if seed is None else seed
        todo = _todo(workspace, found, engine)
        standing = worth_keeping(workspace) if todo and not replan else None

        def plan_of(embeddings: Mapping[str, str]) -> Plan:
            return Plan.of(settings, seed, engine.checkpoint_sha256, embeddings)

        def agree(embeddings: Mapping[str, str]) -> None:
            if standing is not None:
                refuse_loss(workspace, standing, settings, plan_of(embeddings))

        foreseen = _foreseen(workspace, found, standing, engine)
        agree(foreseen)
        _encode(workspace, todo, engine, foreseen, agree, stop, quiet)
        embeddings = {
            called(note): embedding_hash(load_embedding(workspace, note.name, engine))
            for note in found
        }
        plan, kept, changed = settle(workspace, settings, plan_of(embeddings), replan)
        return Prepared(plan, len(todo), kept, changed)


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


def _todo(workspace: Workspace, found: list[Note], engine: Engine) -> dict[Note, str]:
    """Return the notes that must be encoded, and the identity of each."""
    origins = read_origins(workspace)
    identities = {note: source_notes.identity(note) for note in found}
    return {
        note: identity
        for note, identity in identities.items()
        if not _is_current(workspace, note, identity, origins, engine)
    }


def _foreseen(
    workspace: Workspace, found: list[Note], standing: Plan | None, engine: Engine
) -> dict[str, str]:
    """Return what is known of the embeddings' hashes before any note is encoded, by name.

    A note that is known to be another recording than the one that the plan was made with has a
    hash that no embedding has. Where nothing is known, the plan's own is expected.
    """
    if standing is None:
        return {}
    origins = read_origins(workspace)
    foreseen = {}
    for note in found:
        name, identity = called(note), source_notes.identity(note)
        origin = origins.get(name, {})
        planned = standing.embeddings.get(name, "")
        if (origin.get("note"), origin.get("checkpoint")) == (identity, engine.checkpoint_sha256):
            foreseen[name] = origin.get("embedding", "")
        elif origin.get("embedding") == planned:
            foreseen[name] = f"of the recording {identity}"
        else:
            foreseen[name] = planned
    return foreseen


def called(note: Note) -> str:
    """Return the name that plan and embeddings know a note by."""
    return f"{note.name[0]}_{note.name[1]}"


def _encode(
    workspace: Workspace,
    todo: Mapping[Note, str],
    engine: Engine,
    foreseen: dict[str, str],
    agree: Callable[[Mapping[str, str]], None],
    stop: Stop,
    quiet: bool,
) -> None:
    """Encode notes; write each embedding as it is made, if `agree` lets what it changes pass."""
    if not todo:
        return
    conformed = {note: source_notes.read(note) for note in todo}
    refuse(problem for sound in conformed.values() for problem in sound.problems)
    stop.here(lambda: "no note was encoded; run it again")
    origins = read_origins(workspace)
    progress = Progress("prepare", len(todo), "notes", workspace.status("prepare"), quiet=quiet)
    sounds = np.stack([sound.audio for sound in conformed.values()])
    left = iter(todo.items())
    with following(progress), closing(engine.encode(sounds)) as pieces:
        for piece in pieces:
            for embedding in piece:
                note, identity = next(left)
                name, digest = called(note), embedding_hash(embedding)
                if conformed[note].done and not quiet:
                    say(f"  {note.path.name} -> {name}: {', '.join(conformed[note].done)}")
                if not np.isfinite(embedding).all():
                    raise BadInput(
                        Problem(name, "its embedding is not finite", "check the checkpoint")
                    )
                if foreseen.get(name) != digest:
                    foreseen[name] = digest
                    agree(foreseen)
                write_array(workspace.embedding(*note.name), embedding.astype("<f4"))
                origins[name] = {
                    "note": identity,
                    "checkpoint": engine.checkpoint_sha256,
                    "embedding": digest,
                }
                write_json(workspace.origins, origins)
                progress.advance(1)
            progress.advance(0)
            stop.here(lambda: "the notes encoded so far are safe; run it again to go on")
    if unmade := [called(note) for note, _ in left]:
        raise RuntimeError(f"the engine made no embedding of {', '.join(unmade)}")


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
    return origins.get(called(note)) == {
        "note": identity,
        "checkpoint": engine.checkpoint_sha256,
        "embedding": embedding_hash(embedding),
    }
