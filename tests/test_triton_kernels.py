"""The GPU's kernels where there is no GPU: interpreted, and compiled for GPUs that are not there.

Neither shows what the other does: the interpreter computes, but takes what no compiler would;
the compiler says nothing about numbers. How fast they are, only a GPU says.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nsynth_super.wavenet import triton_kernels
from nsynth_super.wavenet.dimensions import PUBLISHED
from nsynth_super.wavenet.rewrites import Rewritten
from nsynth_super.wavenet.tiles import Card, tile
from nsynth_super.wavenet.triton_kernels import TritonDecoder, missing

CARDS = {
    "A100": Card((8, 0), 108),
    "RTX 4090": Card((8, 9), 128),
    "H200": Card((9, 0), 132),
    "B200": Card((10, 0), 148),
    "RTX 5090": Card((12, 0), 170),
}
SHARED = {"A100": 163, "RTX 4090": 99, "H200": 227, "B200": 227, "RTX 5090": 99}
"""KiB that a program may take (CUDA programming guide, technical specifications)."""


def test_every_kernel_computes_what_it_should_in_tritons_interpreter():
    """In a process of its own: see `interpreted_kernels.py`."""
    pytest.importorskip("triton", reason="Triton is not installed")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", Path(__file__).with_name("interpreted_kernels.py")],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


class Launches:
    """What stands where the kernels do, and notes what is launched, once each."""

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels
        self.noted: dict[str, tuple[Any, ...]] = {}

    def __getattr__(self, name: str) -> Any:
        return _Noting(self, name, getattr(self._kernels, name))


class _Noting:
    def __init__(self, launches: Launches, name: str, kernel: Any) -> None:
        self._launches, self._name, self._kernel = launches, name, kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*given: Any, num_warps: int = 4, num_stages: int = 3, **named: Any) -> None:
            values = {**dict(zip(self._kernel.arg_names, given, strict=False)), **named}
            types, constants, aligned = {}, {}, {}
            for place, parameter in enumerate(self._kernel.params):
                value = values.pop(parameter.name)
                if parameter.is_constexpr:
                    types[parameter.name], constants[parameter.name] = "constexpr", value
                elif isinstance(value, torch.Tensor):
                    types[parameter.name] = POINTERS[value.dtype]
                    aligned[(place,)] = [["tt.divisibility", 16]]
                else:
                    types[parameter.name] = "i32"
                    assert parameter.do_not_specialize, (
                        "would be compiled while a graph is recorded"
                    )
            assert not values
            assert max(grid[1:], default=1) < 2**16
            options = {"num_warps": num_warps, "num_stages": num_stages}
            key = f"{self._name} {types} {constants} {options}"
            self._launches.noted[key] = (self._kernel, types, constants, aligned, options)

        return launch


POINTERS = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.int64: "*i64",
    torch.uint8: "*u8",
}


def launches(clips: int, dtype: torch.dtype) -> list[tuple[Any, ...]]:
    """Return what the published model's steps launch, each kernel and its arguments once."""
    from nsynth_super.wavenet import kernels

    with torch.device("meta"):
        weights = {name: torch.empty(shape) for name, shape in PUBLISHED.shapes().items()}
        decoder = TritonDecoder(Rewritten(weights, PUBLISHED, dtype), clips)
        decoder._kernels = noting = Launches(kernels)
        decoder.condition(torch.empty(clips, PUBLISHED.embedding))
        decoder.take(torch.empty(1, clips), torch.empty(1, clips, dtype=torch.int64))
        decoder.step(decoder.code)
    return list(noting.noted.values())


@pytest.mark.parametrize(
    ("name", "dtype", "clips"),
    [
        ("A100", torch.float16, 4224),
        ("RTX 4090", torch.float16, 2048),
        ("H200", torch.float16, 1),
        ("H200", torch.float16, 512),
        ("H200", torch.float16, 4224),
        ("H200", torch.bfloat16, 4224),
        ("H200", torch.float32, 4224),
        ("B200", torch.float16, 4224),
        ("RTX 5090", torch.float16, 2048),
    ],
    ids=str,
)
def test_every_kernel_compiles_at_full_size(name, dtype, clips, monkeypatch, tmp_path):
    """For the card, into its shared memory, in 16 bits with no sums spilled from registers."""
    triton = pytest.importorskip("triton", reason="Triton is not installed")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    tools = Path(triton.__file__).with_name("backends") / "nvidia" / "bin"
    if not (tools / "ptxas").exists():
        pytest.skip("this Triton brings no assembler")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    card = CARDS[name]
    monkeypatch.setattr(Card, "of", lambda device: card)
    target = GPUTarget("cuda", 10 * card.capability[0] + card.capability[1], 32)
    every = launches(clips, dtype)
    assert len(every) >= 7
    for kernel, types, constants, aligned, options in every:
        source = ASTSource(kernel, types, constants, aligned)
        compiled = triton.compile(source, target=target, options=options)
        assert compiled.metadata.shared <= SHARED[name] * 1024
        cubin = tmp_path / "cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        usage = subprocess.run(
            [tools / "cuobjdump", "-res-usage", cubin], capture_output=True, text=True, check=True
        )
        (spilled,) = re.findall(r"STACK:(\d+)", usage.stdout)
        if dtype.itemsize == 2:
            assert int(spilled) <= 64, f"{kernel.__name__}: {spilled} bytes a thread"
        ptx = compiled.asm["ptx"]
        if kernel.__name__ in ("gate", "add", "head", "draw", "logits"):
            copied = re.findall(r"cp\.async\.\w+\.shared\.global \[.*?\], \[.*?\], (\w+)", ptx)
            assert set(copied) <= {"0x10", "16"}, "loads are not 16 bytes wide"
        if kernel.__name__ in ("gate", "add") and dtype.itemsize == 2:
            assert re.search(r"wgmma\.mma_async|tcgen05\.mma|mma\.sync", ptx), "no tensor cores"


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
