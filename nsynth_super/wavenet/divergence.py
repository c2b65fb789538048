"""How far fast paths are from the definition, in nat a sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nsynth_super.wavenet.decoder import Decoder
from nsynth_super.wavenet.dimensions import HOP, Dimensions
from nsynth_super.wavenet.mulaw import ZERO
from nsynth_super.wavenet.sampling import draw
from nsynth_super.wavenet.stepping import Stepper

TOLERATED = 1e-2
"""Nat a sample that a precision chosen for its speed may cost."""


@torch.inference_mode()
def divergences(
    weights: Mapping[str, Tensor],
    dimensions: Dimensions,
    decoders: Sequence[Stepper],
    encodings: Tensor,
    steps: int,
    seed: int = 0,
) -> list[float]:
    """Return the mean Kullback-Leibler divergence of each path's next code from the definition's.

    The definition, in the weights' own precision and where they lie, draws its codes; the paths are
    given the same ones. So what is compared is one distribution after one past.

    Parameters
    ----------
    weights : mapping of str to Tensor
        The checkpoint's variables.
    dimensions : Dimensions
    decoders : sequence of Stepper
        The paths; they are reset before and after.
    encodings : Tensor of float32, `[clips, frames, embedding]`
        Of as many clips as the paths have; frames start over when there are no more.
    steps : int
    seed : int
        Of the uniforms that codes are drawn with.

    Returns
    -------
    list of float
        Nat a sample; infinite where a path's logits are no numbers.
    """
    clips, like = len(encodings), weights["logits/W"]
    definition = Decoder(weights, dimensions, clips)
    generator = torch.Generator().manual_seed(seed)
    code = torch.full((clips,), ZERO, device=like.device)
    totals = [0.0] * len(decoders)
    for decoder in decoders:
        decoder.reset()
    for t in range(steps):
        frame = encodings[:, t // HOP % encodings.shape[1]]
        logits = definition.step(code, frame.to(like)).double()
        for number, decoder in enumerate(decoders):
            if t % HOP == 0:
                decoder.condition(frame)
            its = decoder.step(code.to(decoder.code.device)).to(logits.device).double()
            true, its = logits.log_softmax(1), its.log_softmax(1)
            totals[number] += float((true.exp() * (true - its)).sum(1).mean())
        uniform = torch.rand(clips, generator=generator, dtype=torch.float64)
        code = draw(logits, uniform.to(like.device))
    for decoder in decoders:
        decoder.reset()
    return [math.inf if math.isnan(total) else total / steps for total in totals]
