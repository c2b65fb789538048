"""Our own engine, on PyTorch: the path for this machine, and the clips' way through it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nsynth_super import hardware, machine
from nsynth_super.engines import OutOfMemoryError, Piece, Work
from nsynth_super.problems import Failed
from nsynth_super.progress import say
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
from nsynth_super.wavenet.triton_kernels import TritonDecoder, missing

CHUNK_SECONDS = 0.25
"""An engine yields about this often, so that whoever asks it to stop need not wait."""

_AT_ONCE = 1024  # times whose uniforms are made together; costs little memory, saves many calls
_CPU_CLIPS = 256  # at once: more are no faster, and their state no longer fits a cache
_GPU_CLIPS = 8192  # at once: more are hardly faster, and a stop costs more
_SHARE_OF_CPU, _SHARE_OF_GPU = 0.5, 0.9  # of the memory that may be used, or is free
_PROOF_CLIPS, _PROOF_STEPS = 8, 64
_RACE_CLIPS = 512  # at which two paths are compared


class TorchEngine:
    """Our own engine, on PyTorch.

    Parameters
    ----------
    checkpoint : Checkpoint
        The weights.
    threads : int or None
        Of the CPU; None is one for each core that this process may use, or one for a small model.
    device : {"auto", "cpu", "cuda", "mps"}
    precision : {"auto", "fp32", "bf16", "fp16"}
        See `hardware.choose`.

    Raises
    ------
    BadInput
        If the device is not there.
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
            threads = 1 if width < hardware.WORTH_SHARING else machine.processors()
        torch.set_num_threads(threads)
        # Sums of 16-bit products are taken in 32 bits, also where a GPU's are shared out.
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        self.hardware = hardware.choose(device, precision, width)
        self._checkpoint = checkpoint
        self._weights = {name: torch.from_numpy(w) for name, w in checkpoint.weights.items()}
        self._rewritten: Rewritten | None = None
        self._path: type[CpuDecoder] | type[GpuDecoder] | None = None
        self._decoder: Stepper | None = None

    @property
    def checkpoint_sha256(self) -> str:
        """Of the weights' names and numbers."""
        return self._checkpoint.sha256

    @property
    def dimensions(self) -> Dimensions:
        """The model's sizes."""
        return self._checkpoint.dimensions

    @property
    def shares_cores(self) -> bool:
        """Whether it computes on the CPU."""
        return self.hardware.device.type == "cpu"

    def describe(self) -> str:
        """Say on one line what computes, where and how."""
        threads = torch.get_num_threads()
        how = f", {threads} thread{'s' * (threads > 1)}" if self.shares_cores else ""
        return f"torch {torch.__version__}, {self.hardware}{how}"

    def encode(self, notes: NDArray[np.float32]) -> Generator[NDArray[np.float32], None, None]:
        """Turn notes, `[notes, samples]`, into embeddings, `[1, frames, embedding]` each.

        In float32 throughout: it is a small part of the work, and every clip depends on it.
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
        """Say how many clips to decode at once, by the memory there is."""
        on_card = self.hardware.device.type == "cuda"  # of its own memory, which nobody else wants
        share = _SHARE_OF_GPU if on_card else _SHARE_OF_CPU
        most = _CPU_CLIPS if self.shares_cores else _GPU_CLIPS
        weights = self.memory(0)
        fits = int((self.room() * share - weights) // (self.memory(1) - weights))
        return max(0, min(most, fits))

    def memory(self, clips: int) -> int:
        """Return the bytes that decoding `clips` clips at once takes: weights and state."""
        sizes = self.dimensions, self.hardware.dtype
        # Of the GPU's paths the one that takes more, whichever will be taken.
        path = CpuDecoder if self.shares_cores else TritonDecoder
        return path.weight_bytes(*sizes) + clips * path.state_bytes(*sizes)

    def room(self) -> int:
        """Return the bytes that it may take: of the GPU what is free, else of the machine.

        On the CPU not of what is free now: a run that goes on must batch alike.
        """
        if self.hardware.device.type == "cuda":
            return int(torch.cuda.mem_get_info(self.hardware.device)[0])
        return machine.memory()

    def decode(self, work: Work) -> Generator[Piece, None, None]:
        """Yield the codes of `work` in pieces of about a quarter of a second's work.

        The state is a function of the last `receptive_field` codes: where codes are given, that
        many are replayed, and what follows is what an uninterrupted run would have drawn.

        Raises
        ------
        OutOfMemoryError
            If these are too many clips at once.
        """
        clips, given = work.begun.shape
        t = max(0, given - self.dimensions.receptive_field)
        draws = _Draws(work)
        encodings = torch.from_numpy(work.encodings)
        under_way: deque[tuple[int, Callable[[], NDArray[np.uint8]]]] = deque()
        done = max(t, given)
        out: list[NDArray[np.uint8]] = []
        since = time.monotonic()
        with _room_for(clips):
            decoder = self._stepper(clips)
            decoder.reset(t)
            if t:
                decoder.code.copy_(torch.from_numpy(work.begun[:, t - 1].astype(np.int64)))
        frame = -1
        while t < work.samples or under_way:
            if t < work.samples:
                if t // HOP != frame:
                    frame = t // HOP
                    with torch.inference_mode():
                        decoder.condition(encodings[:, frame])
                steps = min(decoder.steps - t % decoder.steps, work.samples - t)
                with _room_for(clips), torch.inference_mode():
                    under_way.append((t, decoder.run(*draws.of(t, steps))))
                t += steps
            if len(under_way) > decoder.ahead or t == work.samples:
                began, codes = under_way.popleft()
                with _room_for(clips):
                    drawn = codes()
                done = max(done, began + len(drawn))
                out.append(drawn[max(0, given - began) :])
                if time.monotonic() - since > CHUNK_SECONDS:
                    yield Piece(_stacked(out, clips), done)
                    out = []
                    since = time.monotonic()
        yield Piece(_stacked(out, clips), work.samples)

    def _stepper(self, clips: int) -> Stepper:
        """Return the steps of so many clips; those of the last batch if it was as large."""
        if self._decoder is None or self._decoder.clips != clips:
            self._decoder = None  # its memory is needed
            path = self._path or self._chosen(clips)
            self._decoder = path(self._its_weights(), clips)
        return self._decoder

    def _its_weights(self) -> Rewritten:
        if self._rewritten is None:
            made = Rewritten(self._weights, self.dimensions, self.hardware.dtype)
            self._rewritten = made.to(self.hardware.device)
        return self._rewritten

    def _chosen(self, clips: int) -> type[CpuDecoder] | type[GpuDecoder]:
        """Return the path to take: on a GPU the fastest that is proved there."""
        if self.shares_cores:
            self._path = CpuDecoder
            return CpuDecoder
        paths = {path: self._distance(path) for path in _gpu_paths(self.hardware.device)}
        right = [path for path, distance in paths.items() if distance <= TOLERATED]
        for path in paths.keys() - set(right):
            say(f"warning: {path.name} computes something else here ({paths[path]:.2g} nat)")
        if not right:
            raise Failed(
                f"{self.hardware} does not compute what the model says "
                "-> try --precision fp32, or --device cpu"
            )
        if len(right) > 1:
            some = min(clips, _RACE_CLIPS)
            right.sort(key=lambda path: self._step_seconds(path(self._its_weights(), some), 0.5))
        self._path = right[0]
        return right[0]

    def _distance(self, path: type[GpuDecoder]) -> float:
        """Return how far a path is from the definition on this very device, in nat a sample."""
        encodings = torch.randn(
            _PROOF_CLIPS, 1, self.dimensions.embedding, generator=torch.Generator().manual_seed(0)
        )
        try:
            decoder = path(self._its_weights(), _PROOF_CLIPS)
            [far] = divergences(self._weights, self.dimensions, [decoder], encodings, _PROOF_STEPS)
            return far
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler, a cache, a driver: whatever is amiss with it
            say(f"warning: {path.name} does not run here: {str(error).splitlines()[0]}")
            return float("inf")

    def measure(self, clips: int, seconds: float = 2.0) -> float:
        """Return the seconds that one step of `clips` clips takes here: the median of some."""
        with _room_for(clips):
            return self._step_seconds(self._stepper(clips), seconds)

    def _step_seconds(self, decoder: Stepper, seconds: float) -> float:
        uniform = torch.full((decoder.steps, decoder.clips), 0.5)
        forced = torch.full(uniform.shape, DRAWN)
        took: list[float] = []
        end = time.monotonic() + seconds
        with torch.inference_mode():
            decoder.reset()
            decoder.condition(torch.zeros(decoder.clips, self.dimensions.embedding))
            while len(took) < 5 or (time.monotonic() < end and len(took) < 500):
                begin = time.perf_counter()
                decoder.run(uniform, forced)()
                took.append((time.perf_counter() - begin) / decoder.steps)
        return float(np.median(took[1:]))  # the first pays for memory and kernels

    def measure_encoder(self) -> float:
        """Return the seconds that encoding one note takes here: an eighth of one, times eight."""
        eighth = np.zeros((1, NOTE_SAMPLES // 8 // HOP * HOP), dtype=np.float32)
        next(self.encode(eighth))  # the first pays for memory and kernels
        begin = time.perf_counter()
        next(self.encode(eighth))
        return (time.perf_counter() - begin) * NOTE_SAMPLES / eighth.shape[1]

    def measure_products(self, clips: int, seconds: float = 2.0) -> float:
        """Return the seconds that the matrix products of one step take here, and nothing else.

        As the model has them: three taps, `[clips, 3 width] x [3 width, 2 width]`, and what comes
        of them, `[clips, width] x [width, width + skip width]`, in every layer, in the precision
        that is used. What no rewrite and no kernel can do away with: the roofline.
        """
        d, dtype, device = self.dimensions, self.hardware.dtype, self.hardware.device
        shapes = [(TAPS * d.width, 2 * d.width), (d.width, d.width + d.skip_width)]
        products: list[Callable[[], Tensor]] = []
        for rows, columns in shapes * d.layers:
            x = torch.randn(clips, rows).to(device, dtype)
            w = torch.randn(rows, columns).to(device, dtype)
            products.append(_product(x, Linear(w, rows=clips) if self.shares_cores else w))
        took: list[float] = []
        end = time.monotonic() + seconds
        with torch.inference_mode():
            while len(took) < 5 or (time.monotonic() < end and len(took) < 500):
                begin = time.perf_counter()
                for product in products:
                    product()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                took.append(time.perf_counter() - begin)
        return float(np.median(took[1:]))


def _product(x: Tensor, w: Linear | Tensor) -> Callable[[], Tensor]:
    return (lambda: x @ w) if isinstance(w, Tensor) else (lambda: w(x))


def _gpu_paths(device: torch.device) -> list[type[GpuDecoder]]:
    """Return the paths that can be tried on a GPU."""
    return [GpuDecoder] if missing(device) else [GpuDecoder, TritonDecoder]


@contextmanager
def _room_for(clips: int) -> Iterator[None]:
    """Let memory that is not there be `OutOfMemoryError`."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemoryError(f"{clips} clips at once are too many") from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "out of memory" in str(error):
            raise OutOfMemoryError(f"{clips} clips at once are too many") from error
        raise


class _Draws:
    """What a work's codes are drawn with, or forced to be, made for many times together."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._at = range(0)
        self._uniform = self._forced = torch.empty(0)

    def of(self, time: int, steps: int) -> tuple[Tensor, Tensor]:
        """Return the uniforms and forced codes of some steps, `[steps, clips]` each."""
        if time not in self._at:
            work, begin = self._work, time // _AT_ONCE * _AT_ONCE
            self._at = range(begin, min(begin + _AT_ONCE, work.samples))
            drawn = uniforms(work.seed, work.keys, begin, len(self._at))
            self._uniform = torch.from_numpy(np.ascontiguousarray(drawn.T))
            forced = np.full(drawn.shape, DRAWN)
            given = work.begun[:, begin : self._at.stop]
            forced[:, : given.shape[1]] = given
            self._forced = torch.from_numpy(np.ascontiguousarray(forced.T))
        rows = slice(time - self._at.start, time - self._at.start + steps)
        return self._uniform[rows], self._forced[rows]


def _stacked(codes: Sequence[NDArray[np.uint8]], clips: int) -> NDArray[np.uint8]:
    """Return the codes of all times, `[clips, times]`."""
    if not codes:
        return np.empty((clips, 0), dtype=np.uint8)
    return np.ascontiguousarray(np.concatenate(codes).T)
