"""Our decoder on the CPU beside Magenta's, and beside what the matrix products alone would allow.

    python benchmarks/cpu.py [--precision fp32] [--json] [--svg FILE]

All three are measured in turn, in several rounds of one run, on the same weights: Magenta 1.1.7 on
TensorFlow 1.15 ($NSYNTH_MAGENTA, or what tests/oracle/setup made; without it that column is left
out), our engine as `generate` would run it, and the roofline: the same processes, doing nothing but
the products of the same shapes in the same precision. `clips` is what one process decodes at once;
at the largest there are as many processes as cores. A figure is the median of the rounds.
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

from nsynth_super import machine
from nsynth_super.engines import open_engine
from nsynth_super.magenta_checkpoint import save as save_for_magenta
from nsynth_super.python27 import SCRIPTS, Python27
from nsynth_super.torch_engine import TorchEngine
from nsynth_super.wavenet import checkpoint, random
from nsynth_super.wavenet.dimensions import PUBLISHED

CLIPS = (1, 64, 256)
ORACLE = Path(__file__).parents[1] / ".oracle" / "patched" / "bin" / "python"


class Child:
    """A process that has an engine open, and measures when it is told to.

    Parameters
    ----------
    weights : Path
    precision : str
    clips, threads : int
    cores : set of int
        To be bound to; none is everywhere.
    """

    def __init__(
        self, weights: Path, precision: str, clips: int, threads: int, cores: set[int]
    ) -> None:
        words = ["--child", weights, precision, clips, threads]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if cores:
            os.sched_setaffinity(self._process.pid, cores)

    def tell(self, what: str) -> None:
        """Let it begin: `ours` or `roofline`, or `end`."""
        assert self._process.stdin is not None
        print(what, file=self._process.stdin, flush=True)

    def answer(self) -> Any:
        """Wait for what it has to say."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        """Let it go."""
        self.tell("end")
        self._process.wait()


def child(weights: str, precision: str, clips: str, threads: str, seconds: float) -> None:
    """Be such a process."""
    engine = open_engine(Path(weights), int(threads), device="cpu", precision=precision)
    assert isinstance(engine, TorchEngine)
    engine.measure(int(clips), 0.1)
    engine.measure_products(int(clips), 0.1)
    print(json.dumps({"precision": engine.hardware.precision}), flush=True)
    for what in iter(sys.stdin.readline, "end\n"):
        measure = engine.measure if what == "ours\n" else engine.measure_products
        print(json.dumps(measure(int(clips), seconds)), flush=True)


@contextmanager
def team(weights: Path, precision: str, clips: int) -> Iterator[list[Child]]:
    """Give the processes that decode `clips` clips each: one for each core at the largest."""
    cores = machine.processors()
    count = cores if clips == max(CLIPS) else 1
    ours = sorted(os.sched_getaffinity(0))
    each = cores // count
    children = [
        Child(weights, precision, clips, each, set(ours[n * each : (n + 1) * each]))
        for n in range(count)
    ]
    try:
        yield children
    finally:
        for one in children:
            one.end()


def rate(children: list[Child], what: str, clips: int) -> float:
    """Return what they do together, in clip-samples a second."""
    for one in children:
        one.tell(what)
    return sum(clips / one.answer() for one in children)


def magenta(python: Python27, prefix: Path, clips: int, seconds: float) -> float:
    """Return what Magenta does, in clip-samples a second, on all cores."""
    words = [SCRIPTS / "measure.py", "steps", clips, seconds, "--weights", prefix]
    with tempfile.TemporaryDirectory() as folder:
        said = [line for line in python.run(words, Path(folder)) if line.startswith("{")]
    return float(clips / json.loads(said[-1])["seconds"])


def compare(
    sizes: list[int], precision: str, rounds: int, seconds: float
) -> dict[int, dict[str, Any]]:
    """Measure all; return the table by clips."""
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        weights = folder / "weights.safetensors"
        checkpoint.save(random.weights(PUBLISHED, 0), weights, "random")
        python, prefix = oracle(), Path()
        if python is not None:
            prefix = finished(save_for_magenta(checkpoint.load(weights), python, folder, None))
        for clips in sizes:
            columns: dict[str, list[float]] = {"ours": [], "roofline": [], "magenta": []}
            with team(weights, precision, clips) as children:
                chosen = [one.answer()["precision"] for one in children]
                for _ in range(rounds):
                    for what in ("ours", "roofline"):
                        columns[what].append(rate(children, what, clips))
                    if python is not None:
                        columns["magenta"].append(magenta(python, prefix, clips, seconds))
            row: dict[str, Any] = {
                what: round(statistics.median(values), 1) if values else None
                for what, values in columns.items()
            }
            row["vs_magenta"] = row["magenta"] and round(row["ours"] / row["magenta"], 2)
            row["share_of_roofline"] = round(row["ours"] / row["roofline"], 3)
            row["precision"], row["processes"] = chosen[0], len(chosen)
            found[clips] = row
            say(f"{clips} clips a process: {row}")
    return found


def oracle() -> Python27 | None:
    """Return the Python 2.7 that has Magenta, if there is one."""
    named = os.environ.get("NSYNTH_MAGENTA")
    if not named and not ORACLE.exists():
        return None
    return Python27.found(Path(named) if named else ORACLE, None, "cpu", quiet=True)


def finished(generator: Any) -> Any:
    """Run a generator to its end; return what it returns."""
    try:
        while True:
            next(generator)
    except StopIteration as end:
        return end.value


def say(line: str) -> None:
    """Tell how far it is."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"])
    parser.add_argument("--clips", type=int, nargs="+", default=list(CLIPS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--json", action="store_true", help="print one object, by clips")
    parser.add_argument("--svg", type=Path, help="draw the table into a file")
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
