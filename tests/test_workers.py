"""Tests of worker plans and of supervision: resources, exit codes, signals, progress.

The workers are stubs of a few lines, which lets each test control their behaviour. See
test_real_workers.py for real ones.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nsynth_super.base import allocation
from nsynth_super.base.allocation import Gpu
from nsynth_super.base.errors import BadInput, Failed, NsynthSuperError, Stopped
from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.grid import Mix
from nsynth_super.pack.plan import BLOCK, Plan, Shard
from nsynth_super.runtime import progress, worker_plan, workers
from nsynth_super.runtime.worker_plan import Worker, on_gpus
from nsynth_super.wavenet.dimensions import PUBLISHED

pytestmark = pytest.mark.process

H100 = "NVIDIA H100 80GB HBM3"


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Return a function that sets the number of fake GPUs and of cores of this process."""

    def give(gpus: int, processors: int) -> None:
        fakes = [Gpu(str(number), H100, (9, 0)) for number in range(gpus)]
        monkeypatch.setattr(allocation, "gpus", lambda: fakes)
        monkeypatch.setattr(allocation, "processors", lambda: processors)

    return give


# Resources with GPUs


def test_without_a_gpu_one_worker_gets_all_cores(given: Callable[[int, int], None]) -> None:
    given(0, 6)
    assert on_gpus(Shard(2, 5)) == [Worker(Shard(2, 5), None, 6, 1)]


def test_each_gpu_gets_a_worker_with_a_share_of_the_cores(
    given: Callable[[int, int], None],
) -> None:
    given(3, 7)
    assert on_gpus(Shard()) == [
        Worker(Shard(number, 3), Gpu(str(number), H100, (9, 0)), 2, 3) for number in range(3)
    ]


def test_workers_divide_the_shard_of_their_task(given: Callable[[int, int], None]) -> None:
    given(4, 4)
    assert [worker.shard for worker in on_gpus(Shard(1, 2))] == [Shard(n, 8) for n in (4, 5, 6, 7)]


def test_the_requested_number_of_workers_shares_the_gpus(
    given: Callable[[int, int], None],
) -> None:
    given(2, 8)
    five = on_gpus(Shard(), 5)
    assert [worker.gpu.name for worker in five if worker.gpu] == ["0", "1", "0", "1", "0"]
    assert {(worker.threads, worker.siblings) for worker in five} == {(1, 5)}
    assert [worker.gpu.name for worker in on_gpus(Shard(), 1) if worker.gpu] == ["0"]


def test_without_a_gpu_the_requested_workers_divide_the_cores(
    given: Callable[[int, int], None],
) -> None:
    given(0, 6)
    assert [(worker.gpu, worker.threads) for worker in on_gpus(Shard(), 3)] == [(None, 2)] * 3


def test_requested_threads_apply_to_each_worker(given: Callable[[int, int], None]) -> None:
    given(3, 8)
    assert [worker.threads for worker in on_gpus(Shard(), threads=5)] == [5, 5, 5]


def test_every_worker_has_at_least_one_thread(given: Callable[[int, int], None]) -> None:
    given(4, 2)
    assert [worker.threads for worker in on_gpus(Shard())] == [1, 1, 1, 1]


def test_a_workers_name_contains_its_shard_and_gpu() -> None:
    assert str(Worker(Shard(1, 3), None, 1, 3)) == "shard 1/3"
    assert str(Worker(Shard(1, 3), Gpu("1"), 1, 3)) == "shard 1/3 on GPU 1"
    assert str(Worker(Shard(1, 3), Gpu("1", H100), 1, 3)) == f"shard 1/3 on GPU 1 {H100}"


# Resources on the CPU


def on_cores(cores: int, clips: int, monkeypatch: pytest.MonkeyPatch, **more: Any) -> list[Worker]:
    monkeypatch.setattr(allocation, "processors", lambda: cores)
    monkeypatch.setattr(allocation, "memory", lambda: more.get("memory", 1 << 50))
    plan = SimpleNamespace(
        blocks=-(-clips // BLOCK),
        samples=more.get("samples", 64_000),
        clips_of=lambda block: range(block * BLOCK, min((block + 1) * BLOCK, clips)),
    )
    memory = lambda at_once: 10**9 + at_once * 10**7  # noqa: E731
    return worker_plan.on_cpu(Shard(1, 2) if "half" in more else Shard(), plan, PUBLISHED, memory)


@pytest.mark.parametrize(
    ("cores", "clips", "count", "threads"),
    [
        (2, 1296, 2, 1),
        (2, 128, 2, 1),
        (2, 64, 1, 2),  # one block
        (2, 81, 1, 2),  # two blocks, one of them short
        (8, 256, 4, 2),
        (8, 118_016, 8, 1),
        (1, 1296, 1, 1),
    ],
)
def test_processes_divide_the_cores_if_the_blocks_divide_evenly(
    cores: int, clips: int, count: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = on_cores(cores, clips, monkeypatch)
    assert [worker.shard for worker in team] == [Shard(n, count) for n in range(count)]
    assert {(worker.gpu, worker.threads, worker.siblings) for worker in team} == {
        (None, threads, count)
    }


def test_memory_for_the_weights_limits_the_number_of_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len(on_cores(8, 10_000, monkeypatch, memory=8 * 10**9)) == 2
    assert len(on_cores(8, 10_000, monkeypatch, memory=10**9)) == 1


def test_little_work_is_done_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(on_cores(2, 128, monkeypatch, samples=500)) == 1


def test_processes_divide_the_given_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    team = on_cores(2, 1280, monkeypatch, half=True)
    assert [worker.shard for worker in team] == [Shard(2, 4), Shard(3, 4)]


# Exit codes

STUB = """
import json, os, signal, sys, time
number, _, count = sys.argv[sys.argv.index("--shard") + 1].partition("/")
number, count = int(number), int(count)
"""
"""Start of every stub; `number` is the index of the worker."""


def stub(code: str, *words: object) -> list[str]:
    """Return the command of a worker that runs `code`; -S makes Python start in 10 ms."""
    return [sys.executable, "-S", "-c", STUB + code, *map(str, words)]


def team(count: int, gpus: bool = False) -> list[Worker]:
    return [
        Worker(Shard(number, count), Gpu(str(number + 4), H100) if gpus else None, 1, count)
        for number in range(count)
    ]


def watch_nothing(_: Sequence[subprocess.Popen[bytes]]) -> None:
    pass


ENDS = "how = HOW[number]\nos.kill(os.getpid(), -how) if how < 0 else sys.exit(how)"


@pytest.mark.parametrize(
    ("codes", "kind", "code", "named"),
    [
        ((75, 0, 0), Stopped, 75, ["stopped: 1 of 3 workers have work left"]),
        ((75, 75), Stopped, 75, ["stopped: 2 of 2 workers have work left"]),
        ((75, 130), Stopped, 75, ["stopped: 2 of 2 workers have work left"]),
        ((0, 1), Failed, 1, ["shard 1/2 failed with exit code 1; see its messages above"]),
        ((1, 75), Failed, 1, ["shard 0/2 failed with exit code 1"]),
        ((2, 0), BadInput, 2, ["shard 0/2: failed with exit code 2"]),
        ((2, 75, 2), BadInput, 2, ["shard 0/3: failed", "shard 2/3: failed"]),
        ((2, 1), Failed, 1, ["shard 0/2 failed with exit code 2", "shard 1/2 failed with exit"]),
        ((0, -9), Failed, 1, ["shard 1/2 was killed by SIGKILL; run it again to resume"]),
        ((2, -11), Failed, 1, ["shard 0/2 failed with exit", "shard 1/2 was killed by SIGSEGV"]),
        (
            (-15, 0),
            Failed,
            1,
            ["shard 0/2 was killed by SIGTERM"],
        ),  # without a signal to the parent
    ],
)
def test_exit_codes_of_workers_are_combined(
    codes: tuple[int, ...], kind: type[NsynthSuperError], code: int, named: list[str]
) -> None:
    command = stub(f"HOW = {codes}\n{ENDS}")
    with pytest.raises(kind) as raised:
        workers.supervise(team(len(codes)), command, watch_nothing)
    assert raised.value.exit_code == code
    lines = str(raised.value).splitlines()
    assert len(lines) == len(named)
    for line, words in zip(lines, named, strict=True):
        assert line.startswith(words)


def test_workers_that_all_succeed_raise_nothing() -> None:
    workers.supervise(team(3), stub(f"HOW = (0, 0, 0)\n{ENDS}"), watch_nothing)


def test_a_failed_worker_is_named_with_its_gpu() -> None:
    with pytest.raises(Failed, match=f"^shard 1/2 on GPU 5 {H100} was killed by SIGKILL"):
        workers.supervise(team(2, gpus=True), stub(f"HOW = (0, -9)\n{ENDS}"), watch_nothing)


def test_a_failed_worker_does_not_stop_the_others(tmp_path: Path) -> None:
    code = """
if number == 1:
    sys.exit(1)
time.sleep(0.6)
open(os.path.join(sys.argv[1], str(number)), "w").close()
"""
    with pytest.raises(Failed, match=r"^shard 1/3 failed with exit code 1; [^\n]*$"):
        workers.supervise(team(3), stub(code, tmp_path), watch_nothing)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "2"]


def test_each_worker_gets_its_gpu_shard_and_number_of_siblings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    monkeypatch.setenv("NSYNTH_SOMETHING", "else")
    code = """
with open(os.path.join(sys.argv[1], str(number)), "w") as file:
    json.dump([sys.argv[2:], dict(os.environ)], file)
"""
    workers.supervise(team(3, gpus=True), stub(code, tmp_path), watch_nothing)
    seen = [json.loads((tmp_path / str(number)).read_text()) for number in range(3)]
    assert [words for words, _ in seen] == [
        ["--workers", "1", "--shard", f"{number}/3", "--threads", "1"] for number in range(3)
    ]
    assert [environment["CUDA_VISIBLE_DEVICES"] for _, environment in seen] == ["4", "5", "6"]
    for _, environment in seen:
        assert environment["NSYNTH_WORKERS"] == "3"
        assert environment["NSYNTH_SOMETHING"] == "else"


def test_without_an_assigned_gpu_a_worker_inherits_cuda_visible_devices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Worker(Shard(), None, 1, 1).environment()["CUDA_VISIBLE_DEVICES"] == ""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert "CUDA_VISIBLE_DEVICES" not in Worker(Shard(), None, 1, 1).environment()


# Signals

PARENT = """
import os, signal, subprocess, sys, time
from nsynth_super.runtime import worker_plan, workers
from nsynth_super.pack.plan import Shard
from nsynth_super.base.errors import NsynthSuperError
from nsynth_super.runtime.worker_plan import Worker
count, folder, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
team = [Worker(Shard(number, count), None, 1, count) for number in range(count)]
def watch(processes):
    pass
def go():
    try:
        workers.supervise(team, command, watch)
    except NsynthSuperError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0
"""
"""Start of every parent, a separate process because its signals would end the tests."""

LISTENS = """
folder, ends = sys.argv[1], int(sys.argv[2])
got = []
def note(which, _):
    got.append(which)
    with open(os.path.join(folder, "%d.got" % number), "a") as file:
        file.write(signal.Signals(which).name + "\\n")
for which in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
    signal.signal(which, note)
open(os.path.join(folder, "%d.ready" % number), "w").close()
end = time.monotonic() + 20
while len(got) < ends and time.monotonic() < end:
    time.sleep(0.005)
end = time.monotonic() + float(sys.argv[3])  # time for one more signal
while time.monotonic() < end:
    time.sleep(0.005)
sys.exit(75)
"""


def parent(
    folder: Path,
    code: str = "sys.exit(go())",
    worker: str = LISTENS,
    ends: int = 1,
    linger: float = 0.6,
) -> subprocess.Popen[str]:
    """Start three workers that log signals and exit `linger` seconds after `ends` of them."""
    return subprocess.Popen(
        [sys.executable, "-c", PARENT + code, "3", folder, *stub(worker, folder, ends, linger)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until(met: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, f"not in {seconds} s"
        time.sleep(0.01)


def ready(folder: Path, *numbers: int) -> bool:
    return all((folder / f"{number}.ready").exists() for number in numbers)


def got(folder: Path) -> list[list[str]]:
    """Return the signals that each worker received."""
    return [(folder / f"{number}.got").read_text().split() for number in range(3)]


@pytest.mark.parametrize(
    ("which", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
def test_a_signal_reaches_every_worker_once(
    which: signal.Signals, code: int, tmp_path: Path
) -> None:
    process = parent(tmp_path)
    until(lambda: ready(tmp_path, 0, 1, 2))
    os.killpg(process.pid, which)  # as a terminal does: to the process group
    _, output = process.communicate(timeout=30)
    assert process.returncode == code, output
    assert got(tmp_path) == [[which.name]] * 3
    assert output.startswith("stopped: 3 of 3 workers have work left")


def test_a_second_interrupt_also_reaches_every_worker(tmp_path: Path) -> None:
    process = parent(tmp_path, ends=2)
    until(lambda: ready(tmp_path, 0, 1, 2))
    process.send_signal(signal.SIGINT)
    until(lambda: len(list(tmp_path.glob("*.got"))) == 3)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert got(tmp_path) == [["SIGINT", "SIGINT"]] * 3


LINE_BY_LINE = """
class Popen(subprocess.Popen):
    def __init__(self, words, **options):
        super().__init__(words, **options)
        number = words[words.index("--shard") + 1].partition("/")[0]
        while not os.path.exists(os.path.join(here, number + ".ready")):
            time.sleep(0.001)
class fake: pass
fake.Popen = Popen
workers.subprocess, workers.WATCH_EVERY = fake, 0.02

def trace(frame, event, _):
    global lines
    if frame.f_code is not workers.supervise.__code__:
        return None
    if event == "line" and signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        lines += 1
        if lines == at and not started:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.03)  # signals in the same instant are merged
    return trace
def watch(_):
    global started
    if lines < at and not started:
        started = True
        os.kill(os.getpid(), signal.SIGTERM)

started = False
for at in range(1, 100):
    here = command[-3] = os.path.join(folder, str(at))
    os.mkdir(here)
    lines = 0
    sys.settrace(trace)
    code = go()
    sys.settrace(None)
    if code != 75:
        sys.exit(f"with a signal at line {at} of the start: {code}")
    if started:
        sys.exit(0)
"""
"""Repeats `supervise` with a signal at each of its lines while it starts workers; the last signal
comes when all have started."""


@pytest.mark.slow
def test_a_signal_during_the_start_reaches_every_worker_once(tmp_path: Path) -> None:
    process = parent(tmp_path, LINE_BY_LINE, linger=0.1)
    _, output = process.communicate(timeout=200)
    assert process.returncode == 0, output
    moments = list(tmp_path.iterdir())
    assert len(moments) > 10
    assert {moment.name: got(moment) for moment in moments} == {
        moment.name: [["SIGTERM"]] * 3 for moment in moments
    }


WITHOUT_HANDLERS = """
if number == 1:
    open(os.path.join(sys.argv[1], "1.ready"), "w").close()
    time.sleep(20)
"""
FAILS = """
import atexit
atexit.register(lambda: os._exit(1) if number == 2 else None)
"""


def test_a_worker_killed_before_it_installed_handlers_counts_as_stopped(tmp_path: Path) -> None:
    process = parent(tmp_path, worker=WITHOUT_HANDLERS + LISTENS, linger=0)
    until(lambda: ready(tmp_path, 0, 1, 2))
    process.terminate()
    _, output = process.communicate(timeout=30)
    assert process.returncode == 75, output
    assert output.startswith("stopped: 3 of 3 workers have work left")


def test_a_failure_outweighs_stopped_workers(tmp_path: Path) -> None:
    process = parent(tmp_path, worker=FAILS + LISTENS, linger=0)
    until(lambda: ready(tmp_path, 0, 1, 2))
    process.terminate()
    _, output = process.communicate(timeout=30)
    assert process.returncode == 1
    assert output == "shard 2/3 failed with exit code 1; see its messages above\n"


CORES = """
time.sleep(0.2)  # time for the parent to bind this process
with open(os.path.join(sys.argv[1], str(number)), "w") as file:
    json.dump(sorted(os.sched_getaffinity(0)), file)
"""


def cores_of(folder: Path, count: int) -> list[list[int]]:
    """Run workers that log their cores; return the cores of each."""
    workers.supervise(team(count), stub(CORES, folder), watch_nothing)
    return [json.loads((folder / str(number)).read_text()) for number in range(count)]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no sched_getaffinity")
def test_workers_are_bound_to_separate_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = sorted(os.sched_getaffinity(0))
    monkeypatch.setattr(allocation, "processors", lambda: len(ours))
    bound = cores_of(tmp_path, len(ours))
    assert bound == [[core] for core in ours]
    assert sorted(os.sched_getaffinity(0)) == ours, "the parent itself is not bound"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no sched_getaffinity")
@pytest.mark.parametrize("processors", [0, 1], ids=["too few cores", "allocated cores unknown"])
def test_workers_are_not_bound_if_cores_are_few_or_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processors: int
) -> None:
    ours = sorted(os.sched_getaffinity(0))
    monkeypatch.setattr(allocation, "processors", lambda: len(ours) - processors)
    count = len(ours) + 1 if processors == 0 else 1
    assert cores_of(tmp_path, count) == [ours] * count


def test_workers_are_terminated_if_watching_them_fails(tmp_path: Path) -> None:
    def watch(processes: Sequence[subprocess.Popen[bytes]]) -> None:
        assert len(processes) == 3
        until(lambda: ready(tmp_path, 0, 1, 2))
        raise OSError("a bug")

    with pytest.raises(OSError, match="a bug"):
        workers.supervise(team(3), stub(LISTENS, tmp_path, 1, 0), watch)
    assert got(tmp_path) == [["SIGTERM"]] * 3


def test_started_workers_are_terminated_if_another_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def start(words: list[str], **options: Any) -> subprocess.Popen[bytes]:
        if len(started) == 2:
            until(lambda: ready(tmp_path, 0, 1))
            raise BlockingIOError("no more processes")
        started.append(subprocess.Popen(words, **options))
        return started[-1]

    monkeypatch.setattr(workers, "subprocess", SimpleNamespace(Popen=start))
    with pytest.raises(BlockingIOError):
        workers.supervise(team(3), stub(LISTENS, tmp_path, 1, 0), watch_nothing)
    assert [process.returncode for process in started] == [75, 75]


@pytest.mark.parametrize("how", [0, 1])
def test_signal_handlers_are_restored(how: int) -> None:
    before = [signal.getsignal(which) for which in workers.FORWARDED]
    try:
        workers.supervise(team(1), stub(f"sys.exit({how})"), watch_nothing)
    except Failed:
        assert how == 1
    assert [signal.getsignal(which) for which in workers.FORWARDED] == before


# Combined progress

SAMPLES = 100
PLAN = Plan(
    shaping={},
    seed=0,
    samples=SAMPLES,
    checkpoint="weights",
    embeddings={f"flute_{pitch}": str(pitch) for pitch in range(3 * BLOCK)},
    mixes=[Mix(pitch, (("flute", 1.0),)) for pitch in range(3 * BLOCK)],
)
"""A plan of three blocks, one per worker."""


@pytest.fixture
def half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Return a workspace whose last block is half done, which counts as 32 clips."""
    monkeypatch.setattr(progress, "STATUS_EVERY", 0.0)
    workspace = Workspace(tmp_path / "pack")
    workspace.clips.mkdir(parents=True)
    half = np.zeros((BLOCK, SAMPLES // 2), dtype=np.uint8)
    np.save(workspace.partial(2, PLAN.block_identity(2)), half)
    return workspace


REPORTS = """
def report(done, **others):
    status = {"done": done, "pid": os.getpid(), "started": round(time.time()), **others}
    path = os.path.join(sys.argv[1], "generate.%d-of-%d.json" % (number, count))
    with open(path + ".new", "w") as file:
        json.dump(status, file)
    os.replace(path + ".new", path)
def until_combined(together):
    end = time.monotonic() + 20
    while True:
        with open(os.path.join(sys.argv[1], "generate.0-of-1.json")) as file:
            done = json.load(file)["done"]
        if done == together:
            return
        if time.monotonic() > end:
            sys.exit("combined progress is %s, expected %s" % (done, together))
        time.sleep(0.01)
"""


def generate(workspace: Workspace, code: str, quiet: bool = True) -> dict[str, Any]:
    """Run `code` in three stubs; return the final status, even after an error."""
    path = workspace.status("generate")
    command = stub(REPORTS + code, workspace.status_folder)
    try:
        workers.run_workers(workspace, PLAN, Shard(), team(3), command, quiet)
    finally:
        final = json.loads(path.read_text(encoding="utf-8"))
    return final


def test_progress_adds_up_the_workers_reports(half_done: Workspace) -> None:
    code = """
if number == 0:
    until_combined(32)
    report(10)
    until_combined(42)
    report(64)
elif number == 1:
    until_combined(96)
    report(20.5)
    until_combined(116.5)
    report(3)  # a lower count does not reduce the total
    time.sleep(0.4)
    until_combined(116.5)
    report(64)
else:
    until_combined(160)
    report(32)
    time.sleep(0.4)
    until_combined(160)
    report(64)
"""
    status = generate(half_done, code)
    assert (status["state"], status["done"], status["total"]) == ("done", 192, 192)
    assert (status["stage"], status["shard"], status["pid"]) == ("generate", "0-of-1", os.getpid())


def test_progress_ignores_the_report_of_an_earlier_run(half_done: Workspace) -> None:
    half_done.status_folder.mkdir()
    earlier = {"done": 64, "pid": 1, "started": round(time.time())}
    half_done.status("generate", "0-of-3").write_text(json.dumps(earlier), encoding="utf-8")
    # Containers reuse process ids, as here.
    code = "report(64, started=time.time() - 60) if number == 1 else None\ntime.sleep(0.6)"
    status = generate(half_done, code)
    assert status["done"] == 32
    assert status["per_hour"] == 0  # earlier work does not count towards the rate


@pytest.mark.parametrize(
    "report", ["", "{", "[]", "null", '{"pid": PID}', '{"pid": PID, "started": NOW, "done": []}']
)
def test_a_damaged_report_is_ignored(report: str, half_done: Workspace) -> None:
    code = f"""
path = os.path.join(sys.argv[1], "generate.%d-of-%d.json" % (number, count))
with open(path, "w") as file:
    file.write({report!r}.replace("PID", str(os.getpid())).replace("NOW", "1e12"))
time.sleep(0.3)
"""
    assert generate(half_done, code)["done"] == 32


@pytest.mark.parametrize(
    ("code", "kind", "state"), [("1", Failed, "failed"), ("75", Stopped, "stopped")]
)
def test_the_final_status_matches_the_exit_code(
    code: str, kind: type[Exception], state: str, half_done: Workspace
) -> None:
    with pytest.raises(kind):
        generate(half_done, f"sys.exit({code})")
    assert json.loads(half_done.status("generate").read_text())["state"] == state


def test_worker_list_is_printed_unless_quiet(
    half_done: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    generate(half_done, "", quiet=False)
    assert "generate: 3 workers: shard 0/3; shard 1/3; shard 2/3\n" in capfd.readouterr().err
    generate(half_done, "", quiet=True)
    assert capfd.readouterr().err == ""
