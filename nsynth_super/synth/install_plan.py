"""What is to be done to have a pack on a card, or everything that is in the way.

Writes nothing: `install --dry-run` ends here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nsynth_super.card import Card, merging, unwritable
from nsynth_super.card import looping as loops
from nsynth_super.card.comparison import Comparison, compare, few, in_the_way, removable, unknown
from nsynth_super.card.manifest import Manifest
from nsynth_super.device import CROSSFADE, LOOP, Geometry
from nsynth_super.problems import BadInput, Problem, refuse
from nsynth_super.progress import amount
from nsynth_super.settings import SAMPLE_RATE, Settings
from nsynth_super.workspace import Workspace

ROOM = 1 << 20  # bytes that must be left for the settings, their backup and the manifest


@dataclass(frozen=True)
class Choices:
    """What the user may choose.

    Attributes
    ----------
    replace : bool
        The pack takes the place of pads of the same name, of pads that are cut short, and of packs
        of another geometry.
    add : bool
        The device goes on listing the instruments that it lists now, beside the pack's.
    looping : bool or None
        The device's looping; None leaves it to the pack's settings, or the device's.
    """

    replace: bool = False
    add: bool = False
    looping: bool | None = None


@dataclass(frozen=True)
class Work:
    """What is to be done on a card.

    Attributes
    ----------
    card : Card
    pack : Manifest
        The workspace's.
    listed : Manifest
        The card's, when the work is done.
    copied, replaced, removed : list of str
        Pads to copy; those of them that take the place of another; pads to remove first.
    wanted : dict
        The device's settings, when the work is done.
    cleared : bool
        Whether the pads of another geometry are removed, and so all that the manifest lists.
    settings_first : bool
        Whether they are written before the pads.
    problems : list of Problem
        Notes and warnings.
    """

    card: Card
    pack: Manifest
    listed: Manifest
    copied: list[str]
    replaced: list[str]
    removed: list[str]
    wanted: dict[str, Any]
    cleared: bool
    settings_first: bool
    problems: list[Problem] = field(default_factory=list)

    @property
    def kept(self) -> int:
        """How many of the pack's pads are there already."""
        return len(self.pack.pads) - len(self.copied)

    @property
    def changes(self) -> list[str]:
        """In what the device's settings will differ from the present ones, a line each."""
        return merging.changes(self.card, self.wanted)


def plan(
    workspace: Workspace, settings: Settings, card: Card, choices: Choices, quiet: bool = False
) -> Work:
    """Say what is to be done to have a pack on a card.

    Raises
    ------
    BadInput
        With everything that is in the way.
    Failed
        If a pad on the card cannot be read.
    """
    writable = [unwritable(card.pads), unwritable(card.settings.parent)]
    problems = list(dict.fromkeys(problem for problem in writable if problem))
    pack, present = _manifests(workspace, settings, card, problems)
    found = compare(card, pack, present, quiet)
    removed: list[str] = []
    cleared = bool(found.differing)
    if choices.replace:
        unfit = set(found.bins) if cleared else found.strange
        removed = sorted(removable(card, pack, present) & unfit)
        problems += unknown(card, pack, {name: found.bins[name] for name in unfit - {*removed}})
        if cleared:
            present, found = None, Comparison(found.bins)
    else:
        problems += in_the_way(card, pack, found)
    copied = [name for name in pack.pads if name not in found.same]
    replaced = sorted(found.damaged | found.other)
    problems += _room(card, pack, found, copied, replaced, removed)

    size = pack.geometry.bytes
    after = {name: there for name, there in found.bins.items() if name not in removed}
    after |= dict.fromkeys(pack.pads, size)
    listed = present.pads if present else {}
    gone = [name for name in listed if name not in after]
    short = [name for name in listed if name in after and after[name] != size]
    wanted = merging.merged(workspace, settings, card, choices.looping)
    if choices.add:
        problems += merging.add(card, wanted, after, size)
    problems += merging.remarks(card, wanted, cleared)
    refuse(problems)
    problems += [
        *_gone(card, gone),
        *_short(card, short),
        *_dying(workspace, settings, choices, wanted),
    ]
    other = card.looks_here and Geometry.of_device(card.given or {}) != pack.geometry
    return Work(
        *(card, pack, pack.beside(present, gone), copied, replaced, removed, wanted),
        cleared=cleared,
        settings_first=cleared or other,
        problems=problems,
    )


def _manifests(
    workspace: Workspace, settings: Settings, card: Card, problems: list[Problem]
) -> tuple[Manifest, Manifest | None]:
    """Return the pack's manifest and the card's, if it lists anything that is still there."""
    pack, present = None, None
    try:
        present = Manifest.read(card.manifest)
    except BadInput as bad:
        problems += bad.problems
    try:
        pack = _pack(workspace, settings)
    except BadInput as bad:
        problems += bad.problems
    if pack is None:
        raise BadInput(problems)
    refuse(problems)
    if present and not present.pads.keys() & card.bins().keys():
        present = None
    return pack, present


def _pack(workspace: Workspace, settings: Settings) -> Manifest:
    """Return the workspace's manifest, if its pads are there and are of its settings."""
    first = "run `nsynth-super pads` first"
    pack = Manifest.read(workspace.manifest)
    if pack is None:
        raise BadInput(Problem(str(workspace.pads), "there are no pads yet", first))
    if [made.get("settings") for made in pack.packs] != [settings.shaping()]:
        raise BadInput(
            Problem(
                str(workspace.pads),
                "was made for other settings than settings.json has now",
                "run `nsynth-super run` first",
            )
        )
    refuse(
        Problem(str(workspace.pads / name), "is missing or cut short", first)
        for name in pack.pads
        if _size(workspace.pads / name) != pack.geometry.bytes
    )
    return pack


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _room(
    card: Card,
    pack: Manifest,
    found: Comparison,
    copied: list[str],
    replaced: list[str],
    removed: list[str],
) -> Iterator[Problem]:
    """See whether the card holds the pack, and one pad more while it takes another's place."""
    here = next(path for path in (card.pads, *card.pads.parents) if path.exists())
    leftovers = list(card.pads.glob(".*.part")) if copied and here == card.pads else []
    free = shutil.disk_usage(here).free + sum(max(_size(path), 0) for path in leftovers)
    free += sum(found.bins[name] for name in removed)
    sizes = [found.bins[name] for name in replaced]
    need = len(copied) * pack.geometry.bytes - sum(sizes) + max([0, *sizes]) + ROOM
    if need > free:
        yield Problem(
            str(card.pads),
            f"{len(copied)} pads and the settings need {amount(need)}, {amount(free)} are free",
            "free some space, take a larger card, or make a smaller pack",
        )


def _gone(card: Card, gone: list[str]) -> Iterator[Problem]:
    if gone:
        yield Problem(
            str(card.pads),
            f"{few(gone)} of an earlier pack are gone, and listed no more",
            "installing that pack again brings them back",
            "warning",
        )


def _short(card: Card, short: list[str]) -> Iterator[Problem]:
    if short:
        yield Problem(
            str(card.pads),
            f"{few(short)} of an earlier pack are cut short",
            "installing that pack again mends them",
            "warning",
        )


def _dying(
    workspace: Workspace, settings: Settings, choices: Choices, wanted: dict[str, Any]
) -> Iterator[Problem]:
    """Offer to play sounds to their end where most of them die away."""
    said = settings.looping if choices.looping is None else choices.looping
    if said is not None or wanted["nsynth"].get("looping") is False:
        return
    dying, total = loops.count(workspace.pads, settings)
    if 2 * dying > total:
        first, last = (int(share * settings.final_length) for share in LOOP)
        start, end = max(0, first - CROSSFADE) / SAMPLE_RATE, last / SAMPLE_RATE
        yield Problem(
            "looping",
            f"{dying} of {total} notes die away before the part from {start:.2f} to {end:.2f} s, "
            "which the device plays to and fro while a key is held",
            "--no-looping plays them to their end; --looping leaves it and says no more",
            "note",
        )
