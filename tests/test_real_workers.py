"""Workers that decode, started by the command line as the image starts it, and what befalls them.

The GPUs are fake: numbers in CUDA_VISIBLE_DEVICES, while the engine computes on the CPU.
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

from nsynth_super import machine, workers
from nsynth_super.cli import cli, making
from nsynth_super.plan import BLOCK, Plan, Shard
from nsynth_super.workspace import Workspace
from tests.faults.processes import Command, contents, copied, done, made, prepared, temporaries

FOUR_BLOCKS = {"resolution": 10}
"""200 clips: three blocks and a short one, so that of three workers one has two."""


@pytest.fixture(scope="module")
def plan(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A pack of four blocks that is planned."""
    pack = prepared(tmp_path_factory.mktemp("plan") / "pack", small_checkpoint, **FOUR_BLOCKS)
    assert Plan.read(pack.plan).blocks == 4
    return pack


@pytest.fixture(scope="module")
def alone(plan: Workspace, small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What `generate` without workers, and `pads`, make of it."""
    pack = copied(plan, tmp_path_factory.mktemp("alone") / "pack")
    done(Command(*generating(pack), checkpoint=small_checkpoint).wait())
    done(Command("pads", "-w", pack.root, checkpoint=small_checkpoint).wait())
    return made(pack)


@pytest.fixture
def pack(plan: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The same pack with nothing made, on a machine of three fake GPUs."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    return copied(plan, tmp_path / "pack")


def generating(pack: Workspace, *words: str) -> list[object]:
    return ["generate", "-w", pack.root, "--batch-clips", BLOCK, *words]


Start = Callable[[Workspace], Command]


@pytest.fixture
def start(small_checkpoint: Path) -> Start:
    """Return a function that starts `generate` as the image does, on one thread each."""
    words = ("--shard", "auto", "--workers", "auto")
    return lambda pack: Command(*generating(pack, *words), checkpoint=small_checkpoint)


def pads_are(alone: Any, pack: Workspace, checkpoint: Path) -> None:
    done(Command("pads", "-w", pack.root, checkpoint=checkpoint).wait())
    assert made(pack) == alone
    assert temporaries(pack) == []


def status(pack: Workspace, number: int) -> dict[str, Any]:
    """Return what one of three workers says of itself; nothing before it does."""
    try:
        return dict(json.loads(pack.status("generate", f"{number}-of-3").read_text("utf-8")))
    except OSError:
        return {}


def decoding(pack: Workspace) -> bool:
    """Tell whether all three are in the middle of it."""
    return all(status(pack, number).get("state") == "running" for number in range(3))


def test_three_workers_make_the_same_bytes_as_one_process(
    start: Start, pack: Workspace, alone: Any, small_checkpoint: Path
) -> None:
    ended = done(start(pack).wait())
    assert "3 workers: shard 0/3 on GPU 0; shard 1/3 on GPU 1; shard 2/3 on GPU 2\n" in ended.said
    told = [status(pack, number) for number in range(3)]
    assert [report["cuda_visible_devices"] for report in told] == ["0", "1", "2"]
    assert [(report["done"], report["state"]) for report in told] == [
        (64, "done"),
        (64, "done"),
        (72, "done"),
    ]
    together = json.loads(pack.status("generate").read_text())
    assert (together["done"], together["total"], together["state"]) == (200, 200, "done")
    pads_are(alone, pack, small_checkpoint)


def test_a_worker_that_is_killed_fails_the_whole_and_a_rerun_completes_it(
    start: Start, pack: Workspace, alone: Any, small_checkpoint: Path
) -> None:
    run = start(pack)
    assert run.until(lambda: status(pack, 1).get("state") == "running")
    os.kill(status(pack, 1)["pid"], signal.SIGKILL)
    ended = run.wait()
    assert ended.code == 1, ended.said
    assert ended.errors == [
        "error: shard 1/3 on GPU 1 was killed by SIGKILL; run it again to go on"
    ]
    # The others went on to their end.
    kept = contents(pack.clips)
    assert sorted(name[:5] for name in kept) == ["00000", "00002", "00003"]
    done(start(pack).wait())
    assert kept.items() <= contents(pack.clips).items()
    pads_are(alone, pack, small_checkpoint)


def test_workers_that_are_stopped_go_on_however_the_work_is_shared_out_then(
    start: Start,
    pack: Workspace,
    alone: Any,
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
    # An array of two tasks; the node of one has two GPUs, that of the other has none.
    for task, gpus in enumerate(("0,1", "")):
        said = {"JOB_ID": task + 7, "ARRAY_TASK_ID": task, "ARRAY_TASK_MAX": 1}
        said |= {"ARRAY_TASK_MIN": 0, "ARRAY_TASK_COUNT": 2, "ARRAY_TASK_STEP": 1}
        for name, value in said.items():
            monkeypatch.setenv(f"SLURM_{name}", str(value))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        assert len(list(pack.clips.glob("*.part.npy"))) == [3, 1][task]
        done(start(pack).wait())
    pads_are(alone, pack, small_checkpoint)


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGUSR1, signal.SIGURG])
def test_workers_that_are_stopped_while_they_load_the_engine_have_work_left(
    which: signal.Signals, start: Start, pack: Workspace
) -> None:
    def workers_there() -> bool:
        try:
            parent = json.loads(pack.status("generate").read_text())["pid"]
        except OSError:
            return False
        return len(psutil.Process(parent).children()) == 3

    run = start(pack)
    assert run.until(workers_there)
    run.send(which)
    ended = run.wait()
    assert ended.code == 75, ended.said
    assert ended.errors == []
    assert "stopped: 3 of 3 workers have work left" in ended.said
    assert not pack.clips.exists()


@pytest.fixture
def signals_as_before() -> Iterator[None]:
    """The command line changes what signals mean, and leaves it so."""
    before = [(which, signal.getsignal(which)) for which in workers.FORWARDED]
    yield
    for which, handler in before:
        signal.signal(which, handler)


@pytest.mark.usefixtures("signals_as_before")
def test_every_option_of_generate_reaches_its_workers(
    pack: Workspace, small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(workers, "generate", lambda *given: seen.extend(given))
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
    options = {option.opts[-1]: str(option.name) for option in making.generate.params}
    assert options.keys() == given.keys()  # a new option is to be thought of here
    words = [str(word) for pair in given.items() for word in pair]
    cli.main(["-v", "generate", *words], standalone_mode=False)
    _, _, shard, team, command, _ = seen
    assert shard == Shard(1, 2)
    assert command[:5] == [sys.executable, "-m", "nsynth_super", "-q", "-v"]
    assert command[5] == "generate"
    asked = making.generate.make_context("generate", words).params
    told = making.generate.make_context("generate", [*command[6:], *team[1].arguments()]).params
    assert told == {**asked, "shard": Shard(4, 6), "workers": 1}


@pytest.mark.skipif(machine.processors() < 2, reason="needs two cores")
@pytest.mark.parametrize("words", [("generate",), ("run",)])
def test_without_a_gpu_the_cores_share_the_work_and_make_the_same_bytes(
    words: tuple[str, ...],
    plan: Workspace,
    alone: Any,
    small_checkpoint: Path,
    tmp_path: Path,
) -> None:
    """Little work in uneven shares would be left to threads: here they are of no use."""
    pack = copied(plan, tmp_path / "pack")
    code = (
        "from nsynth_super import workers; workers.WORTH_STARTING = workers.THREADS_GAIN = 0\n"
        "from nsynth_super import machine; machine.processors = lambda: 2\n"
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
    assert "generate: faster than threads: 2 workers (torch " in ran.stderr
    assert "generate: 2 workers: shard 0/2; shard 1/2\n" in ran.stderr
    pads_are(alone, pack, small_checkpoint)
