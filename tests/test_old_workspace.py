"""A workspace of version 0.1.0 (commit 763049e), stopped in its second block, resumes and finishes.

The archive holds the workspace as that version left it, its model, and the pads that the same
version made of it.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.geometry import SAMPLE, Geometry
from nsynth_super.pack.grid import Grid
from nsynth_super.pack.plan import Plan
from nsynth_super.settings import pad_name, read

ARCHIVE = Path(__file__).with_name("fixtures") / "workspace-763049e.tar.xz"
BEGUN = 517  # samples of the second block that the stopped run saved

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Unpack the archive: `workspace`, `model.safetensors`, `finished`."""
    with tarfile.open(ARCHIVE) as tar:
        # Python 3.11.2 and older have no filters and accept no such argument.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(tmp_path)
    return tmp_path


def pads(folder: Path, geometry: Geometry, names: list[str]) -> np.ndarray:
    """Read pads, `[pads, rows, samples]`."""
    sounds = [np.fromfile(folder / f"{name}.bin", SAMPLE) for name in names]
    return np.stack(sounds).reshape(len(names), geometry.rows, geometry.length)


def test_an_old_workspace_resumes_and_keeps_every_clip(old: Path, command: Command) -> None:
    workspace = Workspace(old / "workspace")
    model = {"NSYNTH_CHECKPOINT": str(old / "model.safetensors")}
    plan = Plan.read(workspace.plan)
    settings, problems = read(workspace.settings)
    assert plan is not None
    assert settings is not None
    assert not problems
    first = workspace.block(0, plan.block_identity(0))
    begun = np.load(workspace.partial(1, plan.block_identity(1)))
    assert begun.shape == (11, BEGUN)
    before = {path: path.read_bytes() for path in (workspace.plan, workspace.origins, first)}

    status = json.loads(command("status", "-w", workspace.root, "--json", env=model).stdout)
    assert status["clips"] == pytest.approx(64 + 11 * BEGUN / plan.samples, abs=0.01)
    done = command(
        *("run", "-w", workspace.root, "--threads", 1, "--batch-clips", 64, "--device", "cpu"),
        env=model,
    )
    assert done.returncode == 0, done.stderr

    assert {path: path.read_bytes() for path in before} == before
    second = np.load(workspace.block(1, plan.block_identity(1)))
    assert (second[:, :BEGUN] == begun).all()
    geometry = Geometry.of(settings)
    names = [pad_name(combination) for combination in settings.combinations]
    now, then = (pads(folder, geometry, names) for folder in (workspace.pads, old / "finished"))
    # Rows of the first block are the same bytes on every machine; in the others, float sums may
    # round differently from those of the machine that made the archive.
    grid = Grid.of(settings)
    clip_of = {mix: clip for clip, mix in enumerate(plan.mixes)}
    clips = np.array([clip_of[mix] for mix in grid.mixes])[grid.where].reshape(len(names), -1)
    kept = clips < 64
    assert 0 < kept.mean() < 1
    assert (now[kept] == then[kept]).all()
    assert json.loads(workspace.manifest.read_text()).keys() == {
        *("format", "made_by", "plan", "settings", "seed", "checkpoint", "geometry", "pads")
    }
