"""Derives valid instrument names from the names of files and presets."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from pydantic import TypeAdapter, ValidationError

from nsynth_super.base.errors import Problem
from nsynth_super.settings import MAX_FILE_NAME, InstrumentName

_NAMES: TypeAdapter[str] = TypeAdapter(InstrumentName)
_LONGEST_REST = len("_127.aifc")  # longest ending of a note's file name after the instrument


def instrument_name(text: str, known: Iterable[str]) -> str:
    """Return the matching name of `known`, or else a name that is safe on any file system.

    Parameters
    ----------
    text : str
        Name of a file or preset, such as `Tin Drum`.
    known : iterable of str
        Instruments in the settings, matched regardless of case and punctuation.

    Returns
    -------
    str
        Consists of a-z, 0-9, - and _; empty if `text` contains none of them.
    """
    plain = unicodedata.normalize("NFKD", text.casefold()).encode("ascii", "ignore").decode()
    for name in known:
        if _letters(name) == _letters(text) != "":
            return name
    return re.sub(r"(?:_*[^a-z0-9_]+_*)+", "-", plain).strip("-_")


def _letters(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFC", text.casefold()) if c.isalnum())


def problem_of_name(name: str, where: str) -> Problem | None:
    """Return the problem with an instrument's name, or None if it is valid."""
    fix = "choose another name (letters, digits and - are always safe)"
    try:
        _NAMES.validate_python(name)
    except ValidationError as invalid:
        return Problem(where, f"{name!r:.80} {invalid.errors()[0]['ctx']['error']}", fix)
    if len(name.encode(errors="surrogatepass")) + _LONGEST_REST > MAX_FILE_NAME:
        return Problem(where, f"{name!r:.80} is too long for a file's name", "shorten it")
    return None
