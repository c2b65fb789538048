"""What the page is told of a pack: geometry, labels, the device's settings, what is made so far."""

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

from nsynth_super import notes
from nsynth_super.blocks import clips_done
from nsynth_super.device import LOOP, device_settings, read_device_settings
from nsynth_super.grid import corner_weights
from nsynth_super.preview.sounds import Clips, Sounds, open_sounds
from nsynth_super.problems import BadInput, errors
from nsynth_super.settings import CORNERS, SAMPLE_RATE, Settings, pad_name, read
from nsynth_super.workspace import Workspace

OUTPUT_RATE = 48_000  # Hz, of the device's sound card


@dataclass(frozen=True)
class Pack:
    """One pack as it is now; opened anew when its files change.

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
            If its settings are wrong, or there is no plan yet.
        """
        settings, problems = read(workspace.settings)
        if settings is None:
            raise BadInput(errors(problems))
        return cls(workspace, settings, open_sounds(workspace, settings))

    @cached_property
    def combinations(self) -> dict[str, int]:
        """The combinations' numbers by the names of their pads."""
        return {pad_name(names): index for index, names in enumerate(self.settings.combinations)}

    @cached_property
    def recordings(self) -> dict[notes.Name, notes.Note]:
        """The source notes that are there."""
        found, _ = notes.find(self.workspace.notes, self.settings)
        return {note.name: note for note in found}

    def recording(self, instrument: str, pitch: int) -> bytes | None:
        """Return a source note as the encoder hears it, as WAV; None if it cannot be had."""
        note = self.recordings.get((unicodedata.normalize("NFC", instrument), pitch))
        conformed = notes.read(note) if note else None
        if conformed is None or errors(conformed.problems):
            return None
        content = io.BytesIO()
        soundfile.write(content, conformed.audio, SAMPLE_RATE, "PCM_16", format="WAV")
        return content.getvalue()

    @cached_property
    def described(self) -> dict[str, Any]:
        """All that does not change while clips come, as JSON has it; `identity` is of all of it."""
        settings = self.settings
        merged = device_settings(settings, self._device())
        nsynth, audio = merged["nsynth"], merged.get("audio")
        audio = audio if isinstance(audio, dict) else {}
        said = {
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
                name: [pitch for pitch in settings.pitches if (name, pitch) in self.recordings]
                for name in settings.instruments
            },
        }
        digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
        return {**said, "identity": digest.hexdigest()[:16]}

    def _device(self) -> dict[str, Any] | None:
        try:
            return read_device_settings(self.workspace.device_settings)
        except BadInput:
            return None

    def progress(self, combination: int) -> dict[str, Any]:
        """Return how far the pack is, and which rows of one of its pads there are."""
        made = self.sounds.made(combination)
        clips = total = None
        if isinstance(self.sounds, Clips):
            plan = self.sounds.plan
            clips, total = round(clips_done(self.workspace, plan), 1), len(plan.mixes)
        return {
            "identity": self.described["identity"],
            "whole": self.sounds.whole,
            "clips": clips,
            "total": total,
            "made": "".join(map(str, made.astype(int))),
        }


def _label(listed: dict[str, Any]) -> dict[str, str]:
    return {key: str(listed[key]) for key in ("name", "display", "abbr")}


def _number(given: Any, otherwise: float) -> float:
    usable = isinstance(given, int | float) and not isinstance(given, bool)
    return float(given) if usable else otherwise


class Preview:
    """A workspace under way: gives its pack, opened anew whenever its files have changed.

    Parameters
    ----------
    workspace : Workspace

    Raises
    ------
    BadInput
        If there is nothing to preview.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = Lock()
        self._stamps = self._stamp()
        self._pack = Pack.open(workspace)

    def now(self) -> Pack:
        """Return the pack as it is now.

        Raises
        ------
        BadInput
            If it has become something that cannot be previewed.
        """
        with self._lock:
            stamps = self._stamp()
            if stamps != self._stamps:
                self._pack = Pack.open(self._workspace)
                self._stamps = stamps
            return self._pack

    def _stamp(self) -> list[tuple[int, int, int] | None]:
        here = self._workspace
        return [
            _stamp_of(path)
            for path in (here.settings, here.plan, here.manifest, here.device_settings, here.notes)
        ]


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino)
