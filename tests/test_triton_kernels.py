"""The GPU's kernels where there is no GPU: interpreted, and compiled for GPUs that are not there.

Neither shows what the other does: the interpreter computes, but takes what no compiler would;
the compiler says nothing about numbers. How fast they are, only a GPU says.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nsynth_super.wavenet import triton_kernels
from nsynth_super.wavenet.tiles import Card, tile
from nsynth_super.wavenet.triton_kernels import missing

CARDS = {
    "A100": Card((8, 0), 108),
    "RTX 4090": Card((8, 9), 128),
    "H200": Card((9, 0), 132),
    "B200": Card((10, 0), 148),
    "RTX 5090": Card((12, 0), 170),
}


@pytest.mark.parametrize("how", ["interpreted", "compiled"])
def test_every_kernel(how):
    """In a process of its own: Triton and TensorFlow bring an LLVM each, and crash in one."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    tests = Path(__file__).with_name(f"{how}_kernels.py")
    interpreted = str(int(how == "interpreted"))
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", tests],
        env={**os.environ, "TRITON_INTERPRET": interpreted, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("parts", [(1024,), (512, 256), (256,), (64,), (128, 64), (192, 320)])
def test_tiles_fit_the_sizes_and_the_card(card, dtype, parts):
    for clips in (1, 3, 63, 64, 65, 200, 512, 2048, 4224, 8064):
        its = tile(clips, parts, dtype, card)
        assert min(its.rows, its.columns, its.inner) >= 16
        assert all(part % its.columns == 0 for part in parts)
        assert its.stages * (its.rows + its.columns) * its.inner * dtype.itemsize <= card.shared
        assert its.rows < 2 * max(clips, 16)
        assert its.grid(clips, sum(parts))[0] * its.rows >= clips


def test_tiles_of_4224_clips_are_one_for_each_unit_of_an_h200():
    its = tile(4224, (1024,), torch.float16, CARDS["H200"])
    assert (its.rows, its.columns) == (128, 256)
    rows, columns = its.grid(4224, 1024)
    assert rows * columns == CARDS["H200"].units


def test_few_clips_keep_many_units_busy():
    for clips in (64, 256, 512, 1024, 2048):
        rows, columns = tile(clips, (1024,), torch.float16, CARDS["H200"]).grid(clips, 1024)
        assert 120 <= rows * columns <= 132


def test_what_is_missing_is_said(monkeypatch):
    assert missing(torch.device("cpu")) == "not an NVIDIA GPU"
    gpu = torch.device("cuda")
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(torch.version, "hip", "6.3")
    assert missing(gpu) == "not an NVIDIA GPU"
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert missing(gpu) == "older than compute capability 8.0"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    found = {"triton": True}
    monkeypatch.setattr(triton_kernels.importlib.util, "find_spec", found.get)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    assert missing(gpu) == "no C compiler for Triton"
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setattr(triton_kernels.sysconfig, "get_path", lambda *names: "/nowhere")
    assert missing(gpu) == "no Python.h for Triton"
    monkeypatch.setattr(triton_kernels.sysconfig, "get_path", lambda *names: str(Path(__file__)))
    monkeypatch.setattr(triton_kernels.Path, "exists", lambda path: True)
    assert missing(gpu) is None
    monkeypatch.setitem(sys.modules, "tensorflow", object())
    assert str(missing(gpu)).startswith("TensorFlow is in this process")
    monkeypatch.delitem(sys.modules, "tensorflow")
    found.clear()
    assert missing(gpu) == "Triton is not installed"


def test_everything_can_be_imported_without_triton():
    """A PyTorch for CPUs, and every PyTorch for Windows or macOS, comes without."""
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from nsynth_super.wavenet import triton_kernels\n"
        "assert triton_kernels.missing(torch.device('cpu'))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_benchmark_checks_the_shapes_without_a_gpu():
    benchmark = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
    dry = [sys.executable, str(benchmark), "--dry-run"]
    ran = subprocess.run(dry, capture_output=True, text=True, check=True)
    assert "4224 clips: logits [4224, 256]" in ran.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_the_benchmark_says_that_there_is_no_gpu():
    benchmark = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
    ran = subprocess.run([sys.executable, str(benchmark)], capture_output=True, text=True)
    assert ran.returncode == 2
    assert ran.stderr.startswith("no GPU")
    assert len(ran.stderr.splitlines()) == 1
