"""What this process may use: its share of the plan, GPUs, processors, memory, scratch.

A Slurm task is told by Slurm's variables; elsewhere the machine is asked. Knows nothing of what the
work is, and decides nothing: `workers` and the engines do.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from nsynth_super.problems import BadInput, Problem

SHARDS = "NSYNTH_SHARDS"
"""Names how many parts the plan has, where only some tasks of an array are submitted again."""

WORKERS = "NSYNTH_WORKERS"
"""Names how many processes of ours share this one's memory; `workers` sets it."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that this process may use.

    Attributes
    ----------
    name : str
        What selects it in CUDA_VISIBLE_DEVICES: an index, or a UUID.
    model : str
        What the driver calls it; empty where it cannot be asked.
    capability : tuple of int or None
        CUDA's compute capability, (major, minor); None where the driver cannot be asked.
    """

    name: str
    model: str = ""
    capability: tuple[int, int] | None = None


def in_slurm(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether this process belongs to a Slurm job."""
    return "SLURM_JOB_ID" in environment


def shard(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return which part of how many is this task's: by its place in a job array and in its step.

    An array's tasks share the plan out by their place in the array; the tasks that one `srun`
    started share their array task's part. $NSYNTH_SHARDS says how many parts there are when only
    some tasks of an array run again; the task's number is then its part.

    Raises
    ------
    BadInput
        If $NSYNTH_SHARDS is no number, or the task's number is not below it; if it is not set, and
        the array has gaps: nobody can tell how many parts there are, or which one is whose.
    """
    index, count = 0, 1
    if "SLURM_ARRAY_TASK_ID" in environment:
        task = int(environment["SLURM_ARRAY_TASK_ID"])
        if named := environment.get(SHARDS):
            index, count = task, _positive(SHARDS, named)
            if index >= count:
                raise BadInput(
                    Problem(
                        SHARDS,
                        f"is {count}, and this is task {task} of the array",
                        f"let the array run from 0 to {count - 1}",
                    )
                )
        else:
            first = int(environment.get("SLURM_ARRAY_TASK_MIN", task))
            last = int(environment.get("SLURM_ARRAY_TASK_MAX", task))
            step = int(environment.get("SLURM_ARRAY_TASK_STEP") or 1)
            count = int(environment.get("SLURM_ARRAY_TASK_COUNT", 1))
            index = (task - first) // step
            if count != (last - first) // step + 1:
                raise BadInput(
                    Problem(
                        "the job array",
                        f"has gaps: {count} tasks from {first} to {last}",
                        f"say in {SHARDS} how many parts the plan has",
                    )
                )
    # In a batch script SLURM_NTASKS counts tasks that were asked for; this counts those that run.
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
    task = int(environment.get("SLURM_PROCID", 0)) if tasks > 1 else 0
    return index * tasks + task, count * tasks


def gpus(environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """Return the GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, else all.

    The driver is asked by `nvidia-smi`, which costs no GPU memory and needs no CUDA library. It
    sees all GPUs of the machine, unless Slurm hides them.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    there = _asked()
    if visible is None:
        return [gpu for name, gpu in there.items() if name.isdecimal()]
    named = [name.strip() for name in visible.split(",")]
    if "-1" in named:
        named = named[: named.index("-1")]
    return [there.get(name, Gpu(name)) for name in named if name and name != "NoDevFiles"]


def _asked() -> dict[str, Gpu]:
    """Return the GPUs that the driver tells of, each by its index and by its UUID."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    question = [program, "--query-gpu=index,uuid,name,compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(question, capture_output=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    found: dict[str, Gpu] = {}
    for line in answer.decode(errors="replace").splitlines():
        index, *about = (part.strip() for part in line.split(","))
        if len(about) == 3:  # else it is a line that says what is wrong
            uuid, model, capability = about
            known = re.fullmatch(r"([0-9]+)\.([0-9]+)", capability)
            both = (int(known[1]), int(known[2])) if known else None
            found |= {name: Gpu(name, model, both) for name in (index, uuid)}
    return found


def processors(environment: Mapping[str, str] = os.environ) -> int:
    """Return how many processor cores this process may use."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = environment.get("SLURM_CPUS_PER_TASK") or environment.get("SLURM_CPUS_ON_NODE")
    return min(here, int(given)) if given and given.isdigit() else here


def processor_features(root: Path = Path("/")) -> set[str]:
    """Return what Linux says an x86 processor can do (`avx512_bf16`); elsewhere nothing."""
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return next((set(line.split()[2:]) for line in lines if line.startswith("flags")), set())


def memory(environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> int:
    """Return how many bytes of memory this process may use: the least of what limits it.

    The machine's memory, its control group's limit (a container's, a job's), the job's of Slurm;
    each of $NSYNTH_WORKERS processes has its share, and each of a step's tasks on one node. What is
    free at the moment is not asked: a run that goes on must come to the same number.

    Parameters
    ----------
    environment : mapping of str to str
    root : Path
        Where /proc and /sys are.

    Raises
    ------
    BadInput
        If $NSYNTH_WORKERS is no number.
    """
    limits = [int(psutil.virtual_memory().total), *_cgroup_limits(root)]
    if (per_node := environment.get("SLURM_MEM_PER_NODE", "")).isdigit() and int(per_node):
        limits.append(int(per_node) << 20)
    elif (per_cpu := environment.get("SLURM_MEM_PER_CPU", "")).isdigit() and int(per_cpu):
        cpus = (
            environment.get("SLURM_CPUS_ON_NODE") or environment.get("SLURM_CPUS_PER_TASK") or "1"
        )
        limits.append((int(per_cpu) << 20) * int(cpus))
    workers = _positive(WORKERS, environment.get(WORKERS) or "1")
    return min(limits) // (workers * _tasks_on_a_node(environment))


def _tasks_on_a_node(environment: Mapping[str, str]) -> int:
    """Return how many tasks of this step are on one node, on that which has the most."""
    said = environment.get("SLURM_STEP_TASKS_PER_NODE", "")  # 4(x2),1: two nodes of 4, one of 1
    return max((int(count) for count in re.findall(r"(?:^|,)([0-9]+)", said)), default=1)


def _cgroup_limits(root: Path) -> list[int]:
    """Return the limits of this process's control groups, from its own up to the root."""
    try:
        lines = os.fsdecode((root / "proc/self/cgroup").read_bytes()).splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            mounted, file = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            mounted, file = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = mounted / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder == mounted.parent:
                break
            try:
                said = (folder / file).read_text(encoding="ascii").strip()
            except OSError:
                continue
            if said.isdigit():
                found.append(int(said))
    return found


def scratch(environment: Mapping[str, str] = os.environ) -> Path:
    """Return a fast folder of this machine's: $SLURM_TMPDIR, $TMPDIR, or /tmp."""
    return Path(environment.get("SLURM_TMPDIR") or environment.get("TMPDIR") or "/tmp")


def _positive(name: str, said: str) -> int:
    if said.isdecimal() and int(said) > 0:
        return int(said)
    raise BadInput(Problem(name, f"is {said!r}, expected a number above 0", "unset it, or mend it"))
