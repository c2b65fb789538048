"""settings.json: read, checked, explained.

Knows the upstream format (`pads`, `pitches`, `resolution`, `final_length`, `gpus`, `magenta_dir`),
what is ours (`seed`, `names`, `looping`) and what the instrument can hold. Knows nothing of notes,
folders or the model.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from nsynth_super.problems import BadInput, Problem, refuse

CORNERS = ("NW", "NE", "SW", "SE")
"""The device's order: top left, top right, bottom left, bottom right."""

SAMPLE_RATE = 16_000  # Hz, of the notes, the model and the pads
NOTE_SAMPLES = 4 * SAMPLE_RATE  # 64,000 samples: the four seconds the model was trained on
ONSET_SEARCH = SAMPLE_RATE // 4  # 4,000 samples in which a clip's onset may lie
TOUCH_POSITIONS = 11  # per axis, on the instrument's pad
SHORTEST_SOUND = 16  # samples: a pad fades in and out over 8
MAX_FILE_NAME = 255  # bytes, on every file system in question
DISPLAY = 8  # characters of an instrument's name on the device's screen
ABBREVIATION = 2  # characters, where the screen shows all four corners
MAX_SEED = 2**63 - 1

_FORBIDDEN = '/\\:*?"<>|'
_UPSTREAM_LEFTOVERS = {
    "gpus": "accepted and not needed: the work is shared out by --shard, not by this number",
    "magenta_dir": "accepted and not needed: the model is found by --checkpoint",
}


def _instrument_name(name: str) -> str:
    if not name.strip():
        raise ValueError("is empty")
    if bad := sorted({c for c in name if c in _FORBIDDEN or unicodedata.category(c)[0] == "C"}):
        raise ValueError(f"holds {' '.join(map(repr, bad))}, which a card or a disk cannot store")
    if name != name.strip() or name.endswith("."):
        raise ValueError("begins or ends with a space or a dot, which some file systems drop")
    if name.startswith((".", "-")):
        raise ValueError(f"begins with {name[0]!r}, which hides the file or reads as an option")
    return unicodedata.normalize("NFC", name)


def _label(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("begins or ends with a space, or cannot be printed")
    return text


InstrumentName = Annotated[str, Field(strict=True), AfterValidator(_instrument_name)]
CornerList = Annotated[list[InstrumentName], Field(min_length=1)]
Pitch = Annotated[int, Field(strict=True, ge=0, le=127)]


class Pads(BaseModel):
    """The instruments of each corner, by compass."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    NW: CornerList
    NE: CornerList
    SW: CornerList
    SE: CornerList


class Label(BaseModel):
    """How the device's screen shows an instrument; what is None is made from its name.

    Attributes
    ----------
    display : str or None
        1 to 8 characters.
    abbr : str or None
        2 characters.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    display: (
        Annotated[str, Field(strict=True, min_length=1, max_length=DISPLAY), AfterValidator(_label)]
        | None
    ) = None
    abbr: (
        Annotated[
            str,
            Field(strict=True, min_length=ABBREVIATION, max_length=ABBREVIATION),
            AfterValidator(_label),
        ]
        | None
    ) = None


class Settings(BaseModel):
    """A pack's settings.

    Attributes
    ----------
    pads : Pads
        Instruments of each corner.
    pitches : list of int
        MIDI numbers; their order is the order in the pads.
    resolution : int
        Cells along one side of the grid, 1 to 11.
    final_length : int
        Samples of each sound in a pad, 1 to 64,000.
    seed : int
        Of every random number the clips are drawn with.
    names : mapping of str to Label
        What the device's screen calls instruments, where their own names do not do.
    looping : bool or None
        Whether the device plays a part of each sound to and fro while a key is held; None leaves
        that to the device's own settings.
    gpus, magenta_dir
        Upstream's; accepted, not used.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    pads: Pads
    pitches: Annotated[list[Pitch], Field(min_length=1)]
    resolution: Annotated[int, Field(strict=True, ge=1, le=TOUCH_POSITIONS)]
    final_length: Annotated[int, Field(strict=True, ge=1, le=NOTE_SAMPLES)] = 60_000
    seed: Annotated[int, Field(strict=True, ge=0, le=MAX_SEED)] = 0
    names: dict[InstrumentName, Label] = {}
    looping: Annotated[bool, Field(strict=True)] | None = None
    gpus: Any = None
    magenta_dir: Any = None

    @property
    def corners(self) -> tuple[list[str], list[str], list[str], list[str]]:
        """Instruments of NW, NE, SW and SE, in the device's order."""
        return (self.pads.NW, self.pads.NE, self.pads.SW, self.pads.SE)

    @property
    def instruments(self) -> list[str]:
        """Every instrument once, sorted."""
        return sorted({name for corner in self.corners for name in corner})

    @property
    def combinations(self) -> list[tuple[str, str, str, str]]:
        """One instrument per corner, every choice, in the order of the lists."""
        return list(product(*self.corners))

    @property
    def decoded_samples(self) -> int:
        """Samples to decode of each clip: the pad's length and room for the onset, at most 4 s."""
        return min(self.final_length + ONSET_SEARCH, NOTE_SAMPLES)

    @property
    def pad_bytes(self) -> int:
        """Size of one pad: what the device expects, to the byte."""
        return self.resolution**2 * len(self.pitches) * self.final_length * 2

    def shaping(self) -> dict[str, Any]:
        """Return the settings that decide what the pack holds; the rest may change freely."""
        return self.model_dump(exclude={"names", "looping", "gpus", "magenta_dir"})


def pad_name(combination: tuple[str, ...]) -> str:
    """Return the name, without `.bin`, under which the device looks for a combination."""
    return "_".join(combination)


_NAMES = (
    'such as {"electricpiano": {"display": "E PIANO", "abbr": "EP"}}: '
    f"display of 1 to {DISPLAY} printable characters, abbr of {ABBREVIATION}"
)
_EXPLANATIONS: dict[str, Callable[[dict[str, Any]], tuple[str, str]]] = {
    "missing": lambda e: ("is missing", "add it"),
    "too_short": lambda e: ("is empty", "name at least one"),
    "extra_forbidden": lambda e: ("is not a corner", f"the corners are {', '.join(CORNERS)}"),
    "value_error": lambda e: (
        f"{e['input']!r:.80} {e['ctx']['error']}",
        "choose another name (letters, digits and - are always safe)",
    ),
}


def _explain(error: Mapping[str, Any]) -> Problem:
    where = _key(error["loc"])
    if error["loc"][:1] == ("names",):
        return Problem(where, f"cannot be {error['input']!r:.80}", _NAMES)
    if explain := _EXPLANATIONS.get(error["type"]):
        return Problem(where, *explain(dict(error)))
    bounds = {
        "pitches": "MIDI numbers are whole, 0 to 127",
        "resolution": f"a whole number from 1 to {TOUCH_POSITIONS}: the pad has "
        f"{TOUCH_POSITIONS} touch positions a side",
        "final_length": f"a whole number of samples from 1 to {NOTE_SAMPLES} (4 s at 16 kHz)",
        "seed": f"a whole number from 0 to {MAX_SEED}",
        "pads": "each corner is a list of instrument names",
        "looping": "true or false",
    }
    field = str(error["loc"][0]) if error["loc"] else ""
    return Problem(where, f"cannot be {error['input']!r:.80}", bounds.get(field, error["msg"]))


def _key(loc: tuple[str | int, ...]) -> str:
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


def _rules_across_keys(raw: Mapping[str, Any]) -> Iterator[Problem]:
    corners = _listed(raw)
    for corner, names in corners.items():
        for name, count in Counter(names).items():
            if count > 1:
                yield Problem(
                    _key(("pads", corner)), f"lists {name!r} {count} times", "once is enough"
                )
    pitches = raw.get("pitches")
    for pitch, count in Counter(
        p for p in (pitches if isinstance(pitches, list) else []) if isinstance(p, int)
    ).items():
        if count > 1:
            yield Problem(_key(("pitches",)), f"lists {pitch} {count} times", "once is enough")
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
                _key(("names", name)),
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
                _key(("pads",)),
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
                _key(("pads",)),
                f"{' + '.join(other)} and {' + '.join(combination)} would share {name}.bin",
                "rename one instrument; names without _ never collide",
            )
            return
    if too_long:
        yield Problem(
            _key(("pads",)),
            f"{too_long[0][:40]}….bin would have {too_long[1]} bytes in its name; "
            f"{MAX_FILE_NAME} is the most a file system holds",
            "shorten the instruments' names",
        )


def _warnings(raw: Mapping[str, Any]) -> Iterator[Problem]:
    if raw.get("resolution") == 1:
        yield Problem(
            _key(("resolution",)), "of 1, only the north-west corner is heard", level="warning"
        )
    length = raw.get("final_length")
    if isinstance(length, int) and 1 <= length <= SHORTEST_SOUND:
        yield Problem(
            _key(("final_length",)), f"of {length} samples, all is faded away", level="warning"
        )
    for corner, names in _listed(raw).items():
        if names and len(names) & (len(names) - 1):
            yield Problem(
                _key(("pads", corner)),
                f"{len(names)} instruments: the device's encoder turns left correctly only through "
                "1, 2, 4 or 8",
                "add or drop one, or only ever turn right",
                "warning",
            )
    yield from _labels_of_two(raw)
    for key in raw:
        if key in _UPSTREAM_LEFTOVERS:
            yield Problem(_key((key,)), _UPSTREAM_LEFTOVERS[key], level="note")
        elif key not in Settings.model_fields:
            close = get_close_matches(key, Settings.model_fields, n=1)
            yield Problem(
                _key((key,)),
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
                        _key(("names",)),
                        f"{count} instruments of {corner} have the {key} {label!r}",
                        "give each its own",
                        "warning",
                    )


def inspect(raw: Mapping[str, Any]) -> tuple[Settings | None, list[Problem]]:
    """Check parsed settings; return them, if they can be used, and every problem found.

    Parameters
    ----------
    raw : mapping
        The parsed JSON object.

    Returns
    -------
    settings : Settings or None
        None if there is an error among the problems.
    problems : list of Problem
        Errors, warnings and notes, each with its key.
    """
    problems = []
    settings = None
    try:
        settings = Settings.model_validate(dict(raw))
    except ValidationError as invalid:
        problems += [_explain(dict(error)) for error in invalid.errors()]
    problems += _rules_across_keys(raw)
    if any(problem.level == "error" for problem in problems):
        settings = None
    return settings, problems + list(_warnings(raw))


def read_json(path: Path, where_from: str) -> dict[str, Any]:
    """Read a JSON object, refusing what the standard parser lets pass: a key given twice.

    Parameters
    ----------
    path : Path
    where_from : str
        What to do if there is no such file.

    Raises
    ------
    BadInput
        If the file is missing, is no JSON, or is no object.
    """

    def once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        refuse(
            Problem(path.name, f"the key {key!r} stands there twice", "keep one") for key in twice
        )
        return dict(pairs)

    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=once_each)
    except FileNotFoundError:
        raise BadInput(Problem(str(path), "there is no such file", where_from)) from None
    except json.JSONDecodeError as error:
        raise BadInput(
            Problem(
                f"{path.name}, line {error.lineno}, column {error.colno}",
                error.msg,
                "mend the JSON",
            )
        ) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise BadInput(
            Problem(str(path), f"is no JSON text ({error})", "save it as UTF-8")
        ) from None
    except OSError as error:
        raise BadInput(
            Problem(str(path), f"cannot be read ({error.strerror})", "see its permissions")
        ) from None
    if not isinstance(raw, dict):
        raise BadInput(Problem(str(path), "holds no JSON object", "begin it with {"))
    return raw


def read(path: Path) -> tuple[Settings | None, list[Problem]]:
    """Read and check settings.json."""
    try:
        raw = read_json(path, "`nsynth-super new DIR` makes one")
    except BadInput as bad:
        return None, bad.problems
    return inspect(raw)
