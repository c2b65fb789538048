"""generate: plan to clips.

Blocks are written whole. A block under way is kept as the codes drawn so far, which is all that its
decoder's state is made of: a run that was stopped, killed or requeued goes on from there and ends
with the bytes of one that never stopped. An engine that cannot go on keeps nothing of a block under
way, and takes nothing that another engine kept.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nsynth_super.blocks import begun, complete
from nsynth_super.engines import Engine, OutOfMemoryError, Work
from nsynth_super.files import only_one, sweep, write_array
from nsynth_super.plan import BLOCK, REPLAN, Plan, Shard, encoding, require
from nsynth_super.problems import BadInput, Failed, Problem
from nsynth_super.progress import Progress, Stop, following, say
from nsynth_super.settings import Settings
from nsynth_super.stages.prepare import embedding_hash, load_embedding
from nsynth_super.workspace import Workspace

SAVE_EVERY = 60.0
"""Seconds of work that a kill can cost at most."""


@dataclass(frozen=True)
class Generated:
    """What `generate` made or found.

    Attributes
    ----------
    clips : int
        Of this shard, complete.
    made : int
        Of them, by this run.
    """

    clips: int
    made: int


def run(
    workspace: Workspace,
    settings: Settings,
    engine: Engine,
    shard: Shard | None = None,
    batch_clips: int | None = None,
    quiet: bool = False,
) -> Generated:
    """Decode the clips of a shard that are not there yet.

    Parameters
    ----------
    workspace : Workspace
    settings : Settings
        Must be those that the plan was made for.
    engine : Engine
    shard : Shard, optional
        All of the plan by default.
    batch_clips : int, optional
        Clips to decode at once, rounded down to whole blocks; by default what memory allows.
    quiet : bool

    Raises
    ------
    BadInput
        If plan, embeddings, settings and checkpoint do not belong together.
    Stopped
        If a signal asked for it; what was decoded is on disk.
    Failed
        If another run is at these blocks, or the disk is full.
    """
    shard = shard or Shard()
    plan = require(workspace.plan, settings)
    embeddings = _embeddings(workspace, plan, engine)
    blocks = shard.blocks(plan.blocks)
    clips = sum(len(plan.clips_of(block)) for block in blocks)
    with _alone(workspace, shard, plan.blocks), Stop() as stop:
        missing = {block for block in blocks if complete(workspace, plan, block) is None}
        _sweep(workspace, plan, shard, missing)
        made = sum(len(plan.clips_of(block)) for block in missing)
        if not missing:
            return Generated(clips, 0)
        batches = [
            batch
            for batch in equal_batches(blocks, blocks_at_once(engine, batch_clips))
            if not missing.isdisjoint(batch)
        ]
        under_way = sum(begun(workspace, plan, b).size for b in missing) / plan.samples
        progress = Progress(
            "generate",
            clips,
            "clips",
            workspace.status("generate", shard.name),
            clips - made + (under_way if engine.resumes else 0),
            shard.name,
            quiet,
        )
        if not quiet:
            side_by_side = min(clips, max(map(len, batches)) * BLOCK)
            say(f"generate: {made} clips to go, {side_by_side} at once ({engine.describe()})")
        with following(progress):
            while batches:
                batch = _Batch(workspace, plan, batches[0], missing, embeddings, engine)
                try:
                    batch.decode(progress, stop)
                except OutOfMemoryError as error:
                    batches = _halved(batches, missing, error)
                else:
                    del batches[0]
    return Generated(clips, made)


@contextmanager
def _alone(workspace: Workspace, shard: Shard, blocks: int) -> Iterator[None]:
    """Keep out other runs at any of this shard's blocks, however they share the plan out."""

    def busy(name: str) -> str:
        return f"{workspace.root}: another `generate` is at shard {name.replace('-of-', '/')} there"

    with only_one(workspace.lock("generate", shard.name), busy(shard.name)):
        for lock in workspace.status_folder.glob(workspace.lock("generate", "*").name):
            match = re.search(r"\.((\d+)-of-(\d+))\.", lock.name)
            if match and match[1] != shard.name:
                other = Shard(int(match[2]), int(match[3])).blocks(blocks)
                if not set(other).isdisjoint(shard.blocks(blocks)):
                    with only_one(lock, busy(match[1])):
                        pass
        yield


def blocks_at_once(engine: Engine, batch_clips: int | None) -> int:
    """Return how many blocks to decode side by side."""
    return max(1, (batch_clips or engine.batch_clips()) // BLOCK)


def equal_batches(blocks: range, at_once: int) -> list[range]:
    """Share blocks out over as few batches as can be, of equal size but for one block.

    A small last batch would take as long as a large one on hardware that is not filled by it.
    """
    count = -(-len(blocks) // at_once)
    parts = [Shard(number, count).blocks(len(blocks)) for number in range(count)]
    return [blocks[part.start : part.stop] for part in parts]


def _halved(batches: Sequence[range], missing: set[int], error: OutOfMemoryError) -> list[range]:
    """Return batches half as large, after one that the device had no memory for."""
    half = -(-len(batches[0]) // 2)
    if half == len(batches[0]):
        raise Failed(f"{error} -> free some memory: a block is the least") from error
    say(f"generate: {error}: going on with {half * BLOCK}")
    halves = (part for batch in batches for part in equal_batches(batch, half))
    return [batch for batch in halves if not missing.isdisjoint(batch)]


def _embeddings(
    workspace: Workspace, plan: Plan, engine: Engine
) -> Mapping[str, NDArray[np.float32]]:
    if plan.checkpoint != engine.checkpoint_sha256:
        raise BadInput(
            Problem(
                "checkpoint",
                f"is not the one that the plan was made with ({engine.checkpoint_sha256[:12]}, "
                f"the plan says {plan.checkpoint[:12]}): every clip would change",
                f"name that one with --checkpoint, or {REPLAN}",
            )
        )
    embeddings, problems = {}, []
    for name, expected in plan.embeddings.items():
        instrument, _, pitch = name.rpartition("_")
        try:
            embeddings[name] = load_embedding(workspace, (instrument, int(pitch)), engine)
        except BadInput as bad:
            problems += bad.problems
            continue
        if embedding_hash(embeddings[name]) != expected:
            problems.append(
                Problem(
                    str(workspace.embedding(instrument, int(pitch))),
                    "changed since the plan was made",
                    REPLAN,
                )
            )
    if problems:
        raise BadInput(problems)
    return embeddings


def _sweep(workspace: Workspace, plan: Plan, shard: Shard, missing: set[int]) -> None:
    """Remove what a killed run of this shard left half-written, or begun and then completed."""
    blocks = shard.blocks(plan.blocks)
    stale = [workspace.partial(b, plan.block_identity(b)) for b in blocks if b not in missing]
    for temporary in workspace.clips.glob(".*.part"):
        index = temporary.name[1:].partition("-")[0]
        if index.isdigit() and int(index) in blocks:
            stale.append(temporary)
    for file in stale:
        with suppress(OSError):
            file.unlink(missing_ok=True)
    sweep(workspace.status_folder, workspace.status("generate", shard.name).name)


class _Batch:
    """The blocks that are decoded side by side, those of them that are there already as well.

    So the batch is the same however often a run is stopped, and with it the rounding of its sums.
    """

    def __init__(
        self,
        workspace: Workspace,
        plan: Plan,
        blocks: range,
        missing: set[int],
        embeddings: Mapping[str, NDArray[np.float32]],
        engine: Engine,
    ) -> None:
        self.workspace, self.plan, self.blocks, self.engine = workspace, plan, blocks, engine
        self.missing = [block for block in blocks if block in missing]
        mixes = [plan.mixes[clip] for block in blocks for clip in plan.clips_of(block)]
        drawn = [self._drawn(block) for block in blocks]
        self.time = min(codes.shape[1] for codes in drawn)
        self.codes = np.zeros((len(mixes), plan.samples), dtype=np.uint8)
        self.codes[:, : self.time] = np.concatenate([codes[:, : self.time] for codes in drawn])
        self.saved = self.time
        self.work = Work(
            encodings=np.stack([encoding(mix, embeddings) for mix in mixes]),
            keys=[mix.key for mix in mixes],
            seed=plan.seed,
            samples=plan.samples,
            begun=self.codes[:, : self.time].copy(),
        )

    def _drawn(self, block: int) -> NDArray[np.uint8]:
        codes = None if block in self.missing else complete(self.workspace, self.plan, block)
        if codes is not None:
            return codes
        drawn = begun(self.workspace, self.plan, block)
        return drawn if self.engine.resumes else drawn[:, :0]

    def decode(self, progress: Progress, stop: Stop) -> None:
        """Decode to the end, or to the point where a stop is asked for."""
        last_save = time.monotonic()
        clips = sum(len(self.plan.clips_of(block)) for block in self.missing)
        told = self.time
        with self._kept(), closing(self.engine.decode(self.work)) as pieces:
            for piece in pieces:
                self._take(piece.codes)
                progress.advance(clips * (piece.time - told) / self.plan.samples)
                told = piece.time
                if self.time == self.plan.samples:
                    break
                if self.engine.resumes:
                    stop.here(self._save)
                    if time.monotonic() - last_save > SAVE_EVERY:
                        self._save()
                        last_save = time.monotonic()
                else:
                    stop.here(partial(self._give_up, told, progress))
        if self.time != self.plan.samples:
            raise RuntimeError(f"the engine ended at sample {self.time:,}")
        self._finish()
        stop.here(lambda: "every clip begun is complete on disk; run it again to go on")

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Keep what was drawn when memory runs out: a smaller batch goes on from there."""
        try:
            yield
        except OutOfMemoryError:
            if self.engine.resumes:
                self._save()
            raise

    def _take(self, codes: NDArray[np.uint8]) -> None:
        self.codes[:, self.time : self.time + codes.shape[1]] = codes
        self.time += codes.shape[1]

    def _rows(self, block: int) -> NDArray[np.uint8]:
        first = self.blocks.start * BLOCK
        clips = self.plan.clips_of(block)
        return self.codes[clips.start - first : clips.stop - first]

    def _save(self) -> str:
        """Keep the codes drawn so far; say so."""
        if self.time > self.saved:
            for block in self.missing:
                # In a smaller batch it may have been further.
                if begun(self.workspace, self.plan, block).shape[1] < self.time:
                    path = self.workspace.partial(block, self.plan.block_identity(block))
                    write_array(path, self._rows(block)[:, : self.time])
            self.saved = self.time
        return (
            f"{self.time:,} of {self.plan.samples:,} samples of {len(self.codes)} clips "
            "are safe on disk; run it again to go on"
        )

    def _give_up(self, drawn: int, progress: Progress) -> str:
        """Count what is lost as not done; say so."""
        clips = sum(len(self.plan.clips_of(block)) for block in self.missing)
        progress.advance(-clips * drawn / self.plan.samples)
        begins = "block under way begins" if len(self.missing) == 1 else "blocks under way begin"
        return (
            f"{self.engine.name} cannot go on inside a block: the {begins} anew "
            f"({drawn:,} of {self.plan.samples:,} samples of {clips} clips are lost), "
            "blocks that were complete are safe; run it again to go on"
        )

    def _finish(self) -> None:
        for block in self.missing:
            identity = self.plan.block_identity(block)
            write_array(self.workspace.block(block, identity), self._rows(block))
            with suppress(OSError):
                self.workspace.partial(block, identity).unlink(missing_ok=True)
