"""Which device our engine computes on, in which precision, by which path.

What is asked for is done or refused; `auto` is the fastest that changes next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nsynth_super import machine
from nsynth_super.problems import BadInput, Problem
from nsynth_super.progress import say
from nsynth_super.wavenet.linear import prepacks

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

WORTH_SHARING = 128
"""Width; a narrower model's products are too small for several threads, or for 16 bits."""

_BFLOAT16 = {"avx512_bf16", "amx_bf16"}  # of x86 processors: products of it, twice as fast
_VOLTA = (7, 0)  # the first GPUs with fast products of 16 bits


@dataclass(frozen=True)
class Hardware:
    """What computes.

    Attributes
    ----------
    device : torch.device
    precision : {"fp32", "bf16", "fp16"}
        Of the layers' products.
    """

    device: torch.device
    precision: str

    @property
    def dtype(self) -> torch.dtype:
        """Of the layers' products."""
        return PRECISIONS[self.precision]

    def __str__(self) -> str:
        """Name it in a message."""
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
        The model's.

    Raises
    ------
    BadInput
        If the device that was asked for is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cpu" and (unused := machine.gpus()):
            say(
                f"warning: {unused[0].model or 'a GPU'} stays unused: this PyTorch "
                f"({torch.__version__}) cannot use it -> install one built for it"
            )
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": _has_metal()}
    if not there[device]:
        raise BadInput(
            Problem(
                f"--device {device}",
                f"PyTorch {torch.__version__} finds none here",
                "install a PyTorch built for it and its driver, or leave --device out",
            )
        )
    chosen = torch.device(device)
    return Hardware(chosen, _fastest(chosen, width) if precision == "auto" else precision)


def _has_metal() -> bool:
    return bool(torch.backends.mps.is_available())


def _fastest(device: torch.device, width: int) -> str:
    """Return the fastest precision that changes next to nothing."""
    if width < WORTH_SHARING:
        return "fp32"
    if device.type == "cuda":
        return "fp16" if torch.cuda.get_device_capability(device) >= _VOLTA else "fp32"
    if device.type == "mps":
        return "fp16"
    fast = _BFLOAT16 & machine.processor_features() and prepacks(torch.bfloat16)
    return "bf16" if fast else "fp32"
