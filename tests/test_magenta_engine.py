"""The magenta engine without Magenta: what it refuses, what it reads and writes, how it ends.

The Python 2.7 here is a FAKE, a script of ours that answers as the real one does, and fails, hangs
or dies when told to. `tests/oracle/test_engines.py` runs the real one.
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

from nsynth_super import machine, magenta
from nsynth_super.engines import Work
from nsynth_super.magenta import MagentaEngine, read_codes, seed, write_note
from nsynth_super.plan import Plan
from nsynth_super.problems import BadInput, Failed
from nsynth_super.python27 import PATCHES, Python27, last_words
from nsynth_super.wavenet import mulaw
from nsynth_super.wavenet.checkpoint import Checkpoint
from nsynth_super.wavenet.dimensions import HOP, PUBLISHED
from nsynth_super.workspace import Workspace
from tests.faults.packs import ONE_BLOCK
from tests.faults.processes import Command, Ended, contents, copied, done, prepared, refuses

FAKE = """#!{python}
# A FAKE of a Python 2.7 with Magenta: it computes nothing.
import os, signal, subprocess, sys, time
from pathlib import Path

home, words = Path(__file__).parent, sys.argv[1:]
line = " ".join(words)
options = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
if "look.py" in line:
    print((home / "look.json").read_text())
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

DRAWS = """
import numpy as np
import soundfile
from nsynth_super.wavenet import mulaw
for index, npy in enumerate(sorted(Path("encodings").iterdir())):
    samples = 512 * len(np.load(npy))
    codes = np.random.default_rng([int(options["seed"]), index]).integers(0, 256, samples)
    soundfile.write(f"clips/gen_{npy.stem}.wav", mulaw.AMPLITUDES[codes], 16_000, subtype="FLOAT")
    print(f"INFO:tensorflow:Sample: {samples}/{samples} (100.0%, 9.9 samples/s, 0:00:00 left)")
"""
"""What the fake draws: random codes, by the seed it is given."""

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
"""Like Magenta's, its log goes on when nobody reads it."""

AS_IF_PUBLISHED = """
from nsynth_super import magenta_checkpoint
from tests.conftest import SMALL
magenta_checkpoint.PUBLISHED = SMALL
"""
"""Run before a command: the small model passes for the published one, which the fake never sees."""


def fake(folder: Path, generate: str = DRAWS, **here: Any) -> Path:
    """Write the FAKE; `here` is what it says of itself in the place of the truth."""
    folder.mkdir(exist_ok=True)
    path = folder / "fake-python2.7"
    path.write_text(FAKE.format(python=sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    said = {
        "python": [2, 7],
        "magenta": "1.1.7",
        "tensorflow": "1.15.0",
        "patches": PATCHES,
        "missing": [],
        **here,
    }
    (folder / "look.json").write_text(json.dumps(said))
    (folder / "generate.py").write_text(generate)
    return path


def fake_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, *gpus: str) -> None:
    """Put a FAKE nvidia-smi, which knows these GPUs, in front of a real one."""
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\ncat <<END\n" + "\n".join(gpus) + "\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scratch folder of each test's own, on a machine without GPUs."""
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

    def opened(generate: str = DRAWS, **options: Any) -> MagentaEngine:
        python = Python27.found(fake(tmp_path / "fake", generate), threads=1, **options)
        weights = {"none": np.zeros(1, dtype=np.float32)}
        return MagentaEngine(Checkpoint(weights, PUBLISHED, "a fake"), python)

    return opened


def a_work(samples: int = 700, key: int = 1, of: int = 2) -> Work:
    """Return a work of two clips."""
    nothing = np.zeros((2, 0), dtype=np.uint8)
    return Work(np.zeros((2, 125, 16), dtype=np.float32), [key, 9], of, samples, nothing)


def gone(pid: int) -> bool:
    """Tell whether a process has ended; nobody may have waited for it yet."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


# What is refused before anything runs


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (None, "no Python 2.7 with Magenta is named"),
        ("/nowhere/python2.7", "/nowhere/python2.7: there is no such program"),
        (shutil.which("true"), "cannot be run as a Python"),
        (sys.executable, "is Python 3"),
    ],
)
def test_what_is_no_python_27_is_refused(path: str | None, says: str) -> None:
    with pytest.raises(BadInput) as refused:
        Python27.found(Path(path) if path else None)
    assert says in str(refused.value)
    assert "--magenta or $NSYNTH_MAGENTA: the container image has one" in str(refused.value)


@pytest.mark.parametrize(
    ("here", "says"),
    [
        ({"magenta": None}, "has no Magenta"),
        ({"tensorflow": None}, "no TensorFlow"),
        ({"patches": []}, "has a Magenta without the patches 0001, 0002"),
        ({"patches": PATCHES[:-1]}, "has a Magenta without the patches 0007"),
    ],
)
def test_a_python_without_magenta_or_with_the_unpatched_one_is_refused(
    here: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=says):
        Python27.found(fake(tmp_path / "fake", **here))


def test_a_gpu_that_cuda_10_cannot_drive_is_refused_at_once(
    command: Callable[..., Any], make_workspace: Callable[..., Workspace], tmp_path: Path
) -> None:
    """A fake: GPUs are named by a script in the place of nvidia-smi."""
    with pytest.MonkeyPatch.context() as patched:
        fake_nvidia_smi(
            tmp_path / "bin", patched, "0, GPU-a, Tesla V100, 7.0", "1, GPU-b, NVIDIA H100, 9.0"
        )
        ended = command("prepare", "-w", make_workspace().root, "--engine", "magenta")
    said = "GPU 1 (NVIDIA H100, compute capability 9.0)", "CUDA 10.0", "Turing", "`--engine torch`"
    refuses(Ended(ended.returncode, ended.stderr), 2, *said)


@pytest.mark.parametrize("gpu", ["0, GPU-a, Quadro RTX 6000, 7.5", "0, GPU-a, Odd, [N/A]", ""])
def test_another_gpu_is_no_hindrance(
    gpu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvidia_smi(tmp_path / "bin", monkeypatch, gpu)
    python = Python27.found(fake(tmp_path / "fake"))
    assert (python.gpu is not None) == bool(gpu)
    cpu = Python27.found(fake(tmp_path / "fake"), device="cpu")
    assert cpu.gpu is None


def test_a_new_gpu_that_is_not_to_be_used_is_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvidia_smi(tmp_path / "bin", monkeypatch, "0, GPU-a, NVIDIA H100, 9.0")
    assert Python27.found(fake(tmp_path / "fake"), device="cpu").gpu is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Python27.found(fake(tmp_path / "fake")).gpu is None


def test_a_gpu_is_not_silently_left_unused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without = fake(tmp_path / "fake", missing=["libcudart.so.10.0"])
    fake_nvidia_smi(tmp_path / "bin", monkeypatch, "0, GPU-a, Tesla V100, 7.0")
    with pytest.raises(BadInput, match=r"Tesla V100\): cannot be used .* libcudart.so.10.0"):
        Python27.found(without)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")  # and nobody knows such a GPU
    assert Python27.found(without).gpu is None
    assert "no CUDA here for GPU 5: it computes on the CPU" in capsys.readouterr().err


def test_other_sizes_than_the_published_are_refused(
    command: Callable[..., Any], make_workspace: Callable[..., Workspace], tmp_path: Path
) -> None:
    options = ["--engine", "magenta", "--magenta", fake(tmp_path / "fake")]
    ended = command("prepare", "-w", make_workspace().root, *options)
    refuses(Ended(ended.returncode, ended.stderr), 2, "Magenta cannot build (width 24", "torch")


def test_it_says_what_computes(engine: Callable[..., MagentaEngine]) -> None:
    assert engine().describe() == "magenta 1.1.7, TensorFlow 1.15.0, CPU, 1 thread"


# What is written and read


def test_a_clip_is_read_back_as_the_codes_it_was_made_of(tmp_path: Path) -> None:
    codes = np.arange(256, dtype=np.uint8)
    path = tmp_path / "gen_00000.wav"
    soundfile.write(path, mulaw.decode(codes), 16_000, subtype="FLOAT")
    np.testing.assert_array_equal(read_codes(path, 256), codes)


@pytest.mark.parametrize("amplitude", [0.5, np.nextafter(mulaw.AMPLITUDES[200], 1), 1.02, np.nan])
def test_an_amplitude_that_no_code_has_is_an_error_that_names_the_file(
    amplitude: float, tmp_path: Path
) -> None:
    path = tmp_path / "gen_00007.wav"
    amplitudes = mulaw.decode(np.full(100, 130, dtype=np.uint8))
    amplitudes[41] = amplitude
    soundfile.write(path, amplitudes, 16_000, subtype="FLOAT")
    with pytest.raises(Failed, match=r"gen_00007.wav: sample 41 is .* no code's amplitude"):
        read_codes(path, 100)


def test_a_clip_that_is_missing_cut_short_or_no_wav_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "gen_00000.wav"
    with pytest.raises(Failed, match="no clip that can be read"):
        read_codes(path, 512)
    soundfile.write(path, np.zeros(511, dtype=np.float32), 16_000, subtype="FLOAT")
    with pytest.raises(Failed, match=r"gen_00000\.wav: Magenta wrote \(511,\) samples"):
        read_codes(path, 512)


def test_a_note_of_16_bits_has_the_codes_of_the_note_of_32(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    edges = mulaw.AMPLITUDES + chance.uniform(-1e-5, 1e-5, 256).astype(np.float32)
    loud = chance.uniform(-1, 1, 50_000).astype(np.float32)
    quiet = (10 ** chance.uniform(-6, 0, 50_000) * chance.choice([-1, 1], 50_000)).astype("f4")
    note = np.concatenate([edges.clip(-1, 1 - 2**-15), loud, quiet, [-1.0, 0.0]]).astype("f4")
    write_note(tmp_path / "00000.wav", note)
    heard, _ = soundfile.read(tmp_path / "00000.wav", dtype="int16")
    of_16_bits = mulaw.encode((heard / 32768).astype(np.float32))
    np.testing.assert_array_equal(of_16_bits, mulaw.encode(note))


def test_a_work_is_cut_to_its_frames_and_its_codes_to_its_samples(
    engine: Callable[..., MagentaEngine], scratch: Path
) -> None:
    work = a_work(samples=700)
    pieces = list(engine().decode(work))
    codes = np.concatenate([piece.codes for piece in pieces], axis=1)
    expected = [
        np.random.default_rng([seed(work), clip]).integers(0, 256, 2 * HOP)[:700]
        for clip in range(2)
    ]
    np.testing.assert_array_equal(codes, expected)
    assert [piece.time for piece in pieces] == sorted(piece.time for piece in pieces)
    assert pieces[-1].time == 700
    assert list(scratch.iterdir()) == []


def test_a_work_has_one_seed_and_another_work_another() -> None:
    assert seed(a_work()) == 0xE57ACC10  # the first 32 bits of the sha256 of "2 1"
    assert len({seed(a_work()), seed(a_work(key=2)), seed(a_work(of=3))}) == 3
    assert all(0 <= seed(a_work(key=2**64 - key)) < 2**32 for key in range(1, 100))


def test_codes_that_were_drawn_before_are_not_taken(engine: Callable[..., MagentaEngine]) -> None:
    begun = Work(*vars(a_work()).values())
    object.__setattr__(begun, "begun", np.zeros((2, 10), dtype=np.uint8))
    with pytest.raises(ValueError, match="cannot go on"):
        list(engine().decode(begun))


def test_embeddings_come_in_order_and_are_looked_at(
    engine: Callable[..., MagentaEngine], scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = np.random.default_rng(0).uniform(-1, 1, (11, 64_000)).astype(np.float32)
    embeddings = np.concatenate(list(engine().encode(notes)))
    assert embeddings.shape == (11, 125, 16)
    heard = np.rint(mulaw.decode(mulaw.encode(notes[:, :2000])) * 2**15)
    np.testing.assert_array_equal(embeddings.reshape(11, -1), heard)
    assert list(scratch.iterdir()) == []
    not_finite = np.full((125, 16), np.nan, dtype=np.float32)
    monkeypatch.setattr(magenta.np, "load", lambda path: not_finite)
    with pytest.raises(Failed, match=r"00000_embeddings.npy: .* of finite numbers"):
        list(engine().encode(notes[:1]))


def test_weights_are_saved_once_and_found_in_a_folder_of_the_images(
    engine: Callable[..., MagentaEngine],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NSYNTH_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        list(engine().decode(a_work()))
    assert capsys.readouterr().err.count("saving the weights in its own format") == 1
    (saved,) = (tmp_path / "cache").iterdir()
    assert saved.name.startswith("magenta-")
    assert len(list(saved.glob("model.ckpt-200000.*"))) == 2
    monkeypatch.setenv("NSYNTH_MAGENTA_CHECKPOINTS", str(tmp_path / "image"))
    saved.parent.rename(tmp_path / "image")
    list(engine().decode(a_work()))
    assert not (tmp_path / "cache").exists()


# How it ends


def test_a_failure_is_told_in_one_line_that_says_why(
    engine: Callable[..., MagentaEngine], scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Failed) as failed:
        list(engine(OUT_OF_MEMORY).decode(a_work()))
    assert str(failed.value) == (
        "Magenta failed with exit code 1: ResourceExhaustedError: (0) Resource exhausted: OOM when "
        "allocating tensor with shape[512,64,1,512] -> more memory is needed, of this machine's or "
        "the GPU's; then run it again"
    )
    capsys.readouterr()
    with pytest.raises(Failed):
        list(engine(OUT_OF_MEMORY, verbose=True).decode(a_work()))
    shown = capsys.readouterr().err
    assert "  | Traceback (most recent call last):" in shown
    assert len(shown.splitlines()) <= 20
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL -> more memory"),
        ("print('F tensor: no', flush=True); os.abort()", "was killed by SIGABRT: F tensor: no"),
        (
            "sys.exit('no such flag')",
            "failed with exit code 1: no such flag -> run it again, with -v",
        ),
        ("", "gen_00000.wav: Magenta wrote no clip"),
    ],
)
def test_whatever_ends_it_is_said(
    how: str, says: str, engine: Callable[..., MagentaEngine], scratch: Path
) -> None:
    with pytest.raises(Failed, match=says):
        list(engine(how).decode(a_work()))
    assert list(scratch.iterdir()) == []


def test_the_last_words_of_a_program_are_the_message_of_its_traceback() -> None:
    assert last_words(["ValueError: a: b", "INFO:tensorflow:Sample: 1/2", ""]) == "ValueError: a: b"
    assert last_words(["no", "I1123 12:00:00 fastgen.py:1] Sample: 1/2"]) == "no"
    assert last_words(["", "  "]) == ""


def test_one_that_is_closed_ends_it_and_all_that_it_started(
    engine: Callable[..., MagentaEngine], tmp_path: Path, scratch: Path
) -> None:
    """Even one that does not want to end."""
    stubborn = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    pieces = engine(stubborn + HANGS).decode(a_work())
    while next(pieces).time == 0:
        pass
    pids = [int(pid) for pid in (tmp_path / "fake" / "pids").read_text().split()]
    assert not any(map(gone, pids))
    pieces.close()
    assert all(map(gone, pids))
    assert list(scratch.iterdir()) == []


# As an engine of the stages


@pytest.fixture(scope="module")
def planned(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """18 clips to make, of embeddings by our own engine."""
    return prepared(tmp_path_factory.mktemp("planned") / "pack", small_checkpoint, **ONE_BLOCK)


@pytest.fixture
def start(small_checkpoint: Path, tmp_path: Path) -> Callable[..., Command]:
    """Return a function that starts a command with the magenta engine, on the fake."""

    def start(stage: str, workspace: Workspace, generate: str = DRAWS) -> Command:
        options = ["--engine", "magenta", "--magenta", fake(tmp_path / "fake", generate)]
        words = (stage, "-w", workspace.root, *options)
        return Command(*words, checkpoint=small_checkpoint, before=AS_IF_PUBLISHED)

    return start


def under_way(workspace: Workspace, run: Command, home: Path) -> list[int]:
    """Wait until a run says that it draws; return the fake's processes."""

    def draws() -> bool:
        try:
            return bool(json.loads(workspace.status("generate").read_text())["done"])
        except (OSError, ValueError):
            return False

    assert run.until(draws)
    return [int(pid) for pid in (home / "pids").read_text().split()]


def test_the_three_stages_with_the_magenta_engine(
    start: Callable[..., Command], make_workspace: Callable[..., Workspace], scratch: Path
) -> None:
    workspace = make_workspace()
    for _ in range(2):
        ended = done(start("run", workspace).wait())
    assert "0 notes encoded, the plan stands" in ended.said
    assert "18 clips are there, 0 of them made now" in ended.said
    assert len(list(workspace.pads.glob("*.bin"))) == 1
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("which", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
def test_one_that_is_asked_to_stop_says_what_is_lost_and_leaves_nothing_behind(
    which: signal.Signals,
    code: int,
    start: Callable[..., Command],
    planned: Workspace,
    tmp_path: Path,
    scratch: Path,
) -> None:
    workspace = copied(planned, tmp_path / "pack")
    run = start("generate", workspace, HANGS)
    pids = under_way(workspace, run, tmp_path / "fake")
    asked = time.monotonic()
    run.send(which)
    ended = run.wait()
    assert time.monotonic() - asked < 3
    assert ended.code == code, ended.said
    line = ended.said.splitlines()[-1]
    assert f"stopped by {which.name}: magenta cannot go on inside a block" in line
    assert "the block under way begins anew (1,000 of 4,300 samples of 18 clips are lost)" in line
    assert "run it again to go on" in line
    assert all(map(gone, pids))
    assert list(scratch.iterdir()) == []
    assert not workspace.clips.exists()
    status = json.loads(workspace.status("generate").read_text())
    assert (status["state"], status["done"]) == ("stopped", 0)
    done(start("generate", workspace).wait())


def test_a_scheduler_that_ends_both_at_once_has_asked_to_stop(
    start: Callable[..., Command], planned: Workspace, tmp_path: Path
) -> None:
    workspace = copied(planned, tmp_path / "pack")
    run = start("generate", workspace, HANGS)
    pids = under_way(workspace, run, tmp_path / "fake")
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    run.send(signal.SIGTERM)
    assert run.wait().code == 75


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such signal")
def test_one_that_is_killed_takes_magenta_with_it(
    start: Callable[..., Command], planned: Workspace, tmp_path: Path
) -> None:
    workspace = copied(planned, tmp_path / "pack")
    run = start("generate", workspace, HANGS)
    pids = under_way(workspace, run, tmp_path / "fake")
    run.send(signal.SIGKILL)
    assert run.wait().code == -signal.SIGKILL
    end = time.monotonic() + 10
    while not gone(pids[0]):
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(pids[1], signal.SIGKILL)  # the fake's own; Magenta starts no process


def test_codes_that_the_other_engine_began_are_neither_continued_nor_kept_as_whole(
    start: Callable[..., Command], planned: Workspace, tmp_path: Path
) -> None:
    alone, beside = (copied(planned, tmp_path / name) for name in ("alone", "beside"))
    plan = Plan.read(beside.plan)
    assert plan is not None
    begun = beside.partial(0, plan.block_identity(0))
    begun.parent.mkdir()
    np.save(begun, np.full((18, 4000), 77, dtype=np.uint8))
    run = start("generate", beside, HANGS)
    under_way(beside, run, tmp_path / "fake")
    before = begun.read_bytes()
    run.send(signal.SIGTERM)
    assert "(1,000 of 4,300 samples" in run.wait().said
    assert begun.read_bytes() == before, "ours can still go on with it"
    for workspace in (alone, beside):
        done(start("generate", workspace).wait())
    assert contents(alone.clips) == contents(beside.clips)
    assert not begun.exists()


def test_check_measures_the_original(
    start: Callable[..., Command], planned: Workspace, tmp_path: Path
) -> None:
    ended = done(start("check", planned).wait())
    assert "engine  magenta 1.1.7, TensorFlow 1.15.0, CPU" in ended.said
    assert "time    about" in ended.said


def test_check_tells_of_an_engine_that_cannot_measure(
    start: Callable[..., Command], planned: Workspace, tmp_path: Path
) -> None:
    run = start("check", planned)
    path = tmp_path / "fake" / "fake-python2.7"
    path.write_text(path.read_text().replace("""print('{"seconds": 0.01}')""", "sys.exit('no')"))
    ended = run.wait()
    assert ended.code == 2
    assert "Magenta failed with exit code 1: no" in ended.said


def test_compare_fails_engines_that_differ(small_checkpoint: Path, tmp_path: Path) -> None:
    """The fake draws what it likes; that the real one passes, `tests/oracle` shows."""
    options = ["--magenta", fake(tmp_path / "fake"), "--clips", 2, "--samples", 64]
    words = ("checkpoint", "compare", small_checkpoint, *options)
    ended = Command(*words, checkpoint=small_checkpoint, before=AS_IF_PUBLISHED).wait()
    refuses(ended, 1, "the engines differ by more than rounding")
    assert "clips       0 of 2 are equal throughout" in ended.said


def test_weights_are_saved_for_an_image(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever GPU the building machine has."""
    fake_nvidia_smi(tmp_path / "bin", monkeypatch, "0, GPU-a, NVIDIA H100, 9.0")
    words = ("checkpoint", "magenta", tmp_path / "image", "--magenta", fake(tmp_path / "fake"))
    refuses(Command(*words, checkpoint=small_checkpoint).wait(), 2, "sizes that Magenta cannot")
    assert not (tmp_path / "image").exists()
    ended = done(Command(*words, checkpoint=small_checkpoint, before=AS_IF_PUBLISHED).wait())
    (saved,) = (tmp_path / "image").iterdir()
    assert f"{saved} written" in ended.said
    assert {path.suffix for path in saved.iterdir()} == {".index", ".data-00000-of-00001"}


def test_workers_on_one_machine_share_its_memory() -> None:
    whole = machine.memory({})
    assert machine.memory({"NSYNTH_WORKERS": "4"}) == whole // 4
    with pytest.raises(BadInput, match="NSYNTH_WORKERS"):
        machine.memory({"NSYNTH_WORKERS": "none"})
