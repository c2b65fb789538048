"""Finding source notes by name, conforming them and filling gaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from nsynth_super.notes import recordings as notes
from nsynth_super.settings import Settings, inspect
from tests.conftest import SETTINGS, write_note


def settings(**changes: Any) -> Settings:
    found, problems = inspect({**SETTINGS, **changes})
    assert found is not None, problems
    return found


ONE = settings(
    pads={"NW": ["flute"], "NE": ["flute"], "SW": ["flute"], "SE": ["flute"]}, pitches=[60]
)


def read_one(path: Path) -> notes.Conformed:
    return notes.read(notes.Note(("flute", 60), path))


def pitch_of(audio: np.ndarray) -> float:
    """Return the fundamental in Hz, from the interpolated peak of the spectrum."""
    spectrum = np.abs(np.fft.rfft(audio[:16_000] * np.hanning(16_000)))
    k = int(spectrum.argmax())
    a, b, c = np.log(spectrum[k - 1 : k + 2])
    return float(k + (a - c) / (2 * (a - 2 * b + c)))


def test_a_note_in_the_right_format_is_unchanged(tmp_path: Path):
    exact = (np.random.default_rng(0).integers(-20000, 20000, 64_000) / 32768).astype(np.float32)
    soundfile.write(tmp_path / "flute_60.wav", exact, 16_000, "PCM_16")
    conformed = read_one(tmp_path / "flute_60.wav")
    np.testing.assert_array_equal(conformed.audio, exact)
    assert conformed.done == []
    assert conformed.problems == []


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
def test_any_rate_is_resampled_to_16_khz_at_its_pitch(tmp_path: Path, rate: int):
    write_note(tmp_path / "flute_60.wav", 440.0, rate=rate)
    conformed = read_one(tmp_path / "flute_60.wav")
    assert conformed.audio.shape == (64_000,)
    assert pitch_of(conformed.audio) == pytest.approx(440.0, abs=0.05)
    assert f"resampled from {rate:,} Hz" in conformed.done


@pytest.mark.parametrize(
    ("ending", "subtype"),
    [("wav", "PCM_24"), ("flac", "PCM_16"), ("aiff", "PCM_16"), ("ogg", "VORBIS")],
)
def test_any_format_of_libsndfile_is_read(tmp_path: Path, ending: str, subtype: str):
    t = np.arange(4 * 44_100) / 44_100
    tone = 0.5 * np.sin(2 * np.pi * 330 * t)
    soundfile.write(tmp_path / f"flute_60.{ending}", np.stack([tone, tone], 1), 44_100, subtype)
    found, problems = notes.find(tmp_path, ONE)
    assert not problems
    conformed = notes.read(found[0])
    assert pitch_of(conformed.audio) == pytest.approx(330.0, abs=0.1)
    assert "mixed down from 2 channels" in conformed.done


@pytest.mark.parametrize("channels", [2, 3, 6])
def test_channels_are_mixed_down_to_their_mean(tmp_path: Path, channels: int):
    samples = np.random.default_rng(0).integers(-20000, 20000, (64_000, channels))
    sound = (samples / 32768).astype(np.float32)
    soundfile.write(tmp_path / "flute_60.wav", sound, 16_000, "PCM_16")
    mono = sound.astype(np.float64).mean(axis=1).astype(np.float32)
    np.testing.assert_array_equal(read_one(tmp_path / "flute_60.wav").audio, mono)


def test_short_notes_are_padded_and_long_ones_trimmed_with_a_report(tmp_path: Path):
    write_note(tmp_path / "a_60.wav", 440, seconds=1.5)
    write_note(tmp_path / "b_60.wav", 440, seconds=6.0)
    short, long = read_one(tmp_path / "a_60.wav"), read_one(tmp_path / "b_60.wav")
    assert short.done == ["padded from 1.50 s"]
    assert not short.audio[24_000:].any()
    assert long.done == ["trimmed from 6.00 s"]
    assert len(long.audio) == 64_000


def test_only_the_start_of_a_long_file_is_read(tmp_path: Path):
    path = tmp_path / "flute_60.wav"
    with soundfile.SoundFile(path, "w", 48_000, 1, "PCM_U8") as file:
        for _ in range(60):
            file.write(np.full(48_000 * 60, 0.25))
    before = notes.soundfile.SoundFile.read
    frames = []

    def counting(self: Any, count: int, **options: Any) -> Any:
        frames.append(count)
        return before(self, count, **options)

    notes.soundfile.SoundFile.read = counting
    try:
        read_one(path)
    finally:
        notes.soundfile.SoundFile.read = before
    assert frames[0] < 5 * 48_000


@pytest.mark.parametrize(
    ("audio", "says"),
    [
        (np.zeros(64_000), "silent"),
        (np.full(64_000, np.nan), "NaN"),
        (np.full(64_000, np.inf), "NaN or infinity"),
        (np.zeros(0), "silent"),
        (np.stack([np.ones(64_000), -np.ones(64_000)], 1) * 0.5, "silent"),
    ],
)
def test_silent_and_invalid_samples_are_reported(tmp_path: Path, audio: np.ndarray, says: str):
    soundfile.write(tmp_path / "flute_60.wav", audio, 16_000, "FLOAT")
    assert says in str(read_one(tmp_path / "flute_60.wav").problems[0])


def test_a_file_that_is_not_a_sound_is_reported(tmp_path: Path):
    (tmp_path / "flute_60.wav").write_bytes(b"not a sound")
    assert "cannot be read" in str(read_one(tmp_path / "flute_60.wav").problems[0])


def test_full_scale_is_clipped_below_the_missing_code(tmp_path: Path):
    soundfile.write(tmp_path / "flute_60.wav", np.full(64_000, 1.5), 16_000, "FLOAT")
    conformed = read_one(tmp_path / "flute_60.wav")
    assert conformed.audio.max() < 1.0
    assert "clipped at 64,000 samples" in conformed.done
    assert conformed.problems[0].level == "warning"


def test_underscores_belong_to_the_instrument(tmp_path: Path):
    """The original scripts read acoustic_guitar_24 as the instrument acoustic."""
    write_note(tmp_path / "acoustic_guitar_60.wav", 440)
    wanted = settings(pads={c: ["acoustic_guitar"] for c in ("NW", "NE", "SW", "SE")}, pitches=[60])
    found, problems = notes.find(tmp_path, wanted)
    assert [note.name for note in found] == [("acoustic_guitar", 60)]
    assert not problems


@pytest.mark.parametrize("name", ["windfx", "wave", "vox", "a.wav"])
def test_every_letter_of_a_name_is_kept(tmp_path: Path, name: str):
    """Magenta's strip('.wav') turned windfx into indfx."""
    write_note(tmp_path / f"{name}_60.wav", 440)
    wanted = settings(pads={c: [name] for c in ("NW", "NE", "SW", "SE")}, pitches=[60])
    assert notes.find(tmp_path, wanted)[0][0].name == (name, 60)


def test_all_problems_are_listed_at_once(tmp_path: Path):
    for file in (
        "flute_48.wav",
        "flute_48.flac",
        "flute.wav",
        "oboe_200.wav",
        "flutes_60.wav",
        "old_60.wav",
    ):
        write_note(tmp_path / file, 440)
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / ".DS_Store").write_text("")
    _, problems = notes.find(tmp_path, settings())
    text = "\n".join(map(str, problems))
    assert "flute_48.wav: is the same note as flute_48.flac" in text
    assert "flute.wav: the name has no instrument and MIDI pitch" in text
    assert "oboe_200.wav: the name has no instrument and MIDI pitch" in text
    assert "flute_60: missing" in text
    assert "oboe_{48,60}: missing" in text
    assert "viola_{48,60}: missing" in text
    assert "old_*: is in no corner" in text
    assert "readme.txt" in text
    assert ".DS_Store" not in text


def test_a_misspelt_instrument_gets_a_suggestion(tmp_path: Path):
    write_note(tmp_path / "flut_60.wav", 440)
    _, problems = notes.find(tmp_path, ONE)
    assert "is it the instrument 'flut'?" in str(problems[0])


def test_a_missing_folder_is_one_problem(tmp_path: Path):
    _, problems = notes.find(tmp_path / "none", ONE)
    assert len(problems) == 1


def test_gaps_are_filled_from_the_nearest_pitch(tmp_path: Path):
    wanted = settings(pads={c: ["flute"] for c in ("NW", "NE", "SW", "SE")}, pitches=[48, 60, 63])
    write_note(tmp_path / "flute_60.wav", 261.63)
    by_pitch = {n.name[1]: n for n in notes.find(tmp_path, wanted, "repitch")[0]}
    assert by_pitch[60].filled_from is None
    for pitch, frequency in ((48, 130.815), (63, 311.13)):
        conformed = notes.read(by_pitch[pitch])
        assert pitch_of(conformed.audio) == pytest.approx(frequency, abs=0.2)
        assert "filled in from pitch 60, re-pitched" in conformed.done[0]
    repeated = {n.name[1]: n for n in notes.find(tmp_path, wanted, "repeat")[0]}
    assert pitch_of(notes.read(repeated[48]).audio) == pytest.approx(261.63, abs=0.1)
    assert notes.identity(repeated[48]) != notes.identity(by_pitch[48])


def test_an_instrument_without_any_note_is_never_filled(tmp_path: Path):
    write_note(tmp_path / "flute_60.wav", 440)
    _, problems = notes.find(tmp_path, settings(), "repeat")
    assert any("oboe" in str(problem) and problem.level == "error" for problem in problems)
