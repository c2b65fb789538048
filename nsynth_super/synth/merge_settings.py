"""Merges a pack's settings into the synth's settings on a card, and reports conflicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, product
from typing import Any

from nsynth_super.base.errors import BadInput, Problem
from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.geometry import Geometry
from nsynth_super.settings import CORNERS, Settings, pad_name
from nsynth_super.synth.card import LOCAL, Card
from nsynth_super.synth.compare import few
from nsynth_super.synth.settings import corner_names, lacking, read_synth_settings, synth_settings


def merged(
    workspace: Workspace, settings: Settings, card: Card, looping: bool | None
) -> dict[str, Any]:
    """Return the synth's settings with the pack's part merged in.

    If the card has none, those in the workspace's pads folder are the base.
    """
    base = card.given
    if base is None:
        try:
            base = read_synth_settings(workspace.synth_settings)
        except BadInput:
            base = None
    return synth_settings(settings, base, card.data_directory, looping)


def add(card: Card, wanted: dict[str, Any], bins: Mapping[str, int], size: int) -> list[Problem]:
    """Add the synth's current instruments to `wanted` if all their combinations have pads.

    The synth combines one instrument of each corner freely: two packs with one instrument per
    corner would need 16 pads, but have two.

    Parameters
    ----------
    card : Card
    wanted : dict
        The synth's settings with the pack's part; modified in place.
    bins : mapping of str to int
        Size of every pad after the installation, by file name.
    size : int
        Expected size of a pad.
    """
    given = card.given or {}
    current = [corner.get("instruments", []) for corner in given.get("corners", [])]
    same = Geometry.of_synth(given) == Geometry.of_synth(wanted)
    if len(current) != len(CORNERS) or not card.looks_here or not same:
        what = f"{card.settings} lists no instruments with this geometry and folder"
        return [Problem("--add", what, "omit it")]
    for corner, before in zip(wanted["corners"], current, strict=True):
        ours = {entry["name"]: entry for entry in corner["instruments"]}
        theirs = {str(entry.get("name")): entry for entry in before}
        corner["instruments"] = list((theirs | ours).values())
    absent = missing(wanted, bins, size)
    return [
        Problem(
            "--add",
            f"{few(absent)} would be missing: every combination of instruments needs a pad",
            "omit it, or make one pack of all the instruments",
        )
    ] * bool(absent)


def missing(given: Mapping[str, Any], bins: Mapping[str, int], size: int) -> list[str]:
    """Return the pads that the synth's settings require but that are missing or of another size."""
    names = (f"{pad_name(combination)}.bin" for combination in product(*corner_names(given)))
    return [name for name in names if bins.get(name) != size]


def merge_problems(card: Card, wanted: Mapping[str, Any], cleared: bool) -> Iterator[Problem]:
    """Yield problems and notes about merging a card's settings, and clearing its pads."""
    where = str(card.settings)
    if card.on_this_disk:
        yield Problem(
            str(card.pads),
            "is an empty folder on this computer's disk, not a card",
            "if a card belongs there, mount it first",
            "warning",
        )
    if card.overridden:
        yield Problem(
            where,
            "the synth reads this file instead of settings.json, so it is changed",
            level="note",
        )
    elif card.is_synth and (other := card.settings.parent / LOCAL).exists():
        yield Problem(where, f"the synth reads {other} instead", f"use --synth-settings {other}")
    if card.given is None:
        if card.root:
            yield Problem(
                where,
                "does not exist; it is created",
                "check its audio and midi settings",
                "warning",
            )
        return
    for key in lacking(card.given):
        value = wanted["audio"][key.removeprefix("audio.")]
        yield Problem(
            where,
            f"has no {key}, which the synth's program requires; {value} is added",
            "check that your audio hardware supports it",
            "warning",
        )
    unlisted = {*chain(*corner_names(card.given))} - {*chain(*corner_names(wanted))}
    if unlisted and card.looks_here:
        pads = "their pads are removed" if cleared else "their pads stay"
        yield Problem(
            where,
            f"{', '.join(sorted(unlisted))}: no longer listed; {pads}",
            "install their pack again to list them",
            "note",
        )


def changes(card: Card, wanted: Mapping[str, Any]) -> list[str]:
    """Return the changes to the synth's settings, one line each."""
    return list(_changes("", card.given or {}, wanted))


def _changes(key: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict | None) and isinstance(new, dict):
        old = old or {}
        for name in dict.fromkeys([*old, *new]):
            yield from _changes(f"{key}.{name}".lstrip("."), old.get(name), new.get(name))
    elif key == "corners" and old != new:
        for corner, names in zip(CORNERS, corner_names({"corners": new}), strict=False):
            yield f"{key} {corner}: {', '.join(names)}"
    elif old != new:
        yield f"{key}: {new}" if old is None else f"{key}: {old} -> {new}"
