"""What can be wrong, said in one line: what, where, what to do.

Knows nothing of the pipeline. Whoever finds something wrong makes a `Problem`; whoever has found
all of them raises `BadInput`; the command line prints them and chooses the exit code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_STOPPED = 75  # EX_TEMPFAIL: work is left, run me again
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it


@dataclass(frozen=True)
class Problem:
    """One line about one thing.

    Parameters
    ----------
    where : str
        The key, file or folder, as the user would look for it.
    what : str
        What is wrong there, or worth knowing.
    fix : str
        What to do about it; may be empty for a note.
    level : {"error", "warning", "note"}
        Only errors stop the work.
    """

    where: str
    what: str
    fix: str = ""
    level: Literal["error", "warning", "note"] = "error"

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" + (f" -> {self.fix}" if self.fix else "")
        return " ".join(line.splitlines())

    def as_dict(self) -> dict[str, str]:
        """Return the problem as `check --json` prints it."""
        return asdict(self)


class NsynthSuperError(Exception):
    """An end of the run that the user is told about in plain lines, not in a traceback."""

    exit_code = EXIT_FAILED


class BadInput(NsynthSuperError):  # noqa: N818 - reads better where it is raised
    """Something the user gave cannot be used. Carries every problem found, not just the first."""

    exit_code = EXIT_BAD_INPUT

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Failed(NsynthSuperError):  # noqa: N818
    """The machine, not the input, is at fault: a full disk, a folder that cannot be written."""


class Stopped(NsynthSuperError):  # noqa: N818
    """Somebody asked the work to stop. What was done is safe on disk.

    Parameters
    ----------
    message : str
        One line: how far the work came and how to go on.
    exit_code : int
        `EXIT_STOPPED` after one of `progress.STOPS`, `EXIT_INTERRUPTED` after SIGINT.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def errors(problems: Iterable[Problem]) -> list[Problem]:
    """Return those of `problems` that stop the work."""
    return [problem for problem in problems if problem.level == "error"]


def refuse(problems: Iterable[Problem]) -> None:
    """Raise `BadInput` with every error among `problems`, if there is one."""
    if found := errors(problems):
        raise BadInput(found)
