"""Wait for conditions that other processes fulfil."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(met: Callable[[], bool], seconds: float, what: str) -> None:
    """Return as soon as `met()` is true; raise `TimeoutError` after `seconds`."""
    end = time.monotonic() + seconds
    while not met():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.3)
