"""A matrix product on the CPU with its weights laid out beforehand.

PyTorch lays out a product's weights anew in every call; for a few clips that costs as much as the
product. oneDNN's layout, kept, and tanh in the same pass are what PyTorch's own compiler uses: two
operators that it does not document. They are named here and nowhere else; without them, the same is
computed by the public ones, slower.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@cache
def prepacks(dtype: torch.dtype) -> bool:
    """Tell whether this PyTorch and this processor keep weights of `dtype` laid out."""
    try:
        x = torch.eye(2, dtype=dtype)
        made = _pointwise(x, _laid_out(x, 2), torch.ones(2, dtype=dtype), "tanh")
        return torch.allclose(made.float(), torch.tanh(x.float() + 1), atol=0.02)
    except (AttributeError, RuntimeError, TypeError):
        return False


def _laid_out(weight: Tensor, rows: int) -> Tensor:
    made: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return made


def _pointwise(x: Tensor, weight: Any, bias: Tensor | None, after: str) -> Tensor:
    made: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, after, [], "")
    return made


class Linear:
    """`x @ weight + bias`, and tanh of it.

    Parameters
    ----------
    weight : Tensor, `[in, out]`
    bias : Tensor, `[out]`, optional
    rows : int
        Of the x to come: the layout depends on it.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, rows: int = 1) -> None:
        self._bias = None if bias is None else bias.to(weight.dtype)
        self._weight = weight.T.contiguous()
        self._packed = prepacks(weight.dtype)
        if self._packed:
            self._weight = _laid_out(self._weight, rows)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the product, `[rows, out]`, of `x`, `[rows, in]`."""
        if self._packed:
            return _pointwise(x, self._weight, self._bias, "none")
        return F.linear(x, self._weight, self._bias)

    def tanh(self, x: Tensor) -> Tensor:
        """Return tanh of the product."""
        if self._packed:
            return _pointwise(x, self._weight, self._bias, "tanh")
        return F.linear(x, self._weight, self._bias).tanh_()
