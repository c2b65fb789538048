"""Bounds for the agreement of the PyTorch engine with Magenta, and the measures they apply to."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nsynth_super.engines.agreement import EMBEDDING, SAME_CODES

__all__ = ["DIVERGENCE", "EMBEDDING", "LOGITS", "SAME_CODES"]

LOGITS = 2e-3
DIVERGENCE = 1e-6  # nats


def log_sum_exp(logits: NDArray) -> NDArray:
    """Return the logarithm of the softmax's denominator, along the last axis."""
    peak = logits.max(-1, keepdims=True).astype(np.float64)
    return np.log(np.exp(logits - peak).sum(-1)) + peak[..., 0]


def divergence(theirs: NDArray, ours: NDArray) -> NDArray:
    """Return the Kullback-Leibler divergence of logits along the last axis, in nats."""
    p = theirs - log_sum_exp(theirs)[..., None]
    q = ours - log_sum_exp(ours)[..., None]
    return (np.exp(p) * (p - q)).sum(-1)


def entropy(logits: NDArray) -> NDArray:
    """Return the entropy of logits along the last axis, in nats."""
    p = logits - log_sum_exp(logits)[..., None]
    return -(np.exp(p) * p).sum(-1)


def tensors(weights: dict[str, NDArray]) -> dict[str, Tensor]:
    """Return the weights as tensors."""
    return {name: torch.from_numpy(array) for name, array in weights.items()}
