"""check: everything that could go wrong, before it costs hours; how long, how large it will be."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nsynth_super import machine, tuning
from nsynth_super import notes as source_notes
from nsynth_super.blocks import clips_done
from nsynth_super.engines import Engine
from nsynth_super.grid import Grid
from nsynth_super.notes import Fill, Note, identity
from nsynth_super.pitch import detect
from nsynth_super.plan import BLOCK, REPLAN, Plan
from nsynth_super.problems import BadInput, NsynthSuperError, Problem, errors
from nsynth_super.progress import amount
from nsynth_super.settings import Settings, read
from nsynth_super.speed import Speed
from nsynth_super.stages.generate import blocks_at_once
from nsynth_super.stages.prepare import read_origins
from nsynth_super.tuning import Heard
from nsynth_super.workspace import Workspace


@dataclass
class Report:
    """What `check` found.

    Attributes
    ----------
    clips, pads : int
        How many the pack needs; 0 if the settings cannot say.
    bytes : int
        Disk space that the finished workspace takes.
    seconds : float or None
        For all three stages on this machine, from measured steps; None without a model.
    seconds_left : float or None
        The same, without what is done already.
    engine : str
        What would compute.
    problems : list of Problem
    notes : list of Note
        Those that were found, by instrument and pitch.
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
        """Whether nothing stands in the way."""
        return not errors(self.problems)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as `check --json` prints it."""
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


def run(
    workspace: Workspace,
    open_engine: Callable[[], Engine],
    fill: Fill | None = None,
    batch_clips: int | None = None,
) -> Report:
    """Check a workspace, the machine and the model; never raises for what it finds."""
    report = Report()
    with _noting(report):
        settings, problems = read(workspace.settings)
        report.problems += problems
    engine = None
    with _noting(report):
        engine = open_engine()
        report.engine = engine.describe()
    if settings is None:
        return report
    report.pads = len(settings.combinations)
    report.clips = len(Grid.of(settings).mixes)
    report.bytes = report.clips * settings.decoded_samples + report.pads * settings.pad_bytes
    with _noting(report):
        report.notes, problems = source_notes.find(workspace.notes, settings, fill)
        # A recording that fills gaps is read once.
        by_path = {
            note.path: note for note in sorted(report.notes, key=lambda n: n.filled_from is None)
        }
        report.problems += [*problems, *_of_the_recordings(list(by_path.values()))]
    plan = None
    with _noting(report):
        plan = Plan.read(workspace.plan)
        if plan is not None:
            report.problems += _changed(workspace, settings, engine, report.notes, plan)
    with _noting(report):
        _check_disk(workspace, settings, report, plan)
    if engine is not None:
        with _noting(report):
            _estimate(report, settings, engine, batch_clips)
        if plan is not None and report.seconds and not plan.differences(settings):
            done = clips_done(workspace, plan) / max(report.clips, 1)
            report.seconds_left = report.seconds * (1 - min(done, 1.0))
    return report


@contextmanager
def _noting(report: Report) -> Iterator[None]:
    """Let whatever stops the lines within be one more problem of the report."""
    try:
        yield
    except BadInput as bad:
        report.problems += bad.problems
    except (NsynthSuperError, OSError) as error:
        report.problems.append(Problem("check", str(error), ""))


def _of_the_recordings(notes: list[Note]) -> Iterator[Problem]:
    def listen(note: Note) -> tuple[list[Problem], Heard]:
        conformed = source_notes.read(note)
        return conformed.problems, Heard(note, detect(conformed.audio))

    heard = []
    with ThreadPoolExecutor(machine.processors()) as pool:
        for problems, each in pool.map(listen, notes):
            yield from problems
            heard.append(each)
    yield from tuning.problems(heard)


def _changed(
    workspace: Workspace, settings: Settings, engine: Engine | None, notes: list[Note], plan: Plan
) -> Iterator[Problem]:
    """Name what changed since the plan was made: an error if there are clips to lose."""
    changed = plan.differences(settings)
    if engine is not None and engine.checkpoint_sha256 != plan.checkpoint:
        changed.append("another checkpoint")
    origins = read_origins(workspace)
    for note in notes:
        name = f"{note.name[0]}_{note.name[1]}"
        origin = origins.get(name, {})
        encoded_anew = origin.get("checkpoint") == plan.checkpoint and origin.get(
            "embedding"
        ) != plan.embeddings.get(name)
        if name in plan.embeddings and (origin.get("note") != identity(note) or encoded_anew):
            changed.append(f"another recording of {name}")
    begun = any(workspace.clips.glob("*.npy"))
    if changed and begun:
        yield Problem("plan.json", f"was made for something else ({'; '.join(changed)})", REPLAN)


def _check_disk(
    workspace: Workspace, settings: Settings, report: Report, plan: Plan | None
) -> None:
    root = workspace.root
    while not root.exists():
        root = root.parent
    if not os.access(root, os.W_OK):
        report.problems.append(Problem(str(root), "cannot be written", "choose another folder"))
    there = 0.0
    if plan is not None and not plan.differences(settings):
        there = clips_done(workspace, plan) * plan.samples
        if workspace.manifest.exists():
            manifest = json.loads(workspace.manifest.read_text(encoding="utf-8"))
            there += settings.pad_bytes * report.pads * (manifest.get("plan") == plan.identity)
    free, to_come = shutil.disk_usage(root).free, report.bytes - there
    if to_come > free:
        report.problems.append(
            Problem(
                str(workspace.root),
                f"the pack needs {amount(to_come)} more, {amount(free)} are free",
                "free some space, or choose fewer instruments, pitches or a lower resolution",
            )
        )


def _estimate(report: Report, settings: Settings, engine: Engine, batch_clips: int | None) -> None:
    batch = min(report.clips, blocks_at_once(engine, batch_clips) * BLOCK)
    memory = engine.memory(batch)
    if memory > engine.room():
        report.problems.append(
            Problem(
                "memory",
                f"{batch} clips at once need {amount(memory)}",
                f"{amount(engine.room())} may be used here, and {BLOCK} clips is the least",
            )
        )
        return
    notes = len(settings.instruments) * len(settings.pitches)
    speed = Speed.measured(engine, batch, settings.final_length)
    report.seconds = speed.seconds(notes, report.clips, settings.decoded_samples)
    report.seconds_left = report.seconds
