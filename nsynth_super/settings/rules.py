"""Rules across the keys of settings.json, and warnings about unusual values."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from itertools import product
from typing import Any

from nsynth_super.base.errors import Problem
from nsynth_super.settings.model import (
    CORNERS,
    MAX_FILE_NAME,
    SHORTEST_SOUND,
    Settings,
    pad_name,
)

_UPSTREAM_LEFTOVERS = {
    "gpus": "is ignored: --shard divides the work",
    "magenta_dir": "is ignored: --checkpoint names the model",
}


def name_of(loc: tuple[str | int, ...]) -> str:
    """Return the name of a key in messages, such as `settings.json pitches[3]`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc]
    return "settings.json " + "".join(parts).lstrip(".") if parts else "settings.json"


def _listed(raw: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the instruments of each corner, as far as `raw` is valid."""
    pads = raw.get("pads")
    pads = pads if isinstance(pads, dict) else {}
    return {
        corner: [name for name in names if isinstance(name, str)]
        for corner in CORNERS
        if isinstance(names := pads.get(corner), list)
    }


def across_keys(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield problems that involve several values; individual keys may be invalid."""
    corners = _listed(raw)
    for corner, names in corners.items():
        for name, count in Counter(names).items():
            if count > 1:
                yield Problem(
                    name_of(("pads", corner)), f"lists {name!r} {count} times", "list it once"
                )
    pitches = raw.get("pitches")
    for pitch, count in Counter(
        p for p in (pitches if isinstance(pitches, list) else []) if isinstance(p, int)
    ).items():
        if count > 1:
            yield Problem(name_of(("pitches",)), f"lists {pitch} {count} times", "list it once")
    yield from _unused_labels(raw, corners)
    yield from _case_collisions(corners)
    if len(corners) == len(CORNERS):
        yield from _pad_name_collisions(corners)


def _unused_labels(raw: Mapping[str, Any], corners: Mapping[str, list[str]]) -> Iterator[Problem]:
    """Yield a problem for each label of an instrument that no corner lists."""
    names = raw.get("names")
    known = {unicodedata.normalize("NFC", name) for listed in corners.values() for name in listed}
    for name in names if isinstance(names, dict) else ():
        if unicodedata.normalize("NFC", name) not in known:
            close = get_close_matches(name, known, n=1)
            yield Problem(
                name_of(("names", name)),
                "is not an instrument of any corner",
                f"did you mean {close[0]}?" if close else "remove it",
            )


def _case_collisions(corners: Mapping[str, list[str]]) -> Iterator[Problem]:
    spellings: dict[str, set[str]] = {}
    for name in (name for names in corners.values() for name in names):
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        spellings.setdefault(folded, set()).add(name)
    for names in spellings.values():
        if len(names) > 1:
            listed = " and ".join(map(repr, sorted(names)))
            yield Problem(
                name_of(("pads",)),
                f"{listed} are the same file on a card or disk that ignores case",
                "use one spelling",
            )


def _pad_name_collisions(corners: Mapping[str, list[str]]) -> Iterator[Problem]:
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
            f"the file name {too_long[0][:40]}….bin would have {too_long[1]} bytes, "
            f"more than {MAX_FILE_NAME}",
            "shorten the instruments' names",
        )


def warnings(raw: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield warnings and notes on valid but probably unintended settings."""
    if raw.get("resolution") == 1:
        yield Problem(
            name_of(("resolution",)), "is 1: only the north-west corner is audible", level="warning"
        )
    length = raw.get("final_length")
    if isinstance(length, int) and 1 <= length <= SHORTEST_SOUND:
        yield Problem(
            name_of(("final_length",)),
            f"is {length} samples: the fades cover the entire sound",
            level="warning",
        )
    for corner, names in _listed(raw).items():
        if names and len(names) & (len(names) - 1):
            yield Problem(
                name_of(("pads", corner)),
                f"lists {len(names)} instruments: turning the synth's encoder left works only with "
                "1, 2, 4 or 8",
                "list 1, 2, 4 or 8, or turn the encoder right only",
                "warning",
            )
    yield from _duplicate_labels(raw)
    for key in raw:
        if key in _UPSTREAM_LEFTOVERS:
            yield Problem(name_of((key,)), _UPSTREAM_LEFTOVERS[key], level="note")
        elif key not in Settings.model_fields:
            close = get_close_matches(key, Settings.model_fields, n=1)
            yield Problem(
                name_of((key,)),
                "is not a setting and is ignored",
                f"did you mean {close[0]}?" if close else "remove it",
                "warning",
            )


def _duplicate_labels(raw: Mapping[str, Any]) -> Iterator[Problem]:
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
                        "make them different",
                        "warning",
                    )
