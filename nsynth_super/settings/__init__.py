"""Read and validate settings.json.

The format is upstream's (`pads`, `pitches`, `resolution`, `final_length`, `gpus`, `magenta_dir`)
plus `seed`, `names` and `looping`. Independent of notes, folders and the model.
"""

from nsynth_super.settings.model import (
    ABBREVIATION,
    CORNERS,
    DISPLAY,
    MAX_FILE_NAME,
    MAX_SEED,
    NOTE_SAMPLES,
    ONSET_SEARCH,
    SAMPLE_RATE,
    InstrumentName,
    Label,
    Pads,
    Settings,
    pad_name,
)
from nsynth_super.settings.reading import inspect, read, read_json

__all__ = [
    "ABBREVIATION",
    "CORNERS",
    "DISPLAY",
    "MAX_FILE_NAME",
    "MAX_SEED",
    "NOTE_SAMPLES",
    "ONSET_SEARCH",
    "SAMPLE_RATE",
    "InstrumentName",
    "Label",
    "Pads",
    "Settings",
    "inspect",
    "pad_name",
    "read",
    "read_json",
]
