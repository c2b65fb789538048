"""Tests of the grid (weights, corners, distinct mixes) and the plan."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsynth_super.base.errors import BadInput
from nsynth_super.pack.grid import Grid, Mix, cells, corner_weights, mix_weights
from nsynth_super.pack.plan import Plan
from nsynth_super.settings import CORNERS, Settings, inspect


def settings(instruments: int, **changes: Any) -> Settings:
    raw = {
        "pads": {c: [f"{c.lower()}{n}" for n in range(instruments)] for c in CORNERS},
        "pitches": list(range(24, 85, 4)),
        "resolution": 9,
        **changes,
    }
    found, problems = inspect(raw)
    assert found is not None, problems
    return found


def upstream_weights(x: float, y: float) -> np.ndarray:
    """Return the upstream weights of one point: 1 - distance, at least 0, normalised."""
    distances = [np.hypot(x - cx, y - cy) for cx, cy in ((0, 0), (1, 0), (0, 1), (1, 1))]
    nearness = np.array([max(1 - d, 0) for d in distances])
    return nearness / nearness.sum()


@pytest.mark.parametrize("resolution", range(1, 12))
def test_corner_weights_follow_the_upstream_formula(resolution: int):
    ours = corner_weights(resolution)
    theirs = [upstream_weights(x, y) for x, y in cells(resolution)]
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
    np.testing.assert_allclose(ours.sum(axis=1), 1.0)


@pytest.mark.parametrize(("instruments", "clips"), [(1, 1_232), (2, 10_368), (4, 118_016)])
def test_every_distinct_mix_is_planned_once(instruments: int, clips: int):
    grid = Grid.of(settings(instruments))
    assert len(grid.mixes) == clips
    assert len(set(grid.mixes)) == clips
    assert len({mix.key for mix in grid.mixes}) == clips
    assert set(np.unique(grid.where)) == set(range(clips))


@pytest.mark.slow
def test_planning_the_factory_pack_takes_less_than_a_gigabyte(tmp_path: Path):
    """Measure the peak of a new process that makes, writes and reads the plan."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from nsynth_super.pack.plan import Plan\n"
        "from tests.test_grid import settings\n"
        "found = settings(4)\n"
        "names = {f'{i}_{p}': '0' * 64 for i in found.instruments for p in found.pitches}\n"
        "Plan.of(found, 0, '0' * 64, names).write(Path(sys.argv[1]))\n"
        "plan = Plan.read(Path(sys.argv[1]))\n"
        "assert len(plan.mixes) == 118_016 and plan.block_identity(plan.blocks - 1)\n"
        # Not ru_maxrss, which a new process inherits from its parent.
        "status = Path('/proc/self/status').read_text()\n"
        "peak = int(status.split('VmHWM:')[1].split()[0])\n"
        "print(peak / 1e6)\n"
    )
    run = [sys.executable, "-c", code, tmp_path / "plan.json"]
    assert float(subprocess.check_output(run)) < 1


@pytest.mark.parametrize(("resolution", "distinct"), [(9, 77), (11, 117), (1, 1), (2, 4)])
def test_cells_with_equal_weights_share_a_clip(resolution: int, distinct: int):
    grid = Grid.of(settings(1, resolution=resolution, pitches=[60]))
    assert len(grid.mixes) == distinct


def test_each_corner_is_where_its_name_says():
    """Upstream put SE at the bottom left and SW at the bottom right."""
    grid = Grid.of(settings(1, resolution=3, pitches=[60]))
    top_left, top_right, bottom_left, bottom_right = (
        grid.mixes[grid.where[0, cell, 0]].weights for cell in (0, 2, 6, 8)
    )
    assert top_left == (("nw0", 1.0),)
    assert top_right == (("ne0", 1.0),)
    assert bottom_left == (("sw0", 1.0),)
    assert bottom_right == (("se0", 1.0),)


def test_x_varies_fastest_and_y_increases_downwards():
    assert cells(3).tolist()[:4] == [[0, 0], [0.5, 0], [1, 0], [0, 0.5]]


def test_the_weights_of_an_instrument_in_two_corners_are_added():
    """Upstream kept only the weight of the last corner (bug 12)."""
    assert mix_weights(("kick", "pad", "kick", "bass"), (0.5, 0.2, 0.3, 0.0)) == (
        ("kick", 0.8),
        ("pad", 0.2),
    )


def test_weights_are_not_rounded_to_three_decimals():
    grid = Grid.of(settings(1, resolution=4, pitches=[60]))
    weights = dict(grid.mixes[grid.where[0, 5, 0]].weights)
    expected = upstream_weights(1 / 3, 1 / 3)
    for name, weight in zip(("nw0", "ne0", "sw0", "se0"), expected, strict=True):
        assert weights[name] == pytest.approx(weight, abs=1e-15)


def test_an_instrument_may_be_named_pitch():
    """Upstream reserved the name (bug 12)."""
    assert Mix(60, (("pitch", 1.0),)).key != Mix(60, (("flute", 1.0),)).key


def test_single_instruments_come_first():
    sizes = [len(mix.weights) for mix in Grid.of(settings(2)).mixes]
    assert sizes == sorted(sizes)
    assert sizes[: 8 * 16] == [1] * (8 * 16)


def test_the_key_of_a_mix_never_changes():
    """The key selects the random numbers: another key would change every clip."""
    assert Mix(60, (("flute", 0.25), ("marimba", 0.75))).key == KEY_OF_FLUTE_AND_MARIMBA


KEY_OF_FLUTE_AND_MARIMBA = 6418460837051785326


def small_plan() -> Plan:
    mixes = [Mix(60, (("flute", 1.0),)), Mix(60, (("flute", 0.1), ("oboe", 0.9)))]
    made_from = {"flute_60": "f" * 64, "oboe_60": "0" * 64}
    return Plan({"pitches": [60], "seed": 7}, 7, 4500, "c" * 64, made_from, mixes)


def test_the_hashes_of_a_plan_never_change():
    """The hashes are part of the blocks' file names: other hashes would discard days of work."""
    plan = small_plan()
    assert plan.block_identity(0) == "c8029b5670c3"
    assert plan.clip_identity(plan.mixes[1]).startswith("631d91fa685f18ef87b2e1aab5fca160")
    assert plan.identity.startswith("3af8fab6ef47d129eb82172e55b3009f")


def test_a_plan_survives_writing_and_reading(tmp_path: Path):
    found = settings(2, resolution=5, pitches=[60, 48])
    names = {f"{i}_{p}": f"{p:064d}" for i in found.instruments for p in found.pitches}
    plan = Plan.of(found, 3, "c" * 64, names)
    plan = plan.with_decoded_first({plan.clip_identity(mix): 100 for mix in plan.mixes[::3]})
    plan.write(tmp_path / "plan.json")
    again = Plan.read(tmp_path / "plan.json")
    assert again == plan
    assert again.identity == plan.identity
    assert again.block_identity(0) == plan.block_identity(0)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [("0.9", "0.90001"), ('"seed": 7,', '"seed": 8,'), ('["flute", ', '["flut", '), ("4500", "1")],
)
def test_a_modified_plan_file_is_rejected(tmp_path: Path, was: str, becomes: str):
    path = tmp_path / "plan.json"
    small_plan().write(path)
    content = path.read_text()
    assert was in content
    path.write_text(content.replace(was, becomes, 1))
    with pytest.raises(BadInput, match="is damaged"):
        Plan.read(path)


def test_garbage_collection_is_enabled_again_after_reading_a_plan(tmp_path: Path):
    path = tmp_path / "plan.json"
    small_plan().write(path)
    assert Plan.read(path) is not None
    assert gc.isenabled()
    path.write_text("{")
    with pytest.raises(BadInput):
        Plan.read(path)
    assert gc.isenabled()


@given(
    st.lists(
        st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3, unique=True),
        min_size=4,
        max_size=4,
    ),
    st.integers(1, 11),
    st.lists(st.integers(0, 127), min_size=1, max_size=3, unique=True),
)
def test_every_place_on_every_pad_plays_its_mix(lists: Any, resolution: int, pitches: list[int]):
    found, _ = inspect(
        {
            "pads": dict(zip(CORNERS, lists, strict=True)),
            "pitches": pitches,
            "resolution": resolution,
        }
    )
    if found is None:
        return
    grid = Grid.of(found)
    weights = corner_weights(resolution)
    for c, combination in enumerate(grid.combinations):
        for cell in (0, resolution - 1, len(weights) // 2, len(weights) - 1):
            for p, pitch in enumerate(pitches):
                mix = grid.mixes[grid.where[c, cell, p]]
                assert mix.pitch == pitch
                expected = dict(mix_weights(combination, weights[cell].tolist()))
                assert dict(mix.weights) == pytest.approx(expected, abs=1e-9)
    heard = sorted(place for mix in range(len(grid.mixes)) for place in grid.places_of(mix))
    rows = resolution**2 * len(pitches)
    assert heard == [(c, row) for c in range(len(grid.combinations)) for row in range(rows)]
