"""What is damaged is named or made again, and never used."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsynth_super import files
from nsynth_super.workspace import Workspace
from tests.faults.packs import RUN, START, change, nearly
from tests.faults.processes import (
    OFTEN,
    contents,
    done,
    drawn,
    made,
    record,
    refuses,
    temporaries,
)


def _cut(path: Path, to: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * to)])


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "cut in its numbers": lambda path: _cut(path, 0.9),
    "cut in its header": lambda path: _cut(path, 0.0005),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a zip file's beginning": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(1000)),
    "another shape": lambda path: np.save(path, np.load(path)[:-1]),
    "another type": lambda path: np.save(path, np.load(path).astype("<i8")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_block_is_made_again(
    damage: Callable[[Path], Any],
    run: RUN,
    whole: Workspace,
    one_block: tuple[Workspace, Workspace],
) -> None:
    block = next(whole.clips.iterdir())
    nearly(whole, np.load(block))
    whole.manifest.unlink()
    damage(block)
    ended = run("pads", whole)
    refuses(ended, 2, "18 of 18 clips are not made yet", "run `nsynth-super generate` first")
    assert f"{block}: is damaged, and will be made again" in ended.said
    ended = done(run("generate", whole))
    assert ended.said.count("is damaged") == 1
    done(run("pads", whole))
    assert made(whole) == made(one_block[1])
    assert temporaries(whole) == []


def test_what_is_made_again_of_a_damaged_block_is_safe_when_it_is_stopped(
    run: RUN, start: START, whole: Workspace, one_block: tuple[Workspace, Workspace]
) -> None:
    block = next(whole.clips.iterdir())
    codes = np.load(block)
    _cut(block, 0.9)
    going = start("generate", whole, before=OFTEN)
    assert going.until(lambda: drawn(whole) > 500)
    going.send(signal.SIGTERM)
    assert going.wait().code == 75
    assert drawn(whole) > 500
    nearly(whole, codes)
    done(run("generate", whole))
    assert contents(whole.clips) == contents(one_block[1].clips)


@pytest.mark.parametrize("damage", ["cut in its numbers", "too long"])
def test_a_damaged_block_under_way_is_begun_anew(
    damage: str, run: RUN, planned: Workspace, one_block: tuple[Workspace, Workspace]
) -> None:
    codes = np.load(next(one_block[1].clips.iterdir()))
    planned.clips.mkdir()
    nearly(planned, codes if damage != "too long" else np.pad(codes, ((0, 0), (0, 200))))
    path = next(planned.clips.iterdir())
    DAMAGES.get(damage, lambda _: None)(path)
    done(run("generate", planned))
    assert contents(planned.clips) == contents(one_block[1].clips)


EMBEDDING_DAMAGES = {
    **DAMAGES,
    "not finite": lambda path: np.save(path, np.full_like(np.load(path), np.nan)),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", EMBEDDING_DAMAGES.values(), ids=EMBEDDING_DAMAGES)
def test_a_damaged_embedding_is_refused_and_made_again(
    damage: Callable[[Path], Any],
    run: RUN,
    planned: Workspace,
    one_block: tuple[Workspace, Workspace],
) -> None:
    path = planned.embedding("tin_drum", 60)
    damage(path)
    refuses(
        run("generate", planned),
        *(2, str(path), "missing or damaged", "run `nsynth-super prepare` again"),
    )
    assert "1 notes encoded, the plan stands" in done(run("prepare", planned)).said
    assert contents(planned.embeddings) == contents(one_block[0].embeddings)


def test_an_embedding_of_something_else_is_refused_and_made_again(
    run: RUN, planned: Workspace, one_block: tuple[Workspace, Workspace]
) -> None:
    path = planned.embedding("tin_drum", 60)
    path.write_bytes(planned.embedding("viola", 60).read_bytes())
    refuses(run("generate", planned), 2, str(path), "changed since the plan was made")
    assert "1 notes encoded, the plan stands" in done(run("prepare", planned)).said
    assert contents(planned.embeddings) == contents(one_block[0].embeddings)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"flute_48": 3}', "\0\xff"])
def test_damaged_origins_cost_the_encoding_and_nothing_else(
    content: str, run: RUN, planned: Workspace, one_block: tuple[Workspace, Workspace]
) -> None:
    planned.origins.write_text(content, encoding="latin-1")
    assert "8 notes encoded, the plan stands" in done(run("prepare", planned)).said
    assert contents(planned.embeddings) == contents(one_block[0].embeddings)
    assert planned.plan.read_bytes() == one_block[0].plan.read_bytes()


PLAN_DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[:-200],
    "cut after a number": lambda content: content[: content.rindex(b"]]]") + 1],
    "empty": lambda content: b"",
    "garbage": lambda content: bytes(range(256)),
    "other JSON": lambda content: b"[1, 2]",
    "another number": lambda content: content.replace(b'"samples": 4300', b'"samples": 4301'),
    "a mix gone": lambda content: content.replace(b"[48, [[0, 1.0]]], ", b"", 1),
    "another kind": lambda content: content.replace(b'"settings": {', b'"settings": 1, "s": {'),
    "deep": lambda content: b"[" * 100_000,
}


@pytest.mark.parametrize("damage", PLAN_DAMAGES.values(), ids=PLAN_DAMAGES)
def test_a_damaged_plan_is_refused_and_made_again_with_replan(
    damage: Callable[[bytes], bytes],
    run: RUN,
    whole: Workspace,
    one_block: tuple[Workspace, Workspace],
) -> None:
    content = whole.plan.read_bytes()
    assert damage(content) != content
    whole.plan.write_bytes(damage(content))
    for stage in ("prepare", "generate", "pads"):
        refuses(run(stage, whole), 2, "plan.json: is damaged", "prepare --replan")
    done(run("prepare", whole, "--replan"))
    assert whole.plan.read_bytes() == content
    for stage in ("generate", "pads"):
        assert "18 of them made" not in done(run(stage, whole)).said
    assert made(whole) == made(one_block[1])


@pytest.mark.parametrize("damage", ["cut short", "gone"])
def test_a_plan_that_is_lost_after_a_replan_costs_no_clip(
    damage: str, run: RUN, whole: Workspace
) -> None:
    """A replanned plan has an order of its own, which its copy knows."""
    for instrument in ("flute", "oboe", "tin_drum", "viola"):
        record(whole, instrument, [72], 1.1)
    change(whole, pitches=[48, 60, 72])
    done(run("prepare", whole, "--replan"))
    done(run("generate", whole))
    clips, plan = contents(whole.clips), whole.plan.read_bytes()
    if damage == "gone":
        whole.plan.unlink()
    else:
        whole.plan.write_bytes(plan[:100])
    done(run("prepare", whole, "--replan"))
    assert whole.plan.read_bytes() == plan
    assert "0 of them made now" in done(run("generate", whole)).said
    assert contents(whole.clips) == clips


def test_a_damaged_plan_without_clips_is_simply_made_again(
    run: RUN, planned: Workspace, one_block: tuple[Workspace, Workspace]
) -> None:
    planned.plan.write_bytes(planned.plan.read_bytes()[:-1000])
    assert "is damaged: planned anew" in done(run("prepare", planned)).said
    assert planned.plan.read_bytes() == one_block[0].plan.read_bytes()


def test_a_damaged_manifest_or_a_short_pad_has_the_pads_made_again(
    run: RUN, whole: Workspace, one_block: tuple[Workspace, Workspace]
) -> None:
    for damage in (
        lambda: _cut(whole.manifest, 0.5),
        lambda: _cut(next(whole.pads.glob("*.bin")), 0.5),
        lambda: whole.device_settings.write_bytes(b"{"),
    ):
        damage()
        done(run("pads", whole))
        assert made(whole) == made(one_block[1])


def test_no_byte_of_a_header_is_believed_blindly(tmp_path: Path) -> None:
    """Whatever it says, the answer is an array of the type asked for, or none."""
    path, chance = tmp_path / "block.npy", random.Random(0)
    codes = np.arange(200, dtype=np.uint8).reshape(10, 20)
    files.write_array(path, codes)
    content = path.read_bytes()
    for position in range(len(content) - codes.size):
        for _ in range(4):
            damaged = bytearray(content)
            damaged[position] = chance.randrange(256)
            path.write_bytes(damaged)
            array = files.read_array(path, "u1", 2)
            assert array is None or (array.dtype == np.uint8 and array.ndim == 2)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert files.read_array(path, "u1", 2) is None
