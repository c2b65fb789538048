"""Contents of the page for each note: the recording, and its reconstruction by the model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import soundfile

from nsynth_super.base.errors import BadInput
from nsynth_super.base.note_name import NoteName
from nsynth_super.base.workspace import Workspace
from nsynth_super.notes import recordings as source_notes
from nsynth_super.notes.recordings import Note, identity
from nsynth_super.notes.tuning import Heard
from nsynth_super.pack.blocks import complete
from nsynth_super.pack.embeddings import read_origins
from nsynth_super.pack.finishing import finish
from nsynth_super.pack.plan import BLOCK, Plan
from nsynth_super.reports.check_page import pictures
from nsynth_super.reports.check_page.sound import Sound
from nsynth_super.runtime.progress import Progress, following
from nsynth_super.wavenet import mulaw

PLAYED = 24
"""Limit of notes embedded as audio: about 200 kB each with a reconstruction."""

_FULL_SCALE = 32768  # of 16-bit samples


@dataclass(frozen=True)
class Shown:
    """One sound with its pictures.

    Attributes
    ----------
    sound : Sound
    rainbow : str
        SVG; empty without a reconstruction to compare.
    flac : str
        `data:` URL of the audio; empty if there are more than `PLAYED` notes.
    """

    sound: Sound
    rainbow: str = ""
    flac: str = ""


@dataclass(frozen=True)
class Entry:
    """The page's entry for one note.

    Attributes
    ----------
    heard : Heard
    seconds : float or None
        The recording's length; None if it cannot be read.
    done : list of str
        Changes made to the recording to conform it.
    picture : str
        SVG: waveform and spectrum.
    recorded : Shown
    generated : Shown or None
        The finished clip of this instrument alone; None until it is generated.
    """

    heard: Heard
    seconds: float | None
    done: list[str]
    picture: str
    recorded: Shown
    generated: Shown | None


def entries(workspace: Workspace, notes: Sequence[Note], quiet: bool = False) -> list[Entry]:
    """Read, measure and draw every note, with its reconstruction if it is generated."""
    generated = _Generated.of(workspace)
    progress = Progress("check", len(notes), "notes drawn", None, quiet=quiet or not notes)
    out = []
    with following(progress):
        for number, note in enumerate(notes):
            out.append(_entry(note, generated, f"n{number}", len(notes) <= PLAYED))
            progress.advance(1)
    return out


def _entry(note: Note, generated: _Generated, salt: str, played: bool) -> Entry:
    conformed = source_notes.read(note)
    sound, made = Sound.of(conformed.audio), generated.sound(note)
    seconds = None
    with suppress(soundfile.LibsndfileError, OSError, RuntimeError):
        seconds = float(soundfile.info(note.path).duration)
    heard = Heard(note, sound.pitch)
    named = heard.named + note.semitones
    shown = partial(_shown, compared=made is not None, played=played)
    return Entry(
        heard,
        seconds,
        conformed.done,
        pictures.waveform_and_spectrum(sound.audio, named, sound.pitch, salt),
        shown(sound, f"{salt}r"),
        None if made is None else shown(made, f"{salt}g"),
    )


def _shown(sound: Sound, salt: str, compared: bool, played: bool) -> Shown:
    return Shown(
        sound,
        pictures.rainbow(sound.audio, salt) if compared else "",
        sound.as_flac() if played else "",
    )


@dataclass(frozen=True)
class _Generated:
    """The clips that reconstruct notes: mixes of one instrument.

    Attributes
    ----------
    workspace : Workspace
    plan : Plan or None
    clips : dict of NoteName to int
        The clip of each note.
    """

    workspace: Workspace
    plan: Plan | None
    clips: dict[NoteName, int]

    @classmethod
    def of(cls, workspace: Workspace) -> _Generated:
        """Find the clips in the plan: none if it is missing or damaged."""
        plan = None
        with suppress(BadInput):
            plan = Plan.read(workspace.plan)
        alone = {
            NoteName(mix.weights[0][0], mix.pitch): clip
            for clip, mix in enumerate(plan.mixes if plan else [])
            if len(mix.weights) == 1
        }
        return cls(workspace, plan, alone)

    def sound(self, note: Note) -> Sound | None:
        """Return a note's finished clip; None if not generated, or from another recording."""
        clip = self.clips.get(note.name)
        if self.plan is None or clip is None:
            return None
        origin = read_origins(self.workspace).get("_".join(map(str, note.name)), {})
        if origin.get("note") != identity(note):
            return None
        block, place = divmod(clip, BLOCK)
        codes = complete(self.workspace, self.plan, block)
        if codes is None:
            return None
        finished = finish(
            mulaw.decode(np.asarray(codes[place])), int(self.plan.shaping["final_length"])
        )
        return Sound.of(np.asarray(finished / np.float32(_FULL_SCALE), dtype=np.float32))
