"""Compares a pack with the pads on a card: identical, different, or of another geometry.

Writes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

from nsynth_super.base.errors import Problem
from nsynth_super.base.files import explained
from nsynth_super.pack.geometry import Geometry
from nsynth_super.pack.manifest import Manifest
from nsynth_super.runtime.progress import Progress, following
from nsynth_super.settings import CORNERS, pad_name
from nsynth_super.synth.card import Card, digest
from nsynth_super.synth.settings import corner_names

MOST_COMBINATIONS = 100_000  # more pads than any card holds


@dataclass
class Comparison:
    """The pads of a pack that are on a card, and the conflicts.

    Attributes
    ----------
    bins : dict of str to int
        Size of every pad in the folder, by file name.
    same, damaged, other : set of str
        The pack's pads that exist on the card: identical; damaged, since the card's manifest lists
        the same hash but the content differs; with other content.
    strange : set of str
        Files that no manifest lists and whose size differs from the pack's pads.
    differing : list of str
        How the geometry of pads on the card differs from the pack's, by the card's manifest or,
        without one, the synth's settings.
    """

    bins: dict[str, int]
    same: set[str] = field(default_factory=set)
    damaged: set[str] = field(default_factory=set)
    other: set[str] = field(default_factory=set)
    strange: set[str] = field(default_factory=set)
    differing: list[str] = field(default_factory=list)


def compare(card: Card, pack: Manifest, present: Manifest | None, quiet: bool) -> Comparison:
    """Compare a pack with the pads on a card.

    Parameters
    ----------
    card : Card
    pack : Manifest
        The workspace's manifest.
    present : Manifest or None
        The card's manifest.
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
            listed = present is not None and present.pads.get(name) == wanted
            (found.same if same else found.damaged if listed else found.other).add(name)
    unlisted = found.bins.keys() - pack.pads.keys() - (present.pads.keys() if present else set())
    found.strange = {name for name in unlisted if found.bins[name] != size}
    if not present and card.looks_here and found.bins.keys() - found.same:
        found.differing = pack.geometry.differences(Geometry.of_synth(card.given or {}))
    return found


def conflicts(card: Card, pack: Manifest, found: Comparison) -> Iterator[Problem]:
    """Yield an error for everything that needs `--replace` or another folder."""
    if found.differing:
        yield Problem(
            str(card.pads),
            f"holds pads of another geometry ({'; '.join(found.differing)})",
            f"{elsewhere(card)}; --replace removes those pads",
        )
        return
    if found.strange:
        name = min(found.strange)
        yield Problem(
            str(card.pads),
            f"{few(found.strange)}: truncated, or of another geometry "
            f"({name} has {found.bins[name]:,} bytes, expected {pack.geometry.bytes:,})",
            f"--replace removes those known to be pads; {elsewhere(card)}",
        )
    if found.other:
        yield Problem(
            str(card.pads),
            f"{few(found.other)}: other pads with the same names exist",
            f"--replace overwrites them; {elsewhere(card)}",
        )


def elsewhere(card: Card) -> str:
    """Return advice on installing a pack without touching existing pads."""
    if card.root:
        return "--folder NAME installs the pack in its own folder"
    return "another TARGET avoids the conflict"


def removable(card: Card, pack: Manifest, present: Manifest | None) -> set[str]:
    """Return the names of files known to be pads: listed in a manifest or the settings."""
    known = set(pack.pads) | set(present.pads if present else ())
    corners = corner_names(card.given or {}) if card.looks_here else []
    if len(corners) == len(CORNERS) and math.prod(map(len, corners)) <= MOST_COMBINATIONS:
        known |= {f"{pad_name(combination)}.bin" for combination in product(*corners)}
    return known


def unknown(card: Card, pack: Manifest, files: Mapping[str, int]) -> Iterator[Problem]:
    """Yield an error for each file of another size that is not known to be a pad."""
    for name, size in files.items():
        if size != pack.geometry.bytes:
            expected = pack.geometry.bytes
            yield Problem(
                str(card.pads / name),
                f"has {size:,} bytes, expected {expected:,}, and is not known to be a pad",
                f"move it elsewhere; {elsewhere(card)}",
            )


def few(names: set[str] | list[str]) -> str:
    """Return the first three names and the number of others."""
    listed = sorted(names)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + more
