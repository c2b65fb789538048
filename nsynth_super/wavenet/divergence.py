"""Measure how far fast paths diverge from the reference decoder, in nats per sample."""

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
"""Largest acceptable divergence of a reduced precision, in nats per sample."""


@torch.inference_mode()
def divergences(
    weights: Mapping[str, Tensor],
    dimensions: Dimensions,
    decoders: Sequence[Stepper],
    encodings: Tensor,
    steps: int,
    seed: int = 0,
) -> list[float]:
    """Return the mean Kullback-Leibler divergence of each path from the reference decoder.

    The reference decoder samples the codes, in the precision and on the device of the weights.
    Every path receives the same codes, so that all predict the next code from the same past.

    Parameters
    ----------
    weights : mapping of str to Tensor
        The checkpoint's variables.
    dimensions : Dimensions
        The model's sizes.
    decoders : sequence of Stepper
        The paths to compare; reset before and after.
    encodings : Tensor of float32, `[clips, frames, embedding]`
        One encoding per clip of the paths; the frames repeat after the last one.
    steps : int
        Samples to compare.
    seed : int
        Seed of the random numbers for sampling.

    Returns
    -------
    list of float
        Divergence of each path in nats per sample; infinite if its logits contain NaN.
    """
    clips, like = len(encodings), weights["logits/W"]
    reference = Decoder(weights, dimensions, clips)
    generator = torch.Generator().manual_seed(seed)
    code = torch.full((clips,), ZERO, device=like.device)
    totals = [0.0] * len(decoders)
    for decoder in decoders:
        decoder.reset()
    for t in range(steps):
        frame = encodings[:, t // HOP % encodings.shape[1]]
        logits = reference.step(code, frame.to(like)).double()
        for number, decoder in enumerate(decoders):
            if t % HOP == 0:
                decoder.condition(frame)
            own = decoder.step(code.to(decoder.code.device)).to(logits.device).double()
            p, q = logits.log_softmax(1), own.log_softmax(1)
            totals[number] += float((p.exp() * (p - q)).sum(1).mean())
        uniform = torch.rand(clips, generator=generator, dtype=torch.float64)
        code = draw(logits, uniform.to(like.device))
    for decoder in decoders:
        decoder.reset()
    return [math.inf if math.isnan(total) else total / steps for total in totals]
