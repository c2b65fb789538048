"""The decoder's weights, rewritten so that a step is two matrix products a layer.

What `decoder.py` says in many small operations, the fast paths compute in few large ones. Each
function here is one rewrite, exact but for rounding, and tested by itself; `Rewritten` is all of
them together. Everything is computed in float64 and rounded once, to the precision of a path.

- `start`: `startconv` and `skip_start` are one product of three inputs and a one.
- `first_layer`: `dilatedconv_1` of `startconv` is one product of five inputs and three ones.
- `gate`: sigmoid(x) is (1 + tanh(x / 2)) / 2, so the gate needs tanh alone. Its halves go into
  the weights before and after: 2 z = (1 + tanh(a)) tanh(b) for a gate that was halved.
- `output`: `res_i` and `skip_i` read the same z; `res_30` feeds nothing, and is left out.
- `Side`: conditioning and biases are columns of the layer's product, not additions after it.
- `slot`, `rotated`: a ring in groups of three, in which a layer's three taps lie side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nsynth_super.wavenet.dimensions import TAPS, Dimensions

INPUTS = 2 * TAPS - 1
"""Inputs that the first layer's three taps reach: of three neighbours, three inputs each."""

FIRST = INPUTS + TAPS
"""Columns of the first layer: those inputs, and a one for each tap that is past the start."""

_ALIGNED = 32  # columns; a product's inner size that is no multiple of it is slower


def _convolution(weights: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Return a convolution's weights, `[taps, in, out]`, and biases."""
    return weights[f"{name}/W"][0], weights[f"{name}/biases"]


def _exactly(weights: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    taps, bias = _convolution(weights, name)
    return taps.double(), bias.double()


def start(weights: Mapping[str, Tensor]) -> Tensor:
    """Return what makes l and s of (x(t-2), x(t-1), x(t), 1): `[4, width + skip width]`."""
    taps, bias = _exactly(weights, "startconv")
    skip, skip_bias = _exactly(weights, "skip_start")
    l = torch.cat([taps[:, 0], bias[None]])  # noqa: E741 - the paper's letter
    s = l @ skip[0]
    s[-1] += skip_bias
    return torch.cat([l, s], 1)


def first_layer(weights: Mapping[str, Tensor]) -> Tensor:
    """Return what makes layer 1's d, without its bias, of its columns: `[8, 2 width]`.

    The columns are x(t-4) to x(t); then, for each tap, whether there was an input at its time.
    Before the start the queue holds zero vectors, not what `startconv` makes of silence: so each
    tap's share of the bias has a column of its own.
    """
    start_taps, start_bias = _exactly(weights, "startconv")
    taps, _ = _exactly(weights, "dilatedconv_1")
    rows = taps.new_zeros(FIRST, taps.shape[2])
    for tap in range(TAPS):
        rows[tap : tap + TAPS] += start_taps[:, 0] @ taps[tap]
        rows[INPUTS + tap] = start_bias @ taps[tap]
    return rows


def gate(d: Tensor) -> Tensor:
    """Halve the gate's half of the columns that make d, `[…, 2 width]`."""
    width = d.shape[-1] // 2
    return torch.cat([d[..., :width] / 2, d[..., width:]], -1)


def output(
    weights: Mapping[str, Tensor], layer: int, dimensions: Dimensions
) -> tuple[Tensor, Tensor]:
    """Return what makes a layer's addends to l and s of 2 z, and their biases.

    The last layer's l feeds nothing: its addend is not there.

    Returns
    -------
    w : Tensor, `[width, width + skip width]`, of the last layer `[width, skip width]`
    bias : Tensor
    """
    skip, skip_bias = _convolution(weights, f"skip_{layer}")
    if layer == dimensions.layers:
        return skip[0] / 2, skip_bias
    res, res_bias = _convolution(weights, f"res_{layer}")
    return torch.cat([res[0], skip[0]], 1) / 2, torch.cat([res_bias, skip_bias])


@dataclass(frozen=True)
class Side:
    """The columns beside a layer's taps: the first layer's inputs, conditioning, and ones.

    In 16 bits an encoding, the weights that meet it and the biases are each split in two addends,
    so that what is added is as good as in float32: `hi W_hi + lo W_hi + hi W_lo + b_hi + b_lo`.

    Parameters
    ----------
    dtype : torch.dtype
        Of the products.
    embedding : int
        Channels of an encoding.
    """

    dtype: torch.dtype
    embedding: int

    @property
    def used(self) -> int:
        """Columns that mean something."""
        return FIRST + (self.embedding + 1 if self.whole else 3 * self.embedding + 2)

    @property
    def columns(self) -> int:
        """Columns altogether."""
        return -(-self.used // _ALIGNED) * _ALIGNED

    @property
    def whole(self) -> bool:
        """Whether the products' numbers hold a float32."""
        return self.dtype.itemsize >= 4

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        high = x.to(self.dtype)
        return high, (x - high.to(x.dtype)).to(self.dtype)

    def of_frame(self, encoding: Tensor) -> Tensor:
        """Return the columns of a frame, `[clips, columns]`; the first layer's are zeros.

        Parameters
        ----------
        encoding : Tensor of float32, `[clips, embedding]`
        """
        out = encoding.new_zeros(len(encoding), self.columns, dtype=self.dtype)
        if self.whole:
            parts = [encoding.to(self.dtype), out.new_ones(len(encoding), 1)]
        else:
            high, low = self._split(encoding)
            parts = [high, low, high, out.new_ones(len(encoding), 2)]
        out[:, FIRST : self.used] = torch.cat(parts, 1)
        return out

    def weights(self, first: Tensor | None, conditioning: Tensor, bias: Tensor) -> Tensor:
        """Return what meets the columns, `[columns, out]`.

        Parameters
        ----------
        first : Tensor, `[8, out]`, or None
            Of layer 1.
        conditioning : Tensor, `[embedding, out]`
        bias : Tensor, `[out]`
        """
        out = conditioning.new_zeros(self.columns, len(bias), dtype=self.dtype)
        if first is not None:
            out[:FIRST] = first.to(self.dtype)
        high, low = self._split(conditioning)
        bias_high, bias_low = self._split(bias)
        parts = [high, bias_high[None]]
        if not self.whole:
            parts = [high, high, low, bias_high[None], bias_low[None]]
        out[FIRST : self.used] = torch.cat(parts)
        return out


def slot(time: int, dilation: int) -> tuple[int, int]:
    """Return where the input of a time lies in a grouped ring: its group, its place of three.

    Times t - 2d, t - d and t share a group, in places that follow one another around; the next to
    come there is t + d, in the place of t - 2d, which is no longer needed then.
    """
    return time % dilation, time // dilation % TAPS


def rotated(taps: Tensor, place: int) -> Tensor:
    """Order three taps as a group holds their inputs when the newest is at `place`.

    Parameters
    ----------
    taps : Tensor, `[3, in, out]`
        For the inputs of t - 2d, t - d and t.

    Returns
    -------
    Tensor, `[3 in, out]`
    """
    return torch.roll(taps, place + 1, 0).flatten(0, 1)


class Rewritten:
    """All of a decoder's weights, for paths that compute in `dtype`.

    Parameters
    ----------
    weights : mapping of str to Tensor
        The checkpoint's variables under Magenta's names, float32.
    dimensions : Dimensions
        The model's sizes.
    dtype : torch.dtype
        Of the layers' products; beginning and head are float32.

    Attributes
    ----------
    start : Tensor of float32, `[4, width + skip width]`
    taps : list of Tensor, `[3, width, 2 width]`
        Of each layer; of the first there is nothing, `[0, width, 2 width]`.
    side : list of Tensor, `[columns, 2 width]`
    out, out_bias : list of Tensor
        As `output` returns them; biases are float32.
    head, head_bias, head_side, logits, logits_bias : Tensor of float32
        `out1`, its biases and `cond_map_out1`; `logits`.
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
            conditioning, conditioning_bias = _exactly(weights, f"cond_map_{layer}")
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
        """Return the memory that the weights of all layers take, in bytes: taps, and the rest."""
        width, layers = dimensions.width, dimensions.layers
        columns = Side(dtype, dimensions.embedding).columns
        taps = (layers - 1) * TAPS * width * 2 * width
        rest = layers * (columns * 2 * width + width * (width + dimensions.skip_width))
        return taps * dtype.itemsize, rest * dtype.itemsize

    def to(self, device: torch.device) -> Rewritten:
        """Move all of them to a device."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
            elif isinstance(value, list):
                setattr(self, name, [tensor.to(device) for tensor in value])
        return self
