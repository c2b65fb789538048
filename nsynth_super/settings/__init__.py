"""settings.json: read, checked, explained.

Knows the upstream format (`pads`, `pitches`, `resolution`, `final_length`, `gpus`, `magenta_dir`),
what is ours (`seed`, `names`, `looping`) and what the instrument can hold. Knows nothing of notes,
folders or the model.
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
