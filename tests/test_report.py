"""check --plots: a page of every note that loads nothing."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from nsynth_super.base.files import write_array
from nsynth_super.base.workspace import Workspace
from nsynth_super.demo import copy_workspace
from nsynth_super.notes.pitch import frequency
from nsynth_super.notes.recordings import Note
from nsynth_super.notes.recordings import read as read_note
from nsynth_super.pack.blocks import complete
from nsynth_super.pack.finishing import PEAK
from nsynth_super.pack.plan import BLOCK, Plan
from nsynth_super.reports import check
from nsynth_super.reports.check_page import entries as report_entries
from nsynth_super.reports.check_page import rainbowgram as rainbows
from nsynth_super.reports.check_page import write_check_page
from nsynth_super.reports.check_page.pictures import (
    POINTS,
    QUIETEST,
    outline,
    spectrum,
    waveform_and_spectrum,
)
from nsynth_super.reports.check_page.rainbowgram import HOP, ROWS, constant_q, rainbowgram, row
from nsynth_super.reports.check_page.sound import Sound
from nsynth_super.settings import read
from nsynth_super.stages import prepare
from nsynth_super.wavenet import mulaw
from tests.commands import nsynth_super
from tests.conftest import write_note

Command = Callable[..., subprocess.CompletedProcess[str]]

_VOID = {"meta", "br", "img", "link"}


class Page(HTMLParser):
    """A parsed page; its elements must be properly nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.pictures: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self._open.append(tag)
        self._take(tag, dict(attrs))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._take(tag, dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def _take(self, tag: str, attributes: dict[str, str | None]) -> None:
        self.tags.append(tag)
        self.ids += [attributes["id"] or ""] if "id" in attributes else []
        self.pictures += [attributes["aria-label"] or ""] if attributes.get("role") == "img" else []
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            self.addresses += [attributes[name] or ""] if name in attributes else []


def tone(hertz: float, seconds: float = 4.0, level: float = 0.5) -> Any:
    t = np.arange(int(seconds * 16_000)) / 16_000
    return (level * np.sin(2 * np.pi * hertz * t)).astype(np.float32)


@pytest.fixture(scope="module")
def engine(small_checkpoint: Path) -> Any:
    """The small model, with its speed given instead of measured."""
    from nsynth_super.engines.opening import open_engine

    opened = open_engine(small_checkpoint)
    opened.measure = lambda clips, seconds=0.0: 0.001 * clips  # type: ignore[method-assign]
    opened.measure_encoder = lambda: 0.0  # type: ignore[method-assign]
    return opened


@pytest.fixture
def examples(tmp_path: Path) -> Workspace:
    """A workspace of the bundled notes."""
    workspace = Workspace(tmp_path / "examples")
    copy_workspace(workspace.root)
    return workspace


def checked(workspace: Workspace, engine: Any, **options: Any) -> tuple[list[str], Page]:
    """Check a workspace; return its problems and the page."""
    report = check.check_workspace(workspace, lambda: engine, **options)
    assert write_check_page(workspace, report, quiet=True) == workspace.root / "check.html"
    page = Page(workspace.report.read_text(encoding="utf-8"))
    return [str(problem) for problem in report.problems], page


def renamed(workspace: Workspace, by: int, only: str = "*") -> None:
    """Add `by` semitones to the pitches of file names."""
    paths = sorted(workspace.notes.glob(f"{only}.flac"), reverse=by > 0)
    for path in paths:
        instrument, pitch = path.stem.rsplit("_", 1)
        path.rename(path.with_stem(f"{instrument}_{int(pitch) + by}"))


def generated(workspace: Workspace, engine: Any) -> None:
    """Plan, and write blocks in which the clips of single instruments equal their notes."""
    settings = read(workspace.settings)[0]
    assert settings is not None
    prepare.run_prepare(workspace, settings, engine, quiet=True)
    plan = Plan.read(workspace.plan)
    assert plan is not None
    for block in range(plan.blocks):
        codes = np.full((len(plan.clips_of(block)), plan.samples), mulaw.ZERO, dtype=np.uint8)
        for place, clip in enumerate(plan.clips_of(block)):
            mix = plan.mixes[clip]
            name = (mix.weights[0][0], mix.pitch)
            if len(mix.weights) == 1:
                path = workspace.notes / f"{name[0]}_{name[1]}.flac"
                codes[place] = mulaw.encode(read_note(Note(name, path)).audio)[: plan.samples]
        write_array(workspace.block(block, plan.block_identity(block)), codes)


def test_page_shows_every_note_and_loads_nothing(examples: Workspace, engine: Any):
    problems, page = checked(examples, engine)
    assert problems == []
    names = sorted(path.stem.replace("_", " ") for path in examples.notes.iterdir())
    assert [label.partition(":")[0] for label in page.pictures] == names
    assert all("waveform and spectrum" in label for label in page.pictures)
    assert page.tags.count("svg") == page.tags.count("audio") == len(names) == 12
    assert "script" not in page.tags
    assert {address.partition(":")[0][:1] for address in page.addresses} == {"#", "d"}
    assert all(a[0] == "#" or a.startswith("data:audio/flac;base64,") for a in page.addresses)
    text = examples.report.read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"'<)]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses if address[0] == "#"} <= set(page.ids)
    assert "None: ready to run." in page.words
    assert "75 clips · 1 pad · 3.9 MB on disk" in page.words
    assert "cents off the file name" in page.words
    assert "rainbowgram" not in page.words
    assert len(text) < 2_000_000


def test_table_has_level_pitch_and_cents(make_workspace: Any, engine: Any):
    workspace = make_workspace()
    soundfile.write(workspace.notes / "flute_60.wav", tone(frequency(60.12), 2.5, 0.25), 16_000)
    problems, page = checked(workspace, engine)
    assert problems == []
    line = re.search(r"flute 60\s+2.50\s+−12.0\s+−15.[01]\s+60.12\s+\+12\s+padded", page.words)
    assert line, page.words


@pytest.mark.slow
def test_page_is_reproducible(examples: Workspace, engine: Any):
    checked(examples, engine)
    before = examples.report.read_bytes()
    checked(examples, engine)
    assert examples.report.read_bytes() == before


@pytest.mark.slow
def test_note_named_an_octave_off_is_a_warning(examples: Workspace, engine: Any):
    (examples.notes / "cello_60.flac").unlink()
    shutil.copy(examples.notes / "cello_48.flac", examples.notes / "cello_60.flac")
    problems, page = checked(examples, engine)
    assert problems == [
        "audio_input/cello_60.flac: sounds 12 semitones lower than its file name says"
        " -> if it is cello_48, rename it (middle C is 60)"
    ]
    assert problems[0] in page.words
    assert "−1201 ⚠" in page.words


@pytest.mark.slow
def test_all_notes_named_an_octave_off_are_one_warning(examples: Workspace, engine: Any):
    renamed(examples, 12)
    settings = json.loads(examples.settings.read_text())
    settings["pitches"] = [pitch + 12 for pitch in settings["pitches"]]
    examples.settings.write_text(json.dumps(settings))
    problems, page = checked(examples, engine)
    assert problems == [
        "audio_input: every note sounds 12 semitones lower than its file name says"
        " -> if middle C is not 60 in your names, subtract 12 from the numbers"
    ]
    assert page.words.count("⚠") == 12


def test_noise_has_no_pitch_and_no_warning(make_workspace: Any, engine: Any):
    workspace = make_workspace()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 64_000)
    for pitch in (48, 60):
        soundfile.write(workspace.notes / f"tin_drum_{pitch}.wav", noise, 16_000)
    problems, page = checked(workspace, engine)
    assert problems == []
    assert re.search(r"tin_drum 60\s+4.00\s+−6.0\s+−10.\d\s+—\s+—", page.words)


@pytest.mark.slow
def test_filled_in_note_is_shown_without_a_warning(examples: Workspace, engine: Any):
    (examples.notes / "marimba_72.flac").unlink()
    problems, page = checked(examples, engine, fill="repeat")
    assert problems == []
    assert "filled in from pitch 60" in page.words
    assert "marimba 72" in page.words


@pytest.mark.parametrize("content", [b"no sound", b""])
def test_unreadable_note_is_on_the_page(content: bytes, make_workspace: Any, engine: Any):
    workspace = make_workspace()
    (workspace.notes / "oboe_48.wav").write_bytes(content)
    problems, page = checked(workspace, engine)
    assert len(problems) == 1
    assert "cannot be read" in problems[0]
    assert problems[0] in page.words
    assert re.search(r"oboe 48\s+—\s+—\s+—\s+—\s+—", page.words)


def test_page_without_settings_shows_the_problems(tmp_path: Path, engine: Any):
    workspace = Workspace(tmp_path)
    workspace.settings.write_text("{")
    problems, page = checked(workspace, engine)
    assert problems[0] in page.words
    assert "table" not in page.tags


def test_names_are_escaped(make_workspace: Any, engine: Any):
    name = "a&amp;'b ¡ü"
    pads = {"NW": [name], "NE": ["oboe"], "SW": ["tin_drum"], "SE": ["viola"]}
    workspace = make_workspace("<script>alert(1)<", pads=pads)
    write_note(workspace.notes / "<script>alert(1)<.wav", 440.0)
    problems, page = checked(workspace, engine)
    assert len(problems) == 1
    assert "audio_input/<script>alert(1)<.wav: the name has no" in problems[0]
    assert problems[0] in page.words
    assert "script" not in page.tags
    assert page.pictures[0].startswith(f"{name} 48: waveform")
    assert f"{name} 48" in page.words


@pytest.mark.slow
def test_generated_clips_are_shown_beside_their_notes(examples: Workspace, engine: Any):
    generated(examples, engine)
    problems, page = checked(examples, engine)
    assert problems == []
    assert page.tags.count("svg") == page.tags.count("image") + 12 == 36
    for what in ("note", "reconstruction"):
        assert f"cello 48: rainbowgram of {what}" in page.pictures
        assert f"{what} · peak" in " ".join(page.words.split())
    assert page.tags.count("audio") == 24
    assert len(page.ids) == len(set(page.ids))
    sounds = [address for address in page.addresses if address.startswith("data:audio")]
    clip, rate = soundfile.read(io.BytesIO(base64.b64decode(sounds[1].partition(",")[2])))
    assert (len(clip), rate) == (16_000, 16_000)
    assert np.abs(clip).max() <= (PEAK + 1) / 32768
    # A perfect reconstruction has the note's pitch and the pad's level.
    again = r"reconstruction · peak −1\d\.\d dBFS · loudness −\d\d\.\d dBFS · pitch (\S+)"
    pitches = [float(pitch) for pitch in re.findall(again, " ".join(page.words.split()))]
    assert pitches == pytest.approx([48, 60, 72] * 4, abs=0.2)


@pytest.mark.slow
def test_only_clips_of_these_recordings_are_shown(examples: Workspace, engine: Any):
    generated(examples, engine)
    shutil.copy(examples.notes / "cello_60.flac", examples.notes / "cello_48.flac")
    problems, page = checked(examples, engine)
    assert any("another recording of cello_48" in problem for problem in problems)
    assert not any("cello 48: rainbowgram" in label for label in page.pictures)
    assert any("cello 60: rainbowgram" in label for label in page.pictures)


@pytest.mark.slow
def test_available_clips_of_an_incomplete_pack_are_shown(examples: Workspace, engine: Any):
    generated(examples, engine)
    plan = Plan.read(examples.plan)
    assert plan is not None
    assert len(plan.mixes[BLOCK].weights) > 1
    examples.block(0, plan.block_identity(0)).unlink()
    assert complete(examples, plan, 1) is not None
    _, page = checked(examples, engine)
    assert page.tags.count("svg") == 12
    examples.plan.write_text("{")
    problems, page = checked(examples, engine)
    assert any("is damaged" in problem for problem in problems)
    assert page.tags.count("svg") == 12


@pytest.mark.slow
def test_shortest_and_silent_clips_have_pictures(make_workspace: Any, engine: Any):
    workspace = make_workspace(final_length=16)
    settings = read(workspace.settings)[0]
    assert settings is not None
    prepare.run_prepare(workspace, settings, engine, quiet=True)
    plan = Plan.read(workspace.plan)
    assert plan is not None
    codes = np.full((18, plan.samples), mulaw.ZERO, dtype=np.uint8)
    codes[::2] = np.arange(plan.samples) % 251
    write_array(workspace.block(0, plan.block_identity(0)), codes)
    _, page = checked(workspace, engine)
    assert sum("rainbowgram of reconstruction" in label for label in page.pictures) == 8


@pytest.mark.slow
def test_page_of_many_notes_has_no_audio(
    examples: Workspace, engine: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(report_entries, "PLAYED", 11)
    _, page = checked(examples, engine)
    assert "audio" not in page.tags
    assert examples.report.stat().st_size < 12 * 30_000  # 64 notes: under 2 MB


@pytest.mark.slow
def test_command_prints_the_path_of_the_page(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    done = command("check", "-w", workspace.root, "--plots")
    assert done.returncode == 0, done.stderr
    assert f"report  {workspace.report}" in done.stdout
    assert f"ready: nsynth-super run -w {workspace.root}\n" in done.stdout
    before = workspace.report.read_bytes()
    plain = command("check", "-w", workspace.root, "--json")
    assert "report" not in json.loads(plain.stdout)
    as_json = command("-q", "check", "-w", workspace.root, "--json", "--plots")
    assert json.loads(as_json.stdout)["report"] == str(workspace.report)
    assert as_json.stderr == ""
    assert re.sub(rb"about \S+ s on", b"", workspace.report.read_bytes()) == re.sub(
        rb"about \S+ s on", b"", before
    )
    assert not workspace.status("check").exists()


def test_missing_workspace_is_not_created(tmp_path: Path, command: Command):
    done = command("check", "-w", tmp_path / "nowhere", "--plots")
    assert done.returncode == 2
    assert "report" not in done.stdout
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.process
def test_missing_matplotlib_is_one_line_with_the_fix(
    make_workspace: Callable[..., Workspace], small_checkpoint: Path
):
    workspace = make_workspace()
    # Simulates a machine without matplotlib.
    without = "import importlib.util as u; f = u.find_spec; "
    without += "u.find_spec = lambda n, *a: None if n == 'matplotlib' else f(n, *a); "
    argv = nsynth_super("check", "-w", workspace.root, "--plots")
    done = subprocess.run(
        [sys.executable, "-c", without + argv[2], *argv[3:]],
        env={**os.environ, "NSYNTH_CHECKPOINT": str(small_checkpoint)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: --plots: matplotlib is required and not installed"
        " -> pip install 'nsynth-super[plots]'\n"
    )
    assert not workspace.report.exists()


@pytest.mark.process
def test_plain_check_does_not_import_matplotlib():
    code = (
        "import sys, nsynth_super.cli; from nsynth_super.reports import check, check_page; "
        "print([m for m in ('matplotlib', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("hertz", [55.0, 440.0, 1234.5, 6000.0])
def test_tone_is_in_its_row_with_its_amplitude(hertz: float):
    rows = np.abs(constant_q(tone(hertz, level=0.25)))
    assert rows.shape == (ROWS, 125)
    loudest = rows.argmax(axis=0)[16:-16]
    assert (np.abs(loudest - row(hertz)) <= 0.5 + 1e-6).all()
    assert rows[loudest[50], 66] == pytest.approx(0.25, rel=0.2)
    intensity, _ = rainbowgram(tone(hertz))
    assert intensity[round(row(hertz)), 60] > 0.95
    far = np.abs(np.arange(ROWS) - row(hertz)) > 12
    assert intensity[far, 60].max() == 0


def test_hue_is_the_phase_advance_per_column():
    columns_a_second = 16_000 / HOP
    for hertz in (442.0, 446.0, 3010.0):
        _, hue = rainbowgram(tone(hertz))
        steady = hue[round(row(hertz)), 16:-16]
        turns = hertz / columns_a_second % 1
        np.testing.assert_allclose(steady, turns, atol=0.02)


def test_two_tones_in_one_row_have_two_hues():
    low, high = 2005.0, 2015.0
    assert int(row(low)) == int(row(high))
    (_, one), (_, other) = rainbowgram(tone(low)), rainbowgram(tone(high))
    apart = np.abs(one - other)[int(row(low)), 16:-16]
    np.testing.assert_allclose(apart, 10 * HOP / 16_000, atol=0.02)


def test_silence_is_black_and_a_single_sample_is_one_column():
    intensity, hue = rainbowgram(np.zeros(16_000, dtype=np.float32))
    assert not intensity.any()
    assert np.isfinite(hue).all()
    assert rainbowgram(np.ones(1, dtype=np.float32))[0].shape == (ROWS, 1)


def test_rows_reach_half_the_sample_rate():
    assert row(rainbows.LOWEST) == 0
    assert 8000 / 2 ** (1 / rainbows.PER_OCTAVE) <= rainbows.LOWEST * 2 ** (
        ROWS / rainbows.PER_OCTAVE
    )
    assert row(8000) >= ROWS


def test_outline_of_a_waveform_keeps_the_peaks():
    audio = tone(440) * 0.1
    audio[12_345], audio[54_321] = 0.9, -0.8
    low, high = outline(audio)
    assert len(low) == len(high) == POINTS
    assert (low.min(), high.max()) == (np.float32(-0.8), np.float32(0.9))
    assert len(outline(audio[:7])[0]) == 7
    assert len(waveform_and_spectrum(audio, 69, 69.0, "a")) < 30_000


def test_spectrum_peaks_at_the_tone():
    for hertz in (30.0, 440.0, 7000.0):
        frequencies, level = spectrum(tone(hertz))
        assert frequencies[level.argmax()] == pytest.approx(hertz, rel=0.01)
        assert level.max() == pytest.approx(0, abs=0.1)
        assert np.median(level) == QUIETEST


def test_levels_are_the_peak_and_the_loudest_window():
    audio = tone(440, level=0.5)
    audio[8_000:] *= 0.01
    sound = Sound.of(audio)
    assert sound.peak == pytest.approx(20 * np.log10(0.5), abs=0.01)
    assert sound.loudness == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.05)
    silence = Sound.of(np.zeros(64_000, dtype=np.float32))
    assert (silence.peak, silence.loudness, silence.pitch) == (None, None, None)
