"""Rendering notes of a SoundFont and importing them into a workspace."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from nsynth_super.base.errors import BadInput, Failed
from nsynth_super.base.workspace import Workspace
from nsynth_super.notes import fluidsynth, pitch, soundfont
from tests import tiny_soundfont
from tests.tiny_soundfont import DRUMS, HIGH, LATE, LAYERED, SINE

try:
    fluidsynth.library()
except Failed as missing:
    needs_fluidsynth = pytest.mark.skip(reason=str(missing))
else:
    needs_fluidsynth = pytest.mark.skipif(False, reason="FluidSynth is available")

FLUID_R3 = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
Command = Callable[..., subprocess.CompletedProcess[str]]
MINUS_3_DBFS = 10 ** (-3 / 20)


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> soundfont.SoundFont:
    path = tiny_soundfont.write(tmp_path_factory.mktemp("soundfont") / "tiny.sf2")
    return soundfont.SoundFont(path)


def preset(font: soundfont.SoundFont, place: tuple[int, int]) -> soundfont.Preset:
    return next(p for p in font.presets if (p.bank, p.program) == place)


def played(font: soundfont.SoundFont, place: tuple[int, int], at: int, **options: Any) -> Any:
    note = font.note(preset(font, place), at, **options)
    assert note is not None
    return note


def rms(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(sound**2)))


@needs_fluidsynth
def test_presets_are_listed_by_bank_and_program(font: soundfont.SoundFont):
    assert [str(p) for p in font.presets] == [
        "0:0 Tiny Sine",
        "0:1 Loud=Layers",
        "0:2 Late",
        "8:5 Tiny Sine High",
        "128:0 Kit: Größe 1",
    ]


@needs_fluidsynth
@pytest.mark.parametrize("place", [SINE, DRUMS])
@pytest.mark.parametrize("at", [33, 48, 60, 71, 84, 96])
def test_a_note_has_its_pitch_length_and_level(
    font: soundfont.SoundFont, place: tuple[int, int], at: int
):
    note = played(font, place, at)
    assert (note.dtype, note.shape) == (np.float32, (64_000,))
    heard = pitch.detect(note)
    assert heard is not None
    assert abs(heard - at) < 0.05
    assert np.abs(note).max() == pytest.approx(MINUS_3_DBFS, abs=1e-5)


@needs_fluidsynth
def test_a_note_is_held_for_three_seconds_and_released(font: soundfont.SoundFont):
    note = played(font, SINE, 60)
    assert rms(note[46_400:47_600]) == pytest.approx(rms(note[8_000:9_200]), rel=0.01)
    assert rms(note[56_000:]) < 0.001


@needs_fluidsynth
def test_a_note_begins_at_its_onset(font: soundfont.SoundFont):
    sudden, late = played(font, SINE, 60), played(font, LATE, 60)
    for note in (sudden, late):
        assert np.abs(note[:160]).max() > 0.1
    # Its onset is half a second late, so after trimming it is released half a second earlier.
    assert rms(late[38_400:39_600]) > 0.4
    assert rms(late[48_000:]) < 0.001


@needs_fluidsynth
def test_loud_presets_do_not_clip(font: soundfont.SoundFont):
    """Eight sines far exceed full scale, and clipping would add harmonics."""
    note = played(font, LAYERED, 60, velocity=127)
    spectrum = np.abs(np.fft.rfft(note[8_000:24_000] * np.hanning(16_000)))
    assert spectrum[3 * 262 - 20 : 3 * 262 + 20].max() < 1e-3 * spectrum.max()


@needs_fluidsynth
def test_a_note_does_not_depend_on_the_notes_before_it(font: soundfont.SoundFont):
    first = played(font, SINE, 60)
    played(font, LAYERED, 72)
    assert np.array_equal(played(font, SINE, 60), first)


@needs_fluidsynth
def test_velocity_does_not_change_the_level(font: soundfont.SoundFont):
    for velocity in (1, 127):
        note = played(font, SINE, 60, velocity=velocity)
        assert np.abs(note).max() == pytest.approx(MINUS_3_DBFS, abs=1e-5)


@needs_fluidsynth
def test_all_silent_pitches_are_reported_at_once(font: soundfont.SoundFont):
    high = preset(font, HIGH)
    assert font.note(high, 59) is None
    chosen = {"high": high, "sine": preset(font, SINE)}
    with pytest.raises(BadInput, match="8:5 Tiny Sine High: is silent at MIDI 48, 59 -> "):
        soundfont.play(font, chosen, [48, 59, 60])
    notes = soundfont.play(font, chosen, [48, 59, 60], skip_silent=True)
    assert sorted(notes) == [("high", 60), ("sine", 48), ("sine", 59), ("sine", 60)]
    with pytest.raises(BadInput, match="is silent at MIDI 48"):
        soundfont.play(font, chosen, [48], skip_silent=True)


@needs_fluidsynth
def test_render_returns_the_same_notes_as_an_array(font: soundfont.SoundFont):
    notes = soundfont.render(font.path, 8, 5, [72, 60])
    assert (notes.dtype, notes.shape) == (np.float32, (2, 64_000))
    assert np.array_equal(notes[1], played(font, HIGH, 60))
    assert soundfont.render(font.path, 8, 5, []).shape == (0, 64_000)
    with pytest.raises(BadInput, match="has no preset 8:6"):
        soundfont.render(font.path, 8, 6, [60])


@needs_fluidsynth
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("Tiny Sine", SINE),  # an exact name, although another name contains it
        ("tiny sine", SINE),
        ("high", HIGH),
        ("8:5", HIGH),
        ("128:0", DRUMS),
        ("GRÖSSE", None),
        ("größe", DRUMS),
        (" late ", LATE),
    ],
)
def test_a_preset_is_found_by_name_part_or_number(
    font: soundfont.SoundFont, text: str, place: tuple[int, int] | None
):
    place = place or DRUMS  # case folding turns ß into ss
    assert font.find(text) == preset(font, place)


@needs_fluidsynth
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tiny", "matches 0:0 Tiny Sine, 8:5 Tiny Sine High -> choose one with BANK:PROGRAM"),
        ("tiny sin hig", "has no such preset -> did you mean 'Tiny Sine High'?"),
        ("9:9", "has no such preset"),
        ("", "has no such preset"),
    ],
)
def test_an_unknown_or_ambiguous_preset_is_reported_in_one_line(
    font: soundfont.SoundFont, text: str, says: str
):
    with pytest.raises(BadInput) as bad:
        font.find(text)
    assert says in str(bad.value)
    assert len(bad.value.problems) == 1


@needs_fluidsynth
def test_instruments_are_named_by_the_option_or_the_preset(font: soundfont.SoundFont):
    chosen = soundfont.assigned(
        font,
        ["Tiny Sine", "high=organ_2", "Loud=Layers", "kit=drums", "late"],
        known=["flute", "LATE"],
    )
    assert {name: (p.bank, p.program) for name, p in chosen.items()} == {
        "tiny-sine": SINE,
        "organ_2": HIGH,
        "loud-layers": LAYERED,
        "drums": DRUMS,
        "LATE": LATE,
    }


@needs_fluidsynth
def test_all_problems_with_preset_options_are_reported_at_once(font: soundfont.SoundFont):
    requests = ["tiny", "nothing", "late=a/b", "late=x", "high=x", f"late={'x' * 300}", "late=x"]
    with pytest.raises(BadInput) as bad:
        soundfont.assigned(font, requests)
    lines = [str(problem) for problem in bad.value.problems]
    for words in (
        "matches",
        "has no such preset",
        "'a/b' contains '/'",
        "'x' is already 0:2 Late",
        "too long",
    ):
        assert sum(words in line for line in lines) == 1
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.sfz", b"<region>", "is an SFZ, not a SoundFont 2"),
        ("a.sf2", b"RIFF\0\0\0\0WAVE", "is not a SoundFont 2"),
        ("a.sf2", b"", "is not a SoundFont 2"),
        ("b.sf2", None, "cannot be read"),
    ],
)
def test_a_file_that_is_not_a_soundfont_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes | None, says: str
):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=says):
        soundfont.SoundFont(tmp_path / name)


def test_a_truncated_soundfont_is_refused_in_one_line(tmp_path: Path):
    path = tiny_soundfont.write(tmp_path / "tiny.sf2")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BadInput, match=r"tiny.sf2: is truncated: [\d,]+ of [\d,]+ bytes"):
        soundfont.SoundFont(path)


@needs_fluidsynth
def test_a_damaged_soundfont_is_refused_in_one_line(tmp_path: Path):
    path = tiny_soundfont.write(tmp_path / "tiny.sf2")
    path.write_bytes(path.read_bytes().replace(b"phdr", b"????"))
    with pytest.raises(BadInput, match=r"tiny.sf2: FluidSynth cannot read it"):
        soundfont.SoundFont(path)


@pytest.fixture
def _uncached_library() -> Iterator[None]:
    fluidsynth.library.cache_clear()
    yield
    fluidsynth.library.cache_clear()


@pytest.mark.usefixtures("_uncached_library")
def test_a_missing_pyfluidsynth_is_reported_with_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "fluidsynth", None)
    with pytest.raises(Failed, match="pip install pyfluidsynth"):
        soundfont.SoundFont(tiny_soundfont.write(tmp_path / "tiny.sf2"))


@pytest.mark.usefixtures("_uncached_library")
def test_a_missing_library_is_reported_with_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fails(name: str) -> None:
        raise ImportError("Couldn't find the FluidSynth library.")

    monkeypatch.setattr(importlib, "import_module", fails)
    with pytest.raises(Failed, match="apt install libfluidsynth3"):
        soundfont.SoundFont(tiny_soundfont.write(tmp_path / "tiny.sf2"))


@pytest.fixture
def pack(tmp_path: Path, font: soundfont.SoundFont) -> Workspace:
    """A workspace for four instruments of the tiny SoundFont, without notes."""
    workspace = Workspace(tmp_path / "pack")
    workspace.notes.mkdir(parents=True)
    settings = {
        "pads": {"NW": ["tiny_sine"], "NE": ["late"], "SW": ["organ"], "SE": ["drums"]},
        "pitches": [60, 67],
        "resolution": 3,
        "final_length": 300,
    }
    workspace.settings.write_text(json.dumps(settings), encoding="utf-8")
    return workspace


PRESET_OPTIONS = ("--preset", "tiny sine", "--preset", "late", "--preset", "8:5=organ")


@needs_fluidsynth
def test_notes_of_a_soundfont_pass_check(
    pack: Workspace, font: soundfont.SoundFont, command: Command
):
    done = command("notes", font.path, "-w", pack.root, *PRESET_OPTIONS)
    assert done.returncode == 0, done.stderr
    assert "organ: 8:5 Tiny Sine High, 2 of 2 pitches" in done.stdout
    assert "lists drums, which have no notes yet" in done.stderr
    assert "6 written" in done.stderr
    done = command("notes", font.path, "-w", pack.root, "--preset", "kit", "--as", "drums")
    assert done.stderr == f"notes: 2 written to {pack.notes}\n"
    files = sorted(path.name for path in pack.notes.iterdir())
    assert files == [
        f"{name}_{at}.wav" for name in ("drums", "late", "organ", "tiny_sine") for at in (60, 67)
    ]
    sound = soundfile.info(pack.notes / "organ_67.wav")
    assert (sound.samplerate, sound.frames, sound.channels) == (16_000, 64_000, 1)
    assert sound.subtype == "PCM_16"
    heard = pitch.detect(soundfile.read(pack.notes / "organ_67.wav")[0])
    assert heard is not None
    assert abs(heard - 67) < 0.05
    checked = command("check", "-w", pack.root, "--json")
    assert json.loads(checked.stdout)["problems"] == []

    before = {path: path.stat().st_mtime_ns for path in pack.notes.iterdir()}
    again = command("notes", font.path, "-w", pack.root, *PRESET_OPTIONS)
    assert "notes: 0 written" in again.stderr
    assert "6 already present" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in pack.notes.iterdir()} == before


@needs_fluidsynth
def test_other_recordings_are_replaced_only_with_replace(
    pack: Workspace, font: soundfont.SoundFont, command: Command
):
    existing = pack.notes / "late_67.flac"
    soundfile.write(existing, np.zeros(100), 16_000)
    refused = command("notes", font.path, "-w", pack.root, *PRESET_OPTIONS)
    assert refused.returncode == 2
    assert "audio_input/late_67: another recording exists" in refused.stderr
    assert [path.name for path in pack.notes.iterdir()] == ["late_67.flac"]
    shown = command("notes", font.path, "-w", pack.root, *PRESET_OPTIONS, "--replace", "--dry-run")
    assert "6 would be written" in shown.stderr
    assert [path.name for path in pack.notes.iterdir()] == ["late_67.flac"]
    assert (
        command("notes", font.path, "-w", pack.root, *PRESET_OPTIONS, "--replace").returncode == 0
    )
    assert not existing.exists()
    assert len(list(pack.notes.iterdir())) == 6


@needs_fluidsynth
def test_pitches_outside_a_presets_keys_are_skipped_only_with_skip_silent(
    pack: Workspace, font: soundfont.SoundFont, command: Command
):
    settings = json.loads(pack.settings.read_text())
    pack.settings.write_text(json.dumps({**settings, "pitches": [48, 60]}))
    refused = command("notes", font.path, "-w", pack.root, *PRESET_OPTIONS)
    assert refused.returncode == 2
    assert "8:5 Tiny Sine High: is silent at MIDI 48" in refused.stderr
    assert not list(pack.notes.iterdir())
    done = command("notes", font.path, "-w", pack.root, *PRESET_OPTIONS, "--skip-silent")
    assert done.returncode == 0
    assert "audio_input/organ_48: missing -> fill them in with `run --fill-missing" in done.stderr
    assert '"pitches" in settings.json from 60' in done.stderr


@needs_fluidsynth
def test_an_instrument_in_no_corner_is_reported_unless_quiet(
    pack: Workspace, font: soundfont.SoundFont, command: Command
):
    done = command("notes", font.path, "-w", pack.root, "--preset", "late=flute")
    assert done.returncode == 0
    assert "no corner lists 'flute' -> add it to a corner" in done.stderr
    quiet = command("notes", font.path, "-w", pack.root, "--preset", "late=flute", "-q")
    assert (quiet.stdout, quiet.stderr) == ("", "")


@needs_fluidsynth
@pytest.mark.parametrize("words", [[], ["--list"], ["--list", "--preset", "late"]])
def test_presets_are_listed_without_a_workspace(
    font: soundfont.SoundFont, command: Command, words: list[str], tmp_path: Path
):
    done = command("notes", font.path, *words, cwd=tmp_path, env={"CI": "1"})
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].split() == ["0:0", "Tiny", "Sine"]
    assert len(done.stdout.splitlines()) == len(tiny_soundfont.PRESETS)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["none.sf2"], "none.sf2: does not exist"),
        (["."], ".: is a folder -> add --guess to detect its notes"),
        (["a.sf2", "--guess"], "a.sf2: is a file, but --guess needs a folder"),
        ([".", "--guess", "--preset", "x"], ".: is a folder, but --preset needs a SoundFont"),
        (["a.sf2", "--preset", "x"], "settings.json: file not found"),
        (["a.sf2"], "a.sf2: is not a SoundFont 2"),
        (
            ["a.sf2", "--preset", "x", "--preset", "y", "--as", "z"],
            "--as: names only one instrument",
        ),
    ],
)
def test_mismatched_options_are_reported_in_one_line(
    tmp_path: Path, command: Command, words: list[str], says: str
):
    (tmp_path / "a.sf2").write_bytes(b"RIFF....WAVE")
    done = command("notes", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


@needs_fluidsynth
@pytest.mark.skipif(not FLUID_R3.exists(), reason="fluid-soundfont-gm is not installed")
def test_fluid_r3_plays_in_tune():
    font = soundfont.SoundFont(FLUID_R3)
    assert len(font.presets) == 189
    for name in ("Clarinet", "Marimba", "128:0"):
        assert font.note(font.find(name), 60) is not None
    note = played(font, (0, 71), 48)
    heard = pitch.detect(note)
    assert heard is not None
    assert abs(heard - 48) < 0.05
