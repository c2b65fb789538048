"""Plot the benchmarks' results as SVG; needs matplotlib (`pip install -e '.[plots]'`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

OURS, THEIRS, CEILING = "#1b6ca8", "#b5651d", "#8a8a8a"


def bars(path: Path, found: dict[int, dict[str, Any]]) -> None:
    """Plot the throughput of Magenta, the PyTorch engine and the roofline by batch size."""
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6))
    names = [("magenta", "Magenta 1.1.7", THEIRS), ("ours", "ours", OURS)]
    names.append(("roofline", "matrix products alone", CEILING))
    for place, (name, label, colour) in enumerate(names):
        heights = [row[name] or 0 for row in found.values()]
        at = [number + (place - 1) * 0.27 for number in range(len(found))]
        drawn = axes.bar(at, heights, 0.25, label=label, color=colour)
        axes.bar_label(drawn, fmt="{:,.0f}", fontsize=7)
    what = [
        f"{clips} clip{'s' * (clips > 1)}\nin each of {row['processes']} process"
        + "es" * (row["processes"] > 1)
        for clips, row in found.items()
    ]
    axes.set_xticks(range(len(found)), what)
    axes.set_ylabel("clip-samples a second")
    axes.set_title(f"CPU; ours in {next(iter(found.values()))['precision']}", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def curves(path: Path, rows: list[dict[str, Any]], by: str) -> None:
    """Plot time and memory by the size of the work; linear growth is a straight line."""
    figure, axes = pyplot.subplots(figsize=(6.4, 3.2))
    x = [row[by] for row in rows]
    seconds = [row["seconds"] for row in rows]
    axes.loglog(x, seconds, "o-", color=OURS, label="seconds")
    axes.loglog(x, [seconds[-1] * each / x[-1] for each in x], ":", color=CEILING, label="linear")
    memory = axes.twinx()
    memory.plot(x, [row["peak_megabytes"] for row in rows], "s--", color=THEIRS, label="MB")
    memory.set_ylim(bottom=0)
    memory.set_ylabel("peak memory, MB")
    axes.set_xlabel(by)
    axes.set_ylabel("seconds of decoding")
    lines = [*axes.get_lines(), *memory.get_lines()]
    axes.legend(lines, [str(line.get_label()) for line in lines], frameon=False, fontsize=8)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    for axes in figure.axes:
        axes.spines["top"].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without a date and random ids, the same figures produce the same file.
    matplotlib.rcParams["svg.hashsalt"] = path.name
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
