"""Adds notes to a workspace's `audio_input`, and advises what is still missing there.

Independent of the source of the notes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from nsynth_super.base.errors import Problem, refuse
from nsynth_super.base.files import write_bytes
from nsynth_super.base.note_name import NoteName, by_instrument
from nsynth_super.notes.recordings import by_name
from nsynth_super.settings import SAMPLE_RATE, Settings


@dataclass(frozen=True)
class Arrival:
    """A note to add to `audio_input`.

    Attributes
    ----------
    name : NoteName
    ending : str
        File name extension, including the dot.
    sound : Path or bytes
        The file to copy, or the content to write.
    """

    name: NoteName
    ending: str
    sound: Path | bytes

    @property
    def file(self) -> str:
        """File name in `audio_input`."""
        return f"{self.name}{self.ending}"

    def content(self) -> bytes:
        """Return the content of the file."""
        return self.sound if isinstance(self.sound, bytes) else self.sound.read_bytes()


def wav(audio: NDArray[np.float32]) -> bytes:
    """Encode a note as a 16-bit WAV file."""
    file = io.BytesIO()
    soundfile.write(file, audio, SAMPLE_RATE, "PCM_16", format="WAV")
    return file.getvalue()


def add(folder: Path, arrivals: list[Arrival], replace: bool, dry_run: bool = False) -> list[Path]:
    """Write new notes to `audio_input`; skip those that are already present.

    Parameters
    ----------
    folder : Path
        `audio_input`.
    arrivals : list of Arrival
        With distinct names.
    replace : bool
        Whether to replace other recordings of the same notes.
    dry_run : bool
        Whether to write nothing.

    Returns
    -------
    list of Path
        The files written, or with `dry_run`, those that would be.

    Raises
    ------
    BadInput
        If other recordings of these notes exist and `replace` is false. Nothing is written.
    """
    existing = by_name(folder)[0] if folder.is_dir() else {}
    new = [
        arrival
        for arrival in arrivals
        if not _is_present(folder / arrival.file, existing.get(arrival.name), arrival)
    ]
    if not replace:
        refuse(_conflicts([arrival.name for arrival in new if arrival.name in existing]))
    if not dry_run:
        for arrival in new:
            write_bytes(folder / arrival.file, arrival.content())
            before = existing.get(arrival.name)
            if before is not None and not before.samefile(folder / arrival.file):
                before.unlink()
    return [folder / arrival.file for arrival in new]


def _is_present(path: Path, existing: Path | None, arrival: Arrival) -> bool:
    return existing == path and path.read_bytes() == arrival.content()


def _conflicts(names: list[NoteName]) -> Iterator[Problem]:
    for instrument, pitches in by_instrument(names).items():
        yield Problem(
            _files(instrument, pitches),
            "another recording exists",
            "replace it with --replace, or choose another name for the instrument",
        )


def advice(settings: Settings, folder: Path, names: list[NoteName]) -> list[Problem]:
    """Return notes on what the workspace lacks once the notes `names` are added."""
    new = by_instrument(names)
    existing = by_name(folder)[0] if folder.is_dir() else {}
    available = by_instrument({*existing, *names})
    notes = [
        Problem(
            "settings.json pads",
            f"no corner lists {instrument!r}",
            f'add it to a corner, such as "NW": ["{instrument}"]',
            "note",
        )
        for instrument in new
        if instrument not in settings.instruments
    ]
    in_use = [
        set(pitches)
        for each, pitches in available.items()
        if each in settings.instruments or each in new
    ]
    common = sorted(set.intersection(*in_use)) if in_use else []
    for instrument in new:
        if missing := [pitch for pitch in settings.pitches if pitch not in available[instrument]]:
            fix = "fill them in with `run --fill-missing repitch`"
            if common:
                fix += f', or choose "pitches" in settings.json from {_ranges(common)}'
            notes.append(Problem(_files(instrument, missing), "missing", fix, "note"))
    if without := [name for name in settings.instruments if name not in available]:
        notes.append(
            Problem(
                "settings.json pads",
                f"lists {', '.join(without)}, which have no notes yet",
                "add their notes, or remove them",
                "note",
            )
        )
    return notes


def _files(instrument: str, pitches: list[int]) -> str:
    listed = ",".join(map(str, pitches))
    return f"audio_input/{instrument}_" + (f"{{{listed}}}" if len(pitches) > 1 else listed)


def _ranges(pitches: list[int]) -> str:
    """Format pitches as ranges: 48, 49, 50, 60 becomes `48-50, 60`."""
    runs: list[list[int]] = []
    for pitch in pitches:
        if runs and runs[-1][-1] == pitch - 1:
            runs[-1].append(pitch)
        else:
            runs.append([pitch])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
