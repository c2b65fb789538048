"""Rewrite the decoder's weights so that a step takes two matrix products per layer.

The many small operations of `decoder.py` become a few large ones. Each function in this module is
one rewrite, exact up to rounding and tested separately; `Rewritten` applies all of them. Everything
is computed in float64 and rounded once to the precision of a path.

- `start`: `startconv` and `skip_start` are one product with three inputs and a constant 1.
- `first_layer`: `dilatedconv_1` after `startconv` is one product with five inputs and three
  indicators.
- `gate`: sigmoid(x) = (1 + tanh(x / 2)) / 2, so the gate needs only tanh. The weights before and
  after absorb both factors 1/2: 2 z = (1 + tanh(a)) tanh(b), where a is half the gate's input.
- `output`: `res_i` and `skip_i` multiply the same z; the result of the last `res` is unused.
- `Side`: conditioning and biases are columns of the layer's product instead of later additions.
- `slot`, `rotated`: a ring buffer in groups of three, which holds a layer's three taps side by
  side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nsynth_super.wavenet.dimensions import TAPS, Dimensions

INPUTS = 2 * TAPS - 1
"""Inputs that the first layer depends on: three taps of `startconv` at three adjacent times."""

FIRST = INPUTS + TAPS
"""Columns of the first layer: these inputs, and per tap whether its time is within the clip."""

_ALIGNED = 32  # columns; products are slower if their inner size is not a multiple of it


def _convolution(weights: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Return a convolution's weights `[taps, in, out]` and biases `[out]`."""
    return weights[f"{name}/W"][0], weights[f"{name}/biases"]


def _float64(weights: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    taps, bias = _convolution(weights, name)
    return taps.double(), bias.double()


def start(weights: Mapping[str, Tensor]) -> Tensor:
    """Return the matrix from (x(t-2), x(t-1), x(t), 1) to (l, s), `[4, width + skip width]`."""
    taps, bias = _float64(weights, "startconv")
    skip, skip_bias = _float64(weights, "skip_start")
    l = torch.cat([taps[:, 0], bias[None]])  # noqa: E741 - the paper's letter
    s = l @ skip[0]
    s[-1] += skip_bias
    return torch.cat([l, s], 1)


def first_layer(weights: Mapping[str, Tensor]) -> Tensor:
    """Return the matrix from the first layer's columns to its d, without bias, `[8, 2 width]`.

    The columns are x(t-4) to x(t), and then for each tap an indicator of whether its time is
    within the clip. Before the start, the queue holds zero vectors, not the output of `startconv`
    for silence; hence the contribution of its bias is switched on tap by tap.
    """
    start_taps, start_bias = _float64(weights, "startconv")
    taps, _ = _float64(weights, "dilatedconv_1")
    rows = taps.new_zeros(FIRST, taps.shape[2])
    for tap in range(TAPS):
        rows[tap : tap + TAPS] += start_taps[:, 0] @ taps[tap]
        rows[INPUTS + tap] = start_bias @ taps[tap]
    return rows


def gate(d: Tensor) -> Tensor:
    """Return a matrix that makes d, `[…, 2 width]`, with the gate's columns halved."""
    width = d.shape[-1] // 2
    return torch.cat([d[..., :width] / 2, d[..., width:]], -1)


def output(
    weights: Mapping[str, Tensor], layer: int, dimensions: Dimensions
) -> tuple[Tensor, Tensor]:
    """Return the matrix from 2 z to a layer's contributions to (l, s), and the biases.

    The last layer contributes only to s, because its l is unused.

    Returns
    -------
    w : Tensor, `[width, width + skip width]`; for the last layer `[width, skip width]`
    bias : Tensor, `[columns of w]`
    """
    skip, skip_bias = _convolution(weights, f"skip_{layer}")
    if layer == dimensions.layers:
        return skip[0] / 2, skip_bias
    res, res_bias = _convolution(weights, f"res_{layer}")
    return torch.cat([res[0], skip[0]], 1) / 2, torch.cat([res_bias, skip_bias])


@dataclass(frozen=True)
class Side:
    """The side columns of a layer's operand: first-layer inputs, conditioning, and constant ones.

    With 16-bit products, the encoding, its weights and the biases are each split into a high and a
    low part, which preserves nearly float32 accuracy: `hi W_hi + lo W_hi + hi W_lo + b_hi + b_lo`.

    Parameters
    ----------
    dtype : torch.dtype
        Type of the products' operands.
    embedding : int
        Channels of an encoding.
    """

    dtype: torch.dtype
    embedding: int

    @property
    def used(self) -> int:
        """Number of columns without padding."""
        return FIRST + (3 * self.embedding + 2 if self._is_split else self.embedding + 1)

    @property
    def columns(self) -> int:
        """Number of columns including padding."""
        return -(-self.used // _ALIGNED) * _ALIGNED

    @property
    def _is_split(self) -> bool:
        """Whether numbers are split into a high and a low part."""
        return self.dtype.itemsize < 4

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        high = x.to(self.dtype)
        return high, (x - high.to(x.dtype)).to(self.dtype)

    def of_frame(self, encoding: Tensor) -> Tensor:
        """Return the side columns of a frame, `[clips, columns]`, with zeros for the first layer's.

        Parameters
        ----------
        encoding : Tensor of float32, `[clips, embedding]`
        """
        out = encoding.new_zeros(len(encoding), self.columns, dtype=self.dtype)
        if self._is_split:
            high, low = self._split(encoding)
            parts = [high, low, high, out.new_ones(len(encoding), 2)]
        else:
            parts = [encoding.to(self.dtype), out.new_ones(len(encoding), 1)]
        out[:, FIRST : self.used] = torch.cat(parts, 1)
        return out

    def weights(self, first: Tensor | None, conditioning: Tensor, bias: Tensor) -> Tensor:
        """Return the weights of the side columns, `[columns, out]`.

        Parameters
        ----------
        first : Tensor, `[8, out]`, or None
            Weights of the first layer's inputs; None for other layers.
        conditioning : Tensor, `[embedding, out]`
        bias : Tensor, `[out]`
        """
        out = conditioning.new_zeros(self.columns, len(bias), dtype=self.dtype)
        if first is not None:
            out[:FIRST] = first.to(self.dtype)
        high, low = self._split(conditioning)
        bias_high, bias_low = self._split(bias)
        parts = [high, bias_high[None]]
        if self._is_split:
            parts = [high, high, low, bias_high[None], bias_low[None]]
        out[FIRST : self.used] = torch.cat(parts)
        return out


def slot(time: int, dilation: int) -> tuple[int, int]:
    """Return the group and the position in it (0 to 2) of an input in a grouped ring buffer.

    The inputs of t - 2d, t - d and t share a group, in cyclic order. The next input of the group,
    t + d, overwrites t - 2d, which is no longer needed then.
    """
    return time % dilation, time // dilation % TAPS


def rotated(taps: Tensor, place: int) -> Tensor:
    """Return the taps in the order of a group's inputs when the newest is at position `place`.

    Parameters
    ----------
    taps : Tensor, `[3, in, out]`
        Weights for the inputs of t - 2d, t - d and t.
    place : int
        Position of the newest input, as `slot` returns it.

    Returns
    -------
    Tensor, `[3 in, out]`
    """
    return torch.roll(taps, place + 1, 0).flatten(0, 1)


class Rewritten:
    """A decoder's rewritten weights, for paths whose products use `dtype`.

    Parameters
    ----------
    weights : mapping of str to Tensor
        The checkpoint's variables, float32, by name.
    dimensions : Dimensions
        The model's sizes.
    dtype : torch.dtype
        Type of the layers' products; `start` and the head are float32.

    Attributes
    ----------
    start : Tensor of float32, `[4, width + skip width]`
    taps : list of Tensor, `[3, width, 2 width]`
        Taps of each layer; empty for the first layer, `[0, width, 2 width]`.
    columns : Side
        Layout of the side columns.
    side : list of Tensor, `[columns, 2 width]`
        Weights of each layer's side columns.
    out, out_bias : list of Tensor
        `output` of each layer; the biases are float32.
    head, head_bias, head_side, logits, logits_bias : Tensor of float32
        `out1`, its biases (including those of `cond_map_out1`), `cond_map_out1`, and `logits`.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], dimensions: Dimensions, dtype: torch.dtype
    ) -> None:
        self.dimensions, self.dtype = dimensions, dtype
        self.columns = Side(dtype, dimensions.embedding)
        self.start = start(weights).float()
        self.taps, self.side, self.out, self.out_bias = [], [], [], []
        for layer in range(1, dimensions.layers + 1):
            taps, bias = _convolution(weights, f"dilatedconv_{layer}")
            conditioning, conditioning_bias = _float64(weights, f"cond_map_{layer}")
            first = gate(first_layer(weights)) if layer == 1 else None
            self.side.append(
                self.columns.weights(first, gate(conditioning[0]), gate(bias + conditioning_bias))
            )
            self.taps.append(gate(taps if layer > 1 else taps[:0]).to(dtype))
            out, out_bias = output(weights, layer, dimensions)
            self.out.append(out.to(dtype))
            self.out_bias.append(out_bias.float())
        head, head_bias = _convolution(weights, "out1")
        side, side_bias = _convolution(weights, "cond_map_out1")
        logits, logits_bias = _convolution(weights, "logits")
        self.head, self.head_bias = head[0].float(), (head_bias + side_bias).float()
        self.head_side = side[0].float()
        self.logits, self.logits_bias = logits[0].float(), logits_bias.float()

    @staticmethod
    def layer_bytes(dimensions: Dimensions, dtype: torch.dtype) -> tuple[int, int]:
        """Return the memory for all layers' taps and for their other weights, in bytes."""
        width, layers = dimensions.width, dimensions.layers
        columns = Side(dtype, dimensions.embedding).columns
        taps = (layers - 1) * TAPS * width * 2 * width
        rest = layers * (columns * 2 * width + width * (width + dimensions.skip_width))
        return taps * dtype.itemsize, rest * dtype.itemsize

    def to(self, device: torch.device) -> Rewritten:
        """Move all weights to a device; return `self`."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
            elif isinstance(value, list):
                setattr(self, name, [tensor.to(device) for tensor in value])
        return self
