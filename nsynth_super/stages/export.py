"""The `export` command: write clips as WAV files."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile

from nsynth_super.base.files import write_bytes
from nsynth_super.base.text import readable_name
from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.blocks import complete
from nsynth_super.pack.finishing import finish
from nsynth_super.pack.geometry import SAMPLE
from nsynth_super.pack.plan import require
from nsynth_super.settings import SAMPLE_RATE, Settings
from nsynth_super.wavenet import mulaw

_NAME = 120  # bytes of a mix's name that are kept in a file name


def export_clips(workspace: Workspace, settings: Settings, folder: Path, raw: bool = False) -> int:
    """Write every complete clip as a WAV file; return the number of files.

    Parameters
    ----------
    workspace : Workspace
    settings : Settings
    folder : Path
        Created if missing.
    raw : bool
        Write the decoded codes without the post-processing of the pads.
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
                np.rint(audio * 32767).astype(SAMPLE)
                if raw
                else finish(audio, settings.final_length)
            )
            name = readable_name(plan.mixes[clip].name).encode()[:_NAME].decode(errors="ignore")
            content = BytesIO()
            soundfile.write(content, sound, SAMPLE_RATE, "PCM_16", format="WAV")
            write_bytes(folder / f"{clip:06d}_{name}.wav", content.getvalue())
            written += 1
    return written
