"""Verifies the pads and settings on a card against the card's manifest.

Needs no workspace and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nsynth_super.base.errors import BadInput, Problem, errors
from nsynth_super.pack.geometry import Geometry
from nsynth_super.pack.manifest import Manifest
from nsynth_super.runtime.progress import Progress, following
from nsynth_super.settings import ABBREVIATION, CORNERS, DISPLAY
from nsynth_super.synth.card import LOCAL, Card, digest
from nsynth_super.synth.compare import few
from nsynth_super.synth.merge_settings import missing
from nsynth_super.synth.settings import corner_names, lacking, listed

_REINSTALL = "run install again"


@dataclass
class Report:
    """The result of `verify`.

    Attributes
    ----------
    pads : int
        Number of pads in the manifest.
    bytes : int
        Total size of the intact pads.
    problems : list of Problem
    """

    pads: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        """Whether the synth can play everything that its settings list."""
        return not errors(self.problems)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of `verify --json`."""
        return {
            "pads": self.pads,
            "bytes": self.bytes,
            "whole": self.intact,
            "problems": [problem.as_dict() for problem in self.problems],
        }


def verify_card(card: Card, quiet: bool = False) -> Report:
    """Read all pads and the settings of a card, and report every problem.

    Parameters
    ----------
    card : Card
    quiet : bool
        Whether to hide the progress.
    """
    report, manifest = Report(), None
    try:
        manifest = Manifest.read(card.manifest)
        if manifest is None:
            report.problems.append(Problem(str(card.manifest), "does not exist", "run install"))
    except BadInput as bad:
        report.problems += bad.problems
    bins = card.bins()
    if manifest:
        report.pads = len(manifest.pads)
        _read_pads(card, manifest, bins, report, quiet)
    report.problems += _settings(card, manifest, bins)
    return report


def _read_pads(
    card: Card, manifest: Manifest, bins: dict[str, int], report: Report, quiet: bool
) -> None:
    size = manifest.geometry.bytes
    progress = Progress("verify", len(manifest.pads), "pads", None, quiet=quiet)
    with following(progress):
        for name, wanted in manifest.pads.items():
            path = card.pads / name
            if name not in bins:
                report.problems.append(Problem(str(path), "is missing", _REINSTALL))
            elif bins[name] == size:
                try:
                    same = wanted == digest(path, lambda read: progress.advance(read / size))
                except OSError as error:
                    what = f"cannot be read ({error.strerror})"
                    report.problems.append(Problem(str(path), what, "try another card"))
                    continue
                if same:
                    report.bytes += size
                else:
                    report.problems.append(
                        Problem(str(path), "does not match the manifest", _REINSTALL)
                    )
    for name, there in bins.items():
        if there != size:
            report.problems.append(
                Problem(
                    str(card.pads / name),
                    f"has {there:,} bytes, expected {size:,}",
                    _REINSTALL if name in manifest.pads else "move it elsewhere",
                )
            )


def _settings(card: Card, manifest: Manifest | None, bins: dict[str, int]) -> Iterator[Problem]:
    """Yield the problems of the synth's settings, and their mismatches with the pads."""
    where, given = str(card.settings), card.given
    if card.overridden:
        yield Problem(where, "the synth reads this file instead of settings.json", level="note")
    elif card.is_synth and (other := card.settings.parent / LOCAL).exists():
        yield Problem(where, f"the synth reads {other} instead", f"use --synth-settings {other}")
    if given is None:
        level: Any = "error" if card.root else "note"
        yield Problem(where, "does not exist", "the synth's settings cannot be verified", level)
        return
    if not card.looks_here:
        yield Problem(where, f"nsynth.dataDirectory is not {card.data_directory}", _REINSTALL)
    if manifest:
        for difference in manifest.geometry.differences(Geometry.of_synth(given)):
            yield Problem(where, f"nsynth.{difference} as in the pads", _REINSTALL)
    for key in lacking(given):
        yield Problem(where, f"has no {key}, which the synth's program requires", "add it")
    yield from _corners(where, given)
    size = manifest.geometry.bytes if manifest else Geometry.of_synth(given).bytes
    if absent := missing(given, bins, size):
        yield Problem(
            where,
            f"the synth needs {few(absent)}, which are missing or of another size",
            _REINSTALL,
        )


def _corners(where: str, given: dict[str, Any]) -> Iterator[Problem]:
    corners = corner_names(given)
    for number, corner in enumerate(CORNERS):
        if number >= len(corners) or not corners[number]:
            yield Problem(where, f"lists no instrument in corner {corner}", _REINSTALL)
    for entry in listed(given):
        if absent := [key for key in ("name", "display", "abbr") if key not in entry]:
            yield Problem(where, f"an instrument has no {', '.join(absent)}: {entry}", "add it")
        for key, longest in (("display", DISPLAY), ("abbr", ABBREVIATION)):
            if len(str(entry.get(key, ""))) > longest:
                yield Problem(
                    where,
                    f"{key} {entry[key]!r} has more than {longest} characters",
                    "shorten it",
                    "warning",
                )
