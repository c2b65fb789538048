"""Detecting notes by file name and pitch, and importing them into a workspace."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from nsynth_super.base.errors import BadInput
from nsynth_super.base.note_name import NoteName
from nsynth_super.base.workspace import Workspace
from nsynth_super.notes import importing, instrument_names
from nsynth_super.notes.filenames import Guess, guess, read
from nsynth_super.notes.pitch import frequency
from nsynth_super.settings import inspect
from tests.conftest import SETTINGS, write_note

Command = Callable[..., subprocess.CompletedProcess[str]]


def record(folder: Path, **pitches: float) -> Path:
    return record_all(folder, pitches)


def record_all(folder: Path, pitches: dict[str, float]) -> Path:
    """Write a tone for each file name, at its MIDI pitch."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, pitch in pitches.items():
        write_note(folder / f"{name}.wav", frequency(pitch), seconds=1.0)
    return folder


def names(found: Guess) -> dict[str, str]:
    return {path.stem: f"{name[0]}_{name[1]}" for name, path in found.taken.items()}


@pytest.mark.parametrize(
    ("stem", "pitches", "rest", "velocity"),
    [
        ("C3", [48], "", 100),
        ("A#4", [70], "", 100),
        ("a♯4", [70], "", 100),
        ("Bb2", [46], "", 100),
        ("B♭2", [46], "", 100),
        ("bb2", [46], "", 100),
        ("b2", [47], "", 100),
        ("Eb5", [75], "", 100),
        ("Fs3", [54], "", 100),
        ("Cb4", [59], "", 100),
        ("B#3", [60], "", 100),
        ("C-1", [0], "", 100),
        ("C-2", [-12], "", 100),
        ("G9", [127], "", 100),
        ("C10", [132], "", 100),
        ("piano-C4-mf", [60], "piano", 80),
        ("Piano.ff.Db4", [61], "Piano", 112),
        ("PianoC4", [60], "Piano", 100),
        ("AltoSax Bb3", [58], "AltoSax", 100),
        ("acoustic_guitar_E2", [40], "acoustic_guitar", 100),
        ("D#1v16", [27], "", 16),
        ("piano C4 vel 64", [60], "piano", 64),
        ("C4_rr2", [60], "", 100),
        ("C4-02", [60], "", 100),
        ("C4pp", [60], "", 33),
        ("60", [60], "", 100),
        ("piano_060", [60], "piano", 100),
        ("piano_060_p", [60], "piano", 49),
        ("piano 60 v127", [60], "piano", 127),
        ("guitar_acoustic_001-082-050", [82], "guitar_acoustic_001", 50),
        ("juno-106-060", [106, 60], "juno-106", 100),
        ("hammond-B3-C4", [59, 60], "hammond-B3", 100),
        ("kick", [], None, 100),
        ("C", [], None, 100),
        ("A440", [], None, 100),
        ("cab4", [], None, 100),
        ("tone 48000", [], None, 100),
        ("loop 128", [], None, 100),
        ("H3", [], None, 100),
    ],
)
def test_a_file_name_gives_notes_instrument_and_velocity(
    stem: str, pitches: list[int], rest: str | None, velocity: int
):
    readings, found_velocity = read(stem)
    assert [reading.pitch for reading in readings] == pitches
    assert found_velocity == velocity
    if rest is not None:
        assert readings[-1].rest.strip(" -_.") == rest


@pytest.mark.parametrize(("middle_c", "shift"), [("C3", 12), ("C4", 0), ("C5", -12)])
def test_the_name_of_middle_c_is_detected_from_the_pitches(
    tmp_path: Path, middle_c: str, shift: int
):
    """Programs disagree by one or two octaves about the same note name."""
    written = {"C3": 48, "A#3": 58, "Bb4": 70, "E5": 76}
    record_all(tmp_path / "harp", {name: pitch + shift for name, pitch in written.items()})
    found = guess(tmp_path / "harp")
    assert found.middle_c == middle_c
    assert found.because == "matches the pitch of 4 of 4 recordings"
    assert names(found) == {name: f"harp_{pitch + shift}" for name, pitch in written.items()}
    assert found.problems == []


def test_the_majority_decides_and_other_recordings_get_a_warning(tmp_path: Path):
    record(tmp_path / "harp", C3=60, D3=62, E3=64, F3=53, G3=56.4)
    found = guess(tmp_path / "harp")
    assert (found.middle_c, found.because) == ("C3", "matches the pitch of 3 of 4 recordings")
    assert names(found)["F3"] == "harp_65"
    assert [str(problem) for problem in found.problems] == [
        "F3.wav: is named MIDI 65, but sounds -12.0 semitones from it"
        " -> listen to it, and rename it if the name is wrong",
        "G3.wav: is named MIDI 67, but sounds -10.6 semitones from it"
        " -> listen to it, and rename it if the name is wrong",
    ]


@pytest.mark.parametrize("pitches", [{"C3": 60, "D4": 62}, {"C3": None}])
def test_c4_is_assumed_if_the_pitches_are_inconclusive(tmp_path: Path, pitches: dict[str, Any]):
    folder = tmp_path / "drum"
    record_all(folder, {name: at for name, at in pitches.items() if at is not None})
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000)
    soundfile.write(folder / "E3.wav", noise, 16_000)
    found = guess(folder)
    assert found.middle_c == "C4"
    assert "assumed" in found.because
    assert names(found)["E3"] == "drum_52"
    forced = guess(folder, middle_c="C5")
    assert (forced.middle_c, forced.because) == ("C5", "from --middle-c")
    assert names(forced)["E3"] == "drum_40"


def test_midi_numbers_do_not_depend_on_middle_c(tmp_path: Path):
    found = guess(record_all(tmp_path / "harp", {"060": 60, "harp_72": 72}))
    assert names(found) == {"060": "harp_60", "harp_72": "harp_72"}
    assert "MIDI numbers" in found.because
    assert names(guess(tmp_path / "harp", middle_c="C3")) == names(found)


def test_the_pitch_resolves_ambiguous_names(tmp_path: Path):
    recordings = {
        "juno-106-060": 60,
        "juno-106-062": 62,
        "hammond-B3-C4": 60,
        "01 harp 64 44": 64,
        "noise 64 44": 50,
    }
    found = guess(record_all(tmp_path / "mixed", recordings))
    assert {path.stem: name[1] for name, path in found.taken.items()} == {
        "juno-106-060": 60,
        "juno-106-062": 62,
        "hammond-B3-C4": 60,
        "01 harp 64 44": 64,
    }
    why_not = {each.path.stem: each.why_not for each in found.recordings}
    assert why_not["noise 64 44"] == "ambiguous: 64 or 44"


def test_numbers_in_every_name_belong_to_the_instrument(tmp_path: Path):
    found = guess(record_all(tmp_path / "a", {"juno-106-060": 60, "juno-106-062": 62}))
    assert set(names(found).values()) == {"juno-106_60", "juno-106_62"}
    found = guess(record_all(tmp_path / "b", {"01 - harp C4": 60, "02 - harp D4": 62}))
    assert set(names(found).values()) == {"harp_60", "harp_62"}


def test_numbers_that_distinguish_known_instruments_are_kept(tmp_path: Path):
    nsynth_names = {"bass_synthetic_068-036-100": 36, "bass_synthetic_098-040-100": 40}
    found = guess(record_all(tmp_path / "nsynth", nsynth_names))
    assert set(names(found).values()) == {"bass_synthetic_068_36", "bass_synthetic_098_40"}
    synths = record_all(tmp_path / "synths", {"synth-1-C4": 60, "synth-2-E4": 64})
    found = guess(synths, known=["synth-1", "synth-2"])
    assert set(names(found).values()) == {"synth-1_60", "synth-2_64"}


def test_ignored_numbers_that_seem_to_distinguish_instruments_get_a_warning(tmp_path: Path):
    tones = {"synth-1-C4": 60, "synth-1-D4": 62, "synth-2-E4": 64, "synth-2-F4": 65}
    found = guess(record_all(tmp_path / "synths", tones))
    [warning] = map(str, found.problems)
    expected = "synth: combines recordings with different numbers in their names (1"
    assert warning.startswith(expected)
    takes = {"C4-1": 60, "D4-1": 62, "C4-2": 60, "D4-2": 62}
    assert guess(record_all(tmp_path / "takes", takes)).problems == []
    counted = {"01 C4": 60, "02 D4": 62, "03 E4": 64}
    assert guess(record_all(tmp_path / "counted", counted)).problems == []


def test_several_instruments_get_the_spelling_of_the_settings(tmp_path: Path):
    recordings = {"Tin Drum C4": 60, "flute-C4": 60, "FLUTE-D4": 62, "E4": 64, "Émile D4": 62}
    found = guess(record_all(tmp_path / "My Sounds", recordings), known=["tin_drum", "viola"])
    assert names(found) == {
        "Tin Drum C4": "tin_drum_60",
        "flute-C4": "flute_60",
        "FLUTE-D4": "flute_62",
        "E4": "my-sounds_64",
        "Émile D4": "emile_62",
    }
    found = guess(tmp_path / "My Sounds", instrument="all_of_it")
    assert sorted(found.taken) == [("all_of_it", 60), ("all_of_it", 62), ("all_of_it", 64)]


@pytest.mark.parametrize(
    ("velocity", "taken"), [(100, "C4-f"), (80, "C4-mf"), (1, "C4-pp"), (127, "C4-ff-rr1")]
)
def test_the_take_closest_to_the_velocity_is_used(tmp_path: Path, velocity: int, taken: str):
    takes = dict.fromkeys(("C4-pp", "C4-mf", "C4-f", "C4-ff-rr1", "C4-ff-rr2"), 60)
    found = guess(record_all(tmp_path / "harp", takes), velocity=velocity)
    assert names(found) == {taken: "harp_60"}
    others = [each.why_not for each in found.recordings if each.name is None]
    assert others == [f"{taken}.wav is used instead"] * 4


def test_recordings_that_cannot_be_imported_have_a_reason(tmp_path: Path):
    folder = record_all(tmp_path / "harp", {"C4": 60, "kick": 40, "日本 D4": 62})
    (folder / "E4.wav").write_bytes(b"no sound")
    soundfile.write(folder / "F4.wav", np.zeros(16_000), 16_000)
    write_note(folder / "G10.wav", 440)
    (folder / "readme.txt").write_text("hello")
    (folder / ".hidden.wav").write_text("")
    (folder / "more").mkdir()
    found = guess(folder)
    assert names(found) == {"C4": "harp_60"}
    why_not = {each.path.stem: each.why_not for each in found.recordings}
    assert why_not.pop("E4").startswith("cannot be read")
    assert why_not == {
        "C4": "",
        "kick": "no note in the name",
        "日本 D4": "no usable instrument name",
        "F4": "the first four seconds are silent",
        "G10": "MIDI 139 is out of range",
    }


def test_a_folder_without_usable_recordings_is_refused(tmp_path: Path):
    with pytest.raises(BadInput, match="contains no sound files"):
        guess(tmp_path)
    with pytest.raises(BadInput, match="cannot be read"):
        guess(tmp_path / "none")
    record(tmp_path, kick=40, snare=50)
    with pytest.raises(BadInput, match=r"no recording can be used: no note in the name \(2\)"):
        guess(tmp_path)


def test_a_folder_is_imported_as_notes_that_pass_check(
    tmp_path: Path, make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    shutil.rmtree(workspace.notes)
    source = tmp_path / "samples"
    for name in ("flute", "Oboe", "tin drum", "viola"):
        # Middle C is C3 here: 48 is C2, 60 is C3.
        record_all(source, {f"{name}-C2-mf": 48, f"{name}-C3-mf": 60, f"{name}-C3-pp": 60.1})
    before = {path: path.read_bytes() for path in source.iterdir()}
    shown = command("notes", source, "--guess", "-w", workspace.root, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "8 would be written" in shown.stderr
    assert not workspace.notes.exists()
    done = command("notes", source, "--guess", "-w", workspace.root)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["file", "note", "MIDI", "heard", "becomes"]
    row = next(line for line in lines if line.startswith("tin drum-C3-mf.wav"))
    assert row.split()[2:] == ["C3", "60", "60", "+0", "cents", "tin_drum_60.wav"]
    assert lines[-1] == "middle C (MIDI 60) is C3: matches the pitch of 12 of 12 recordings"
    assert {path: path.read_bytes() for path in source.iterdir()} == before
    copied = workspace.notes / "oboe_60.wav"
    assert copied.read_bytes() == (source / "Oboe-C3-mf.wav").read_bytes()
    checked = command("check", "-w", workspace.root, "--json")
    assert json.loads(checked.stdout)["problems"] == []

    again = command("notes", source, "--guess", "-w", workspace.root)
    assert "0 written" in again.stderr
    refused = command("notes", source, "--guess", "-w", workspace.root, "--velocity", 33)
    assert refused.returncode == 2
    assert "audio_input/oboe_60: another recording exists" in refused.stderr
    words = ("--velocity", 33, "--replace")
    assert command("notes", source, "--guess", "-w", workspace.root, *words).returncode == 0
    assert copied.read_bytes() == (source / "Oboe-C3-pp.wav").read_bytes()


def test_an_import_reports_what_is_still_missing(
    tmp_path: Path, make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    shutil.rmtree(workspace.notes)
    source = record_all(tmp_path / "samples", {"flute C4": 60, "flute D4": 62, "harp C4": 60})
    done = command("notes", source, "--guess", "-w", workspace.root)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert (
        "note: audio_input/flute_48: missing -> fill them in with `run --fill-missing repitch`, "
        'or choose "pitches" in settings.json from 60'
    ) in lines
    assert any("no corner lists 'harp'" in line for line in lines)
    assert any("lists oboe, tin_drum, viola, which have no notes yet" in line for line in lines)


def test_the_workspaces_audio_input_is_refused_as_a_source(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    done = command("notes", workspace.notes, "--guess", "-w", workspace.root)
    assert done.returncode == 2
    assert "is the workspace's audio_input, where --guess writes" in done.stderr


def test_an_instrument_name_that_no_file_can_have_is_refused(
    tmp_path: Path, make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    source = record(tmp_path / "samples", C4=60)
    done = command("notes", source, "--guess", "-w", workspace.root, "--as", "a/b")
    assert done.returncode == 2
    assert "--as: 'a/b' contains '/'" in done.stderr
    assert instrument_names.problem_of_name("x" * 250, "there") is not None
    assert instrument_names.problem_of_name("x" * 240, "there") is None


def test_a_recording_with_another_ending_is_replaced(tmp_path: Path):
    record(tmp_path, flute_60=60)
    content = (tmp_path / "flute_60.wav").read_bytes()
    new = importing.Arrival(NoteName("flute", 60), ".flac", b"a sound")
    with pytest.raises(BadInput, match="audio_input/flute_60: another recording exists"):
        importing.add(tmp_path, [new], replace=False)
    assert (tmp_path / "flute_60.wav").read_bytes() == content
    assert importing.add(tmp_path, [new], replace=True) == [tmp_path / "flute_60.flac"]
    assert [path.name for path in tmp_path.iterdir()] == ["flute_60.flac"]


def test_pitches_are_listed_as_ranges(tmp_path: Path):
    found, _ = inspect({**SETTINGS, "pitches": [40, 60]})
    assert found is not None
    arrived = [("flute", pitch) for pitch in (48, 49, 50, 60)]
    text = "\n".join(map(str, importing.advice(found, tmp_path, arrived)))
    assert "audio_input/flute_40: missing" in text
    assert "from 48-50, 60" in text
