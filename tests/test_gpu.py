"""Test the GPU paths on a GPU, at the sizes and with the tiles that packs are decoded with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from nsynth_super.engines.base import Batch, OutOfMemoryError
from nsynth_super.engines.pytorch import TorchEngine
from nsynth_super.wavenet import kernels, random
from nsynth_super.wavenet.checkpoint import Checkpoint
from nsynth_super.wavenet.cuda import GpuDecoder
from nsynth_super.wavenet.dimensions import CODES, PUBLISHED
from nsynth_super.wavenet.divergence import divergences
from nsynth_super.wavenet.rewrites import INPUTS, Rewritten
from nsynth_super.wavenet.sampling import draw
from nsynth_super.wavenet.stepping import DRAWN
from nsynth_super.wavenet.triton_kernels import TritonDecoder, unavailable_reason

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

GPU = torch.device("cuda")

BATCHES = [1, 64, 75, 129, 256, 1232]
"""Every class of tiles, with and without rows beyond the last clip."""

PATHS = pytest.mark.parametrize("path", [GpuDecoder, TritonDecoder], ids=lambda path: path.name)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return {name: torch.from_numpy(w) for name, w in random.weights(PUBLISHED, 0).items()}


@pytest.fixture(scope="module")
def rewritten(weights: dict[str, Tensor]) -> Rewritten:
    return Rewritten(weights, PUBLISHED, torch.float16).to(GPU)


@pytest.fixture(autouse=True)
def _only_paths_that_run(request: pytest.FixtureRequest) -> None:
    reason = unavailable_reason(GPU)
    parameters = getattr(request.node, "callspec", None)
    if reason and parameters and parameters.params.get("path") is TritonDecoder:
        pytest.skip(reason)


def nats(logits: Tensor, others: Tensor) -> float:
    p, q = logits.double().log_softmax(1), others.double().log_softmax(1)
    return float((p.exp() * (p - q)).sum(1).max())


def with_the_same_past(rewritten: Rewritten, clips: int, time: int) -> tuple[GpuDecoder, ...]:
    """Return both paths with the same noise as their past at a time."""
    torch.manual_seed(time)
    plain, triton = GpuDecoder(rewritten, clips), TritonDecoder(rewritten, clips)
    for decoder in (plain, triton):
        decoder.reset(time)
        decoder._taken.fill_(time)
    for ring, other in zip(plain._rings, triton._rings[1:], strict=True):
        other.normal_()
        ring.copy_(other.transpose(0, 1))
    plain._inputs.uniform_(-1, 1)
    triton._inputs.fill_(torch.nan)  # slots that no kernel may read
    for age in range(1, INPUTS):
        triton._inputs[(time - age) % kernels.KEPT] = plain._inputs[:, -age]
    encoding = torch.randn(clips, PUBLISHED.embedding)
    for decoder in (plain, triton):
        decoder.condition(encoding)
    return plain, triton


@torch.inference_mode()
@pytest.mark.parametrize("clips", BATCHES)
@pytest.mark.parametrize("time", [6200, 2**33 + 1023])
def test_both_paths_agree_on_any_past(rewritten: Rewritten, clips: int, time: int):
    """The second step reads what the first has written; all other slots keep their values."""
    if reason := unavailable_reason(GPU):
        pytest.skip(reason)
    plain, triton = with_the_same_past(rewritten, clips, time)
    before = [ring.clone() for ring in triton._rings[1:]]
    for at in (time, time + 1):
        codes = torch.randint(CODES, (clips,), device=GPU)
        assert nats(plain.step(codes), triton.step(codes)) < 1e-3
        for ring, other, was in zip(plain._rings, triton._rings[1:], before, strict=True):
            slot = at % len(other)
            torch.testing.assert_close(other[slot], ring[:, slot], atol=2e-2, rtol=2e-2)
            was[slot] = other[slot]
            assert torch.equal(other, was)


@torch.inference_mode()
@PATHS
@pytest.mark.parametrize("clips", BATCHES)
def test_a_replayed_graph_samples_from_the_logits_of_single_steps(
    rewritten: Rewritten, path: type[GpuDecoder], clips: int
):
    decoder = path(rewritten, clips)
    uniform = torch.rand(2, decoder.steps, clips, generator=torch.Generator().manual_seed(1))
    forced = torch.full(uniform.shape, DRAWN)
    forced[0, :9] = 77
    encoding = torch.randn(clips, PUBLISHED.embedding)
    decoder.condition(encoding)
    sampled = [decoder.run(*each)().copy() for each in zip(uniform, forced, strict=True)]
    codes = torch.from_numpy(np.concatenate(sampled)).long().to(GPU)
    assert (codes[:9] == 77).all()

    decoder.reset()
    decoder.condition(encoding)
    differing, previous = 0, decoder.code.clone()
    for t, numbers in enumerate(uniform.flatten(0, 1).to(GPU)):
        drawn = draw(decoder.step(previous), numbers)
        if t >= 9:
            differing += int((drawn != codes[t]).sum())
            assert ((drawn - codes[t]).abs() <= 1).all()  # a sum in another order at a border
        previous = codes[t]
    assert differing <= codes.numel() // 1000


@torch.inference_mode()
@PATHS
def test_a_path_diverges_little_from_the_reference(
    weights: dict[str, Tensor], rewritten: Rewritten, path: type[GpuDecoder]
):
    """Over 1,100 steps, which reach both past taps of the longest dilation."""
    on_gpu = {name: w.to(GPU) for name, w in weights.items()}
    frames = torch.randn(64, 3, PUBLISHED.embedding, generator=torch.Generator().manual_seed(0))
    [divergence] = divergences(on_gpu, PUBLISHED, [path(rewritten, 64)], frames.to(GPU), steps=1100)
    assert divergence < 1e-4


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return Checkpoint(random.weights(PUBLISHED, 0), PUBLISHED, "0" * 64)


def decoded(engine: TorchEngine, batch: Batch) -> np.ndarray:
    return np.concatenate([piece.codes for piece in engine.decode(batch)], axis=1)


@PATHS
@pytest.mark.parametrize("clips", [64, 200])
def test_a_resumed_batch_continues_with_the_same_codes(
    checkpoint: Checkpoint, path: type[GpuDecoder], clips: int
):
    engine = TorchEngine(checkpoint, device="cuda")
    engine._path = path
    encodings = np.random.default_rng(0).standard_normal((clips, 3, PUBLISHED.embedding))
    nothing = np.empty((clips, 0), dtype=np.uint8)
    batch = Batch(encodings.astype(np.float32), list(range(clips)), 1, 1300, nothing)
    whole = decoded(engine, batch)
    assert whole.shape == (clips, 1300)
    for begun in (1, 64, 700, 1299):
        interrupted = Batch(batch.encodings, batch.keys, 1, 1300, whole[:, :begun])
        assert (decoded(engine, interrupted) == whole[:, begun:]).all()


def test_the_engine_chooses_a_path_and_decodes(checkpoint: Checkpoint):
    engine = TorchEngine(checkpoint)
    assert engine.hardware.device.type == "cuda"
    assert engine.measure(64, 0.5) > 0
    expected = GpuDecoder if unavailable_reason(GPU) else TritonDecoder
    assert engine._path is expected


def test_the_encoder_computes_the_same_embedding_as_on_the_cpu(checkpoint: Checkpoint):
    note = np.sin(np.arange(16384, dtype=np.float32) / 9)[None]
    [ours] = TorchEngine(checkpoint).encode(note)
    [theirs] = TorchEngine(checkpoint, device="cpu").encode(note)
    np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=1e-3)


def test_too_many_clips_are_an_error_of_memory(checkpoint: Checkpoint):
    engine = TorchEngine(checkpoint)
    engine._path = GpuDecoder
    with pytest.raises(OutOfMemoryError):
        engine.measure(2**21, 0.1)


def test_a_batch_fits_the_memory_that_is_reserved_for_it(checkpoint: Checkpoint):
    engine = TorchEngine(checkpoint)
    torch.cuda.empty_cache()
    before = engine.available_memory()
    engine.measure(512, 0.1)
    assert before - engine.available_memory() <= 1.1 * engine.memory(512) + 2**29
