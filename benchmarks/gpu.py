"""Our decoder on a GPU: whether it is right there, and how near to what the card could do.

    python benchmarks/gpu.py [--clips 64 4224] [--json] [--profile 4224]
    python benchmarks/gpu.py --dry-run

First each path's distance from the float32 definition, in nat a sample, past the receptive field,
on random weights of the published size; and whether its recorded steps draw what its single steps
do. Then, for numbers of clips, clip-samples a second beside two ceilings measured on the same card:
the layers' matrix products alone, of the same shapes and precision, and the memory that a step must
read and write at the speed of a copy. `--dry-run` needs no GPU: it takes a step without numbers,
which proves the shapes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nsynth_super.hardware import PRECISIONS
from nsynth_super.wavenet import random
from nsynth_super.wavenet.cuda import GpuDecoder
from nsynth_super.wavenet.dimensions import CODES, PUBLISHED, TAPS
from nsynth_super.wavenet.divergence import divergences
from nsynth_super.wavenet.rewrites import Rewritten
from nsynth_super.wavenet.stepping import DRAWN
from nsynth_super.wavenet.triton_kernels import TritonDecoder, missing

CLIPS = (1, 64, 512, 2048, 4224, 8064)
PROOF_CLIPS = 8
PROOF_STEPS = PUBLISHED.receptive_field + 100
DRY_CLIPS = 4224
ROUNDS = 3


def paths(device: torch.device) -> list[type[GpuDecoder]]:
    """Return the paths that run here; say why one does not."""
    why = missing(device)
    if why is None:
        return [GpuDecoder, TritonDecoder]
    say(f"without Triton: {why}")
    return [GpuDecoder]


def distances(
    weights: dict[str, Tensor],
    rewritten: Rewritten,
    made: Sequence[type[GpuDecoder]],
    steps: int,
) -> dict[str, float]:
    """Return each path's distance from the definition, which is computed on the CPU."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(PROOF_CLIPS, 5, PUBLISHED.embedding, generator=generator)
    decoders = [path(rewritten, PROOF_CLIPS) for path in made]
    nats = divergences(weights, PUBLISHED, decoders, frames, steps)
    return {path.name: nat for path, nat in zip(made, nats, strict=True)}


@torch.inference_mode()
def recorded_and_single_differ(rewritten: Rewritten, path: type[GpuDecoder]) -> int:
    """Return how many of some codes a path's recorded steps draw otherwise than single ones."""
    decoder = path(rewritten, PROOF_CLIPS)
    runs = 4
    uniform = torch.rand(runs, path.steps, PROOF_CLIPS, generator=torch.Generator().manual_seed(1))
    forced = torch.full(uniform.shape, DRAWN)
    found = []
    for steps in (path.steps, path.steps // 2):  # half as many are not recorded
        decoder.reset()
        decoder.condition(torch.ones(PROOF_CLIPS, PUBLISHED.embedding))
        pieces = zip(
            uniform.view(-1, steps, PROOF_CLIPS), forced.view(-1, steps, PROOF_CLIPS), strict=True
        )
        codes = [torch.from_numpy(decoder.run(*piece)().copy()) for piece in pieces]
        found.append(torch.cat(codes))
    return int((found[0] != found[1]).sum())


@torch.inference_mode()
def clip_samples_a_second(decoder: GpuDecoder, seconds: float) -> float:
    """Return what a path does when its codes are fetched as an engine fetches them."""
    uniform = torch.full((decoder.steps, decoder.clips), 0.5)
    forced = torch.full(uniform.shape, DRAWN)
    decoder.reset()
    rates = []
    for _ in range(ROUNDS + 1):
        under_way: deque[Callable[[], Any]] = deque()
        begin, runs = time.perf_counter(), 0
        while time.perf_counter() < begin + seconds / ROUNDS:
            under_way.append(decoder.run(uniform, forced))
            runs += 1
            if len(under_way) > 2:
                under_way.popleft()()
        while under_way:
            under_way.popleft()()
        rates.append(runs * decoder.steps * decoder.clips / (time.perf_counter() - begin))
    return statistics.median(rates[1:])  # the first pays for memory and kernels


@torch.inference_mode()
def products_seconds(rewritten: Rewritten, clips: int, seconds: float) -> float:
    """Return the seconds that the products of one step take by themselves, recorded likewise."""
    d, side = PUBLISHED, rewritten.columns.columns
    device, dtype = rewritten.start.device, rewritten.dtype
    row = torch.randn(clips, TAPS * d.width + side, device=device).to(dtype)
    z = torch.randn(clips, d.width, device=device).to(dtype)
    both = [
        (
            torch.randn(row.shape[1], 2 * d.width, device=device).to(dtype),
            torch.randn(d.width, d.width + d.skip_width, device=device).to(dtype),
        )
        for _ in range(d.layers - 1)  # the first layer's are next to nothing
    ]

    def step() -> None:
        for gate, out in both:
            row @ gate
            z @ out

    return recorded_seconds(step, device, seconds)


def copied_bytes_a_second(device: torch.device, seconds: float) -> float:
    """Return the bytes that a copy reads and writes in a second."""
    source = torch.zeros(2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    took = recorded_seconds(lambda: target.copy_(source), device, seconds)
    return 2 * source.nbytes / took


def recorded_seconds(step: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """Return the seconds that something takes when it is recorded and launched as one."""
    for _ in range(3):
        step()
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    graph.replay()
    torch.cuda.synchronize(device)
    begin, times = time.perf_counter(), 0
    while time.perf_counter() < begin + seconds:
        for _ in range(10):
            graph.replay()
        torch.cuda.synchronize(device)
        times += 10
    return (time.perf_counter() - begin) / times


def bytes_of_a_step(clips: int, dtype: torch.dtype) -> int:
    """Return what a step must read and write: all weights once; of a layer's past, two and one."""
    d = PUBLISHED
    a_layer = TAPS * d.width * 2 * d.width + d.width * (d.width + d.skip_width)
    return (d.layers - 1) * (a_layer + clips * TAPS * d.width) * dtype.itemsize


def compare(
    rewritten: Rewritten, made: Sequence[type[GpuDecoder]], clips: int, bandwidth: float, s: float
) -> dict[str, Any]:
    """Measure the paths and the ceilings for so many clips."""
    row: dict[str, Any] = {}
    for path in made:
        torch.cuda.empty_cache()
        try:
            row[path.name] = round(clip_samples_a_second(path(rewritten, clips), s))
        except torch.OutOfMemoryError:
            row[path.name] = None
            say(f"{clips} clips at once are too many for {path.name}")
    torch.cuda.empty_cache()
    products = clips / products_seconds(rewritten, clips, s / 4)
    memory = clips * bandwidth / bytes_of_a_step(clips, rewritten.dtype)
    row["products alone"], row["memory alone"] = round(products), round(memory)
    for path in made:
        reached = row[path.name]
        row[f"share of {path.name}"] = reached and round(reached / min(products, memory), 3)
    return row


@torch.inference_mode()
def profile(decoder: GpuDecoder) -> str:
    """Return what takes a path's time, kernel by kernel, in the steps of one run."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    uniform = torch.full((decoder.steps, decoder.clips), 0.5)
    forced = torch.full(uniform.shape, DRAWN)
    decoder.reset()
    decoder.run(uniform, forced)()
    with profiled(activities=[ProfilerActivity.CUDA]) as found:
        decoder.run(uniform, forced)()
    table = found.key_averages().table(sort_by="self_device_time_total", row_limit=20)
    return f"{decoder.name}, {decoder.clips} clips, {decoder.steps} steps\n{table}"


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measure all that is asked for."""
    device = torch.device("cuda")
    properties = torch.cuda.get_device_properties(device)
    found: dict[str, Any] = {
        "gpu": f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB",
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda}",
        "precision": args.precision,
    }
    made = paths(device)
    weights = {
        name: torch.from_numpy(array)
        for name, array in random.weights(PUBLISHED, args.seed).items()
    }
    rewritten = Rewritten(weights, PUBLISHED, PRECISIONS[args.precision]).to(device)
    found["nat a sample"] = distances(weights, rewritten, made, args.steps)
    say(f"nat a sample over {args.steps} steps: {found['nat a sample']}")
    found["recorded differ"] = {
        path.name: recorded_and_single_differ(rewritten, path) for path in made
    }
    say(f"codes that recorded steps draw otherwise: {found['recorded differ']}")
    bandwidth = copied_bytes_a_second(device, 1)
    found["copied GB a second"] = round(bandwidth / 1e9)
    found["clips"] = {}
    for clips in args.clips:
        row = compare(rewritten, made, clips, bandwidth, args.seconds)
        found["clips"][clips] = row
        say(f"{clips} clips: {row}")
    if args.profile:
        found["profiles"] = [profile(path(rewritten, args.profile)) for path in made]
    return found


def dry_run() -> None:
    """Take a step of the published model without numbers; say what came out."""
    with torch.device("meta"):
        weights = {name: torch.empty(shape) for name, shape in PUBLISHED.shapes().items()}
        decoder = GpuDecoder(Rewritten(weights, PUBLISHED, torch.float16), DRY_CLIPS)
        decoder.condition(torch.empty(DRY_CLIPS, PUBLISHED.embedding))
        logits = decoder.step(decoder.code)
        uniform = torch.empty(2, DRY_CLIPS)
        codes = decoder.take(uniform, torch.empty(uniform.shape, dtype=torch.int64))
    assert logits.shape == (DRY_CLIPS, CODES), logits.shape
    assert codes.shape == uniform.shape, codes.shape
    rate = bytes_of_a_step(DRY_CLIPS, torch.float16) / 1e9
    print(f"{DRY_CLIPS} clips: logits {list(logits.shape)}, codes {list(codes.shape)}")
    print(f"{DRY_CLIPS} clips: a step reads and writes at least {rate:.2f} GB")


def say(line: str) -> None:
    """Tell how far it is."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, nargs="+", default=CLIPS)
    parser.add_argument("--precision", default="fp16", choices=PRECISIONS)
    parser.add_argument("--steps", type=int, default=PROOF_STEPS, help="of the proof")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    parser.add_argument("--profile", type=int, metavar="CLIPS", help="print where time goes")
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.add_argument("--dry-run", action="store_true", help="only check shapes; needs no GPU")
    args = parser.parse_args()
    if args.dry_run:
        dry_run()
        return
    if not torch.cuda.is_available():
        say(f"no GPU: PyTorch {torch.__version__} finds none here -> --dry-run checks the shapes")
        sys.exit(2)
    found = measure(args)
    if args.json:
        print(json.dumps(found, indent=1))
        return
    rows = found.pop("clips")
    profiles = found.pop("profiles", [])
    for name, value in found.items():
        print(f"{name}\t{value}")
    for clips, row in rows.items():
        print(clips, *(f"{name} {value}" for name, value in row.items()), sep="\t")
    print(*profiles, sep="\n")


if __name__ == "__main__":
    main()
