"""Checks that notes sound at the pitches in their file names.

A typical error is an offset of an octave, since MIDI 60 is called C3 in some conventions and C4 in
others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from nsynth_super.base.errors import Problem
from nsynth_super.notes.recordings import Note

FAR = 0.5  # semitones: beyond 50 cents another pitch is closer
OCTAVE = 12  # semitones


@dataclass(frozen=True)
class Heard:
    """A note and its detected pitch.

    Attributes
    ----------
    note : Note
    pitch : float or None
        Fractional MIDI pitch; None for unpitched sounds such as drums.
    """

    note: Note
    pitch: float | None

    @property
    def named(self) -> int:
        """MIDI pitch in the recording's file name, which differs from the note's if filled in."""
        filled_from = self.note.filled_from
        return self.note.name[1] if filled_from is None else filled_from

    @property
    def off(self) -> float | None:
        """Semitones from the file name's pitch to the recording's; None if unpitched."""
        return None if self.pitch is None else self.pitch - self.note.semitones - self.named

    @property
    def far(self) -> bool:
        """Whether the recording is more than 50 cents off its file name."""
        return self.off is not None and abs(self.off) > FAR


def problems(heard: Sequence[Heard]) -> Iterator[Problem]:
    """Yield warnings for notes more than 50 cents off their names.

    A single warning covers all notes, or all of an instrument, if they are off by the same number
    of octaves.
    """
    pitched = [each for each in heard if each.pitch is not None]
    if octaves := _octaves(pitched):
        yield _octave_warning("audio_input", octaves)
        return
    by_instrument = sorted(pitched, key=lambda each: (each.note.name[0], each.named))
    for instrument, group in groupby(by_instrument, lambda each: each.note.name[0]):
        notes = list(group)
        if octaves := _octaves(notes):
            yield _octave_warning(f"audio_input/{instrument}_*", octaves)
        else:
            yield from map(_note_warning, (each for each in notes if each.far))


def _octaves(heard: Sequence[Heard]) -> int:
    """Return the common offset of several notes in octaves; 0 if there is none."""
    off = {round(each.off / OCTAVE) for each in heard if each.off is not None}
    within = all(
        abs(each.off - OCTAVE * round(each.off / OCTAVE)) <= FAR
        for each in heard
        if each.off is not None
    )
    return off.pop() if len(heard) > 1 and len(off) == 1 and within else 0


def _octave_warning(where: str, octaves: int) -> Problem:
    off = octaves * OCTAVE
    return Problem(
        where,
        f"every note sounds {_interval(off)} than its file name says",
        f"if middle C is not 60 in your names, {'add' if off > 0 else 'subtract'} {abs(off)} "
        f"{'to' if off > 0 else 'from'} the numbers",
        "warning",
    )


def _note_warning(heard: Heard) -> Problem:
    assert heard.off is not None
    nearest = heard.named + round(heard.off)
    octave = nearest != heard.named and (nearest - heard.named) % OCTAVE == 0
    return Problem(
        f"audio_input/{heard.note.path.name}",
        f"sounds {_interval(heard.off)} than its file name says",
        f"if it is {heard.note.name[0]}_{nearest}, rename it"
        + (" (middle C is 60)" if octave else ", or record it in tune"),
        "warning",
    )


def _interval(semitones: float) -> str:
    size = abs(semitones)
    text = f"{100 * size:.0f} cents" if size < 0.95 else f"{size:.1f}".removesuffix(".0")
    if size >= 0.95:
        text += " semitone" + "s" * (text != "1")
    return f"{text} {'higher' if semitones > 0 else 'lower'}"
