"""Sources of a pad's bytes: the written pads, or the clips generated so far.

Both report which rows are available, and return the same bytes for any range.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nsynth_super.base.errors import BadInput, Failed
from nsynth_super.base.files import explained
from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.blocks import complete
from nsynth_super.pack.finishing import finish
from nsynth_super.pack.geometry import Geometry
from nsynth_super.pack.grid import Grid
from nsynth_super.pack.manifest import Manifest
from nsynth_super.pack.plan import BLOCK, Plan, require
from nsynth_super.settings import Settings, pad_name
from nsynth_super.wavenet import mulaw

_PIECE = 1 << 20  # bytes per read


class Sounds(Protocol):
    """The available rows of every pad.

    Attributes
    ----------
    identity : str
        Differs if the sounds differ.
    final : bool
        All pads are written: no rows will be added.
    """

    @property
    def identity(self) -> str: ...  # noqa: D102

    @property
    def final(self) -> bool: ...  # noqa: D102

    def made(self, combination: int) -> NDArray[np.bool_]:
        """Return which rows of a pad are available."""

    def stream(self, combination: int, start: int, stop: int) -> Iterator[bytes]:
        """Yield a range of a pad's bytes; every row in it must be available."""


@dataclass(frozen=True)
class Pads:
    """Sounds read from the written pads.

    Attributes
    ----------
    workspace : Workspace
    settings : Settings
    identity : str
        Identity of the plan that made them.
    """

    workspace: Workspace
    settings: Settings
    identity: str
    final: bool = True

    def made(self, combination: int) -> NDArray[np.bool_]:
        """Return which rows are available: all."""
        return np.ones(Geometry.of(self.settings).rows, dtype=np.bool_)

    def stream(self, combination: int, start: int, stop: int) -> Iterator[bytes]:
        """Yield a range of a pad's bytes."""
        path = self.workspace.pad(pad_name(self.settings.combinations[combination]))
        try:
            with path.open("rb") as file:
                file.seek(start)
                while start < stop:
                    piece = file.read(min(_PIECE, stop - start))
                    if not piece:
                        raise Failed(f"{path}: is truncated -> run `nsynth-super pads`")
                    start += len(piece)
                    yield piece
        except OSError as error:
            raise explained(error, path) from error


class Clips:
    """Sounds of the clips generated so far, finished as `pads` does it.

    Parameters
    ----------
    workspace : Workspace
    settings : Settings
    plan : Plan
    """

    final = False

    def __init__(self, workspace: Workspace, settings: Settings, plan: Plan) -> None:
        self._workspace, self._settings, self.plan = workspace, settings, plan
        self.identity = plan.identity
        grid = Grid.of(settings)
        number = {mix.key: clip for clip, mix in enumerate(plan.mixes)}
        clips = np.array([number[mix.key] for mix in grid.mixes], dtype=np.int32)
        self._clip = clips[grid.where.reshape(len(grid.combinations), -1)]
        self._available = np.zeros(plan.blocks, dtype=np.bool_)
        self._seen: dict[int, int] = {}
        self._lock = Lock()

    def made(self, combination: int) -> NDArray[np.bool_]:
        """Return which rows have their clip on disk."""
        with self._lock:
            self._scan()
            return np.asarray(self._available[self._clip[combination] // BLOCK])

    @cached_property
    def _paths(self) -> list[Path]:
        blocks = range(self.plan.blocks)
        return [self._workspace.block(each, self.plan.block_identity(each)) for each in blocks]

    def _scan(self) -> None:
        """Find new blocks; check a damaged one again, and warn of it, only after it changes."""
        names = {path.name for path in self._workspace.clips.glob("*.npy")}
        for block in np.flatnonzero(~self._available).tolist():
            path = self._paths[block]
            if path.name not in names:
                continue
            try:
                seen = path.stat().st_mtime_ns
            except FileNotFoundError:  # removed by `--replan`
                continue
            if self._seen.get(block) != seen:
                self._seen[block] = seen
                self._available[block] = complete(self._workspace, self.plan, block) is not None

    def stream(self, combination: int, start: int, stop: int) -> Iterator[bytes]:
        """Yield a range of the future pad's bytes, row by row."""
        size = Geometry.of(self._settings).row_bytes
        for row in range(start // size, -(-stop // size)):
            begin = row * size
            content = self._row(combination, row).tobytes()
            yield content[max(start - begin, 0) : min(stop - begin, size)]

    def _row(self, combination: int, row: int) -> NDArray[np.int16]:
        block, clip = divmod(int(self._clip[combination, row]), BLOCK)
        codes = complete(self._workspace, self.plan, block)
        if codes is None:
            raise Failed(
                f"{self._workspace.clips}: block {block} is missing -> run `nsynth-super generate`"
            )
        return finish(mulaw.decode(np.asarray(codes[clip])), self._settings.final_length)


def open_sounds(workspace: Workspace, settings: Settings) -> Sounds:
    """Return the pads if all exist and belong to the plan, otherwise the plan's clips.

    Raises
    ------
    BadInput
        If there is neither pack nor plan, or the settings changed since.
    """
    plan = None
    try:
        plan = require(workspace.plan, settings)
    except BadInput:
        if workspace.plan.exists() or _packed(workspace, settings) is None:
            raise
    packed = _packed(workspace, settings)
    if packed is not None and (plan is None or plan.identity == packed):
        return Pads(workspace, settings, packed)
    assert plan is not None
    return Clips(workspace, settings, plan)


def _packed(workspace: Workspace, settings: Settings) -> str | None:
    """Return the identity of the pads' plan; None unless all exist and match the settings."""
    names = {f"{pad_name(combination)}.bin" for combination in settings.combinations}
    manifest = Manifest.of_workspace(workspace)
    if manifest is None or manifest.pads.keys() != names:
        return None
    try:
        sizes = {(workspace.pads / name).stat().st_size for name in names}
    except OSError:
        return None
    same = manifest.shaping == settings.shaping() and sizes == {Geometry.of(settings).bytes}
    return manifest.plan if same else None
