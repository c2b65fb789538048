"""Test the Triton kernels without a GPU: in Triton's interpreter, and compiled ahead of time.

Each method covers what the other does not: the interpreter computes results, but accepts code that
does not compile; the compiler does not run the code. Only a GPU shows the speed.
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
from nsynth_super.wavenet.tiles import GpuLimits, tile
from nsynth_super.wavenet.triton_kernels import unavailable_reason

GPUS = {
    "A100": GpuLimits((8, 0), 108),
    "RTX 4090": GpuLimits((8, 9), 128),
    "H200": GpuLimits((9, 0), 132),
    "B200": GpuLimits((10, 0), 148),
    "RTX 5090": GpuLimits((12, 0), 170),
}


@pytest.mark.process
@pytest.mark.parametrize(
    ("how", "which"),
    [
        pytest.param("interpreted", "last_layer or certain_code", id="interpreted, two kernels"),
        pytest.param("interpreted", "", id="interpreted", marks=pytest.mark.slow),
        pytest.param("compiled", "", id="compiled", marks=pytest.mark.slow),
    ],
)
def test_every_kernel(how, which):
    """Runs in a separate process, because Triton and TensorFlow crash in the same one."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    tests = Path(__file__).with_name(f"{how}_kernels.py")
    interpreted = str(int(how == "interpreted"))
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", tests, "-k", which],
        env={**os.environ, "TRITON_INTERPRET": interpreted, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("parts", [(1024,), (512, 256), (256,), (64,), (128, 64), (192, 320)])
def test_tiles_fit_the_sizes_and_the_gpu(gpu, dtype, parts):
    for clips in (1, 3, 63, 64, 65, 200, 512, 2048, 4224, 8064):
        chosen = tile(clips, parts, dtype, gpu)
        assert min(chosen.rows, chosen.columns, chosen.inner) >= 16
        assert all(part % chosen.columns == 0 for part in parts)
        stage = (chosen.rows + chosen.columns) * chosen.inner * dtype.itemsize
        assert chosen.stages * stage <= gpu.shared_memory
        assert chosen.rows < 2 * max(clips, 16)
        assert chosen.grid(clips, sum(parts))[0] * chosen.rows >= clips


def test_4224_clips_have_one_tile_per_multiprocessor_of_an_h200():
    chosen = tile(4224, (1024,), torch.float16, GPUS["H200"])
    assert (chosen.rows, chosen.columns) == (128, 256)
    rows, columns = chosen.grid(4224, 1024)
    assert rows * columns == GPUS["H200"].multiprocessors


def test_few_clips_occupy_most_multiprocessors():
    for clips in (64, 256, 512, 1024, 2048):
        rows, columns = tile(clips, (1024,), torch.float16, GPUS["H200"]).grid(clips, 1024)
        assert 120 <= rows * columns <= 132


def test_the_reason_why_triton_is_unavailable_is_returned(monkeypatch):
    assert unavailable_reason(torch.device("cpu")) == "not an NVIDIA GPU"
    gpu = torch.device("cuda")
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(torch.version, "hip", "6.3")
    assert unavailable_reason(gpu) == "not an NVIDIA GPU"
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert unavailable_reason(gpu) == "older than compute capability 8.0"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    found = {"triton": True}
    monkeypatch.setattr(triton_kernels.importlib.util, "find_spec", found.get)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    assert unavailable_reason(gpu) == "no C compiler for Triton"
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setattr(triton_kernels.sysconfig, "get_path", lambda *names: "/nowhere")
    assert unavailable_reason(gpu) == "no Python.h for Triton"
    monkeypatch.setattr(triton_kernels.sysconfig, "get_path", lambda *names: str(Path(__file__)))
    monkeypatch.setattr(triton_kernels.Path, "exists", lambda path: True)
    assert unavailable_reason(gpu) is None
    monkeypatch.setitem(sys.modules, "tensorflow", object())
    assert str(unavailable_reason(gpu)).startswith("TensorFlow is loaded in this process")
    monkeypatch.delitem(sys.modules, "tensorflow")
    found.clear()
    assert unavailable_reason(gpu) == "Triton is not installed"


@pytest.mark.process
def test_the_module_can_be_imported_without_triton():
    """PyTorch for CPUs, Windows and macOS does not include Triton."""
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from nsynth_super.wavenet import triton_kernels\n"
        "assert triton_kernels.unavailable_reason(torch.device('cpu'))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_the_benchmark_checks_the_shapes_without_a_gpu():
    benchmark = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
    dry = [sys.executable, str(benchmark), "--dry-run"]
    ran = subprocess.run(dry, capture_output=True, text=True, check=True)
    assert "4224 clips: logits [4224, 256]" in ran.stdout


@pytest.mark.process
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_the_benchmark_reports_that_there_is_no_gpu():
    benchmark = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
    ran = subprocess.run([sys.executable, str(benchmark)], capture_output=True, text=True)
    assert ran.returncode == 2
    assert "finds no GPU -> --dry-run" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
