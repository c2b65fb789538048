"""export: clips to WAV files, for ears and for other programs."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile

from nsynth_super.blocks import complete
from nsynth_super.files import write_bytes
from nsynth_super.finishing import finish
from nsynth_super.plan import require
from nsynth_super.settings import SAMPLE_RATE, Settings
from nsynth_super.wavenet import mulaw
from nsynth_super.workspace import Workspace, readable_name

_NAME = 120  # bytes of a mix's name in a file's


def run(workspace: Workspace, settings: Settings, folder: Path, raw: bool = False) -> int:
    """Write every clip that is complete; return how many.

    Parameters
    ----------
    workspace : Workspace
    settings : Settings
    folder : Path
        Made if it is not there.
    raw : bool
        As the model drew them, instead of as the pads hold them.
    """
    plan = require(workspace.plan, settings)
    written = 0
    for block in range(plan.blocks):
        codes = complete(workspace, plan, block)
        if codes is None:
            continue
        for clip, row in zip(plan.clips_of(block), codes, strict=True):
            audio = mulaw.decode(np.asarray(row))
            sound = (
                np.rint(audio * 32767).astype("<i2")
                if raw
                else finish(audio, settings.final_length)
            )
            name = readable_name(plan.mixes[clip].name).encode()[:_NAME].decode(errors="ignore")
            content = BytesIO()
            soundfile.write(content, sound, SAMPLE_RATE, "PCM_16", format="WAV")
            write_bytes(folder / f"{clip:06d}_{name}.wav", content.getvalue())
            written += 1
    return written
