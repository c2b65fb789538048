"""Problems and exceptions for the user: where, what is wrong, and how to fix it, in one line.

A check returns a `Problem` for everything it finds; its caller collects them and raises `BadInput`;
the command line prints them and sets the exit code. Independent of the pipeline.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL: work is left, run the command again
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it


@dataclass(frozen=True)
class Problem:
    """A one-line message about one key, file or folder.

    Parameters
    ----------
    where : str
        Key, file or folder, in terms that the user can find.
    what : str
        What is wrong or noteworthy.
    fix : str
        What to do about it; may be empty for a note.
    level : {"error", "warning", "note"}
        Only errors stop the command.
    """

    where: str
    what: str
    fix: str = ""
    level: Literal["error", "warning", "note"] = "error"

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" + (f" -> {self.fix}" if self.fix else "")
        return " ".join(line.splitlines())

    def as_dict(self) -> dict[str, str]:
        """Return the fields as `check --json` prints them."""
        return asdict(self)


class NsynthSuperError(Exception):
    """Base class of errors that the command line reports without a traceback."""

    exit_code = EXIT_FAILED


class BadInput(NsynthSuperError):  # noqa: N818 - reads better where it is raised
    """Unusable input; carries every problem found, not only the first."""

    exit_code = EXIT_BAD_INPUT

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Failed(NsynthSuperError):  # noqa: N818
    """A failure of the machine rather than the input, such as a full disk."""


class Stopped(NsynthSuperError):  # noqa: N818
    """A stop on request, with the progress so far saved on disk.

    Parameters
    ----------
    message : str
        One line: the progress so far and how to resume.
    exit_code : int
        `EXIT_STOPPED` after one of `signals.STOPS`, `EXIT_INTERRUPTED` after SIGINT.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def errors(problems: Iterable[Problem]) -> list[Problem]:
    """Return the problems of level "error"."""
    return [problem for problem in problems if problem.level == "error"]


def refuse(problems: Iterable[Problem]) -> None:
    """Raise `BadInput` if there are errors among `problems`, with all of them."""
    if found := errors(problems):
        raise BadInput(found)
