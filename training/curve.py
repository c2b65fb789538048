#!/usr/bin/env python3
"""Plot the loss of consecutive training runs: `python -m training.curve RUN.jsonl … PLOT.svg`."""

from __future__ import annotations

import json
from pathlib import Path

import click
import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

SMOOTHING = 10  # lines of the log per point of the smoothed curve


@click.command()
@click.argument(
    "logs", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.argument("picture", type=click.Path(dir_okay=False, path_type=Path))
def main(logs: tuple[Path, ...], picture: Path) -> None:
    """Plot the loss in nats per sample, raw and smoothed; each run continues the previous one."""
    steps: list[int] = []
    costs: list[float] = []
    for log in logs:
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        before = steps[-1] if steps else 0
        steps += [before + line["step"] for line in lines]
        costs += [line["nat"] for line in lines]
    recent = [costs[max(0, i - SMOOTHING + 1) : i + 1] for i in range(len(costs))]
    figure, axes = pyplot.subplots(figsize=(6.4, 3.2))
    axes.plot(steps, costs, color="#8a8a8a", linewidth=0.7, label="mean of 50 steps")
    smooth = [sum(these) / len(these) for these in recent]
    axes.plot(steps, smooth, color="#1b6ca8", label="of 500")
    axes.set_xlabel("step")
    axes.set_ylabel("nats per sample")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    matplotlib.rcParams["svg.hashsalt"] = picture.name  # reproducible ids in the file
    figure.savefig(picture, metadata={"Date": None})


if __name__ == "__main__":
    main()
