"""Test the Triton kernels on the CPU in Triton's interpreter; run by `test_triton_kernels.py`.

Triton decides at a kernel's definition whether to interpret it, for the entire process. These tests
therefore run in a separate process with `TRITON_INTERPRET=1`, and are not collected elsewhere.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from nsynth_super.wavenet import kernels, random, triton_kernels
from nsynth_super.wavenet.cuda import GpuDecoder
from nsynth_super.wavenet.decoder import Decoder
from nsynth_super.wavenet.dimensions import CODES, TAPS, Dimensions
from nsynth_super.wavenet.rewrites import FIRST, Rewritten
from nsynth_super.wavenet.sampling import draw, uniforms
from nsynth_super.wavenet.stepping import DRAWN
from nsynth_super.wavenet.tiles import GpuLimits
from nsynth_super.wavenet.triton_kernels import TritonDecoder
from tests.conftest import SMALL

assert os.environ.get("TRITON_INTERPRET") == "1"

DEEP = Dimensions(width=12, skip_width=70, layers=12, encoder_width=8, encoder_layers=1)
"""All dilations, two of them twice; widths with different padding."""

TINY = Dimensions(width=20, skip_width=24, layers=3, encoder_width=8, encoder_layers=1)
"""A receptive field of 16 samples."""

CLIPS = [1, 3, 63, 64, 65, 200]
DTYPES = [torch.float32, torch.float16]
WITHIN = {torch.float32: 2e-5, torch.float16: 2e-2}


@pytest.fixture(params=[False, True], ids=["whole", "split"])
def split(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode with and without a separate kernel for the past taps, whatever the clips."""
    monkeypatch.setattr(triton_kernels, "_SPLIT_CLIPS", 2**30 if request.param else 0)


both_gpus = pytest.mark.parametrize(
    "gpu", [GpuLimits((9, 0), 1), GpuLimits((8, 9), 10_000)], ids=["large tiles", "small tiles"]
)


@pytest.fixture(autouse=True)
def _gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use few tiles unless a test requests many, because the interpreter is slow per tile."""
    gpu = request.getfixturevalue("gpu") if "gpu" in request.fixturenames else GpuLimits((9, 0), 1)
    monkeypatch.setattr(GpuLimits, "of", lambda device: gpu)


@pytest.fixture(autouse=True)
def _rng() -> None:
    torch.manual_seed(0)


def tensors(dimensions: Dimensions) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(w) for name, w in random.weights(dimensions, 0).items()}


def decoder(
    dimensions: Dimensions = TINY, clips: int = 3, dtype: torch.dtype = torch.float32
) -> TritonDecoder:
    return TritonDecoder(Rewritten(tensors(dimensions), dimensions, dtype), clips)


def reference(dimensions: Dimensions, clips: int) -> Decoder:
    weights = {name: w.double() for name, w in tensors(dimensions).items()}
    return Decoder(weights, dimensions, clips)


def fill_with_noise(*many: torch.Tensor) -> None:
    for x in many:
        x.copy_(torch.randn(x.shape))


def taps_at(of: TritonDecoder, time: int) -> torch.Tensor:
    slots, dilations = of._slots[:, :1], of._slots[:, 1:]
    return (time - dilations * torch.tensor([2, 1, 0, -1])) % slots


def set_time(of: TritonDecoder, time: int) -> None:
    of._time.fill_(time)
    of._taps.copy_(taps_at(of, time))


def out_weights(of: TritonDecoder, layer: int) -> torch.Tensor:
    return of._out[layer].transpose(0, 1).flatten(1)


def gate_weights(of: TritonDecoder, layer: int) -> torch.Tensor:
    """Return the weights of [oldest | middle | newest | side], of a and then of b."""
    mixed = of._gates[layer].transpose(0, 1).flatten(1)
    if of._split:
        past, width = of._past[layer - 1].transpose(0, 1).flatten(1), of._full.width
        mixed = torch.cat([past[: 2 * width], mixed, past[2 * width :]])
    return torch.cat([mixed[:, ::2], mixed[:, 1::2]], 1)


def run_gate(of: TritonDecoder, layer: int) -> None:
    if of._split:
        of._of_past()
    of._gate(layer)


def gated(d: torch.Tensor) -> torch.Tensor:
    a, b = d.double().tanh().chunk(2, 1)
    return (1 + a) * b


@pytest.mark.usefixtures("split")
@pytest.mark.parametrize("layer", range(1, 11))
def test_gate_reads_the_taps_of_every_dilation_at_any_time(layer):
    """Covers start-up, both sides of a ring's wrap-around, and a time beyond 32 bits."""
    of = decoder(DEEP)
    ring = of._rings[layer]
    d = DEEP.dilations[layer]
    fill_with_noise(ring, of._side)
    for time in (0, d, 2 * d, 2 * d + 1, 5 * d - 1, 2**40 + 7):
        set_time(of, time)
        run_gate(of, layer)
        taps = [ring[(time - age * d) % (2 * d + 1)] for age in (2, 1, 0)]
        expected = gated(torch.cat([*taps, of._side], 1) @ gate_weights(of, layer))
        torch.testing.assert_close(of._z.double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("time", [0, 1, 1023, 1024, 2047, 2048, 2049, 2**40 + 7])
def test_begin_writes_where_every_layer_finds_its_inputs(time):
    of = decoder(DEEP)
    of.reset(time)
    of._gate = of._add = lambda layer: None
    of._to_head(of.code)
    assert torch.equal(of._taps[:, :TAPS], taps_at(of, time)[:, :TAPS])


@both_gpus
@pytest.mark.usefixtures("split")
@pytest.mark.parametrize("clips", CLIPS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gate_and_add_are_correct_for_any_number_of_clips(clips, dtype, gpu):
    """And do not change any other slot."""
    of = decoder(TINY, clips, dtype)
    ring, next_ring = of._rings[1:]
    fill_with_noise(ring, next_ring, of._side, of._s)
    ring[:, :, TINY.width :] = 0
    set_time(of, 7)
    before, s = next_ring.clone(), of._s.clone()

    run_gate(of, 1)
    # dilations 2 and 4: rings of 5 and 9 slots
    x = torch.cat([ring[(7 - 4) % 5], ring[(7 - 2) % 5], ring[7 % 5], of._side], 1)
    z = gated(x.double() @ gate_weights(of, 1).double())
    torch.testing.assert_close(of._z.double(), z, atol=WITHIN[dtype], rtol=1e-2)

    of._add(1)
    out = of._z.double() @ out_weights(of, 1).double() + of._out_bias[1]
    width = ring.shape[2]
    before[7] = (ring[7 % 5].double() + out[:, :width]).to(dtype)
    torch.testing.assert_close(next_ring, before, atol=WITHIN[dtype], rtol=1e-2)
    torch.testing.assert_close(of._s.double(), s + out[:, width:], atol=WITHIN[dtype], rtol=1e-4)


@pytest.mark.parametrize("layer", range(11))
def test_add_writes_to_the_slot_of_the_next_ring(layer):
    of = decoder(DEEP)
    ring, next_ring = of._rings[layer : layer + 2]
    time = 3 * len(next_ring) - 1
    set_time(of, time)
    fill_with_noise(ring, of._z, of._s)
    of._add(layer)
    out = of._z @ out_weights(of, layer) + of._out_bias[layer]
    expected = torch.zeros_like(next_ring)
    expected[-1] = ring[time % len(ring)] + out[:, : ring.shape[2]]
    torch.testing.assert_close(next_ring, expected, atol=1e-4, rtol=1e-4)


def test_the_last_layer_adds_only_to_s():
    of = decoder(DEEP)
    fill_with_noise(of._z, of._s)
    s, rings = of._s.clone(), [ring.clone() for ring in of._rings]
    of._add(DEEP.layers - 1)
    expected = s + of._z @ out_weights(of, -1) + of._out_bias[-1]
    torch.testing.assert_close(of._s, expected, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(*pair) for pair in zip(of._rings, rings, strict=True))


@pytest.mark.parametrize(("clips", "start"), [(1, 0), (65, 0), (200, 0), (3, 5), (3, 1000)])
def test_begin_agrees_with_the_plain_pytorch_path(clips, start):
    weights = Rewritten(tensors(TINY), TINY, torch.float32)
    plain, of = GpuDecoder(weights, clips), TritonDecoder(weights, clips)
    for each in (plain, of):
        each.reset(start)
    of._gate = of._add = lambda layer: None
    for _ in range(10):
        codes = torch.randint(CODES, (clips,))
        l, s = plain._begin(codes)  # noqa: E741
        plain._clock += 1
        of.step(codes)
        torch.testing.assert_close(of._side[:, :FIRST], plain._side[:, :FIRST])
        torch.testing.assert_close(of._rings[0][0, :, : TINY.width], l)
        torch.testing.assert_close(of._s[:, : TINY.skip_width], s)
        assert torch.equal(of._clock, plain._clock)


@both_gpus
@pytest.mark.parametrize("clips", [1, 65])
def test_the_head_is_correct_for_any_number_of_clips(clips, gpu):
    of = decoder(TINY, clips)
    fill_with_noise(of._head_bias)
    of._to_head(torch.randint(CODES, (clips,)))
    h = torch.relu(torch.relu(of._s.double()) @ of._head.double() + of._head_bias)
    torch.testing.assert_close(of._h.double(), h, atol=1e-5, rtol=1e-5)
    logits = of.step(torch.randint(CODES, (clips,))).double()
    h = torch.relu(torch.relu(of._s.double()) @ of._head.double() + of._head_bias)
    expected = h @ of._head_to_logits.double() + of._weights.logits_bias
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def drawn(logits: torch.Tensor, uniform: torch.Tensor, forced: torch.Tensor) -> torch.Tensor:
    """Sample one code per uniform, `[clips]`, from the same logits, `[256]`."""
    clips = len(uniform)
    of = decoder(TINY, clips)
    of._weights.logits_bias = logits
    of._head_to_logits.zero_()
    codes = of.take(uniform[None], forced[None])
    assert torch.equal(of.code, codes[0].long())
    return of.code


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_draw_agrees_with_sampling(scale):
    uniform = torch.cat([torch.rand(60), torch.tensor([0.5, 2**23 - 0.5]) * 2**-23])
    logits = torch.randn(CODES) * scale
    codes = drawn(logits, uniform, torch.full(uniform.shape, DRAWN))
    mass = torch.softmax(logits.double(), 0).cumsum(0)
    far_from_ties = (mass - uniform[:, None]).abs().amin(1) > 1e-6
    expected = draw(logits.expand(len(uniform), -1), uniform)
    assert far_from_ties.sum() > 50
    assert torch.equal(codes[far_from_ties], expected[far_from_ties])
    assert ((codes - expected).abs() <= 1).all()


def test_draw_resolves_ties_like_sampling():
    """Sums of equal masses are exact; the uniforms are these sums and their neighbors."""
    sums = torch.tensor([0.0, 1 / 256, 0.25, 0.5, 255 / 256, 1.0])
    uniform = torch.cat([torch.nextafter(sums, sums * 0), sums, torch.nextafter(sums, sums * 2)])
    uniform = uniform.clamp(0, 1)
    logits = torch.full((CODES,), 1.5)
    codes = drawn(logits, uniform, torch.full(uniform.shape, DRAWN))
    assert torch.equal(codes, draw(logits.expand(len(uniform), -1), uniform))
    assert codes.max() == CODES - 1


@pytest.mark.parametrize("code", [0, 100, 255])
def test_a_certain_code_is_sampled_by_every_uniform(code):
    logits = torch.full((CODES,), -200.0)
    logits[code] = 0
    uniform = torch.tensor([0.5, 2**22, 2**23 - 0.5]) * 2**-23
    assert drawn(logits, uniform, torch.full((3,), DRAWN)).tolist() == [code] * 3


def test_forced_codes_are_used():
    forced = torch.tensor([0, 255, 17, DRAWN])
    logits = torch.full((CODES,), -200.0)
    logits[9] = 0
    assert drawn(logits, torch.full((4,), 0.5), forced).tolist() == [0, 255, 17, 9]


def largest_error(of: TritonDecoder, start: int, steps: int) -> float:
    """Return the largest error of a logit over some steps and two frames."""
    clips, slow = of.clips, reference(of.dimensions, of.clips)
    frames = torch.randn(2, clips, of.dimensions.embedding)
    of.reset(start)
    largest = 0.0
    for t in range(steps):
        frame = frames[t * 2 // steps]
        if t * 2 % steps < 2:
            of.condition(frame)
        codes = torch.randint(CODES, (clips,))
        error = (of.step(codes) - slow.step(codes, frame.double())).abs().max()
        largest = max(largest, float(error))
    return largest


@pytest.mark.usefixtures("split")
def test_the_decoder_computes_the_references_logits():
    """Runs past the receptive field of 128 samples, twice around the longest ring."""
    assert largest_error(decoder(SMALL), 0, 140) < WITHIN[torch.float32]


@pytest.mark.usefixtures("split")
def test_the_16_bit_decoder_stays_close_to_the_reference():
    assert largest_error(decoder(TINY, 5, torch.float16), 37, 50) < WITHIN[torch.float16]


@pytest.mark.parametrize(("clips", "start"), [(65, 0), (3, 1), (3, 511)])
def test_the_decoder_starts_like_the_reference(clips, start):
    assert largest_error(decoder(SMALL, clips), start, 5) < WITHIN[torch.float32]


@pytest.mark.usefixtures("split")
def test_a_deep_decoder_continues_from_a_full_past():
    """Copies the reference's past, because the interpreter would be too slow to compute it."""
    clips, frame, fast = 3, torch.randn(3, DEEP.embedding), [decoder(DEEP, 3, d) for d in DTYPES]
    slow, begun = reference(DEEP, clips), DEEP.receptive_field
    codes = torch.randint(CODES, (begun + 5, clips))
    for t in range(begun):
        slow.step(codes[t], frame.double())
    for of in fast:
        of.condition(frame)
        of._clock.fill_(begun)
        for t in range(begun - kernels.KEPT, begun):
            of._inputs[t % kernels.KEPT] = (codes[t] - 128) / 128
        for layer, ring in enumerate(of._rings[1:], start=2):
            past = slow.past[f"dilatedconv_{layer}"]
            for t, l in enumerate(past, start=begun - len(past)):  # noqa: E741
                ring[t % len(ring), :, : DEEP.width] = l
    for t in range(begun, begun + 5):
        expected = slow.step(codes[t], frame.double())
        for of, dtype in zip(fast, DTYPES, strict=True):
            logits = of.step(codes[t]).double()
            torch.testing.assert_close(logits, expected, atol=WITHIN[dtype], rtol=WITHIN[dtype])


def test_a_run_samples_the_references_codes():
    of = decoder(TINY, 3)
    uniform = torch.from_numpy(uniforms(1, [4, 5, 6], 0, 16).T.copy())
    forced = torch.full((16, 3), DRAWN)
    forced[:5, 1] = torch.arange(5)
    of.condition(torch.zeros(3, TINY.embedding))
    codes = of.run(uniform, forced)()
    assert codes[:5, 1].tolist() == list(range(5))
    slow, code = reference(TINY, 3), torch.full((3,), 128)
    for t, sampled in enumerate(codes):
        logits = slow.step(code, torch.zeros(3, TINY.embedding).double())
        expected = draw(logits, uniform[t].double())
        code = torch.from_numpy(sampled.astype(np.int64))
        free = forced[t] == DRAWN
        assert torch.equal(expected[free], code[free])


def test_replaying_the_receptive_field_restores_the_state_exactly():
    reach, begun = TINY.receptive_field, 20
    whole, replayed = decoder(), decoder()
    replayed.step(torch.tensor([1, 2, 3]))
    replayed.reset(begun - reach)
    for t in range(begun + 6):
        codes = torch.randint(CODES, (3,))
        logits = whole.step(codes)
        if t >= begun - reach:
            again = replayed.step(codes)
        if t >= begun:
            assert torch.equal(logits, again)


def test_sizes_are_padded_to_full_tiles():
    of = decoder(DEEP)
    assert {ring.shape[2] for ring in of._rings} == {64}
    assert gate_weights(of, 1).shape == (TAPS * 64 + of._side.shape[1], 2 * 64)
    assert of._s.shape == (3, 128)
    assert triton_kernels.TritonDecoder.state_bytes(DEEP, torch.float16) > GpuDecoder.state_bytes(
        DEEP, torch.float16
    )
