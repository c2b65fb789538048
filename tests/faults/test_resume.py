"""Stopped and killed runs resume and produce the same bytes as an uninterrupted run."""

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

from nsynth_super.base.workspace import Workspace
from nsynth_super.engines.base import Batch
from nsynth_super.engines.opening import open_engine
from nsynth_super.engines.pytorch import TorchEngine
from nsynth_super.pack.plan import Plan
from nsynth_super.wavenet import checkpoint
from nsynth_super.wavenet import random as untrained
from nsynth_super.wavenet.cuda import GpuDecoder
from nsynth_super.wavenet.dimensions import HOP
from tests.commands import nsynth_super
from tests.conftest import SMALL
from tests.faults.packs import START
from tests.faults.processes import (
    DIE,
    OFTEN,
    Command,
    contents,
    copied,
    done,
    made,
    prepared,
    saved_samples,
    temporaries,
)


@pytest.fixture(scope="module")
def planned(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a planned pack of 72 clips: blocks of 64 and 8 clips, decoded in one batch."""
    return prepared(tmp_path_factory.mktemp("planned") / "pack", small_checkpoint, resolution=6)


@pytest.fixture(scope="module")
def finished(
    planned: Workspace, small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Workspace:
    """Return the same pack, finished by uninterrupted runs."""
    workspace = copied(planned, tmp_path_factory.mktemp("finished") / "pack")
    for stage in ("generate", "pads"):
        done(Command(stage, "-w", workspace.root, checkpoint=small_checkpoint).wait())
    return workspace


@pytest.fixture
def interrupted(
    planned: Workspace, finished: Workspace, tmp_path: Path
) -> Callable[[int], Workspace]:
    """Return a function that creates the same pack with some samples of every clip saved."""

    def create(samples: int) -> Workspace:
        workspace = copied(planned, tmp_path / "interrupted")
        workspace.clips.mkdir()
        for path in finished.clips.iterdir():
            np.save(workspace.clips / f"{path.stem}.part.npy", np.load(path)[:, :samples])
        return workspace

    return create


def assert_equals_uninterrupted(workspace: Workspace, finished: Workspace) -> None:
    assert made(workspace) == made(finished)
    assert temporaries(workspace) == []


def assert_consistent(workspace: Workspace, finished: Workspace, *others: Workspace) -> None:
    """Assert that files with a final name are complete and that the manifest is correct."""
    for path in workspace.clips.glob("*.npy"):
        final = np.load(finished.clips / path.name.replace(".part", ""))
        codes = np.load(path)
        assert (codes == final[:, : codes.shape[1]]).all()
        assert codes.shape == final.shape or ".part" in path.name
    for pad in workspace.pads.glob("*.bin"):
        assert pad.read_bytes() in [
            (pack.pads / pad.name).read_bytes() for pack in (finished, *others)
        ]
    if workspace.manifest.exists():
        for name, digest in json.loads(workspace.manifest.read_text())["pads"].items():
            assert hashlib.sha256((workspace.pads / name).read_bytes()).hexdigest() == digest


# Kills


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_killed_generate_resumes_with_the_same_bytes(
    seed: int, start: START, planned: Workspace, finished: Workspace, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    workspace = copied(planned, tmp_path / "pack")
    samples = Plan.read(workspace.plan).samples
    kills = 0
    for goal in sorted(chance.randrange(samples) for _ in range(4)):
        run = start("generate", workspace, before=OFTEN)
        run.until(lambda goal=goal: saved_samples(workspace) >= goal)
        time.sleep(chance.random() / 20)
        run.send(signal.SIGKILL)
        kills += run.wait().code == -signal.SIGKILL
        assert_consistent(workspace, finished)
    assert kills >= 2
    done(start("generate", workspace).wait())
    done(start("pads", workspace).wait())
    assert_equals_uninterrupted(workspace, finished)


@pytest.mark.parametrize(
    "points", [range(3, 4), pytest.param(range(100), marks=pytest.mark.slow)], ids=["one", "every"]
)
def test_generate_killed_before_any_file_change_resumes_with_the_same_bytes(
    points: range,
    start: START,
    interrupted: Callable[[int], Workspace],
    finished: Workspace,
    tmp_path: Path,
) -> None:
    source = interrupted(4250)
    for changes in points:
        workspace = copied(source, tmp_path / str(changes))
        before = DIE.format(changes=changes, root=str(workspace.root))
        ended = start("generate", workspace, before=before).wait()
        assert_consistent(workspace, finished)
        done(start("generate", workspace).wait())
        assert contents(workspace.clips) == contents(finished.clips)
        assert temporaries(workspace) == []
        if ended.code == 0:
            break
        assert ended.code == -signal.SIGKILL
    assert len(points) == 1 or changes > 7


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_killed_pads_reruns_with_the_same_bytes(
    seed: int, start: START, finished: Workspace, tmp_path: Path
) -> None:
    chance = random.Random(seed)
    workspace = copied(finished, tmp_path / "pack")
    kills = 0
    for _ in range(50):
        workspace.manifest.unlink(missing_ok=True)
        run = start("pads", workspace)
        run.until(lambda: temporaries(workspace))
        time.sleep(chance.random() / 100)
        run.send(signal.SIGKILL)
        kills += run.wait().code == -signal.SIGKILL
        assert_consistent(workspace, finished)
        if kills == 4:
            break
    assert kills
    done(start("pads", workspace).wait())
    assert_equals_uninterrupted(workspace, finished)


@pytest.mark.slow
def test_pads_killed_before_any_file_change_reruns_with_the_same_bytes(
    start: START, finished: Workspace, tmp_path: Path
) -> None:
    stale = copied(finished, tmp_path / "stale")
    manifest = json.loads(stale.manifest.read_text())
    for pad in stale.pads.glob("*.bin"):
        pad.write_bytes(pad.read_bytes()[::-1])
        manifest["pads"][pad.name] = hashlib.sha256(pad.read_bytes()).hexdigest()
    stale.manifest.write_text(json.dumps({**manifest, "plan": "an earlier one"}))
    for changes in range(100):
        workspace = copied(stale, tmp_path / str(changes))
        before = DIE.format(changes=changes, root=str(workspace.root))
        ended = start("pads", workspace, before=before).wait()
        assert_consistent(workspace, finished, stale)
        done(start("pads", workspace).wait())
        assert_equals_uninterrupted(workspace, finished)
        if ended.code == 0:
            break
    assert changes > 7


@pytest.mark.slow
def test_prepare_killed_before_any_file_change_reruns_with_the_same_bytes(
    start: START, planned: Workspace, tmp_path: Path
) -> None:
    """One embedding and the plan are missing at the start."""
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


# Stops on request


@pytest.mark.parametrize(
    ("which", "code"),
    [
        (signal.SIGTERM, 75),
        pytest.param(signal.SIGUSR1, 75, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_generate_saves_its_work_and_resumes(
    which: signal.Signals,
    code: int,
    start: START,
    interrupted: Callable[[int], Workspace],
    finished: Workspace,
) -> None:
    workspace = interrupted(3000)
    run = start("generate", workspace, before=OFTEN)
    assert run.until(lambda: saved_samples(workspace) > 3100)
    run.send(which)
    ended = run.wait()
    assert ended.code == code
    assert ended.errors == []
    line = ended.said.splitlines()[-1]
    assert f"stopped by {which.name}" in line
    assert "run it again" in line
    assert json.loads(workspace.status("generate").read_text())["state"] == "stopped"
    assert sorted(path.name for path in workspace.clips.iterdir()) == sorted(
        f"{path.stem}.part.npy" for path in finished.clips.iterdir()
    )
    assert_consistent(workspace, finished)
    assert f"{saved_samples(workspace):,} of" in line
    assert saved_samples(workspace) < Plan.read(workspace.plan).samples
    done(start("generate", workspace).wait())
    done(start("pads", workspace).wait())
    assert_equals_uninterrupted(workspace, finished)


@pytest.mark.parametrize(
    "which", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)]
)
def test_generate_stopped_while_loading_pytorch_can_be_rerun(
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
    output = run.communicate()[1]
    assert run.returncode == 75, output
    assert f"stopped by {which.name}" in output
    assert not planned.clips.exists()


def test_a_stopped_pads_leaves_no_partial_pad(
    start: START, finished: Workspace, tmp_path: Path
) -> None:
    workspace = copied(finished, tmp_path / "pack")
    workspace.manifest.unlink()
    run = start("pads", workspace)
    assert run.until(lambda: temporaries(workspace))
    run.send(signal.SIGTERM)
    ended = run.wait()
    assert ended.code in (0, 75)  # the command may finish before the signal
    assert_consistent(workspace, finished)
    done(start("pads", workspace).wait())
    assert_equals_uninterrupted(workspace, finished)


def test_a_second_run_does_nothing(start: START, finished: Workspace, tmp_path: Path) -> None:
    workspace = copied(finished, tmp_path / "pack")

    def times() -> dict[str, int]:
        folders = (workspace.embeddings, workspace.clips, workspace.pads)
        files = [workspace.plan, *(file for folder in folders for file in folder.iterdir())]
        return {str(file): file.stat().st_mtime_ns for file in files}

    before = times()
    for stage in ("prepare", "generate", "pads"):
        done(start(stage, workspace).wait())
    assert times() == before


# Resuming inside a block

FIELD = SMALL.receptive_field
SAMPLES = HOP + 2 * FIELD


@pytest.fixture(scope="module", params=["CPU path", "GPU path"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TorchEngine:
    """Return a CPU engine in which every code depends on the oldest of the receptive field."""
    path = tmp_path_factory.mktemp("model") / "sensitive.safetensors"
    weights = untrained.weights(SMALL, 3)
    sensitive = {n: w if n.endswith("biases") else np.float32(4) * w for n, w in weights.items()}
    checkpoint.save(sensitive, path, "test")
    made = open_engine(path, threads=1, device="cpu")
    assert isinstance(made, TorchEngine)
    if request.param == "GPU path":
        made._path = GpuDecoder
    return made


@pytest.fixture(scope="module")
def uninterrupted(engine: TorchEngine) -> Callable[[int], tuple[dict[str, Any], np.ndarray]]:
    """Return a function that returns the inputs of `clips` clips and their codes."""
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
    pieces = [piece.codes for piece in engine.decode(Batch(**work, begun=begun))]
    return np.concatenate([begun, *pieces], axis=1)


@pytest.mark.parametrize(
    "clips", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(64, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "begun",
    [
        *(1, FIELD - 1, FIELD, FIELD + 1),
        *(HOP, HOP + FIELD, SAMPLES - 1, SAMPLES),
    ],
)
def test_decoding_resumes_where_it_was_interrupted(
    begun: int,
    clips: int,
    engine: TorchEngine,
    uninterrupted: Callable[[int], tuple[dict[str, Any], np.ndarray]],
) -> None:
    work, codes = uninterrupted(clips)
    assert codes.shape == (clips, SAMPLES)
    assert len(np.unique(codes)) > 50
    assert (all_codes(engine, work, codes[:, :begun]) == codes).all()


@pytest.mark.slow
@pytest.mark.parametrize(("age", "matters"), [(1, True), (FIELD + 1, True), (FIELD + 2, False)])
def test_a_code_depends_only_on_the_receptive_field(
    age: int,
    matters: bool,
    engine: TorchEngine,
    uninterrupted: Callable[[int], tuple[dict[str, Any], np.ndarray]],
) -> None:
    """Otherwise the test above would accept an engine that replays too few codes."""
    work, codes = uninterrupted(64)
    begun = codes[:, : 2 * FIELD].copy()
    begun[:, -age] ^= 128
    follows = all_codes(engine, work, begun)[:, 2 * FIELD :]
    assert (follows != codes[:, 2 * FIELD :]).any() == matters
