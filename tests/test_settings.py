"""Tests of settings.json: accepted values, and problems reported together with their keys."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsynth_super.pack.geometry import Geometry
from nsynth_super.settings import Settings, inspect, pad_name, read

UPSTREAM: dict[str, Any] = {
    "pads": {
        "NW": ["brass", "caridle", "crotales", "electroclav"],
        "NE": ["fatpoly", "flute", "softpad", "kick"],
        "SW": ["marimba", "electricpiano", "snare", "steeldrum"],
        "SE": ["synthbrass", "cleanbass", "uprightbass", "windfx"],
    },
    "magenta_dir": "~/magenta",
    "pitches": [24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64, 68, 72, 76, 80, 84],
    "resolution": 9,
    "final_length": 60000,
    "gpus": 16,
}


def changed(**changes: Any) -> dict[str, Any]:
    return {**deepcopy(UPSTREAM), **changes}


def corners(**changes: Any) -> dict[str, Any]:
    return changed(pads={**deepcopy(UPSTREAM["pads"]), **changes})


def lines(raw: dict[str, Any], level: str = "error") -> list[str]:
    return [str(problem) for problem in inspect(raw)[1] if problem.level == level]


def test_upstream_settings_are_accepted_unchanged():
    settings, _ = inspect(UPSTREAM)
    assert settings is not None
    assert not lines(UPSTREAM)
    assert not lines(UPSTREAM, "warning")
    assert settings.seed == 0
    assert settings.decoded_samples == 64_000
    assert Geometry.of(settings).bytes == 155_520_000
    assert len(settings.combinations) == 256


def test_gpus_and_magenta_dir_are_noted_as_ignored():
    explained = lines(UPSTREAM, "note")
    assert len(explained) == 2
    assert all("is ignored" in line for line in explained)


@pytest.mark.parametrize(
    ("raw", "key", "says"),
    [
        (corners(NW=[]), "pads.NW", "is empty"),
        (
            {**UPSTREAM, "pads": {k: v for k, v in UPSTREAM["pads"].items() if k != "SE"}},
            "pads.SE",
            "missing",
        ),
        (corners(SW=["marimba", "marimba"]), "pads.SW", "2 times"),
        (corners(SW=["a/b"]), "pads.SW[0]", "not allowed"),
        (corners(SW=["what?"]), "pads.SW[0]", "not allowed"),
        (corners(SW=["tab\tbed"]), "pads.SW[0]", "not allowed"),
        (corners(SW=[" flute"]), "pads.SW[0]", "space"),
        (corners(SW=[".hidden"]), "pads.SW[0]", "hidden file"),
        (corners(SW=["  "]), "pads.SW[0]", "empty"),
        (corners(SW=[7]), "pads.SW[0]", "7"),
        (corners(XX=["a"]), "pads.XX", "not a corner"),
        (corners(NW=["Flute"]), "pads", "ignores case"),
        (corners(NW=["a", "a_b"], NE=["b_c", "c"]), "pads", "would share a_c"),
        (corners(NW=["x" * 100], NE=["y" * 100], SW=["z" * 60]), "pads", "bytes, more than 255"),
        (changed(pitches=[]), "pitches", "is empty"),
        (changed(pitches=[60, 128]), "pitches[1]", "0 to 127"),
        (changed(pitches=[-1]), "pitches[0]", "0 to 127"),
        (changed(pitches=[60, 64, 60]), "pitches", "60 2 times"),
        (changed(pitches=[60.5]), "pitches[0]", "60.5"),
        (changed(pitches=["60"]), "pitches[0]", "'60'"),
        (changed(resolution=12), "resolution", "1 to 11"),
        (changed(resolution=0), "resolution", "1 to 11"),
        (changed(final_length=0), "final_length", "1 to 64000"),
        (changed(final_length=64001), "final_length", "1 to 64000"),
        (changed(seed=-1), "seed", "an integer from 0"),
        (changed(resolution=True), "resolution", "True"),
        (changed(names={"flute": {"display": "NINE LONG"}}), "names.flute.display", "1 to 8"),
        (changed(names={"flute": {"abbr": "F"}}), "names.flute.abbr", "abbr has 2"),
        (changed(names={"flute": {"abbr": "F\t"}}), "names.flute.abbr", "printable"),
        (changed(names={"flute": {"label": "FL"}}), "names.flute.label", "'FL'"),
        (changed(names={"flut": {}}), "names.flut", "did you mean flute?"),
        (changed(names=["flute"]), "names", "cannot be ['flute']"),
        (changed(looping="no"), "looping", "true or false"),
    ],
)
def test_an_invalid_value_is_reported_with_its_key(raw: dict[str, Any], key: str, says: str):
    if says.startswith("would share"):
        says = "would share a"
    found = [line for line in lines(raw) if line.startswith(f"settings.json {key}:")]
    assert any(says in line for line in found), lines(raw)
    assert inspect(raw)[0] is None


def test_labels_and_looping_do_not_affect_the_clips():
    names = {"electricpiano": {"display": "E PIANO", "abbr": "EP"}, "flute": {}}
    settings, problems = inspect(changed(names=names, looping=False))
    assert settings is not None
    assert settings.shaping() == Settings.model_validate(UPSTREAM).shaping()
    assert set(settings.shaping()) == {"pads", "pitches", "resolution", "final_length", "seed"}
    assert settings.names["electricpiano"].display == "E PIANO"
    assert not [problem for problem in problems if problem.level == "warning"]


def test_a_duplicate_label_in_a_corner_is_a_warning():
    names = {"flute": {"display": "SAME"}, "kick": {"display": "SAME"}, "snare": {"abbr": "SA"}}
    assert lines(changed(names=names), "warning") == [
        "settings.json names: 2 instruments of NE have the display 'SAME' -> make them different"
    ]


def test_all_problems_are_reported_at_once():
    raw = {
        "pads": {"NW": [], "NE": ["a", "a"], "SW": ["b"]},
        "pitches": [60, 60, 200],
        "resolution": 99,
    }
    found = "\n".join(lines(raw))
    for key in ("pads.NW", "pads.NE", "pads.SE", "pitches:", "pitches[2]", "resolution"):
        assert f"settings.json {key}" in found


@pytest.mark.parametrize(
    ("count", "warned"), [(1, 0), (2, 0), (3, 1), (4, 0), (5, 1), (6, 1), (8, 0)]
)
def test_an_instrument_count_that_breaks_the_synths_encoder_is_a_warning(count: int, warned: int):
    raw = corners(NW=[f"i{n}" for n in range(count)])
    assert len(lines(raw, "warning")) == warned
    assert inspect(raw)[0] is not None


def test_an_unknown_key_is_a_warning_with_a_suggestion():
    assert "did you mean resolution?" in lines(changed(resolutoin=9), "warning")[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "line 1, column 2"),
        ("[]", "not contain a JSON object"),
        ('{"resolution": 9, "resolution": 5}', "duplicate key 'resolution'"),
        ("\xff", "not valid JSON text"),
    ],
)
def test_an_unreadable_settings_file_is_reported_in_one_line(tmp_path: Path, text: str, says: str):
    path = tmp_path / "settings.json"
    path.write_bytes(text.encode("latin-1"))
    settings, problems = read(path)
    assert settings is None
    assert says in str(problems[0])


def test_a_byte_order_mark_is_accepted(tmp_path: Path):
    path = tmp_path / "settings.json"
    path.write_text("\ufeff" + json.dumps(UPSTREAM), encoding="utf-8")
    assert read(path)[0] is not None


def test_a_missing_file_is_reported_with_the_command_that_creates_it(tmp_path: Path):
    assert "nsynth-super new" in str(read(tmp_path / "settings.json")[1][0])


def test_decoded_samples_never_exceed_four_seconds():
    assert inspect(changed(final_length=64000))[0].decoded_samples == 64_000  # type: ignore[union-attr]
    assert inspect(changed(final_length=300))[0].decoded_samples == 4_300  # type: ignore[union-attr]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from([*Settings.model_fields, "pads", "NW"])


@given(st.dictionaries(keys, anything))
def test_any_json_object_can_be_checked(raw: dict[str, Any]):
    settings, problems = inspect(raw)
    assert (settings is None) == any(problem.level == "error" for problem in problems)
    assert all(len(str(problem).splitlines()) == 1 for problem in problems)


names = st.text(st.characters(categories=["L", "N"], max_codepoint=0x2FF), min_size=1, max_size=8)


@given(st.lists(st.lists(names, min_size=1, max_size=3, unique=True), min_size=4, max_size=4))
def test_valid_names_give_every_combination_a_distinct_file_name(lists: list[list[str]]):
    raw = changed(pads=dict(zip(("NW", "NE", "SW", "SE"), lists, strict=True)))
    settings, _ = inspect(raw)
    if settings is None:
        return
    files = {pad_name(combination).casefold() for combination in settings.combinations}
    assert len(files) == len(settings.combinations)
