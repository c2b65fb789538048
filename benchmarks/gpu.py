"""Check the decoder's correctness on a GPU, and compare its speed with the GPU's limits.

    python benchmarks/gpu.py [--clips 64 4224] [--json] [--out FILE] [--profile 4224]
    python benchmarks/gpu.py --dry-run

First measures each path's divergence from the float32 reference in nats per sample, past the
receptive field, on random weights of the published size, and checks that captured graphs and single
steps sample the same codes. The reference runs on the GPU; its first steps are compared with those
on the CPU. Then measures the throughput in clip-samples per second for several batch sizes, next to
two limits measured on the same GPU: the layers' matrix products alone, of the same shapes and
precision, and the necessary memory traffic at the speed of a copy. `--out` writes the results so
far after each measurement. `--dry-run` needs no GPU: it takes a step on PyTorch's meta device,
which checks the shapes.

Needs only Python, PyTorch with Triton, NumPy and this repository. The run of docs/performance.md
took 90 seconds on an H200, with the kernels already compiled.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nsynth_super.engines.pytorch_device import PRECISIONS
from nsynth_super.wavenet import random
from nsynth_super.wavenet.cuda import GpuDecoder
from nsynth_super.wavenet.decoder import Decoder
from nsynth_super.wavenet.dimensions import CODES, PUBLISHED, TAPS
from nsynth_super.wavenet.divergence import divergences
from nsynth_super.wavenet.rewrites import Rewritten
from nsynth_super.wavenet.stepping import DRAWN
from nsynth_super.wavenet.triton_kernels import TritonDecoder, unavailable_reason

CLIPS = (1, 64, 75, 256, 512, 1024, 1232, 2048, 4224, 8064)
PROOF_CLIPS = 64
PROOF_STEPS = PUBLISHED.receptive_field + 100
CPU_STEPS = 64
DRY_CLIPS = 4224
ROUNDS = 3


def paths(device: torch.device) -> list[type[GpuDecoder]]:
    """Return the paths that run on this device; print why one does not."""
    reason = unavailable_reason(device)
    if reason is None:
        return [GpuDecoder, TritonDecoder]
    log(f"without Triton: {reason}")
    return [GpuDecoder]


@torch.inference_mode()
def reference_error(weights: dict[str, Tensor], device: torch.device) -> float:
    """Return the largest difference between the reference's logits on the GPU and on the CPU."""
    on_gpu = {name: w.to(device) for name, w in weights.items()}
    references = [Decoder(each, PUBLISHED, PROOF_CLIPS) for each in (weights, on_gpu)]
    generator = torch.Generator().manual_seed(0)
    frame = torch.randn(PROOF_CLIPS, PUBLISHED.embedding, generator=generator)
    largest = 0.0
    for _ in range(CPU_STEPS):
        codes = torch.randint(CODES, (PROOF_CLIPS,), generator=generator)
        ours, theirs = (
            reference.step(codes.to(to), frame.to(to)).cpu()
            for reference, to in zip(references, ("cpu", device), strict=True)
        )
        largest = max(largest, float((ours - theirs).abs().max()))
    return largest


def distances(
    weights: dict[str, Tensor],
    rewritten: Rewritten,
    made: Sequence[type[GpuDecoder]],
    steps: int,
) -> dict[str, float]:
    """Return each path's divergence from the reference, which runs on the same GPU."""
    device = rewritten.start.device
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(PROOF_CLIPS, 5, PUBLISHED.embedding, generator=generator)
    decoders = [path(rewritten, PROOF_CLIPS) for path in made]
    on_gpu = {name: w.to(device) for name, w in weights.items()}
    nats = divergences(on_gpu, PUBLISHED, decoders, frames.to(device), steps)
    return {path.name: nat for path, nat in zip(made, nats, strict=True)}


@torch.inference_mode()
def differing_codes(rewritten: Rewritten, path: type[GpuDecoder]) -> int:
    """Return the number of codes in which a path's captured graph and single steps differ."""
    decoder = path(rewritten, PROOF_CLIPS)
    runs = 4
    uniform = torch.rand(runs, path.steps, PROOF_CLIPS, generator=torch.Generator().manual_seed(1))
    forced = torch.full(uniform.shape, DRAWN)
    found = []
    for steps in (path.steps, path.steps // 2):  # half as many run without the graph
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
    """Return a path's throughput, with its codes fetched as the engine fetches them."""
    uniform = torch.full((decoder.steps, decoder.clips), 0.5)
    forced = torch.full(uniform.shape, DRAWN)
    decoder.reset()
    rates = []
    for _ in range(ROUNDS + 1):
        queued: deque[Callable[[], Any]] = deque()
        begin, runs = time.perf_counter(), 0
        while time.perf_counter() < begin + seconds / ROUNDS:
            queued.append(decoder.run(uniform, forced))
            runs += 1
            if len(queued) > 2:
                queued.popleft()()
        while queued:
            queued.popleft()()
        rates.append(runs * decoder.steps * decoder.clips / (time.perf_counter() - begin))
    return statistics.median(rates[1:])  # the first includes allocation and compilation


@torch.inference_mode()
def products_seconds(rewritten: Rewritten, clips: int, seconds: float) -> float:
    """Return the duration of one step's products alone, captured as a graph, in seconds."""
    d, side = PUBLISHED, rewritten.columns.columns
    device, dtype = rewritten.start.device, rewritten.dtype
    row = torch.randn(clips, TAPS * d.width + side, device=device).to(dtype)
    z = torch.randn(clips, d.width, device=device).to(dtype)
    both = [
        (
            torch.randn(row.shape[1], 2 * d.width, device=device).to(dtype),
            torch.randn(d.width, d.width + d.skip_width, device=device).to(dtype),
        )
        for _ in range(d.layers - 1)  # the first layer's are negligible
    ]

    def step() -> None:
        for gate, out in both:
            row @ gate
            z @ out

    return graph_seconds(step, device, seconds)


def copied_bytes_a_second(device: torch.device, seconds: float) -> float:
    """Return the memory bandwidth of a copy (read plus written), in bytes per second."""
    source = torch.zeros(2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    duration = graph_seconds(lambda: target.copy_(source), device, seconds)
    return 2 * source.nbytes / duration


def graph_seconds(step: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """Return the duration of a step captured as a CUDA graph, in seconds."""
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
    """Return the necessary traffic of a step: all weights, two reads and a write per layer."""
    d = PUBLISHED
    a_layer = TAPS * d.width * 2 * d.width + d.width * (d.width + d.skip_width)
    return (d.layers - 1) * (a_layer + clips * TAPS * d.width) * dtype.itemsize


def compare(
    rewritten: Rewritten, made: Sequence[type[GpuDecoder]], clips: int, bandwidth: float, s: float
) -> dict[str, Any]:
    """Measure the paths and the limits for a batch of `clips` clips."""
    row: dict[str, Any] = {}
    for path in made:
        torch.cuda.empty_cache()
        try:
            row[path.name] = round(clip_samples_a_second(path(rewritten, clips), s))
        except torch.OutOfMemoryError:
            row[path.name] = None
            log(f"{clips} clips at once are too many for {path.name}")
    torch.cuda.empty_cache()
    products = clips / products_seconds(rewritten, clips, s / 4)
    memory = clips * bandwidth / bytes_of_a_step(clips, rewritten.dtype)
    row["products alone"], row["memory alone"] = round(products), round(memory)
    for path in made:
        reached = row[path.name]
        row[f"µs a step, {path.name}"] = reached and round(1e6 * clips / reached)
        row[f"share of {path.name}"] = reached and round(reached / min(products, memory), 3)
    return row


@torch.inference_mode()
def profile(decoder: GpuDecoder) -> str:
    """Return a table of a path's kernels and their times in one call of `run`."""
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
    """Run the requested measurements."""
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
    found["reference error"] = reference_error(weights, device)
    log(f"the reference on GPU and CPU differs by {found['reference error']:.2g} at most")
    found["nat a sample"] = distances(weights, rewritten, made, args.steps)
    log(f"nats per sample over {args.steps} steps: {found['nat a sample']}")
    found["recorded differ"] = {path.name: differing_codes(rewritten, path) for path in made}
    log(f"codes that differ between graphs and single steps: {found['recorded differ']}")
    bandwidth = copied_bytes_a_second(device, 1)
    found["copied GB a second"] = round(bandwidth / 1e9)
    found["clips"] = {}
    for clips in args.clips:
        row = compare(rewritten, made, clips, bandwidth, args.seconds)
        found["clips"][clips] = row
        log(f"{clips} clips: {row}")
        save(found, args.out)
    if args.profile:
        found["profiles"] = [profile(path(rewritten, args.profile)) for path in made]
        save(found, args.out)
    return found


def save(found: dict[str, Any], to: Path | None) -> None:
    """Write the results so far, if a file is given."""
    if to:
        to.write_text(json.dumps(found, indent=1))


def dry_run() -> None:
    """Take a step of the published model on the meta device; check and print the shapes."""
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


def log(line: str) -> None:
    """Print a progress line on stderr."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, nargs="+", default=CLIPS)
    parser.add_argument("--precision", default="fp16", choices=PRECISIONS)
    parser.add_argument("--steps", type=int, default=PROOF_STEPS, help="steps to verify")
    parser.add_argument("--seconds", type=float, default=6.0, help="duration of each measurement")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random weights")
    parser.add_argument("--profile", type=int, metavar="CLIPS", help="profile this batch size")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the results to a file")
    parser.add_argument("--json", action="store_true", help="print a JSON object")
    parser.add_argument("--dry-run", action="store_true", help="only check shapes; needs no GPU")
    args = parser.parse_args()
    if args.dry_run:
        dry_run()
        return
    if not torch.cuda.is_available():
        log(f"PyTorch {torch.__version__} finds no GPU -> --dry-run checks the shapes")
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
