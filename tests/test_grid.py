"""Pad geometry: weights, corners, every mix once."""

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

from nsynth_super.grid import Grid, Mix, cells, corner_weights, mix_weights
from nsynth_super.plan import Plan
from nsynth_super.problems import BadInput
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
    """The upstream formula for one point: 1 - distance, nothing beyond 1, normalised."""
    distances = [np.hypot(x - cx, y - cy) for cx, cy in ((0, 0), (1, 0), (0, 1), (1, 1))]
    nearness = np.array([max(1 - d, 0) for d in distances])
    return nearness / nearness.sum()


@pytest.mark.parametrize("resolution", range(1, 12))
def test_the_weights_are_the_upstream_formulas(resolution: int):
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


def test_the_factory_pack_is_planned_in_seconds_and_little_memory(tmp_path: Path):
    """The whole of it: laid out, written, read again, every block named. In its own process."""
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from nsynth_super.plan import Plan\n"
        "from tests.test_grid import settings\n"
        "begin, found = time.monotonic(), settings(4)\n"
        "names = {f'{i}_{p}': '0' * 64 for i in found.instruments for p in found.pitches}\n"
        "Plan.of(found, 0, '0' * 64, names).write(Path(sys.argv[1]))\n"
        "plan = Plan.read(Path(sys.argv[1]))\n"
        "assert len(plan.mixes) == 118_016 and plan.block_identity(plan.blocks - 1)\n"
        # Not ru_maxrss: a new process inherits the peak of the one that started it.
        "status = Path('/proc/self/status').read_text()\n"
        "peak = int(status.split('VmHWM:')[1].split()[0])\n"
        "print(time.monotonic() - begin, peak / 1e6)\n"
    )
    run = [sys.executable, "-c", code, tmp_path / "plan.json"]
    seconds, gigabytes = map(float, subprocess.check_output(run).split())
    assert seconds < 10
    assert gigabytes < 1


@pytest.mark.parametrize(("resolution", "distinct"), [(9, 77), (11, 117), (1, 1), (2, 4)])
def test_cells_that_sound_alike_are_one_clip(resolution: int, distinct: int):
    grid = Grid.of(settings(1, resolution=resolution, pitches=[60]))
    assert len(grid.mixes) == distinct


def test_the_corners_are_where_their_names_say():
    """DEVICE.md 1.3: upstream put SE at the bottom left and SW at the bottom right."""
    grid = Grid.of(settings(1, resolution=3, pitches=[60]))
    top_left, top_right, bottom_left, bottom_right = (
        grid.mixes[grid.where[0, cell, 0]].weights for cell in (0, 2, 6, 8)
    )
    assert top_left == (("nw0", 1.0),)
    assert top_right == (("ne0", 1.0),)
    assert bottom_left == (("sw0", 1.0),)
    assert bottom_right == (("se0", 1.0),)


def test_x_runs_fastest_and_y_downwards():
    assert cells(3).tolist()[:4] == [[0, 0], [0.5, 0], [1, 0], [0, 0.5]]


def test_an_instrument_in_two_corners_is_summed():
    """DEVICE.md 2 no. 12: upstream kept only the last corner's weight in the name."""
    assert mix_weights(("kick", "pad", "kick", "bass"), (0.5, 0.2, 0.3, 0.0)) == (
        ("kick", 0.8),
        ("pad", 0.2),
    )


def test_weights_are_exact_and_not_rounded_to_three_decimals():
    grid = Grid.of(settings(1, resolution=4, pitches=[60]))
    weights = dict(grid.mixes[grid.where[0, 5, 0]].weights)
    expected = upstream_weights(1 / 3, 1 / 3)
    for name, weight in zip(("nw0", "ne0", "sw0", "se0"), expected, strict=True):
        assert weights[name] == pytest.approx(weight, abs=1e-15)


def test_an_instrument_may_be_called_pitch():
    """DEVICE.md 2 no. 12: upstream sorted 'pitch' in among the instruments."""
    assert Mix(60, (("pitch", 1.0),)).key != Mix(60, (("flute", 1.0),)).key


def test_a_pack_begins_with_its_corners():
    sizes = [len(mix.weights) for mix in Grid.of(settings(2)).mixes]
    assert sizes == sorted(sizes)
    assert sizes[: 8 * 16] == [1] * (8 * 16)


def test_a_mixs_key_never_changes():
    """Random numbers hang on it: another key, another pack."""
    assert Mix(60, (("flute", 0.25), ("marimba", 0.75))).key == KEY_OF_FLUTE_AND_MARIMBA


KEY_OF_FLUTE_AND_MARIMBA = 6418460837051785326


def small_plan() -> Plan:
    mixes = [Mix(60, (("flute", 1.0),)), Mix(60, (("flute", 0.1), ("oboe", 0.9)))]
    made_from = {"flute_60": "f" * 64, "oboe_60": "0" * 64}
    return Plan({"pitches": [60], "seed": 7}, 7, 4500, "c" * 64, made_from, mixes)


def test_a_plans_names_never_change():
    """Blocks on disk are found by them: another name, and days of work are made again."""
    plan = small_plan()
    assert plan.block_identity(0) == "c8029b5670c3"
    assert plan.clip_identity(plan.mixes[1]).startswith("631d91fa685f18ef87b2e1aab5fca160")
    assert plan.identity.startswith("3af8fab6ef47d129eb82172e55b3009f")


def test_a_plan_comes_back_from_its_file_as_it_was(tmp_path: Path):
    found = settings(2, resolution=5, pitches=[60, 48])
    names = {f"{i}_{p}": f"{p:064d}" for i in found.instruments for p in found.pitches}
    plan = Plan.of(found, 3, "c" * 64, names)
    plan = plan.going_on_with({plan.clip_identity(mix): 100 for mix in plan.mixes[::3]})
    plan.write(tmp_path / "plan.json")
    again = Plan.read(tmp_path / "plan.json")
    assert again == plan
    assert again.identity == plan.identity
    assert again.block_identity(0) == plan.block_identity(0)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [("0.9", "0.90001"), ('"seed": 7,', '"seed": 8,'), ('["flute", ', '["flut", '), ("4500", "1")],
)
def test_a_plan_of_which_a_word_was_changed_is_refused(tmp_path: Path, was: str, becomes: str):
    path = tmp_path / "plan.json"
    small_plan().write(path)
    content = path.read_text()
    assert was in content
    path.write_text(content.replace(was, becomes, 1))
    with pytest.raises(BadInput, match="is damaged"):
        Plan.read(path)


def test_garbage_is_collected_again_when_a_plan_is_read_or_refused(tmp_path: Path):
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
def test_every_place_on_every_pad_plays_its_own_mix(
    lists: Any, resolution: int, pitches: list[int]
):
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
