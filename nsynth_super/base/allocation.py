"""Find the resources allocated to this process: shard, GPUs, CPU cores, memory, scratch folder.

Slurm's environment variables take precedence; without them the machine's own limits apply. This
module only reports: the worker plan and the engines decide how to use the resources.
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

from nsynth_super.base.errors import BadInput, Problem

SHARDS = "NSYNTH_SHARDS"
"""Environment variable: number of shards, for an array of which only some tasks are resubmitted."""

WORKERS = "NSYNTH_WORKERS"
"""Environment variable: number of workers that share the memory; set by the parent process."""


@dataclass(frozen=True)
class Gpu:
    """A GPU that this process may use.

    Attributes
    ----------
    name : str
        Its entry in CUDA_VISIBLE_DEVICES: an index or a UUID.
    model : str
        Model name from the driver; empty if the driver does not list the GPU.
    capability : tuple of int or None
        CUDA compute capability, (major, minor); None if the driver does not list the GPU.
    """

    name: str
    model: str = ""
    capability: tuple[int, int] | None = None


def shard(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return this task's shard as (index, count), from its place in the job array and the step.

    The tasks of a job array divide the plan by their position in the array; the tasks of one `srun`
    divide their array task's shard. If only some tasks of an array run again, $NSYNTH_SHARDS gives
    the number of shards, and the task number is the index.

    Raises
    ------
    BadInput
        If $NSYNTH_SHARDS is not a positive number or not above the task number; or if it is unset
        and the array has gaps, which leave the number of shards unknown.
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
                        f"is {count}, but this is array task {task}",
                        f"number the array tasks from 0 to {count - 1}",
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
                        f"set {SHARDS} to the number of shards",
                    )
                )
    # In a batch script SLURM_NTASKS is the number of requested tasks, not of running ones.
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
    task = int(environment.get("SLURM_PROCID", 0)) if tasks > 1 else 0
    return index * tasks + task, count * tasks


def gpus(environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """Return the GPUs that this process may use: those in CUDA_VISIBLE_DEVICES, or all if unset.

    `nvidia-smi` provides the details: unlike a CUDA library, it takes no GPU memory. It lists every
    GPU of the machine unless Slurm hides some.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    installed = _installed_gpus()
    if visible is None:
        return [gpu for name, gpu in installed.items() if name.isdecimal()]
    named = [name.strip() for name in visible.split(",")]
    if "-1" in named:
        named = named[: named.index("-1")]
    return [installed.get(name, Gpu(name)) for name in named if name and name != "NoDevFiles"]


def _installed_gpus() -> dict[str, Gpu]:
    """Return the GPUs that the driver lists, keyed by index and by UUID."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    query = [program, "--query-gpu=index,uuid,name,compute_cap", "--format=csv,noheader"]
    try:
        output = subprocess.run(query, capture_output=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    found: dict[str, Gpu] = {}
    for line in output.decode(errors="replace").splitlines():
        index, *details = (part.strip() for part in line.split(","))
        if len(details) == 3:  # otherwise the line is an error message
            uuid, model, capability = details
            match = re.fullmatch(r"([0-9]+)\.([0-9]+)", capability)
            version = (int(match[1]), int(match[2])) if match else None
            found |= {name: Gpu(name, model, version) for name in (index, uuid)}
    return found


def processors(environment: Mapping[str, str] = os.environ) -> int:
    """Return the number of CPU cores that this process may use."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = environment.get("SLURM_CPUS_PER_TASK") or environment.get("SLURM_CPUS_ON_NODE")
    return min(here, int(given)) if given and given.isdigit() else here


def processor_features(root: Path = Path("/")) -> set[str]:
    """Return the x86 CPU flags that Linux lists (such as `avx512_bf16`); elsewhere an empty set."""
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return next((set(line.split()[2:]) for line in lines if line.startswith("flags")), set())


def memory(environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> int:
    """Return how many bytes of memory this process may use: the smallest limit that applies.

    Limits are the machine's memory, the control groups (of a container or a job) and Slurm's
    allocation, divided by the tasks on this node and by $NSYNTH_WORKERS. Free memory is ignored:
    a resumed run must find the same number.

    Parameters
    ----------
    environment : mapping of str to str
    root : Path
        Folder that contains proc/ and sys/.

    Raises
    ------
    BadInput
        If $NSYNTH_WORKERS is not a positive number.
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
    """Return the largest number of this step's tasks on one node."""
    counts = environment.get("SLURM_STEP_TASKS_PER_NODE", "")  # "4(x2),1": nodes with 4, 4 and 1
    return max((int(count) for count in re.findall(r"(?:^|,)([0-9]+)", counts)), default=1)


def _cgroup_limits(root: Path) -> list[int]:
    """Return the memory limits of this process's control group and of its parents, in bytes."""
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
                limit = (folder / file).read_text(encoding="ascii").strip()
            except OSError:
                continue
            if limit.isdigit():
                found.append(int(limit))
    return found


def scratch(environment: Mapping[str, str] = os.environ) -> Path:
    """Return a fast local folder: $SLURM_TMPDIR, $TMPDIR or /tmp."""
    return Path(environment.get("SLURM_TMPDIR") or environment.get("TMPDIR") or "/tmp")


def _positive(name: str, value: str) -> int:
    if value.isdecimal() and int(value) > 0:
        return int(value)
    raise BadInput(Problem(name, f"is {value!r}, expected a number above 0", "fix it or unset it"))
