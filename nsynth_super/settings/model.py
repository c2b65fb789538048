"""Data model of settings.json: keys, types, bounds and derived values."""

from __future__ import annotations

import unicodedata
from itertools import product
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

CORNERS = ("NW", "NE", "SW", "SE")
"""Corners in the synth's order: top left, top right, bottom left, bottom right."""

SAMPLE_RATE = 16_000  # Hz; of the notes, the model and the pads
NOTE_SAMPLES = 4 * SAMPLE_RATE  # the four seconds that the model was trained on
ONSET_SEARCH = SAMPLE_RATE // 4  # samples in which the onset of a clip must lie
TOUCH_POSITIONS = 11  # per axis of the synth's touch pad
SHORTEST_SOUND = 16  # samples: a pad fades in and out over 8
MAX_FILE_NAME = 255  # bytes, on common file systems
DISPLAY = 8  # characters of an instrument's name on the synth's screen
ABBREVIATION = 2  # characters, on the screen that shows all four corners
MAX_SEED = 2**63 - 1

_FORBIDDEN = '/\\:*?"<>|'


def _instrument_name(name: str) -> str:
    if not name.strip():
        raise ValueError("is empty")
    if bad := sorted({c for c in name if c in _FORBIDDEN or unicodedata.category(c)[0] == "C"}):
        raise ValueError(f"contains {' '.join(map(repr, bad))}, which is not allowed in file names")
    if name != name.strip() or name.endswith("."):
        raise ValueError("starts or ends with a space, or ends with a dot")
    if name.startswith((".", "-")):
        raise ValueError(f"starts with {name[0]!r}, like a hidden file or an option")
    return unicodedata.normalize("NFC", name)


def _label(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("starts or ends with a space, or contains an unprintable character")
    return text


InstrumentName = Annotated[str, Field(strict=True), AfterValidator(_instrument_name)]
CornerList = Annotated[list[InstrumentName], Field(min_length=1)]
Pitch = Annotated[int, Field(strict=True, ge=0, le=127)]


class Pads(BaseModel):
    """The instruments of each corner."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    NW: CornerList
    NE: CornerList
    SW: CornerList
    SE: CornerList


class Label(BaseModel):
    """An instrument's labels on the synth's screen; None derives a label from its name.

    Attributes
    ----------
    display : str or None
        1 to 8 characters.
    abbr : str or None
        2 characters.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    display: (
        Annotated[str, Field(strict=True, min_length=1, max_length=DISPLAY), AfterValidator(_label)]
        | None
    ) = None
    abbr: (
        Annotated[
            str,
            Field(strict=True, min_length=ABBREVIATION, max_length=ABBREVIATION),
            AfterValidator(_label),
        ]
        | None
    ) = None


class Settings(BaseModel):
    """The settings of a pack.

    Attributes
    ----------
    pads : Pads
        Instruments of each corner.
    pitches : list of int
        MIDI numbers, in the order of the pads.
    resolution : int
        Cells along one side of the grid, 1 to 11.
    final_length : int
        Samples of each sound in a pad, 1 to 64,000.
    seed : int
        Seed of the random numbers that sample the clips.
    names : mapping of str to Label
        Labels on the synth's screen, by instrument.
    looping : bool or None
        Whether the synth loops a part of each sound back and forth while a key is held; None keeps
        the synth's own setting.
    gpus, magenta_dir
        Upstream's keys; accepted and ignored.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    pads: Pads
    pitches: Annotated[list[Pitch], Field(min_length=1)]
    resolution: Annotated[int, Field(strict=True, ge=1, le=TOUCH_POSITIONS)]
    final_length: Annotated[int, Field(strict=True, ge=1, le=NOTE_SAMPLES)] = 60_000
    seed: Annotated[int, Field(strict=True, ge=0, le=MAX_SEED)] = 0
    names: dict[InstrumentName, Label] = {}
    looping: Annotated[bool, Field(strict=True)] | None = None
    gpus: Any = None
    magenta_dir: Any = None

    @property
    def corners(self) -> tuple[list[str], list[str], list[str], list[str]]:
        """Instruments of NW, NE, SW and SE, in the synth's order."""
        return (self.pads.NW, self.pads.NE, self.pads.SW, self.pads.SE)

    @property
    def instruments(self) -> list[str]:
        """The distinct instruments, sorted."""
        return sorted({name for corner in self.corners for name in corner})

    @property
    def combinations(self) -> list[tuple[str, str, str, str]]:
        """Every choice of one instrument per corner, in the order of the lists."""
        return list(product(*self.corners))

    @property
    def decoded_samples(self) -> int:
        """Samples to decode per clip: `final_length` plus the onset search, at most 4 s."""
        return min(self.final_length + ONSET_SEARCH, NOTE_SAMPLES)

    def shaping(self) -> dict[str, Any]:
        """Return the settings that determine the clips; the plan stays valid if others change."""
        return self.model_dump(exclude={"names", "looping", "gpus", "magenta_dir"})


def pad_name(combination: tuple[str, ...]) -> str:
    """Return the file name, without `.bin`, by which the synth finds a combination."""
    return "_".join(combination)
