"""What must hold across the keys of settings.json, and what is odd enough to warn of."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from itertools import product
from typing import Any

from nsynth_super.problems import Problem
from nsynth_super.settings.model import (
    CORNERS,
    MAX_FILE_NAME,
    SHORTEST_SOUND,
    Settings,
    pad_name,
)

_UPSTREAM_LEFTOVERS = {
    "gpus": "accepted and not needed: the work is shared out by --shard, not by this number",
    "magenta_dir": "accepted and not needed: the model is found by --checkpoint",
}


def name_of(loc: tuple[str | int, ...]) -> str:
    """Return how a message names a place in settings.json, as in `settings.json pitches[3]`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc]
    return "settings.json " + "".join(parts).lstrip(".") if parts else "settings.json"


def _listed(raw: Mapping[str, Any]) -> dict[str, list[str]]:
    """Instruments by corner, as far as `raw` can be read: rules across keys need no more."""
    pads = raw.get("pads")
    pads = pads if isinstance(pads, dict) else {}
    return {
        corner: [name for name in names if isinstance(name, str)]
        for corner in CORNERS
        if isinstance(names := pads.get(corner), list)
    }


def across_keys(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what is wrong between keys, however wrong some of them are by themselves."""
    corners = _listed(raw)
    for corner, names in corners.items():
        for name, count in Counter(names).items():
            if count > 1:
                yield Problem(
                    name_of(("pads", corner)), f"lists {name!r} {count} times", "once is enough"
                )
    pitches = raw.get("pitches")
    for pitch, count in Counter(
        p for p in (pitches if isinstance(pitches, list) else []) if isinstance(p, int)
    ).items():
        if count > 1:
            yield Problem(name_of(("pitches",)), f"lists {pitch} {count} times", "once is enough")
    yield from _names_of_nobody(raw, corners)
    yield from _names_that_share_a_file(corners)
    if len(corners) == len(CORNERS):
        yield from _combinations_that_share_a_pad(corners)


def _names_of_nobody(raw: Mapping[str, Any], corners: Mapping[str, list[str]]) -> Iterator[Problem]:
    """Find labels of instruments that no corner lists: a label that is never seen is a mistake."""
    names = raw.get("names")
    known = {unicodedata.normalize("NFC", name) for listed in corners.values() for name in listed}
    for name in names if isinstance(names, dict) else ():
        if unicodedata.normalize("NFC", name) not in known:
            close = get_close_matches(name, known, n=1)
            yield Problem(
                name_of(("names", name)),
                "no corner lists this instrument",
                f"did you mean {close[0]}?" if close else "remove it",
            )


def _names_that_share_a_file(corners: Mapping[str, list[str]]) -> Iterator[Problem]:
    spellings: dict[str, set[str]] = {}
    for name in (name for names in corners.values() for name in names):
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        spellings.setdefault(folded, set()).add(name)
    for names in spellings.values():
        if len(names) > 1:
            listed = " and ".join(map(repr, sorted(names)))
            yield Problem(
                name_of(("pads",)),
                f"{listed} are one file on a card or disk that does not tell capitals apart",
                "use one spelling",
            )


def _combinations_that_share_a_pad(corners: Mapping[str, list[str]]) -> Iterator[Problem]:
    seen: dict[str, tuple[str, ...]] = {}
    too_long: tuple[str, int] | None = None
    for combination in product(*(dict.fromkeys(corners[corner]) for corner in CORNERS)):
        name = pad_name(combination)
        length = len(f"{name}.bin".encode(errors="surrogatepass"))
        if length > MAX_FILE_NAME and (too_long is None or length > too_long[1]):
            too_long = (name, length)
        if (other := seen.setdefault(name, combination)) != combination:
            yield Problem(
                name_of(("pads",)),
                f"{' + '.join(other)} and {' + '.join(combination)} would share {name}.bin",
                "rename one instrument; names without _ never collide",
            )
            return
    if too_long:
        yield Problem(
            name_of(("pads",)),
            f"{too_long[0][:40]}….bin would have {too_long[1]} bytes in its name; "
            f"{MAX_FILE_NAME} is the most a file system holds",
            "shorten the instruments' names",
        )


def warnings(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """Find what the pack can be made with, and its maker may not have meant."""
    if raw.get("resolution") == 1:
        yield Problem(
            name_of(("resolution",)), "of 1, only the north-west corner is heard", level="warning"
        )
    length = raw.get("final_length")
    if isinstance(length, int) and 1 <= length <= SHORTEST_SOUND:
        yield Problem(
            name_of(("final_length",)), f"of {length} samples, all is faded away", level="warning"
        )
    for corner, names in _listed(raw).items():
        if names and len(names) & (len(names) - 1):
            yield Problem(
                name_of(("pads", corner)),
                f"{len(names)} instruments: the device's encoder turns left correctly only through "
                "1, 2, 4 or 8",
                "add or drop one, or only ever turn right",
                "warning",
            )
    yield from _labels_of_two(raw)
    for key in raw:
        if key in _UPSTREAM_LEFTOVERS:
            yield Problem(name_of((key,)), _UPSTREAM_LEFTOVERS[key], level="note")
        elif key not in Settings.model_fields:
            close = get_close_matches(key, Settings.model_fields, n=1)
            yield Problem(
                name_of((key,)),
                "is not a setting, and is ignored",
                f"did you mean {close[0]}?" if close else "remove it",
                "warning",
            )


def _labels_of_two(raw: Mapping[str, Any]) -> Iterator[Problem]:
    names = raw.get("names")
    for corner, listed in _listed(raw).items():
        given = [(names if isinstance(names, dict) else {}).get(name) for name in listed]
        for key in ("display", "abbr"):
            labels = [label.get(key) for label in given if isinstance(label, dict)]
            for label, count in Counter(text for text in labels if isinstance(text, str)).items():
                if count > 1:
                    yield Problem(
                        name_of(("names",)),
                        f"{count} instruments of {corner} have the {key} {label!r}",
                        "give each its own",
                        "warning",
                    )
