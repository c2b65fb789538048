"""A run that is stopped or killed, whenever, ends with the bytes of one that was not."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nsynth_super.engines import Work, open_engine
from nsynth_super.plan import Plan
from nsynth_super.torch_engine import TorchEngine
from nsynth_super.wavenet import checkpoint
from nsynth_super.wavenet import random as untrained
from nsynth_super.wavenet.cuda import GpuDecoder
from nsynth_super.wavenet.dimensions import HOP
from nsynth_super.workspace import Workspace
from tests.conftest import SMALL, nsynth_super
from tests.faults.packs import START
from tests.faults.processes import (
    DIE,
    OFTEN,
    Command,
    contents,
    copied,
    done,
    drawn,
    made,
    prepared,
    temporaries,
)


@pytest.fixture(scope="module")
def planned(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """72 clips to make: a block of 64 and one of 8, decoded side by side."""
    return prepared(tmp_path_factory.mktemp("planned") / "pack", small_checkpoint, resolution=6)


@pytest.fixture(scope="module")
def whole(
    planned: Workspace, small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Workspace:
    """The same, made by runs that nothing happened to."""
    workspace = copied(planned, tmp_path_factory.mktemp("whole") / "pack")
    for stage in ("generate", "pads"):
        done(Command(stage, "-w", workspace.root, checkpoint=small_checkpoint).wait())
    return workspace


@pytest.fixture
def begun(planned: Workspace, whole: Workspace, tmp_path: Path) -> Callable[[int], Workspace]:
    """Return a function that makes the same with this many samples of every clip."""

    def begin(samples: int) -> Workspace:
        workspace = copied(planned, tmp_path / "begun")
        workspace.clips.mkdir()
        for path in whole.clips.iterdir():
            np.save(workspace.clips / f"{path.stem}.part.npy", np.load(path)[:, :samples])
        return workspace

    return begin


def is_what_an_unharmed_run_makes(workspace: Workspace, whole: Workspace) -> None:
    assert made(workspace) == made(whole)
    assert temporaries(workspace) == []


def nothing_false_is_there(workspace: Workspace, whole: Workspace, *others: Workspace) -> None:
    """Assert that what has a final name is whole, and that a manifest tells the truth."""
    for path in workspace.clips.glob("*.npy"):
        final = np.load(whole.clips / path.name.replace(".part", ""))
        codes = np.load(path)
        assert (codes == final[:, : codes.shape[1]]).all()
        assert codes.shape == final.shape or ".part" in path.name
    for pad in workspace.pads.glob("*.bin"):
        assert pad.read_bytes() in [
            (pack.pads / pad.name).read_bytes() for pack in (whole, *others)
        ]
    if workspace.manifest.exists():
        for name, digest in json.loads(workspace.manifest.read_text())["pads"].items():
            assert hashlib.sha256((workspace.pads / name).read_bytes()).hexdigest() == digest


# Killed


@pytest.mark.parametrize("seed", [1, 2])
def test_a_generate_killed_several_times_ends_with_the_same_bytes(
    seed: int, start: START, planned: Workspace, whole: Workspace, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    workspace = copied(planned, tmp_path / "pack")
    samples = Plan.read(workspace.plan).samples
    kills = 0
    for goal in sorted(chance.randrange(samples) for _ in range(4)):
        run = start("generate", workspace, before=OFTEN)
        run.until(lambda goal=goal: drawn(workspace) >= goal)
        time.sleep(chance.random() / 20)
        run.send(signal.SIGKILL)
        kills += run.wait().code == -signal.SIGKILL
        nothing_false_is_there(workspace, whole)
    assert kills >= 2
    done(start("generate", workspace).wait())
    done(start("pads", workspace).wait())
    is_what_an_unharmed_run_makes(workspace, whole)


def test_a_generate_killed_before_any_change_of_a_file_ends_with_the_same_bytes(
    start: START, begun: Callable[[int], Workspace], whole: Workspace, tmp_path: Path
) -> None:
    nearly = begun(4250)
    for changes in range(100):
        workspace = copied(nearly, tmp_path / str(changes))
        before = DIE.format(changes=changes, root=str(workspace.root))
        ended = start("generate", workspace, before=before).wait()
        nothing_false_is_there(workspace, whole)
        done(start("generate", workspace).wait())
        assert contents(workspace.clips) == contents(whole.clips)
        assert temporaries(workspace) == []
        if ended.code == 0:
            break
    assert changes > 7


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_pads_killed_several_times_ends_with_the_same_bytes(
    seed: int, start: START, whole: Workspace, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    workspace = copied(whole, tmp_path / "pack")
    kills = 0
    for _ in range(50):
        workspace.manifest.unlink(missing_ok=True)
        run = start("pads", workspace)
        run.until(lambda: temporaries(workspace))
        time.sleep(chance.random() / 100)
        run.send(signal.SIGKILL)
        kills += run.wait().code == -signal.SIGKILL
        nothing_false_is_there(workspace, whole)
        if kills == 4:
            break
    assert kills
    done(start("pads", workspace).wait())
    is_what_an_unharmed_run_makes(workspace, whole)


def test_a_pads_killed_before_any_change_of_a_file_ends_with_the_same_bytes(
    start: START, whole: Workspace, tmp_path: Path
) -> None:
    stale = copied(whole, tmp_path / "stale")
    manifest = json.loads(stale.manifest.read_text())
    for pad in stale.pads.glob("*.bin"):
        pad.write_bytes(pad.read_bytes()[::-1])
        manifest["pads"][pad.name] = hashlib.sha256(pad.read_bytes()).hexdigest()
    stale.manifest.write_text(json.dumps({**manifest, "plan": "an earlier one"}))
    for changes in range(100):
        workspace = copied(stale, tmp_path / str(changes))
        before = DIE.format(changes=changes, root=str(workspace.root))
        ended = start("pads", workspace, before=before).wait()
        nothing_false_is_there(workspace, whole, stale)
        done(start("pads", workspace).wait())
        is_what_an_unharmed_run_makes(workspace, whole)
        if ended.code == 0:
            break
    assert changes > 7


def test_a_prepare_killed_before_any_change_of_a_file_ends_with_the_same_bytes(
    start: START, planned: Workspace, tmp_path: Path
) -> None:
    """Of the files of one note, and of the plan."""
    damaged = copied(planned, tmp_path / "damaged")
    next(damaged.embeddings.glob("*.npy")).unlink()
    damaged.plan.unlink()
    for changes in range(100):
        workspace = copied(damaged, tmp_path / str(changes))
        before = DIE.format(changes=changes, root=str(workspace.root))
        ended = start("prepare", workspace, before=before).wait()
        done(start("prepare", workspace).wait())
        assert contents(workspace.embeddings) == contents(planned.embeddings)
        assert workspace.plan.read_bytes() == planned.plan.read_bytes()
        assert temporaries(workspace) == []
        if ended.code == 0:
            break
    assert changes > 7


# Asked to stop


@pytest.mark.parametrize(
    ("which", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
def test_a_generate_that_is_asked_to_stop_keeps_what_is_done_and_goes_on(
    which: signal.Signals,
    code: int,
    start: START,
    begun: Callable[[int], Workspace],
    whole: Workspace,
) -> None:
    workspace = begun(3000)
    run = start("generate", workspace, before=OFTEN)
    assert run.until(lambda: drawn(workspace) > 3100)
    asked = time.monotonic()
    run.send(which)
    ended = run.wait()
    assert time.monotonic() - asked < 5
    assert ended.code == code
    assert ended.errors == []
    line = ended.said.splitlines()[-1]
    assert f"stopped by {which.name}" in line
    assert "run it again" in line
    assert json.loads(workspace.status("generate").read_text())["state"] == "stopped"
    assert sorted(path.name for path in workspace.clips.iterdir()) == sorted(
        f"{path.stem}.part.npy" for path in whole.clips.iterdir()
    )
    nothing_false_is_there(workspace, whole)
    assert f"{drawn(workspace):,} of" in line
    done(start("generate", workspace).wait())
    done(start("pads", workspace).wait())
    is_what_an_unharmed_run_makes(workspace, whole)


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGUSR1])
def test_a_generate_that_is_asked_to_stop_while_pytorch_is_loaded_says_run_me_again(
    which: signal.Signals, planned: Workspace, small_checkpoint: Path
) -> None:
    run = subprocess.Popen(
        nsynth_super("generate", "-w", planned.root, "--checkpoint", small_checkpoint),
        stderr=subprocess.PIPE,
        text=True,
    )
    while b"libtorch" not in Path(f"/proc/{run.pid}/maps").read_bytes():
        assert run.poll() is None
        time.sleep(0.001)
    run.send_signal(which)
    said = run.communicate()[1]
    assert run.returncode == 75, said
    assert f"stopped by {which.name}" in said
    assert not planned.clips.exists()


def test_a_pads_that_is_asked_to_stop_leaves_no_half_pad(
    start: START, whole: Workspace, tmp_path: Path
) -> None:
    workspace = copied(whole, tmp_path / "pack")
    workspace.manifest.unlink()
    run = start("pads", workspace)
    assert run.until(lambda: temporaries(workspace))
    run.send(signal.SIGTERM)
    ended = run.wait()
    assert ended.code in (0, 75)  # it may have come to its end
    nothing_false_is_there(workspace, whole)
    done(start("pads", workspace).wait())
    is_what_an_unharmed_run_makes(workspace, whole)


def test_a_second_run_does_nothing(start: START, whole: Workspace, tmp_path: Path) -> None:
    workspace = copied(whole, tmp_path / "pack")

    def times() -> dict[str, int]:
        folders = (workspace.embeddings, workspace.clips, workspace.pads)
        files = [workspace.plan, *(file for folder in folders for file in folder.iterdir())]
        return {str(file): file.stat().st_mtime_ns for file in files}

    before = times()
    for stage in ("prepare", "generate", "pads"):
        done(start(stage, workspace).wait())
    assert times() == before


# Inside a block, by the engine itself

FIELD = SMALL.receptive_field
SAMPLES = HOP + 2 * FIELD


@pytest.fixture(scope="module", params=["cpu's path", "gpu's path"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TorchEngine:
    """One whose every code hangs on the oldest that the receptive field holds; on the CPU."""
    path = tmp_path_factory.mktemp("model") / "nervous.safetensors"
    weights = untrained.weights(SMALL, 3)
    nervous = {n: w if n.endswith("biases") else np.float32(4) * w for n, w in weights.items()}
    checkpoint.save(nervous, path, "test")
    made = open_engine(path, threads=1, device="cpu")
    assert isinstance(made, TorchEngine)
    if request.param == "gpu's path":
        made._path = GpuDecoder
    return made


@pytest.fixture(scope="module")
def uninterrupted(engine: TorchEngine) -> Callable[[int], tuple[dict[str, Any], np.ndarray]]:
    """Return a function that gives what `clips` clips are made of, and their codes."""
    known: dict[int, tuple[dict[str, Any], np.ndarray]] = {}

    def decode(clips: int) -> tuple[dict[str, Any], np.ndarray]:
        if clips not in known:
            work = {
                "encodings": np.random.default_rng(clips)
                .standard_normal((clips, 125, SMALL.embedding))
                .astype(np.float32),
                "keys": [2**64 - 1 - 7 * clip for clip in range(clips)],
                "seed": 5,
                "samples": SAMPLES,
            }
            known[clips] = work, all_codes(engine, work, np.empty((clips, 0), dtype=np.uint8))
        return known[clips]

    return decode


def all_codes(engine: TorchEngine, work: dict[str, Any], begun: np.ndarray) -> np.ndarray:
    pieces = [piece.codes for piece in engine.decode(Work(**work, begun=begun))]
    return np.concatenate([begun, *pieces], axis=1)


@pytest.mark.parametrize("clips", [1, 3, 64])
@pytest.mark.parametrize(
    "begun",
    [
        *(1, FIELD - 1, FIELD, FIELD + 1),
        *(HOP, HOP + FIELD, SAMPLES - 1, SAMPLES),
    ],
)
def test_decoding_goes_on_where_it_was_interrupted(
    begun: int,
    clips: int,
    engine: TorchEngine,
    uninterrupted: Callable[[int], tuple[dict[str, Any], np.ndarray]],
) -> None:
    work, codes = uninterrupted(clips)
    assert codes.shape == (clips, SAMPLES)
    assert len(np.unique(codes)) > 50
    assert (all_codes(engine, work, codes[:, :begun]) == codes).all()


@pytest.mark.parametrize(("age", "matters"), [(1, True), (FIELD + 1, True), (FIELD + 2, False)])
def test_a_code_hangs_on_the_last_one_and_on_the_receptive_field_before_it(
    age: int,
    matters: bool,
    engine: TorchEngine,
    uninterrupted: Callable[[int], tuple[dict[str, Any], np.ndarray]],
) -> None:
    """Else the test above would hold of an engine that replays too little, or nothing."""
    work, codes = uninterrupted(64)
    begun = codes[:, : 2 * FIELD].copy()
    begun[:, -age] ^= 128
    follows = all_codes(engine, work, begun)[:, 2 * FIELD :]
    assert (follows != codes[:, 2 * FIELD :]).any() == matters
