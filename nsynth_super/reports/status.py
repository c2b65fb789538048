"""status: how far a pack is. What is on disk counts; the stages' own reports say who is at it."""

from __future__ import annotations

import json
from typing import Any

from nsynth_super.blocks import clips_done
from nsynth_super.plan import Plan
from nsynth_super.problems import BadInput, Problem
from nsynth_super.progress import alive, duration
from nsynth_super.workspace import Workspace

_SAID = {"stage", "shard", "state", "host", "per_hour", "unit", "seconds_left"}
DEAD = "ended without a word (killed?); run it again to go on"


def collect(workspace: Workspace) -> dict[str, Any]:
    """Return how far each stage is.

    Returns
    -------
    dict
        `notes` encoded, `clips` done and `clips_total` (None without a plan), `pads` in the
        manifest (0 without one), and `runs`: what every run last said of itself.

    Raises
    ------
    BadInput
        If plan.json is damaged.
    """
    if not workspace.settings.exists():
        raise BadInput(
            Problem(
                str(workspace.root), "is no workspace: no settings.json there", "name it with -w"
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
        if status.keys() >= _SAID:
            runs.append(status)
    try:
        pads = len(json.loads(workspace.manifest.read_text(encoding="utf-8"))["pads"])
    except (OSError, ValueError, KeyError, TypeError):
        pads = 0
    return {
        "notes": len(list(workspace.embeddings.glob("*.npy"))),
        "clips": round(clips_done(workspace, plan), 2) if plan else 0,
        "clips_total": len(plan.mixes) if plan else None,
        "pads": pads,
        "runs": runs,
    }


def lines(status: dict[str, Any]) -> list[str]:
    """Return the status as a person reads it."""
    total = status["clips_total"]
    share = f" of {total} ({100 * status['clips'] / max(total, 1):.1f}%)" if total else ""
    out = [
        f"notes encoded  {status['notes']}",
        f"clips made     {status['clips']:g}{share}"
        if total
        else "clips made     none: there is no plan yet",
        f"pads written   {status['pads']}",
    ]
    for run in status["runs"]:
        who = f"{run['stage']} {run['shard']} on {run['host']}"
        if run["state"] != "running":
            out.append(f"{who}: {run['state']}")
        elif run["alive"] is False:
            out.append(f"{who}: {DEAD}")
        else:
            left = "" if run["seconds_left"] is None else f", {duration(run['seconds_left'])} left"
            out.append(f"{who}: running, {run['per_hour']:,.0f} {run['unit']} an hour{left}")
    return out
