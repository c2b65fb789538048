"""Compare the PyTorch engine on the CPU with Magenta and with its matrix products alone.

    python benchmarks/cpu.py [--precision fp32] [--json] [--svg FILE]

Three columns are measured alternately in several rounds on the same weights, and the medians are
reported: Magenta 1.1.7 on TensorFlow 1.15 ($NSYNTH_MAGENTA, or the one that tests/oracle/setup
installs; omitted without it), the PyTorch engine with the settings of `generate`, and the roofline:
the same processes computing only products of the same shapes and precision. `clips` is the batch of
one process. The largest batch runs in one process per core.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nsynth_super.base import allocation
from nsynth_super.engines.magenta_checkpoint import save as save_for_magenta
from nsynth_super.engines.opening import open_engine
from nsynth_super.engines.python27 import SCRIPTS, Python27
from nsynth_super.engines.pytorch import TorchEngine
from nsynth_super.wavenet import checkpoint, random
from nsynth_super.wavenet.dimensions import PUBLISHED

CLIPS = (1, 64, 256)
ORACLE = Path(__file__).parents[1] / ".oracle" / "patched" / "bin" / "python"


class Child:
    """A process with an open engine that measures on request.

    Parameters
    ----------
    weights : Path
        The checkpoint.
    precision : str
        Precision of the engine.
    clips, threads : int
        Batch size and CPU threads.
    cores : set of int
        Cores to bind the process to; all if empty.
    """

    def __init__(
        self, weights: Path, precision: str, clips: int, threads: int, cores: set[int]
    ) -> None:
        arguments = ["--child", weights, precision, clips, threads]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if cores:
            os.sched_setaffinity(self._process.pid, cores)

    def request(self, command: str) -> None:
        """Send a command: `ours` or `roofline` to measure, or `end`."""
        assert self._process.stdin is not None
        print(command, file=self._process.stdin, flush=True)

    def response(self) -> Any:
        """Wait for the next line of output; return it, decoded from JSON."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        """End the process."""
        self.request("end")
        self._process.wait()


def child(weights: str, precision: str, clips: str, threads: str, seconds: float) -> None:
    """Run as a `Child`: read commands from standard input and print the results."""
    engine = open_engine(Path(weights), int(threads), device="cpu", precision=precision)
    assert isinstance(engine, TorchEngine)
    engine.measure(int(clips), 0.1)
    engine.measure_products(int(clips), 0.1)
    print(json.dumps({"precision": engine.hardware.precision}), flush=True)
    for command in iter(sys.stdin.readline, "end\n"):
        measure = engine.measure if command == "ours\n" else engine.measure_products
        print(json.dumps(measure(int(clips), seconds)), flush=True)


@contextmanager
def processes(weights: Path, precision: str, clips: int) -> Iterator[list[Child]]:
    """Yield the processes that decode `clips` clips each: one per core for the largest batch."""
    cores = allocation.processors()
    count = cores if clips == max(CLIPS) else 1
    available = sorted(os.sched_getaffinity(0))
    each = cores // count
    children = [
        Child(weights, precision, clips, each, set(available[n * each : (n + 1) * each]))
        for n in range(count)
    ]
    try:
        yield children
    finally:
        for one in children:
            one.end()


def rate(children: list[Child], command: str, clips: int) -> float:
    """Return the total throughput of the processes, in clip-samples per second."""
    for one in children:
        one.request(command)
    return sum(clips / one.response() for one in children)


def magenta(python: Python27, prefix: Path, clips: int, seconds: float) -> float:
    """Return Magenta's throughput on all cores, in clip-samples per second."""
    arguments = [SCRIPTS / "measure.py", "steps", clips, seconds, "--weights", prefix]
    with tempfile.TemporaryDirectory() as folder:
        lines = [line for line in python.run(arguments, Path(folder)) if line.startswith("{")]
    return float(clips / json.loads(lines[-1])["seconds"])


def compare(
    sizes: list[int], precision: str, rounds: int, seconds: float
) -> dict[int, dict[str, Any]]:
    """Measure all columns; return a row for each batch size."""
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        weights = folder / "weights.safetensors"
        checkpoint.save(random.weights(PUBLISHED, 0), weights, "random")
        python, prefix = oracle(), Path()
        if python is not None:
            prefix = exhaust(save_for_magenta(checkpoint.load(weights), python, folder, None))
        for clips in sizes:
            columns: dict[str, list[float]] = {"ours": [], "roofline": [], "magenta": []}
            with processes(weights, precision, clips) as children:
                precisions = [one.response()["precision"] for one in children]
                for _ in range(rounds):
                    for column in ("ours", "roofline"):
                        columns[column].append(rate(children, column, clips))
                    if python is not None:
                        columns["magenta"].append(magenta(python, prefix, clips, seconds))
            row: dict[str, Any] = {
                column: round(statistics.median(values), 1) if values else None
                for column, values in columns.items()
            }
            row["vs_magenta"] = row["magenta"] and round(row["ours"] / row["magenta"], 2)
            row["share_of_roofline"] = round(row["ours"] / row["roofline"], 3)
            row["precision"], row["processes"] = precisions[0], len(precisions)
            found[clips] = row
            log(f"{clips} clips per process: {row}")
    return found


def oracle() -> Python27 | None:
    """Return the Python 2.7 with Magenta, if there is one."""
    named = os.environ.get("NSYNTH_MAGENTA")
    if not named and not ORACLE.exists():
        return None
    return Python27.found(Path(named) if named else ORACLE, None, "cpu", quiet=True)


def exhaust(generator: Any) -> Any:
    """Run a generator to its end; return its return value."""
    try:
        while True:
            next(generator)
    except StopIteration as end:
        return end.value


def log(line: str) -> None:
    """Print a progress line on stderr."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print and plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"])
    parser.add_argument("--clips", type=int, nargs="+", default=list(CLIPS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of each measurement")
    parser.add_argument("--json", action="store_true", help="print a JSON object, by batch size")
    parser.add_argument("--svg", type=Path, help="write a bar chart to this file")
    args = parser.parse_args()
    if args.child:
        child(*args.child, args.seconds)
        return
    found = compare(args.clips, args.precision, args.rounds, args.seconds)
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        for clips, row in found.items():
            print(clips, *(f"{name} {value}" for name, value in row.items()), sep="\t")
    if args.svg:
        from pictures import bars

        bars(args.svg, found)


if __name__ == "__main__":
    main()
