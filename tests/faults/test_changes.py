"""Something changed under a half-made pack: what it invalidates is named, the rest is kept."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsynth_super.plan import BLOCK, Plan
from nsynth_super.wavenet import checkpoint
from nsynth_super.wavenet import random as untrained
from nsynth_super.workspace import Workspace
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
"""What is changed; what is said of it; how many clips are kept; how many at least by a part."""


@pytest.mark.parametrize("what", CHANGES)
def test_changed_settings_are_refused_and_what_is_still_valid_is_kept(
    what: str, run: RUN, half: Workspace
) -> None:
    settings, said, whole, begun = CHANGES[what]
    record(half, "piano", SETTINGS["pitches"], 1.1)
    for instrument in ("flute", "oboe", "tin_drum", "harp", "viola"):
        record(half, instrument, [72], 1.1)
    plan, codes = half.plan.read_bytes(), codes_by_mix(half)
    change(half, **settings)
    for stage in ("generate", "pads"):
        refuses(run(stage, half), 2, "changed since the plan was made", said)
    refuses(run("prepare", half), 2, said, "prepare --replan")
    assert half.plan.read_bytes() == plan
    ended = done(run("prepare", half, "--replan"))
    kept = codes_by_mix(half)
    samples = Plan.read(half.plan).samples
    assert (f", {whole} of them kept" in ended.said) == bool(whole)
    assert sum(len(clip) == samples for clip in kept.values()) == whole
    assert len(kept) == begun
    for mix, clip in kept.items():
        length = min(len(clip), len(codes[mix]))
        assert length > 3000
        assert clip[:length] == codes[mix][:length]


@pytest.mark.parametrize("what", ["an instrument swapped", "a shorter sound"])
def test_a_replanned_pack_ends_as_one_made_from_scratch(
    what: str, run: RUN, half: Workspace, whole: Workspace, tmp_path: Path
) -> None:
    """But for rounding: its clips were decoded in other company than they would be in now."""
    pack = half if what == "an instrument swapped" else whole
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


def test_a_note_that_changed_has_its_clips_made_anew_and_no_others(
    run: RUN, two_blocks: tuple[Workspace, Workspace], tmp_path: Path
) -> None:
    pack = copied(two_blocks[1], tmp_path / "pack")
    before = codes_by_mix(pack)
    record(pack, "oboe", [48], 2.0)
    refused = run("prepare", pack)
    refuses(refused, 2, "oboe_48 sound different: 22 of 116 clips are made anew", "--replan")
    assert "64 of them kept" in done(run("prepare", pack, "--replan")).said
    kept = codes_by_mix(pack)
    assert len(kept) == 64
    assert all(codes == before[mix] for mix, codes in kept.items())
    done(run("generate", pack, "--batch-clips", BLOCK))
    after = codes_by_mix(pack)
    stale = {mix for mix in after if mix.pitch == 48 and "oboe" in dict(mix.weights)}
    assert len(stale) == 22
    assert not any(after[mix] == before[mix] for mix in stale)
    # Those that do not fill a block are decoded again, in other company: but for rounding, alike.
    same = [after[mix] == before[mix] for mix in after.keys() - stale]
    assert np.mean(same) > 0.9

    # The pads that stand there are of the earlier plan: no manifest vouches for them while they
    # are replaced, and none of them is taken for a new one.
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


def test_a_refused_prepare_has_changed_nothing(run: RUN, half: Workspace) -> None:
    """Neither the changed note's embedding, nor another's that is made in the same run."""
    lost = half.embedding("flute", 60)
    content = lost.read_bytes()
    lost.unlink()
    record(half, "viola", [48], 2.0)
    before = contents(half.embeddings)
    refuses(run("prepare", half), 2, "viola_48 sound different", "--replan")
    assert contents(half.embeddings) == before
    lost.write_bytes(content)
    done(run("generate", half))
    assert "116 clips are there" in done(run("generate", half)).said


def test_a_changed_note_is_noticed_where_nothing_says_what_was_encoded(
    run: RUN, half: Workspace
) -> None:
    """Then it must be encoded to be known; what would cost clips is not written all the same."""
    half.embeddings.joinpath("origins.json").unlink()
    record(half, "viola", [48], 2.0)
    before = half.embedding("viola", 48).read_bytes()
    refuses(run("prepare", half), 2, "viola_48 sound different", "--replan")
    assert half.embedding("viola", 48).read_bytes() == before
    assert "notes encoded, planned" in done(run("prepare", half, "--replan")).said
    assert half.embedding("viola", 48).read_bytes() != before


def test_a_note_that_is_as_it_was_has_the_plan_stand(
    run: RUN, whole: Workspace, one_block: tuple[Workspace, Workspace]
) -> None:
    note = whole.notes / "viola_48.wav"
    content = note.read_bytes()
    record(whole, "viola", [48], 2.0)
    assert run("prepare", whole).code == 2
    note.write_bytes(content)
    assert "0 notes encoded, the plan stands" in done(run("prepare", whole)).said
    done(run("generate", whole))
    assert made(whole) == made(one_block[1])


def test_another_checkpoint_is_refused(run: RUN, whole: Workspace, tmp_path: Path) -> None:
    another = tmp_path / "another.safetensors"
    checkpoint.save(untrained.weights(SMALL, 4), another, "test")
    refuses(
        run("generate", whole, "--checkpoint", another),
        *(2, "not the one that the plan was made with", "name that one with --checkpoint"),
    )
    refuses(
        run("prepare", whole, "--checkpoint", another),
        *(2, "another checkpoint: every clip is made anew", "--replan"),
    )
    ended = done(run("prepare", whole, "--checkpoint", another, "--replan"))
    assert "planned 18 clips" in ended.said
    assert "kept" not in ended.said


def test_pads_that_the_pack_no_longer_has_are_taken_away(
    run: RUN, two_blocks: tuple[Workspace, Workspace], tmp_path: Path
) -> None:
    pack = copied(two_blocks[1], tmp_path / "pack")
    foreign = pack.pads / "somebody_elses_own_pad.bin"
    foreign.write_bytes(b"12")
    change(pack, pads={**TWO_BLOCKS["pads"], "NW": ["flute"]})
    assert "72 clips, 72 of them kept" in done(run("prepare", pack, "--replan")).said
    assert "0 of them made now" in done(run("generate", pack)).said
    done(run("pads", pack))
    assert {path.name for path in pack.pads.glob("*.bin")} == {
        "flute_tin_drum_harp_viola.bin",
        foreign.name,
    }
