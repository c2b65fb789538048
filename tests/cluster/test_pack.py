"""Build packs with Slurm jobs and the image, through failures and time limits."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import psutil

from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.plan import Plan
from tests.cluster import packs
from tests.cluster.packs import ROOT
from tests.cluster.slurm import GPUS_PER_NODE, NODES, Slurm
from tests.cluster.waiting import until

SUBMIT = ROOT / "slurm" / "submit"
GENERATE = ROOT / "slurm" / "generate.slrm"
PADS = ROOT / "slurm" / "pads.slrm"
LIMITED = ("--time=10", "--signal=B:USR1@120")
"""Options of a job that Slurm signals two minutes before its time limit."""


def submitted_jobs(output: str) -> dict[str, str]:
    """Return the job ids in the output of `submit`, by stage."""
    return dict(re.findall(r"(prepare|generate|pads) (\d+)", output.split("submitted: ")[1]))


def submit_generate(
    cluster: Slurm, workspace: Workspace, *options: str, env: dict | None = None
) -> str:
    """Submit generate.slrm with sbatch options; return the job's id."""
    words = ("sbatch", "--parsable", *options, GENERATE, workspace.root, "--threads", "1")
    return cluster.run(*words, cwd=workspace.root, env=env).strip()


def reports(workspace: Workspace) -> list[dict]:
    """Return the last status report of each `generate` worker."""
    return [json.loads(p.read_text()) for p in workspace.status_folder.glob("generate.*.json")]


def blocks(workspace: Workspace) -> list[Path]:
    """Return the finished blocks."""
    return [p for p in workspace.clips.glob("[0-9]*.npy") if ".part" not in p.name]


def assert_blocks_are_complete(workspace: Workspace) -> None:
    """Assert that each finished block can be read and has all its samples."""
    samples = Plan.read(workspace.plan).samples
    for path in blocks(workspace):
        assert np.load(path).shape[1] == samples, path


def test_chained_jobs_on_two_nodes_build_the_same_pads_as_one_machine(
    cluster: Slurm, reference: Workspace, tmp_path: Path
) -> None:
    workspace = packs.new(tmp_path / "pack")
    output = cluster.run(
        SUBMIT, workspace.root, "--gpus=4", "--array=0-1", "--", "--threads", "1", cwd=tmp_path
    )
    jobs = submitted_jobs(output)
    states = cluster.wait(*jobs.values(), seconds=400)

    logs = "\n".join(p.read_text() for p in sorted(tmp_path.glob("*.out")))
    assert states == ["COMPLETED", "COMPLETED COMPLETED", "COMPLETED"], logs
    assert packs.pads(workspace) == packs.pads(reference)
    assert len(packs.pads(workspace)) == 16
    nodes = re.findall(r"Name=nsynth-generate .*NodeList=(\w+)", cluster.history.read_text())
    assert sorted(nodes[-2:]) == list(NODES)
    assert_each_worker_had_its_own_gpu(workspace)


def assert_each_worker_had_its_own_gpu(workspace: Workspace) -> None:
    """Assert that two tasks of four GPUs ran eight workers, each on a GPU of its task."""
    workers = [r for r in reports(workspace) if r["shard"].endswith("-of-8")]
    assert len(workers) == len(NODES) * GPUS_PER_NODE
    assert all(worker["state"] == "done" and worker["total"] > 0 for worker in workers)
    for task in ("0", "1"):
        own = [w["cuda_visible_devices"] for w in workers if w["slurm_array_task_id"] == task]
        assert sorted(own) == [str(gpu) for gpu in range(GPUS_PER_NODE)]


def test_a_job_at_its_time_limit_requeues_itself_and_ends_with_the_same_bytes(
    cluster: Slurm, reference: Workspace, prepared: Workspace
) -> None:
    job = submit_generate(cluster, prepared, *LIMITED)
    let_time_run_out(cluster, job, prepared)
    log = prepared.root / f"nsynth-generate-{job}.out"
    until(lambda: "requeueing" in log.read_text(), 120, "the job to requeue itself")
    set_time_limit(cluster, job, 10)
    assert cluster.wait(job, seconds=400) == ["COMPLETED"]
    text = log.read_text()
    assert "out of time: progress is saved; requeueing" in text
    assert re.search(r"generate: \d+ clips to go, .*\n(?s:.*)generate: \d+ clips to go", text)
    build_pads(cluster, prepared)
    assert packs.pads(prepared) == packs.pads(reference)


def test_a_job_out_of_restarts_fails(cluster: Slurm, prepared: Workspace) -> None:
    job = submit_generate(cluster, prepared, *LIMITED, env={"NSYNTH_MAX_RESTARTS": "0"})
    let_time_run_out(cluster, job, prepared)
    assert cluster.wait(job, seconds=200) == ["FAILED"]
    assert "ExitCode=75" in history_of(cluster, job)
    assert_blocks_are_complete(prepared)


def test_a_dead_node_loses_no_work(
    cluster: Slurm, reference: Workspace, prepared: Workspace
) -> None:
    job = submit_generate(cluster, prepared, "--gpus=4", "--array=0-1")
    until(lambda: working(prepared) >= 6, 120, "most workers to decode")
    cluster.kill_node("n2")
    until(lambda: "down" in cluster.run("sinfo", "-h", "-n", "n2", "-o", "%t"), 90, "n2 to be down")
    cluster.start_node("n2")
    until(lambda: release_held_tasks(cluster, job), 60, "the lost task to be requeued")
    assert "NODE_FAIL" in history_of(cluster, job)
    assert cluster.wait(job, seconds=400) == ["COMPLETED COMPLETED"]
    assert_blocks_are_complete(prepared)
    build_pads(cluster, prepared)
    assert packs.pads(prepared) == packs.pads(reference)


def test_a_killed_worker_fails_its_job_and_cancels_the_next(
    cluster: Slurm, prepared: Workspace
) -> None:
    output = cluster.run(
        SUBMIT, prepared.root, "--gpus=4", "--", "--threads", "1", cwd=prepared.root
    )
    jobs = submitted_jobs(output)
    until(lambda: working(prepared) >= 4, 120, "the workers to decode")
    victim = next(r for r in reports(prepared) if r["shard"] == "2-of-4")
    psutil.Process(victim["pid"]).kill()
    states = cluster.wait(*jobs.values(), seconds=300)
    assert states == ["COMPLETED", "FAILED", "CANCELLED"]
    assert "ExitCode=1" in history_of(cluster, jobs["generate"])
    log = next(prepared.root.glob(f"nsynth-generate-{jobs['generate']}.out")).read_text()
    assert "shard 2/4 on GPU 2 was killed by SIGKILL" in log
    assert packs.pads(prepared) == {}


def test_scancel_leaves_only_complete_blocks_and_the_next_job_resumes(
    cluster: Slurm, reference: Workspace, prepared: Workspace
) -> None:
    job = submit_generate(cluster, prepared, "--gpus=2")
    until(lambda: working(prepared) >= 2, 120, "the workers to decode")
    cluster.run("scancel", job)
    assert cluster.wait(job) == ["CANCELLED"]
    until(lambda: working(prepared) == 0, 30, "the workers to end")
    assert_blocks_are_complete(prepared)
    partial = list(prepared.clips.glob("*.part.npy"))
    assert partial, "the partial block was not saved"

    again = submit_generate(cluster, prepared, "--gpus=2")
    assert cluster.wait(again, seconds=300) == ["COMPLETED"]
    build_pads(cluster, prepared)
    assert packs.pads(prepared) == packs.pads(reference)


def working(workspace: Workspace) -> int:
    """Return how many workers are running and partly done."""

    def alive(report: dict) -> bool:
        return report["state"] == "running" and psutil.pid_exists(report["pid"])

    single = [r for r in reports(workspace) if alive(r) and 0 < r["done"] < r["total"]]
    return len(
        [r for r in single if "cuda_visible_devices" in r and "," not in r["cuda_visible_devices"]]
    )


def let_time_run_out(cluster: Slurm, job: str, workspace: Workspace) -> None:
    """Shorten a decoding job's limit; hold its worker until the job's signal has reached it.

    A fixed limit can end before a slow machine decodes anything, and a fast machine can finish
    within the 30 seconds that Slurm takes to notice a limit.
    """
    until(lambda: working(workspace) >= 1, 120, "the worker to decode")
    worker = psutil.Process(next(r["pid"] for r in reports(workspace) if r["state"] == "running"))
    worker.suspend()
    try:
        *hours, minutes, _seconds = cluster.run("squeue", "-h", "-j", job, "-o", "%M").split(":")
        assert not hours
        set_time_limit(cluster, job, int(minutes) + 2)
        until(lambda: is_pending(signal.SIGURG, worker.pid), 120, "the worker to be signalled")
    finally:
        worker.resume()


def is_pending(number: signal.Signals, pid: int) -> bool:
    """Return whether a process has yet to receive a signal that was sent to it."""
    pending = re.search(r"^ShdPnd:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert pending
    return bool(int(pending[1], 16) >> (number - 1) & 1)


def set_time_limit(cluster: Slurm, job: str, minutes: int) -> None:
    cluster.run("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")


def history_of(cluster: Slurm, job: str) -> str:
    """Return a job's lines of the history."""
    lines = cluster.history.read_text().splitlines()
    return "\n".join(line for line in lines if f"JobId={job} " in line)  # also matches ArrayJobId


def release_held_tasks(cluster: Slurm, job: str) -> bool:
    """Release the tasks that Slurm holds after a node failure; return whether none was held."""
    held = cluster.run("squeue", "-h", "-j", job, "-t", "PD", "-o", "%A %r", check=False)
    for line in held.splitlines():
        if "held" in line:
            cluster.run("scontrol", "release", line.split()[0])
    return "held" not in held


def build_pads(cluster: Slurm, workspace: Workspace) -> None:
    """Build the pads in a job and wait for it."""
    job = cluster.run("sbatch", "--parsable", PADS, workspace.root, cwd=workspace.root).strip()
    assert cluster.wait(job) == ["COMPLETED"]


def test_submit_submits_nothing_if_the_check_fails(cluster: Slurm, tmp_path: Path) -> None:
    workspace = packs.new(tmp_path / "pack")
    (workspace.notes / "cello_60.flac").unlink()
    before = cluster.run("squeue", "-h", "-o", "%i")
    refused = subprocess.run(
        [SUBMIT, workspace.root], env=cluster.environment, capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert "cello_60: missing" in refused.stdout + refused.stderr
    assert cluster.run("squeue", "-h", "-o", "%i") == before


def test_the_engines_agree_inside_a_job(cluster: Slurm, image: Path, tmp_path: Path) -> None:
    """Magenta runs with the image's model, on the CPU because the GPU is fake.

    A complete block would take Magenta an hour; tests/oracle/test_engines.py decodes short ones.
    """
    model = "/opt/nsynth/checkpoint/wavenet.safetensors"
    compare = f"nsynth-super checkpoint compare {model} --clips 1 --samples 16"
    job = cluster.run(
        "sbatch", "--parsable", "--gpus=1", "--mem=16G",
        "--wrap", f"srun singularity exec --nv {image} {compare}", cwd=tmp_path,
    ).strip()  # fmt: skip
    states = cluster.wait(job, seconds=300)
    log = (tmp_path / f"slurm-{job}.out").read_text()
    assert states == ["COMPLETED"], log
    assert "16 of 16 are equal" in log
    assert "magenta 1.1.7, TensorFlow 1.15.0, CPU" in log
