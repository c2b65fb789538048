"""Our engine: which device, precision and path it takes, and what it does when memory runs out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nsynth_super import hardware, machine, torch_engine
from nsynth_super.engines import Work, open_engine
from nsynth_super.machine import Gpu
from nsynth_super.plan import BLOCK, Plan
from nsynth_super.problems import BadInput, Failed
from nsynth_super.settings import read
from nsynth_super.stages import generate, prepare
from nsynth_super.torch_engine import TorchEngine
from nsynth_super.wavenet import random as untrained
from nsynth_super.wavenet.cpu import CpuDecoder
from nsynth_super.wavenet.cuda import GpuDecoder
from nsynth_super.wavenet.rewrites import Rewritten
from nsynth_super.workspace import Workspace
from tests.conftest import SMALL

BLOCKS = 5


# Device and precision


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "gpus", list)


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
def test_16_bits_are_chosen_where_the_processor_multiplies_them_and_it_matters(
    features: set[str], width: int, precision: str, no_gpu: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(machine, "processor_features", lambda: features)
    monkeypatch.setattr(hardware, "prepacks", lambda dtype: True)
    assert hardware.choose("auto", "auto", width).precision == precision


def test_a_precision_that_is_asked_for_is_taken(no_gpu: None):
    for precision, dtype in hardware.PRECISIONS.items():
        chosen = hardware.choose("cpu", precision, 512)
        assert chosen.dtype == dtype
        assert str(chosen) == f"CPU, {precision}"


def test_a_device_that_is_not_there_is_refused(no_gpu: None):
    with pytest.raises(BadInput, match=r"--device cuda: PyTorch .* finds none here -> install"):
        hardware.choose("cuda", "auto", 512)


def test_a_gpu_that_this_pytorch_cannot_use_is_told_of(
    no_gpu: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A fake GPU: what `nvidia-smi` would tell."""
    monkeypatch.setattr(machine, "gpus", lambda: [Gpu("0", "NVIDIA H100", (9, 0))])
    assert hardware.choose("auto", "auto", 512).device.type == "cpu"
    assert "warning: NVIDIA H100 stays unused: this PyTorch" in capsys.readouterr().err
    hardware.choose("cpu", "auto", 512)
    assert capsys.readouterr().err == ""


def test_what_linux_says_of_a_processor(tmp_path: Path):
    (tmp_path / "proc").mkdir()
    assert machine.processor_features(tmp_path) == set()
    (tmp_path / "proc" / "cpuinfo").write_text("model name\t: A\nflags\t\t: fpu avx512_bf16\n")
    assert machine.processor_features(tmp_path) == {"fpu", "avx512_bf16"}


# Paths


def work(clips: int = 3, samples: int = 700) -> Work:
    rng = np.random.default_rng(1)
    return Work(
        encodings=rng.standard_normal((clips, 2, SMALL.embedding)).astype(np.float32),
        keys=list(range(clips)),
        seed=1,
        samples=samples,
        begun=np.empty((clips, 0), dtype=np.uint8),
    )


def codes(engine: TorchEngine, given: Work) -> np.ndarray:
    return np.concatenate([piece.codes for piece in engine.decode(given)], axis=1)


def test_the_gpus_path_draws_what_the_cpus_does(small_checkpoint: Path):
    """On the CPU: many steps in a call, several calls under way, a rest that fills no call."""
    ours, other = (open_engine(small_checkpoint, threads=1, device="cpu") for _ in range(2))
    assert isinstance(ours, TorchEngine)
    assert isinstance(other, TorchEngine)
    other._path = GpuDecoder
    assert (codes(ours, work()) == codes(other, work())).all()


class Wrong(GpuDecoder):
    """Computes something else."""

    name = "Wrong"

    def step(self, codes: Tensor) -> Tensor:
        return super().step(codes).roll(1, 1)


class Broken(GpuDecoder):
    """Does not run here."""

    name = "Broken"

    def step(self, codes: Tensor) -> Tensor:
        raise RuntimeError("no kernel image is available for execution on the device\nmore")


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that lets the engine choose among paths, as it does on a GPU: a fake."""

    def choose_among(*paths: type[GpuDecoder]) -> None:
        monkeypatch.setattr(TorchEngine, "shares_cores", False)
        monkeypatch.setattr(torch_engine, "_gpu_paths", lambda device: list(paths))

    return choose_among


def test_a_path_is_proved_on_the_gpu_before_it_is_taken(
    as_on_a_gpu: Callable[..., None], small_checkpoint: Path, capsys: pytest.CaptureFixture[str]
):
    engine = open_engine(small_checkpoint, threads=1, device="cpu")
    assert isinstance(engine, TorchEngine)
    expected = codes(engine, work())
    as_on_a_gpu(Wrong, Broken, GpuDecoder)
    engine = open_engine(small_checkpoint, threads=1, device="cpu")
    assert isinstance(engine, TorchEngine)
    assert (codes(engine, work()) == expected).all()
    assert engine._path is GpuDecoder
    said = capsys.readouterr().err
    assert "warning: Wrong computes something else here (" in said
    assert "warning: Broken does not run here: no kernel image is available" in said


def test_a_gpu_on_which_no_path_is_right_is_refused(
    as_on_a_gpu: Callable[..., None], small_checkpoint: Path
):
    as_on_a_gpu(Wrong)
    engine = open_engine(small_checkpoint, threads=1, device="cpu")
    assert isinstance(engine, TorchEngine)
    with pytest.raises(Failed, match="does not compute what the model says -> try"):
        codes(engine, work())


def test_of_right_paths_the_faster_one_is_taken(
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
    codes(engine, work(samples=10))
    assert engine._path is Other


def test_the_same_codes_in_16_bits_but_for_rounding(small_checkpoint: Path):
    """Random numbers are the same: so are most codes until the first that rounding moves."""
    first = []
    for precision in ("fp32", "fp16"):
        engine = open_engine(small_checkpoint, threads=1, device="cpu", precision=precision)
        assert isinstance(engine, TorchEngine)
        first.append(codes(engine, work(64, 50)))
    assert (first[0] == first[1]).mean() > 0.9


# Memory


@pytest.fixture
def prepared(
    make_workspace: Callable[..., Workspace], small_checkpoint: Path
) -> tuple[Workspace, Any, TorchEngine]:
    """A plan of five blocks, the last one short."""
    workspace = make_workspace(resolution=3, pitches=list(range(40, 73)), final_length=60)
    settings, _ = read(workspace.settings)
    engine = open_engine(small_checkpoint, threads=1, device="cpu")
    assert isinstance(engine, TorchEngine)
    assert settings is not None
    prepare.run(workspace, settings, engine, quiet=True)
    plan = Plan.read(workspace.plan)
    assert plan is not None
    assert plan.blocks == BLOCKS
    return workspace, settings, engine


def all_blocks(workspace: Workspace) -> list[bytes]:
    return [path.read_bytes() for path in sorted(workspace.clips.glob("*.npy"))]


@pytest.fixture
def memory_for(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that lets memory suffice for so many clips, at first or after a while."""

    def suffices(clips: int, from_step: int = 0) -> None:
        step = CpuDecoder.step
        taken = [0]

        def or_fail(self: CpuDecoder, codes: Tensor) -> Tensor:
            taken[0] += 1
            if self.clips > clips and taken[0] > from_step:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return step(self, codes)

        monkeypatch.setattr(CpuDecoder, "step", or_fail)

    return suffices


@pytest.mark.parametrize("from_step", [0, 300])
def test_too_large_a_batch_is_halved_until_it_fits(
    from_step: int,
    prepared: tuple[Workspace, Any, TorchEngine],
    memory_for: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
):
    workspace, settings, engine = prepared
    memory_for(2 * BLOCK, from_step)
    done = generate.run(workspace, settings, engine, batch_clips=BLOCKS * BLOCK)
    assert done.made == 9 * 33
    said = capsys.readouterr().err
    assert "generate: 297 clips at once are too many: going on with 192\n" in said
    assert said.count("too many") == 2
    halved = all_blocks(workspace)
    assert len(halved) == BLOCKS
    assert not list(workspace.clips.glob("*.part*"))


def test_a_halved_batch_goes_on_with_what_was_drawn(
    prepared: tuple[Workspace, Any, TorchEngine],
    memory_for: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
):
    workspace, settings, engine = prepared
    begun: list[int] = []
    decode = TorchEngine.decode

    def noting(self: TorchEngine, given: Work) -> Any:
        begun.append(given.begun.shape[1])
        return decode(self, given)

    monkeypatch.setattr(TorchEngine, "decode", noting)
    monkeypatch.setattr(torch_engine, "CHUNK_SECONDS", 0.0)
    memory_for(4 * BLOCK, from_step=300)
    generate.run(workspace, settings, engine, batch_clips=BLOCKS * BLOCK)
    assert begun == [0, 300, 300]


def test_no_memory_for_a_block_is_a_failure_in_one_line(
    prepared: tuple[Workspace, Any, TorchEngine], memory_for: Callable[..., None]
):
    workspace, settings, engine = prepared
    memory_for(BLOCK - 1)
    with pytest.raises(Failed, match="64 clips at once are too many -> free some memory"):
        generate.run(workspace, settings, engine, batch_clips=BLOCKS * BLOCK, quiet=True)
    assert all_blocks(workspace) == []


def test_what_the_allocator_says_of_memory_is_understood_and_nothing_else():
    with pytest.raises(torch_engine.OutOfMemoryError), torch_engine._room_for(1):
        torch.empty(1 << 60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="shapes"), torch_engine._room_for(1):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize(
    ("blocks", "at_once", "sizes"),
    [(5, 4, [2, 3]), (29, 8, [7, 7, 7, 8]), (8, 8, [8]), (1, 8, [1]), (3, 1, [1, 1, 1])],
)
def test_batches_are_equal_but_for_a_block(blocks: int, at_once: int, sizes: list[int]):
    batches = generate.equal_batches(range(10, 10 + blocks), at_once)
    assert [len(batch) for batch in batches] == sizes
    assert [block for batch in batches for block in batch] == list(range(10, 10 + blocks))


def test_the_batch_follows_the_memory_that_may_be_used(
    small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    engine = open_engine(small_checkpoint, threads=1, device="cpu")
    for clips in (100, 10):
        room = 2 * engine.memory(clips) + 1000
        monkeypatch.setattr(machine, "memory", lambda room=room: room)
        assert engine.batch_clips() == clips
    monkeypatch.setattr(machine, "memory", lambda: 1 << 50)
    assert engine.batch_clips() == 256


@pytest.mark.parametrize("path", [CpuDecoder, GpuDecoder])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_memory_that_is_foretold_is_what_the_tensors_take(path: Any, dtype: torch.dtype):
    weights = {n: torch.from_numpy(w) for n, w in untrained.weights(SMALL, 0).items()}

    def held(clips: int) -> int:
        return sum(ring.nbytes for ring in path(Rewritten(weights, SMALL, dtype), clips)._rings)

    a_clip = held(65) - held(64)
    foretold = path.state_bytes(SMALL, dtype)
    assert a_clip <= foretold <= 1.6 * a_clip


# bench


def test_bench_tells_clips_an_hour_and_what_packs_take(command: Callable[..., Any]):
    done = command("bench", "--json", "--batch-clips", 64)
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
    assert "4 instruments a corner  118,016 clips" in said
