"""Whether notes sound at the pitches that their files are named for.

A recording an octave off plays, and plays wrong: middle C, MIDI 60, is C3 to some and C4 to others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from nsynth_super.notes import Note
from nsynth_super.problems import Problem

FAR = 0.5  # semitones: 50 cents, from where the next pitch is the nearer one
OCTAVE = 12  # semitones


@dataclass(frozen=True)
class Heard:
    """A note, and the pitch that it sounds at.

    Attributes
    ----------
    note : Note
    pitch : float or None
        MIDI pitch with its fraction; None of a sound that has none, such as a drum's.
    """

    note: Note
    pitch: float | None

    @property
    def named(self) -> int:
        """The pitch in the recording's file name; another note's, if this one is filled in."""
        filled_from = self.note.filled_from
        return self.note.name[1] if filled_from is None else filled_from

    @property
    def off(self) -> float | None:
        """Semitones from the pitch in the file name to the recording's; None without a pitch."""
        return None if self.pitch is None else self.pitch - self.note.semitones - self.named

    @property
    def far(self) -> bool:
        """Whether the recording sounds more than 50 cents off its file name."""
        return self.off is not None and abs(self.off) > FAR


def problems(heard: Sequence[Heard]) -> Iterator[Problem]:
    """Warn of notes that sound far off their names: in one line what has one cause.

    That is where all notes, or all of an instrument, are off by the same octaves.
    """
    pitched = [each for each in heard if each.pitch is not None]
    if octaves := _octaves(pitched):
        yield _of_many("audio_input", "every note sounds", octaves)
        return
    by_instrument = sorted(pitched, key=lambda each: (each.note.name[0], each.named))
    for instrument, group in groupby(by_instrument, lambda each: each.note.name[0]):
        notes = list(group)
        if octaves := _octaves(notes):
            yield _of_many(f"audio_input/{instrument}_*", "every note sounds", octaves)
        else:
            yield from map(_of_one, (each for each in notes if each.far))


def _octaves(heard: Sequence[Heard]) -> int:
    """Return by how many octaves all of several notes are off; 0 if they are not, or differ."""
    off = {round(each.off / OCTAVE) for each in heard if each.off is not None}
    within = all(
        abs(each.off - OCTAVE * round(each.off / OCTAVE)) <= FAR
        for each in heard
        if each.off is not None
    )
    return off.pop() if len(heard) > 1 and len(off) == 1 and within else 0


def _of_many(where: str, what: str, octaves: int) -> Problem:
    off = octaves * OCTAVE
    return Problem(
        where,
        f"{what} {_interval(off)} than its file name says",
        f"is middle C 60 in your names? name them {abs(off)} {'higher' if off > 0 else 'lower'}",
        "warning",
    )


def _of_one(heard: Heard) -> Problem:
    assert heard.off is not None
    nearest = heard.named + round(heard.off)
    octave = nearest != heard.named and (nearest - heard.named) % OCTAVE == 0
    return Problem(
        f"audio_input/{heard.note.path.name}",
        f"sounds {_interval(heard.off)} than its file name says",
        f"is it {heard.note.name[0]}_{nearest}? "
        + ("middle C is 60" if octave else "rename it, or record it in tune"),
        "warning",
    )


def _interval(semitones: float) -> str:
    size = abs(semitones)
    said = f"{100 * size:.0f} cents" if size < 0.95 else f"{size:.1f}".removesuffix(".0")
    if size >= 0.95:
        said += " semitone" + "s" * (said != "1")
    return f"{said} {'higher' if semitones > 0 else 'lower'}"
