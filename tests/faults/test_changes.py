"""Changes to an unfinished pack: invalid parts are reported, valid parts are kept."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsynth_super.base.note_name import NoteName
from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.plan import BLOCK, Plan
from nsynth_super.wavenet import checkpoint
from nsynth_super.wavenet import random as untrained
from tests.conftest import SETTINGS, SMALL
from tests.faults.packs import RUN, TWO_BLOCKS, change, codes_by_mix
from tests.faults.processes import (
    DIE,
    contents,
    copied,
    done,
    made,
    record,
    refuses,
    temporaries,
)

CHANGES: dict[str, tuple[dict[str, Any], str, int, int]] = {
    "a pitch added": ({"pitches": [48, 60, 72]}, "pitches: 72 added", 64, 64),
    "an instrument swapped": (
        {"pads": {**TWO_BLOCKS["pads"], "NW": ["flute", "piano"]}},
        "pads.NW: piano added; oboe removed",
        *(0, 64),
    ),
    "another resolution": ({"resolution": 11}, "resolution: was 6, is 11", 64, 64),
    "another seed": ({"seed": 7}, "seed: was 0, is 7", 0, 0),
    "a shorter sound": ({"final_length": 200}, "final_length: was 300, is 200", 64, 116),
    "a longer sound": ({"final_length": 400}, "final_length: was 300, is 400", 0, 116),
}
"""Changed settings; message; complete clips that are kept; clips of which any codes are kept."""


@pytest.mark.slow
@pytest.mark.parametrize("what", CHANGES)
def test_changed_settings_are_rejected_and_a_replan_keeps_valid_clips(
    what: str, run: RUN, half: Workspace
) -> None:
    settings, message, complete, stored = CHANGES[what]
    record(half, "piano", SETTINGS["pitches"], 1.1)
    for instrument in ("flute", "oboe", "tin_drum", "harp", "viola"):
        record(half, instrument, [72], 1.1)
    plan, codes = half.plan.read_bytes(), codes_by_mix(half)
    change(half, **settings)
    for stage in ("generate", "pads"):
        refuses(run(stage, half), 2, "changed since the plan was made", message)
    refuses(run("prepare", half), 2, message, "prepare --replan")
    assert half.plan.read_bytes() == plan
    ended = done(run("prepare", half, "--replan"))
    kept = codes_by_mix(half)
    samples = Plan.read(half.plan).samples
    assert (f", {complete} of them kept" in ended.said) == bool(complete)
    assert sum(len(clip) == samples for clip in kept.values()) == complete
    assert len(kept) == stored
    for mix, clip in kept.items():
        length = min(len(clip), len(codes[mix]))
        assert length > 3000
        assert clip[:length] == codes[mix][:length]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["an instrument swapped", "a shorter sound"])
def test_a_replanned_pack_equals_one_made_from_scratch(
    what: str, run: RUN, half: Workspace, finished: Workspace, tmp_path: Path
) -> None:
    """Rounding may differ, because clips are decoded in other batches."""
    pack = half if what == "an instrument swapped" else finished
    record(pack, "piano", SETTINGS["pitches"], 1.1)
    change(pack, **CHANGES[what][0])
    done(run("prepare", pack, "--replan"))
    scratch = Workspace(tmp_path / "scratch")
    shutil.copytree(pack.notes, scratch.notes)
    shutil.copy(pack.settings, scratch.settings)
    done(run("prepare", scratch))
    for workspace in (pack, scratch):
        done(run("generate", workspace))
        done(run("pads", workspace))
        assert temporaries(workspace) == []
    ours, theirs = codes_by_mix(pack), codes_by_mix(scratch)
    assert ours.keys() == theirs.keys()
    alike = [mix for mix in ours if ours[mix] == theirs[mix]]
    assert len(alike) > 0.9 * len(ours)
    assert all(ours[mix][:100] == theirs[mix][:100] for mix in ours)
    pads = contents(pack.pads), contents(scratch.pads)
    assert pads[0].keys() == pads[1].keys()
    if len(alike) == len(ours):
        assert all(pads[0][name] == pads[1][name] for name in pads[0] if name.endswith(".bin"))


@pytest.mark.slow
def test_a_changed_note_invalidates_only_its_own_clips(
    run: RUN, two_blocks: tuple[Workspace, Workspace], tmp_path: Path
) -> None:
    pack = copied(two_blocks[1], tmp_path / "pack")
    before = codes_by_mix(pack)
    record(pack, "oboe", [48], 2.0)
    refused = run("prepare", pack)
    refuses(refused, 2, "notes changed (oboe_48): 22 of 116 clips must be regenerated", "--replan")
    assert "64 of them kept" in done(run("prepare", pack, "--replan")).said
    kept = codes_by_mix(pack)
    assert len(kept) == 64
    assert all(codes == before[mix] for mix, codes in kept.items())
    done(run("generate", pack, "--batch-clips", BLOCK))
    after = codes_by_mix(pack)
    stale = {mix for mix in after if mix.pitch == 48 and "oboe" in dict(mix.weights)}
    assert len(stale) == 22
    assert not any(after[mix] == before[mix] for mix in stale)
    # Valid clips that do not fill a block are decoded again in another batch: rounding may differ.
    same = [after[mix] == before[mix] for mix in after.keys() - stale]
    assert np.mean(same) > 0.9

    # The pads of the earlier plan have no manifest while they are replaced, and all are rewritten.
    assert pack.manifest.exists()
    old = list(pack.pads.glob("*.bin"))
    for pad in old:
        os.utime(pad, (0, 0))
    killed = run("pads", pack, before=DIE.format(changes=12, root=str(pack.root)))
    assert killed.code == -signal.SIGKILL
    assert not pack.manifest.exists()
    done(run("pads", pack))
    assert sorted(pack.pads.glob("*.bin")) == sorted(old)
    assert all(pad.stat().st_mtime > 0 for pad in old)
    assert json.loads(pack.manifest.read_text())["plan"] == Plan.read(pack.plan).identity


@pytest.mark.slow
def test_a_rejected_prepare_changes_no_file(run: RUN, half: Workspace) -> None:
    """Neither the changed note's embedding nor another one from the same run is written."""
    missing = half.embedding(NoteName("flute", 60))
    content = missing.read_bytes()
    missing.unlink()
    record(half, "viola", [48], 2.0)
    before = contents(half.embeddings)
    refuses(run("prepare", half), 2, "notes changed (viola_48)", "--replan")
    assert contents(half.embeddings) == before
    missing.write_bytes(content)
    done(run("generate", half))
    assert "116 clips complete" in done(run("generate", half)).said


@pytest.mark.slow
def test_a_changed_note_is_detected_without_origins(run: RUN, half: Workspace) -> None:
    """The note is then encoded, but an embedding that invalidates clips is not written."""
    half.embeddings.joinpath("origins.json").unlink()
    record(half, "viola", [48], 2.0)
    before = half.embedding(NoteName("viola", 48)).read_bytes()
    refuses(run("prepare", half), 2, "notes changed (viola_48)", "--replan")
    assert half.embedding(NoteName("viola", 48)).read_bytes() == before
    assert "notes encoded, planned" in done(run("prepare", half, "--replan")).said
    assert half.embedding(NoteName("viola", 48)).read_bytes() != before


@pytest.mark.slow
def test_a_restored_note_keeps_the_plan_valid(
    run: RUN, finished: Workspace, one_block: tuple[Workspace, Workspace]
) -> None:
    note = finished.notes / "viola_48.wav"
    content = note.read_bytes()
    record(finished, "viola", [48], 2.0)
    assert run("prepare", finished).code == 2
    note.write_bytes(content)
    assert "0 notes encoded, the plan is unchanged" in done(run("prepare", finished)).said
    done(run("generate", finished))
    assert made(finished) == made(one_block[1])


@pytest.mark.slow
def test_another_checkpoint_is_rejected(run: RUN, finished: Workspace, tmp_path: Path) -> None:
    another = tmp_path / "another.safetensors"
    checkpoint.save(untrained.weights(SMALL, 4), another, "test")
    refuses(
        run("generate", finished, "--checkpoint", another),
        *(2, "differs from the plan's", "name the plan's checkpoint with --checkpoint"),
    )
    refuses(
        run("prepare", finished, "--checkpoint", another),
        *(2, "the checkpoint changed: every clip must be regenerated", "--replan"),
    )
    ended = done(run("prepare", finished, "--checkpoint", another, "--replan"))
    assert "planned 18 clips" in ended.said
    assert "kept" not in ended.said


@pytest.mark.slow
def test_pads_of_earlier_settings_are_removed(
    run: RUN, two_blocks: tuple[Workspace, Workspace], tmp_path: Path
) -> None:
    pack = copied(two_blocks[1], tmp_path / "pack")
    foreign = pack.pads / "pad_of_another_program.bin"
    foreign.write_bytes(b"12")
    change(pack, pads={**TWO_BLOCKS["pads"], "NW": ["flute"]})
    assert "72 clips, 72 of them kept" in done(run("prepare", pack, "--replan")).said
    assert "0 of them new" in done(run("generate", pack)).said
    done(run("pads", pack))
    assert {path.name for path in pack.pads.glob("*.bin")} == {
        "flute_tin_drum_harp_viola.bin",
        foreign.name,
    }
