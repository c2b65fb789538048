"""The PyTorch engine: choice of device, precision and path, and behavior without memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nsynth_super.base import allocation
from nsynth_super.base.allocation import Gpu
from nsynth_super.base.errors import BadInput, Failed
from nsynth_super.base.workspace import Workspace
from nsynth_super.engines import pytorch, pytorch_device
from nsynth_super.engines.base import Batch
from nsynth_super.engines.opening import open_engine
from nsynth_super.engines.pytorch import TorchEngine
from nsynth_super.pack.plan import BLOCK, Plan
from nsynth_super.settings import read
from nsynth_super.stages import generate, prepare
from nsynth_super.wavenet import random as untrained
from nsynth_super.wavenet.cpu import CpuDecoder
from nsynth_super.wavenet.cuda import GpuDecoder
from nsynth_super.wavenet.rewrites import Rewritten
from tests.conftest import SMALL

BLOCKS = 5


# Device and precision


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(allocation, "gpus", list)


@pytest.mark.parametrize(
    ("features", "width", "precision"),
    [
        ({"avx512f", "avx512_bf16"}, 512, "bf16"),
        ({"amx_bf16"}, 512, "bf16"),
        ({"avx512f"}, 512, "fp32"),
        (set(), 512, "fp32"),
        ({"avx512_bf16"}, 64, "fp32"),
    ],
)
def test_16_bits_are_chosen_for_large_models_on_processors_that_support_them(
    features: set[str], width: int, precision: str, no_gpu: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(allocation, "processor_features", lambda: features)
    monkeypatch.setattr(pytorch_device, "prepacks", lambda dtype: True)
    assert pytorch_device.choose("auto", "auto", width).precision == precision


def test_an_explicit_precision_is_used(no_gpu: None):
    for precision, dtype in pytorch_device.PRECISIONS.items():
        chosen = pytorch_device.choose("cpu", precision, 512)
        assert chosen.dtype == dtype
        assert str(chosen) == f"CPU, {precision}"


def test_an_unavailable_device_is_rejected(no_gpu: None):
    with pytest.raises(BadInput, match=r"--device cuda: PyTorch .* finds no such GPU -> install"):
        pytorch_device.choose("cuda", "auto", 512)


def test_a_gpu_that_pytorch_does_not_support_causes_a_warning(
    no_gpu: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The GPU is fake: it replaces the output of `nvidia-smi`."""
    monkeypatch.setattr(allocation, "gpus", lambda: [Gpu("0", "NVIDIA H100", (9, 0))])
    assert pytorch_device.choose("auto", "auto", 512).device.type == "cpu"
    assert "warning: NVIDIA H100 is not used: PyTorch" in capsys.readouterr().err
    pytorch_device.choose("cpu", "auto", 512)
    assert capsys.readouterr().err == ""


def test_processor_features_come_from_cpuinfo(tmp_path: Path):
    (tmp_path / "proc").mkdir()
    assert allocation.processor_features(tmp_path) == set()
    (tmp_path / "proc" / "cpuinfo").write_text("model name\t: A\nflags\t\t: fpu avx512_bf16\n")
    assert allocation.processor_features(tmp_path) == {"fpu", "avx512_bf16"}


# Paths


def a_batch(clips: int = 3, samples: int = 700) -> Batch:
    rng = np.random.default_rng(1)
    return Batch(
        encodings=rng.standard_normal((clips, 2, SMALL.embedding)).astype(np.float32),
        keys=list(range(clips)),
        seed=1,
        samples=samples,
        begun=np.empty((clips, 0), dtype=np.uint8),
    )


def codes(engine: TorchEngine, batch: Batch) -> np.ndarray:
    return np.concatenate([piece.codes for piece in engine.decode(batch)], axis=1)


def test_the_gpu_path_samples_the_same_codes_as_the_cpu_path(small_checkpoint: Path):
    """Runs on the CPU: many steps per call, several queued calls, and an incomplete last call."""
    ours, other = (open_engine(small_checkpoint, threads=1, device="cpu") for _ in range(2))
    assert isinstance(ours, TorchEngine)
    assert isinstance(other, TorchEngine)
    other._path = GpuDecoder
    assert (codes(ours, a_batch()) == codes(other, a_batch())).all()


class Wrong(GpuDecoder):
    """A path that computes wrong results."""

    name = "Wrong"

    def step(self, codes: Tensor) -> Tensor:
        return super().step(codes).roll(1, 1)


class Broken(GpuDecoder):
    """A path that fails."""

    name = "Broken"

    def step(self, codes: Tensor) -> Tensor:
        raise RuntimeError("no kernel image is available for execution on the device\nmore")


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes the engine choose among paths as on a (fake) GPU."""

    def choose_among(*paths: type[GpuDecoder]) -> None:
        monkeypatch.setattr(TorchEngine, "shares_cores", False)
        monkeypatch.setattr(pytorch, "_gpu_paths", lambda device: list(paths))

    return choose_among


def test_paths_are_verified_on_the_gpu_before_use(
    as_on_a_gpu: Callable[..., None], small_checkpoint: Path, capsys: pytest.CaptureFixture[str]
):
    engine = open_engine(small_checkpoint, threads=1, device="cpu")
    assert isinstance(engine, TorchEngine)
    expected = codes(engine, a_batch())
    as_on_a_gpu(Wrong, Broken, GpuDecoder)
    engine = open_engine(small_checkpoint, threads=1, device="cpu")
    assert isinstance(engine, TorchEngine)
    assert (codes(engine, a_batch()) == expected).all()
    assert engine._path is GpuDecoder
    warnings = capsys.readouterr().err
    assert "warning: Wrong computes wrong results on this GPU (" in warnings
    assert "warning: Broken does not run on this GPU: no kernel image is available" in warnings


def test_a_gpu_without_a_correct_path_is_rejected(
    as_on_a_gpu: Callable[..., None], small_checkpoint: Path
):
    as_on_a_gpu(Wrong)
    engine = open_engine(small_checkpoint, threads=1, device="cpu")
    assert isinstance(engine, TorchEngine)
    with pytest.raises(Failed, match="computes wrong results -> try"):
        codes(engine, a_batch())


def test_the_fastest_correct_path_is_used(
    as_on_a_gpu: Callable[..., None], small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    class Other(GpuDecoder):
        pass

    seconds = {GpuDecoder: 0.2, Other: 0.1}
    as_on_a_gpu(GpuDecoder, Other)
    monkeypatch.setattr(
        TorchEngine, "_step_seconds", lambda self, decoder, limit: seconds[type(decoder)]
    )
    engine = open_engine(small_checkpoint, threads=1, device="cpu")
    assert isinstance(engine, TorchEngine)
    codes(engine, a_batch(samples=10))
    assert engine._path is Other


def test_most_codes_are_the_same_in_16_bits(small_checkpoint: Path):
    """The random numbers are the same, so codes are equal until rounding changes one."""
    first = []
    for precision in ("fp32", "fp16"):
        engine = open_engine(small_checkpoint, threads=1, device="cpu", precision=precision)
        assert isinstance(engine, TorchEngine)
        first.append(codes(engine, a_batch(64, 50)))
    assert (first[0] == first[1]).mean() > 0.9


# Memory


@pytest.fixture
def prepared(
    make_workspace: Callable[..., Workspace], small_checkpoint: Path
) -> tuple[Workspace, Any, TorchEngine]:
    """A plan of five blocks; the last one is shorter."""
    workspace = make_workspace(resolution=3, pitches=list(range(40, 73)), final_length=60)
    settings, _ = read(workspace.settings)
    engine = open_engine(small_checkpoint, threads=1, device="cpu")
    assert isinstance(engine, TorchEngine)
    assert settings is not None
    prepare.run_prepare(workspace, settings, engine, quiet=True)
    plan = Plan.read(workspace.plan)
    assert plan is not None
    assert plan.blocks == BLOCKS
    return workspace, settings, engine


def all_blocks(workspace: Workspace) -> list[bytes]:
    return [path.read_bytes() for path in sorted(workspace.clips.glob("*.npy"))]


@pytest.fixture
def memory_for(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that limits memory to `clips` clips, optionally after some steps."""

    def limit(clips: int, from_step: int = 0) -> None:
        step = CpuDecoder.step
        steps = [0]

        def step_or_fail(self: CpuDecoder, codes: Tensor) -> Tensor:
            steps[0] += 1
            if self.clips > clips and steps[0] > from_step:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return step(self, codes)

        monkeypatch.setattr(CpuDecoder, "step", step_or_fail)

    return limit


@pytest.mark.slow
@pytest.mark.parametrize("from_step", [0, 300])
def test_a_batch_that_exceeds_memory_is_halved_until_it_fits(
    from_step: int,
    prepared: tuple[Workspace, Any, TorchEngine],
    memory_for: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
):
    workspace, settings, engine = prepared
    memory_for(2 * BLOCK, from_step)
    done = generate.run_generate(workspace, settings, engine, batch_clips=BLOCKS * BLOCK)
    assert done.made == 9 * 33
    said = capsys.readouterr().err
    assert "generate: 297 clips at once are too many: continuing with 192\n" in said
    assert said.count("too many") == 2
    halved = all_blocks(workspace)
    assert len(halved) == BLOCKS
    assert not list(workspace.clips.glob("*.part*"))


@pytest.mark.slow
def test_a_halved_batch_resumes_from_its_codes(
    prepared: tuple[Workspace, Any, TorchEngine],
    memory_for: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    workspace, settings, engine = prepared
    begun: list[int] = []
    decode = TorchEngine.decode

    def recording(self: TorchEngine, batch: Batch) -> Any:
        begun.append(batch.begun.shape[1])
        return decode(self, batch)

    monkeypatch.setattr(TorchEngine, "decode", recording)
    monkeypatch.setattr(pytorch, "CHUNK_SECONDS", 0.0)
    memory_for(4 * BLOCK, from_step=300)
    generate.run_generate(workspace, settings, engine, batch_clips=BLOCKS * BLOCK)
    assert begun == [0, 300, 300]


def test_too_little_memory_for_a_block_is_a_one_line_error(
    prepared: tuple[Workspace, Any, TorchEngine], memory_for: Callable[..., None]
):
    workspace, settings, engine = prepared
    memory_for(BLOCK - 1)
    with pytest.raises(Failed, match="64 clips at once are too many -> free some memory"):
        generate.run_generate(workspace, settings, engine, batch_clips=BLOCKS * BLOCK, quiet=True)
    assert all_blocks(workspace) == []


def test_only_allocation_failures_become_out_of_memory_errors():
    with pytest.raises(pytorch.OutOfMemoryError), pytorch._allocating(1):
        torch.empty(1 << 60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="shapes"), pytorch._allocating(1):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize(
    ("blocks", "at_once", "sizes"),
    [(5, 4, [2, 3]), (29, 8, [7, 7, 7, 8]), (8, 8, [8]), (1, 8, [1]), (3, 1, [1, 1, 1])],
)
def test_batches_differ_by_at_most_one_block(blocks: int, at_once: int, sizes: list[int]):
    batches = generate.equal_batches(range(10, 10 + blocks), at_once)
    assert [len(batch) for batch in batches] == sizes
    assert [block for batch in batches for block in batch] == list(range(10, 10 + blocks))


def test_the_batch_size_depends_on_the_available_memory(
    small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    engine = open_engine(small_checkpoint, threads=1, device="cpu")
    for clips in (100, 10):
        available = 2 * engine.memory(clips) + 1000
        monkeypatch.setattr(allocation, "memory", lambda available=available: available)
        assert engine.batch_clips() == clips
    monkeypatch.setattr(allocation, "memory", lambda: 1 << 50)
    assert engine.batch_clips() == 256


@pytest.mark.parametrize("path", [CpuDecoder, GpuDecoder])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_predicted_memory_matches_the_tensors(path: Any, dtype: torch.dtype):
    weights = {n: torch.from_numpy(w) for n, w in untrained.weights(SMALL, 0).items()}

    def ring_bytes(clips: int) -> int:
        return sum(ring.nbytes for ring in path(Rewritten(weights, SMALL, dtype), clips)._rings)

    per_clip = ring_bytes(65) - ring_bytes(64)
    predicted = path.state_bytes(SMALL, dtype)
    assert per_clip <= predicted <= 1.6 * per_clip


# bench


def test_bench_prints_throughput_and_durations_of_packs(command: Callable[..., Any]):
    done = command("bench", "--json", "--batch-clips", 64, measures=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["clips_at_once"] == 64
    assert found["clips_an_hour"] == pytest.approx(
        found["clip_samples_a_second"] * 3600 / 64_000, rel=0.01
    )
    assert 0 < found["share_of_roofline"] < 1
    assert [pack["clips"] for pack in found["packs"].values()] == [1_232, 10_368, 118_016]
    said = command("bench", "--batch-clips", 64).stdout
    assert "clips an hour" in said
    assert "4 instruments per corner  118,016 clips" in said
