"""Where a pad's bytes come from: the pads themselves, or the clips that they will be made of.

Both say which rows there are, and give any range of a pad's bytes: the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nsynth_super.blocks import complete
from nsynth_super.device import offset
from nsynth_super.files import explained
from nsynth_super.finishing import finish
from nsynth_super.grid import Grid
from nsynth_super.plan import BLOCK, Plan, require
from nsynth_super.problems import BadInput, Failed
from nsynth_super.settings import Settings, pad_name
from nsynth_super.wavenet import mulaw
from nsynth_super.workspace import Workspace

_PIECE = 1 << 20  # bytes of a pad that are read at once


class Sounds(Protocol):
    """The rows of every pad, as far as there are any.

    Attributes
    ----------
    identity : str
        Other sounds, another identity.
    whole : bool
        All pads are written: nothing more will come.
    """

    @property
    def identity(self) -> str: ...  # noqa: D102

    @property
    def whole(self) -> bool: ...  # noqa: D102

    def made(self, combination: int) -> NDArray[np.bool_]:
        """Tell which rows of a pad there are."""

    def stream(self, combination: int, start: int, stop: int) -> Iterator[bytes]:
        """Yield a range of a pad's bytes; every row that it touches must be there."""


@dataclass(frozen=True)
class Pads:
    """Sounds out of `pads_output`.

    Attributes
    ----------
    workspace : Workspace
    settings : Settings
    identity : str
        The plan's that they were made by.
    """

    workspace: Workspace
    settings: Settings
    identity: str
    whole: bool = True

    def made(self, combination: int) -> NDArray[np.bool_]:
        """All rows are there."""
        return np.ones(_rows(self.settings), dtype=np.bool_)

    def stream(self, combination: int, start: int, stop: int) -> Iterator[bytes]:
        """Yield a range of a pad's bytes."""
        path = self.workspace.pad(pad_name(self.settings.combinations[combination]))
        try:
            with path.open("rb") as file:
                file.seek(start)
                while start < stop:
                    piece = file.read(min(_PIECE, stop - start))
                    if not piece:
                        raise Failed(f"{path}: is cut short -> run `nsynth-super pads`")
                    start += len(piece)
                    yield piece
        except OSError as error:
            raise explained(error, path) from error


class Clips:
    """Sounds out of the clips made so far, finished as `pads` finishes them.

    Parameters
    ----------
    workspace : Workspace
    settings : Settings
    plan : Plan
    """

    whole = False

    def __init__(self, workspace: Workspace, settings: Settings, plan: Plan) -> None:
        self._workspace, self._settings, self.plan = workspace, settings, plan
        self.identity = plan.identity
        grid = Grid.of(settings)
        number = {mix.key: clip for clip, mix in enumerate(plan.mixes)}
        clips = np.array([number[mix.key] for mix in grid.mixes], dtype=np.int32)
        self._clip = clips[grid.where.reshape(len(grid.combinations), -1)]
        self._there = np.zeros(plan.blocks, dtype=np.bool_)
        self._seen: dict[int, int] = {}
        self._lock = Lock()

    def made(self, combination: int) -> NDArray[np.bool_]:
        """Tell which rows have their clip on disk."""
        with self._lock:
            self._look()
            return np.asarray(self._there[self._clip[combination] // BLOCK])

    @cached_property
    def _paths(self) -> list[Path]:
        blocks = range(self.plan.blocks)
        return [self._workspace.block(each, self.plan.block_identity(each)) for each in blocks]

    def _look(self) -> None:
        """Find the blocks that have come; a damaged one is complained of once."""
        names = {path.name for path in self._workspace.clips.glob("*.npy")}
        for block in np.flatnonzero(~self._there).tolist():
            path = self._paths[block]
            if path.name not in names:
                continue
            try:
                seen = path.stat().st_mtime_ns
            except FileNotFoundError:  # a `--replan` took it away again
                continue
            if self._seen.get(block) != seen:
                self._seen[block] = seen
                self._there[block] = complete(self._workspace, self.plan, block) is not None

    def stream(self, combination: int, start: int, stop: int) -> Iterator[bytes]:
        """Yield a range of what will be a pad's bytes, row by row."""
        size = offset(1, self._settings.final_length)
        for row in range(start // size, -(-stop // size)):
            begin = row * size
            content = self._row(combination, row).tobytes()
            yield content[max(start - begin, 0) : min(stop - begin, size)]

    def _row(self, combination: int, row: int) -> NDArray[np.int16]:
        block, clip = divmod(int(self._clip[combination, row]), BLOCK)
        codes = complete(self._workspace, self.plan, block)
        if codes is None:
            raise Failed(
                f"{self._workspace.clips}: block {block} is gone -> run `nsynth-super generate`"
            )
        return finish(mulaw.decode(np.asarray(codes[clip])), self._settings.final_length)


def open_sounds(workspace: Workspace, settings: Settings) -> Sounds:
    """Return the pads if all of them are there and are the plan's, else the plan's clips.

    Raises
    ------
    BadInput
        If there is neither pack nor plan, or the settings have changed since.
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
    """Return which plan the pads were made by; None unless all are there, of these settings."""
    names = {f"{pad_name(combination)}.bin" for combination in settings.combinations}
    try:
        manifest = json.loads(workspace.manifest.read_text(encoding="utf-8"))
        sizes = {(workspace.pads / name).stat().st_size for name in names}
        same = (
            manifest["settings"] == settings.shaping()
            and set(manifest["pads"]) == names
            and sizes == {settings.pad_bytes}
        )
        return str(manifest["plan"]) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _rows(settings: Settings) -> int:
    return settings.resolution**2 * len(settings.pitches)
