"""Each exact rewrite of the decoder, by itself: in float64, against what `decoder.py` says."""

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
    """Inputs of one clip, `[times]`."""
    return torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def before(inputs: torch.Tensor, time: int, count: int) -> torch.Tensor:
    """Return the last `count` inputs at a time, zeros before the start."""
    padded = torch.cat([inputs.new_zeros(count), inputs])
    return padded[time + 1 : time + 1 + count]


def test_start_is_startconv_and_skip_start(weights, inputs):
    decoder, made = Decoder(weights, SIZES, 1), start(weights)
    for t, x in enumerate(inputs):
        l = decoder.causal("startconv", x[None, None])  # noqa: E741
        s = decoder.linear("skip_start", l)
        row = torch.cat([before(inputs, t, TAPS), torch.ones(1, dtype=torch.float64)])
        torch.testing.assert_close(row @ made, torch.cat([l, s], 1)[0])


def test_first_layer_is_dilatedconv_1_of_startconv_from_the_first_sample_on(weights, inputs):
    decoder, made = Decoder(weights, SIZES, 1), first_layer(weights)
    assert made.shape == (FIRST, 2 * SIZES.width)
    for t, x in enumerate(inputs):
        l = decoder.causal("startconv", x[None, None])  # noqa: E741
        d = decoder.causal("dilatedconv_1", l) - weights["dilatedconv_1/biases"]
        there = torch.tensor([t >= 2, t >= 1, True]).double()
        torch.testing.assert_close(torch.cat([before(inputs, t, INPUTS), there]) @ made, d[0])


def test_a_halved_gate_needs_tanh_alone(weights):
    d = torch.randn(7, 2 * SIZES.width, dtype=torch.float64)
    z = torch.sigmoid(d[:, : SIZES.width]) * torch.tanh(d[:, SIZES.width :])
    a, b = torch.tanh(gate(d)).chunk(2, dim=1)
    torch.testing.assert_close((1 + a) * b, 2 * z)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_output_is_res_and_skip_and_of_the_last_layer_skip_alone(weights, layer):
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
def test_conditioning_in_16_bits_is_nearly_as_good_as_in_32(weights, dtype, within):
    """Not 2⁻¹¹ or 2⁻⁸, which is what one number of 16 bits would make of it."""
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
    """Each time's input is written to its slot, and is found with weight 0, 1 or 2 while needed."""
    ring = torch.full((dilation, TAPS), -1)
    for t in range(5 * dilation):
        group, place = slot(t, dilation)
        ring[group, place] = t
        order = rotated(torch.arange(TAPS)[:, None, None], place)[:, 0]
        for position, tap in enumerate(order.tolist()):
            age = (TAPS - 1 - tap) * dilation
            assert ring[group, position] == (t - age if t >= age else -1)


def test_the_fewest_products_remain():
    """Of the published model: 57.3 million multiplications a sample where the definition has 59.7,

    and 4 in a hundred more for the columns of conditioning and biases.
    """
    sizes = Dimensions()
    taps, rest = Rewritten.layer_bytes(sizes, torch.float32)
    assert taps // 4 == 29 * 3 * 512 * 1024
    columns = Side(torch.float32, sizes.embedding).columns * 1024 * 30
    assert rest // 4 - columns == 30 * 512 * 768
