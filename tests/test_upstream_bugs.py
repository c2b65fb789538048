"""The upstream pipeline's bugs, by their numbers in docs/upstream-bugs.md, and that none is here.

Those that have a test beside the code they concern are named there: corners and weights in
test_grid.py, names in test_notes.py, finishing in test_finishing.py, index 256 in test_model.py.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsynth_super.plan import Plan
from nsynth_super.settings import read
from nsynth_super.workspace import Workspace
from tests.conftest import write_note

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def pack(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A pack with names that upstream could not hold, made once."""
    from nsynth_super.engines import open_engine
    from nsynth_super.stages import generate, pads, prepare

    workspace = Workspace(tmp_path_factory.mktemp("pack"))
    workspace.notes.mkdir()
    raw = {
        "pads": {"NW": ["windfx"], "NE": ["acoustic_guitar"], "SW": ["pitch"], "SE": ["windfx"]},
        "pitches": [60, 24],
        "resolution": 3,
        "final_length": 700,
    }
    workspace.settings.write_text(json.dumps(raw))
    for number, name in enumerate(("windfx", "acoustic_guitar", "pitch")):
        for pitch in (60, 24):
            write_note(workspace.notes / f"{name}_{pitch}.wav", 100 * (number + 2) + pitch)
    settings = read(workspace.settings)[0]
    assert settings is not None
    engine = open_engine(small_checkpoint)
    prepare.run(workspace, settings, engine, quiet=True)
    generate.run(workspace, settings, engine, quiet=True)
    pads.run(workspace, settings, quiet=True)
    return workspace


def test_bug_1_the_pads_name_and_the_devices_corners_are_in_one_order(pack: Workspace):
    (pad,) = pack.pads.glob("*.bin")
    assert pad.name == "windfx_acoustic_guitar_pitch_windfx.bin"
    device = json.loads(pack.device_settings.read_text())
    names = [corner["instruments"][0]["name"] for corner in device["corners"]]
    assert "_".join(names) + ".bin" == pad.name


def test_bug_3_final_length_decides_the_size(pack: Workspace):
    (pad,) = pack.pads.glob("*.bin")
    assert pad.stat().st_size == 3**2 * 2 * 700 * 2


def test_bug_5_no_pad_is_empty_under_python_3(pack: Workspace):
    (pad,) = pack.pads.glob("*.bin")
    rows = np.fromfile(pad, "<i2").reshape(9, 2, 700)
    assert rows.any(axis=2).all()


def test_bugs_7_8_and_12_names_with_underscores_w_and_pitch_survive(pack: Workspace):
    plan = Plan.read(pack.plan)
    assert plan is not None
    names = {name for mix in plan.mixes for name, _ in mix.weights}
    assert names == {"windfx", "acoustic_guitar", "pitch"}
    assert pack.embedding("acoustic_guitar", 24).exists()


def test_bug_11_an_embedding_has_two_dimensions(pack: Workspace):
    for path in pack.embeddings.glob("*.npy"):
        embedding = np.load(path)
        assert embedding.shape == (125, 16)
        assert embedding.dtype == np.float32


def test_bug_12_an_instrument_in_two_corners_keeps_both_weights(pack: Workspace):
    plan = Plan.read(pack.plan)
    assert plan is not None
    weights = [dict(mix.weights) for mix in plan.mixes]
    middle = {"windfx": 0.5, "acoustic_guitar": 0.25, "pitch": 0.25}
    assert any(w == pytest.approx(middle) for w in weights)
    assert all(sum(w.values()) == pytest.approx(1.0) for w in weights)


def test_bug_14_a_clip_is_never_reused_for_another_sound(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    assert command("run", "-w", workspace.root).returncode == 0
    before = workspace.pad("flute_oboe_tin_drum_viola").read_bytes()
    for pitch in (48, 60):
        write_note(workspace.notes / f"flute_{pitch}.wav", 997.0)
    assert command("run", "-w", workspace.root, "--replan").returncode == 0
    after = workspace.pad("flute_oboe_tin_drum_viola").read_bytes()
    rows = [np.frombuffer(pad, "<i2").reshape(9, 2, 300) for pad in (before, after)]
    changed = (rows[0] != rows[1]).any(axis=(1, 2))
    # All but the edges and corners that have no flute in them: right column, bottom row.
    assert changed.tolist() == [True, True, False, True, True, False, False, False, False]


def test_bug_15_no_stage_moves_or_changes_what_the_one_before_it_made(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    assert command("prepare", "-w", workspace.root).returncode == 0
    made = [workspace.plan, *workspace.notes.iterdir(), *workspace.embeddings.iterdir()]
    before = {path: path.read_bytes() for path in made}
    assert command("run", "-w", workspace.root).returncode == 0
    assert {path: path.read_bytes() for path in made} == before


def test_bug_22_every_missing_note_is_listed_before_anything_runs(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    for note in ("flute_48", "oboe_60", "viola_48"):
        (workspace.notes / f"{note}.wav").unlink()
    said = command("run", "-w", workspace.root).stderr
    for line in ("flute_48: missing", "oboe_60: missing", "viola_48: missing"):
        assert line in said
    assert not workspace.embeddings.exists()


def test_bug_24_a_note_need_not_be_four_seconds_long(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    write_note(workspace.notes / "flute_48.wav", 130.8, seconds=0.3, rate=44_100)
    write_note(workspace.notes / "flute_60.wav", 261.6, seconds=9.0, rate=48_000)
    assert command("run", "-w", workspace.root).returncode == 0


def test_bug_26_the_same_seed_draws_the_same_clips(
    make_workspace: Callable[..., Workspace], command: Command
):
    made: list[Any] = []
    for name in ("first", "second"):
        workspace = make_workspace(name)
        assert command("run", "-w", workspace.root).returncode == 0
        made.append({path.name: path.read_bytes() for path in workspace.clips.iterdir()})
    assert made[0] == made[1]


def test_bug_27_pads_counts_what_is_missing_before_it_writes_anything(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    assert command("prepare", "-w", workspace.root).returncode == 0
    done = command("pads", "-w", workspace.root)
    assert done.returncode == 2
    assert "18 of 18 clips are not made yet" in done.stderr
    assert not workspace.pads.exists()
