"""Reports the progress of a pack from its files and the status files of running stages."""

from __future__ import annotations

import json
from typing import Any

from nsynth_super.base.errors import BadInput, Problem
from nsynth_super.base.text import duration
from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.blocks import clips_done
from nsynth_super.pack.manifest import Manifest
from nsynth_super.pack.plan import Plan
from nsynth_super.runtime.progress import alive

_STATUS_KEYS = {"stage", "shard", "state", "host", "per_hour", "unit", "seconds_left"}
DEAD = "ended unexpectedly (killed?); run it again to resume"


def collect(workspace: Workspace) -> dict[str, Any]:
    """Return the progress of each stage.

    Returns
    -------
    dict
        `notes` encoded, `clips` done, `clips_total` (None without a plan), `pads` in the manifest
        (0 without one), and `runs`: the last status of every run.

    Raises
    ------
    BadInput
        If plan.json is damaged.
    """
    if not workspace.settings.exists():
        raise BadInput(
            Problem(
                str(workspace.root),
                "is not a workspace: it has no settings.json",
                "give one with -w",
            )
        )
    plan = Plan.read(workspace.plan)
    runs = []
    for path in sorted(workspace.status_folder.glob("*.json")):
        try:
            status = json.loads(path.read_text(encoding="utf-8"))
            status["alive"] = alive(status) if status["state"] == "running" else False
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if status.keys() >= _STATUS_KEYS:
            runs.append(status)
    manifest = Manifest.of_workspace(workspace)
    return {
        "notes": len(list(workspace.embeddings.glob("*.npy"))),
        "clips": round(clips_done(workspace, plan), 2) if plan else 0,
        "clips_total": len(plan.mixes) if plan else None,
        "pads": len(manifest.pads) if manifest else 0,
        "runs": runs,
    }


def lines(status: dict[str, Any]) -> list[str]:
    """Format a status as lines of text."""
    total = status["clips_total"]
    share = f" of {total} ({100 * status['clips'] / max(total, 1):.1f}%)" if total else ""
    out = [
        f"notes encoded  {status['notes']}",
        f"clips made     {status['clips']:g}{share}"
        if total
        else "clips made     none: no plan yet",
        f"pads written   {status['pads']}",
    ]
    for run in status["runs"]:
        who = f"{run['stage']} {run['shard']} on {run['host']}"
        if run["state"] != "running":
            out.append(f"{who}: {run['state']}")
        elif run["alive"] is False:
            out.append(f"{who}: {DEAD}")
        else:
            line = f"{who}: running"
            if run["seconds_left"] is not None:
                rate = f"{run['per_hour']:,.0f} {run['unit']} an hour"
                line += f", {rate}, {duration(run['seconds_left'])} left"
            out.append(line)
    return out
