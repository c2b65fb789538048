"""Tests of real worker processes, started by the command line as in the container image.

The GPUs are fake: CUDA_VISIBLE_DEVICES names them, but the engine computes on the CPU.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from nsynth_super.base import allocation
from nsynth_super.base.workspace import Workspace
from nsynth_super.cli import cli, pipeline
from nsynth_super.pack.plan import BLOCK, Plan, Shard
from nsynth_super.runtime import workers
from tests.faults.processes import Command, contents, copied, done, made, prepared, temporaries

pytestmark = pytest.mark.process

FOUR_BLOCKS = {"resolution": 10}
"""200 clips: three full blocks and a short one, so that one of three workers gets two."""


@pytest.fixture(scope="module")
def plan(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace with a plan of four blocks."""
    pack = prepared(tmp_path_factory.mktemp("plan") / "pack", small_checkpoint, **FOUR_BLOCKS)
    assert Plan.read(pack.plan).blocks == 4
    return pack


@pytest.fixture(scope="module")
def expected(
    plan: Workspace, small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """Return the files that `generate` without workers and `pads` write."""
    pack = copied(plan, tmp_path_factory.mktemp("expected") / "pack")
    done(Command(*generate_words(pack), checkpoint=small_checkpoint).wait())
    done(Command("pads", "-w", pack.root, checkpoint=small_checkpoint).wait())
    return made(pack)


@pytest.fixture
def pack(plan: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Return a copy of the planned workspace, on a machine with three fake GPUs."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    return copied(plan, tmp_path / "pack")


def generate_words(pack: Workspace, *words: str) -> list[object]:
    return ["generate", "-w", pack.root, "--batch-clips", BLOCK, *words]


Start = Callable[[Workspace], Command]


@pytest.fixture
def start(small_checkpoint: Path) -> Start:
    """Return a function that starts `generate` as the image does, with one thread per worker."""
    words = ("--shard", "auto", "--workers", "auto")
    return lambda pack: Command(*generate_words(pack, *words), checkpoint=small_checkpoint)


def assert_pads_equal(expected: Any, pack: Workspace, checkpoint: Path) -> None:
    done(Command("pads", "-w", pack.root, checkpoint=checkpoint).wait())
    assert made(pack) == expected
    assert temporaries(pack) == []


def status(pack: Workspace, number: int) -> dict[str, Any]:
    """Return the status of one of three workers; an empty dict before its first report."""
    try:
        return dict(json.loads(pack.status("generate", f"{number}-of-3").read_text("utf-8")))
    except OSError:
        return {}


def decoding(pack: Workspace) -> bool:
    """Return whether all three workers are decoding."""
    return all(status(pack, number).get("state") == "running" for number in range(3))


@pytest.mark.slow
def test_three_workers_write_the_same_bytes_as_one_process(
    start: Start, pack: Workspace, expected: Any, small_checkpoint: Path
) -> None:
    ended = done(start(pack).wait())
    assert "3 workers: shard 0/3 on GPU 0; shard 1/3 on GPU 1; shard 2/3 on GPU 2\n" in ended.said
    reports = [status(pack, number) for number in range(3)]
    assert [report["cuda_visible_devices"] for report in reports] == ["0", "1", "2"]
    assert [(report["done"], report["state"]) for report in reports] == [
        (64, "done"),
        (64, "done"),
        (72, "done"),
    ]
    together = json.loads(pack.status("generate").read_text())
    assert (together["done"], together["total"], together["state"]) == (200, 200, "done")
    assert_pads_equal(expected, pack, small_checkpoint)


@pytest.mark.slow
def test_a_killed_worker_fails_the_run_and_a_rerun_completes_it(
    start: Start, pack: Workspace, expected: Any, small_checkpoint: Path
) -> None:
    run = start(pack)
    assert run.until(lambda: status(pack, 1).get("state") == "running")
    os.kill(status(pack, 1)["pid"], signal.SIGKILL)
    ended = run.wait()
    assert ended.code == 1, ended.said
    assert ended.errors == [
        "error: shard 1/3 on GPU 1 was killed by SIGKILL; run it again to resume"
    ]
    # The other workers finished.
    kept = contents(pack.clips)
    assert sorted(name[:5] for name in kept) == ["00000", "00002", "00003"]
    done(start(pack).wait())
    assert kept.items() <= contents(pack.clips).items()
    assert_pads_equal(expected, pack, small_checkpoint)


@pytest.mark.slow
def test_stopped_work_resumes_with_any_number_of_workers(
    start: Start,
    pack: Workspace,
    expected: Any,
    small_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = start(pack)
    assert run.until(lambda: decoding(pack))
    time.sleep(0.5)
    run.send(signal.SIGTERM)
    ended = run.wait()
    assert ended.code == 75, ended.said
    assert "stopped: 3 of 3 workers have work left" in ended.said
    assert ended.errors == []
    begun = [np.load(path).shape[1] for path in pack.clips.glob("*.part.npy")]
    assert len(begun) == 3
    assert min(begun) > 0
    # An array of two tasks, on nodes with two GPUs and with none.
    for task, gpus in enumerate(("0,1", "")):
        slurm = {"JOB_ID": task + 7, "ARRAY_TASK_ID": task, "ARRAY_TASK_MAX": 1}
        slurm |= {"ARRAY_TASK_MIN": 0, "ARRAY_TASK_COUNT": 2, "ARRAY_TASK_STEP": 1}
        for name, value in slurm.items():
            monkeypatch.setenv(f"SLURM_{name}", str(value))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        assert len(list(pack.clips.glob("*.part.npy"))) == [3, 1][task]
        done(start(pack).wait())
    assert_pads_equal(expected, pack, small_checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGUSR1, signal.SIGURG])
def test_workers_stopped_while_loading_the_engine_have_work_left(
    which: signal.Signals, start: Start, pack: Workspace
) -> None:
    def workers_started() -> bool:
        try:
            parent = json.loads(pack.status("generate").read_text())["pid"]
        except OSError:
            return False
        return len(psutil.Process(parent).children()) == 3

    run = start(pack)
    assert run.until(workers_started)
    run.send(which)
    ended = run.wait()
    assert ended.code == 75, ended.said
    assert ended.errors == []
    assert "stopped: 3 of 3 workers have work left" in ended.said
    assert not pack.clips.exists()


@pytest.fixture
def signals_as_before() -> Iterator[None]:
    """Restore the signal handlers, which the command line changes permanently."""
    before = [(which, signal.getsignal(which)) for which in workers.FORWARDED]
    yield
    for which, handler in before:
        signal.signal(which, handler)


@pytest.mark.usefixtures("signals_as_before")
def test_every_option_of_generate_is_passed_to_the_workers(
    pack: Workspace, small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(workers, "run_workers", lambda *given: seen.extend(given))
    given: dict[str, object] = {
        "--workspace": pack.root,
        "--engine": "torch",
        "--magenta": "python2.7",
        "--device": "cpu",
        "--precision": "bf16",
        "--checkpoint": small_checkpoint,
        "--threads": 5,
        "--batch-clips": 128,
        "--shard": "1/2",
        "--workers": 3,
    }
    options = {option.opts[-1]: str(option.name) for option in pipeline.generate.params}
    assert options.keys() == given.keys()  # fails if an option is missing above
    words = [str(word) for pair in given.items() for word in pair]
    cli.main(["-v", "generate", *words], standalone_mode=False)
    _, _, shard, team, command, _ = seen
    assert shard == Shard(1, 2)
    assert command[:5] == [sys.executable, "-m", "nsynth_super", "-q", "-v"]
    assert command[5] == "generate"
    requested = pipeline.generate.make_context("generate", words).params
    received = pipeline.generate.make_context(
        "generate", [*command[6:], *team[1].arguments()]
    ).params
    assert received == {**requested, "shard": Shard(4, 6), "workers": 1}


@pytest.mark.slow
@pytest.mark.skipif(allocation.processors() < 2, reason="needs two cores")
@pytest.mark.parametrize("words", [("generate",), ("run",)])
def test_cpu_workers_write_the_same_bytes_as_one_process(
    words: tuple[str, ...],
    plan: Workspace,
    expected: Any,
    small_checkpoint: Path,
    tmp_path: Path,
) -> None:
    """The patched constants make threads useless; otherwise so little work would use them."""
    pack = copied(plan, tmp_path / "pack")
    code = (
        "from nsynth_super.runtime import worker_plan\n"
        "worker_plan.WORTH_STARTING = worker_plan.THREADS_GAIN = 0\n"
        "from nsynth_super.base import allocation; allocation.processors = lambda: 2\n"
        "from nsynth_super.cli import main; main()"
    )
    options = ["-w", pack.root, "--device", "cpu", "--batch-clips", BLOCK]
    ran = subprocess.run(
        [sys.executable, "-c", code, *map(str, [*words, *options])],
        env={**os.environ, "NSYNTH_CHECKPOINT": str(small_checkpoint)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert "generate: using 2 workers, the fastest (torch " in ran.stderr
    assert "generate: 2 workers: shard 0/2; shard 1/2\n" in ran.stderr
    assert_pads_equal(expected, pack, small_checkpoint)
