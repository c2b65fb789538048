"""Compare every fast path of the decoder with the reference decoder in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from nsynth_super.wavenet import linear, random
from nsynth_super.wavenet.cpu import CpuDecoder
from nsynth_super.wavenet.cuda import GpuDecoder
from nsynth_super.wavenet.decoder import Decoder
from nsynth_super.wavenet.dimensions import Dimensions
from nsynth_super.wavenet.divergence import TOLERATED, divergences
from nsynth_super.wavenet.rewrites import Rewritten
from nsynth_super.wavenet.sampling import draw, uniforms
from nsynth_super.wavenet.stepping import DRAWN, Stepper
from tests.conftest import SMALL

DEEP = Dimensions(width=12, skip_width=20, layers=11, encoder_width=8, encoder_layers=1)
"""All dilations, the first one twice; a receptive field of 2,050 samples."""

PATHS: dict[str, type[CpuDecoder] | type[GpuDecoder]] = {
    "cpu": CpuDecoder,
    "cpu, public operators": CpuDecoder,
    "gpu, on the cpu": GpuDecoder,
}
WITHIN = {torch.float32: 1e-9, torch.float16: 1e-4, torch.bfloat16: TOLERATED / 4}
"""Largest divergence, in nats per sample."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread, because small products are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tensors(dimensions: Dimensions, seed: int = 0) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(w) for name, w in random.weights(dimensions, seed).items()}


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stepper]:
    """Return a function (dimensions, precision, clips) that creates a path."""
    if request.param == "cpu, public operators":
        monkeypatch.setattr(linear, "prepacks", lambda dtype: False)
    elif request.param == "cpu" and not linear.prepacks(torch.float32):
        pytest.skip("this PyTorch or processor has no prepacked products")

    def make(dimensions: Dimensions, dtype: torch.dtype, clips: int) -> Stepper:
        return PATHS[request.param](Rewritten(tensors(dimensions), dimensions, dtype), clips)

    return make


@pytest.mark.parametrize(
    "clips", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(64, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("start", [0, 1, 37, 512])
def test_a_path_agrees_with_the_reference(path, clips, start):
    """Covers start-up, ring wrap-arounds, a change of frame, and several start times."""
    rng = np.random.default_rng(clips)
    codes = torch.from_numpy(rng.integers(0, 256, (200, clips)))
    frames = torch.from_numpy(rng.normal(size=(2, clips, SMALL.embedding)).astype(np.float32))
    slow = Decoder({k: w.double() for k, w in tensors(SMALL).items()}, SMALL, clips)
    fast = path(SMALL, torch.float32, clips)
    fast.reset(start)
    for t in range(200):
        if t % 100 == 0:
            fast.condition(frames[t // 100])
        expected = slow.step(codes[t], frames[t // 100].double())
        torch.testing.assert_close(fast.step(codes[t]).double(), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", WITHIN, ids=str)
def test_a_path_stays_close_to_the_reference_in_every_precision(path, dtype):
    """Runs past the receptive field, on codes that the reference samples."""
    clips = 5
    encodings = torch.randn(clips, 7, DEEP.embedding, generator=torch.Generator().manual_seed(3))
    decoder = path(DEEP, dtype, clips)
    steps = DEEP.receptive_field + 150
    doubles = {name: w.double() for name, w in tensors(DEEP).items()}
    [divergence] = divergences(doubles, DEEP, [decoder], encodings, steps)
    assert divergence <= WITHIN[dtype]


def test_a_path_samples_codes_and_takes_forced_ones(path):
    decoder = path(SMALL, torch.float32, 3)
    uniform = torch.from_numpy(uniforms(1, [4, 5, 6], 0, 40).T.copy())
    forced = torch.full((40, 3), DRAWN)
    forced[:10, 1] = torch.arange(10)
    decoder.condition(torch.zeros(3, SMALL.embedding))
    with torch.inference_mode():
        codes = decoder.run(uniform, forced)()
    assert codes.shape == (40, 3)
    assert codes.dtype == np.uint8
    assert codes[:10, 1].tolist() == list(range(10))
    definition, code = Decoder(tensors(SMALL), SMALL, 3), torch.full((3,), 128)
    for t, drawn in enumerate(codes):
        expected = draw(definition.step(code, torch.zeros(3, SMALL.embedding)), uniform[t])
        code = torch.from_numpy(drawn.astype(np.int64))
        free = forced[t] == DRAWN
        assert torch.equal(expected[free], code[free])


def test_reset_clears_the_past(path):
    decoder = path(SMALL, torch.float32, 2)
    uniform, forced = torch.full((50, 2), 0.3), torch.full((50, 2), DRAWN)
    with torch.inference_mode():
        decoder.condition(torch.ones(2, SMALL.embedding))
        first = decoder.run(uniform, forced)()
        decoder.reset()
        decoder.condition(torch.ones(2, SMALL.embedding))
        again = decoder.run(uniform, forced)()
    assert first.tolist() == again.tolist()


def test_replaying_the_receptive_field_restores_the_state_exactly(path):
    reach = SMALL.receptive_field
    codes = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (700, 2)))
    whole, replayed = path(SMALL, torch.float32, 2), path(SMALL, torch.float32, 2)
    replayed.reset(500 - reach)
    for decoder in (whole, replayed):
        decoder.condition(torch.zeros(2, SMALL.embedding))
    for t in range(700):
        a = whole.step(codes[t])
        if t >= 500 - reach:
            b = replayed.step(codes[t])
        if t >= 500:
            assert torch.equal(a, b)


def test_pytorchs_private_operators_still_exist():
    """If this fails, use their successors in `linear.py`; until then the CPU path is slower."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch is built without oneDNN")
    assert linear.prepacks(torch.float32)
