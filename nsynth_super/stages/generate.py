"""The `generate` stage: decode the clips of the plan.

Complete blocks are written atomically. For an unfinished block, the codes sampled so far are saved.
They determine the decoder's state, so a run that was stopped, killed or requeued resumes from them
and produces the same bytes as an uninterrupted one. An engine that cannot resume neither saves nor
loads unfinished blocks.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nsynth_super.base.errors import BadInput, Problem
from nsynth_super.base.files import only_one, sweep, write_array
from nsynth_super.base.note_name import NoteName
from nsynth_super.base.text import say
from nsynth_super.base.workspace import Workspace
from nsynth_super.engines.base import Batch, Engine, OutOfMemoryError
from nsynth_super.pack.blocks import begun, complete
from nsynth_super.pack.embeddings import embedding_hash, load_embedding
from nsynth_super.pack.plan import BLOCK, REPLAN, Plan, Shard, encoding, require
from nsynth_super.runtime.progress import Progress, following
from nsynth_super.runtime.signals import Stop
from nsynth_super.settings import Settings
from nsynth_super.stages.batches import blocks_at_once, equal_batches, halved

SAVE_EVERY = 60.0
"""Seconds between saves: the most work that a kill can lose."""


@dataclass(frozen=True)
class GenerateResult:
    """Result of the `generate` stage.

    Attributes
    ----------
    clips : int
        Complete clips of the shard.
    made : int
        Clips among them that this run decoded.
    """

    clips: int
    made: int


def run_generate(
    workspace: Workspace,
    settings: Settings,
    engine: Engine,
    shard: Shard | None = None,
    batch_clips: int | None = None,
    quiet: bool = False,
) -> GenerateResult:
    """Decode the missing clips of a shard.

    Parameters
    ----------
    workspace : Workspace
    settings : Settings
        Must equal the plan's.
    engine : Engine
    shard : Shard, optional
        By default the entire plan.
    batch_clips : int, optional
        Clips to decode at once, rounded down to full blocks; by default as many as memory allows.
    quiet : bool

    Raises
    ------
    BadInput
        If plan, embeddings, settings and checkpoint do not match.
    Stopped
        If a signal requests it; the decoded samples are saved.
    Failed
        If another run decodes the same blocks, or the disk is full.
    """
    shard = shard or Shard()
    plan = require(workspace.plan, settings)
    embeddings = _embeddings(workspace, plan, engine)
    blocks = shard.blocks(plan.blocks)
    clips = sum(len(plan.clips_of(block)) for block in blocks)
    with _locked(workspace, shard, plan.blocks), Stop() as stop:
        missing = {block for block in blocks if complete(workspace, plan, block) is None}
        _sweep(workspace, plan, shard, missing)
        made = sum(len(plan.clips_of(block)) for block in missing)
        if not missing:
            return GenerateResult(clips, 0)
        batches = [
            batch
            for batch in equal_batches(blocks, blocks_at_once(engine, batch_clips))
            if not missing.isdisjoint(batch)
        ]
        partly_done = sum(begun(workspace, plan, b).size for b in missing) / plan.samples
        progress = Progress(
            "generate",
            clips,
            "clips",
            workspace.status("generate", shard.name),
            clips - made + (partly_done if engine.resumes else 0),
            shard.name,
            quiet,
        )
        if not quiet:
            at_once = min(clips, max(map(len, batches)) * BLOCK)
            say(f"generate: {made} clips to go, {at_once} at once ({engine.describe()})")
        with following(progress):
            while batches:
                batch = _Decoding(workspace, plan, batches[0], missing, embeddings, engine)
                try:
                    batch.decode(progress, stop)
                except OutOfMemoryError as error:
                    batches = halved(batches, missing, error)
                else:
                    del batches[0]
    return GenerateResult(clips, made)


@contextmanager
def _locked(workspace: Workspace, shard: Shard, blocks: int) -> Iterator[None]:
    """Lock a shard; fail if a run with another number of shards works on one of its blocks."""

    def busy(name: str) -> str:
        return (
            f"{workspace.root}: another `generate` is running on shard {name.replace('-of-', '/')}"
        )

    with only_one(workspace.lock("generate", shard.name), busy(shard.name)):
        for lock in workspace.status_folder.glob(workspace.lock("generate", "*").name):
            match = re.search(r"\.((\d+)-of-(\d+))\.", lock.name)
            if match and match[1] != shard.name:
                other = Shard(int(match[2]), int(match[3])).blocks(blocks)
                if not set(other).isdisjoint(shard.blocks(blocks)):
                    with only_one(lock, busy(match[1])):
                        pass
        yield


def _embeddings(
    workspace: Workspace, plan: Plan, engine: Engine
) -> Mapping[str, NDArray[np.float32]]:
    if plan.checkpoint != engine.checkpoint_sha256:
        raise BadInput(
            Problem(
                "checkpoint",
                f"differs from the plan's ({engine.checkpoint_sha256[:12]}, "
                f"expected {plan.checkpoint[:12]}): every clip would change",
                f"name the plan's checkpoint with --checkpoint, or {REPLAN}",
            )
        )
    embeddings, problems = {}, []
    for name, expected in plan.embeddings.items():
        note = NoteName.parse(name)
        try:
            embeddings[name] = load_embedding(workspace, note, engine.dimensions.embedding)
        except BadInput as bad:
            problems += bad.problems
            continue
        if embedding_hash(embeddings[name]) != expected:
            problems.append(
                Problem(
                    str(workspace.embedding(note)),
                    "changed since the plan was made",
                    REPLAN,
                )
            )
    if problems:
        raise BadInput(problems)
    return embeddings


def _sweep(workspace: Workspace, plan: Plan, shard: Shard, missing: set[int]) -> None:
    """Remove temporary files of killed runs and saved codes of blocks that are now complete."""
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


class _Decoding:
    """The decoding of one batch of blocks.

    The batch includes blocks that are already complete, so that its size, and with it the rounding,
    does not depend on where an earlier run stopped.
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
        stored = [self._stored(block) for block in blocks]
        self.time = min(codes.shape[1] for codes in stored)
        self.codes = np.zeros((len(mixes), plan.samples), dtype=np.uint8)
        self.codes[:, : self.time] = np.concatenate([codes[:, : self.time] for codes in stored])
        self.saved = self.time
        self.batch = Batch(
            encodings=np.stack([encoding(mix, embeddings) for mix in mixes]),
            keys=[mix.key for mix in mixes],
            seed=plan.seed,
            samples=plan.samples,
            begun=self.codes[:, : self.time].copy(),
        )

    def _stored(self, block: int) -> NDArray[np.uint8]:
        codes = None if block in self.missing else complete(self.workspace, self.plan, block)
        if codes is not None:
            return codes
        codes = begun(self.workspace, self.plan, block)
        return codes if self.engine.resumes else codes[:, :0]

    def decode(self, progress: Progress, stop: Stop) -> None:
        """Decode and write the batch; save the codes and raise `Stopped` if a stop is requested."""
        last_save = time.monotonic()
        clips = sum(len(self.plan.clips_of(block)) for block in self.missing)
        reported = self.time
        with self._saved_on_failure(), closing(self.engine.decode(self.batch)) as pieces:
            for piece in pieces:
                self._take(piece.codes)
                progress.advance(clips * (piece.time - reported) / self.plan.samples)
                reported = piece.time
                if self.time == self.plan.samples:
                    break
                if self.engine.resumes:
                    stop.here(self._save)
                    if time.monotonic() - last_save > SAVE_EVERY:
                        self._save()
                        last_save = time.monotonic()
                else:
                    stop.here(partial(self._discard, reported, progress))
        if self.time != self.plan.samples:
            raise RuntimeError(f"the engine stopped at sample {self.time:,}")
        self._finish()
        stop.here(lambda: "the current batch is complete on disk; run it again to resume")

    @contextmanager
    def _saved_on_failure(self) -> Iterator[None]:
        """Save the codes if memory runs out, so that a smaller batch resumes from them."""
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
        """Save the codes sampled so far; return a message."""
        if self.time > self.saved:
            for block in self.missing:
                # An earlier, smaller batch may have saved more samples.
                if begun(self.workspace, self.plan, block).shape[1] < self.time:
                    path = self.workspace.partial(block, self.plan.block_identity(block))
                    write_array(path, self._rows(block)[:, : self.time])
            self.saved = self.time
        return (
            f"{self.time:,} of {self.plan.samples:,} samples of {len(self.codes)} clips "
            "are saved; run it again to resume"
        )

    def _discard(self, samples: int, progress: Progress) -> str:
        """Subtract the lost samples from the progress; return a message."""
        clips = sum(len(self.plan.clips_of(block)) for block in self.missing)
        progress.advance(-clips * samples / self.plan.samples)
        return (
            f"{self.engine.name} cannot resume inside a block: {samples:,} of "
            f"{self.plan.samples:,} samples of {clips} clips are lost, complete blocks are saved; "
            "run it again to resume"
        )

    def _finish(self) -> None:
        for block in self.missing:
            identity = self.plan.block_identity(block)
            write_array(self.workspace.block(block, identity), self._rows(block))
            with suppress(OSError):
                self.workspace.partial(block, identity).unlink(missing_ok=True)
