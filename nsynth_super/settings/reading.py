"""Read settings.json and report every problem in it, not only the first."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nsynth_super.base.errors import BadInput, Problem, refuse
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
    'write them like {"electricpiano": {"display": "E PIANO", "abbr": "EP"}}: '
    f"display has 1 to {DISPLAY} printable characters, abbr has {ABBREVIATION}"
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
        "pitches": "use integers from 0 to 127 (MIDI numbers)",
        "resolution": f"use an integer from 1 to {TOUCH_POSITIONS}: the touch pad has "
        f"{TOUCH_POSITIONS} positions per axis",
        "final_length": f"use an integer from 1 to {NOTE_SAMPLES} samples (4 s at 16 kHz)",
        "seed": f"use an integer from 0 to {MAX_SEED}",
        "pads": "use a list of instrument names for each corner",
        "looping": "use true or false",
    }
    field = str(error["loc"][0]) if error["loc"] else ""
    return Problem(where, f"cannot be {error['input']!r:.80}", bounds.get(field, error["msg"]))


def inspect(raw: Mapping[str, Any]) -> tuple[Settings | None, list[Problem]]:
    """Validate parsed settings; return them, if valid, and every problem found.

    Parameters
    ----------
    raw : mapping
        The parsed JSON object.

    Returns
    -------
    settings : Settings or None
        None if there is an error among the problems.
    problems : list of Problem
        Errors, warnings and notes, each with its key in `where`.
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
    """Read a JSON object and reject duplicate keys, which the standard parser accepts.

    Parameters
    ----------
    path : Path
    where_from : str
        The `fix` of the problem if the file is missing.

    Raises
    ------
    BadInput
        If the file is missing, is not valid JSON, or does not contain an object.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        counts = Counter(key for key, _ in pairs)
        duplicates = [key for key, count in counts.items() if count > 1]
        refuse(Problem(path.name, f"duplicate key {key!r}", "keep one") for key in duplicates)
        return dict(pairs)

    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique)
    except FileNotFoundError:
        raise BadInput(Problem(str(path), "file not found", where_from)) from None
    except json.JSONDecodeError as error:
        raise BadInput(
            Problem(
                f"{path.name}, line {error.lineno}, column {error.colno}",
                error.msg,
                "fix the JSON",
            )
        ) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise BadInput(
            Problem(str(path), f"is not valid JSON text ({error})", "save it as UTF-8")
        ) from None
    except OSError as error:
        raise BadInput(
            Problem(str(path), f"cannot be read ({error.strerror})", "check its permissions")
        ) from None
    if not isinstance(raw, dict):
        raise BadInput(Problem(str(path), "does not contain a JSON object", "start it with {"))
    return raw


def read(path: Path) -> tuple[Settings | None, list[Problem]]:
    """Read and validate settings.json; return the settings, if valid, and every problem."""
    try:
        raw = read_json(path, "create one with `nsynth-super new DIR`, or name its folder with -w")
    except BadInput as bad:
        return None, bad.problems
    return inspect(raw)
