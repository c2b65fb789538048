"""The reference model, the untrained weights, the mu-law codes and the random numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nsynth_super.wavenet import mulaw, random
from nsynth_super.wavenet.cpu import CpuDecoder
from nsynth_super.wavenet.decoder import Decoder
from nsynth_super.wavenet.dimensions import PUBLISHED, Dimensions, describe, infer_dimensions
from nsynth_super.wavenet.encoder import encode
from nsynth_super.wavenet.rewrites import Rewritten
from nsynth_super.wavenet.sampling import draw, uniforms
from tests.conftest import SMALL


def tensors(dimensions: Dimensions, seed: int = 0) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(w) for name, w in random.weights(dimensions, seed).items()}


def test_the_published_model_has_374_variables_and_61_8_million_weights():
    shapes = PUBLISHED.shapes()
    assert len(shapes) == 374
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 61_804_048
    decoder = [name for name in shapes if not name.startswith("ae_")]
    assert len(decoder) == 250


def test_the_receptive_field_follows_from_the_dilations():
    assert PUBLISHED.receptive_field == 6_140
    assert SMALL.receptive_field == 128


def test_sizes_are_inferred_from_the_variables():
    for dimensions in (PUBLISHED, SMALL, Dimensions(7, 5, 12, 3, 4, 11)):
        found, problems = infer_dimensions(dimensions.shapes())
        assert found == dimensions
        assert not problems
    assert describe(PUBLISHED) == "h512_bo16, the published size"


def test_missing_variables_and_wrong_shapes_are_reported():
    shapes = SMALL.shapes()
    del shapes["res_3/W"]
    shapes["skip_2/biases"] = (5,)
    _, problems = infer_dimensions(shapes)
    assert [problem.where for problem in problems] == ["skip_2/biases", "res_3/W"] or [
        problem.where for problem in problems
    ] == ["res_3/W", "skip_2/biases"]


def test_the_reference_decoder_computes_causal_convolutions():
    """Steps along a clip agree with the padded convolutions of the training graph."""
    weights = {k: w.double() for k, w in tensors(SMALL).items()}
    codes = torch.from_numpy(np.random.default_rng(1).integers(0, 256, 150))
    encoding = torch.zeros(1, SMALL.embedding, dtype=torch.float64)
    decoder = Decoder(weights, SMALL, 1)
    stepped = torch.cat([decoder.step(code[None], encoding) for code in codes])

    def causal(name: str, x: torch.Tensor, dilation: int = 1) -> torch.Tensor:
        kernel = weights[f"{name}/W"][0].permute(2, 1, 0)
        padded = torch.nn.functional.pad(x, (dilation * (kernel.shape[2] - 1), 0))
        return torch.nn.functional.conv1d(
            padded, kernel, weights[f"{name}/biases"], dilation=dilation
        )

    en = encoding.T[None].expand(1, -1, 150)
    l = causal("startconv", ((codes - 128) / 128.0).double()[None, None])  # noqa: E741
    s = causal("skip_start", l)
    for i, dilation in enumerate(SMALL.dilations, 1):
        d = causal(f"dilatedconv_{i}", l, dilation) + causal(f"cond_map_{i}", en)
        z = torch.sigmoid(d[:, :24]) * torch.tanh(d[:, 24:])
        l = l + causal(f"res_{i}", z)  # noqa: E741
        s = s + causal(f"skip_{i}", z)
    s = torch.relu(causal("out1", torch.relu(s)) + causal("cond_map_out1", en))
    torch.testing.assert_close(stepped, causal("logits", s)[0].T)


@pytest.mark.parametrize(("age", "matters"), [(128, True), (129, False)])
def test_the_logits_depend_on_exactly_the_receptive_field(age: int, matters: bool):
    weights = tensors(SMALL)
    codes = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (140, 1)))
    other = codes.clone()
    other[139 - age] = 255 - other[139 - age]
    last = []
    for run in (codes, other):
        decoder = Decoder(weights, SMALL, 1)
        for code in run:
            logits = decoder.step(code, torch.zeros(1, SMALL.embedding))
        last.append(logits)
    assert torch.equal(*last) is not matters


def test_the_encoder_pools_over_512_samples():
    weights = tensors(SMALL)
    codes = torch.randint(0, 256, (2, 4096), dtype=torch.uint8)
    whole = encode(weights, SMALL, codes)
    assert whole.shape == (2, 8, SMALL.embedding)
    torch.testing.assert_close(encode(weights, SMALL, codes[:1]), whole[:1])
    assert not torch.allclose(whole[0], whole[1])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "dimensions",
    [
        Dimensions(32, 32, 30, 16, 16, 30),
        Dimensions(64, 64, 30, 16, 32, 30),
        Dimensions(128, 128, 20, 16, 32, 20),
    ],
    ids=["width 32", "width 64", "width 128"],
)
def test_random_weights_behave_like_trained_ones(dimensions: Dimensions, seed: int):
    weights = tensors(dimensions, seed)
    t = np.arange(8192) / 16_000
    notes = np.stack(
        [0.5 * np.sin(2 * np.pi * 220 * t), 0.3 * np.sign(np.sin(2 * np.pi * 440 * t))]
    )
    with torch.inference_mode():
        embedding = encode(weights, dimensions, torch.from_numpy(mulaw.encode(notes)))
        decoder = CpuDecoder(Rewritten(weights, dimensions, torch.float32), 2)
        decoder.condition(embedding[:, 4].contiguous())
        code = torch.full((2,), mulaw.ZERO)
        uniform = torch.from_numpy(uniforms(seed, [1, 2], 0, 500))
        logits, codes = [], []
        for i in range(500):
            logits.append(decoder.step(code))
            code = draw(logits[-1], uniform[:, i])
            codes.append(code)
    late = torch.stack(logits[200:])
    probability = torch.softmax(late, -1)
    entropy = -(probability * torch.log(probability.clamp_min(1e-30))).sum(-1).mean()
    assert 2 <= late.std(-1).mean() <= 4
    assert 2 <= entropy <= 4
    assert late.std(0).mean() > 0.5  # the past matters
    assert len(torch.unique(torch.stack(codes))) > 80


def test_random_weights_are_the_same_on_every_machine():
    weights = random.weights(SMALL, 7)
    assert weights["startconv/W"].dtype == np.float32
    assert weights["dilatedconv_3/W"].ravel()[:3].tolist() == SOME_NUMBERS
    assert not np.array_equal(weights["res_1/W"], weights["res_2/W"])


SOME_NUMBERS = [-0.10886473953723907, -0.11450623720884323, 0.27676501870155334]


def test_silence_and_the_extremes_have_the_expected_codes():
    assert mulaw.encode(np.array([0.0, -1.0, 1.0], np.float32)).tolist() == [128, 0, 255]
    assert mulaw.AMPLITUDES[128] == 0.0
    assert np.all(np.diff(mulaw.AMPLITUDES) > 0)


def test_decoding_and_encoding_preserves_every_code():
    codes = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(mulaw.encode(mulaw.decode(codes)), codes)


@given(
    st.integers(0, 2**63 - 1), st.integers(0, 2**64 - 1), st.integers(0, 70_000), st.integers(1, 40)
)
def test_a_random_number_depends_only_on_seed_clip_and_time(
    seed: int, clip: int, start: int, count: int
):
    stretch = uniforms(seed, [clip, clip ^ 1], max(start - 5, 0), count + 10)
    alone = uniforms(seed, [clip], start, count)
    begin = start - max(start - 5, 0)
    np.testing.assert_array_equal(alone[0], stretch[0, begin : begin + count])
    assert alone.min() > 0
    assert alone.max() < 1


def test_the_random_numbers_never_change():
    """A different stream would generate a different pack from the same seed."""
    assert uniforms(1, [2], 3, 3)[0].tolist() == SOME_UNIFORMS


SOME_UNIFORMS = [0.9619023203849792, 0.018993794918060303, 0.4279840588569641]


def test_the_random_numbers_are_uniform():
    numbers = uniforms(0, range(50), 0, 2000)
    counts, _ = np.histogram(numbers, bins=100, range=(0, 1))
    chi2 = ((counts - 1000) ** 2 / 1000).sum()
    assert chi2 < 161  # the 99.99th percentile for 99 degrees of freedom
    assert abs(np.corrcoef(numbers[:, :-1].ravel(), numbers[:, 1:].ravel())[0, 1]) < 0.02


def test_codes_are_sampled_with_the_models_probabilities():
    logits = torch.linspace(-4, 2, 256).expand(20_000, 256)
    uniform = torch.from_numpy(uniforms(9, [1], 0, 20_000))[0]
    counts = torch.bincount(draw(logits, uniform), minlength=256)
    expected = torch.softmax(logits[0], 0) * 20_000
    assert ((counts - expected) ** 2 / expected).sum() < 345  # 99.99th percentile, 255 degrees


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=256, max_size=256), st.integers(0, 2**23 - 1)
)
def test_index_256_is_never_sampled(row: list[float], k: int):
    """Magenta's float32 sum is often below 1, so that it can sample index 256."""
    uniform = torch.tensor([(k + 0.5) * 2.0**-23], dtype=torch.float32)
    code = draw(torch.tensor([row]), uniform)
    assert 0 <= code <= 255
    probability = torch.softmax(torch.tensor(row).double(), 0)[code]
    assert probability > 1e-12


def test_the_smallest_and_the_largest_random_number_sample_the_extremes():
    flat = torch.zeros(1, 256)
    assert draw(flat, torch.tensor([2.0**-24])) == 0
    assert draw(flat, torch.tensor([1 - 2.0**-24])) == 255
