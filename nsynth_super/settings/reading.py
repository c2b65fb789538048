"""settings.json read, checked and explained: every problem, not the first alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nsynth_super.problems import BadInput, Problem, refuse
from nsynth_super.settings import rules
from nsynth_super.settings.model import (
    ABBREVIATION,
    CORNERS,
    DISPLAY,
    MAX_SEED,
    NOTE_SAMPLES,
    TOUCH_POSITIONS,
    Settings,
)

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
    where = rules.name_of(error["loc"])
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
    problems += rules.across_keys(raw)
    if any(problem.level == "error" for problem in problems):
        settings = None
    return settings, problems + list(rules.warnings(raw))


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
        raw = read_json(path, "`nsynth-super new DIR` makes one, -w DIR names one elsewhere")
    except BadInput as bad:
        return None, bad.problems
    return inspect(raw)
