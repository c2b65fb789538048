"""New notes for a workspace: what they would replace, and what is missing once they are there.

Knows `audio_input` and what the settings want there. Does not know where the notes come from.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from nsynth_super.files import write_bytes
from nsynth_super.notes import Name, by_name
from nsynth_super.problems import Problem, refuse
from nsynth_super.settings import SAMPLE_RATE, Settings


@dataclass(frozen=True)
class Arrival:
    """A note that shall go into `audio_input`.

    Attributes
    ----------
    name : (instrument, pitch)
    ending : str
        Of its file, with the dot.
    sound : Path or bytes
        The file to copy, or what shall be in it.
    """

    name: Name
    ending: str
    sound: Path | bytes

    @property
    def file(self) -> str:
        """Its name in `audio_input`."""
        return f"{self.name[0]}_{self.name[1]}{self.ending}"

    def content(self) -> bytes:
        """Return what is in its file."""
        return self.sound if isinstance(self.sound, bytes) else self.sound.read_bytes()


def wav(audio: NDArray[np.float32]) -> bytes:
    """Return a note as the bytes of a 16-bit WAV."""
    file = io.BytesIO()
    soundfile.write(file, audio, SAMPLE_RATE, "PCM_16", format="WAV")
    return file.getvalue()


def add(folder: Path, arrivals: list[Arrival], replace: bool, only_ask: bool = False) -> list[Path]:
    """Write new notes into `audio_input`; those that are there already are left alone.

    Parameters
    ----------
    folder : Path
        `audio_input`.
    arrivals : list of Arrival
        No two of the same name.
    replace : bool
        Whether other recordings of the same notes make way.
    only_ask : bool
        Write nothing.

    Returns
    -------
    list of Path
        What was written, or would be.

    Raises
    ------
    BadInput
        If there are other recordings of these notes, and they shall stay. Nothing is written then.
    """
    there = by_name(folder)[0] if folder.is_dir() else {}
    new = [
        arrival
        for arrival in arrivals
        if not _is_there(folder / arrival.file, there.get(arrival.name), arrival)
    ]
    if not replace:
        refuse(_in_the_way([arrival.name for arrival in new if arrival.name in there]))
    if not only_ask:
        for arrival in new:
            write_bytes(folder / arrival.file, arrival.content())
            before = there.get(arrival.name)
            if before is not None and not before.samefile(folder / arrival.file):
                before.unlink()
    return [folder / arrival.file for arrival in new]


def _is_there(path: Path, there: Path | None, arrival: Arrival) -> bool:
    return there == path and path.read_bytes() == arrival.content()


def _in_the_way(names: list[Name]) -> Iterator[Problem]:
    for instrument, pitches in _by_instrument(names).items():
        yield Problem(
            _files(instrument, pitches),
            "there is another recording already",
            "--replace puts the new one in its place; or choose another name for the instrument",
        )


def advice(settings: Settings, folder: Path, names: list[Name]) -> list[Problem]:
    """Say what the workspace lacks once notes called `names` are in it."""
    new = _by_instrument(names)
    there = by_name(folder)[0] if folder.is_dir() else {}
    all_of = _by_instrument({*there, *names})
    said = [
        Problem(
            "settings.json pads",
            f"no corner names {instrument!r}",
            f'write it where it shall sound, as in "NW": ["{instrument}"]',
            "note",
        )
        for instrument in new
        if instrument not in settings.instruments
    ]
    in_use = [set(all_of[each]) for each in all_of if each in settings.instruments or each in new]
    common = sorted(set.intersection(*in_use)) if in_use else []
    for instrument in new:
        if missing := [pitch for pitch in settings.pitches if pitch not in all_of[instrument]]:
            fix = "`run --fill-missing repitch` fills them in"
            if common:
                fix += f'; or choose "pitches" in settings.json among {_ranges(common)}'
            said.append(Problem(_files(instrument, missing), "missing", fix, "note"))
    if without := [name for name in settings.instruments if name not in all_of]:
        said.append(
            Problem(
                "settings.json pads",
                f"also names {', '.join(without)}, which have no notes yet",
                "add them, or take the names out",
                "note",
            )
        )
    return said


def _by_instrument(names: Iterable[Name]) -> dict[str, list[int]]:
    pitches: dict[str, list[int]] = {}
    for instrument, pitch in sorted(names):
        pitches.setdefault(instrument, []).append(pitch)
    return pitches


def _files(instrument: str, pitches: list[int]) -> str:
    listed = ",".join(map(str, pitches))
    return f"audio_input/{instrument}_" + (f"{{{listed}}}" if len(pitches) > 1 else listed)


def _ranges(pitches: list[int]) -> str:
    """Write 48, 49, 50, 60 as 48-50, 60."""
    runs: list[list[int]] = []
    for pitch in pitches:
        if runs and runs[-1][-1] == pitch - 1:
            runs[-1].append(pitch)
        else:
            runs.append([pitch])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
