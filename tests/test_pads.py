"""Tests of the pads: layout, size, names, the synth's settings.json and the manifest."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from nsynth_super.base.errors import BadInput, Failed, Stopped
from nsynth_super.base.files import sha256, write_array
from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.finishing import finish
from nsynth_super.pack.geometry import Geometry
from nsynth_super.pack.plan import Plan
from nsynth_super.settings import Settings, read
from nsynth_super.stages import generate, pads, prepare
from nsynth_super.synth.settings import instrument, synth_settings
from nsynth_super.wavenet import mulaw
from tests.conftest import new_workspace

Command = Callable[..., subprocess.CompletedProcess[str]]

TWO_EACH: dict[str, Any] = {
    "pads": {"NW": ["flute", "oboe"], "NE": ["oboe"], "SW": ["tin_drum", "flute"], "SE": ["viola"]},
    "pitches": [60, 48],
    "resolution": 3,
    "final_length": 500,
}


@pytest.fixture(scope="module")
def finished(
    tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workspace, Settings]:
    from nsynth_super.engines.opening import open_engine

    workspace = new_workspace(tmp_path_factory.mktemp("finished") / "pack", **TWO_EACH)
    settings, engine = read(workspace.settings)[0], open_engine(tiny_checkpoint)
    assert settings is not None
    prepare.run_prepare(workspace, settings, engine, quiet=True)
    generate.run_generate(workspace, settings, engine, quiet=True)
    pads.run_pads(workspace, settings, quiet=True)
    return workspace, settings


@pytest.fixture
def pack(finished: tuple[Workspace, Settings], tmp_path: Path) -> tuple[Workspace, Settings]:
    """Return a copy of a finished pack of four combinations, with one instrument in two corners."""
    shutil.copytree(finished[0].root, tmp_path / "pack")
    return Workspace(tmp_path / "pack"), finished[1]


def row_on_synth(pad: Path, settings: Settings, touch: tuple[int, int], pitch: int) -> np.ndarray:
    """Read one sound from the offset that the synth computes (NSynth.cpp, Multisampler.cpp)."""
    resolution, length = settings.resolution, settings.final_length
    x, y = (int(t / 10 * (resolution - 1) + 0.5) for t in touch)
    nearest = min(range(len(settings.pitches)), key=lambda p: abs(settings.pitches[p] - pitch))
    row = (y * resolution + x) * len(settings.pitches) + nearest
    return np.fromfile(pad, dtype="<i2", offset=row * length * 2, count=length)


def clip_of(workspace: Workspace, settings: Settings, pitch: int, **weights: float) -> np.ndarray:
    """Return the post-processed clip of one mix of the plan."""
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


def test_every_sound_is_at_the_offset_that_the_synth_reads(pack: tuple[Workspace, Settings]):
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
            heard = row_on_synth(pad, settings, touch, pitch)
            np.testing.assert_array_equal(heard, clip_of(workspace, settings, pitch, **weights))


def test_an_instrument_in_two_corners_plays_with_both_weights(
    pack: tuple[Workspace, Settings],
):
    workspace, settings = pack
    heard = row_on_synth(workspace.pad("oboe_oboe_flute_viola"), settings, (5, 5), 60)
    expected = clip_of(workspace, settings, 60, oboe=0.5, flute=0.25, viola=0.25)
    np.testing.assert_array_equal(heard, expected)


def test_every_combination_has_a_pad_of_the_exact_size(pack: tuple[Workspace, Settings]):
    workspace, settings = pack
    sizes = {path.name: path.stat().st_size for path in workspace.pads.glob("*.bin")}
    assert sizes == {
        f"{nw}_oboe_{sw}_viola.bin": 9 * 2 * 500 * 2
        for nw in ("flute", "oboe")
        for sw in ("tin_drum", "flute")
    }
    assert Geometry.of(settings).bytes == 9 * 2 * 500 * 2
    assert not list(workspace.pads.glob(".*"))


def test_the_manifest_has_the_hash_of_every_pad(pack: tuple[Workspace, Settings]):
    workspace, _ = pack
    manifest = json.loads(workspace.manifest.read_text())
    assert set(manifest["pads"]) == {path.name for path in workspace.pads.glob("*.bin")}
    for name, digest in manifest["pads"].items():
        assert sha256(workspace.pads / name) == digest
    assert manifest["seed"] == 0
    assert len(manifest["checkpoint"]) == 64
    assert manifest["geometry"]["length"] == 500


def test_the_synths_settings_describe_the_pads(pack: tuple[Workspace, Settings]):
    workspace, _ = pack
    written = json.loads(workspace.synth_settings.read_text())
    assert written["nsynth"]["resolution"] == 3
    assert written["nsynth"]["pitches"] == [60, 48]
    assert written["nsynth"]["length"] == 500
    assert written["nsynth"]["sampleRate"] == 16_000
    names = [[i["name"] for i in corner["instruments"]] for corner in written["corners"]]
    assert names == [["flute", "oboe"], ["oboe"], ["tin_drum", "flute"], ["viola"]]


def test_a_second_run_does_nothing(pack: tuple[Workspace, Settings]):
    workspace, settings = pack
    before = {path: path.stat().st_mtime_ns for path in workspace.pads.iterdir()}
    assert not pads.run_pads(workspace, settings, quiet=True).made
    assert {path: path.stat().st_mtime_ns for path in workspace.pads.iterdir()} == before


@pytest.mark.parametrize("harm", ["truncated", "missing", "no manifest"])
def test_a_pad_that_differs_from_the_manifest_is_written_again(
    pack: tuple[Workspace, Settings], harm: str
):
    workspace, settings = pack
    pad = workspace.pad("oboe_oboe_flute_viola")
    complete = pad.read_bytes()
    if harm == "truncated":
        os.truncate(pad, 100)
    elif harm == "missing":
        pad.unlink()
    else:
        workspace.manifest.unlink()
    assert pads.run_pads(workspace, settings, quiet=True).made
    assert pad.read_bytes() == complete


def test_writing_pads_in_groups_gives_the_same_bytes(
    pack: tuple[Workspace, Settings], monkeypatch: pytest.MonkeyPatch
):
    workspace, settings = pack
    before = {path.name: path.read_bytes() for path in workspace.pads.glob("*.bin")}
    monkeypatch.setattr(pads, "AT_ONCE", 3)
    workspace.manifest.unlink()
    pads.run_pads(workspace, settings, quiet=True)
    assert {path.name: path.read_bytes() for path in workspace.pads.glob("*.bin")} == before


@pytest.fixture
def many_blocks(make_workspace: Callable[..., Workspace]) -> tuple[Workspace, Settings, Plan]:
    """Return a pack of 10 blocks with random codes, which distinguish clips without a model."""
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


def test_several_threads_write_the_same_pads_as_one(
    many_blocks: tuple[Workspace, Settings, Plan], monkeypatch: pytest.MonkeyPatch
):
    workspace, settings, _ = many_blocks
    made = []
    for processors in (1, 4):
        monkeypatch.setattr(pads.allocation, "processors", lambda count=processors: count)
        workspace.manifest.unlink(missing_ok=True)
        assert pads.run_pads(workspace, settings, quiet=True).made
        made.append({path.name: path.read_bytes() for path in workspace.pads.iterdir()})
    assert made[0] == made[1]


def test_a_block_that_disappears_leaves_no_partial_pad(
    many_blocks: tuple[Workspace, Settings, Plan], monkeypatch: pytest.MonkeyPatch
):
    workspace, settings, plan = many_blocks
    removed = workspace.block(5, plan.block_identity(5))
    make = pads._make
    monkeypatch.setattr(pads, "_make", lambda *given: removed.unlink() or make(*given))
    with pytest.raises(Failed, match="block 5 is missing -> run `nsynth-super generate`"):
        pads.run_pads(workspace, settings, quiet=True)
    assert list(workspace.pads.iterdir()) == []


def test_a_stop_skips_the_blocks_that_have_not_started(
    many_blocks: tuple[Workspace, Settings, Plan], monkeypatch: pytest.MonkeyPatch
):
    workspace, settings, plan = many_blocks
    finished = []

    def stop_and_finish(*given: Any) -> Any:
        if not finished:
            os.kill(os.getpid(), signal.SIGTERM)
        finished.append(1)
        time.sleep(0.001)
        return finish(*given)

    monkeypatch.setattr(pads, "finish", stop_and_finish)
    monkeypatch.setattr(pads.allocation, "processors", lambda: 2)
    with pytest.raises(Stopped, match="only complete pads were written"):
        pads.run_pads(workspace, settings, quiet=True)
    assert len(finished) < len(plan.mixes) / 2
    assert list(workspace.pads.iterdir()) == []


def test_each_clip_is_finished_once(
    pack: tuple[Workspace, Settings], monkeypatch: pytest.MonkeyPatch
):
    workspace, settings = pack
    finished = []
    monkeypatch.setattr(pads, "finish", lambda *a: finished.append(1) or finish(*a))
    workspace.manifest.unlink()
    pads.run_pads(workspace, settings, quiet=True)
    plan = Plan.read(workspace.plan)
    assert plan is not None
    assert len(finished) == len(plan.mixes)


def test_missing_clips_are_counted_before_any_pad_is_written(pack: tuple[Workspace, Settings]):
    workspace, settings = pack
    for path in workspace.pads.iterdir():
        path.unlink()
    next(workspace.clips.glob("00000-*.npy")).unlink()
    with pytest.raises(BadInput, match=r"clips are missing.*generate"):
        pads.run_pads(workspace, settings, quiet=True)
    assert not list(workspace.pads.iterdir())


def test_the_users_synth_settings_are_merged_and_otherwise_unchanged():
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
    merged = synth_settings(settings, given)
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
def test_invalid_synth_settings_are_rejected_in_one_line(
    pack: tuple[Workspace, Settings], command: Command, tmp_path: Path, content: str
):
    workspace, _ = pack
    (tmp_path / "synth.json").write_text(content)
    done = command("pads", "-w", workspace.root, "--synth-settings", tmp_path / "synth.json")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "synth.json" in done.stderr


def test_settings_that_the_synth_requires_are_added():
    """The synth's program crashes without audio.sampleRate."""
    merged = synth_settings(Settings.model_validate(TWO_EACH), {"nsynth": {"looping": False}})
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
def test_labels_fit_the_synths_screen(name: str, display: str, abbr: str):
    assert instrument(name) == {"name": name, "display": display, "abbr": abbr}


def test_export_writes_wav_files_with_readable_names(
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
