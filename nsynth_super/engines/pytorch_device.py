"""Choose the PyTorch engine's device and precision.

An explicit choice is honored or rejected; `auto` is the fastest option with negligible effect on
the results.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nsynth_super.base import allocation
from nsynth_super.base.errors import BadInput, Problem
from nsynth_super.base.text import say
from nsynth_super.wavenet.linear import prepacks

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

WORTH_SHARING = 128
"""Smallest width of a model that benefits from several threads or 16-bit products."""

_BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # x86 features that double the speed of products
_VOLTA = (7, 0)  # the first compute capability with fast 16-bit products


@dataclass(frozen=True)
class Hardware:
    """A device and a precision.

    Attributes
    ----------
    device : torch.device
    precision : {"fp32", "bf16", "fp16"}
        Precision of the layers' products.
    """

    device: torch.device
    precision: str

    @property
    def dtype(self) -> torch.dtype:
        """Type of the layers' products."""
        return PRECISIONS[self.precision]

    def __str__(self) -> str:
        """Return the device and precision for messages."""
        if self.device.type == "cuda":
            return f"{torch.cuda.get_device_name(self.device)}, {self.precision}"
        return f"{self.device.type.upper()}, {self.precision}"


def choose(device: str, precision: str, width: int) -> Hardware:
    """Choose a device and a precision.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "mps"}
    precision : {"auto", "fp32", "bf16", "fp16"}
    width : int
        The model's width.

    Raises
    ------
    BadInput
        If the requested device is not available.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cpu" and (unused := allocation.gpus()):
            say(
                f"warning: {unused[0].model or 'a GPU'} is not used: PyTorch {torch.__version__} "
                "does not support it -> install a PyTorch built for it"
            )
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": _has_metal()}
    if not available[device]:
        raise BadInput(
            Problem(
                f"--device {device}",
                f"PyTorch {torch.__version__} finds no such GPU",
                "install a PyTorch built for it and its driver, or omit --device",
            )
        )
    chosen = torch.device(device)
    return Hardware(chosen, _fastest(chosen, width) if precision == "auto" else precision)


def _has_metal() -> bool:
    return bool(torch.backends.mps.is_available())


def _fastest(device: torch.device, width: int) -> str:
    """Return the fastest precision with negligible effect on the results."""
    if width < WORTH_SHARING:
        return "fp32"
    if device.type == "cuda":
        return "fp16" if torch.cuda.get_device_capability(device) >= _VOLTA else "fp32"
    if device.type == "mps":
        return "fp16"
    fast = _BFLOAT16 & allocation.processor_features() and prepacks(torch.bfloat16)
    return "bf16" if fast else "fp32"
