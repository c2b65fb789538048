"""The image: its metadata, its contents, and its isolation from the host."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from nsynth_super import __version__
from nsynth_super.base.workspace import Workspace
from tests.cluster import packs
from tests.cluster.container import environment, singularity
from tests.cluster.packs import ROOT
from tests.cluster.waiting import until


def test_labels_describe_the_image(image: Path) -> None:
    inspected = json.loads(singularity("inspect", "--json", image).stdout)
    labels = inspected["data"]["attributes"]["labels"]
    assert labels["org.opencontainers.image.title"] == "nsynth-super"
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.revision"] not in ("", "unknown")
    assert labels["nsynth.magenta"] == "magenta-gpu 1.1.7, tensorflow-gpu 1.15.0, patched"
    assert len(labels["nsynth.checkpoint.sha256"]) == len(labels["nsynth.checkpoint.weights"]) == 64


def test_the_image_was_built_from_the_current_definition(image: Path) -> None:
    """Ignore comments and lines that contain arguments."""

    def relevant_lines(text: str) -> list[str]:
        return [
            line.strip()
            for line in text.splitlines()
            if "{{" not in line and line.strip()[:1] not in ("", "#")
        ]

    built = set(relevant_lines(singularity("inspect", "--deffile", image).stdout))
    current = relevant_lines((ROOT / "Singularity.def").read_text(encoding="utf-8"))
    assert [line for line in current if line not in built and "=" not in line.split()[0]] == []


def test_help_is_available_for_the_image_and_each_app(image: Path) -> None:
    help_text = singularity("run-help", image).stdout
    assert "singularity run nsynth.sif new my-pack" in help_text
    for app in ("prepare", "generate", "pads"):
        assert f"--app {app} nsynth.sif" in singularity("run-help", "--app", app, image).stdout
        shown = singularity("run", "--app", app, image, "--help").stdout
        assert f"Usage: nsynth-super {app}" in shown
        assert shown == singularity("exec", image, app, "--help").stdout
    assert "Usage: nsynth-super" in singularity("run", image, "--help").stdout


def test_the_image_contains_no_installers_tests_or_build_files(image: Path) -> None:
    probe = (
        "for p in c++ clang pip pip3 pip2 virtualenv patch make; do command -v $p; done;"
        "find /opt/nsynth -type d -name tests; find /build -mindepth 1 2>/dev/null;"
        "ls /var/lib/apt/lists"
    )
    found = singularity("exec", "--contain", image, "sh", "-c", probe, check=False).stdout
    assert found == ""


def test_triton_can_compile_kernel_launchers(image: Path) -> None:
    """Compile against Python's header with gcc: the most that a machine without a GPU can test."""
    build = (
        "include=$(python -c 'import sysconfig; print(sysconfig.get_path(\"include\"))');"
        "echo '#include <Python.h>' | gcc -shared -fPIC -x c -I$include -o /tmp/it.so -"
    )
    assert singularity("exec", "--contain", image, "sh", "-c", build).returncode == 0


@pytest.mark.parametrize("python", ["python", "/opt/nsynth/py27/bin/python"])
def test_both_pythons_import_the_images_packages(image: Path, python: str) -> None:
    code = "import sys, numpy; print(sys.version_info[:2], numpy.__file__)"
    assert "/opt/nsynth/py" in singularity("exec", image, python, "-c", code).stdout


def test_the_hosts_python_settings_have_no_effect(image: Path, tmp_path: Path) -> None:
    for module in ("numpy", "click", "sitecustomize"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('imported from the host')\n")
    variables = ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE")
    poison = dict.fromkeys(variables, str(tmp_path))
    version = singularity("run", image, "--version", env=poison, cwd=tmp_path).stdout
    assert __version__ in version
    python_path = {"PYTHONPATH": str(tmp_path)}
    assert (
        singularity("exec", image, "python", "-c", "import numpy", env=python_path).returncode == 0
    )


def test_the_image_reads_magentas_checkpoint(image: Path, tmp_path: Path) -> None:
    tar = ROOT / ".cluster" / "www" / "wavenet-ckpt.tar"
    output = singularity(
        "run", image, "checkpoint", "verify", tar, env={"NSYNTH_CACHE": str(tmp_path)}
    ).stdout
    assert ": another checkpoint; all 1,495 checksums are right" in output
    weights = output.split("sha256 of the weights ")[1].strip()
    labels = singularity("inspect", image).stdout
    assert f"nsynth.checkpoint.weights: {weights}" in labels


def test_magenta_is_refused_on_a_gpu_that_cuda_10_cannot_drive(
    image: Path, prepared: Workspace, tmp_path: Path
) -> None:
    fake = tmp_path / "fake-nvidia-smi"
    fake.write_text("#!/bin/sh\necho '0, GPU-fake, NVIDIA H200, 9.0'\n")
    fake.chmod(0o755)
    refused = singularity(
        "exec", "--bind", f"{fake}:/usr/local/bin/nvidia-smi", image,
        "generate", "-w", prepared.root, "--engine", "magenta", check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "NVIDIA H200" in refused.stderr
    assert "9.0" in refused.stderr
    assert "--engine torch" in refused.stderr


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_apptainer_stops_the_workers(
    image: Path, model: Path, prepared: Workspace, sent: signal.Signals
) -> None:
    """Slurm signals the process that it started, which is Apptainer's."""
    variables = {**environment(), "NSYNTH_CHECKPOINT": str(model), "CUDA_VISIBLE_DEVICES": "0,1"}
    words = ["singularity", "exec", image, "generate", "-w", prepared.root, "--threads", "1"]
    with subprocess.Popen(words, env=variables, stderr=subprocess.PIPE, text=True) as running:
        reports = prepared.status_folder
        until(lambda: len(list(reports.glob("generate.*-of-2.json"))) == 2, 60, "two workers")
        until(lambda: all(_done(p) > 0 for p in reports.glob("generate.*-of-2.json")), 60, "work")
        running.send_signal(sent)
        assert running.wait(60) == 75, running.stderr.read()
    assert list(prepared.clips.glob("*.part.npy"))


def _done(report: Path) -> float:
    return float(json.loads(report.read_text())["done"])


def test_output_files_belong_to_the_user_who_ran_the_image(reference: Workspace) -> None:
    assert packs.pads(reference)
    files = [path for path in reference.root.rglob("*") if path.is_file()]
    assert {path.stat().st_uid for path in files} == {os.getuid()}
