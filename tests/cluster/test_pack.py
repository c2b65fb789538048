"""From notes to pads through real Slurm jobs and the real image."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import psutil

from nsynth_super.plan import Plan
from nsynth_super.workspace import Workspace
from tests.cluster import packs
from tests.cluster.packs import ROOT
from tests.cluster.slurm import GPUS_PER_NODE, NODES, Slurm
from tests.cluster.waiting import until

SUBMIT = ROOT / "slurm" / "submit"
GENERATE = ROOT / "slurm" / "generate.slrm"
PADS = ROOT / "slurm" / "pads.slrm"


def submitted(said: str) -> dict[str, str]:
    """Return the job ids that `submit` printed, by stage."""
    return dict(re.findall(r"(prepare|generate|pads) (\d+)", said.split("submitted: ")[1]))


def generating(cluster: Slurm, workspace: Workspace, *options: str, env: dict | None = None) -> str:
    """Submit generate.slrm with options of sbatch; return the job's id."""
    words = ("sbatch", "--parsable", *options, GENERATE, workspace.root, "--threads", "1")
    return cluster.run(*words, cwd=workspace.root, env=env).strip()


def reports(workspace: Workspace) -> list[dict]:
    """Return what every run of `generate` last said of itself."""
    return [json.loads(p.read_text()) for p in workspace.status_folder.glob("generate.*.json")]


def blocks(workspace: Workspace) -> list[Path]:
    """Return the blocks that stand under their final names."""
    return [p for p in workspace.clips.glob("[0-9]*.npy") if ".part" not in p.name]


def assert_whole(workspace: Workspace) -> None:
    """Every file under a final name can be read and has every sample."""
    samples = Plan.read(workspace.plan).samples
    for path in blocks(workspace):
        assert np.load(path).shape[1] == samples, path


def test_three_chained_jobs_on_two_nodes_make_the_same_pads_as_one_machine(
    cluster: Slurm, reference: Workspace, tmp_path: Path
) -> None:
    workspace = packs.new(tmp_path / "pack")
    said = cluster.run(
        SUBMIT, workspace.root, "--gpus=4", "--array=0-1", "--", "--threads", "1", cwd=tmp_path
    )
    jobs = submitted(said)
    states = cluster.wait(*jobs.values(), seconds=400)

    logs = "\n".join(p.read_text() for p in sorted(tmp_path.glob("*.out")))
    assert states == ["COMPLETED", "COMPLETED COMPLETED", "COMPLETED"], logs
    assert packs.pads(workspace) == packs.pads(reference)
    assert len(packs.pads(workspace)) == 16
    nodes = re.findall(r"Name=nsynth-generate .*NodeList=(\w+)", cluster.history.read_text())
    assert sorted(nodes[-2:]) == list(NODES)


def test_each_worker_has_a_gpu_of_its_own(cluster: Slurm, prepared: Workspace) -> None:
    job = generating(cluster, prepared, "--gpus=4", "--array=0-1")
    assert cluster.wait(job) == ["COMPLETED COMPLETED"]
    workers = [r for r in reports(prepared) if r["shard"].endswith("-of-8")]
    assert len(workers) == len(NODES) * GPUS_PER_NODE
    assert all(worker["state"] == "done" and worker["total"] > 0 for worker in workers)
    for task in ("0", "1"):
        own = [w["cuda_visible_devices"] for w in workers if w["slurm_array_task_id"] == task]
        assert sorted(own) == [str(gpu) for gpu in range(GPUS_PER_NODE)]


def test_a_job_cut_by_its_time_limit_goes_back_into_the_queue_and_ends_with_the_same_bytes(
    cluster: Slurm, reference: Workspace, prepared: Workspace
) -> None:
    job = generating(cluster, prepared, "--time=1", "--signal=B:USR1@50")
    assert cluster.wait(job, seconds=400) == ["COMPLETED"]
    log = next(prepared.root.glob("nsynth-generate-*.out")).read_text()
    assert "back into the queue" in log
    assert re.search(r"generate: \d+ clips to go, .*\n(?s:.*)generate: \d+ clips to go", log)
    finish(cluster, prepared)
    assert packs.pads(prepared) == packs.pads(reference)


def test_no_more_than_so_many_restarts(cluster: Slurm, prepared: Workspace) -> None:
    few = {"NSYNTH_MAX_RESTARTS": "0"}
    job = generating(cluster, prepared, "--time=1", "--signal=B:USR1@50", env=few)
    assert cluster.wait(job, seconds=200) == ["FAILED"]
    assert "ExitCode=75" in history_of(cluster, job)
    assert_whole(prepared)


def test_a_node_that_dies_in_the_middle_loses_nothing(
    cluster: Slurm, reference: Workspace, prepared: Workspace
) -> None:
    job = generating(cluster, prepared, "--gpus=4", "--array=0-1")
    until(lambda: working(prepared) >= 6, 120, "most workers to decode")
    cluster.kill_node("n2")
    until(lambda: "down" in cluster.run("sinfo", "-h", "-n", "n2", "-o", "%t"), 90, "n2 to be down")
    cluster.start_node("n2")
    until(lambda: releasable(cluster, job), 60, "the lost task to come back")
    assert "NODE_FAIL" in history_of(cluster, job)
    assert cluster.wait(job, seconds=400) == ["COMPLETED COMPLETED"]
    assert_whole(prepared)
    finish(cluster, prepared)
    assert packs.pads(prepared) == packs.pads(reference)


def test_a_worker_that_fails_fails_its_job_by_name_and_stops_the_chain(
    cluster: Slurm, prepared: Workspace
) -> None:
    said = cluster.run(SUBMIT, prepared.root, "--gpus=4", "--", "--threads", "1", cwd=prepared.root)
    jobs = submitted(said)
    until(lambda: working(prepared) >= 4, 120, "the workers to decode")
    victim = next(r for r in reports(prepared) if r["shard"] == "2-of-4")
    psutil.Process(victim["pid"]).kill()
    states = cluster.wait(*jobs.values(), seconds=300)
    assert states == ["COMPLETED", "FAILED", "CANCELLED"]
    assert "ExitCode=1" in history_of(cluster, jobs["generate"])
    log = next(prepared.root.glob(f"nsynth-generate-{jobs['generate']}.out")).read_text()
    assert "shard 2/4 on GPU 2 was killed by SIGKILL" in log
    assert packs.pads(prepared) == {}


def test_scancel_leaves_nothing_half_written_and_the_next_job_goes_on(
    cluster: Slurm, reference: Workspace, prepared: Workspace
) -> None:
    job = generating(cluster, prepared, "--gpus=2")
    until(lambda: working(prepared) >= 2, 120, "the workers to decode")
    cluster.run("scancel", job)
    assert cluster.wait(job) == ["CANCELLED"]
    until(lambda: working(prepared) == 0, 30, "the workers to end")
    assert_whole(prepared)
    begun = list(prepared.clips.glob("*.part.npy"))
    assert begun, "the block under way was saved"

    again = generating(cluster, prepared, "--gpus=2")
    assert cluster.wait(again, seconds=300) == ["COMPLETED"]
    finish(cluster, prepared)
    assert packs.pads(prepared) == packs.pads(reference)


def working(workspace: Workspace) -> int:
    """Return how many workers decode at this moment and are some way into a block."""

    def alive(report: dict) -> bool:
        return report["state"] == "running" and psutil.pid_exists(report["pid"])

    single = [r for r in reports(workspace) if alive(r) and 0 < r["done"] < r["total"]]
    return len(
        [r for r in single if "cuda_visible_devices" in r and "," not in r["cuda_visible_devices"]]
    )


def history_of(cluster: Slurm, job: str) -> str:
    """Return what the history says of a job."""
    lines = cluster.history.read_text().splitlines()
    return "\n".join(line for line in lines if f"JobId={job} " in line)  # an array's as well


def releasable(cluster: Slurm, job: str) -> bool:
    """Release the tasks that Slurm holds after a node's failure; tell whether all may run."""
    held = cluster.run("squeue", "-h", "-j", job, "-t", "PD", "-o", "%A %r", check=False)
    for line in held.splitlines():
        if "held" in line:
            cluster.run("scontrol", "release", line.split()[0])
    return "held" not in held


def finish(cluster: Slurm, workspace: Workspace) -> None:
    """Build the pads in a job."""
    job = cluster.run("sbatch", "--parsable", PADS, workspace.root, cwd=workspace.root).strip()
    assert cluster.wait(job) == ["COMPLETED"]


def test_the_check_refuses_a_pack_before_anything_is_submitted(
    cluster: Slurm, tmp_path: Path
) -> None:
    workspace = packs.new(tmp_path / "pack")
    (workspace.notes / "cello_60.flac").unlink()
    before = cluster.run("squeue", "-h", "-o", "%i")
    refused = subprocess.run(
        [SUBMIT, workspace.root], env=cluster.environment, capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert "cello_60: missing" in refused.stdout + refused.stderr
    assert cluster.run("squeue", "-h", "-o", "%i") == before


def test_both_engines_agree_inside_a_job(cluster: Slurm, image: Path, tmp_path: Path) -> None:
    """The real Magenta on the image's own model. The GPU is fake, so it says that it cannot use it.

    A whole block by Magenta would take an hour here; tests/oracle/test_engines.py makes short ones.
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
    assert "16 of 16 are drawn alike" in log
    assert "magenta 1.1.7, TensorFlow 1.15.0, CPU" in log
