"""A linear layer on the CPU with prepacked weights.

PyTorch repacks the weights of a product in every call, which costs as much as the product itself
for a few clips. PyTorch's compiler avoids this with two undocumented operators that prepack weights
in oneDNN's layout and fuse tanh into the product. Only this module uses them; if they are missing,
it falls back to the slower public operators.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@cache
def prepacks(dtype: torch.dtype) -> bool:
    """Return whether this PyTorch and this processor support prepacked weights of `dtype`."""
    try:
        x = torch.eye(2, dtype=dtype)
        result = _linear(x, _prepack(x, 2), torch.ones(2, dtype=dtype), "tanh")
        return torch.allclose(result.float(), torch.tanh(x.float() + 1), atol=0.02)
    except (AttributeError, RuntimeError, TypeError):
        return False


def _prepack(weight: Tensor, rows: int) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return packed


def _linear(x: Tensor, weight: Any, bias: Tensor | None, activation: str) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "")
    return result


class Linear:
    """A linear layer, `x @ weight + bias`, optionally followed by tanh.

    Parameters
    ----------
    weight : Tensor, `[in, out]`
    bias : Tensor, `[out]`, optional
    rows : int
        Rows of the operands `x`; the packed layout depends on it.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, rows: int = 1) -> None:
        self._bias = None if bias is None else bias.to(weight.dtype)
        self._weight = weight.T.contiguous()
        self._packed = prepacks(weight.dtype)
        if self._packed:
            self._weight = _prepack(self._weight, rows)

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the layer: `[rows, in]` to `[rows, out]`."""
        if self._packed:
            return _linear(x, self._weight, self._bias, "none")
        return F.linear(x, self._weight, self._bias)

    def tanh(self, x: Tensor) -> Tensor:
        """Apply the layer, then tanh: `[rows, in]` to `[rows, out]`."""
        if self._packed:
            return _linear(x, self._weight, self._bias, "tanh")
        return F.linear(x, self._weight, self._bias).tanh_()
