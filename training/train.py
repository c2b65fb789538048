#!/usr/bin/env python3
"""Train a small model on rendered notes: `python -m training.train NOTES.npz OUT.safetensors`.

Minimizes the cross-entropy of the true codes with teacher forcing on windows, and exports a moving
average of the weights. The data of a step depend only on the seed and the step's number, and the
state is saved regularly, so that a stopped run resumes exactly.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from nsynth_super.base.files import replacing
from nsynth_super.wavenet import checkpoint, mulaw, random
from nsynth_super.wavenet.dimensions import CODES, HOP, Dimensions
from nsynth_super.wavenet.mulaw import ZERO
from training.autoencoder import amplitude, decode, encode, margin

DIMENSIONS = Dimensions(width=64, skip_width=64, layers=16, encoder_width=32, encoder_layers=10)
TARGETS, FRAMES = 32, (1, 2, 4, 8)
"""Frames of 512 samples per step, and the possible numbers of frames per window. Every window
starts from silence: with little past, the model must rely on the embedding."""
RATE, WARM_UP = 2e-3, 200  # Adam's peak learning rate, and the steps until it is reached
AVERAGE = 0.999  # decay of the moving average of the weights, per step
SAVE_EVERY, LOG_EVERY = 500, 50  # steps
QUIET = 0.05  # relative probability of a silent window
NOISY = 0.75  # share of windows with noise in the past
MIXED = 4  # notes per mix, as in the corners of the pad


@dataclass(frozen=True)
class Windows:
    """Training windows of notes: the target, its past, and the encoder's input.

    Attributes
    ----------
    codes : ndarray of uint8, `[notes, samples]`
        The notes.
    dimensions : Dimensions
        The model's sizes.
    noise : float
        Largest standard deviation of the noise added to the past, in codes. A model trained only on
        true pasts cannot recover from its own errors. `NOISY` of the windows have noise, with
        log-uniformly distributed levels.
    other : float
        Share of windows with another note mixed into the past, at log-uniformly distributed levels.
        Such a past is ambiguous, for example between octaves, so that the model must rely on the
        embedding.
    mixed : float
        Share of windows that mix four notes of one pitch, like the pad's cells: embeddings in the
        encoder's output, sounds in the target. With 0, all windows are sampled independently.
    pitches : ndarray of int, `[notes]`, or None
        MIDI numbers; only needed to mix.
    first : float
        Relative probability of a note's first window, because every clip must find its sound from
        silence.
    """

    codes: NDArray[np.uint8]
    dimensions: Dimensions
    noise: float
    first: float = 10.0
    other: float = 0.5
    mixed: float = 0.5
    pitches: NDArray[np.int64] | None = None

    def probabilities(self, frames: int) -> NDArray[np.float64]:
        """Return the probability of each window of `frames` frames, `[notes, places]`."""
        loud = np.abs(self.codes.astype(np.int16) - ZERO).reshape(len(self.codes), -1, HOP)
        audible = np.lib.stride_tricks.sliding_window_view(loud.max(axis=2) > 2, frames, axis=1)
        weight = np.where(audible.any(axis=2), 1.0, QUIET)
        weight[:, 0] *= self.first
        return np.asarray(weight / weight.sum())

    def step(self, seed: int, number: int) -> dict[str, Tensor]:
        """Return the data of a step."""
        generator = np.random.default_rng([seed, number])
        frames = int(generator.choice(FRAMES))
        probabilities = self.probabilities(frames)
        groups = TARGETS // frames // (MIXED if self.mixed else 1)
        chosen = generator.choice(probabilities.size, groups, p=probabilities.ravel())
        notes, places = np.divmod(chosen, probabilities.shape[1])
        if not self.mixed:
            return self.cut(notes, places, frames, generator)
        notes = np.concatenate([self._of_one_pitch(note, generator) for note in notes])
        shares = np.stack([self._shares(generator) for _ in range(groups)])
        return self.cut(notes, places.repeat(MIXED), frames, generator, shares)

    def _of_one_pitch(self, note: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Return a note and three others of its pitch, `[4]`, in random order."""
        assert self.pitches is not None
        same_pitch = np.flatnonzero(self.pitches == self.pitches[note])
        others = np.resize(generator.permutation(same_pitch[same_pitch != note]), MIXED - 1)
        return generator.permutation(np.append(others, note))

    def _shares(self, generator: np.random.Generator) -> NDArray[np.float64]:
        """Return the weights of the four notes in each of four windows, `[4, 4]`."""
        shares = np.eye(MIXED)
        for window in np.flatnonzero(generator.random(MIXED) < self.mixed):
            x, y = generator.random(2) * (1, generator.random() < 0.5)  # on an edge, or anywhere
            cell = np.outer((1 - y, y), (1 - x, x)).ravel()
            shares[window] = generator.permutation(cell)
        return shares

    def cut(
        self,
        notes: NDArray[np.int64],
        places: NDArray[np.int64],
        frames: int,
        generator: np.random.Generator,
        shares: NDArray[np.float64] | None = None,
    ) -> dict[str, Tensor]:
        """Return windows of `frames` frames as tensors.

        Parameters
        ----------
        notes, places : ndarray of int, `[windows]`
            The note and the first frame of each window.
        frames : int
            Length of the windows.
        generator : numpy.random.Generator
            Random numbers for the noise.
        shares : ndarray of float, `[groups, windows, notes]`, optional
            Weights of a group's notes in each of its windows; by default windows are not mixed.
        """
        beside, rows = margin(self.dimensions), self.codes[notes]
        time = (places[:, None] - beside) * HOP + np.arange((frames + 2 * beside) * HOP)
        inside = (time >= 0) & (time < rows.shape[1])
        heard = np.take_along_axis(rows, np.clip(time, 0, rows.shape[1] - 1), axis=1)
        answer = heard[:, beside * HOP :][:, : frames * HOP]
        if shares is None:
            shares = np.ones((len(notes), 1, 1))
        else:
            sounds = mulaw.decode(answer).reshape(len(shares), -1, frames * HOP)
            answer = mulaw.encode((shares @ sounds).reshape(answer.shape))
        past = self.disturbed(answer, time[:, beside * HOP :][:, : frames * HOP], generator)
        past[:, 1:], past[:, 0] = past[:, :-1].copy(), ZERO
        return {
            "past": amplitude(torch.from_numpy(past)),
            "heard": amplitude(torch.from_numpy(np.where(inside, heard, ZERO))),
            "inside": torch.from_numpy(inside).float(),
            "shares": torch.from_numpy(shares).float(),
            "answer": torch.from_numpy(answer.astype(np.int64)),
        }

    def disturbed(
        self, answer: NDArray[np.uint8], time: NDArray[np.int64], generator: np.random.Generator
    ) -> NDArray[np.float64]:
        """Return the target's codes with noise and other notes, to imitate a model's errors."""
        windows = len(answer)
        noise = self.noise * 2.0 ** (-6 * generator.random((windows, 1)))
        noise *= generator.random((windows, 1)) < NOISY
        jitter = np.rint(generator.standard_normal(answer.shape) * noise)
        others = self.codes[generator.integers(len(self.codes), size=(windows, 1)), time]
        share = 2.0 ** (-4 * generator.random((windows, 1)))
        share *= generator.random((windows, 1)) < self.other
        mixed = jitter + np.rint(share * (others.astype(np.float64) - answer))
        return np.clip(answer + mixed, 0, CODES - 1)


def mix(encoding: Tensor, shares: Tensor) -> Tensor:
    """Return the embeddings mixed within groups, `[windows, frames, embedding]`."""
    groups = encoding.unflatten(0, (len(shares), -1))
    return torch.einsum("gwn,gnfe->gwfe", shares, groups).flatten(0, 1)


def loss(weights: dict[str, Tensor], dimensions: Dimensions, seen: dict[str, Tensor]) -> Tensor:
    """Return the mean cross-entropy of the true codes, in nats."""
    encoding = mix(encode(weights, dimensions, seen["heard"], seen["inside"]), seen["shares"])
    logits = decode(weights, dimensions, seen["past"], encoding.repeat_interleave(HOP, dim=1))
    return F.cross_entropy(logits.float().flatten(0, 1), seen["answer"].flatten())


def untrained(dimensions: Dimensions, seed: int) -> dict[str, Tensor]:
    """Return the initial weights: random ones with nearly uniform output probabilities."""
    weights = {name: torch.from_numpy(w) for name, w in random.weights(dimensions, seed).items()}
    weights["logits/W"] *= 0.1
    return weights


def trained(model: Path) -> dict[str, Tensor]:
    """Return the initial weights from an existing model."""
    return {name: torch.from_numpy(w) for name, w in checkpoint.load(model).weights.items()}


def learning_rate(step: int, steps: int) -> float:
    """Return a step's learning rate: linear warm-up, then cosine decay to a hundredth."""
    falling = 0.5 * (1 + math.cos(math.pi * step / steps))
    return RATE * min(1.0, (step + 1) / WARM_UP) * (0.01 + 0.99 * falling)


class Run:
    """The state of a training run and its file; resumes if the file exists."""

    def __init__(
        self, path: Path, dimensions: Dimensions, seed: int, start: Path | None = None
    ) -> None:
        self.path, self.step = path, 0
        first = trained(start) if start else untrained(dimensions, seed)
        self.average = {name: w.clone() for name, w in first.items()}
        self.weights = {name: w.requires_grad_() for name, w in first.items()}
        self.optimizer = torch.optim.Adam(self.weights.values(), betas=(0.9, 0.99))
        if path.exists():
            state = torch.load(path, weights_only=True)
            self.step, self.average = state["step"], state["average"]
            for name, w in state["weights"].items():
                self.weights[name].data.copy_(w)
            self.optimizer.load_state_dict(state["optimizer"])

    def save(self) -> None:
        """Save the state atomically."""
        weights = {name: w.detach() for name, w in self.weights.items()}
        state = {"step": self.step, "average": self.average, "weights": weights}
        with replacing(self.path) as temporary:
            torch.save({**state, "optimizer": self.optimizer.state_dict()}, temporary)

    def update(self, cost: Tensor, rate: float) -> None:
        """Take one optimization step, and update the moving average."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        cost.backward()
        torch.nn.utils.clip_grad_norm_(self.weights.values(), 1.0)
        self.optimizer.step()
        self.step += 1
        share = min(AVERAGE, self.step / (self.step + 10))
        for name, w in self.weights.items():
            self.average[name].lerp_(w.detach(), 1 - share)

    def export(self, path: Path, source: str, sharper: float) -> None:
        """Write the averaged weights as a checkpoint, with the logits scaled by `sharper`."""
        weights = {
            name: w.numpy() * np.float32(sharper if name.startswith("logits/") else 1)
            for name, w in self.average.items()
        }
        checkpoint.save(weights, path, source)


@click.command()
@click.argument("notes", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--steps", default=9_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--noise", default=16.0, show_default=True, help="Largest noise in the past, in codes."
)
@click.option(
    "--first", default=10.0, show_default=True, help="Relative probability of first windows."
)
@click.option(
    "--other",
    default=0.5,
    show_default=True,
    help="Share of windows with a second note in the past.",
)
@click.option(
    "--mixed", default=0.5, show_default=True, help="Share of windows that mix four notes."
)
@click.option(
    "--sharper", default=1.0, show_default=True, help="Factor for the exported model's logits."
)
@click.option(
    "--start", type=click.Path(exists=True, path_type=Path), help="Model to start training from."
)
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--stop-after", type=int, help="Stop at this step; the same command resumes.")
def main(
    notes: Path,
    out: Path,
    steps: int,
    seed: int,
    noise: float,
    first: float,
    other: float,
    mixed: float,
    sharper: float,
    start: Path | None,
    device: str,
    stop_after: int | None,
) -> None:
    """Train on NOTES, the output of training.notes, and write the model to OUT."""
    rendered = np.load(notes)
    codes, pitches = rendered["codes"], [int(str(n).rpartition("_")[2]) for n in rendered["names"]]
    windows = Windows(codes, DIMENSIONS, noise, first, other, mixed, np.array(pitches))
    run = Run(out.with_suffix(".state"), DIMENSIONS, seed, start)
    log, until = out.with_suffix(".jsonl"), min(steps, stop_after or steps)
    costs: list[float] = []
    bar = tqdm(total=steps, initial=run.step, unit="step", mininterval=5)
    while run.step < until:
        seen = {name: t.to(device) for name, t in windows.step(seed, run.step).items()}
        cost = loss({name: w.bfloat16() for name, w in run.weights.items()}, DIMENSIONS, seen)
        run.update(cost, learning_rate(run.step, steps))
        costs.append(float(cost))
        bar.update()
        if run.step % LOG_EVERY == 0 or run.step == until:
            line = {"step": run.step, "nat": round(float(np.mean(costs)), 4)}
            with log.open("a") as file:
                file.write(json.dumps(line) + os.linesep)
            bar.set_postfix(line)
            costs.clear()
        if run.step % SAVE_EVERY == 0 or run.step == until:
            run.save()
            source = f"trained on {notes.name}, seed {seed}, {run.step} of {steps} steps"
            run.export(out, source, sharper)


if __name__ == "__main__":
    main()
