"""Damaged files are reported or regenerated, and never used."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsynth_super.base import files
from nsynth_super.base.note_name import NoteName
from nsynth_super.base.workspace import Workspace
from tests.faults.packs import RUN, START, change, save_almost_all
from tests.faults.processes import (
    OFTEN,
    contents,
    done,
    made,
    record,
    refuses,
    saved_samples,
    temporaries,
)


def _truncate(path: Path, to: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * to)])


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "data truncated": lambda path: _truncate(path, 0.9),
    "header truncated": lambda path: _truncate(path, 0.0005),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "start of a zip file": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(1000)),
    "another shape": lambda path: np.save(path, np.load(path)[:-1]),
    "another type": lambda path: np.save(path, np.load(path).astype("<i8")),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_block_is_generated_again(
    damage: Callable[[Path], Any],
    run: RUN,
    finished: Workspace,
    one_block: tuple[Workspace, Workspace],
) -> None:
    block = next(finished.clips.iterdir())
    save_almost_all(finished, np.load(block))
    finished.manifest.unlink()
    damage(block)
    ended = run("pads", finished)
    refuses(ended, 2, "18 of 18 clips are missing", "run `nsynth-super generate` first")
    assert f"{block}: is damaged and will be generated again" in ended.said
    ended = done(run("generate", finished))
    assert ended.said.count("is damaged") == 1
    done(run("pads", finished))
    assert made(finished) == made(one_block[1])
    assert temporaries(finished) == []


@pytest.mark.slow
def test_a_stop_saves_the_regenerated_part_of_a_damaged_block(
    run: RUN, start: START, finished: Workspace, one_block: tuple[Workspace, Workspace]
) -> None:
    block = next(finished.clips.iterdir())
    codes = np.load(block)
    _truncate(block, 0.9)
    running = start("generate", finished, before=OFTEN)
    assert running.until(lambda: saved_samples(finished) > 500)
    running.send(signal.SIGTERM)
    assert running.wait().code == 75
    assert saved_samples(finished) > 500
    save_almost_all(finished, codes)
    done(run("generate", finished))
    assert contents(finished.clips) == contents(one_block[1].clips)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["data truncated", "too long"])
def test_a_damaged_unfinished_block_restarts(
    damage: str, run: RUN, planned: Workspace, one_block: tuple[Workspace, Workspace]
) -> None:
    codes = np.load(next(one_block[1].clips.iterdir()))
    planned.clips.mkdir()
    save_almost_all(planned, codes if damage != "too long" else np.pad(codes, ((0, 0), (0, 200))))
    path = next(planned.clips.iterdir())
    DAMAGES.get(damage, lambda _: None)(path)
    done(run("generate", planned))
    assert contents(planned.clips) == contents(one_block[1].clips)


EMBEDDING_DAMAGES = {
    **DAMAGES,
    "not finite": lambda path: np.save(path, np.full_like(np.load(path), np.nan)),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", EMBEDDING_DAMAGES.values(), ids=EMBEDDING_DAMAGES)
def test_a_damaged_embedding_is_rejected_and_prepare_repairs_it(
    damage: Callable[[Path], Any],
    run: RUN,
    planned: Workspace,
    one_block: tuple[Workspace, Workspace],
) -> None:
    path = planned.embedding(NoteName("tin_drum", 60))
    damage(path)
    refuses(
        run("generate", planned),
        *(2, str(path), "missing or damaged", "run `nsynth-super prepare` again"),
    )
    assert "1 notes encoded, the plan is unchanged" in done(run("prepare", planned)).said
    assert contents(planned.embeddings) == contents(one_block[0].embeddings)


@pytest.mark.slow
def test_a_wrong_embedding_is_rejected_and_prepare_repairs_it(
    run: RUN, planned: Workspace, one_block: tuple[Workspace, Workspace]
) -> None:
    path = planned.embedding(NoteName("tin_drum", 60))
    path.write_bytes(planned.embedding(NoteName("viola", 60)).read_bytes())
    refuses(run("generate", planned), 2, str(path), "changed since the plan was made")
    assert "1 notes encoded, the plan is unchanged" in done(run("prepare", planned)).said
    assert contents(planned.embeddings) == contents(one_block[0].embeddings)


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", "{", "[]", '{"flute_48": 3}', "\0\xff"])
def test_damaged_origins_only_cost_encoding_again(
    content: str, run: RUN, planned: Workspace, one_block: tuple[Workspace, Workspace]
) -> None:
    planned.origins.write_text(content, encoding="latin-1")
    assert "8 notes encoded, the plan is unchanged" in done(run("prepare", planned)).said
    assert contents(planned.embeddings) == contents(one_block[0].embeddings)
    assert planned.plan.read_bytes() == one_block[0].plan.read_bytes()


PLAN_DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[:-200],
    "truncated after a number": lambda content: content[: content.rindex(b"]]]") + 1],
    "empty": lambda content: b"",
    "garbage": lambda content: bytes(range(256)),
    "other JSON": lambda content: b"[1, 2]",
    "another number": lambda content: content.replace(b'"samples": 4300', b'"samples": 4301'),
    "a mix removed": lambda content: content.replace(b"[48, [[0, 1.0]]], ", b"", 1),
    "another type": lambda content: content.replace(b'"settings": {', b'"settings": 1, "s": {'),
    "deeply nested": lambda content: b"[" * 100_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", PLAN_DAMAGES.values(), ids=PLAN_DAMAGES)
def test_a_damaged_plan_is_rejected_and_replan_repairs_it(
    damage: Callable[[bytes], bytes],
    run: RUN,
    finished: Workspace,
    one_block: tuple[Workspace, Workspace],
) -> None:
    content = finished.plan.read_bytes()
    assert damage(content) != content
    finished.plan.write_bytes(damage(content))
    for stage in ("prepare", "generate", "pads"):
        refuses(run(stage, finished), 2, "plan.json: is damaged", "prepare --replan")
    done(run("prepare", finished, "--replan"))
    assert finished.plan.read_bytes() == content
    for stage in ("generate", "pads"):
        assert "18 of them new" not in done(run(stage, finished)).said
    assert made(finished) == made(one_block[1])


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_losing_the_plan_after_a_replan_costs_no_clip(
    damage: str, run: RUN, finished: Workspace
) -> None:
    """The order of a replanned plan is preserved in its copy."""
    for instrument in ("flute", "oboe", "tin_drum", "viola"):
        record(finished, instrument, [72], 1.1)
    change(finished, pitches=[48, 60, 72])
    done(run("prepare", finished, "--replan"))
    done(run("generate", finished))
    clips, plan = contents(finished.clips), finished.plan.read_bytes()
    if damage == "missing":
        finished.plan.unlink()
    else:
        finished.plan.write_bytes(plan[:100])
    done(run("prepare", finished, "--replan"))
    assert finished.plan.read_bytes() == plan
    assert "0 of them new" in done(run("generate", finished)).said
    assert contents(finished.clips) == clips


@pytest.mark.slow
def test_a_damaged_plan_without_clips_is_replaced(
    run: RUN, planned: Workspace, one_block: tuple[Workspace, Workspace]
) -> None:
    planned.plan.write_bytes(planned.plan.read_bytes()[:-1000])
    assert "is damaged: making a new one" in done(run("prepare", planned)).said
    assert planned.plan.read_bytes() == one_block[0].plan.read_bytes()


def test_a_damaged_manifest_or_truncated_pad_makes_pads_run_again(
    run: RUN, finished: Workspace, one_block: tuple[Workspace, Workspace]
) -> None:
    for damage in (
        lambda: _truncate(finished.manifest, 0.5),
        lambda: _truncate(next(finished.pads.glob("*.bin")), 0.5),
        lambda: finished.synth_settings.write_bytes(b"{"),
    ):
        damage()
        done(run("pads", finished))
        assert made(finished) == made(one_block[1])


def test_any_damage_to_an_array_header_is_detected(tmp_path: Path) -> None:
    """The result is an array of the expected type, or None."""
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
