"""`check --plots`: what was found as a page, each note with its pictures.

One file that needs nothing else: no network, no other file, no script.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from nsynth_super.problems import BadInput, Problem
from nsynth_super.workspace import Workspace

if TYPE_CHECKING:
    from nsynth_super.check import Report

_NEEDED = ("jinja2", "matplotlib")


def require() -> None:
    """Refuse if what draws is not installed: said before anything is measured.

    Raises
    ------
    BadInput
    """
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise BadInput(
            Problem(
                "--plots",
                f"{missing[0]} is not installed, which draws them",
                "pip install 'nsynth-super[plots]'",
            )
        )


def write(workspace: Workspace, report: Report, quiet: bool = False) -> Path:
    """Write the page of what `check` found; return where it is.

    Parameters
    ----------
    workspace : Workspace
    report : check.Report
    quiet : bool
        No bar and no lines.

    Raises
    ------
    Failed
        If it cannot be written.
    """
    from nsynth_super.files import write_bytes
    from nsynth_super.report.entries import entries
    from nsynth_super.report.page import page

    name = workspace.root.resolve().name
    write_bytes(workspace.report, page(name, report, entries(workspace, report.notes, quiet)))
    return workspace.report
