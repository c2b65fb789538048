"""Description of a pack for the page: geometry, labels, the synth's settings, progress."""

from __future__ import annotations

import hashlib
import io
import json
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import soundfile

from nsynth_super.base.errors import BadInput, errors
from nsynth_super.base.note_name import NoteName
from nsynth_super.base.workspace import Workspace
from nsynth_super.notes import recordings as notes
from nsynth_super.pack.blocks import clips_done
from nsynth_super.pack.grid import corner_weights
from nsynth_super.preview.sounds import Clips, Sounds, open_sounds
from nsynth_super.settings import CORNERS, SAMPLE_RATE, Settings, pad_name, read
from nsynth_super.synth.settings import LOOP, read_synth_settings, synth_settings

OUTPUT_RATE = 48_000  # Hz, of the synth's audio output


@dataclass(frozen=True)
class Pack:
    """The pack of a workspace, as its files are now.

    Attributes
    ----------
    workspace : Workspace
    settings : Settings
    sounds : Sounds
    """

    workspace: Workspace
    settings: Settings
    sounds: Sounds

    @classmethod
    def open(cls, workspace: Workspace) -> Pack:
        """Open a workspace's pack.

        Raises
        ------
        BadInput
            If the settings are invalid, or there is neither a plan nor a complete pack.
        """
        settings, problems = read(workspace.settings)
        if settings is None:
            raise BadInput(errors(problems))
        return cls(workspace, settings, open_sounds(workspace, settings))

    @cached_property
    def combinations(self) -> dict[str, int]:
        """The number of each combination, by the name of its pad."""
        return {pad_name(names): index for index, names in enumerate(self.settings.combinations)}

    @cached_property
    def recordings(self) -> dict[NoteName, notes.Note]:
        """The source notes that exist, by name."""
        found, _ = notes.find(self.workspace.notes, self.settings)
        return {note.name: note for note in found}

    def recording(self, instrument: str, pitch: int) -> bytes | None:
        """Return a source note as WAV, conformed for the encoder; None if missing or unreadable."""
        note = self.recordings.get(NoteName(unicodedata.normalize("NFC", instrument), pitch))
        conformed = notes.read(note) if note else None
        if conformed is None or errors(conformed.problems):
            return None
        content = io.BytesIO()
        soundfile.write(content, conformed.audio, SAMPLE_RATE, "PCM_16", format="WAV")
        return content.getvalue()

    @cached_property
    def described(self) -> dict[str, Any]:
        """The JSON description of all that generation does not change; `identity` is its digest."""
        settings = self.settings
        merged = synth_settings(settings, self._synth_settings())
        nsynth, audio = merged["nsynth"], merged.get("audio")
        audio = audio if isinstance(audio, dict) else {}
        description = {
            "title": self.workspace.root.resolve().name,
            "sounds": self.sounds.identity,
            "resolution": settings.resolution,
            "pitches": list(settings.pitches),
            "length": settings.final_length,
            "sampleRate": SAMPLE_RATE,
            "outputRate": int(_number(audio.get("sampleRate"), OUTPUT_RATE)),
            "looping": bool(nsynth.get("looping", True)),
            "loopStart": _number(nsynth.get("loopStart"), LOOP[0]),
            "loopEnd": _number(nsynth.get("loopEnd"), LOOP[1]),
            "corners": [
                {"corner": corner, "instruments": [_label(i) for i in listed["instruments"]]}
                for corner, listed in zip(CORNERS, merged["corners"], strict=True)
            ],
            "weights": np.round(corner_weights(settings.resolution), 6).tolist(),
            "notes": {
                name: [
                    pitch for pitch in settings.pitches if NoteName(name, pitch) in self.recordings
                ]
                for name in settings.instruments
            },
        }
        digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
        return {**description, "identity": digest.hexdigest()[:16]}

    def _synth_settings(self) -> dict[str, Any] | None:
        try:
            return read_synth_settings(self.workspace.synth_settings)
        except BadInput:
            return None

    def progress(self, combination: int) -> dict[str, Any]:
        """Return the progress of the pack, and which rows of one of its pads are generated."""
        made = self.sounds.made(combination)
        clips = total = None
        if isinstance(self.sounds, Clips):
            plan = self.sounds.plan
            clips, total = round(clips_done(self.workspace, plan), 1), len(plan.mixes)
        return {
            "identity": self.described["identity"],
            "final": self.sounds.final,
            "clips": clips,
            "total": total,
            "made": "".join(map(str, made.astype(int))),
        }


def _label(listed: dict[str, Any]) -> dict[str, str]:
    return {key: str(listed[key]) for key in ("name", "display", "abbr")}


def _number(value: Any, default: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else default


class Preview:
    """The current pack of a workspace, reopened when its files change.

    Parameters
    ----------
    workspace : Workspace

    Raises
    ------
    BadInput
        If there is no pack to preview.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = Lock()
        self._stamps = self._stamp()
        self._pack = Pack.open(workspace)

    def now(self) -> Pack:
        """Return the current pack.

        Raises
        ------
        BadInput
            If the changed workspace has no pack to preview.
        """
        with self._lock:
            stamps = self._stamp()
            if stamps != self._stamps:
                self._pack = Pack.open(self._workspace)
                self._stamps = stamps
            return self._pack

    def _stamp(self) -> list[tuple[int, int, int] | None]:
        workspace = self._workspace
        return [
            _stamp_of(path)
            for path in (
                workspace.settings,
                workspace.plan,
                workspace.manifest,
                workspace.synth_settings,
                workspace.notes,
            )
        ]


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino)
