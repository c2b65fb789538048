"""Checks a workspace, the machine and the model, and estimates time and disk space."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nsynth_super.base import allocation
from nsynth_super.base.errors import BadInput, NsynthSuperError, Problem, errors
from nsynth_super.base.text import amount
from nsynth_super.base.workspace import Workspace
from nsynth_super.engines.base import Engine
from nsynth_super.notes import recordings as source_notes
from nsynth_super.notes import tuning
from nsynth_super.notes.pitch import detect
from nsynth_super.notes.recordings import Fill, Note, identity
from nsynth_super.notes.tuning import Heard
from nsynth_super.pack.blocks import clips_done
from nsynth_super.pack.embeddings import read_origins
from nsynth_super.pack.geometry import Geometry
from nsynth_super.pack.grid import Grid
from nsynth_super.pack.manifest import Manifest
from nsynth_super.pack.plan import BLOCK, REPLAN, Plan
from nsynth_super.reports.throughput import Throughput
from nsynth_super.settings import Settings, read
from nsynth_super.stages.batches import blocks_at_once


@dataclass
class Report:
    """The result of `check`.

    Attributes
    ----------
    clips, pads : int
        Number the pack needs; 0 if the settings are invalid.
    bytes : int
        Disk space of the finished workspace.
    seconds : float or None
        Estimated time for all three stages on this machine; None without a model.
    seconds_left : float or None
        Estimated remaining time.
    engine : str
        Description of the engine.
    problems : list of Problem
    notes : list of Note
        The notes found, sorted by instrument and pitch.
    """

    clips: int = 0
    pads: int = 0
    bytes: int = 0
    seconds: float | None = None
    seconds_left: float | None = None
    engine: str = ""
    problems: list[Problem] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        """Whether the pack can be made."""
        return not errors(self.problems)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of `check --json`."""
        rounded = {
            key: None if value is None else round(value, 1)
            for key, value in (("seconds", self.seconds), ("seconds_left", self.seconds_left))
        }
        return {
            "clips": self.clips,
            "pads": self.pads,
            "bytes": self.bytes,
            **rounded,
            "engine": self.engine,
            "ready": self.ready,
            "problems": [problem.as_dict() for problem in self.problems],
        }


def check_workspace(
    workspace: Workspace,
    open_engine: Callable[[], Engine],
    fill: Fill | None = None,
    batch_clips: int | None = None,
) -> Report:
    """Check a workspace, the machine and the model.

    Parameters
    ----------
    workspace : Workspace
    open_engine : callable
        Opens the engine; its errors become problems of the report.
    fill : {"repeat", "repitch"}, optional
        How to fill missing pitches.
    batch_clips : int, optional
        Clips to decode at once, as for `generate`.

    Returns
    -------
    Report
        With all problems found; they are never raised.
    """
    report = Report()
    with _collecting(report):
        settings, problems = read(workspace.settings)
        report.problems += problems
    engine = None
    with _collecting(report):
        engine = open_engine()
        report.engine = engine.describe()
    if settings is None:
        return report
    report.pads = len(settings.combinations)
    report.clips = len(Grid.of(settings).mixes)
    report.bytes = (
        report.clips * settings.decoded_samples + report.pads * Geometry.of(settings).bytes
    )
    with _collecting(report):
        report.notes, problems = source_notes.find(workspace.notes, settings, fill)
        # A recording that also fills gaps is read once.
        by_path = {
            note.path: note for note in sorted(report.notes, key=lambda n: n.filled_from is None)
        }
        report.problems += [*problems, *_check_recordings(list(by_path.values()))]
    plan = None
    with _collecting(report):
        plan = Plan.read(workspace.plan)
        if plan is not None:
            report.problems += _check_plan(workspace, settings, engine, report.notes, plan)
    with _collecting(report):
        _check_disk(workspace, settings, report, plan)
    if engine is not None:
        with _collecting(report):
            _estimate(report, settings, engine, batch_clips)
        if plan is not None and report.seconds and not plan.differences(settings):
            done = clips_done(workspace, plan) / max(report.clips, 1)
            report.seconds_left = report.seconds * (1 - min(done, 1.0))
    return report


@contextmanager
def _collecting(report: Report) -> Iterator[None]:
    """Add an error raised in this context to the report's problems."""
    try:
        yield
    except BadInput as bad:
        report.problems += bad.problems
    except (NsynthSuperError, OSError) as error:
        report.problems.append(Problem("check", str(error), ""))


def _check_recordings(notes: list[Note]) -> Iterator[Problem]:
    def analyse(note: Note) -> tuple[list[Problem], Heard]:
        conformed = source_notes.read(note)
        return conformed.problems, Heard(note, detect(conformed.audio))

    heard = []
    with ThreadPoolExecutor(allocation.processors()) as pool:
        for problems, each in pool.map(analyse, notes):
            yield from problems
            heard.append(each)
    yield from tuning.problems(heard)


def _check_plan(
    workspace: Workspace, settings: Settings, engine: Engine | None, notes: list[Note], plan: Plan
) -> Iterator[Problem]:
    """Yield an error if inputs changed since the plan was made and clips would be lost."""
    changed = plan.differences(settings)
    if engine is not None and engine.checkpoint_sha256 != plan.checkpoint:
        changed.append("another checkpoint")
    origins = read_origins(workspace)
    for note in notes:
        name = str(note.name)
        origin = origins.get(name, {})
        reencoded = origin.get("checkpoint") == plan.checkpoint and origin.get(
            "embedding"
        ) != plan.embeddings.get(name)
        if name in plan.embeddings and (origin.get("note") != identity(note) or reencoded):
            changed.append(f"another recording of {name}")
    has_clips = any(workspace.clips.glob("*.npy"))
    if changed and has_clips:
        yield Problem("plan.json", f"was made from other inputs ({'; '.join(changed)})", REPLAN)


def _check_disk(
    workspace: Workspace, settings: Settings, report: Report, plan: Plan | None
) -> None:
    root = workspace.root
    while not root.exists():
        root = root.parent
    if not os.access(root, os.W_OK):
        report.problems.append(Problem(str(root), "is not writable", "choose another folder"))
    existing = 0.0
    if plan is not None and not plan.differences(settings):
        existing = clips_done(workspace, plan) * plan.samples
        manifest = Manifest.of_workspace(workspace)
        if manifest is not None and manifest.plan == plan.identity:
            existing += Geometry.of(settings).bytes * report.pads
    free, remaining = shutil.disk_usage(root).free, report.bytes - existing
    if remaining > free:
        report.problems.append(
            Problem(
                str(workspace.root),
                f"the pack needs {amount(remaining)} more, but only {amount(free)} are free",
                "free some space, or choose fewer instruments, pitches or a lower resolution",
            )
        )


def _estimate(report: Report, settings: Settings, engine: Engine, batch_clips: int | None) -> None:
    batch = min(report.clips, blocks_at_once(engine, batch_clips) * BLOCK)
    needed, available = engine.memory(batch), engine.available_memory()
    if needed > available:
        report.problems.append(
            Problem(
                "memory",
                f"{batch} clips at once need {amount(needed)}",
                f"{amount(available)} are available and {BLOCK} clips is the minimum",
            )
        )
        return
    notes = len(settings.instruments) * len(settings.pitches)
    speed = Throughput.measured(engine, batch, settings.final_length)
    report.seconds = speed.seconds(notes, report.clips, settings.decoded_samples)
    report.seconds_left = report.seconds
