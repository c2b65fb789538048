"""Note names, `<instrument>_<MIDI pitch>`, as used in files, plans and embeddings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class NoteName(NamedTuple):
    """A note's instrument and MIDI pitch.

    Attributes
    ----------
    instrument : str
        May contain underscores.
    pitch : int
        MIDI number, 0 to 127.
    """

    instrument: str
    pitch: int

    def __str__(self) -> str:
        """Return the name as text: `flute_60`."""
        return f"{self.instrument}_{self.pitch}"

    @classmethod
    def parse(cls, text: str) -> NoteName:
        """Parse the text that `str` returns.

        Raises
        ------
        ValueError
            If `text` does not end with an underscore and a number.
        """
        instrument, _, pitch = text.rpartition("_")
        return cls(instrument, int(pitch))


def by_instrument(names: Iterable[NoteName]) -> dict[str, list[int]]:
    """Group names by instrument: a dict of sorted pitches, with the instruments sorted."""
    pitches: dict[str, list[int]] = {}
    for instrument, pitch in sorted(names):
        pitches.setdefault(instrument, []).append(pitch)
    return pitches
