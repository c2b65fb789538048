"""The PyTorch engine: chooses the fastest correct decoder path and runs batches on it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nsynth_super.base import allocation
from nsynth_super.base.errors import Failed
from nsynth_super.base.text import say
from nsynth_super.engines import pytorch_device
from nsynth_super.engines.base import Batch, OutOfMemoryError, Piece
from nsynth_super.settings import NOTE_SAMPLES
from nsynth_super.wavenet import mulaw
from nsynth_super.wavenet.checkpoint import Checkpoint
from nsynth_super.wavenet.cpu import CpuDecoder
from nsynth_super.wavenet.cuda import GpuDecoder
from nsynth_super.wavenet.dimensions import HOP, TAPS, Dimensions
from nsynth_super.wavenet.divergence import TOLERATED, divergences
from nsynth_super.wavenet.encoder import encode
from nsynth_super.wavenet.linear import Linear
from nsynth_super.wavenet.rewrites import Rewritten
from nsynth_super.wavenet.sampling import uniforms
from nsynth_super.wavenet.stepping import DRAWN, Stepper
from nsynth_super.wavenet.triton_kernels import TritonDecoder, unavailable_reason

CHUNK_SECONDS = 0.25
"""Interval at which an engine yields, so that it reacts quickly to a request to stop."""

_UNIFORM_TIMES = 1024  # times per call of `uniforms`: little memory, few calls
_CPU_CLIPS = 256  # largest batch: more clips are no faster, and their state exceeds the cache
_GPU_CLIPS = 8192  # largest batch: more clips are hardly faster, and a stop costs more
_SHARE_OF_CPU, _SHARE_OF_GPU = 0.5, 0.9  # of the usable host memory, of the free GPU memory
_VERIFY_CLIPS, _VERIFY_STEPS = 8, 64  # to verify a path with
_COMPARE_CLIPS = 512  # largest batch to compare the speed of two paths with


class TorchEngine:
    """The PyTorch engine.

    Parameters
    ----------
    checkpoint : Checkpoint
        The weights.
    threads : int or None
        CPU threads; None is one per available core, or a single one for a small model.
    device : {"auto", "cpu", "cuda", "mps"}
    precision : {"auto", "fp32", "bf16", "fp16"}
        See `pytorch_device.choose`.

    Raises
    ------
    BadInput
        If the device is not available.
    """

    name = "torch"
    resumes = True

    def __init__(
        self,
        checkpoint: Checkpoint,
        threads: int | None = None,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        width = checkpoint.dimensions.width
        if threads is None:
            threads = 1 if width < pytorch_device.WORTH_SHARING else allocation.processors()
        torch.set_num_threads(threads)
        # Accumulate 16-bit products in 32 bits, also when a GPU splits the inner dimension.
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        self.hardware = pytorch_device.choose(device, precision, width)
        self._checkpoint = checkpoint
        self._weights = {name: torch.from_numpy(w) for name, w in checkpoint.weights.items()}
        self._rewritten: Rewritten | None = None
        self._path: type[CpuDecoder] | type[GpuDecoder] | None = None
        self._decoder: Stepper | None = None

    @property
    def checkpoint_sha256(self) -> str:
        """Digest of the weights' names and values."""
        return self._checkpoint.sha256

    @property
    def dimensions(self) -> Dimensions:
        """The model's sizes."""
        return self._checkpoint.dimensions

    @property
    def shares_cores(self) -> bool:
        """Whether it benefits from several single-core processes: if it computes on the CPU."""
        return self.hardware.device.type == "cpu"

    def describe(self) -> str:
        """Return the engine, its versions and its device on one line."""
        threads = torch.get_num_threads()
        how = f", {threads} thread{'s' * (threads > 1)}" if self.shares_cores else ""
        return f"torch {torch.__version__}, {self.hardware}{how}"

    def encode(self, notes: NDArray[np.float32]) -> Generator[NDArray[np.float32], None, None]:
        """Yield the embedding of each note, `[1, frames, embedding]`, of `[notes, samples]`.

        Always in float32: encoding takes little time, and every clip depends on it.
        """
        device = self.hardware.device
        weights = {
            name: w.to(device) for name, w in self._weights.items() if name.startswith("ae_")
        }
        for note in notes:
            codes = torch.from_numpy(mulaw.encode(note)).to(device)
            with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
                embedding = encode(weights, self.dimensions, codes[None])
            yield np.asarray(embedding.cpu().numpy())

    def batch_clips(self) -> int:
        """Return how many clips to decode at once, given the available memory."""
        on_gpu = self.hardware.device.type == "cuda"
        share = _SHARE_OF_GPU if on_gpu else _SHARE_OF_CPU
        most = _CPU_CLIPS if self.shares_cores else _GPU_CLIPS
        weights = self.memory(0)
        fits = int((self.available_memory() * share - weights) // (self.memory(1) - weights))
        return max(0, min(most, fits))

    def memory(self, clips: int) -> int:
        """Return the memory for decoding `clips` clips at once (weights and state), in bytes."""
        sizes = self.dimensions, self.hardware.dtype
        # On a GPU, an upper bound: the Triton path takes the most memory.
        path = CpuDecoder if self.shares_cores else TritonDecoder
        return path.weight_bytes(*sizes) + clips * path.state_bytes(*sizes)

    def available_memory(self) -> int:
        """Return the memory that decoding may use, in bytes: the GPU's free memory, or the host's.

        On the CPU this does not depend on what is free now, because a resumed run must form the
        same batches.
        """
        if self.hardware.device.type == "cuda":
            return int(torch.cuda.mem_get_info(self.hardware.device)[0])
        return allocation.memory()

    def decode(self, batch: Batch) -> Generator[Piece, None, None]:
        """Yield the codes of `batch`, in pieces of about `CHUNK_SECONDS` of computing time.

        The last `receptive_field` codes determine the decoder's state. To resume, that many codes
        are replayed; the codes that follow are those of an uninterrupted run.

        Raises
        ------
        OutOfMemoryError
            If memory does not suffice for this many clips at once.
        """
        clips, given = batch.begun.shape
        t = max(0, given - self.dimensions.receptive_field)
        inputs = _SamplingInputs(batch)
        queued: deque[tuple[int, Callable[[], NDArray[np.uint8]]]] = deque()
        done = max(t, given)
        out: list[NDArray[np.uint8]] = []
        since = time.monotonic()
        with _allocating(clips):
            decoder = self._stepper(clips)
            decoder.reset(t)
            # On the device at once: a copy for every frame would wait for the queued steps.
            encodings = torch.from_numpy(batch.encodings).to(self.hardware.device)
            if t:
                decoder.code.copy_(torch.from_numpy(batch.begun[:, t - 1].astype(np.int64)))
        frame = -1
        while t < batch.samples or queued:
            if t < batch.samples:
                if t // HOP != frame:
                    frame = t // HOP
                    with torch.inference_mode():
                        decoder.condition(encodings[:, frame])
                steps = min(decoder.steps - t % decoder.steps, batch.samples - t)
                with _allocating(clips), torch.inference_mode():
                    queued.append((t, decoder.run(*inputs.of(t, steps))))
                t += steps
            if len(queued) > decoder.ahead or t == batch.samples:
                start, wait = queued.popleft()
                with _allocating(clips):
                    codes = wait()
                done = max(done, start + len(codes))
                out.append(codes[max(0, given - start) :])
                if time.monotonic() - since > CHUNK_SECONDS:
                    yield Piece(_joined(out, clips), done)
                    out = []
                    since = time.monotonic()
        yield Piece(_joined(out, clips), batch.samples)

    def _stepper(self, clips: int) -> Stepper:
        """Return a decoder for `clips` clips, reusing the previous one if its size matches."""
        if self._decoder is None or self._decoder.clips != clips:
            self._decoder = None  # free its memory first
            path = self._path or self._choose_path(clips)
            self._decoder = path(self._rewritten_weights(), clips)
        return self._decoder

    def _rewritten_weights(self) -> Rewritten:
        if self._rewritten is None:
            rewritten = Rewritten(self._weights, self.dimensions, self.hardware.dtype)
            self._rewritten = rewritten.to(self.hardware.device)
        return self._rewritten

    def _choose_path(self, clips: int) -> type[CpuDecoder] | type[GpuDecoder]:
        """Choose the decoder path: on a GPU, the fastest one that computes correctly there."""
        if self.shares_cores:
            self._path = CpuDecoder
            return CpuDecoder
        paths = {path: self._divergence(path) for path in _gpu_paths(self.hardware.device)}
        correct = [path for path, divergence in paths.items() if divergence <= TOLERATED]
        for path in paths.keys() - set(correct):
            say(f"warning: {path.name} computes wrong results on this GPU ({paths[path]:.2g} nats)")
        if not correct:
            raise Failed(
                f"{self.hardware} computes wrong results -> try --precision fp32, or --device cpu"
            )
        if len(correct) > 1:
            size = min(clips, _COMPARE_CLIPS)
            correct.sort(
                key=lambda path: self._step_seconds(path(self._rewritten_weights(), size), 0.5)
            )
        self._path = correct[0]
        return correct[0]

    def _divergence(self, path: type[GpuDecoder]) -> float:
        """Return a path's divergence from the reference on this device, in nats per sample."""
        encodings = torch.randn(
            _VERIFY_CLIPS, 1, self.dimensions.embedding, generator=torch.Generator().manual_seed(0)
        )
        try:
            decoder = path(self._rewritten_weights(), _VERIFY_CLIPS)
            [divergence] = divergences(
                self._weights, self.dimensions, [decoder], encodings, _VERIFY_STEPS
            )
            return divergence
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # compilers, caches and drivers raise anything
            say(f"warning: {path.name} does not run on this GPU: {str(error).splitlines()[0]}")
            return float("inf")

    def measure(self, clips: int, seconds: float = 2.0) -> float:
        """Return the median duration of one step of `clips` clips, in seconds."""
        with _allocating(clips):
            return self._step_seconds(self._stepper(clips), seconds)

    def _step_seconds(self, decoder: Stepper, seconds: float) -> float:
        uniform = torch.full((decoder.steps, decoder.clips), 0.5)
        forced = torch.full(uniform.shape, DRAWN)
        durations: list[float] = []
        end = time.monotonic() + seconds
        with torch.inference_mode():
            decoder.reset()
            decoder.condition(torch.zeros(decoder.clips, self.dimensions.embedding))
            while len(durations) < 5 or (time.monotonic() < end and len(durations) < 500):
                begin = time.perf_counter()
                decoder.run(uniform, forced)()
                durations.append((time.perf_counter() - begin) / decoder.steps)
        return float(np.median(durations[1:]))  # the first includes allocation and compilation

    def measure_encoder(self) -> float:
        """Return the duration of encoding one note, in seconds, extrapolated from an eighth."""
        eighth = np.zeros((1, NOTE_SAMPLES // 8 // HOP * HOP), dtype=np.float32)
        next(self.encode(eighth))  # warm up: allocation and compilation
        begin = time.perf_counter()
        next(self.encode(eighth))
        return (time.perf_counter() - begin) * NOTE_SAMPLES / eighth.shape[1]

    def measure_products(self, clips: int, seconds: float = 2.0) -> float:
        """Return the median duration of one step's matrix products alone, in seconds.

        In every layer these are the dilated convolution, `[clips, 3 width] x [3 width, 2 width]`,
        and its outputs, `[clips, width] x [width, width + skip width]`, in the engine's precision.
        No rewrite and no kernel can avoid them, so they are a roofline for the step.
        """
        d, dtype, device = self.dimensions, self.hardware.dtype, self.hardware.device
        shapes = [(TAPS * d.width, 2 * d.width), (d.width, d.width + d.skip_width)]
        products: list[Callable[[], Tensor]] = []
        for rows, columns in shapes * d.layers:
            x = torch.randn(clips, rows).to(device, dtype)
            w = torch.randn(rows, columns).to(device, dtype)
            products.append(_product(x, Linear(w, rows=clips) if self.shares_cores else w))
        durations: list[float] = []
        end = time.monotonic() + seconds
        with torch.inference_mode():
            while len(durations) < 5 or (time.monotonic() < end and len(durations) < 500):
                begin = time.perf_counter()
                for product in products:
                    product()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                durations.append(time.perf_counter() - begin)
        return float(np.median(durations[1:]))


def _product(x: Tensor, w: Linear | Tensor) -> Callable[[], Tensor]:
    return (lambda: x @ w) if isinstance(w, Tensor) else (lambda: w(x))


def _gpu_paths(device: torch.device) -> list[type[GpuDecoder]]:
    """Return the decoder paths to try on a GPU."""
    return [GpuDecoder] if unavailable_reason(device) else [GpuDecoder, TritonDecoder]


@contextmanager
def _allocating(clips: int) -> Iterator[None]:
    """Convert allocation failures to `OutOfMemoryError`."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemoryError(f"{clips} clips at once are too many") from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "out of memory" in str(error):
            raise OutOfMemoryError(f"{clips} clips at once are too many") from error
        raise


class _SamplingInputs:
    """The random numbers and forced codes of a batch, prepared for many times at once."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._times = range(0)
        self._uniform = self._forced = torch.empty(0)

    def of(self, time: int, steps: int) -> tuple[Tensor, Tensor]:
        """Return the uniforms and forced codes of some steps, `[steps, clips]` each."""
        if time not in self._times:
            batch, begin = self._batch, time // _UNIFORM_TIMES * _UNIFORM_TIMES
            self._times = range(begin, min(begin + _UNIFORM_TIMES, batch.samples))
            uniform = uniforms(batch.seed, batch.keys, begin, len(self._times))
            self._uniform = torch.from_numpy(np.ascontiguousarray(uniform.T))
            forced = np.full(uniform.shape, DRAWN)
            given = batch.begun[:, begin : self._times.stop]
            forced[:, : given.shape[1]] = given
            self._forced = torch.from_numpy(np.ascontiguousarray(forced.T))
        rows = slice(time - self._times.start, time - self._times.start + steps)
        return self._uniform[rows], self._forced[rows]


def _joined(codes: Sequence[NDArray[np.uint8]], clips: int) -> NDArray[np.uint8]:
    """Return the codes of consecutive steps, `[times, clips]` each, as `[clips, times]`."""
    if not codes:
        return np.empty((clips, 0), dtype=np.uint8)
    return np.ascontiguousarray(np.concatenate(codes).T)
