"""Tests of resource detection from Slurm's variables, the GPU driver and control groups."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsynth_super.base import allocation
from nsynth_super.base.allocation import Gpu
from nsynth_super.base.errors import BadInput
from nsynth_super.pack.plan import Shard
from nsynth_super.runtime.worker_plan import on_gpus

MIB = 1 << 20


def array(task: int, first: int, last: int, step: int = 1, **others: Any) -> dict[str, str]:
    """Return the variables that Slurm 22.05 sets in a task of `--array=first-last:step`."""
    variables = {
        "SLURM_JOB_ID": 1000 + task,
        "SLURM_ARRAY_JOB_ID": 1000,
        "SLURM_ARRAY_TASK_ID": task,
        "SLURM_ARRAY_TASK_MIN": first,
        "SLURM_ARRAY_TASK_MAX": last,
        "SLURM_ARRAY_TASK_STEP": step,
        "SLURM_ARRAY_TASK_COUNT": (last - first) // step + 1,
        **others,
    }
    return {name: str(value) for name, value in variables.items()}


def step(procid: int, tasks: int) -> dict[str, str]:
    """Return the variables that `srun` sets in one of its tasks."""
    return {"SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_PROCID": str(procid)}


# Shards


def test_without_slurm_the_process_has_the_entire_plan() -> None:
    assert allocation.shard({}) == (0, 1)
    assert allocation.shard({"SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}) == (0, 1)


@pytest.mark.parametrize(
    ("first", "last", "step", "shares"),
    [
        (0, 3, 1, {0: (0, 4), 1: (1, 4), 2: (2, 4), 3: (3, 4)}),
        (1, 3, 1, {1: (0, 3), 2: (1, 3), 3: (2, 3)}),
        (2, 8, 3, {2: (0, 3), 5: (1, 3), 8: (2, 3)}),
        (1, 6, 2, {1: (0, 3), 3: (1, 3), 5: (2, 3)}),
        (5, 5, 1, {5: (0, 1)}),
    ],
)
def test_array_tasks_divide_the_plan_by_their_position(
    first: int, last: int, step: int, shares: dict[int, tuple[int, int]]
) -> None:
    assert {task: allocation.shard(array(task, first, last, step)) for task in shares} == shares


@pytest.mark.parametrize("task", [3, 5])
def test_an_array_with_gaps_is_rejected_in_every_task(task: int) -> None:
    # Slurm 22.05 sets a step of 1 for --array=3,5.
    gaps = array(task, 3, 5, SLURM_ARRAY_TASK_COUNT=2)
    with pytest.raises(BadInput, match=r"job array: has gaps: 2 tasks from 3 to 5 -> .*SHARDS"):
        allocation.shard(gaps)
    assert allocation.shard({**gaps, "NSYNTH_SHARDS": "8"}) == (task, 8)


def test_nsynth_shards_gives_the_shard_count_of_a_partly_resubmitted_array() -> None:
    again = array(5, 5, 5, NSYNTH_SHARDS=8)
    assert allocation.shard(again) == (5, 8)
    assert allocation.shard({**again, **step(1, 2)}) == (11, 16)


def test_nsynth_shards_is_ignored_without_an_array() -> None:
    assert allocation.shard({"SLURM_JOB_ID": "7", "NSYNTH_SHARDS": "8"}) == (0, 1)


@pytest.mark.parametrize("value", ["0", "-1", "eight", "8.0", " 8", "²"])
def test_an_invalid_nsynth_shards_is_rejected(value: str) -> None:
    with pytest.raises(BadInput, match=r"NSYNTH_SHARDS: is .*expected a number above 0"):
        allocation.shard(array(0, 0, 7, NSYNTH_SHARDS=value))


def test_a_task_number_beyond_nsynth_shards_is_rejected() -> None:
    assert allocation.shard(array(7, 0, 8, NSYNTH_SHARDS=8)) == (7, 8)
    with pytest.raises(BadInput, match=r"is 8, but this is array task 8 -> .*from 0 to 7"):
        allocation.shard(array(8, 0, 8, NSYNTH_SHARDS=8))


def test_the_tasks_of_a_step_divide_the_plan_by_rank() -> None:
    shares = [allocation.shard({"SLURM_JOB_ID": "7", **step(rank, 3)}) for rank in range(3)]
    assert shares == [(0, 3), (1, 3), (2, 3)]


def test_the_tasks_of_a_step_divide_the_shard_of_their_array_task() -> None:
    shares = [allocation.shard({**array(1, 0, 1), **step(rank, 3)}) for rank in range(3)]
    assert shares == [(3, 6), (4, 6), (5, 6)]


def test_requested_tasks_that_do_not_run_get_no_shard() -> None:
    in_the_batch_script = {
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "4",
        "SLURM_NPROCS": "4",
        "SLURM_PROCID": "0",
        "SLURM_TASKS_PER_NODE": "4",
    }
    assert allocation.shard(in_the_batch_script) == (0, 1)
    assert allocation.shard({**in_the_batch_script, **step(0, 1)}) == (0, 1)


@given(
    blocks=st.integers(0, 400),
    nodes=st.lists(st.lists(st.integers(0, 8), min_size=3, max_size=3), min_size=1, max_size=6),
    tasks=st.integers(1, 3),
    first=st.integers(0, 5),
    stride=st.integers(1, 3),
)
def test_nested_shards_cover_every_block_once_for_any_number_of_gpus(
    blocks: int, nodes: list[list[int]], tasks: int, first: int, stride: int
) -> None:
    """`nodes` has an entry for each array task: the number of GPUs of each task of its step."""
    last = first + stride * (len(nodes) - 1)
    covered: list[int] = []
    for place, gpus in enumerate(nodes):
        for rank in range(tasks):
            here = {**array(first + stride * place, first, last, stride), **step(rank, tasks)}
            share = Shard(*allocation.shard(here))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    allocation, "gpus", lambda n=gpus[rank]: [Gpu(str(i)) for i in range(n)]
                )
                workers = on_gpus(share)
            assert len(workers) == max(1, gpus[rank])
            decoded = [block for worker in workers for block in worker.shard.blocks(blocks)]
            assert decoded == list(share.blocks(blocks))
            covered += decoded
    assert covered == list(range(blocks))


# GPUs


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that makes a shell script, as `nvidia-smi`, the only program on PATH."""
    folder = tmp_path / "fake"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def install(script: str) -> None:
        program = folder / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="latin-1")
        program.chmod(0o755)

    return install


UUIDS = [f"GPU-{letter * 8}-0000-1111-2222-333333333333" for letter in "abc"]
THREE = f"""
[ "$*" = "--query-gpu=index,uuid,name,compute_cap --format=csv,noheader" ] || exit 2
echo "0, {UUIDS[0]}, Tesla V100-PCIE-32GB, 7.0"
echo "1, {UUIDS[1]}, NVIDIA H100 80GB HBM3, 9.0"
echo "2, {UUIDS[2]}, NVIDIA B300, [N/A]"
"""
V100 = Gpu("0", "Tesla V100-PCIE-32GB", (7, 0))
H100 = Gpu("1", "NVIDIA H100 80GB HBM3", (9, 0))
B300 = Gpu("2", "NVIDIA B300", None)


def test_all_gpus_of_the_fake_driver_are_listed_by_default(
    driver: Callable[[str], None],
) -> None:
    driver(THREE)
    assert allocation.gpus({}) == [V100, H100, B300]


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        ("", []),
        (" ", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,2", [V100, B300]),
        ("2, 0", [B300, V100]),
        ("0,-1,2", [V100]),
        ("1,", [H100]),
        (UUIDS[1], [Gpu(UUIDS[1], H100.model, H100.capability)]),
        (f"{UUIDS[2]},0", [Gpu(UUIDS[2], B300.model, None), V100]),
        ("7", [Gpu("7")]),
        ("MIG-4e3b", [Gpu("MIG-4e3b")]),
    ],
)
def test_cuda_visible_devices_selects_and_orders_the_gpus_of_the_fake_driver(
    visible: str, seen: list[Gpu], driver: Callable[[str], None]
) -> None:
    driver(THREE)
    assert allocation.gpus({"CUDA_VISIBLE_DEVICES": visible}) == seen


@pytest.mark.parametrize(
    "script",
    [
        "exit 9",
        "echo '0, GPU-a, Tesla V100, 7.0'; exit 9",  # output before a failure is not trusted
        "echo No devices were found",
        "echo 'NVIDIA-SMI has failed because it could not communicate, with, the, driver.'",
        "echo; echo ,,,; echo '0'; echo '0, GPU-a'; echo '[N/A], GPU-a, Tesla V100, 7.0'",
        "printf '\\377\\376\\000 \\351, \\351, \\351, \\351\\n'",
        "echo 'Field \"compute_cap\" is not a valid field to query.'; exit 2",
    ],
)
def test_a_fake_driver_that_fails_or_prints_garbage_lists_no_gpus(
    script: str, driver: Callable[[str], None]
) -> None:
    driver(script)
    assert allocation.gpus({}) == []
    assert allocation.gpus({"CUDA_VISIBLE_DEVICES": "0,1"}) == [Gpu("0"), Gpu("1")]


def test_a_gpu_with_an_invalid_compute_capability_is_still_listed(
    driver: Callable[[str], None],
) -> None:
    driver("echo '0, GPU-a, A GPU, .'; echo '1, GPU-b, A GPU, 9.'; echo '2, GPU-c, A GPU, 10.3'")
    assert [gpu.capability for gpu in allocation.gpus({})] == [None, None, (10, 3)]


def test_without_a_driver_the_gpus_of_cuda_visible_devices_are_trusted(
    driver: Callable[[str], None],
) -> None:
    # The fixture leaves PATH empty.
    assert allocation.gpus({}) == []
    assert allocation.gpus({"CUDA_VISIBLE_DEVICES": "0,2"}) == [Gpu("0"), Gpu("2")]


def test_a_driver_that_cannot_be_started_lists_no_gpus(
    driver: Callable[[str], None], tmp_path: Path
) -> None:
    driver("")
    (tmp_path / "fake" / "nvidia-smi").write_text("#!/no/such/interpreter\n", encoding="ascii")
    assert allocation.gpus({}) == []


# Processors


@pytest.fixture
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate an affinity mask of eight cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def test_processors_are_the_cores_in_the_affinity_mask() -> None:
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert allocation.processors({}) == here >= 1


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize(
    ("variables", "processors"),
    [
        ({}, 8),
        ({"SLURM_CPUS_PER_TASK": "4"}, 4),
        ({"SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "6"}, 4),
        ({"SLURM_CPUS_ON_NODE": "6"}, 6),
        ({"SLURM_CPUS_ON_NODE": "64"}, 8),
        ({"SLURM_CPUS_PER_TASK": ""}, 8),
        ({"SLURM_CPUS_ON_NODE": "4(x2)"}, 8),
    ],
)
def test_processors_are_limited_to_slurms_allocation(
    variables: dict[str, str], processors: int
) -> None:
    assert allocation.processors(variables) == processors


# Memory

NO_GROUPS = Path("/no/such/folder")


def system(root: Path, groups: str, **limits: str) -> Path:
    """Make a fake /proc and /sys with the given control groups and limit files."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups, encoding="utf-8")
    for path, limit in limits.items():
        file = root / "sys/fs/cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n", encoding="ascii")
    return root


def test_without_limits_memory_is_the_machines_total(tmp_path: Path) -> None:
    total = psutil.virtual_memory().total
    assert allocation.memory({}, NO_GROUPS) == total
    unlimited = {"job/memory.max": "max", "memory.max": "max"}
    assert allocation.memory({}, system(tmp_path, "0::/job\n", **unlimited)) == total


@pytest.mark.parametrize("limited", ["job/step/task", "job/step", "job", ""])
def test_memory_is_the_smallest_limit_of_the_fake_control_groups(
    limited: str, tmp_path: Path
) -> None:
    limits = {
        "job/step/task/memory.max": "max",
        "job/step/memory.max": f"{300 * MIB}",
        "job/memory.max": f"{200 * MIB}",
        "beside/memory.max": f"{1 * MIB}",
        f"{limited}/memory.max".lstrip("/"): f"{100 * MIB}",
    }
    assert allocation.memory({}, system(tmp_path, "0::/job/step/task\n", **limits)) == 100 * MIB


def test_memory_respects_the_limits_of_fake_version_1_control_groups(tmp_path: Path) -> None:
    groups = "12:cpu,cpuacct:/cpus\n5:hugetlb,memory:/slurm/uid_1/job_7\n1:name=systemd:/\n0::/\n"
    root = system(
        tmp_path,
        groups,
        **{
            "memory/memory.limit_in_bytes": "9223372036854771712",
            "memory/slurm/uid_1/memory.limit_in_bytes": f"{90 * MIB}",
            "memory/slurm/uid_1/job_7/memory.limit_in_bytes": f"{80 * MIB}",
            "cpu,cpuacct/cpus/memory.limit_in_bytes": f"{1 * MIB}",
        },
    )
    assert allocation.memory({}, root) == 80 * MIB


def test_memory_respects_a_fake_containers_limit_without_the_hosts_groups(
    tmp_path: Path,
) -> None:
    root = system(
        tmp_path,
        "5:memory:/docker/0123abcd\n",
        **{"memory/memory.limit_in_bytes": f"{70 * MIB}"},
    )
    assert allocation.memory({}, root) == 70 * MIB


def test_a_control_group_name_may_contain_colons_and_umlauts(
    tmp_path: Path,
) -> None:
    root = system(tmp_path, "0::/käyttäjä:1\n", **{"käyttäjä:1/memory.max": f"{60 * MIB}"})
    assert allocation.memory({}, root) == 60 * MIB


@pytest.mark.parametrize(
    ("variables", "memory"),
    [
        ({"SLURM_MEM_PER_NODE": "16"}, 16 * MIB),
        ({"SLURM_MEM_PER_CPU": "5", "SLURM_CPUS_ON_NODE": "8"}, 40 * MIB),
        ({"SLURM_MEM_PER_CPU": "5", "SLURM_CPUS_PER_TASK": "2"}, 10 * MIB),
        ({"SLURM_MEM_PER_CPU": "5"}, 5 * MIB),
        ({"SLURM_MEM_PER_NODE": "999999999"}, None),
        ({"SLURM_MEM_PER_NODE": "0"}, None),  # --mem=0 requests all memory
        ({"SLURM_MEM_PER_NODE": ""}, None),
    ],
)
def test_memory_is_limited_to_slurms_allocation(
    variables: dict[str, str], memory: int | None
) -> None:
    assert allocation.memory(variables, NO_GROUPS) == (memory or psutil.virtual_memory().total)


def test_memory_is_the_smaller_of_slurms_limit_and_the_fake_control_groups(tmp_path: Path) -> None:
    root = system(tmp_path, "0::/job\n", **{"job/memory.max": f"{50 * MIB}"})
    assert allocation.memory({"SLURM_MEM_PER_NODE": "40"}, root) == 40 * MIB
    assert allocation.memory({"SLURM_MEM_PER_NODE": "60"}, root) == 50 * MIB


def test_workers_on_one_machine_divide_its_memory() -> None:
    job = {"SLURM_MEM_PER_NODE": "60"}
    assert allocation.memory({**job, "NSYNTH_WORKERS": "4"}, NO_GROUPS) == 15 * MIB
    assert allocation.memory({**job, "NSYNTH_WORKERS": ""}, NO_GROUPS) == 60 * MIB
    with pytest.raises(BadInput, match="NSYNTH_WORKERS: is 'four'"):
        allocation.memory({**job, "NSYNTH_WORKERS": "four"}, NO_GROUPS)


@pytest.mark.parametrize(
    ("tasks", "memory"), [("1", 60), ("4", 15), ("4(x2)", 15), ("1,3(x12)", 20), ("", 60)]
)
def test_the_tasks_of_a_step_on_one_node_divide_its_memory(tasks: str, memory: int) -> None:
    job = {"SLURM_MEM_PER_NODE": "60", "SLURM_STEP_TASKS_PER_NODE": tasks}
    assert allocation.memory(job, NO_GROUPS) == memory * MIB
    assert allocation.memory({**job, "NSYNTH_WORKERS": "5"}, NO_GROUPS) == memory * MIB // 5


# Scratch


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({}, "/tmp"),
        ({"TMPDIR": "/fast"}, "/fast"),
        ({"SLURM_TMPDIR": "/local/7", "TMPDIR": "/fast"}, "/local/7"),
        ({"SLURM_TMPDIR": "", "TMPDIR": ""}, "/tmp"),
    ],
)
def test_scratch_is_slurms_folder_or_the_systems(variables: dict[str, str], folder: str) -> None:
    assert allocation.scratch(variables) == Path(folder)
