"""check: everything that could go wrong, before it costs hours; how long, how large it will be."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from nsynth_super import notes as source_notes
from nsynth_super.engines import Engine
from nsynth_super.finishing import finish
from nsynth_super.grid import Grid
from nsynth_super.notes import Fill
from nsynth_super.plan import BLOCK, Plan
from nsynth_super.problems import BadInput, Problem, errors
from nsynth_super.settings import Settings, read
from nsynth_super.stages.generate import blocks_at_once, clips_done
from nsynth_super.wavenet import mulaw
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
    """

    clips: int = 0
    pads: int = 0
    bytes: int = 0
    seconds: float | None = None
    seconds_left: float | None = None
    engine: str = ""
    problems: list[Problem] = field(default_factory=list)

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
    settings, report.problems = read(workspace.settings)
    engine = None
    try:
        engine = open_engine()
        report.engine = engine.describe()
    except BadInput as bad:
        report.problems += bad.problems
    if settings is None:
        return report
    needed = len(settings.instruments) * len(settings.pitches)
    report.problems += _check_notes(workspace, settings, fill)
    report.clips = len(Grid.of(settings).mixes)
    report.pads = len(settings.combinations)
    report.bytes = report.clips * settings.decoded_samples + report.pads * settings.pad_bytes
    plan = _plan(workspace, settings, report)
    report.problems += _check_disk(workspace, settings, report, plan)
    if engine is not None:
        _estimate(report, settings, engine, needed, batch_clips)
        if plan is not None and report.seconds:
            done = clips_done(workspace, plan) / max(report.clips, 1)
            report.seconds_left = report.seconds * (1 - min(done, 1.0))
    return report


def _check_notes(workspace: Workspace, settings: Settings, fill: Fill | None) -> list[Problem]:
    found, problems = source_notes.find(workspace.notes, settings, fill)
    for note in found:
        if note.filled_from is None:
            problems += source_notes.read(note).problems
    return problems


def _plan(workspace: Workspace, settings: Settings, report: Report) -> Plan | None:
    try:
        plan = Plan.read(workspace.plan)
    except BadInput as bad:
        report.problems += bad.problems
        return None
    if plan is not None and (changed := plan.differences(settings)):
        report.problems.append(
            Problem(
                "plan.json",
                f"was made for other settings ({'; '.join(changed)})",
                "`nsynth-super prepare --replan` keeps what is still valid",
                "warning",
            )
        )
        return None
    return plan


def _check_disk(
    workspace: Workspace, settings: Settings, report: Report, plan: Plan | None
) -> list[Problem]:
    root = _existing(workspace.root)
    free = shutil.disk_usage(root).free
    present = sum(
        file.stat().st_size
        for folder in (workspace.clips, workspace.pads)
        for file in folder.glob("*.*")
        if plan is not None and file.is_file()
    )
    to_come = max(report.bytes - present, 0)
    if to_come > free:
        return [
            Problem(
                str(workspace.root),
                f"the pack needs {to_come / 1e9:.1f} GB more, {free / 1e9:.1f} GB are free",
                "free some space, or choose fewer instruments, pitches or a lower resolution",
            )
        ]
    return []


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _estimate(
    report: Report, settings: Settings, engine: Engine, notes: int, batch_clips: int | None
) -> None:
    batch = min(report.clips, blocks_at_once(engine, batch_clips) * BLOCK)
    memory = 4 * batch * engine.dimensions.receptive_field * engine.dimensions.width
    if memory > psutil.virtual_memory().total:
        report.problems.append(
            Problem(
                "memory",
                f"{batch} clips at once need {memory / 1e9:.1f} GB",
                f"this machine is too small for the model; {BLOCK} clips is the least",
            )
        )
        return
    batches = report.clips / batch
    decoding = engine.measure(batch) * settings.decoded_samples * batches
    clip = mulaw.decode(np.full(settings.decoded_samples, 200, dtype=np.uint8))
    begin = time.perf_counter()
    finish(clip, settings.final_length)
    finishing = (time.perf_counter() - begin) * report.clips
    report.seconds = report.seconds_left = engine.measure_encoder() * notes + decoding + finishing
