"""What the page says of each note: the recording, and what the model made of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
import soundfile

from nsynth_super import notes as source_notes
from nsynth_super.blocks import complete
from nsynth_super.finishing import finish
from nsynth_super.notes import Name, Note, identity
from nsynth_super.plan import BLOCK, Plan
from nsynth_super.problems import BadInput
from nsynth_super.progress import Progress, following
from nsynth_super.report import pictures
from nsynth_super.report.sound import Sound
from nsynth_super.stages.prepare import read_origins
from nsynth_super.tuning import Heard
from nsynth_super.wavenet import mulaw
from nsynth_super.workspace import Workspace

PLAYED = 24
"""Notes that can be listened to: some 200 kB each with a reconstruction. More would be too many."""

_FULL_SCALE = 32768  # of 16 bits


@dataclass(frozen=True)
class Shown:
    """One sound with its pictures.

    Attributes
    ----------
    sound : Sound
    rainbow : str
        SVG; empty where there is nothing to compare it with.
    flac : str
        To listen to; empty where there are too many.
    """

    sound: Sound
    rainbow: str = ""
    flac: str = ""


@dataclass(frozen=True)
class Entry:
    """One note of the page.

    Attributes
    ----------
    heard : Heard
    seconds : float or None
        The recording's length; None if it cannot be read.
    done : list of str
        What was done to the recording.
    picture : str
        SVG: waveform and spectrum.
    recorded : Shown
    generated : Shown or None
        The finished clip of this instrument alone, once there is one.
    """

    heard: Heard
    seconds: float | None
    done: list[str]
    picture: str
    recorded: Shown
    generated: Shown | None


def entries(workspace: Workspace, notes: Sequence[Note], quiet: bool = False) -> list[Entry]:
    """Read, measure and draw every note, with its reconstruction if that is made."""
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
    """The clips that reconstruct notes: those of one instrument alone.

    Attributes
    ----------
    workspace : Workspace
    plan : Plan or None
    clips : dict of Name to int
        Which clip is which note's.
    """

    workspace: Workspace
    plan: Plan | None
    clips: dict[Name, int]

    @classmethod
    def of(cls, workspace: Workspace) -> _Generated:
        """Look the plan through; nothing is reconstructed without one, or of a damaged one."""
        plan = None
        with suppress(BadInput):
            plan = Plan.read(workspace.plan)
        alone = {
            (mix.weights[0][0], mix.pitch): clip
            for clip, mix in enumerate(plan.mixes if plan else [])
            if len(mix.weights) == 1
        }
        return cls(workspace, plan, alone)

    def sound(self, note: Note) -> Sound | None:
        """Return the finished clip of a note; None if it is not made, or of another recording."""
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
