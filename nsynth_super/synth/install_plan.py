"""Plans the installation of a pack on a card, or reports everything that prevents it.

Writes nothing; `install --dry-run` ends here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nsynth_super.base.errors import BadInput, Problem, refuse
from nsynth_super.base.text import amount
from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.geometry import Geometry
from nsynth_super.pack.manifest import Manifest
from nsynth_super.settings import SAMPLE_RATE, Settings
from nsynth_super.synth import looping as loops
from nsynth_super.synth import merge_settings as merging
from nsynth_super.synth.card import Card, unwritable
from nsynth_super.synth.compare import Comparison, compare, conflicts, few, removable, unknown
from nsynth_super.synth.settings import CROSSFADE, LOOP

RESERVE = 1 << 20  # bytes for the settings, their backup and the manifest


@dataclass(frozen=True)
class InstallOptions:
    """The options of `install`.

    Attributes
    ----------
    replace : bool
        Whether to replace pads of the same name, truncated pads and packs of another geometry.
    add : bool
        Whether the synth's current instruments stay listed next to the pack's.
    looping : bool or None
        Whether the synth loops held sounds; None keeps the pack's or the synth's setting.
    """

    replace: bool = False
    add: bool = False
    looping: bool | None = None


@dataclass(frozen=True)
class InstallPlan:
    """The changes to make on a card.

    Attributes
    ----------
    card : Card
    pack : Manifest
        The workspace's manifest.
    listed : Manifest
        The card's manifest after the installation.
    copied, replaced, removed : list of str
        Pads to copy; those of them that replace another; pads to remove first.
    wanted : dict
        The synth's settings after the installation.
    cleared : bool
        Whether all pads in the card's manifest are removed, since their geometry differs.
    settings_first : bool
        Whether the settings are written before the pads.
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
        """Number of the pack's pads that are already on the card."""
        return len(self.pack.pads) - len(self.copied)

    @property
    def changes(self) -> list[str]:
        """Changes to the synth's settings, one line each."""
        return merging.changes(self.card, self.wanted)


def plan_install(
    workspace: Workspace,
    settings: Settings,
    card: Card,
    choices: InstallOptions,
    quiet: bool = False,
) -> InstallPlan:
    """Plan the installation of a pack on a card.

    Raises
    ------
    BadInput
        With every problem that prevents the installation.
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
        problems += conflicts(card, pack, found)
    copied = [name for name in pack.pads if name not in found.same]
    replaced = sorted(found.damaged | found.other)
    problems += _check_disk_space(card, pack, found, copied, replaced, removed)

    size = pack.geometry.bytes
    after = {name: bytes_ for name, bytes_ in found.bins.items() if name not in removed}
    after |= dict.fromkeys(pack.pads, size)
    listed = present.pads if present else {}
    gone = [name for name in listed if name not in after]
    short = [name for name in listed if name in after and after[name] != size]
    wanted = merging.merged(workspace, settings, card, choices.looping)
    if choices.add:
        problems += merging.add(card, wanted, after, size)
    problems += merging.merge_problems(card, wanted, cleared)
    refuse(problems)
    problems += [
        *_missing(card, gone),
        *_truncated(card, short),
        *_decaying(workspace, settings, choices, wanted),
    ]
    other = card.looks_here and Geometry.of_synth(card.given or {}) != pack.geometry
    return InstallPlan(
        *(card, pack, pack.beside(present, gone), copied, replaced, removed, wanted),
        cleared=cleared,
        settings_first=cleared or other,
        problems=problems,
    )


def _manifests(
    workspace: Workspace, settings: Settings, card: Card, problems: list[Problem]
) -> tuple[Manifest, Manifest | None]:
    """Return the pack's manifest, and the card's if it lists any pad that still exists."""
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
    """Return the workspace's manifest; raise if its pads are missing or outdated."""
    first = "run `nsynth-super pads` first"
    pack = Manifest.read(workspace.manifest)
    if pack is None:
        raise BadInput(Problem(str(workspace.pads), "has no pads yet", first))
    if [made.get("settings") for made in pack.packs] != [settings.shaping()]:
        raise BadInput(
            Problem(
                str(workspace.pads),
                "was made with other settings than the current settings.json",
                "run `nsynth-super run` first",
            )
        )
    refuse(
        Problem(str(workspace.pads / name), "is missing or truncated", first)
        for name in pack.pads
        if _size(workspace.pads / name) != pack.geometry.bytes
    )
    return pack


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _check_disk_space(
    card: Card,
    pack: Manifest,
    found: Comparison,
    copied: list[str],
    replaced: list[str],
    removed: list[str],
) -> Iterator[Problem]:
    """Yield an error if the pack does not fit, with a temporary copy of one replaced pad."""
    here = next(path for path in (card.pads, *card.pads.parents) if path.exists())
    leftovers = list(card.pads.glob(".*.part")) if copied and here == card.pads else []
    free = shutil.disk_usage(here).free + sum(max(_size(path), 0) for path in leftovers)
    free += sum(found.bins[name] for name in removed)
    sizes = [found.bins[name] for name in replaced]
    need = len(copied) * pack.geometry.bytes - sum(sizes) + max([0, *sizes]) + RESERVE
    if need > free:
        yield Problem(
            str(card.pads),
            f"{len(copied)} pads and the settings need {amount(need)}, {amount(free)} are free",
            "free some space, use a larger card, or make a smaller pack",
        )


def _missing(card: Card, gone: list[str]) -> Iterator[Problem]:
    if gone:
        yield Problem(
            str(card.pads),
            f"{few(gone)} of an earlier pack no longer exist and are removed from the manifest",
            "install that pack again to restore them",
            "warning",
        )


def _truncated(card: Card, short: list[str]) -> Iterator[Problem]:
    if short:
        yield Problem(
            str(card.pads),
            f"{few(short)} of an earlier pack are truncated",
            "install that pack again to repair them",
            "warning",
        )


def _decaying(
    workspace: Workspace, settings: Settings, choices: InstallOptions, wanted: dict[str, Any]
) -> Iterator[Problem]:
    """Yield a note that suggests `--no-looping` if most sounds decay before the loop."""
    chosen = settings.looping if choices.looping is None else choices.looping
    if chosen is not None or wanted["nsynth"].get("looping") is False:
        return
    decaying, total = loops.count(workspace.pads, settings)
    if 2 * decaying > total:
        first, last = (int(share * settings.final_length) for share in LOOP)
        start, end = max(0, first - CROSSFADE) / SAMPLE_RATE, last / SAMPLE_RATE
        yield Problem(
            "looping",
            f"{decaying} of {total} notes decay before the part from {start:.2f} to {end:.2f} s, "
            "which the synth loops back and forth while a key is held",
            "--no-looping plays them to their end; --looping keeps the loop and hides this note",
            "note",
        )
