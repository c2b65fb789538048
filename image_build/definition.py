"""A definition file: the arguments it knows, and the files of this machine that it needs.

Reads no more of it than that; Apptainer reads the rest.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nsynth_super.problems import BadInput, Problem

_ARGUMENT = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_NESTED = 8  # an argument's value may name another, but not for ever


@dataclass(frozen=True)
class Definition:
    """A definition file.

    Attributes
    ----------
    path : Path
        Its folder is where what it copies is looked for.
    arguments : dict of str to str
        Name to default, of all stages.
    headers : list of dict
        What stands above each stage's sections: `bootstrap`, `from`, `stage`.
    copied : list of str
        What %files takes from this machine.
    """

    path: Path
    arguments: dict[str, str] = field(default_factory=dict)
    headers: list[dict[str, str]] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Where what it copies is looked for, and a build runs."""
        return self.path.parent

    def problems(self, given: Mapping[str, str]) -> list[Problem]:
        """Return those of the `given` arguments that it does not know, and what is not there."""
        known = ", ".join(self.arguments) or "none"
        unknown = [
            Problem(
                f"--build-arg {name}", f"{self.path.name} has no such argument", f"it has {known}"
            )
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
                f"is not there, and {self.path.name} needs it",
                "name another, or see that the repository is whole (`git status`)",
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
        raise BadInput(Problem(str(path), what, "name one that can")) from None
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
    """Give (section, line) for every line that says something; `header` is what no section holds.

    A stage ends where the next one's `Bootstrap:` stands.
    """
    section = "header"
    for line in text.splitlines():
        if line.startswith("%"):
            section = " ".join(line.split())  # `%files from a-stage` is another section than %files
        elif line.lower().startswith("bootstrap:"):
            section = "header"
            yield section, line
        elif line.strip() and not line.lstrip().startswith("#"):
            yield section, line.strip()


def substituted(text: str, values: Mapping[str, str]) -> str:
    """Put the arguments' values into a text; a name without one stays as it is."""
    for _ in range(_NESTED):
        before = text
        text = _ARGUMENT.sub(lambda match: values.get(match[1], match[0]), text)
        if text == before:
            break
    return text
