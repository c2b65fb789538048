"""What is damaged, full, locked, changed or out of order is said in one line, and never used."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsynth_super import files
from nsynth_super.plan import BLOCK, Plan
from nsynth_super.problems import Failed
from nsynth_super.wavenet import checkpoint
from nsynth_super.wavenet import random as untrained
from nsynth_super.workspace import Workspace
from tests.conftest import SETTINGS, SMALL
from tests.processes import (
    AS_ANYONE,
    DIE,
    OFTEN,
    Command,
    Ended,
    contents,
    copied,
    done,
    drawn,
    made,
    prepared,
    record,
    refuses,
    temporaries,
)

RUN = Callable[..., Ended]
START = Callable[..., Command]

ONE_BLOCK = SETTINGS
"""18 clips."""

TWO_BLOCKS = {
    **SETTINGS,
    "pads": {"NW": ["flute", "oboe"], "NE": ["tin_drum"], "SW": ["harp"], "SE": ["viola"]},
    "resolution": 6,
}
"""116 clips; 72 of them without the oboe, 22 with its note 48."""


@pytest.fixture
def start(small_checkpoint: Path) -> START:
    """Return a function that starts a command on a workspace."""

    def start(stage: str, workspace: Workspace, *words: object, before: str = "") -> Command:
        words = (stage, "-w", workspace.root, *words)
        return Command(*words, checkpoint=small_checkpoint, before=before)

    return start


@pytest.fixture
def run(start: START) -> RUN:
    """Return a function that runs a command on a workspace to its end."""
    return lambda *words, **options: start(*words, **options).wait()


@pytest.fixture(scope="module")
def one_block(
    small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workspace, Workspace]:
    """A pack that is planned, and the same when it is done."""
    return _planned_and_whole(small_checkpoint, tmp_path_factory, ONE_BLOCK)


@pytest.fixture(scope="module")
def two_blocks(
    small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Workspace, Workspace]:
    """A pack that is planned, and the same when it is done, decoded block by block."""
    return _planned_and_whole(small_checkpoint, tmp_path_factory, TWO_BLOCKS)


def _planned_and_whole(
    model: Path, folders: pytest.TempPathFactory, settings: dict[str, Any]
) -> tuple[Workspace, Workspace]:
    planned = prepared(folders.mktemp("planned") / "pack", model, **settings)
    whole = copied(planned, folders.mktemp("whole") / "pack")
    done(
        Command("generate", "-w", whole.root, "--batch-clips", BLOCK, checkpoint=model).wait(),
    )
    done(Command("pads", "-w", whole.root, checkpoint=model).wait())
    return planned, whole


@pytest.fixture
def planned(one_block: tuple[Workspace, Workspace], tmp_path: Path) -> Workspace:
    """A pack of one block, with nothing made."""
    return copied(one_block[0], tmp_path / "planned")


@pytest.fixture
def whole(one_block: tuple[Workspace, Workspace], tmp_path: Path) -> Workspace:
    """The same with everything made."""
    return copied(one_block[1], tmp_path / "whole")


def change(workspace: Workspace, **settings: Any) -> None:
    now = {**json.loads(workspace.settings.read_text(encoding="utf-8")), **settings}
    workspace.settings.write_text(json.dumps(now), encoding="utf-8")


def codes_by_mix(workspace: Workspace) -> dict[Any, bytes]:
    """Return the codes of every clip that has some, by the clip's mix."""
    plan = Plan.read(workspace.plan)
    found = {}
    for block in range(plan.blocks):
        for name in (workspace.block, workspace.partial):
            path = name(block, plan.block_identity(block))
            if path.exists():
                mixes = [plan.mixes[clip] for clip in plan.clips_of(block)]
                found.update(zip(mixes, map(bytes, np.load(path)), strict=True))
    return found


# In the wrong order


def test_generate_without_a_plan_says_that_prepare_comes_first(
    command: Callable[..., Any], make_workspace: Callable[..., Workspace]
) -> None:
    ended = command("generate", "-w", make_workspace().root)
    refuses(Ended(ended.returncode, ended.stderr), 2, "no plan yet", "run `nsynth-super prepare`")
    assert len(ended.stderr.splitlines()) == 1


def test_pads_without_a_plan_says_that_prepare_comes_first(
    command: Callable[..., Any], make_workspace: Callable[..., Workspace]
) -> None:
    ended = command("pads", "-w", make_workspace().root)
    refuses(Ended(ended.returncode, ended.stderr), 2, "no plan yet", "run `nsynth-super prepare`")


def test_pads_without_clips_says_that_generate_comes_first(run: RUN, planned: Workspace) -> None:
    ended = run("pads", planned)
    refuses(ended, 2, "18 of 18 clips are not made yet", "run `nsynth-super generate` first")
    assert len(ended.said.splitlines()) == 1
    assert not planned.pads.exists()


# A full disk


class _Limit:
    """No file larger than a few kilobytes: a full disk for whoever may not mount one."""

    names = "the disk"

    def __init__(self, workspace: Workspace, root: Path) -> None:
        self.workspace, self.before = copied(workspace, root), ""

    def fill(self, leave: int) -> None:
        leave = max(leave, 2_000)  # what the command says must go somewhere
        self.before = (
            "import resource\n"
            "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({leave}, hard))\n"
        )

    def free(self) -> None:
        self.before = ""

    def close(self) -> None:
        pass


class _SmallDisk:
    """A disk in memory, in a mount namespace of its own."""

    names = "the disk is full"
    before = ""

    def __init__(self, workspace: Workspace, root: Path) -> None:
        root.mkdir(parents=True)
        mount = 'mount -t tmpfs -o size=3m none "$1" && echo mounted && read -r _'
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, "sh", str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if self._holder.stdout.readline() != "mounted\n":
            self.close()
            raise OSError("a disk cannot be mounted")
        inside = Path(f"/proc/{self._holder.pid}/root{root}")
        self._ballast = inside / "ballast"
        self.workspace = copied(workspace, inside / "pack")

    def fill(self, leave: int) -> None:
        space = os.statvfs(self.workspace.root)
        self._ballast.write_bytes(bytes(space.f_bavail * space.f_bsize - leave))

    def free(self) -> None:
        self._ballast.unlink()

    def close(self) -> None:
        self._holder.communicate("")


@pytest.fixture(params=[_Limit, _SmallDisk], ids=["limit", "disk"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Return a function that puts a pack on a disk that can be filled."""
    disks = []

    def put(workspace: Workspace) -> Any:
        try:
            disk = request.param(workspace, tmp_path / "disk")
        except OSError:  # who may mount nothing tests with the limit twice
            disk = _Limit(workspace, tmp_path / "limited")
        disks.append(disk)
        return disk

    yield put
    for disk in disks:
        disk.close()


@pytest.mark.parametrize("before", ["", OFTEN], ids=["at its end", "in its midst"])
def test_a_disk_that_fills_up_under_generate_costs_nothing_but_time(
    before: str,
    run: RUN,
    disk: Callable[..., Any],
    planned: Workspace,
    whole: Workspace,
) -> None:
    if not before:
        planned.clips.mkdir()
        _nearly(planned, np.load(next(whole.clips.iterdir())))
    small = disk(planned)
    small.fill(leave=40_000)
    refuses(
        run("generate", small.workspace, before=small.before + before),
        *(1, small.names, "run the same command again"),
    )
    assert all(path.match("[!.]*.part.npy") for path in small.workspace.clips.iterdir())
    small.free()
    done(run("generate", small.workspace))
    assert contents(small.workspace.clips) == contents(whole.clips)
    assert temporaries(small.workspace) == []


def test_a_disk_that_fills_up_under_pads_costs_nothing_but_time(
    run: RUN, disk: Callable[..., Any], whole: Workspace
) -> None:
    expected = contents(whole.pads)
    shutil.rmtree(whole.pads)
    small = disk(whole)
    small.fill(leave=8_192)
    refuses(
        run("pads", small.workspace, before=small.before),
        *(1, small.names, "run the same command again"),
    )
    assert not small.workspace.manifest.exists()
    assert list(small.workspace.pads.glob("*.bin")) == []
    assert temporaries(small.workspace) == []
    small.free()
    done(run("pads", small.workspace))
    assert contents(small.workspace.pads) == expected


@pytest.mark.parametrize("stage", ["prepare", "generate", "pads"])
def test_a_disk_without_a_byte_left_is_named_in_one_line(
    stage: str, run: RUN, disk: Callable[..., Any], whole: Workspace, planned: Workspace
) -> None:
    if stage == "generate":
        planned.clips.mkdir()
        _nearly(planned, np.load(next(whole.clips.iterdir())))
    small = disk(planned if stage == "generate" else whole)
    small.workspace.embedding("flute", 48).write_bytes(b"")
    if stage == "generate":
        done(run("prepare", small.workspace))
    small.workspace.manifest.unlink(missing_ok=True)
    small.fill(leave=0)
    refuses(run(stage, small.workspace, before=small.before), 1, small.names)
    assert [name for name in temporaries(small.workspace) if not name.endswith(".part.npy")] == []


# A folder that cannot be written


@pytest.mark.parametrize("stage", ["prepare", "generate", "pads"])
def test_a_workspace_that_cannot_be_written_is_named_in_one_line(
    stage: str, run: RUN, whole: Workspace, planned: Workspace
) -> None:
    workspace = planned if stage == "generate" else whole
    shutil.rmtree(workspace.pads, ignore_errors=True)
    if stage == "prepare":
        workspace.embedding("flute", 48).unlink()
    before = sorted(workspace.root.rglob("*"))
    folders = [workspace.root, *(path for path in before if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        ended = run(stage, workspace, before=AS_ANYONE)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    refuses(ended, 1, str(workspace.root), "permission denied")
    assert sorted(workspace.root.rglob("*")) == before


def test_a_block_that_may_not_be_read_is_not_taken_for_a_missing_one(
    run: RUN, whole: Workspace
) -> None:
    block = next(whole.clips.iterdir())
    block.chmod(0)
    for stage in ("generate", "pads"):
        refuses(run(stage, whole, before=AS_ANYONE), 1, block.name, "permission denied")
    assert [path.name for path in whole.clips.iterdir()] == [block.name]


# Damage


def _nearly(workspace: Workspace, codes: np.ndarray) -> None:
    """Leave little of a block to decode."""
    plan = Plan.read(workspace.plan)
    np.save(workspace.partial(0, plan.block_identity(0)), codes[:, :-100])


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
    _nearly(whole, np.load(block))
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
    _nearly(whole, codes)
    done(run("generate", whole))
    assert contents(whole.clips) == contents(one_block[1].clips)


@pytest.mark.parametrize("damage", ["cut in its numbers", "too long"])
def test_a_damaged_block_under_way_is_begun_anew(
    damage: str, run: RUN, planned: Workspace, one_block: tuple[Workspace, Workspace]
) -> None:
    codes = np.load(next(one_block[1].clips.iterdir()))
    planned.clips.mkdir()
    _nearly(planned, codes if damage != "too long" else np.pad(codes, ((0, 0), (0, 200))))
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


# Something changed under a half-made pack


@pytest.fixture
def half(two_blocks: tuple[Workspace, Workspace], tmp_path: Path) -> Workspace:
    """A block whole, the other begun."""
    workspace = copied(two_blocks[1], tmp_path / "half")
    last = sorted(workspace.clips.iterdir())[-1]
    np.save(last.with_suffix(".part.npy"), np.load(last)[:, :4000])
    last.unlink()
    shutil.rmtree(workspace.pads)
    return workspace


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
    refuses(run("generate", pack), 2, "oboe_48.npy", "changed since the plan was made")
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


def test_a_note_that_is_as_it_was_has_the_plan_stand(
    run: RUN, whole: Workspace, one_block: tuple[Workspace, Workspace]
) -> None:
    note = whole.notes / "viola_48.wav"
    content = note.read_bytes()
    record(whole, "viola", [48], 2.0)
    assert run("prepare", whole).code == 2
    note.write_bytes(content)
    assert "1 notes encoded, the plan stands" in done(run("prepare", whole)).said
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


# Two at once


def test_a_second_generate_of_the_same_blocks_is_refused_and_harms_nothing(
    start: START, run: RUN, planned: Workspace, one_block: tuple[Workspace, Workspace]
) -> None:
    first = start("generate", planned, before=OFTEN)
    assert first.until(lambda: drawn(planned) > 300)
    for shard in ("0/1", "1/2"):  # the only block there is
        ended = run("generate", planned, "--shard", shard)
        refuses(ended, 1, "another `generate` is at shard 0/1 there")
        assert len(ended.said.splitlines()) == 1
    assert first.alive
    done(first.wait())
    assert contents(planned.clips) == contents(one_block[1].clips)
    assert "18 clips are there, 0 of them" in done(run("generate", planned)).said


def test_two_shards_at_once_make_the_whole(
    start: START, run: RUN, two_blocks: tuple[Workspace, Workspace], tmp_path: Path
) -> None:
    pack = copied(two_blocks[0], tmp_path / "pack")
    shards = [start("generate", pack, "--shard", f"{index}/2") for index in (0, 1)]
    for shard in shards:
        done(shard.wait())
    done(run("pads", pack))
    assert made(pack) == made(two_blocks[1])
    assert temporaries(pack) == []


def test_a_lock_keeps_another_out_until_its_holder_is_gone(tmp_path: Path) -> None:
    lock = tmp_path / "status" / "lock"
    held = files.only_one(lock, "busy")
    with held, pytest.raises(Failed, match="busy"), files.only_one(lock, "busy"):
        pass
    with files.only_one(lock, "busy"):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_a_file_system_knows_no_locks_the_work_goes_on(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fake: file systems without locks, as Lustre is often mounted, cannot be had here."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with files.only_one(tmp_path / "lock", "busy"):
        pass


# Names


def test_the_longest_names_of_any_script_are_written(
    run: RUN, small_checkpoint: Path, tmp_path: Path
) -> None:
    names = [letter * 20 for letter in "笛鼓琴鐘"]
    pads = {corner: [name] for corner, name in zip(("NW", "NE", "SW", "SE"), names, strict=True)}
    pack = prepared(tmp_path / "pack", small_checkpoint, pads=pads, resolution=2, pitches=[60])
    done(run("generate", pack))
    done(run("pads", pack))
    pad = pack.pad("_".join(names))
    assert len(pad.name.encode()) > 245
    assert pad.stat().st_size == 4 * 300 * 2
    assert "4 clips written" in done(run("export", pack, tmp_path / "wav")).said
    assert len(list((tmp_path / "wav").iterdir())) == 4
