"""Compare each rewrite of the decoder's weights with the reference decoder, in float64."""

from __future__ import annotations

import pytest
import torch

from nsynth_super.wavenet import random
from nsynth_super.wavenet.decoder import Decoder
from nsynth_super.wavenet.dimensions import TAPS, Dimensions
from nsynth_super.wavenet.rewrites import (
    FIRST,
    INPUTS,
    Rewritten,
    Side,
    first_layer,
    gate,
    output,
    rotated,
    slot,
    start,
)

SIZES = Dimensions(width=6, skip_width=4, layers=3, encoder_width=2, encoder_layers=1)


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    made = random.weights(SIZES, 5)
    return {name: torch.from_numpy(array).double() for name, array in made.items()}


@pytest.fixture
def inputs() -> torch.Tensor:
    """The inputs of one clip, `[times]`."""
    return torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def before(inputs: torch.Tensor, time: int, count: int) -> torch.Tensor:
    """Return the last `count` inputs at a time, with zeros before the start."""
    padded = torch.cat([inputs.new_zeros(count), inputs])
    return padded[time + 1 : time + 1 + count]


def test_start_computes_startconv_and_skip_start(weights, inputs):
    decoder, made = Decoder(weights, SIZES, 1), start(weights)
    for t, x in enumerate(inputs):
        l = decoder.causal("startconv", x[None, None])  # noqa: E741
        s = decoder.linear("skip_start", l)
        row = torch.cat([before(inputs, t, TAPS), torch.ones(1, dtype=torch.float64)])
        torch.testing.assert_close(row @ made, torch.cat([l, s], 1)[0])


def test_first_layer_computes_dilatedconv_1_of_startconv_from_the_first_sample(weights, inputs):
    decoder, made = Decoder(weights, SIZES, 1), first_layer(weights)
    assert made.shape == (FIRST, 2 * SIZES.width)
    for t, x in enumerate(inputs):
        l = decoder.causal("startconv", x[None, None])  # noqa: E741
        d = decoder.causal("dilatedconv_1", l) - weights["dilatedconv_1/biases"]
        there = torch.tensor([t >= 2, t >= 1, True]).double()
        torch.testing.assert_close(torch.cat([before(inputs, t, INPUTS), there]) @ made, d[0])


def test_a_halved_gate_needs_only_tanh(weights):
    d = torch.randn(7, 2 * SIZES.width, dtype=torch.float64)
    z = torch.sigmoid(d[:, : SIZES.width]) * torch.tanh(d[:, SIZES.width :])
    a, b = torch.tanh(gate(d)).chunk(2, dim=1)
    torch.testing.assert_close((1 + a) * b, 2 * z)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_output_computes_res_and_skip_and_only_skip_in_the_last_layer(weights, layer):
    z = torch.randn(7, SIZES.width, dtype=torch.float64)
    decoder = Decoder(weights, SIZES, 7)
    res, skip = decoder.linear(f"res_{layer}", z), decoder.linear(f"skip_{layer}", z)
    made, bias = output(weights, layer, SIZES)
    expected = skip if layer == SIZES.layers else torch.cat([res, skip], 1)
    torch.testing.assert_close(2 * z @ made + bias, expected)


@pytest.mark.parametrize(
    ("dtype", "within"),
    [
        (torch.float64, 1e-12),
        (torch.float32, 1e-6),
        (torch.float16, 2e-6),
        (torch.bfloat16, 1e-4),
    ],
)
def test_conditioning_in_16_bits_is_nearly_as_accurate_as_in_32(weights, dtype, within):
    """A single 16-bit number would have a relative error of 2⁻¹¹ or 2⁻⁸."""
    side = Side(dtype, SIZES.embedding)
    encoding = torch.randn(5, SIZES.embedding, generator=torch.Generator().manual_seed(2))
    w, bias = weights["cond_map_2/W"][0, 0], weights["cond_map_2/biases"]
    expected = encoding.double() @ w + bias
    made = side.of_frame(encoding).double() @ side.weights(None, w, bias).double()
    assert (made - expected).abs().max() <= within * expected.abs().max()
    assert side.columns % 32 == 0
    assert not side.of_frame(encoding)[:, :FIRST].any()


@pytest.mark.parametrize("dilation", [1, 2, 8, 512])
def test_a_group_of_the_ring_holds_the_three_taps_in_the_order_of_the_weights(dilation):
    """An input is written once, and later multiplied by tap 2, 1 and 0 in its position."""
    ring = torch.full((dilation, TAPS), -1)
    for t in range(5 * dilation):
        group, place = slot(t, dilation)
        ring[group, place] = t
        order = rotated(torch.arange(TAPS)[:, None, None], place)[:, 0]
        for position, tap in enumerate(order.tolist()):
            age = (TAPS - 1 - tap) * dilation
            assert ring[group, position] == (t - age if t >= age else -1)


def test_the_rewrites_remove_products():
    """57.3 million multiplications per sample of the published model instead of 59.7 million.

    The columns of conditioning and biases add 4 %.
    """
    sizes = Dimensions()
    taps, rest = Rewritten.layer_bytes(sizes, torch.float32)
    assert taps // 4 == 29 * 3 * 512 * 1024
    columns = Side(torch.float32, sizes.embedding).columns * 1024 * 30
    assert rest // 4 - columns == 30 * 512 * 768
