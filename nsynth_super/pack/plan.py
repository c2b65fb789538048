"""The plan: which clips a pack needs, in which order, made from what.

Names things by what they are made from: a clip by its mix, its notes' embeddings, the weights and
the seed; a block by its clips. A block's file carries that name, so nothing stale can be taken
for something new, whatever was changed in between.
"""

from __future__ import annotations

import gc
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nsynth_super.files import explained, write_json
from nsynth_super.grid import Grid, Mix
from nsynth_super.problems import BadInput, Problem
from nsynth_super.settings import Settings

VERSION = 1
BLOCK = 64
"""Clips in a block: the unit of storage, resume and sharding."""

REPLAN = "`nsynth-super prepare --replan` starts anew and keeps the blocks that are still valid"


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Let no garbage be collected: looking a plan's lists through takes longer than making them."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@dataclass(frozen=True)
class Plan:
    """Every clip of a pack, in order.

    Attributes
    ----------
    shaping : dict
        The settings that decide what the pack holds (`Settings.shaping`).
    seed : int
        Of the clips' random numbers: the settings', or the one given in its place.
    samples : int
        To decode of each clip.
    checkpoint : str
        The weights' sha256.
    embeddings : mapping of str to str
        sha256 of each embedding's numbers, by `<instrument>_<pitch>`.
    mixes : list of Mix
        In the order of decoding.
    """

    shaping: Mapping[str, Any]
    seed: int
    samples: int
    checkpoint: str
    embeddings: Mapping[str, str]
    mixes: list[Mix]

    @classmethod
    def of(
        cls, settings: Settings, seed: int, checkpoint: str, embeddings: Mapping[str, str]
    ) -> Plan:
        """Plan a pack: every mix of its grid, single instruments first."""
        mixes = Grid.of(settings).mixes
        return cls(
            settings.shaping(), seed, settings.decoded_samples, checkpoint, dict(embeddings), mixes
        )

    def going_on_with(self, drawn: Mapping[str, int]) -> Plan:
        """Return the plan with clips that have codes already in front, so that they fill blocks.

        Parameters
        ----------
        drawn : mapping of str to int
            How many samples are there of which clips, by their identity.
        """

        def samples(mix: Mix) -> int:
            return min(drawn.get(self.clip_identity(mix), 0), self.samples)

        return replace(self, mixes=sorted(self.mixes, key=samples, reverse=True))

    @property
    def blocks(self) -> int:
        """How many there are; the last may be short."""
        return -(-len(self.mixes) // BLOCK)

    def clips_of(self, block: int) -> range:
        """Return the indices of a block's clips."""
        return range(block * BLOCK, min((block + 1) * BLOCK, len(self.mixes)))

    def clip_identity(self, mix: Mix) -> str:
        """Return what clip this is: the same string, the same codes (up to rounding)."""
        made_from = [
            f"{weight}*{self.embeddings[f'{name}_{mix.pitch}']}"
            for name, weight in _exactly(mix.weights)
        ]
        said = "\n".join([self.checkpoint, str(self.seed), str(mix.key), *made_from])
        return hashlib.sha256(said.encode()).hexdigest()

    @cached_property
    def _identities(self) -> list[str]:
        out = []
        for block in range(self.blocks):
            digest = hashlib.sha256(str(self.samples).encode())
            for clip in self.clips_of(block):
                digest.update(self.clip_identity(self.mixes[clip]).encode())
            out.append(digest.hexdigest()[:12])
        return out

    def block_identity(self, block: int) -> str:
        """Return the part of a block's file name that says what is in it."""
        return self._identities[block]

    @cached_property
    def identity(self) -> str:
        """sha256 of the whole plan."""
        return _digest(self._as_dict())

    @_without_collecting()
    def _as_dict(self) -> dict[str, Any]:
        names = sorted({name for mix in self.mixes for name, _ in mix.weights})
        number = {name: index for index, name in enumerate(names)}
        return {
            "version": VERSION,
            "settings": dict(self.shaping),
            "seed": self.seed,
            "samples": self.samples,
            "checkpoint": self.checkpoint,
            "embeddings": dict(self.embeddings),
            "block": BLOCK,
            "instruments": names,
            "mixes": [[m.pitch, [[number[i], w] for i, w in m.weights]] for m in self.mixes],
        }

    def write(self, path: Path) -> None:
        """Write plan.json, whole or not at all."""
        content = self._as_dict()
        write_json(path, {**content, "sha256": _digest(content)}, indent=None)

    @classmethod
    @_without_collecting()
    def read(cls, path: Path) -> Plan | None:
        """Read plan.json; None if there is none.

        Raises
        ------
        BadInput
            If it is cut short, was changed, or is another version's.
        Failed
            If it cannot be read.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            if raw["version"] != VERSION or raw["block"] != BLOCK:
                raise BadInput(Problem(str(path), "is another version's", REPLAN))
            if raw.pop("sha256") != _digest(raw):
                raise ValueError
            return cls(
                raw["settings"],
                raw["seed"],
                raw["samples"],
                raw["checkpoint"],
                raw["embeddings"],
                list(_mixes(raw["mixes"], raw["instruments"])),
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            raise explained(error, path) from error
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            raise BadInput(Problem(str(path), "is damaged", REPLAN)) from None

    def differences(self, settings: Settings) -> list[str]:
        """Say how `settings` differ from those that the plan was made for, a line each."""
        return list(_differences("", dict(self.shaping), settings.shaping()))


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`: a contiguous run of blocks.

    Parameters
    ----------
    index : int
        From 0, as job schedulers count.
    count : int
    """

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `I/N`, with I from 0 to N - 1.

        Raises
        ------
        ValueError
            If it is not that.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or int(match[1]) >= int(match[2]):
            raise ValueError(f"{text!r} is no shard: give I/N with I from 0 to N-1, such as 0/8")
        return cls(int(match[1]), int(match[2]))

    @property
    def name(self) -> str:
        """How files call it."""
        return f"{self.index}-of-{self.count}"

    def blocks(self, total: int) -> range:
        """Return its share of `total` blocks."""
        return range(total * self.index // self.count, total * (self.index + 1) // self.count)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _mixes(listed: Iterable[tuple[int, list[Any]]], names: Sequence[str]) -> Iterator[Mix]:
    """Read the mixes of a plan.json; those of one blend at several pitches share its weights."""
    last: list[Any] = []
    weights: tuple[tuple[str, float], ...] = ()
    for pitch, blend in listed:
        if blend != last:
            last, weights = blend, tuple([(names[index], weight) for index, weight in blend])
        yield Mix(pitch, weights)


@lru_cache(maxsize=1024)
def _exactly(weights: tuple[tuple[str, float], ...]) -> list[tuple[str, str]]:
    """Spell out weights to their last bit; a plan's next pitch has the same ones."""
    return [(name, repr(weight)) for name, weight in weights]


def _differences(key: str, then: Any, now: Any) -> Iterator[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*then, *now]):
            yield from _differences(f"{key}.{name}".lstrip("."), then.get(name), now.get(name))
    elif then != now:
        if isinstance(then, list) and isinstance(now, list):
            added = [str(item) for item in now if item not in then]
            gone = [str(item) for item in then if item not in now]
            words = [f"{', '.join(added)} added"] * bool(added) + [
                f"{', '.join(gone)} removed"
            ] * bool(gone)
            yield f"{key}: {'; '.join(words) or 'another order'}"
        else:
            yield f"{key}: was {then}, is {now}"


def require(path: Path, settings: Settings) -> Plan:
    """Read the plan and refuse one that was made for other settings.

    Raises
    ------
    BadInput
        If there is no plan, or the settings have changed since; each difference is spelled out.
    """
    plan = Plan.read(path)
    if plan is None:
        raise BadInput(
            Problem(str(path), "there is no plan yet", "run `nsynth-super prepare` first")
        )
    if changed := plan.differences(settings):
        raise BadInput(
            Problem(
                "settings.json", f"changed since the plan was made ({'; '.join(changed)})", REPLAN
            )
        )
    return plan


def encoding(mix: Mix, embeddings: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Mix embeddings, `[frames, embedding]` each: summed in float64, rounded once."""
    parts = [w * embeddings[f"{i}_{mix.pitch}"].astype(np.float64) for i, w in mix.weights]
    return np.asarray(np.sum(parts, axis=0), dtype=np.float32)
