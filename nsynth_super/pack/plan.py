"""The plan of a pack: its clips, their order and the inputs they are generated from.

Clips and blocks are content-addressed. A clip's identity is a hash of its mix, the embeddings of
its notes, the model's weights and the seed; a block's is a hash of its clips and part of its file
name. A stale block is therefore never mistaken for a current one.
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

from nsynth_super.base.errors import BadInput, Problem
from nsynth_super.base.files import explained, write_json
from nsynth_super.base.note_name import NoteName
from nsynth_super.pack.grid import Grid, Mix
from nsynth_super.settings import Settings

VERSION = 1
BLOCK = 64
"""Clips per block, the unit of storage, resume and sharding."""

REPLAN = "`nsynth-super prepare --replan` makes a new plan and keeps the clips that are still valid"


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Pause garbage collection: scanning a plan's lists costs more than building them."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@dataclass(frozen=True)
class Plan:
    """All clips of a pack, in order.

    Attributes
    ----------
    shaping : dict
        The settings that determine the clips (`Settings.shaping`).
    seed : int
        Seed of the clips' random numbers: from the settings, or an override.
    samples : int
        Samples to decode per clip.
    checkpoint : str
        sha256 of the model's weights.
    embeddings : mapping of str to str
        sha256 of each embedding's values, by `<instrument>_<pitch>`.
    mixes : list of Mix
        In decoding order.
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
        """Return the plan of a pack: every mix of its grid, single instruments first."""
        mixes = Grid.of(settings).mixes
        return cls(
            settings.shaping(), seed, settings.decoded_samples, checkpoint, dict(embeddings), mixes
        )

    def with_decoded_first(self, decoded: Mapping[str, int]) -> Plan:
        """Return the plan with clips that already have codes first, so that they share blocks.

        Parameters
        ----------
        decoded : mapping of str to int
            Samples decoded so far, by clip identity.
        """

        def samples(mix: Mix) -> int:
            return min(decoded.get(self.clip_identity(mix), 0), self.samples)

        return replace(self, mixes=sorted(self.mixes, key=samples, reverse=True))

    @property
    def blocks(self) -> int:
        """Number of blocks; the last one may have fewer clips."""
        return -(-len(self.mixes) // BLOCK)

    def clips_of(self, block: int) -> range:
        """Return the indices of the clips of a block."""
        return range(block * BLOCK, min((block + 1) * BLOCK, len(self.mixes)))

    def clip_identity(self, mix: Mix) -> str:
        """Return a hash of a clip's inputs: equal hashes give equal codes, up to rounding."""
        made_from = [
            f"{weight}*{self.embeddings[str(NoteName(name, mix.pitch))]}"
            for name, weight in _exact_weights(mix.weights)
        ]
        inputs = "\n".join([self.checkpoint, str(self.seed), str(mix.key), *made_from])
        return hashlib.sha256(inputs.encode()).hexdigest()

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
        """Return the hash of a block's clips, which is part of its file name."""
        return self._identities[block]

    @cached_property
    def identity(self) -> str:
        """sha256 of the plan."""
        return _digest(self._as_dict())

    @_without_garbage_collection()
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
        """Write plan.json atomically."""
        content = self._as_dict()
        write_json(path, {**content, "sha256": _digest(content)}, indent=None)

    @classmethod
    @_without_garbage_collection()
    def read(cls, path: Path) -> Plan | None:
        """Read plan.json; return None if it is missing.

        Raises
        ------
        BadInput
            If it is truncated, modified or of another format version.
        Failed
            If it cannot be read.
        """
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            if raw["version"] != VERSION or raw["block"] != BLOCK:
                raise BadInput(Problem(str(path), "has another format version", REPLAN))
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
        """Return a line for each difference of `settings` from the plan's settings."""
        return list(_differences("", dict(self.shaping), settings.shaping()))


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count` of a plan: a contiguous range of blocks.

    Parameters
    ----------
    index : int
        Counted from 0.
    count : int
    """

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse `I/N`, with I from 0 to N - 1.

        Raises
        ------
        ValueError
            If `text` has another form.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or int(match[1]) >= int(match[2]):
            raise ValueError(f"{text!r} is not a shard: use I/N with I from 0 to N-1, such as 0/8")
        return cls(int(match[1]), int(match[2]))

    @property
    def name(self) -> str:
        """Name in file names: `0-of-8`."""
        return f"{self.index}-of-{self.count}"

    def blocks(self, total: int) -> range:
        """Return this shard's blocks out of `total`."""
        return range(total * self.index // self.count, total * (self.index + 1) // self.count)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _mixes(listed: Iterable[tuple[int, list[Any]]], names: Sequence[str]) -> Iterator[Mix]:
    """Yield the mixes of a plan.json; neighbours with equal weights share one tuple."""
    last: list[Any] = []
    weights: tuple[tuple[str, float], ...] = ()
    for pitch, blend in listed:
        if blend != last:
            last, weights = blend, tuple([(names[index], weight) for index, weight in blend])
        yield Mix(pitch, weights)


@lru_cache(maxsize=1024)
def _exact_weights(weights: tuple[tuple[str, float], ...]) -> list[tuple[str, str]]:
    """Return weights as exact text; cached, as every pitch has the same weights."""
    return [(name, repr(weight)) for name, weight in weights]


def _differences(key: str, then: Any, now: Any) -> Iterator[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*then, *now]):
            yield from _differences(f"{key}.{name}".lstrip("."), then.get(name), now.get(name))
    elif then != now:
        if isinstance(then, list) and isinstance(now, list):
            added = [str(item) for item in now if item not in then]
            removed = [str(item) for item in then if item not in now]
            words = [f"{', '.join(added)} added"] * bool(added) + [
                f"{', '.join(removed)} removed"
            ] * bool(removed)
            yield f"{key}: {'; '.join(words) or 'order changed'}"
        else:
            yield f"{key}: was {then}, is {now}"


def require(path: Path, settings: Settings) -> Plan:
    """Read the plan and check that it was made for these settings.

    Raises
    ------
    BadInput
        If there is no plan, or if the settings differ from the plan's; lists each difference.
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
    """Return the weighted sum of embeddings, `[frames, embedding]`, computed in float64."""
    parts = [w * embeddings[str(NoteName(i, mix.pitch))].astype(np.float64) for i, w in mix.weights]
    return np.asarray(np.sum(parts, axis=0), dtype=np.float32)
