"""pads: clips to pads, with the device's settings.json and a manifest.

One pass over the clips: each is finished once and written to every place where it is heard.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nsynth_super import __version__, machine
from nsynth_super.blocks import complete
from nsynth_super.device import device_settings, offset, read_device_settings
from nsynth_super.files import (
    explained,
    only_one,
    sha256,
    sweep,
    sync,
    temporary_beside,
    write_json,
)
from nsynth_super.finishing import finish
from nsynth_super.grid import Grid
from nsynth_super.plan import Plan, require
from nsynth_super.problems import BadInput, Failed, Problem
from nsynth_super.progress import Progress, Stop, following
from nsynth_super.settings import SAMPLE_RATE, Settings, pad_name
from nsynth_super.wavenet import mulaw
from nsynth_super.workspace import Workspace

AT_ONCE = 256
"""Pads written in one pass over the clips: the factory pack's, within a process's open files."""

MOST_THREADS = 4
"""What a clip's finish does between NumPy's calls is one thread's at a time: more would wait."""


@dataclass(frozen=True)
class Pack:
    """What `pads` made or found.

    Attributes
    ----------
    pads : int
    made : bool
        False if all was there already.
    """

    pads: int
    made: bool


def run(
    workspace: Workspace,
    settings: Settings,
    given: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Pack:
    """Write every pad of the pack, the device's settings.json and manifest.json.

    Parameters
    ----------
    workspace : Workspace
    settings : Settings
    given : mapping, optional
        The device's present settings.json, to merge into.
    quiet : bool

    Raises
    ------
    BadInput
        If clips are missing.
    Failed
        If the disk cannot hold the pads.
    """
    plan = require(workspace.plan, settings)
    missing = [block for block in range(plan.blocks) if complete(workspace, plan, block) is None]
    if missing:
        clips = sum(len(plan.clips_of(block)) for block in missing)
        raise BadInput(
            Problem(
                str(workspace.clips),
                f"{clips} of {len(plan.mixes)} clips are not made yet",
                "run `nsynth-super generate` first",
            )
        )
    names = [pad_name(combination) for combination in settings.combinations]
    busy = f"{workspace.root}: another `pads` is at work there"
    with only_one(workspace.lock("pads"), busy), Stop() as stop:
        made = not _is_complete(workspace, settings, plan, names)
        if made:
            _make(workspace, settings, plan, names, stop, quiet)
        wanted = device_settings(settings, given if given is not None else _previous(workspace))
        if made or _previous(workspace) != wanted:
            write_json(workspace.device_settings, wanted, indent=2)
        if made:
            write_json(workspace.manifest, _manifest(workspace, settings, plan, names), indent=2)
    return Pack(len(names), made)


def _previous(workspace: Workspace) -> dict[str, Any] | None:
    try:
        return read_device_settings(workspace.device_settings)
    except BadInput:
        return None


def _is_complete(workspace: Workspace, settings: Settings, plan: Plan, names: list[str]) -> bool:
    """Tell whether the manifest is of this plan, and every pad has its size."""
    try:
        manifest = json.loads(workspace.manifest.read_text(encoding="utf-8"))
        same = manifest["plan"] == plan.identity and sorted(manifest["pads"]) == sorted(
            f"{name}.bin" for name in names
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
    paths = [workspace.pad(name) for name in names]
    return same and all(p.exists() and p.stat().st_size == settings.pad_bytes for p in paths)


def _make(
    workspace: Workspace, settings: Settings, plan: Plan, names: list[str], stop: Stop, quiet: bool
) -> None:
    places = _places(settings, plan)
    groups = [
        range(start, min(start + AT_ONCE, len(names))) for start in range(0, len(names), AT_ONCE)
    ]
    total = len(groups) * len(plan.mixes)
    _clear(workspace, names)
    progress = Progress("pads", total, "clips", workspace.status("pads"), quiet=quiet)
    with following(progress):
        for group in groups:
            paths = [workspace.pad(names[combination]) for combination in group]
            # The last thread has ended before the files that it writes to are closed.
            with _files(paths, settings.pad_bytes) as files, _threads() as pool:
                pads = dict(zip(group, files, strict=True))
                writer = _Writer(workspace, plan, settings.final_length, places, pads)
                for clips in pool.map(writer.write, range(plan.blocks)):
                    progress.advance(clips)
                    stop.here(lambda: "no pad was touched that is not whole; run it again")


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Give threads to work in; on leaving, what none has begun is dropped, the rest waited for."""
    pool = ThreadPoolExecutor(min(machine.processors(), MOST_THREADS))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _places(settings: Settings, plan: Plan) -> list[list[tuple[int, int]]]:
    """Return where each of the plan's clips is heard: `(combination, row)`."""
    grid = Grid.of(settings)
    index = {mix.key: number for number, mix in enumerate(grid.mixes)}
    return [list(grid.places_of(index[mix.key])) for mix in plan.mixes]


def _clear(workspace: Workspace, names: list[str]) -> None:
    """Take away what is not to be taken for the pack while its pads are being replaced."""
    try:
        for listed in set(_listed(workspace)) - {f"{name}.bin" for name in names}:
            (workspace.pads / Path(listed).name).unlink(missing_ok=True)
        # Without its manifest nobody takes the pads for a pack.
        workspace.manifest.unlink(missing_ok=True)
    except OSError as error:
        raise explained(error, workspace.pads) from error
    sweep(workspace.pads)
    sweep(workspace.status_folder, workspace.status("pads").name)


def _listed(workspace: Workspace) -> list[str]:
    """Return the file names of the pads that the manifest lists; none without one."""
    try:
        pads = json.loads(workspace.manifest.read_text(encoding="utf-8"))["pads"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [name for name in pads if isinstance(name, str) and name.endswith(".bin")]


@dataclass(frozen=True)
class _Writer:
    """Finishes clips and writes them into open pads; no two blocks write to the same place.

    Attributes
    ----------
    workspace : Workspace
    plan : Plan
    length : int
        Samples of a sound.
    places : list of list of (combination, row)
        Where each clip is heard.
    pads : dict of int to int
        File descriptors by combination; what only others hear is not written.
    """

    workspace: Workspace
    plan: Plan
    length: int
    places: list[list[tuple[int, int]]]
    pads: dict[int, int]

    def write(self, block: int) -> int:
        """Write a block's clips; return how many they are."""
        codes = complete(self.workspace, self.plan, block)
        if codes is None:
            raise Failed(
                f"{self.workspace.clips}: block {block} went missing -> run `nsynth-super generate`"
            )
        # Clip by clip: one fits a core's cache, a block's amplitudes do not.
        for clip, row in zip(self.plan.clips_of(block), codes, strict=True):
            sound = finish(mulaw.decode(np.asarray(row)), self.length)
            for combination, place in self.places[clip]:
                if combination in self.pads:
                    _write_at(self.pads[combination], sound, offset(place, self.length))
        return len(codes)


def _write_at(descriptor: int, sound: NDArray[np.int16], position: int) -> None:
    content = sound.view(np.uint8).data
    while content:
        written = os.pwrite(descriptor, content, position)
        content, position = content[written:], position + written


@contextmanager
def _files(paths: list[Path], size: int) -> Iterator[list[int]]:
    """Open temporary files of `size` bytes; on success sync them and give them their names.

    Their space is claimed first, so that a disk that cannot hold them says so at once.
    """
    temporaries = [temporary_beside(path) for path in paths]
    try:
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            descriptors = []
            for temporary in temporaries:
                descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
                stack.callback(os.close, descriptor)
                _claim(descriptor, size)
                descriptors.append(descriptor)
            yield descriptors
            for descriptor in descriptors:
                os.fsync(descriptor)
        for temporary, path in zip(temporaries, paths, strict=True):
            if temporary.stat().st_size != size:
                raise Failed(
                    f"{path}: came out with another size than {size:,} bytes -> please report it"
                )
            os.replace(temporary, path)
        sync(paths[0].parent)
    except OSError as error:
        raise explained(error, paths[0].parent) from error
    finally:
        with suppress(OSError):
            for temporary in temporaries:
                temporary.unlink(missing_ok=True)


def _claim(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:  # macOS: a full disk shows later, and is as harmless
        os.ftruncate(descriptor, size)


def _manifest(
    workspace: Workspace, settings: Settings, plan: Plan, names: list[str]
) -> dict[str, Any]:
    return {
        "format": 1,
        "made_by": {
            "nsynth-super": __version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "plan": plan.identity,
        "settings": dict(plan.shaping),
        "seed": plan.seed,
        "checkpoint": plan.checkpoint,
        "geometry": {
            "order": "[y][x][pitch][sample], top row first, headerless little-endian int16 mono",
            "corners": ["NW", "NE", "SW", "SE"],
            "resolution": settings.resolution,
            "pitches": list(settings.pitches),
            "length": settings.final_length,
            "sample_rate": SAMPLE_RATE,
            "bytes": settings.pad_bytes,
        },
        "pads": _sha256s([workspace.pad(name) for name in names]),
    }


def _sha256s(paths: list[Path]) -> dict[str, str]:
    """Return the files' sha256 by their names."""
    with _threads() as pool:
        digests = pool.map(sha256, paths)
        return {path.name: digest for path, digest in zip(paths, digests, strict=True)}
