"""The magenta engine without Magenta: its checks, its files, and how it ends.

The Python 2.7 in these tests is a FAKE, a script that imitates the real one and fails, hangs or
dies on request. `tests/oracle/test_engines.py` runs the real one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile

from nsynth_super.base import allocation
from nsynth_super.base.errors import BadInput, Failed
from nsynth_super.base.workspace import Workspace
from nsynth_super.engines import magenta
from nsynth_super.engines.base import Batch
from nsynth_super.engines.magenta import MagentaEngine, read_codes, seed, write_note
from nsynth_super.engines.python27 import PATCHES, Python27, error_line
from nsynth_super.pack.plan import Plan
from nsynth_super.wavenet import mulaw
from nsynth_super.wavenet.checkpoint import Checkpoint
from nsynth_super.wavenet.dimensions import HOP, PUBLISHED
from tests.faults.packs import ONE_BLOCK
from tests.faults.processes import Command, Ended, contents, copied, done, prepared, refuses

pytestmark = pytest.mark.process

FAKE = """#!/bin/sh
'''exec' "{python}" "$0" "$@"  # a "#!" line cannot contain a path with a space
' '''
# A FAKE Python 2.7 with Magenta: it computes nothing.
import os, signal, subprocess, sys, time
from pathlib import Path

home, words = Path(__file__).parent, sys.argv[1:]
line = " ".join(words)
options = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
if "probe.py" in line:
    print((home / "probe.json").read_text())
elif "save_checkpoint.py" in line:
    for ending in (".index", ".data-00000-of-00001"):
        Path(words[-1] + ending).write_bytes(b"fake")
elif "measure.py" in line:
    print('{{"seconds": 0.01}}')
elif "nsynth_save_embeddings" in line:
    import numpy as np
    for wav in sorted(Path("notes").iterdir()):
        some = np.frombuffer(wav.read_bytes()[44 : 44 + 4000], "<i2").reshape(125, 16)
        np.save(f"embeddings/{{wav.stem}}_embeddings.npy", some.astype("f4"))
else:
    exec((home / "generate.py").read_text())
"""

SAMPLES = """
import numpy as np
import soundfile
from nsynth_super.wavenet import mulaw
for index, npy in enumerate(sorted(Path("encodings").iterdir())):
    samples = 512 * len(np.load(npy))
    codes = np.random.default_rng([int(options["seed"]), index]).integers(0, 256, samples)
    soundfile.write(f"clips/gen_{npy.stem}.wav", mulaw.AMPLITUDES[codes], 16_000, subtype="FLOAT")
    print(f"INFO:tensorflow:Sample: {samples}/{samples} (100.0%, 9.9 samples/s, 0:00:00 left)")
"""
"""Writes random codes that depend on the seed."""

OUT_OF_MEMORY = r"""
print("INFO:tensorflow:Sample: 100/4608 (2.2%, 9.9 samples/s, 0:00:00 left)")
print('Traceback (most recent call last):\n  File "fastgen.py", line 7, in synthesize')
print("tensorflow.python.framework.errors_impl.ResourceExhaustedError: 2 root error(s) found.")
print("  (0) Resource exhausted: OOM when allocating tensor with shape[512,64,1,512]")
print("\t [[node save/Assign]]\n\nOriginal stack trace for u'save/Assign':")
print('  File "x.py", line 1')
sys.exit(1)
"""

HANGS = """
child = subprocess.Popen(["sleep", "1000"])
(home / "pids").write_text(f"{os.getpid()} {child.pid}")
while True:
    try:
        print("INFO:tensorflow:Sample: 1000/4608 (21.7%, 9.9 samples/s, 0:00:00 left)", flush=True)
    except OSError:
        pass
    time.sleep(0.05)
"""
"""Like Magenta, it continues to log when its output is not read."""

AS_IF_PUBLISHED = """
from nsynth_super.engines import magenta_checkpoint
from tests.conftest import SMALL
magenta_checkpoint.PUBLISHED = SMALL
"""
"""Run before a command: accept the small model, which the fake never reads, as the published one.
"""

NO_FORCE = """
from nsynth_super.runtime import subprocesses
subprocesses._GRACE = 10_000
"""
"""Run before a command: end Magenta only with SIGTERM, or wait until the test fails."""


def fake(folder: Path, generate: str = SAMPLES, **probed: Any) -> Path:
    """Write the FAKE; `probed` replaces parts of its probe result."""
    folder.mkdir(exist_ok=True)
    path = folder / "fake-python2.7"
    path.write_text(FAKE.format(python=sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    result = {
        "python": [2, 7],
        "magenta": "1.1.7",
        "tensorflow": "1.15.0",
        "patches": PATCHES,
        "missing": [],
        **probed,
    }
    (folder / "probe.json").write_text(json.dumps(result))
    (folder / "generate.py").write_text(generate)
    return path


def fake_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, *gpus: str) -> None:
    """Put a FAKE nvidia-smi, which lists these GPUs, first on the PATH."""
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\ncat <<END\n" + "\n".join(gpus) + "\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A separate scratch folder for each test, on a machine without GPUs."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    monkeypatch.delenv("NSYNTH_MAGENTA", raising=False)
    monkeypatch.delenv("NSYNTH_MAGENTA_CHECKPOINTS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return folder


@pytest.fixture
def engine(tmp_path: Path) -> Callable[..., MagentaEngine]:
    """Return a function that opens the engine on the fake."""

    def opened(generate: str = SAMPLES, **options: Any) -> MagentaEngine:
        python = Python27.found(fake(tmp_path / "fake", generate), threads=1, **options)
        weights = {"none": np.zeros(1, dtype=np.float32)}
        return MagentaEngine(Checkpoint(weights, PUBLISHED, "a fake"), python)

    return opened


def a_batch(samples: int = 700, key: int = 1, seed: int = 2) -> Batch:
    """Return a batch of two clips."""
    nothing = np.zeros((2, 0), dtype=np.uint8)
    return Batch(np.zeros((2, 125, 16), dtype=np.float32), [key, 9], seed, samples, nothing)


def has_ended(pid: int) -> bool:
    """Return whether a process has ended, even if it is still a zombie."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


# Checks before anything runs


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (None, "no Python 2.7 with Magenta is set"),
        ("/nowhere/python2.7", "/nowhere/python2.7: is not an executable program"),
        (shutil.which("true"), "is not a working Python"),
        (sys.executable, "is Python 3"),
    ],
)
def test_a_program_that_is_not_python_27_is_rejected(path: str | None, message: str) -> None:
    with pytest.raises(BadInput) as refused:
        Python27.found(Path(path) if path else None)
    assert message in str(refused.value)
    assert "--magenta or $NSYNTH_MAGENTA: the container image includes one" in str(refused.value)


@pytest.mark.parametrize(
    ("probed", "message"),
    [
        ({"magenta": None}, "lacks Magenta or TensorFlow"),
        ({"tensorflow": None}, "lacks Magenta or TensorFlow"),
        ({"patches": []}, "its Magenta lacks the patches 0001, 0002"),
        ({"patches": PATCHES[:-1]}, "its Magenta lacks the patches 0007"),
    ],
)
def test_a_python_without_magenta_or_its_patches_is_rejected(
    probed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=message):
        Python27.found(fake(tmp_path / "fake", **probed))


def test_a_gpu_that_cuda_10_does_not_support_is_rejected_at_once(
    command: Callable[..., Any], make_workspace: Callable[..., Workspace], tmp_path: Path
) -> None:
    """The GPUs are fake: a script replaces nvidia-smi."""
    with pytest.MonkeyPatch.context() as patched:
        fake_nvidia_smi(
            tmp_path / "bin", patched, "0, GPU-a, Tesla V100, 7.0", "1, GPU-b, NVIDIA H100, 9.0"
        )
        ended = command("prepare", "-w", make_workspace().root, "--engine", "magenta")
    parts = "GPU 1 (NVIDIA H100, compute capability 9.0)", "CUDA 10.0", "Turing", "`--engine torch`"
    refuses(Ended(ended.returncode, ended.stderr), 2, *parts)


@pytest.mark.parametrize("gpu", ["0, GPU-a, Quadro RTX 6000, 7.5", "0, GPU-a, Odd, [N/A]", ""])
def test_a_supported_or_unknown_gpu_is_accepted(
    gpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvidia_smi(tmp_path / "bin", monkeypatch, gpu)
    python = Python27.found(fake(tmp_path / "fake"))
    assert (python.gpu is not None) == bool(gpu)
    cpu = Python27.found(fake(tmp_path / "fake"), device="cpu")
    assert cpu.gpu is None


def test_an_unused_new_gpu_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path / "bin", monkeypatch, "0, GPU-a, NVIDIA H100, 9.0")
    assert Python27.found(fake(tmp_path / "fake"), device="cpu").gpu is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Python27.found(fake(tmp_path / "fake")).gpu is None


def test_a_gpu_without_its_libraries_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without = fake(tmp_path / "fake", missing=["libcudart.so.10.0"])
    fake_nvidia_smi(tmp_path / "bin", monkeypatch, "0, GPU-a, Tesla V100, 7.0")
    with pytest.raises(BadInput, match=r"Tesla V100\): .* cannot use it: libcudart.so.10.0"):
        Python27.found(without)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")  # a GPU that does not exist
    assert Python27.found(without).gpu is None
    assert "CUDA is not available for GPU 5; using the CPU" in capsys.readouterr().err


def test_a_model_of_other_sizes_than_the_published_is_rejected(
    command: Callable[..., Any], make_workspace: Callable[..., Workspace], tmp_path: Path
) -> None:
    options = ["--engine", "magenta", "--magenta", fake(tmp_path / "fake")]
    ended = command("prepare", "-w", make_workspace().root, *options)
    refuses(Ended(ended.returncode, ended.stderr), 2, "Magenta cannot build (width 8", "torch")


def test_describe_returns_versions_and_device(engine: Callable[..., MagentaEngine]) -> None:
    assert engine().describe() == "magenta 1.1.7, TensorFlow 1.15.0, CPU, 1 thread"


# Files


def test_a_clip_is_read_back_as_its_codes(tmp_path: Path) -> None:
    codes = np.arange(256, dtype=np.uint8)
    path = tmp_path / "gen_00000.wav"
    soundfile.write(path, mulaw.decode(codes), 16_000, subtype="FLOAT")
    np.testing.assert_array_equal(read_codes(path, 256), codes)


@pytest.mark.parametrize("amplitude", [0.5, np.nextafter(mulaw.AMPLITUDES[200], 1), 1.02, np.nan])
def test_an_amplitude_without_a_code_is_an_error_that_names_the_file(
    amplitude: float, tmp_path: Path
) -> None:
    path = tmp_path / "gen_00007.wav"
    amplitudes = mulaw.decode(np.full(100, 130, dtype=np.uint8))
    amplitudes[41] = amplitude
    soundfile.write(path, amplitudes, 16_000, subtype="FLOAT")
    with pytest.raises(Failed, match=r"gen_00007.wav: sample 41 is .*, not the amplitude of any"):
        read_codes(path, 100)


def test_a_missing_or_truncated_clip_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "gen_00000.wav"
    with pytest.raises(Failed, match="an unreadable clip"):
        read_codes(path, 512)
    soundfile.write(path, np.zeros(511, dtype=np.float32), 16_000, subtype="FLOAT")
    with pytest.raises(Failed, match=r"gen_00000\.wav: Magenta wrote \(511,\) samples"):
        read_codes(path, 512)


def test_a_note_written_in_16_bits_keeps_its_codes(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    edges = mulaw.AMPLITUDES + chance.uniform(-1e-5, 1e-5, 256).astype(np.float32)
    loud = chance.uniform(-1, 1, 50_000).astype(np.float32)
    quiet = (10 ** chance.uniform(-6, 0, 50_000) * chance.choice([-1, 1], 50_000)).astype("f4")
    note = np.concatenate([edges.clip(-1, 1 - 2**-15), loud, quiet, [-1.0, 0.0]]).astype("f4")
    write_note(tmp_path / "00000.wav", note)
    written, _ = soundfile.read(tmp_path / "00000.wav", dtype="int16")
    codes = mulaw.encode((written / 32768).astype(np.float32))
    np.testing.assert_array_equal(codes, mulaw.encode(note))


def test_encodings_are_truncated_to_frames_and_codes_to_samples(
    engine: Callable[..., MagentaEngine], scratch: Path
) -> None:
    batch = a_batch(samples=700)
    pieces = list(engine().decode(batch))
    codes = np.concatenate([piece.codes for piece in pieces], axis=1)
    expected = [
        np.random.default_rng([seed(batch), clip]).integers(0, 256, 2 * HOP)[:700]
        for clip in range(2)
    ]
    np.testing.assert_array_equal(codes, expected)
    assert [piece.time for piece in pieces] == sorted(piece.time for piece in pieces)
    assert pieces[-1].time == 700
    assert list(scratch.iterdir()) == []


def test_the_seed_depends_on_the_batch() -> None:
    assert seed(a_batch()) == 0xE57ACC10  # the first 32 bits of the sha256 of "2 1"
    assert len({seed(a_batch()), seed(a_batch(key=2)), seed(a_batch(seed=3))}) == 3
    assert all(0 <= seed(a_batch(key=2**64 - key)) < 2**32 for key in range(1, 100))


def test_a_partially_decoded_batch_is_rejected(engine: Callable[..., MagentaEngine]) -> None:
    begun = Batch(*vars(a_batch()).values())
    object.__setattr__(begun, "begun", np.zeros((2, 10), dtype=np.uint8))
    with pytest.raises(ValueError, match="cannot resume a partially decoded batch"):
        list(engine().decode(begun))


def test_embeddings_are_returned_in_order_and_checked(
    engine: Callable[..., MagentaEngine], scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = np.random.default_rng(0).uniform(-1, 1, (11, 64_000)).astype(np.float32)
    embeddings = np.concatenate(list(engine().encode(notes)))
    assert embeddings.shape == (11, 125, 16)
    expected = np.rint(mulaw.decode(mulaw.encode(notes[:, :2000])) * 2**15)
    np.testing.assert_array_equal(embeddings.reshape(11, -1), expected)
    assert list(scratch.iterdir()) == []
    not_finite = np.full((125, 16), np.nan, dtype=np.float32)
    monkeypatch.setattr(magenta.np, "load", lambda path: not_finite)
    with pytest.raises(Failed, match=r"00000_embeddings.npy: .* with finite values"):
        list(engine().encode(notes[:1]))


def test_weights_are_saved_once_and_found_in_the_images_folder(
    engine: Callable[..., MagentaEngine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NSYNTH_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        list(engine().decode(a_batch()))
    assert capsys.readouterr().err.count("converting the weights once to its format") == 1
    (saved,) = (tmp_path / "cache").iterdir()
    assert saved.name.startswith("magenta-")
    assert len(list(saved.glob("model.ckpt-200000.*"))) == 2
    monkeypatch.setenv("NSYNTH_MAGENTA_CHECKPOINTS", str(tmp_path / "image"))
    saved.parent.rename(tmp_path / "image")
    list(engine().decode(a_batch()))
    assert not (tmp_path / "cache").exists()


# How it ends


def test_a_failure_is_a_one_line_error_with_its_reason(
    engine: Callable[..., MagentaEngine], scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Failed) as failed:
        list(engine(OUT_OF_MEMORY).decode(a_batch()))
    assert str(failed.value) == (
        "Magenta failed with exit code 1: ResourceExhaustedError: (0) Resource exhausted: OOM when "
        "allocating tensor with shape[512,64,1,512] -> free or request more memory (of this "
        "machine or the GPU), and run it again"
    )
    capsys.readouterr()
    with pytest.raises(Failed):
        list(engine(OUT_OF_MEMORY, verbose=True).decode(a_batch()))
    shown = capsys.readouterr().err
    assert "  | Traceback (most recent call last):" in shown
    assert len(shown.splitlines()) <= 20
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL -> free or request more"),
        ("print('F tensor: no', flush=True); os.abort()", "was killed by SIGABRT: F tensor: no"),
        (
            "sys.exit('no such flag')",
            "failed with exit code 1: no such flag -> run it again, with -v",
        ),
        ("", "gen_00000.wav: Magenta wrote an unreadable clip"),
    ],
)
def test_the_error_explains_how_magenta_ended(
    script: str, message: str, engine: Callable[..., MagentaEngine], scratch: Path
) -> None:
    with pytest.raises(Failed, match=message):
        list(engine(script).decode(a_batch()))
    assert list(scratch.iterdir()) == []


def test_the_error_line_is_the_message_of_a_traceback() -> None:
    assert error_line(["ValueError: a: b", "INFO:tensorflow:Sample: 1/2", ""]) == "ValueError: a: b"
    assert error_line(["no", "I1123 12:00:00 fastgen.py:1] Sample: 1/2"]) == "no"
    assert error_line(["", "  "]) == ""


def test_closing_the_generator_ends_magenta_and_its_children(
    engine: Callable[..., MagentaEngine], tmp_path: Path, scratch: Path
) -> None:
    """Even if they ignore SIGTERM."""
    stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    pieces = engine(stubborn + HANGS).decode(a_batch())
    while next(pieces).time == 0:
        pass
    pids = [int(pid) for pid in (tmp_path / "fake" / "pids").read_text().split()]
    assert not any(map(has_ended, pids))
    pieces.close()
    assert all(map(has_ended, pids))
    assert list(scratch.iterdir()) == []


# In the stages


@pytest.fixture(scope="module")
def planned(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A plan of 18 clips, with embeddings by the PyTorch engine."""
    return prepared(tmp_path_factory.mktemp("planned") / "pack", small_checkpoint, **ONE_BLOCK)


@pytest.fixture
def start_stage(small_checkpoint: Path, tmp_path: Path) -> Callable[..., Command]:
    """Return a function that starts a command with the magenta engine, on the fake."""

    def start(stage: str, workspace: Workspace, generate: str = SAMPLES) -> Command:
        options = ["--engine", "magenta", "--magenta", fake(tmp_path / "fake", generate)]
        words = (stage, "-w", workspace.root, *options)
        return Command(*words, checkpoint=small_checkpoint, before=AS_IF_PUBLISHED + NO_FORCE)

    return start


def wait_for_progress(workspace: Workspace, run: Command, home: Path) -> list[int]:
    """Wait until a run reports progress; return the fake's processes."""

    def has_progress() -> bool:
        try:
            return bool(json.loads(workspace.status("generate").read_text())["done"])
        except (OSError, ValueError):
            return False

    assert run.until(has_progress)
    return [int(pid) for pid in (home / "pids").read_text().split()]


def test_the_three_stages_with_the_magenta_engine(
    start_stage: Callable[..., Command], make_workspace: Callable[..., Workspace], scratch: Path
) -> None:
    workspace = make_workspace()
    for _ in range(2):
        ended = done(start_stage("run", workspace).wait())
    assert "0 notes encoded, the plan is unchanged" in ended.said
    assert "18 clips complete, 0 of them new" in ended.said
    assert len(list(workspace.pads.glob("*.bin"))) == 1
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
def test_a_stopped_run_reports_what_is_lost_and_leaves_nothing_behind(
    which: signal.Signals,
    code: int,
    start_stage: Callable[..., Command],
    planned: Workspace,
    tmp_path: Path,
    scratch: Path,
) -> None:
    workspace = copied(planned, tmp_path / "pack")
    run = start_stage("generate", workspace, HANGS)
    pids = wait_for_progress(workspace, run, tmp_path / "fake")
    run.send(which)
    ended = run.wait()
    assert ended.code == code, ended.said
    line = ended.said.splitlines()[-1]
    assert f"stopped by {which.name}: magenta cannot resume inside a block" in line
    assert "1,000 of 4,300 samples of 18 clips are lost, complete blocks are saved" in line
    assert "run it again to resume" in line
    assert all(map(has_ended, pids))
    assert list(scratch.iterdir()) == []
    assert not workspace.clips.exists()
    status = json.loads(workspace.status("generate").read_text())
    assert (status["state"], status["done"]) == ("stopped", 0)
    done(start_stage("generate", workspace).wait())


@pytest.mark.slow
def test_a_signal_to_both_processes_is_a_stop_and_not_a_failure(
    start_stage: Callable[..., Command], planned: Workspace, tmp_path: Path
) -> None:
    workspace = copied(planned, tmp_path / "pack")
    run = start_stage("generate", workspace, HANGS)
    pids = wait_for_progress(workspace, run, tmp_path / "fake")
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    run.send(signal.SIGTERM)
    assert run.wait().code == 75


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such signal")
def test_a_killed_run_ends_magenta(
    start_stage: Callable[..., Command], planned: Workspace, tmp_path: Path
) -> None:
    workspace = copied(planned, tmp_path / "pack")
    run = start_stage("generate", workspace, HANGS)
    pids = wait_for_progress(workspace, run, tmp_path / "fake")
    run.send(signal.SIGKILL)
    assert run.wait().code == -signal.SIGKILL
    end = time.monotonic() + 60
    while not has_ended(pids[0]):
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(pids[1], signal.SIGKILL)  # the fake's own; Magenta starts no process


@pytest.mark.slow
def test_a_partial_block_of_the_other_engine_is_not_continued(
    start_stage: Callable[..., Command], planned: Workspace, tmp_path: Path
) -> None:
    alone, beside = (copied(planned, tmp_path / name) for name in ("alone", "beside"))
    plan = Plan.read(beside.plan)
    assert plan is not None
    begun = beside.partial(0, plan.block_identity(0))
    begun.parent.mkdir()
    np.save(begun, np.full((18, 4000), 77, dtype=np.uint8))
    run = start_stage("generate", beside, HANGS)
    wait_for_progress(beside, run, tmp_path / "fake")
    before = begun.read_bytes()
    run.send(signal.SIGTERM)
    assert "1,000 of 4,300 samples" in run.wait().said
    assert begun.read_bytes() == before, "the PyTorch engine can still resume it"
    for workspace in (alone, beside):
        done(start_stage("generate", workspace).wait())
    assert contents(alone.clips) == contents(beside.clips)
    assert not begun.exists()


def test_check_measures_magenta(
    start_stage: Callable[..., Command], planned: Workspace, tmp_path: Path
) -> None:
    ended = done(start_stage("check", planned).wait())
    assert "engine  magenta 1.1.7, TensorFlow 1.15.0, CPU" in ended.said
    assert "time    about" in ended.said


def test_check_reports_a_failed_measurement(
    start_stage: Callable[..., Command], planned: Workspace, tmp_path: Path
) -> None:
    run = start_stage("check", planned)
    path = tmp_path / "fake" / "fake-python2.7"
    path.write_text(path.read_text().replace("""print('{"seconds": 0.01}')""", "sys.exit('no')"))
    ended = run.wait()
    assert ended.code == 2
    assert "Magenta failed with exit code 1: no" in ended.said


def test_compare_fails_if_the_engines_differ(small_checkpoint: Path, tmp_path: Path) -> None:
    """The fake returns random codes; `tests/oracle` shows that the real Magenta passes."""
    options = ["--magenta", fake(tmp_path / "fake"), "--clips", 2, "--samples", 64]
    words = ("checkpoint", "compare", small_checkpoint, *options)
    ended = Command(*words, checkpoint=small_checkpoint, before=AS_IF_PUBLISHED).wait()
    refuses(ended, 1, "the engines differ by more than rounding")
    assert "clips       0 of 2 are identical" in ended.said


def test_checkpoint_magenta_saves_weights_for_an_image(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a build machine with any GPU."""
    fake_nvidia_smi(tmp_path / "bin", monkeypatch, "0, GPU-a, NVIDIA H100, 9.0")
    words = ("checkpoint", "magenta", tmp_path / "image", "--magenta", fake(tmp_path / "fake"))
    refuses(Command(*words, checkpoint=small_checkpoint).wait(), 2, "sizes that Magenta cannot")
    assert not (tmp_path / "image").exists()
    ended = done(Command(*words, checkpoint=small_checkpoint, before=AS_IF_PUBLISHED).wait())
    (saved,) = (tmp_path / "image").iterdir()
    assert f"wrote {saved}" in ended.said
    assert {path.suffix for path in saved.iterdir()} == {".index", ".data-00000-of-00001"}


def test_workers_on_one_machine_share_its_memory() -> None:
    whole = allocation.memory({})
    assert allocation.memory({"NSYNTH_WORKERS": "4"}) == whole // 4
    with pytest.raises(BadInput, match="NSYNTH_WORKERS"):
        allocation.memory({"NSYNTH_WORKERS": "none"})
