"""verify: a card against its manifest and its device's settings.

Needs no workspace; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nsynth_super.card import LOCAL, Card, digest
from nsynth_super.card.comparison import few
from nsynth_super.card.manifest import Manifest
from nsynth_super.card.merging import missing
from nsynth_super.device import Geometry, corner_names, lacking, listed
from nsynth_super.problems import BadInput, Problem, errors
from nsynth_super.progress import Progress, following
from nsynth_super.settings import ABBREVIATION, CORNERS, DISPLAY

_AGAIN = "run install again"


@dataclass
class Report:
    """What `verify` found.

    Attributes
    ----------
    pads : int
        How many the manifest lists.
    bytes : int
        Of those that are whole.
    problems : list of Problem
    """

    pads: int = 0
    bytes: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether the device can play what its settings list."""
        return not errors(self.problems)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as `verify --json` prints it."""
        return {
            "pads": self.pads,
            "bytes": self.bytes,
            "whole": self.whole,
            "problems": [problem.as_dict() for problem in self.problems],
        }


def run(card: Card, quiet: bool = False) -> Report:
    """Read a card from end to end, and list everything that is wrong with it.

    Parameters
    ----------
    card : Card
    quiet : bool
    """
    report, manifest = Report(), None
    try:
        manifest = Manifest.read(card.manifest)
        if manifest is None:
            report.problems.append(
                Problem(str(card.manifest), "there is no such file", "run install")
            )
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
                report.problems.append(Problem(str(path), "is missing", _AGAIN))
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
                    what = "is not what the manifest says"
                    report.problems.append(Problem(str(path), what, _AGAIN))
    for name, there in bins.items():
        if there != size:
            report.problems.append(
                Problem(
                    str(card.pads / name),
                    f"has {there:,} bytes, not {size:,}",
                    _AGAIN if name in manifest.pads else "move it away",
                )
            )


def _settings(card: Card, manifest: Manifest | None, bins: dict[str, int]) -> Iterator[Problem]:
    """Hold the device's settings to the pads."""
    where, given = str(card.settings), card.given
    if card.overridden:
        yield Problem(where, "the device reads this and nothing of settings.json", level="note")
    elif card.is_device and (other := card.settings.parent / LOCAL).exists():
        yield Problem(where, f"the device reads {other} instead", f"--device-settings {other}")
    if given is None:
        level: Any = "error" if card.root else "note"
        yield Problem(where, "there is no such file", "the device's settings are not proved", level)
        return
    if not card.looks_here:
        yield Problem(where, f"nsynth.dataDirectory is not {card.data_directory}", _AGAIN)
    if manifest:
        for difference in manifest.geometry.differences(Geometry.of_device(given)):
            yield Problem(where, f"nsynth.{difference}, as the pads are", _AGAIN)
    for key in lacking(given):
        yield Problem(where, f"has no {key}, without which the device's program ends", "add it")
    yield from _corners(where, given)
    size = manifest.geometry.bytes if manifest else Geometry.of_device(given).bytes
    if absent := missing(given, bins, size):
        yield Problem(
            where,
            f"the device will ask for {few(absent)}, which are missing or of another size",
            _AGAIN,
        )


def _corners(where: str, given: dict[str, Any]) -> Iterator[Problem]:
    corners = corner_names(given)
    for number, corner in enumerate(CORNERS):
        if number >= len(corners) or not corners[number]:
            yield Problem(where, f"lists no instrument in corner {corner}", _AGAIN)
    for entry in listed(given):
        if lost := [key for key in ("name", "display", "abbr") if key not in entry]:
            yield Problem(where, f"an instrument has no {', '.join(lost)}: {entry}", "add it")
        for key, fits in (("display", DISPLAY), ("abbr", ABBREVIATION)):
            if len(str(entry.get(key, ""))) > fits:
                yield Problem(
                    where, f"{key} {entry[key]!r}: {fits} characters fit", "shorten it", "warning"
                )
