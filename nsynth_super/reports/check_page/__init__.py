"""`check --plots`: a page of the problems found and of every note, with pictures.

One HTML file without scripts that loads nothing: no network, no other file.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from nsynth_super.base.errors import BadInput, Problem
from nsynth_super.base.workspace import Workspace

if TYPE_CHECKING:
    from nsynth_super.reports.check import Report


def require() -> None:
    """Refuse early if matplotlib, which draws the pictures, is not installed.

    Raises
    ------
    BadInput
    """
    if find_spec("matplotlib") is None:
        raise BadInput(
            Problem(
                "--plots",
                "matplotlib is required and not installed",
                "pip install 'nsynth-super[plots]'",
            )
        )


def write_check_page(workspace: Workspace, report: Report, quiet: bool = False) -> Path:
    """Write the page of a `check` report; return its path.

    Parameters
    ----------
    workspace : Workspace
    report : check.Report
    quiet : bool
        Show no progress.

    Raises
    ------
    Failed
        If it cannot be written.
    """
    from nsynth_super.base.files import write_bytes
    from nsynth_super.reports.check_page.entries import entries
    from nsynth_super.reports.check_page.page import page

    name = workspace.root.resolve().name
    write_bytes(workspace.report, page(name, report, entries(workspace, report.notes, quiet)))
    return workspace.report
