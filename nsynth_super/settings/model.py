"""What a pack's settings are: their names, types and bounds, and what follows from them."""

from __future__ import annotations

import unicodedata
from itertools import product
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

CORNERS = ("NW", "NE", "SW", "SE")
"""The device's order: top left, top right, bottom left, bottom right."""

SAMPLE_RATE = 16_000  # Hz, of the notes, the model and the pads
NOTE_SAMPLES = 4 * SAMPLE_RATE  # 64,000 samples: the four seconds the model was trained on
ONSET_SEARCH = SAMPLE_RATE // 4  # 4,000 samples in which a clip's onset may lie
TOUCH_POSITIONS = 11  # per axis, on the instrument's pad
SHORTEST_SOUND = 16  # samples: a pad fades in and out over 8
MAX_FILE_NAME = 255  # bytes, on every file system in question
DISPLAY = 8  # characters of an instrument's name on the device's screen
ABBREVIATION = 2  # characters, where the screen shows all four corners
MAX_SEED = 2**63 - 1

_FORBIDDEN = '/\\:*?"<>|'


def _instrument_name(name: str) -> str:
    if not name.strip():
        raise ValueError("is empty")
    if bad := sorted({c for c in name if c in _FORBIDDEN or unicodedata.category(c)[0] == "C"}):
        raise ValueError(f"holds {' '.join(map(repr, bad))}, which a card or a disk cannot store")
    if name != name.strip() or name.endswith("."):
        raise ValueError("begins or ends with a space or a dot, which some file systems drop")
    if name.startswith((".", "-")):
        raise ValueError(f"begins with {name[0]!r}, which hides the file or reads as an option")
    return unicodedata.normalize("NFC", name)


def _label(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("begins or ends with a space, or cannot be printed")
    return text


InstrumentName = Annotated[str, Field(strict=True), AfterValidator(_instrument_name)]
CornerList = Annotated[list[InstrumentName], Field(min_length=1)]
Pitch = Annotated[int, Field(strict=True, ge=0, le=127)]


class Pads(BaseModel):
    """The instruments of each corner, by compass."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    NW: CornerList
    NE: CornerList
    SW: CornerList
    SE: CornerList


class Label(BaseModel):
    """How the device's screen shows an instrument; what is None is made from its name.

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
    """A pack's settings.

    Attributes
    ----------
    pads : Pads
        Instruments of each corner.
    pitches : list of int
        MIDI numbers; their order is the order in the pads.
    resolution : int
        Cells along one side of the grid, 1 to 11.
    final_length : int
        Samples of each sound in a pad, 1 to 64,000.
    seed : int
        Of every random number the clips are drawn with.
    names : mapping of str to Label
        What the device's screen calls instruments, where their own names do not do.
    looping : bool or None
        Whether the device plays a part of each sound to and fro while a key is held; None leaves
        that to the device's own settings.
    gpus, magenta_dir
        Upstream's; accepted, not used.
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
        """Instruments of NW, NE, SW and SE, in the device's order."""
        return (self.pads.NW, self.pads.NE, self.pads.SW, self.pads.SE)

    @property
    def instruments(self) -> list[str]:
        """Every instrument once, sorted."""
        return sorted({name for corner in self.corners for name in corner})

    @property
    def combinations(self) -> list[tuple[str, str, str, str]]:
        """One instrument per corner, every choice, in the order of the lists."""
        return list(product(*self.corners))

    @property
    def decoded_samples(self) -> int:
        """Samples to decode of each clip: the pad's length and room for the onset, at most 4 s."""
        return min(self.final_length + ONSET_SEARCH, NOTE_SAMPLES)

    @property
    def pad_bytes(self) -> int:
        """Size of one pad: what the device expects, to the byte."""
        return self.resolution**2 * len(self.pitches) * self.final_length * 2

    def shaping(self) -> dict[str, Any]:
        """Return the settings that decide what the pack holds; the rest may change freely."""
        return self.model_dump(exclude={"names", "looping", "gpus", "magenta_dir"})


def pad_name(combination: tuple[str, ...]) -> str:
    """Return the name, without `.bin`, under which the device looks for a combination."""
    return "_".join(combination)
