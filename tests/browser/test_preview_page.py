"""The preview page in Chromium: what it shows, and what it plays."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsynth_super.base.workspace import Workspace
from nsynth_super.notes.pitch import detect
from nsynth_super.preview import export
from nsynth_super.preview.pack import Preview
from nsynth_super.preview.server import Server
from nsynth_super.settings import Settings
from nsynth_super.stages import pads
from tests.commands import nsynth_super
from tests.preview_packs import draw, plan_of

Make = Callable[..., Workspace]
Open = Callable[..., Any]

CENTS = 0.01  # of a semitone
PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "preview.png"
PACK: dict[str, Any] = {
    "pads": {"NW": ["bright", "dull"], "NE": ["choir"], "SW": ["dark #1"], "SE": ["flûte & co"]},
    "pitches": [60, 48],
    "resolution": 5,
    "final_length": 16_000,
}
"""Instruments with an even number have all harmonics (bright is 0), others one (choir is 1)."""


@contextmanager
def served(workspace: Workspace) -> Iterator[str]:
    with Server(Preview(workspace), 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def packed(make_workspace: Make) -> tuple[Workspace, Settings]:
    workspace = make_workspace(**PACK)
    settings, plan = plan_of(workspace)
    draw(workspace, settings, plan, range(plan.blocks))
    pads.run_pads(workspace, settings, quiet=True)
    return workspace, settings


@pytest.fixture
def url(packed: tuple[Workspace, Settings]) -> Iterator[str]:
    with served(packed[0]) as address:
        yield address


def heard(page: Any, after: float = 0.0) -> tuple[np.ndarray, int]:
    """Return the last 0.7 seconds of output, and its sample rate."""
    page.wait_for_timeout(1000 * after)
    found = page.evaluate("heard()")
    return np.array(found["samples"]), found["rate"]


def pitch_of(page: Any) -> float | None:
    sound, rate = heard(page, 1.0)
    assert np.abs(sound).max() > 0.01
    return detect(sound, rate)


def harmonics(page: Any, pitch: float) -> float:
    """Return the share of a tone's power outside of its fundamental."""
    sound, rate = heard(page, 1.0)
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    hertz = np.fft.rfftfreq(len(sound), 1 / rate)
    base = 440 * 2 ** ((pitch - 69) / 12)
    return float(1 - power[np.abs(hertz - base) < 20].sum() / power.sum())


def cell_text(page: Any, expected: str) -> None:
    page.wait_for_function(
        "text => document.getElementById('mix').textContent.includes(text)", arg=expected
    )


def touch(page: Any, x: int, y: int) -> tuple[float, float]:
    """Return the page coordinates of a touch position."""
    box = page.locator("#screen").bounding_box()
    return tuple(
        box[begin] + box["width"] * (7 + 5 * position) / 64
        for begin, position in (("x", x), ("y", y))
    )


def drag(page: Any, start: tuple[int, int], to: tuple[int, int]) -> None:
    page.mouse.move(*touch(page, *start))
    page.mouse.down()
    page.mouse.move(*touch(page, *to), steps=5)
    page.mouse.up()


def test_page_shows_the_pack(url: str, open_page: Open):
    page = open_page(url)
    assert page.title() == "pack · nsynth-super"
    assert page.inner_text("h1") == "pack"
    assert page.inner_text("#short-NW") == "BR"
    assert page.inner_text("#display-SE") == "FLÛTE CO"
    assert page.locator("#choice-NW option").all_inner_texts() == ["bright", "dull"]
    cell_text(page, "25 % bright")
    assert "column 3, row 3 of 5" in page.inner_text("#mix")
    assert not page.locator("#message").is_visible()
    assert not page.locator("#progress").is_visible()
    assert "C4 (262 Hz): 1.00 seconds" in page.inner_text("#spectrogram-words")
    loudest = re.search(r"loudest around (\d+) Hz", page.inner_text("#spectrogram-words"))
    assert loudest
    assert abs(int(loudest[1]) - 262) < 3


def test_drag_changes_the_cell(url: str, open_page: Open):
    page = open_page(url)
    cell_text(page, "column 3, row 3")
    drag(page, (5, 5), (10, 0))
    cell_text(page, "100 % choir — column 5, row 1 of 5")
    drag(page, (10, 0), (0, 10))
    cell_text(page, "100 % dark #1 — column 1, row 5 of 5")
    drag(page, (2, 2), (5, 0))
    cell_text(page, "50 % bright, 50 % choir — column 3, row 1 of 5")


@pytest.mark.slow
def test_arrow_keys_change_the_cell(url: str, open_page: Open):
    page = open_page(url)
    page.focus("#pad")
    for key, column, row in [
        ("Home", 1, 3),
        ("PageUp", 1, 1),
        ("ArrowRight", 1, 1),
        ("ArrowRight", 2, 1),
        ("ArrowDown", 2, 1),
        ("ArrowDown", 2, 2),
        ("End", 5, 2),
        ("PageDown", 5, 5),
        ("ArrowRight", 5, 5),
    ]:
        page.keyboard.press(key)
        cell_text(page, f"column {column}, row {row} of 5")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "note"), [("KeyZ", 48), ("KeyD", 51), ("KeyQ", 60), ("KeyE", 64), ("Digit0", 75)]
)
def test_computer_key_sounds_at_its_pitch(url: str, open_page: Open, code: str, note: int):
    page = open_page(url)
    cell_text(page, "column 3")
    page.keyboard.down(code)
    assert pitch_of(page) == pytest.approx(note, abs=50 * CENTS)
    assert f"(MIDI {note})" in page.inner_text("#heard")
    page.keyboard.up(code)
    sound, _ = heard(page, 1.2)
    assert np.abs(sound).max() < 1e-4


def test_page_keys_play_by_mouse_and_by_keyboard(url: str, open_page: Open):
    page = open_page(url)
    cell_text(page, "column 3")
    key = page.locator("[data-note='55']").bounding_box()
    page.mouse.move(key["x"] + key["width"] / 2, key["y"] + key["height"] * 0.8)
    page.mouse.down()
    assert pitch_of(page) == pytest.approx(55, abs=50 * CENTS)
    key = page.locator("[data-note='57']").bounding_box()
    page.mouse.move(key["x"] + key["width"] / 2, key["y"] + key["height"] * 0.8, steps=3)
    assert pitch_of(page) == pytest.approx(57, abs=50 * CENTS)
    page.mouse.up()
    assert page.locator("#keys .down").count() == 0
    page.focus("[data-note='57']")
    page.keyboard.press("ArrowRight")
    page.keyboard.down("Space")
    assert pitch_of(page) == pytest.approx(58, abs=50 * CENTS)
    page.keyboard.up("Space")
    assert page.locator("#keys .down").count() == 0
    page.click("#higher")
    assert page.inner_text("#octave") == "from C4"
    page.keyboard.down("KeyZ")
    assert pitch_of(page) == pytest.approx(60, abs=50 * CENTS)


MIDI = """
const inputs = [];
window.midi = (...data) => inputs.forEach((input) => input.onmidimessage({ data }));
navigator.requestMIDIAccess = async () => {
  inputs.push({ name: "Toy keys" }); // every access has its own inputs, as specified
  return { inputs: new Map([["1", inputs.at(-1)]]) };
};
void 0; // Playwright would call a function
"""


@pytest.mark.slow
def test_midi_keyboard_plays(url: str, open_page: Open):
    page = open_page(url)
    cell_text(page, "column 3")
    page.evaluate(MIDI)
    page.click("#midi")
    page.wait_for_function("() => document.getElementById('midi').textContent === 'MIDI: Toy keys'")
    page.evaluate("midi(0x93, 43, 127)")
    assert pitch_of(page) == pytest.approx(43, abs=50 * CENTS)
    loud = np.abs(heard(page)[0]).max()
    page.evaluate("midi(0x93, 43, 0)")
    page.wait_for_timeout(1500)
    page.evaluate("midi(0x90, 43, 32)")
    soft = np.abs(heard(page, 1.0)[0]).max()
    assert soft == pytest.approx(loud * 32 / 127, rel=0.05)
    page.evaluate("midi(0x80, 43, 64)")
    assert np.abs(heard(page, 1.2)[0]).max() < 1e-4


@pytest.mark.slow
def test_midi_keyboard_connected_twice_plays_once(url: str, open_page: Open):
    page = open_page(url)
    cell_text(page, "column 3")
    page.evaluate(MIDI)
    page.click("#midi")
    page.wait_for_function("() => document.getElementById('midi').textContent === 'MIDI: Toy keys'")
    page.click("#midi")
    page.check("#hold")
    page.evaluate("midi(0x90, 43, 100)")
    page.evaluate("midi(0x80, 43, 0)")
    assert pitch_of(page) == pytest.approx(43, abs=50 * CENTS)


@pytest.mark.slow
def test_nearest_sample_is_used_and_the_earlier_on_a_tie(url: str, open_page: Open):
    page = open_page(url)
    cell_text(page, "column 3")
    page.focus("#pad")
    page.keyboard.press("Home")
    page.keyboard.press("PageUp")
    cell_text(page, "column 1, row 1")
    page.evaluate(MIDI)
    page.click("#midi")
    for note, row in [(53, 1), (54, 0), (55, 0)]:
        page.evaluate(f"midi(0x90, {note}, 100)")
        words = page.inner_text("#heard")
        assert f"the sample at {['C4', 'C3'][row]} shifted by" in words
        page.evaluate(f"midi(0x80, {note}, 0)")


@pytest.mark.slow
def test_held_note_loops_until_released_or_ends_without_a_loop(url: str, open_page: Open):
    page = open_page(url)
    cell_text(page, "column 3")
    assert page.is_checked("#looping")
    page.keyboard.down("KeyQ")
    assert np.abs(heard(page, 2.5)[0]).max() > 0.01
    page.keyboard.up("KeyQ")
    page.uncheck("#looping")
    assert page.inner_text("#loop-words").startswith('"looping": false')
    page.wait_for_function(
        "() => document.getElementById('spectrogram-words').textContent.includes('does not loop')"
    )
    page.wait_for_timeout(1000)
    page.keyboard.down("KeyQ")
    assert np.abs(heard(page, 0.6)[0]).max() > 0.01
    assert np.abs(heard(page, 1.6)[0]).max() < 1e-4
    page.keyboard.up("KeyQ")
    page.click("#loop-reset")
    assert page.is_checked("#looping")


TRACE = """async ({ length, loop, rate, offset }) => {
  const { loopOf, trace } = await import("/device.js");
  const sound = Int16Array.from({ length }, (_, i) => i / 2);
  const { samples, from } = trace(sound, rate / 3, offset, loopOf(loop, length), 48000);
  return { where: [...samples].map((value) => value * 32767 * 2), from };
}"""
"""Plays a ramp, so that the output is the read position."""


@pytest.mark.slow
def test_loop_turns_where_the_synths_does(url: str, open_page: Open):
    page = open_page(url)
    loop = {"looping": True, "loopStart": 0.2, "loopEnd": 0.41}
    found = page.evaluate(TRACE, {"length": 60_000, "loop": loop, "rate": 1, "offset": 0})
    where, begins = np.array(found["where"]), found["from"]
    forward = 3 * 20_600
    np.testing.assert_allclose(where[: forward + 1], np.arange(forward + 1) / 3, atol=2)
    # After the crossfade it runs back from 24,599 to 8,000; measured on the synth: 7,998.
    after = forward + 4001
    back = 24_599 - (np.arange(after, begins) - forward) / 3
    np.testing.assert_allclose(where[after:begins], back, atol=2)
    assert where[after:begins].min() == pytest.approx(8000, abs=2)
    # Then forward from 12,000, and so on.
    on = where[begins + 4001 : begins + 3 * 8600]
    np.testing.assert_allclose(on, 12_000 + np.arange(4001, 4001 + len(on)) / 3, atol=2)
    assert len(where) - begins == pytest.approx(3 * (8600 + 16_599), abs=3)


@pytest.mark.slow
def test_sound_without_a_loop_plays_to_its_end_and_fades_out(url: str, open_page: Open):
    page = open_page(url)
    found = page.evaluate(
        TRACE,
        {"length": 3000, "loop": {"looping": False}, "rate": 2, "offset": 600},
    )
    where = np.array(found["where"])
    assert found["from"] is None
    steps = np.arange(len(where))
    np.testing.assert_allclose(where[:3400], 600 + steps[:3400] * 2 / 3, atol=2)
    assert len(where) == pytest.approx((3000 - 600) * 1.5, abs=2)
    assert where[-1] == pytest.approx(0, abs=60)


ODD = """async (cases) => {
  const { loopOf, trace } = await import("/device.js");
  return cases.map(([length, loopStart, loopEnd, offset, speed]) => {
    const sound = new Int16Array(length).fill(32767);
    const loop = loopOf({ looping: true, loopStart, loopEnd }, length);
    const { samples, from } = trace(sound, speed, Math.floor(offset * length), loop, 48000);
    return [samples.length, from ?? -1, Math.min(...samples), Math.max(...samples)];
  });
}"""


@pytest.mark.slow
def test_degenerate_loops_repeat(url: str, open_page: Open):
    page = open_page(url)
    chance = np.random.default_rng(1)
    cases = [
        [int(chance.integers(16, 9000)), *chance.uniform(0, 1, 3).tolist(), speed]
        for speed in (0.4, 1.0, 3.1)
        for _ in range(30)
    ] + [[60_000, 0.0, 0.25, 0.0, 1.0], [60_000, 0.3, 0.3, 1.0, 1.0], [16, 1.0, 1.0, 0.0, 0.5]]
    for case, (count, begins, least, most) in zip(cases, page.evaluate(ODD, cases), strict=True):
        assert 0 <= begins < count < 48_000 * 60, case
        assert 0.4 < least <= most < 1.6, case


@pytest.mark.slow
def test_notes_beyond_the_limit_stop_the_oldest_voice(url: str, open_page: Open):
    page = open_page(url)
    states = page.evaluate(
        """async () => {
          const { Synth } = await import("/synth.js");
          const pack = await (await fetch("/pack.json")).json();
          const synth = new Synth(pack);
          const sound = new Int16Array(pack.length).fill(1000);
          const made = Array.from({ length: 45 }, (_, i) => synth.on(30 + i, 1, sound));
          return made.map((voice) => voice?.state ?? "not heard");
        }"""
    )
    assert states == ["killed"] * 8 + ["held"] * 32 + ["not heard"] * 5


@pytest.mark.slow
def test_held_notes_keep_their_sound_unless_follow_is_on(url: str, open_page: Open):
    page = open_page(url)
    drag(page, (5, 5), (0, 0))
    cell_text(page, "100 % bright")
    page.keyboard.down("KeyQ")
    assert harmonics(page, 60) > 0.1
    drag(page, (0, 0), (10, 0))
    cell_text(page, "100 % choir")
    assert harmonics(page, 60) > 0.1
    page.keyboard.up("KeyQ")
    page.keyboard.down("KeyQ")
    assert harmonics(page, 60) < 0.02
    page.check("#follow")
    drag(page, (10, 0), (0, 0))
    assert harmonics(page, 60) > 0.1
    page.keyboard.up("KeyQ")


@pytest.mark.slow
def test_keys_latch_while_hold_is_on(url: str, open_page: Open):
    page = open_page(url)
    cell_text(page, "column 3")
    page.check("#hold")
    page.locator("#heard").click()
    page.keyboard.press("KeyQ")
    assert np.abs(heard(page, 1.5)[0]).max() > 0.01
    page.keyboard.press("KeyQ")
    assert np.abs(heard(page, 1.2)[0]).max() < 1e-4
    page.keyboard.press("KeyW")
    page.uncheck("#hold")
    assert page.locator("#keys .down").count() == 0
    assert np.abs(heard(page, 1.2)[0]).max() < 1e-4


@pytest.mark.slow
def test_corner_control_selects_another_pad(url: str, open_page: Open):
    page = open_page(url)
    cell_text(page, "25 % bright")
    wanted = "/pads/dull_choir_dark%20%231_fl%C3%BBte%20%26%20co.bin"
    with page.expect_request(lambda request: request.url.endswith(wanted)) as asked:
        page.click("text=›")
    assert re.fullmatch(r"bytes=\d+-\d+", asked.value.headers["range"])
    cell_text(page, "25 % dull")
    assert page.input_value("#choice-NW") == "1"
    assert page.inner_text("#short-NW") == "DU"
    page.select_option("#choice-NW", "0")
    cell_text(page, "25 % bright")


@pytest.mark.slow
def test_volume_and_envelope_change_the_output(url: str, open_page: Open):
    page = open_page(url)
    cell_text(page, "column 3")
    page.keyboard.down("KeyQ")
    loud = np.abs(heard(page, 1.0)[0]).max()
    page.fill("#volume", "0.2")
    assert np.abs(heard(page, 1.0)[0]).max() == pytest.approx(loud / 4, rel=0.1)
    page.keyboard.up("KeyQ")
    page.fill("#volume", "1")
    page.fill("#sustain", "0.1")
    page.fill("#decay", "0")
    page.locator("#heard").click()
    page.wait_for_timeout(700)
    page.keyboard.down("KeyQ")
    assert np.abs(heard(page, 1.0)[0]).max() == pytest.approx(loud * 0.1 / 0.8, rel=0.1)
    page.keyboard.up("KeyQ")
    assert page.locator("#attack").get_attribute("aria-valuetext") == "0.000 s"


@pytest.mark.slow
def test_clipping_is_shown(url: str, open_page: Open):
    page = open_page(url)
    cell_text(page, "column 3")
    page.fill("#volume", "1")
    assert not page.locator("#clips").is_visible()
    page.check("#hold")
    page.locator("#heard").click()
    for key in ("KeyQ", "KeyW", "KeyE", "KeyR", "KeyT", "KeyY", "KeyU", "KeyI"):
        page.keyboard.press(key)
    page.wait_for_selector("#clips:not([hidden])")
    page.uncheck("#hold")
    page.wait_for_selector("#clips", state="hidden")


@pytest.mark.slow
def test_recorded_and_generated_notes_play_at_equal_level(
    packed: tuple[Workspace, Settings], open_page: Open
):
    workspace, _ = packed
    (workspace.notes / "choir_60.wav").unlink()
    with served(workspace) as url:
        page = open_page(url)
        cell_text(page, "column 3")
        rows = page.locator("#notes tr")
        assert rows.count() == 4
        assert "no recording" in rows.nth(1).inner_text()
        recorded = page.get_by_role("button", name="Play bright, recorded")
        recorded.click()
        page.wait_for_selector("#notes button[aria-pressed=true]")
        assert pitch_of(page) == pytest.approx(60, abs=50 * CENTS)
        loud = np.abs(heard(page)[0]).max()
        recorded.click()
        page.wait_for_selector("#notes button[aria-pressed=true]", state="detached")
        page.get_by_role("button", name="Play bright, generated").click()
        page.wait_for_timeout(700)
        sound, rate = heard(page)
        assert detect(sound, rate) == pytest.approx(60, abs=50 * CENTS)
        assert loud < 8231 / 32767
        page.select_option("#pitch", "48")
        assert page.get_by_role("button", name="Play choir, recorded").count() == 1


@pytest.mark.slow
@pytest.mark.parametrize("size", [(375, 667), (320, 568), (1280, 800)])
def test_page_fits_every_screen_width(url: str, open_page: Open, size: tuple[int, int]):
    page = open_page(url, viewport={"width": size[0], "height": size[1]})
    cell_text(page, "column 3")
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    pad = page.locator("#pad").bounding_box()
    assert pad["width"] > 200
    assert pad["x"] >= 0
    assert pad["x"] + pad["width"] <= size[0]


@pytest.mark.slow
def test_tap_moves_the_pad_on_a_phone(url: str, open_page: Open):
    page = open_page(url, viewport={"width": 375, "height": 667}, has_touch=True, is_mobile=True)
    cell_text(page, "column 3")
    page.locator("#pad").scroll_into_view_if_needed()
    page.touchscreen.tap(*touch(page, 0, 0))
    cell_text(page, "100 % bright — column 1, row 1")


DOT = """([x, y]) => {
  const canvas = document.getElementById("screen");
  const at = (position) => Math.round((canvas.width * (7 + 5 * position)) / 64);
  return [...canvas.getContext("2d").getImageData(at(x), at(y), 1, 1).data];
}"""
LIT, DARK = [233, 238, 242, 255], [59, 68, 77, 255]


@pytest.mark.slow
def test_missing_clips_are_grey_and_silent_until_generated(make_workspace: Make, open_page: Open):
    workspace = make_workspace(**PACK | {"pads": PACK["pads"] | {"NE": ["choir", "oboe"]}})
    settings, plan = plan_of(workspace)
    assert plan.blocks == 3
    draw(workspace, settings, plan, [0])
    with served(workspace) as url:
        page = open_page(url, lambda line: "willReadFrequently" in line, reduced_motion="reduce")
        cell_text(page, "Not generated yet.")
        assert f"64 of {len(plan.mixes)} clips generated" in page.inner_text("#progress-text")
        assert page.evaluate(DOT, [0, 0]) == LIT
        assert page.evaluate(DOT, [8, 8]) == DARK
        page.keyboard.press("KeyQ")
        assert "not generated yet in this cell" in page.inner_text("#heard")
        page.wait_for_timeout(300)
        assert page.evaluate("Math.max(...heard().samples)") == 0
        drag(page, (5, 5), (0, 0))
        page.keyboard.down("KeyQ")
        assert pitch_of(page) == pytest.approx(60, abs=50 * CENTS)
        page.keyboard.up("KeyQ")
        draw(workspace, settings, plan, range(1, plan.blocks))
        page.wait_for_function(
            "() => document.getElementById('progress-text').textContent.startsWith('All clips')"
        )
        assert page.evaluate(DOT, [8, 8]) == LIT
        pads.run_pads(workspace, settings, quiet=True)
        page.wait_for_selector("#progress", state="hidden")
        drag(page, (0, 0), (5, 5))
        cell_text(page, "row 3 of 5.")
        page.keyboard.down("KeyZ")
        assert pitch_of(page) == pytest.approx(48, abs=50 * CENTS)


@pytest.mark.slow
def test_changed_pack_can_be_reloaded(make_workspace: Make, open_page: Open):
    workspace = make_workspace(**PACK)
    settings, plan = plan_of(workspace)
    draw(workspace, settings, plan, [0])
    with served(workspace) as url:
        page = open_page(url)
        workspace.synth_settings.parent.mkdir()
        workspace.synth_settings.write_text('{"nsynth": {"looping": false}, "audio": {}}')
        page.get_by_role("button", name="Load it").click()
        page.wait_for_function("() => document.getElementById('looping')?.checked === false")


@pytest.mark.slow
def test_stopped_server_is_reported(make_workspace: Make, open_page: Open):
    workspace = make_workspace(**PACK)
    settings, plan = plan_of(workspace)
    draw(workspace, settings, plan, [0])
    words = nsynth_super("-q", "preview", "-w", workspace.root, "--no-open")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        page = open_page(process.stdout.readline().strip(), expected=lambda line: "ERR_" in line)
        process.terminate()
    page.wait_for_selector("#message:not([hidden])")
    assert "run `nsynth-super preview` again" in page.inner_text("#message")


NAMELESS = """() => [...document.querySelectorAll("main *, progress")]
  .filter((element) => element.matches("button, input, select, meter, progress, canvas"))
  .filter((element) => !element.closest("[aria-hidden=true]") && element.offsetWidth)
  .filter((element) => !(element.getAttribute("aria-label") || element.labels?.length
    || element.getAttribute("aria-labelledby") || element.textContent.trim()))
  .map((element) => element.outerHTML)"""
CONTRAST = """() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const { backgroundColor } = getComputedStyle(at);
      if (!backgroundColor.endsWith(", 0)")) return backgroundColor;
    }
  };
  const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  for (let node = words.nextNode(); node; node = words.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || !element.offsetWidth || element.disabled) continue;
    const [a, b] = [getComputedStyle(element).color, behind(element)].map(light);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${element.outerHTML.slice(0, 80)}: ${ratio.toFixed(2)}`);
  }
  return found;
}"""


@pytest.mark.slow
def test_controls_have_accessible_names_and_text_has_contrast(url: str, open_page: Open):
    page = open_page(url)
    cell_text(page, "column 3")
    page.wait_for_timeout(500)
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate(CONTRAST) == []
    assert page.locator("#mix").get_attribute("aria-live") == "polite"
    spoken = page.locator("main").aria_snapshot()
    for words in (
        "North-west instrument",
        "Pad, 5 by 5 cells",
        "C 4".replace(" ", ""),
        "Spectrogram. C4 (262 Hz)",
        "Play bright, recorded",
        'slider "Attack"',
    ):
        assert words in spoken


@pytest.mark.slow
def test_tab_reaches_every_control(url: str, open_page: Open):
    page = open_page(url)
    cell_text(page, "column 3")
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        found = page.evaluate(
            """() => {
              const { id, dataset, ariaLabel } = document.activeElement;
              const { outlineStyle } = getComputedStyle(document.activeElement);
              const name = dataset.note ? "key" : id || ariaLabel;
              return document.activeElement === document.body ? null : [name, outlineStyle];
            }"""
        )
        if found is None:
            break
        reached.append(found)
    names = [name for name, _ in reached]
    assert {outline for _, outline in reached} == {"solid"}
    assert names.count("key") == 1
    for name in (
        *("choice-NW", "choice-NE", "choice-SW", "choice-SE", "pad", "lower", "higher", "hold"),
        *("follow", "midi", "position", "attack", "decay", "sustain", "release", "volume"),
        *("looping", "loopStart", "loopEnd", "loop-reset", "pitch"),
        *("Play bright, recorded", "Play flûte & co, generated"),
    ):
        assert name in names


FRAMES = """async (expected) => {
  let frames = 0;
  const clear = CanvasRenderingContext2D.prototype.clearRect;
  CanvasRenderingContext2D.prototype.clearRect = function (...box) {
    if (this.canvas.id === "screen") frames += 1;
    return clear.apply(this, box);
  };
  const pad = document.getElementById("pad");
  pad.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
  const wait = (time) => new Promise((done) => setTimeout(done, time));
  for (let tries = 0; tries < 50 && frames < expected; tries++) await wait(100);
  await wait(500);
  return frames;
}"""
"""Moves the pad by one position and counts the frames drawn."""


@pytest.mark.slow
@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_dots_are_animated_unless_reduced_motion_is_preferred(
    url: str, open_page: Open, motion: str
):
    page = open_page(url, reduced_motion=motion)
    cell_text(page, "column 3")
    page.wait_for_timeout(1000)
    frames = page.evaluate(FRAMES, 1 if motion == "reduce" else 4)
    assert frames == 1 if motion == "reduce" else frames >= 4


def test_exported_page_plays_without_server_or_network(
    packed: tuple[Workspace, Settings], open_page: Open, tmp_path: Path
):
    path = tmp_path / "for a friend #1.html"
    export.export_page(Preview(packed[0]).now(), path)
    page = open_page(path.as_uri(), offline=True)
    cell_text(page, "25 % bright")
    page.keyboard.down("KeyE")
    assert pitch_of(page) == pytest.approx(64, abs=50 * CENTS)
    page.keyboard.up("KeyE")
    drag(page, (5, 5), (10, 10))
    cell_text(page, "100 % flûte & co")
    page.click("text=›")
    cell_text(page, "100 % flûte & co")
    page.keyboard.down("KeyZ")
    assert pitch_of(page) == pytest.approx(48, abs=50 * CENTS)
    page.keyboard.up("KeyZ")
    page.get_by_role("button", name="Play dull, recorded").click()
    page.wait_for_selector("#notes button[aria-pressed=true]")
    assert not page.locator("#message").is_visible()


@pytest.mark.slow
def test_screenshot_for_the_readme(make_workspace: Make, open_page: Open, tmp_path: Path):
    """Write the README's picture if $NSYNTH_PREVIEW_PICTURE is set, otherwise a temporary one."""
    picture = PICTURE if os.environ.get("NSYNTH_PREVIEW_PICTURE") else tmp_path / "preview.png"
    workspace = make_workspace(
        "my first pack",
        pads={"NW": ["flute", "ocarina"], "NE": ["marimba"], "SW": ["cello"], "SE": ["piano"]},
        pitches=[48, 60],
        resolution=9,
        final_length=60_000,
    )
    settings, plan = plan_of(workspace)
    draw(workspace, settings, plan, range(plan.blocks - 2))
    with served(workspace) as url:
        page = open_page(url, viewport={"width": 1000, "height": 1000})
        cell_text(page, "column 5")
        drag(page, (5, 5), (2, 1))
        page.keyboard.down("KeyQ")
        page.keyboard.down("KeyE")
        page.wait_for_timeout(1500)
        page.evaluate("document.activeElement.blur()")
        page.screenshot(path=picture, full_page=True)
        page.keyboard.up("KeyQ")
    assert 20_000 < picture.stat().st_size < 300_000
