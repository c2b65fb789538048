"""Text for the user: lines on stderr, amounts, durations, readable file names."""

from __future__ import annotations

import re
import sys

from tqdm import tqdm


def say(line: str) -> None:
    """Print a line on stderr without disturbing a progress bar."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


def amount(size: float) -> str:
    """Return a size in bytes as readable text: `1.5 GB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit in ("bytes", "kB") else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """Return a duration as readable text: `45 s`, `12 min`, `5 h 20 min`, `3.5 days`."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    minutes = seconds / 60
    if minutes < 90:
        return f"{minutes:.0f} min"
    hours = minutes / 60
    if hours < 36:
        return f"{int(hours)} h {int(minutes % 60):02d} min"
    return f"{hours / 24:.1f} days"


def readable_name(name: str) -> str:
    """Return `name` with every run of characters that are unsafe in file names as one dash."""
    return re.sub(r"[^\w.+-]+", "-", name)
