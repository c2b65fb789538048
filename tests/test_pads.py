"""Pads as the device reads them: layout, size, names, its settings.json, the manifest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from nsynth_super.device import device_settings, instrument
from nsynth_super.files import sha256, write_array
from nsynth_super.finishing import finish
from nsynth_super.plan import Plan
from nsynth_super.problems import BadInput, Failed, Stopped
from nsynth_super.settings import Settings, read
from nsynth_super.stages import generate, pads, prepare
from nsynth_super.wavenet import mulaw
from nsynth_super.workspace import Workspace

Command = Callable[..., subprocess.CompletedProcess[str]]

TWO_EACH: dict[str, Any] = {
    "pads": {"NW": ["flute", "oboe"], "NE": ["oboe"], "SW": ["tin_drum", "flute"], "SE": ["viola"]},
    "pitches": [60, 48],
    "resolution": 3,
    "final_length": 500,
}


@pytest.fixture(scope="module")
def small_engine(small_checkpoint: Path) -> Any:
    from nsynth_super.engines import open_engine

    return open_engine(small_checkpoint)


@pytest.fixture
def pack(make_workspace: Callable[..., Workspace], small_engine: Any) -> tuple[Workspace, Settings]:
    """A finished pack of four combinations, one instrument in two corners."""
    workspace = make_workspace(**TWO_EACH)
    settings = read(workspace.settings)[0]
    assert settings is not None
    prepare.run(workspace, settings, small_engine, quiet=True)
    generate.run(workspace, settings, small_engine, quiet=True)
    pads.run(workspace, settings, quiet=True)
    return workspace, settings


def device_row(pad: Path, settings: Settings, touch: tuple[int, int], pitch: int) -> np.ndarray:
    """Read one sound as the device's own code finds it (NSynth.cpp, Multisampler.cpp)."""
    resolution, length = settings.resolution, settings.final_length
    x, y = (int(t / 10 * (resolution - 1) + 0.5) for t in touch)
    nearest = min(range(len(settings.pitches)), key=lambda p: abs(settings.pitches[p] - pitch))
    row = (y * resolution + x) * len(settings.pitches) + nearest
    return np.fromfile(pad, dtype="<i2", offset=row * length * 2, count=length)


def clip_of(workspace: Workspace, settings: Settings, pitch: int, **weights: float) -> np.ndarray:
    """Finish the clip of one mix, found in the plan by hand."""
    plan = Plan.read(workspace.plan)
    assert plan is not None
    (number,) = (
        n
        for n, mix in enumerate(plan.mixes)
        if mix.pitch == pitch and dict(mix.weights) == pytest.approx(weights)
    )
    block = number // 64
    codes = np.load(workspace.block(block, plan.block_identity(block)))
    return finish(mulaw.decode(codes[number % 64]), settings.final_length)


def test_the_device_finds_every_sound_where_it_looks(pack: tuple[Workspace, Settings]):
    workspace, settings = pack
    pad = workspace.pad("flute_oboe_tin_drum_viola")
    for touch, weights in {
        (0, 0): {"flute": 1.0},
        (10, 0): {"oboe": 1.0},
        (0, 10): {"tin_drum": 1.0},
        (10, 10): {"viola": 1.0},
        (5, 0): {"flute": 0.5, "oboe": 0.5},
        (0, 5): {"flute": 0.5, "tin_drum": 0.5},
        (5, 5): {"flute": 0.25, "oboe": 0.25, "tin_drum": 0.25, "viola": 0.25},
    }.items():
        for pitch in (48, 60):
            heard = device_row(pad, settings, touch, pitch)
            np.testing.assert_array_equal(heard, clip_of(workspace, settings, pitch, **weights))


def test_one_instrument_in_two_corners_sounds_with_both_their_weights(
    pack: tuple[Workspace, Settings],
):
    workspace, settings = pack
    heard = device_row(workspace.pad("oboe_oboe_flute_viola"), settings, (5, 5), 60)
    expected = clip_of(workspace, settings, 60, oboe=0.5, flute=0.25, viola=0.25)
    np.testing.assert_array_equal(heard, expected)


def test_every_combination_has_a_pad_of_exactly_the_devices_size(pack: tuple[Workspace, Settings]):
    workspace, settings = pack
    sizes = {path.name: path.stat().st_size for path in workspace.pads.glob("*.bin")}
    assert sizes == {
        f"{nw}_oboe_{sw}_viola.bin": 9 * 2 * 500 * 2
        for nw in ("flute", "oboe")
        for sw in ("tin_drum", "flute")
    }
    assert settings.pad_bytes == 9 * 2 * 500 * 2
    assert not list(workspace.pads.glob(".*"))


def test_the_manifest_proves_the_pads(pack: tuple[Workspace, Settings]):
    workspace, _ = pack
    manifest = json.loads(workspace.manifest.read_text())
    assert set(manifest["pads"]) == {path.name for path in workspace.pads.glob("*.bin")}
    for name, digest in manifest["pads"].items():
        assert sha256(workspace.pads / name) == digest
    assert manifest["seed"] == 0
    assert len(manifest["checkpoint"]) == 64
    assert manifest["geometry"]["length"] == 500


def test_the_devices_settings_describe_the_pads(pack: tuple[Workspace, Settings]):
    workspace, _ = pack
    device = json.loads(workspace.device_settings.read_text())
    assert device["nsynth"]["resolution"] == 3
    assert device["nsynth"]["pitches"] == [60, 48]
    assert device["nsynth"]["length"] == 500
    assert device["nsynth"]["sampleRate"] == 16_000
    names = [[i["name"] for i in corner["instruments"]] for corner in device["corners"]]
    assert names == [["flute", "oboe"], ["oboe"], ["tin_drum", "flute"], ["viola"]]


def test_a_second_run_does_nothing(pack: tuple[Workspace, Settings]):
    workspace, settings = pack
    before = {path: path.stat().st_mtime_ns for path in workspace.pads.iterdir()}
    assert not pads.run(workspace, settings, quiet=True).made
    assert {path: path.stat().st_mtime_ns for path in workspace.pads.iterdir()} == before


@pytest.mark.parametrize("harm", ["shorter", "missing", "no manifest"])
def test_a_pad_that_is_not_what_the_manifest_says_is_made_again(
    pack: tuple[Workspace, Settings], harm: str
):
    workspace, settings = pack
    pad = workspace.pad("oboe_oboe_flute_viola")
    whole = pad.read_bytes()
    if harm == "shorter":
        os.truncate(pad, 100)
    elif harm == "missing":
        pad.unlink()
    else:
        workspace.manifest.unlink()
    assert pads.run(workspace, settings, quiet=True).made
    assert pad.read_bytes() == whole


def test_pads_in_groups_are_the_same_pads(
    pack: tuple[Workspace, Settings], monkeypatch: pytest.MonkeyPatch
):
    workspace, settings = pack
    before = {path.name: path.read_bytes() for path in workspace.pads.glob("*.bin")}
    monkeypatch.setattr(pads, "AT_ONCE", 3)
    workspace.manifest.unlink()
    pads.run(workspace, settings, quiet=True)
    assert {path.name: path.read_bytes() for path in workspace.pads.glob("*.bin")} == before


@pytest.fixture
def many_blocks(make_workspace: Callable[..., Workspace]) -> tuple[Workspace, Settings, Plan]:
    """A pack of 10 blocks, its codes drawn at random: no model is needed to tell clips apart."""
    workspace = make_workspace(**TWO_EACH | {"resolution": 11})
    settings = read(workspace.settings)[0]
    assert settings is not None
    names = {f"{i}_{p}": "0" * 64 for i in settings.instruments for p in settings.pitches}
    plan = Plan.of(settings, 0, "0" * 64, names)
    plan.write(workspace.plan)
    chance = np.random.default_rng(0)
    for block in range(plan.blocks):
        codes = chance.integers(256, size=(len(plan.clips_of(block)), plan.samples), dtype=np.uint8)
        write_array(workspace.block(block, plan.block_identity(block)), codes)
    assert plan.blocks == 10
    return workspace, settings, plan


def test_several_threads_make_the_pads_of_one(
    many_blocks: tuple[Workspace, Settings, Plan], monkeypatch: pytest.MonkeyPatch
):
    workspace, settings, _ = many_blocks
    made = []
    for processors in (1, 4):
        monkeypatch.setattr(pads.machine, "processors", lambda count=processors: count)
        workspace.manifest.unlink(missing_ok=True)
        assert pads.run(workspace, settings, quiet=True).made
        made.append({path.name: path.read_bytes() for path in workspace.pads.iterdir()})
    assert made[0] == made[1]


def test_a_block_that_goes_missing_meanwhile_leaves_no_half_pad(
    many_blocks: tuple[Workspace, Settings, Plan], monkeypatch: pytest.MonkeyPatch
):
    workspace, settings, plan = many_blocks
    gone = workspace.block(5, plan.block_identity(5))
    make = pads._make
    monkeypatch.setattr(pads, "_make", lambda *given: gone.unlink() or make(*given))
    with pytest.raises(Failed, match="block 5 went missing -> run `nsynth-super generate`"):
        pads.run(workspace, settings, quiet=True)
    assert list(workspace.pads.iterdir()) == []


def test_a_stop_does_not_wait_for_the_blocks_that_nobody_has_begun(
    many_blocks: tuple[Workspace, Settings, Plan], monkeypatch: pytest.MonkeyPatch
):
    workspace, settings, plan = many_blocks
    finished = []

    def asked_to_stop(*given: Any) -> Any:
        if not finished:
            os.kill(os.getpid(), signal.SIGTERM)
        finished.append(1)
        time.sleep(0.001)
        return finish(*given)

    monkeypatch.setattr(pads, "finish", asked_to_stop)
    monkeypatch.setattr(pads.machine, "processors", lambda: 2)
    with pytest.raises(Stopped, match="no pad was touched that is not whole"):
        pads.run(workspace, settings, quiet=True)
    assert len(finished) < len(plan.mixes) / 2
    assert list(workspace.pads.iterdir()) == []


def test_each_clip_is_finished_once(
    pack: tuple[Workspace, Settings], monkeypatch: pytest.MonkeyPatch
):
    workspace, settings = pack
    finished = []
    monkeypatch.setattr(pads, "finish", lambda *a: finished.append(1) or finish(*a))
    workspace.manifest.unlink()
    pads.run(workspace, settings, quiet=True)
    plan = Plan.read(workspace.plan)
    assert plan is not None
    assert len(finished) == len(plan.mixes)


def test_missing_clips_are_counted_and_no_pad_is_written(pack: tuple[Workspace, Settings]):
    workspace, settings = pack
    for path in workspace.pads.iterdir():
        path.unlink()
    next(workspace.clips.glob("00000-*.npy")).unlink()
    with pytest.raises(BadInput, match=r"clips are not made yet.*generate"):
        pads.run(workspace, settings, quiet=True)
    assert not list(workspace.pads.iterdir())


def test_the_users_device_settings_are_merged_and_nothing_else_is_touched():
    given = {
        "debug": False,
        "nsynth": {
            "dataDirectory": "/media/sd/pads",
            "looping": False,
            "loopStart": 0.3,
            "length": 60000,
        },
        "corners": [{"instruments": [{"name": "viola", "display": "VIOLA!", "abbr": "V!"}]}],
        "audio": {"sampleRate": 48000, "bufferSize": 256, "deviceId": 1},
        "midi": {"device": "/dev/ttyAMA0", "channel": 3},
        "osc": {"in": {"port": 9000}},
        "mine": [1, 2],
    }
    settings = Settings.model_validate(TWO_EACH)
    merged = device_settings(settings, given)
    for key in ("audio", "midi", "osc", "mine", "debug"):
        assert merged[key] == given[key]
    assert merged["nsynth"]["dataDirectory"] == "/media/sd/pads"
    assert merged["nsynth"]["looping"] is False
    assert merged["nsynth"]["length"] == 500
    assert merged["corners"][3]["instruments"] == [
        {"name": "viola", "display": "VIOLA!", "abbr": "V!"}
    ]
    assert given["nsynth"]["length"] == 60000


@pytest.mark.parametrize(
    "content",
    ['{"corners": 3}', '{"nsynth": []}', '{"corners": [{"instruments": "flute"}]}', "[]", "{"],
)
def test_device_settings_that_are_none_are_refused_in_one_line(
    pack: tuple[Workspace, Settings], command: Command, tmp_path: Path, content: str
):
    workspace, _ = pack
    (tmp_path / "device.json").write_text(content)
    done = command("pads", "-w", workspace.root, "--device-settings", tmp_path / "device.json")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "device.json" in done.stderr


def test_what_the_device_cannot_start_without_is_added():
    """DEVICE.md 1.4: without audio.sampleRate its program throws."""
    merged = device_settings(Settings.model_validate(TWO_EACH), {"nsynth": {"looping": False}})
    assert merged["audio"]["sampleRate"] == 48_000
    assert merged["nsynth"]["looping"] is False
    assert merged["nsynth"]["dataDirectory"] == "/home/pi/pads"


@pytest.mark.parametrize(
    ("name", "display", "abbr"),
    [
        ("flute", "FLUTE", "FL"),
        ("acoustic_guitar", "ACOUSTIC", "AG"),
        ("electricpiano", "ELECTRIC", "EL"),
        ("kick9", "KICK9", "K9"),
        ("x", "X", "XX"),
        ("flöte", "FLÖTE", "FL"),
        ("!!", "!!", "!!"),
    ],
)
def test_labels_fit_the_devices_screen(name: str, display: str, abbr: str):
    assert instrument(name) == {"name": name, "display": display, "abbr": abbr}


def test_export_writes_wavs_with_readable_names(
    pack: tuple[Workspace, Settings], command: Command, tmp_path: Path
):
    workspace, settings = pack
    assert command("export", "-w", workspace.root, tmp_path / "wavs").returncode == 0
    plan = Plan.read(workspace.plan)
    assert plan is not None
    files = sorted((tmp_path / "wavs").iterdir())
    assert len(files) == len(plan.mixes)
    name = next(f for f in files if f.name.endswith("_60_flute-0.500_oboe-0.500.wav"))
    sound, rate = soundfile.read(name, dtype="int16")
    assert rate == 16_000
    expected = clip_of(workspace, settings, 60, flute=0.5, oboe=0.5)
    np.testing.assert_array_equal(sound, expected)
    assert command("export", "-w", workspace.root, tmp_path / "raw", "--raw").returncode == 0
    assert soundfile.info(str(next((tmp_path / "raw").iterdir()))).frames == 4_500
