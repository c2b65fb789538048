"""A card's device settings with a pack's part in them, and what is to be said about that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, product
from typing import Any

from nsynth_super.card import LOCAL, Card
from nsynth_super.card.comparison import few
from nsynth_super.device import (
    Geometry,
    corner_names,
    device_settings,
    lacking,
    read_device_settings,
)
from nsynth_super.problems import BadInput, Problem
from nsynth_super.settings import CORNERS, Settings, pad_name
from nsynth_super.workspace import Workspace


def merged(
    workspace: Workspace, settings: Settings, card: Card, looping: bool | None
) -> dict[str, Any]:
    """Return the card's device settings with the pack's part in them.

    Where the card has none, those beside the workspace's pads take their place.
    """
    base = card.given
    if base is None:
        try:
            base = read_device_settings(workspace.device_settings)
        except BadInput:
            base = None
    return device_settings(settings, base, card.data_directory, looping)


def add(card: Card, wanted: dict[str, Any], bins: Mapping[str, int], size: int) -> list[Problem]:
    """Go on listing in `wanted` what the device lists now, if every pad for that is there.

    The device asks for one instrument from each corner in any combination: two packs of one
    instrument a corner would need 16 pads, and have two.

    Parameters
    ----------
    card : Card
    wanted : dict
        The device's settings with the pack's part; changed in place.
    bins : mapping of str to int
        Sizes of the pads that will be there, by file name.
    size : int
        Of a pad.
    """
    given = card.given or {}
    now = [corner.get("instruments", []) for corner in given.get("corners", [])]
    same = Geometry.of_device(given) == Geometry.of_device(wanted)
    if len(now) != len(CORNERS) or not card.looks_here or not same:
        what = f"{card.settings} lists no instruments of this geometry and folder"
        return [Problem("--add", what, "leave it away")]
    for corner, before in zip(wanted["corners"], now, strict=True):
        ours = {entry["name"]: entry for entry in corner["instruments"]}
        theirs = {str(entry.get("name")): entry for entry in before}
        corner["instruments"] = list((theirs | ours).values())
    absent = missing(wanted, bins, size)
    return [
        Problem(
            "--add",
            f"{few(absent)} would be missing: every combination of the instruments needs its pad",
            "leave it away, or make one pack of all the instruments",
        )
    ] * bool(absent)


def missing(given: Mapping[str, Any], bins: Mapping[str, int], size: int) -> list[str]:
    """Return the pads that a device's settings ask for and that are not there in their size."""
    names = (f"{pad_name(combination)}.bin" for combination in product(*corner_names(given)))
    return [name for name in names if bins.get(name) != size]


def remarks(card: Card, wanted: Mapping[str, Any], cleared: bool) -> Iterator[Problem]:
    """Tell what is worth knowing before a card's settings are merged, and its pads `cleared`."""
    where = str(card.settings)
    if card.on_this_disk:
        yield Problem(
            str(card.pads),
            "is an empty folder of this computer's own disk, no card",
            "if a card should be there, mount it first",
            "warning",
        )
    if card.overridden:
        yield Problem(
            where,
            "the device reads this and nothing of settings.json, so the pack's part goes here",
            level="note",
        )
    elif card.is_device and (other := card.settings.parent / LOCAL).exists():
        yield Problem(where, f"the device reads {other} instead", f"--device-settings {other}")
    if card.given is None:
        if card.root:
            yield Problem(
                where, "is not there; one is made", "see its audio and midi parts", "warning"
            )
        return
    for key in lacking(card.given):
        value = wanted["audio"][key.removeprefix("audio.")]
        yield Problem(
            where,
            f"has no {key}, without which the device's program ends; {value} is put there",
            "see that your sound device has it",
            "warning",
        )
    gone = {*chain(*corner_names(card.given))} - {*chain(*corner_names(wanted))}
    if gone and card.looks_here:
        pads = "pads are removed" if cleared else "pads stay"
        yield Problem(
            where,
            f"{', '.join(sorted(gone))}: listed no more; {pads}",
            "installing their pack again lists them again",
            "note",
        )


def changes(card: Card, wanted: Mapping[str, Any]) -> list[str]:
    """Say in what the device's settings will differ from the present ones, a line each."""
    return list(_changes("", card.given or {}, wanted))


def _changes(key: str, then: Any, now: Any) -> Iterator[str]:
    if isinstance(then, dict | None) and isinstance(now, dict):
        then = then or {}
        for name in dict.fromkeys([*then, *now]):
            yield from _changes(f"{key}.{name}".lstrip("."), then.get(name), now.get(name))
    elif key == "corners" and then != now:
        for corner, names in zip(CORNERS, corner_names({"corners": now}), strict=False):
            yield f"{key} {corner}: {', '.join(names)}"
    elif then != now:
        yield f"{key}: {now}" if then is None else f"{key}: {then} -> {now}"
