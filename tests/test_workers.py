"""Several workers on one machine: what each is given, and how their ends become one.

The workers here are stubs of a few lines, so that a test decides what befalls them; in
test_real_workers.py they are not.
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

from nsynth_super import machine, progress, workers
from nsynth_super.grid import Mix
from nsynth_super.machine import Gpu
from nsynth_super.plan import BLOCK, Plan, Shard
from nsynth_super.problems import BadInput, Failed, NsynthSuperError, Stopped
from nsynth_super.wavenet.dimensions import PUBLISHED
from nsynth_super.workers import Worker, planned
from nsynth_super.workspace import Workspace

H100 = "NVIDIA H100 80GB HBM3"


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Return a function that says what this process may use: fake GPUs, and processors."""

    def give(gpus: int, processors: int) -> None:
        fakes = [Gpu(str(number), H100, (9, 0)) for number in range(gpus)]
        monkeypatch.setattr(machine, "gpus", lambda: fakes)
        monkeypatch.setattr(machine, "processors", lambda: processors)

    return give


# What each is given


def test_without_a_gpu_one_worker_has_everything(given: Callable[[int, int], None]) -> None:
    given(0, 6)
    assert planned(Shard(2, 5)) == [Worker(Shard(2, 5), None, 6, 1)]


def test_each_gpu_has_a_worker_with_its_part_of_the_processors(
    given: Callable[[int, int], None],
) -> None:
    given(3, 7)
    assert planned(Shard()) == [
        Worker(Shard(number, 3), Gpu(str(number), H100, (9, 0)), 2, 3) for number in range(3)
    ]


def test_workers_share_the_part_of_their_task(given: Callable[[int, int], None]) -> None:
    given(4, 4)
    assert [worker.shard for worker in planned(Shard(1, 2))] == [Shard(n, 8) for n in (4, 5, 6, 7)]


def test_as_many_workers_as_are_asked_for_share_the_gpus(
    given: Callable[[int, int], None],
) -> None:
    given(2, 8)
    five = planned(Shard(), 5)
    assert [worker.gpu.name for worker in five if worker.gpu] == ["0", "1", "0", "1", "0"]
    assert {(worker.threads, worker.siblings) for worker in five} == {(1, 5)}
    assert [worker.gpu.name for worker in planned(Shard(), 1) if worker.gpu] == ["0"]


def test_without_a_gpu_workers_that_are_asked_for_share_the_processors(
    given: Callable[[int, int], None],
) -> None:
    given(0, 6)
    assert [(worker.gpu, worker.threads) for worker in planned(Shard(), 3)] == [(None, 2)] * 3


def test_threads_that_are_asked_for_are_each_workers(given: Callable[[int, int], None]) -> None:
    given(3, 8)
    assert [worker.threads for worker in planned(Shard(), threads=5)] == [5, 5, 5]


def test_nobody_has_no_thread(given: Callable[[int, int], None]) -> None:
    given(4, 2)
    assert [worker.threads for worker in planned(Shard())] == [1, 1, 1, 1]


def test_a_worker_is_named_by_its_shard_and_its_gpu() -> None:
    assert str(Worker(Shard(1, 3), None, 1, 3)) == "shard 1/3"
    assert str(Worker(Shard(1, 3), Gpu("1"), 1, 3)) == "shard 1/3 on GPU 1"
    assert str(Worker(Shard(1, 3), Gpu("1", H100), 1, 3)) == f"shard 1/3 on GPU 1 {H100}"


# What each core is given


def on_cores(cores: int, clips: int, monkeypatch: pytest.MonkeyPatch, **more: Any) -> list[Worker]:
    monkeypatch.setattr(machine, "processors", lambda: cores)
    monkeypatch.setattr(machine, "memory", lambda: more.get("memory", 1 << 50))
    plan = SimpleNamespace(
        blocks=-(-clips // BLOCK),
        samples=more.get("samples", 64_000),
        clips_of=lambda block: range(block * BLOCK, min((block + 1) * BLOCK, clips)),
    )
    memory = lambda at_once: 10**9 + at_once * 10**7  # noqa: E731
    return workers.on_cpu(Shard(1, 2) if "half" in more else Shard(), plan, PUBLISHED, memory)


@pytest.mark.parametrize(
    ("cores", "clips", "count", "threads"),
    [
        (2, 1296, 2, 1),
        (2, 128, 2, 1),
        (2, 64, 1, 2),  # one block
        (2, 81, 1, 2),  # two, but one of them is small
        (8, 256, 4, 2),
        (8, 118_016, 8, 1),
        (1, 1296, 1, 1),
    ],
)
def test_cores_are_shared_by_processes_where_blocks_come_out_even(
    cores: int, clips: int, count: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = on_cores(cores, clips, monkeypatch)
    assert [worker.shard for worker in team] == [Shard(n, count) for n in range(count)]
    assert {(worker.gpu, worker.threads, worker.siblings) for worker in team} == {
        (None, threads, count)
    }


def test_as_many_processes_as_have_room_for_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(on_cores(8, 10_000, monkeypatch, memory=8 * 10**9)) == 2
    assert len(on_cores(8, 10_000, monkeypatch, memory=10**9)) == 1


def test_little_work_is_done_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(on_cores(2, 128, monkeypatch, samples=500)) == 1


def test_a_shards_cores_share_that_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    team = on_cores(2, 1280, monkeypatch, half=True)
    assert [worker.shard for worker in team] == [Shard(2, 4), Shard(3, 4)]


# How they end

STUB = """
import json, os, signal, sys, time
number, _, count = sys.argv[sys.argv.index("--shard") + 1].partition("/")
number, count = int(number), int(count)
"""
"""Begins every stub; `number` is its place among the workers."""


def stub(code: str, *words: object) -> list[str]:
    """Return a worker's command: a Python that does `code`; -S starts it in a hundredth second."""
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
        ((0, 1), Failed, 1, ["shard 1/2 failed with exit code 1; its own lines above say why"]),
        ((1, 75), Failed, 1, ["shard 0/2 failed with exit code 1"]),
        ((2, 0), BadInput, 2, ["shard 0/2: failed with exit code 2"]),
        ((2, 75, 2), BadInput, 2, ["shard 0/3: failed", "shard 2/3: failed"]),
        ((2, 1), Failed, 1, ["shard 0/2 failed with exit code 2", "shard 1/2 failed with exit"]),
        ((0, -9), Failed, 1, ["shard 1/2 was killed by SIGKILL; run it again to go on"]),
        ((2, -11), Failed, 1, ["shard 0/2 failed with exit", "shard 1/2 was killed by SIGSEGV"]),
        ((-15, 0), Failed, 1, ["shard 0/2 was killed by SIGTERM"]),  # and nobody had asked us
    ],
)
def test_the_workers_ends_become_one(
    codes: tuple[int, ...], kind: type[NsynthSuperError], code: int, named: list[str]
) -> None:
    command = stub(f"HOW = {codes}\n{ENDS}")
    with pytest.raises(kind) as raised:
        workers.run(team(len(codes)), command, watch_nothing)
    assert raised.value.exit_code == code
    lines = str(raised.value).splitlines()
    assert len(lines) == len(named)
    for line, words in zip(lines, named, strict=True):
        assert line.startswith(words)


def test_workers_that_all_come_to_their_end_are_no_news() -> None:
    workers.run(team(3), stub(f"HOW = (0, 0, 0)\n{ENDS}"), watch_nothing)


def test_a_worker_that_failed_is_named_with_its_gpu() -> None:
    with pytest.raises(Failed, match=f"^shard 1/2 on GPU 5 {H100} was killed by SIGKILL"):
        workers.run(team(2, gpus=True), stub(f"HOW = (0, -9)\n{ENDS}"), watch_nothing)


def test_a_worker_that_fails_stops_no_other(tmp_path: Path) -> None:
    go_on = """
if number == 1:
    sys.exit(1)
time.sleep(0.6)
open(os.path.join(sys.argv[1], str(number)), "w").close()
"""
    with pytest.raises(Failed, match=r"^shard 1/3 failed with exit code 1; [^\n]*$"):
        workers.run(team(3), stub(go_on, tmp_path), watch_nothing)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "2"]


def test_each_worker_is_told_its_gpu_its_share_and_its_siblings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    monkeypatch.setenv("NSYNTH_SOMETHING", "else")
    tell = """
with open(os.path.join(sys.argv[1], str(number)), "w") as file:
    json.dump([sys.argv[2:], dict(os.environ)], file)
"""
    workers.run(team(3, gpus=True), stub(tell, tmp_path), watch_nothing)
    told = [json.loads((tmp_path / str(number)).read_text()) for number in range(3)]
    assert [words for words, _ in told] == [
        ["--workers", "1", "--shard", f"{number}/3", "--threads", "1"] for number in range(3)
    ]
    assert [environment["CUDA_VISIBLE_DEVICES"] for _, environment in told] == ["4", "5", "6"]
    for _, environment in told:
        assert environment["NSYNTH_WORKERS"] == "3"
        assert environment["NSYNTH_SOMETHING"] == "else"


def test_without_a_gpu_of_its_own_a_worker_keeps_what_it_may_see(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Worker(Shard(), None, 1, 1).environment()["CUDA_VISIBLE_DEVICES"] == ""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert "CUDA_VISIBLE_DEVICES" not in Worker(Shard(), None, 1, 1).environment()


# Signals

PARENT = """
import os, signal, subprocess, sys, time
from nsynth_super import workers
from nsynth_super.plan import Shard
from nsynth_super.problems import NsynthSuperError
from nsynth_super.workers import Worker
count, folder, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
team = [Worker(Shard(number, count), None, 1, count) for number in range(count)]
def watch(processes):
    pass
def go():
    try:
        workers.run(team, command, watch)
    except NsynthSuperError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0
"""
"""Begins every parent: a process of its own, for it is sent what would end the tests."""

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
end = time.monotonic() + float(sys.argv[3])  # there is time for one signal more
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
    """Start three workers that note their signals, and end `linger` seconds after so many."""
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
    """Return the signals that each worker got."""
    return [(folder / f"{number}.got").read_text().split() for number in range(3)]


@pytest.mark.parametrize(
    ("which", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
def test_a_signal_reaches_every_worker_once(
    which: signal.Signals, code: int, tmp_path: Path
) -> None:
    process = parent(tmp_path)
    until(lambda: ready(tmp_path, 0, 1, 2))
    os.killpg(process.pid, which)  # as a terminal does: to all that it started
    _, said = process.communicate(timeout=30)
    assert process.returncode == code, said
    assert got(tmp_path) == [[which.name]] * 3
    assert said.startswith("stopped: 3 of 3 workers have work left")


def test_a_second_interrupt_reaches_every_worker_as_well(tmp_path: Path) -> None:
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
    if frame.f_code is not workers.run.__code__:
        return None
    if event == "line" and signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        lines += 1
        if lines == at and not started:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.03)  # a second one in the same instant would not be counted
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
"""Sends the parent a signal at each line of `run` that starts workers, in one run after another;
the last is sent when all are started."""


def test_a_signal_at_any_moment_of_the_start_reaches_every_worker_once(tmp_path: Path) -> None:
    process = parent(tmp_path, LINE_BY_LINE, linger=0.1)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    moments = list(tmp_path.iterdir())
    assert len(moments) > 10
    assert {moment.name: got(moment) for moment in moments} == {
        moment.name: [["SIGTERM"]] * 3 for moment in moments
    }


DEAF = """
if number == 1:
    open(os.path.join(sys.argv[1], "1.ready"), "w").close()
    time.sleep(20)
"""
FAILS = """
import atexit
atexit.register(lambda: os._exit(1) if number == 2 else None)
"""


def test_a_worker_that_could_not_listen_yet_has_stopped_as_well(tmp_path: Path) -> None:
    process = parent(tmp_path, worker=DEAF + LISTENS, linger=0)
    until(lambda: ready(tmp_path, 0, 1, 2))
    process.terminate()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 75, said
    assert said.startswith("stopped: 3 of 3 workers have work left")


def test_a_failure_among_workers_that_stopped_is_a_failure(tmp_path: Path) -> None:
    process = parent(tmp_path, worker=FAILS + LISTENS, linger=0)
    until(lambda: ready(tmp_path, 0, 1, 2))
    process.terminate()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert said == "shard 2/3 failed with exit code 1; its own lines above say why\n"


CORES = """
time.sleep(0.2)  # for its parent to bind it
with open(os.path.join(sys.argv[1], str(number)), "w") as file:
    json.dump(sorted(os.sched_getaffinity(0)), file)
"""


def cores_of(folder: Path, count: int) -> list[list[int]]:
    """Run workers that say which cores they may use."""
    workers.run(team(count), stub(CORES, folder), watch_nothing)
    return [json.loads((folder / str(number)).read_text()) for number in range(count)]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system binds nobody")
def test_workers_do_not_share_cores_where_there_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = sorted(os.sched_getaffinity(0))
    monkeypatch.setattr(machine, "processors", lambda: len(ours))
    bound = cores_of(tmp_path, len(ours))
    assert bound == [[core] for core in ours]
    assert sorted(os.sched_getaffinity(0)) == ours, "and we are bound to nothing new"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system binds nobody")
@pytest.mark.parametrize("processors", [0, 1], ids=["too few for all", "of more that we see"])
def test_workers_are_not_bound_where_cores_are_short_or_not_known_to_be_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processors: int
) -> None:
    ours = sorted(os.sched_getaffinity(0))
    monkeypatch.setattr(machine, "processors", lambda: len(ours) - processors)
    count = len(ours) + 1 if processors == 0 else 1
    assert cores_of(tmp_path, count) == [ours] * count


def test_workers_that_cannot_be_watched_are_stopped(tmp_path: Path) -> None:
    def watch(processes: Sequence[subprocess.Popen[bytes]]) -> None:
        assert len(processes) == 3
        until(lambda: ready(tmp_path, 0, 1, 2))
        raise OSError("a bug")

    with pytest.raises(OSError, match="a bug"):
        workers.run(team(3), stub(LISTENS, tmp_path, 1, 0), watch)
    assert got(tmp_path) == [["SIGTERM"]] * 3


def test_if_one_cannot_be_started_those_that_were_are_stopped(
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
        workers.run(team(3), stub(LISTENS, tmp_path, 1, 0), watch_nothing)
    assert [process.returncode for process in started] == [75, 75]


@pytest.mark.parametrize("how", [0, 1])
def test_signals_mean_afterwards_what_they_meant_before(how: int) -> None:
    before = [signal.getsignal(which) for which in workers.FORWARDED]
    try:
        workers.run(team(1), stub(f"sys.exit({how})"), watch_nothing)
    except Failed:
        assert how == 1
    assert [signal.getsignal(which) for which in workers.FORWARDED] == before


# Their progress, as one

SAMPLES = 100
PLAN = Plan(
    shaping={},
    seed=0,
    samples=SAMPLES,
    checkpoint="weights",
    embeddings={f"flute_{pitch}": str(pitch) for pitch in range(3 * BLOCK)},
    mixes=[Mix(pitch, (("flute", 1.0),)) for pitch in range(3 * BLOCK)],
)
"""Three blocks, one for each of three workers."""


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with the last block half done: 32 clips' worth. Status is written at once."""
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
def until_they_have(together):
    end = time.monotonic() + 20
    while True:
        with open(os.path.join(sys.argv[1], "generate.0-of-1.json")) as file:
            said = json.load(file)["done"]
        if said == together:
            return
        if time.monotonic() > end:
            sys.exit("the workers together are said to have done %s, not %s" % (said, together))
        time.sleep(0.01)
"""


def generate(workspace: Workspace, code: str, quiet: bool = True) -> dict[str, Any]:
    """Let three stubs do `code`; return the status that is left, whatever the end."""
    status = workspace.status("generate")
    command = stub(REPORTS + code, workspace.status_folder)
    try:
        workers.generate(workspace, PLAN, Shard(), team(3), command, quiet)
    finally:
        left = json.loads(status.read_text(encoding="utf-8"))
    return left


def test_progress_follows_what_the_workers_report(begun: Workspace) -> None:
    code = """
until_they_have(32)
if number == 0:
    report(10)
    until_they_have(42)
    report(64)
elif number == 1:
    until_they_have(96)
    report(20.5)
    until_they_have(116.5)
    report(3)  # one that counts anew takes nothing back
    time.sleep(0.4)
    until_they_have(116.5)
    report(64)
else:
    until_they_have(160)
    report(32)
    time.sleep(0.4)
    until_they_have(160)
    report(64)
"""
    left = generate(begun, code)
    assert (left["state"], left["done"], left["total"]) == ("done", 192, 192)
    assert (left["stage"], left["shard"], left["pid"]) == ("generate", "0-of-1", os.getpid())


def test_progress_does_not_believe_an_earlier_runs_report(begun: Workspace) -> None:
    begun.status_folder.mkdir()
    earlier = {"done": 64, "pid": 1, "started": round(time.time())}
    begun.status("generate", "0-of-3").write_text(json.dumps(earlier), encoding="utf-8")
    # As in a container, where process ids begin anew and the same ones come again.
    code = "report(64, started=time.time() - 60) if number == 1 else None\ntime.sleep(0.6)"
    left = generate(begun, code)
    assert left["done"] == 32
    assert left["per_hour"] == 0  # what was there before is not this run's speed


@pytest.mark.parametrize(
    "report", ["", "{", "[]", "null", '{"pid": PID}', '{"pid": PID, "started": NOW, "done": []}']
)
def test_a_damaged_report_says_nothing(report: str, begun: Workspace) -> None:
    code = f"""
path = os.path.join(sys.argv[1], "generate.%d-of-%d.json" % (number, count))
with open(path, "w") as file:
    file.write({report!r}.replace("PID", str(os.getpid())).replace("NOW", "1e12"))
time.sleep(0.3)
"""
    assert generate(begun, code)["done"] == 32


@pytest.mark.parametrize(
    ("code", "kind", "state"), [("1", Failed, "failed"), ("75", Stopped, "stopped")]
)
def test_the_status_says_how_it_ended(
    code: str, kind: type[Exception], state: str, begun: Workspace
) -> None:
    with pytest.raises(kind):
        generate(begun, f"sys.exit({code})")
    assert json.loads(begun.status("generate").read_text())["state"] == state


def test_who_works_is_said_unless_nothing_shall_be(
    begun: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    generate(begun, "", quiet=False)
    assert "generate: 3 workers: shard 0/3; shard 1/3; shard 2/3\n" in capfd.readouterr().err
    generate(begun, "", quiet=True)
    assert capfd.readouterr().err == ""
