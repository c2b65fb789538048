"""The `pads` stage: write the pads, the synth's settings.json and manifest.json.

A single pass over the clips post-processes each one once and writes it to every place in the pads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nsynth_super.base import allocation
from nsynth_super.base.errors import BadInput, Failed, Problem
from nsynth_super.base.files import (
    explained,
    only_one,
    sha256,
    sweep,
    sync,
    temporary_beside,
    write_json,
)
from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.blocks import complete
from nsynth_super.pack.finishing import finish
from nsynth_super.pack.geometry import Geometry
from nsynth_super.pack.grid import Grid
from nsynth_super.pack.manifest import Manifest
from nsynth_super.pack.plan import Plan, require
from nsynth_super.runtime.progress import Progress, following
from nsynth_super.runtime.signals import Stop
from nsynth_super.settings import Settings, pad_name
from nsynth_super.synth.settings import read_synth_settings, synth_settings
from nsynth_super.wavenet import mulaw

AT_ONCE = 256
"""Pads per pass over the clips: enough for a factory pack, below the limit of open files."""

MOST_THREADS = 4
"""Most threads that help: Python code between the NumPy calls runs in one thread at a time."""


@dataclass(frozen=True)
class PadsResult:
    """Result of the `pads` stage.

    Attributes
    ----------
    pads : int
        Number of pads in the pack.
    made : bool
        False if the pads were already complete.
    """

    pads: int
    made: bool


def run_pads(
    workspace: Workspace,
    settings: Settings,
    given: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> PadsResult:
    """Write the pads of the pack, the synth's settings.json and manifest.json.

    Parameters
    ----------
    workspace : Workspace
    settings : Settings
    given : mapping, optional
        The synth's current settings.json, to merge with.
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
                f"{clips} of {len(plan.mixes)} clips are missing",
                "run `nsynth-super generate` first",
            )
        )
    names = [pad_name(combination) for combination in settings.combinations]
    busy = f"{workspace.root}: another `pads` is running"
    with only_one(workspace.lock("pads"), busy), Stop() as stop:
        made = not _is_complete(workspace, settings, plan, names)
        if made:
            _make(workspace, settings, plan, names, stop, quiet)
        wanted = synth_settings(settings, given if given is not None else _previous(workspace))
        if made or _previous(workspace) != wanted:
            write_json(workspace.synth_settings, wanted, indent=2)
        if made:
            digests = _sha256s([workspace.pad(name) for name in names])
            manifest = Manifest.of_pack(settings, plan, digests)
            write_json(workspace.manifest, manifest.pack_dict(), indent=2)
    return PadsResult(len(names), made)


def _previous(workspace: Workspace) -> dict[str, Any] | None:
    try:
        return read_synth_settings(workspace.synth_settings)
    except BadInput:
        return None


def _is_complete(workspace: Workspace, settings: Settings, plan: Plan, names: list[str]) -> bool:
    """Return whether the manifest belongs to this plan and every pad has the right size."""
    manifest = Manifest.of_workspace(workspace)
    paths = [workspace.pad(name) for name in names]
    if manifest is None or manifest.plan != plan.identity:
        return False
    if manifest.pads.keys() != {path.name for path in paths}:
        return False
    size = Geometry.of(settings).bytes
    return all(path.exists() and path.stat().st_size == size for path in paths)


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
            # This order ends the threads before their files are closed.
            with _files(paths, Geometry.of(settings).bytes) as files, _threads() as pool:
                pads = dict(zip(group, files, strict=True))
                writer = _Writer(workspace, plan, Geometry.of(settings), places, pads)
                for clips in pool.map(writer.write, range(plan.blocks)):
                    progress.advance(clips)
                    stop.here(lambda: "only complete pads were written; run it again to resume")


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Yield a thread pool; on exit cancel the pending work and wait for the running work."""
    pool = ThreadPoolExecutor(min(allocation.processors(), MOST_THREADS))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _places(settings: Settings, plan: Plan) -> list[list[tuple[int, int]]]:
    """Return the (combination, row) of every place of each clip of the plan."""
    grid = Grid.of(settings)
    index = {mix.key: number for number, mix in enumerate(grid.mixes)}
    return [list(grid.places_of(index[mix.key])) for mix in plan.mixes]


def _clear(workspace: Workspace, names: list[str]) -> None:
    """Remove the manifest, pads of earlier settings, and temporary files."""
    try:
        before = Manifest.of_workspace(workspace)
        listed = set(before.pads) if before else set()
        for name in listed - {f"{name}.bin" for name in names}:
            (workspace.pads / name).unlink(missing_ok=True)
        # Without a manifest, the pads do not count as a finished pack.
        workspace.manifest.unlink(missing_ok=True)
    except OSError as error:
        raise explained(error, workspace.pads) from error
    sweep(workspace.pads)
    sweep(workspace.status_folder, workspace.status("pads").name)


@dataclass(frozen=True)
class _Writer:
    """Writer of post-processed clips into open pads; thread-safe, as no two clips share a place.

    Attributes
    ----------
    workspace : Workspace
    plan : Plan
    geometry : Geometry
    places : list of list of (combination, row)
        Places of each clip.
    pads : dict of int to int
        File descriptors by combination; clips of other combinations are skipped.
    """

    workspace: Workspace
    plan: Plan
    geometry: Geometry
    places: list[list[tuple[int, int]]]
    pads: dict[int, int]

    def write(self, block: int) -> int:
        """Write the clips of a block; return their number."""
        codes = complete(self.workspace, self.plan, block)
        if codes is None:
            raise Failed(
                f"{self.workspace.clips}: block {block} is missing -> run `nsynth-super generate`"
            )
        # One clip at a time fits a core's cache; the amplitudes of a block do not.
        for clip, row in zip(self.plan.clips_of(block), codes, strict=True):
            sound = finish(mulaw.decode(np.asarray(row)), self.geometry.length)
            for combination, place in self.places[clip]:
                if combination in self.pads:
                    _write_at(self.pads[combination], sound, self.geometry.offset(place))
        return len(codes)


def _write_at(descriptor: int, sound: NDArray[np.int16], position: int) -> None:
    content = sound.view(np.uint8).data
    while content:
        written = os.pwrite(descriptor, content, position)
        content, position = content[written:], position + written


@contextmanager
def _files(paths: list[Path], size: int) -> Iterator[list[int]]:
    """Open temporary files of `size` bytes; on success sync them and rename them to `paths`.

    The space is allocated first, so that a full disk fails before any work.
    """
    temporaries = [temporary_beside(path) for path in paths]
    try:
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            descriptors = []
            for temporary in temporaries:
                descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
                stack.callback(os.close, descriptor)
                _allocate(descriptor, size)
                descriptors.append(descriptor)
            yield descriptors
            for descriptor in descriptors:
                os.fsync(descriptor)
        for temporary, path in zip(temporaries, paths, strict=True):
            if temporary.stat().st_size != size:
                raise Failed(
                    f"{path}: does not have the expected size of {size:,} bytes -> please report it"
                )
            os.replace(temporary, path)
        sync(paths[0].parent)
    except OSError as error:
        raise explained(error, paths[0].parent) from error
    finally:
        with suppress(OSError):
            for temporary in temporaries:
                temporary.unlink(missing_ok=True)


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:  # macOS: a full disk fails later, with no other harm
        os.ftruncate(descriptor, size)


def _sha256s(paths: list[Path]) -> dict[str, str]:
    """Return the sha256 of each file, by file name."""
    with _threads() as pool:
        digests = pool.map(sha256, paths)
        return {path.name: digest for path, digest in zip(paths, digests, strict=True)}
