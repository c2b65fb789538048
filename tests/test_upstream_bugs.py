"""Tests that the upstream pipeline's bugs do not recur, numbered as in docs/upstream-bugs.md.

Other bugs have tests elsewhere: corners and weights in test_grid.py, names in test_notes.py,
post-processing in test_finishing.py, index 256 in test_model.py.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nsynth_super.base.note_name import NoteName
from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.plan import Plan
from nsynth_super.settings import read
from tests.conftest import write_note

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def pack(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a pack with names that upstream rejected or changed."""
    from nsynth_super.engines.opening import open_engine
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
    engine = open_engine(tiny_checkpoint)
    prepare.run_prepare(workspace, settings, engine, quiet=True)
    generate.run_generate(workspace, settings, engine, quiet=True)
    pads.run_pads(workspace, settings, quiet=True)
    return workspace


def test_bug_1_pad_names_and_the_synths_corners_have_the_same_order(pack: Workspace):
    (pad,) = pack.pads.glob("*.bin")
    assert pad.name == "windfx_acoustic_guitar_pitch_windfx.bin"
    settings = json.loads(pack.synth_settings.read_text())
    names = [corner["instruments"][0]["name"] for corner in settings["corners"]]
    assert "_".join(names) + ".bin" == pad.name


def test_bug_3_final_length_determines_the_pad_size(pack: Workspace):
    (pad,) = pack.pads.glob("*.bin")
    assert pad.stat().st_size == 3**2 * 2 * 700 * 2


def test_bug_5_no_pad_is_empty_under_python_3(pack: Workspace):
    (pad,) = pack.pads.glob("*.bin")
    rows = np.fromfile(pad, "<i2").reshape(9, 2, 700)
    assert rows.any(axis=2).all()


def test_bugs_7_8_and_12_names_may_contain_underscores_w_and_pitch(pack: Workspace):
    plan = Plan.read(pack.plan)
    assert plan is not None
    names = {name for mix in plan.mixes for name, _ in mix.weights}
    assert names == {"windfx", "acoustic_guitar", "pitch"}
    assert pack.embedding(NoteName("acoustic_guitar", 24)).exists()


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


def test_bug_14_a_stale_clip_is_never_reused(made_pack: Workspace, command: Command):
    workspace = made_pack
    before = workspace.pad("flute_oboe_tin_drum_viola").read_bytes()
    for pitch in (48, 60):
        write_note(workspace.notes / f"flute_{pitch}.wav", 997.0)
    assert command("run", "-w", workspace.root, "--replan").returncode == 0
    after = workspace.pad("flute_oboe_tin_drum_viola").read_bytes()
    rows = [np.frombuffer(pad, "<i2").reshape(9, 2, 300) for pad in (before, after)]
    changed = (rows[0] != rows[1]).any(axis=(1, 2))
    # The right column and the bottom row contain no flute.
    assert changed.tolist() == [True, True, False, True, True, False, False, False, False]


def test_bug_15_no_stage_moves_or_changes_its_input(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    assert command("prepare", "-w", workspace.root).returncode == 0
    made = [workspace.plan, *workspace.notes.iterdir(), *workspace.embeddings.iterdir()]
    before = {path: path.read_bytes() for path in made}
    assert command("run", "-w", workspace.root).returncode == 0
    assert {path: path.read_bytes() for path in made} == before


def test_bug_22_all_missing_notes_are_listed_before_anything_runs(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    for note in ("flute_48", "oboe_60", "viola_48"):
        (workspace.notes / f"{note}.wav").unlink()
    output = command("run", "-w", workspace.root).stderr
    for line in ("flute_48: missing", "oboe_60: missing", "viola_48: missing"):
        assert line in output
    assert not workspace.embeddings.exists()


def test_bug_24_a_note_may_have_any_length(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    write_note(workspace.notes / "flute_48.wav", 130.8, seconds=0.3, rate=44_100)
    write_note(workspace.notes / "flute_60.wav", 261.6, seconds=9.0, rate=48_000)
    assert command("prepare", "-w", workspace.root).returncode == 0


@pytest.mark.slow
def test_bug_26_a_seed_gives_the_same_clips_in_a_new_process(
    made_pack: Workspace, make_workspace: Callable[..., Workspace], new_process: Command
):
    again = make_workspace("again")
    done = new_process("run", "-w", again.root, env={"PYTHONHASHSEED": "1"})
    assert done.returncode == 0, done.stderr
    made = [{f.name: f.read_bytes() for f in w.clips.iterdir()} for w in (made_pack, again)]
    assert made[0] == made[1]


def test_bug_27_pads_counts_missing_clips_before_it_writes_anything(
    make_workspace: Callable[..., Workspace], command: Command
):
    workspace = make_workspace()
    assert command("prepare", "-w", workspace.root).returncode == 0
    done = command("pads", "-w", workspace.root)
    assert done.returncode == 2
    assert "18 of 18 clips are missing" in done.stderr
    assert not workspace.pads.exists()
