"""What an instrument is called in a workspace, by what a file or a preset is called."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from pydantic import TypeAdapter, ValidationError

from nsynth_super.problems import Problem
from nsynth_super.settings import MAX_FILE_NAME, InstrumentName

_NAMES: TypeAdapter[str] = TypeAdapter(InstrumentName)
_LONGEST_REST = len("_127.aifc")  # of a note's file name, behind the instrument


def instrument_name(text: str, known: Iterable[str]) -> str:
    """Make a name for an instrument: that of `known` which is meant, or one that is safe anywhere.

    Parameters
    ----------
    text : str
        As a file or a preset has it: `Tin Drum`.
    known : iterable of str
        The settings' instruments; capitals and what lies between the words may differ.

    Returns
    -------
    str
        Of a-z, 0-9, - and _; empty if `text` has none of them.
    """
    plain = unicodedata.normalize("NFKD", text.casefold()).encode("ascii", "ignore").decode()
    for name in known:
        if _letters(name) == _letters(text) != "":
            return name
    return re.sub(r"(?:_*[^a-z0-9_]+_*)+", "-", plain).strip("-_")


def _letters(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFC", text.casefold()) if c.isalnum())


def problem_of_name(name: str, where: str) -> Problem | None:
    """Return what is wrong with an instrument's name, if anything is."""
    fix = "choose another name (letters, digits and - are always safe)"
    try:
        _NAMES.validate_python(name)
    except ValidationError as invalid:
        return Problem(where, f"{name!r:.80} {invalid.errors()[0]['ctx']['error']}", fix)
    if len(name.encode(errors="surrogatepass")) + _LONGEST_REST > MAX_FILE_NAME:
        return Problem(where, f"{name!r:.80} is too long for a file's name", "shorten it")
    return None
