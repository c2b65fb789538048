"""A pack's pads against those that a card's folder holds: the same, others, of another geometry.

Reads; writes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

from nsynth_super.card import Card, digest
from nsynth_super.card.manifest import Manifest
from nsynth_super.device import Geometry, corner_names
from nsynth_super.files import explained
from nsynth_super.problems import Problem
from nsynth_super.progress import Progress, following
from nsynth_super.settings import CORNERS, pad_name

MOST_COMBINATIONS = 100_000  # of a device's settings; more than any card holds


@dataclass
class Comparison:
    """What of a pack is on a card, and what is in its way.

    Attributes
    ----------
    bins : dict of str to int
        Size of every pad in the folder, by file name.
    same, damaged, other : set of str
        Of the pack's names on the card: to the byte; by the card's manifest the same, but not to
        the byte; something else.
    strange : set of str
        Pads of another size than the pack's that no manifest lists: cut short, or anything.
    differing : list of str
        In what the geometry of pads on the card differs from the pack's, as its manifest says, or
        without one, the device's settings.
    """

    bins: dict[str, int]
    same: set[str] = field(default_factory=set)
    damaged: set[str] = field(default_factory=set)
    other: set[str] = field(default_factory=set)
    strange: set[str] = field(default_factory=set)
    differing: list[str] = field(default_factory=list)


def compare(card: Card, pack: Manifest, present: Manifest | None, quiet: bool) -> Comparison:
    """Compare a pack with a card's folder.

    Parameters
    ----------
    card : Card
    pack : Manifest
        The workspace's.
    present : Manifest or None
        The card's.
    quiet : bool

    Raises
    ------
    Failed
        If a pad on the card cannot be read.
    """
    found = Comparison(card.bins())
    if present and (differing := pack.geometry.differences(present.geometry)):
        found.differing = differing
        return found
    size = pack.geometry.bytes
    names = [name for name in pack.pads if name in found.bins]
    progress = Progress("compare", len(names), "pads", None, quiet=quiet)
    with following(progress):
        for name in names:
            path, wanted = card.pads / name, pack.pads[name]
            try:
                same = found.bins[name] == size and wanted == digest(
                    path, lambda read: progress.advance(read / size)
                )
            except OSError as error:
                raise explained(error, path) from error
            was = present is not None and present.pads.get(name) == wanted
            (found.same if same else found.damaged if was else found.other).add(name)
    unlisted = found.bins.keys() - pack.pads.keys() - (present.pads.keys() if present else set())
    found.strange = {name for name in unlisted if found.bins[name] != size}
    if not present and card.looks_here and found.bins.keys() - found.same:
        found.differing = pack.geometry.differences(Geometry.of_device(card.given or {}))
    return found


def in_the_way(card: Card, pack: Manifest, found: Comparison) -> Iterator[Problem]:
    """Name what only `--replace` or another folder gets round."""
    if found.differing:
        yield Problem(
            str(card.pads),
            f"holds pads of another geometry ({'; '.join(found.differing)})",
            f"{elsewhere(card)}, --replace removes what is there",
        )
        return
    if found.strange:
        name = min(found.strange)
        yield Problem(
            str(card.pads),
            f"{few(found.strange)} are cut short, or of another geometry "
            f"({name} has {found.bins[name]:,} bytes, not {pack.geometry.bytes:,})",
            f"--replace removes those that are pads for certain, {elsewhere(card)}",
        )
    if found.other:
        yield Problem(
            str(card.pads),
            f"{few(found.other)} are there with other sounds",
            f"--replace overwrites them, {elsewhere(card)}",
        )


def elsewhere(card: Card) -> str:
    """Return how to put a pack beside what is in its way."""
    if card.root:
        return "--folder NAME puts the pack into a folder of its own"
    return "another TARGET leaves it alone"


def removable(card: Card, pack: Manifest, present: Manifest | None) -> set[str]:
    """Return the names of files that are pads for certain: whoever knows lists them."""
    known = set(pack.pads) | set(present.pads if present else ())
    corners = corner_names(card.given or {}) if card.looks_here else []
    if len(corners) == len(CORNERS) and math.prod(map(len, corners)) <= MOST_COMBINATIONS:
        known |= {f"{pad_name(combination)}.bin" for combination in product(*corners)}
    return known


def unknown(card: Card, pack: Manifest, left: Mapping[str, int]) -> Iterator[Problem]:
    """Name what is no pad of this geometry and may not be removed: perhaps it is no pad at all."""
    for name, size in left.items():
        if size != pack.geometry.bytes:
            yield Problem(
                str(card.pads / name),
                f"has {size:,} bytes, not {pack.geometry.bytes:,}, and nothing says what it is",
                f"move it away, or {elsewhere(card)}",
            )


def few(names: set[str] | list[str]) -> str:
    """Return the first three names, and how many there are more."""
    listed = sorted(names)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + more
