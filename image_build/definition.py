"""A definition file: its arguments, and the local files that it needs.

`spython.main.parse` cannot read ours: it accepts no bootstrap agent but docker, drops %arguments
and lowercases paths in `From:`.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nsynth_super.base.errors import BadInput, Problem

_ARGUMENT = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_NESTED = 8  # levels: an argument's value may name other arguments


@dataclass(frozen=True)
class Definition:
    """A definition file.

    Attributes
    ----------
    path : Path
        Paths in %files are relative to its folder.
    arguments : dict of str to str
        Defaults by name, of all stages.
    headers : list of dict
        Each stage's `bootstrap`, `from`, `stage`.
    copied : list of str
        The sources of %files on this machine.
    """

    path: Path
    arguments: dict[str, str] = field(default_factory=dict)
    headers: list[dict[str, str]] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The folder of %files' relative paths, in which a build runs."""
        return self.path.parent

    def problems(self, given: Mapping[str, str]) -> list[Problem]:
        """Return problems with unknown arguments in `given` and with missing files."""
        known = ", ".join(self.arguments) or "none"
        unknown = [
            Problem(f"--build-arg {name}", f"{self.path.name} has no such argument", f"use {known}")
            for name in given
            if name not in self.arguments
        ]
        values = {**self.arguments, **given}
        needed = dict.fromkeys(
            substituted(file, values) for file in [*self._local_bases(values), *self.copied]
        )
        missing = [
            Problem(
                str(self.folder / file),
                f"does not exist, and {self.path.name} needs it",
                "name another, or check that the repository is complete (`git status`)",
            )
            for file in needed
            if not ((self.folder / file).exists() or glob.glob(str(self.folder / file)))
        ]
        return unknown + missing

    def _local_bases(self, values: Mapping[str, str]) -> list[str]:
        return [
            header["from"]
            for header in self.headers
            if substituted(header.get("bootstrap", ""), values) == "localimage" and "from" in header
        ]


def read(path: Path) -> Definition:
    """Read a definition file.

    Raises
    ------
    BadInput
        If it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise BadInput(Problem(str(path), what, "name a readable file")) from None
    definition = Definition(path)
    for section, line in _lines(text):
        if section == "%arguments" and "=" in line:
            name, _, default = line.partition("=")
            definition.arguments.setdefault(name.strip(), default.strip())
        elif section == "%files":
            definition.copied.append(_ARGUMENT.sub(r"{{\1}}", line).split()[0])
        elif section == "header" and ":" in line:
            key, _, value = line.partition(":")
            if key.lower() == "bootstrap":
                definition.headers.append({})
            if definition.headers:
                definition.headers[-1][key.lower()] = value.strip()
    return definition


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Yield (section, line) for each line but comments; lines before a section are in `header`.

    `Bootstrap:` begins a new stage.
    """
    section = "header"
    for line in text.splitlines():
        if line.startswith("%"):
            section = " ".join(line.split())  # `%files from a-stage` differs from %files
        elif line.lower().startswith("bootstrap:"):
            section = "header"
            yield section, line
        elif line.strip() and not line.lstrip().startswith("#"):
            yield section, line.strip()


def substituted(text: str, values: Mapping[str, str]) -> str:
    """Replace each `{{ NAME }}` by its value; a name without a value remains."""
    for _ in range(_NESTED):
        before = text
        text = _ARGUMENT.sub(lambda match: values.get(match[1], match[0]), text)
        if text == before:
            break
    return text
