"""Compile the Triton kernels ahead of time for several GPUs; run by `test_triton_kernels.py`.

Runs in a separate process, like `interpreted_kernels.py`.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from nsynth_super.wavenet import kernels
from nsynth_super.wavenet.dimensions import PUBLISHED
from nsynth_super.wavenet.rewrites import Rewritten
from nsynth_super.wavenet.tiles import GpuLimits
from nsynth_super.wavenet.triton_kernels import TritonDecoder
from tests.test_triton_kernels import GPUS

SHARED = {"A100": 163, "RTX 4090": 99, "H200": 227, "B200": 227, "RTX 5090": 99}
"""Shared memory for one program, in KiB (CUDA programming guide, technical specifications)."""


OPTIONS = {"num_warps", "num_stages", "launch_pdl"}


class Launches:
    """Replacement of the module `kernels` that records distinct launches."""

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels
        self.recorded: dict[str, tuple[Any, ...]] = {}

    def __getattr__(self, name: str) -> Any:
        return _Recorder(self, name, getattr(self._kernels, name))


class _Recorder:
    def __init__(self, launches: Launches, name: str, kernel: Any) -> None:
        self._launches, self._name, self._kernel = launches, name, kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*given: Any, **named: Any) -> None:
            options = {"num_warps": 4, "num_stages": 3}
            options |= {name: named.pop(name) for name in OPTIONS & named.keys()}
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
                    assert parameter.do_not_specialize, "would be compiled during a graph capture"
            assert not values
            assert max(grid[1:], default=1) < 2**16
            key = f"{self._name} {types} {constants} {options}"
            self._launches.recorded[key] = (self._kernel, types, constants, aligned, options)

        return launch


POINTERS = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.int64: "*i64",
    torch.uint8: "*u8",
}


def launches(clips: int, dtype: torch.dtype) -> list[tuple[Any, ...]]:
    """Return the distinct kernel launches of the published model's steps."""
    with torch.device("meta"):
        weights = {name: torch.empty(shape) for name, shape in PUBLISHED.shapes().items()}
        decoder = TritonDecoder(Rewritten(weights, PUBLISHED, dtype), clips)
        decoder._kernels = recorder = Launches(kernels)
        decoder.condition(torch.empty(clips, PUBLISHED.embedding))
        decoder.take(torch.empty(1, clips), torch.empty(1, clips, dtype=torch.int64))
        decoder.step(decoder.code)
    return list(recorder.recorded.values())


@pytest.mark.parametrize(
    ("name", "dtype", "clips"),
    [
        ("A100", torch.float16, 4224),
        ("RTX 4090", torch.float16, 2048),
        ("H200", torch.float16, 1),
        ("A100", torch.float16, 64),
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
    """They fit the GPU's shared memory, and spill no accumulators from registers in 16 bits."""
    tools = Path(triton.__file__).with_name("backends") / "nvidia" / "bin"
    if not (tools / "ptxas").exists():
        pytest.skip("this Triton includes no assembler")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    gpu = GPUS[name]
    monkeypatch.setattr(GpuLimits, "of", lambda device: gpu)
    target = GPUTarget("cuda", 10 * gpu.capability[0] + gpu.capability[1], 32)
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
            assert int(spilled) <= 64, f"{kernel.__name__}: {spilled} bytes per thread"
        ptx = compiled.asm["ptx"]
        if kernel.__name__ in ("past", "gate", "add", "head", "draw", "logits"):
            copied = re.findall(r"cp\.async\.\w+\.shared\.global \[.*?\], \[.*?\], (\w+)", ptx)
            assert set(copied) <= {"0x10", "16"}, "loads are not 16 bytes wide"
        if kernel.__name__ in ("past", "gate", "add") and dtype.itemsize == 2:
            assert re.search(r"wgmma\.mma_async|tcgen05\.mma|mma\.sync", ptx), "no tensor cores"
        if kernel.__name__ in ("past", "gate", "add"):
            code = subprocess.run(
                [tools / "cuobjdump", "-sass", cubin], capture_output=True, text=True, check=True
            )
            assert "I2F" not in code.stdout, "a layer's kernel divides integers"
        assert ("griddepcontrol.wait" in ptx) == (gpu.capability >= (9, 0))
