"""Settings of the packs in the fault tests, and helpers that modify or read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.plan import Plan
from tests.conftest import SETTINGS
from tests.faults.processes import (
    Command,
    Ended,
)

RUN = Callable[..., Ended]
START = Callable[..., Command]

ONE_BLOCK = SETTINGS
"""18 clips."""

TWO_BLOCKS = {
    **SETTINGS,
    "pads": {"NW": ["flute", "oboe"], "NE": ["tin_drum"], "SW": ["harp"], "SE": ["viola"]},
    "resolution": 6,
}
"""116 clips: 72 without the oboe, 22 with its note 48."""


def change(workspace: Workspace, **settings: Any) -> None:
    now = {**json.loads(workspace.settings.read_text(encoding="utf-8")), **settings}
    workspace.settings.write_text(json.dumps(now), encoding="utf-8")


def codes_by_mix(workspace: Workspace) -> dict[Any, bytes]:
    """Return the stored codes of each clip, by mix."""
    plan = Plan.read(workspace.plan)
    found = {}
    for block in range(plan.blocks):
        for name in (workspace.block, workspace.partial):
            path = name(block, plan.block_identity(block))
            if path.exists():
                mixes = [plan.mixes[clip] for clip in plan.clips_of(block)]
                found.update(zip(mixes, map(bytes, np.load(path)), strict=True))
    return found


def save_almost_all(workspace: Workspace, codes: np.ndarray) -> None:
    """Save all but the last 100 samples of the first block."""
    plan = Plan.read(workspace.plan)
    np.save(workspace.partial(0, plan.block_identity(0)), codes[:, :-100])
