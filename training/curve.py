#!/usr/bin/env python3
"""Draw the loss of training, run after run: `python -m training.curve RUN.jsonl … PICTURE.svg`."""

from __future__ import annotations

import json
from pathlib import Path

import click
import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

LATELY = 10  # lines of the log, for the smooth curve


@click.command()
@click.argument(
    "logs", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.argument("picture", type=click.Path(dir_okay=False, path_type=Path))
def main(logs: tuple[Path, ...], picture: Path) -> None:
    """Draw nat a sample by step, logged and smoothed; each run begins where the last one ended."""
    steps: list[int] = []
    costs: list[float] = []
    for log in logs:
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        before = steps[-1] if steps else 0
        steps += [before + line["step"] for line in lines]
        costs += [line["nat"] for line in lines]
    recent = [costs[max(0, i - LATELY + 1) : i + 1] for i in range(len(costs))]
    figure, axes = pyplot.subplots(figsize=(6.4, 3.2))
    axes.plot(steps, costs, color="#8a8a8a", linewidth=0.7, label="mean of 50 steps")
    smooth = [sum(these) / len(these) for these in recent]
    axes.plot(steps, smooth, color="#1b6ca8", label="of 500")
    axes.set_xlabel("step")
    axes.set_ylabel("nat a sample")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    matplotlib.rcParams["svg.hashsalt"] = picture.name  # the same figures, the same file
    figure.savefig(picture, metadata={"Date": None})


if __name__ == "__main__":
    main()
