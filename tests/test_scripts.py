"""The scripts for Slurm and the image's entrypoints: what they call, and what they do if it fails.

The programs that they call are fakes here, which note how they were called. What they are
compared with is in tests/golden/scripts; NSYNTH_GOLDEN=write in the environment writes it anew.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "scripts"
FAKES = ("nsynth-super", "sbatch", "scancel", "scontrol", "singularity", "srun")
REAL = ("bash", "cut", "dirname", "realpath", "sh", "sleep")
SHOWN = (
    "SRUN_CPUS_PER_TASK",
    "NSYNTH_IMAGE",
    "NSYNTH_CHECKPOINT",
    "NSYNTH_MAGENTA",
    "NSYNTH_MAGENTA_CHECKPOINTS",
    "PYTHONHOME",
    "PYTHONPATH",
)
"""What a script says to those it calls by the environment."""
INSIDE = "/opt/nsynth"
"""Where the image has what is ours; a fake of it is elsewhere."""

FAKE = f"""#!{sys.executable} -S
# A fake, for tests: notes how it is called, and does what FAKE_<its name> says.
import json, os, signal, sys, time
folder, name = os.environ["FAKES"], os.path.basename(sys.argv[0])
if os.path.dirname(sys.argv[0]) != folder:
    name = sys.argv[0]  # not found on the path, but called by its own
said = {{k: os.environ[k] for k in {SHOWN} if k in os.environ}}
with open(os.path.join(folder, "calls"), "a") as file:
    file.write(json.dumps([name, sys.argv[1:], said]) + "\\n")
with open(os.path.join(folder, "calls")) as file:
    times = [json.loads(line)[0] for line in file].count(name)  # that it was called
exec(os.environ.get("FAKE_" + name.upper(), ""))
"""

SBATCH = "print(100 + times)"
RUNS_UNTIL_USR1 = """
with open(os.path.join(folder, "srun"), "w") as file:
    file.write(str(os.getpid()))
def end(*_):
    {how}
signal.signal(signal.SIGUSR1, end)
open(os.path.join(folder, "step"), "w").close()
time.sleep(30)
"""
SIGNALS_THE_STEP = """
with open(os.path.join(folder, "srun")) as file:
    os.kill(int(file.read()), signal.SIGUSR1)
"""
ENDS_THE_SCRIPT = "os.kill(os.getppid(), signal.SIGKILL)"
"""As Slurm does with a batch script whose job is requeued."""


class Machine:
    """A folder with a workspace and an image, and fakes on the path.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.here, self._fakes = folder / "here", folder / "fakes"
        for name in ("pack", "another pack", "images"):
            (self.here / name).mkdir(parents=True)
        (self.here / "link").symlink_to("another pack")
        for image in ("nsynth.sif", "images/other.sif"):
            (self.here / image).touch()
        self._fakes.mkdir()
        self._inside = folder / "inside"
        (self._inside / "py3/bin").mkdir(parents=True)
        for fake in (*(self._fakes / name for name in FAKES), self._inside / "py3/bin/python"):
            fake.write_text(FAKE, encoding="utf-8")
            fake.chmod(0o755)
        for name in REAL:
            (self._fakes / name).symlink_to(str(shutil.which(name)))
        self.environment = {
            "PATH": str(self._fakes),
            "FAKES": str(self._fakes),
            "FAKE_SBATCH": SBATCH,
            "LC_ALL": "C.UTF-8",
        }

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Start a script of the repository, with a job's environment if it is a job's."""
        (self._fakes / "calls").unlink(missing_ok=True)
        script = ROOT / words[0]
        if INSIDE in (text := script.read_text(encoding="utf-8")):
            script = self._inside / script.name
            script.write_text(text.replace(INSIDE, str(self._inside)), encoding="utf-8")
            script.chmod(0o755)
        job = {"SLURM_JOB_ID": "77", "SLURM_CPUS_PER_TASK": "4"}
        return subprocess.Popen(
            ["bash", script, *words[1:]] if script.suffix == ".slrm" else [script, *words[1:]],
            env={
                **self.environment,
                **(job if script.suffix == ".slrm" else {}),
                **environment,
            },
            cwd=self.here,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a script to its end."""
        return ended(self.start(*words, **environment))

    def calls(self) -> list[tuple[str, list[str], dict[str, str]]]:
        """Return what was called by the last script: name, arguments, environment."""
        try:
            lines = (self._fakes / "calls").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [tuple(json.loads(line)) for line in lines]

    def called(self) -> list[str]:
        """Return the same, a line each, without the environment."""
        return [shlex.join([name, *words]) for name, words, _ in self.calls()]

    def wait_for_step(self, script: subprocess.Popen[str]) -> None:
        """Wait until the step that a script started listens to signals."""
        end = time.monotonic() + 20
        while not (self._fakes / "step").exists():
            assert script.poll() is None, script.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)

    def readable(self, text: str) -> str:
        """Return a text without this machine's paths."""
        text = text.replace(str(self._inside), INSIDE)
        return text.replace(str(self.here), "<here>").replace(str(ROOT), "<repository>")


def ended(script: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    try:
        out, err = script.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(script.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(script.args, script.returncode, out, err)


@pytest.fixture
def fakes(tmp_path: Path) -> Machine:
    return Machine(tmp_path.resolve())


# What they call

JOB_CASES: list[tuple[str, list[str], dict[str, str]]] = [
    ("in the workspace", [], {}),
    ("a workspace", ["pack"], {}),
    ("a workspace by the environment", [], {"NSYNTH_WORKSPACE": "pack"}),
    ("an argument beats the environment", ["pack"], {"NSYNTH_WORKSPACE": "images"}),
    ("a link to a folder with a space in its name", ["link"], {}),
    ("with options", ["pack", "--engine", "magenta", "--checkpoint", "a model.tar"], {}),
    ("options alone", ["", "--engine", "torch"], {"NSYNTH_WORKSPACE": "pack"}),
    ("another image", ["pack"], {"NSYNTH_IMAGE": "images/other.sif"}),
    ("more folders", ["pack"], {"NSYNTH_BIND": "/scratch,/data:/mnt:ro"}),
]
ARRAY = {
    "SLURM_ARRAY_JOB_ID": "77",
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_ARRAY_TASK_MIN": "0",
    "SLURM_ARRAY_TASK_MAX": "3",
    "SLURM_ARRAY_TASK_STEP": "1",
    "SLURM_ARRAY_TASK_COUNT": "4",
}
SUBMIT_CASES: list[tuple[str, list[str], dict[str, str]]] = [
    ("a workspace", ["pack"], {}),
    ("for sbatch", ["pack", "--gpus=4", "--array=0-7", "--partition", "gpu"], {}),
    ("for both", ["pack", "--gpus=v100:4", "--", "--engine", "magenta", "--", "x y"], {}),
    ("for the stages", ["pack", "--", "--checkpoint", "a model.tar"], {}),
    ("a link to a folder with a space in its name", ["link"], {}),
    ("another image", ["pack"], {"NSYNTH_IMAGE": "images/other.sif"}),
    ("more folders", ["pack"], {"NSYNTH_BIND": "/scratch,/data:/mnt:ro"}),
    ("without a check", ["pack"], {"NSYNTH_CHECK": "no"}),
    ("to one of several clusters", ["pack"], {"FAKE_SBATCH": "print(f'{100 + times};north')"}),
    ("nothing named", [], {}),
    ("an option first", ["--gpus=4", "pack"], {}),
]
ENTRYPOINT_CASES: list[tuple[str, list[str], dict[str, str]]] = [
    ("nothing", [], {}),
    ("a workspace", ["-w", "pack"], {}),
    ("with options", ["-w", "another pack", "--engine", "magenta", "-v"], {}),
    ("in an array", ["-w", "pack"], ARRAY),
]
SCRIPTS = {
    "slurm/prepare.slrm": JOB_CASES,
    "slurm/generate.slrm": [*JOB_CASES, ("in an array", ["pack"], ARRAY)],
    "slurm/pads.slrm": JOB_CASES,
    "slurm/submit": SUBMIT_CASES,
    "entrypoints/nsynth-super": [
        ("nothing", [], {}),
        ("a command", ["status", "-w", "another pack"], {}),
        (
            "with a model and a Magenta of one's own",
            ["check"],
            {
                "NSYNTH_CHECKPOINT": "a model.tar",
                "NSYNTH_MAGENTA": "/usr/bin/python2.7",
                "NSYNTH_MAGENTA_CHECKPOINTS": "models",
            },
        ),
        (
            "on a host with a Python of its own",
            ["check"],
            {"PYTHONHOME": "/conda", "PYTHONPATH": "/conda/packages"},
        ),
    ],
    "entrypoints/prepare": ENTRYPOINT_CASES,
    "entrypoints/generate": [
        *ENTRYPOINT_CASES,
        ("other workers", ["--workers", "2", "--shard", "0/2"], {}),
    ],
    "entrypoints/pads": ENTRYPOINT_CASES,
}


def test_every_script_is_looked_at() -> None:
    there = [path for folder in ("slurm", "entrypoints") for path in (ROOT / folder).iterdir()]
    assert sorted(str(path.relative_to(ROOT)) for path in there) == sorted(SCRIPTS)


def requests(script: Path) -> Iterator[str]:
    """Give the options of a script's `#SBATCH` lines."""
    for line in script.read_text(encoding="utf-8").splitlines():
        if line.startswith("#SBATCH"):
            yield from shlex.split(line.removeprefix("#SBATCH"))
        elif not line.startswith("#"):
            return  # Slurm reads no further


def transcript(fakes: Machine, script: str) -> str:
    """Return everything that a script calls and says, case by case, without machine paths."""
    out = []
    if asked := list(requests(ROOT / script)):
        out += ["asks Slurm for", *(f"    {option}" for option in asked), ""]
    for title, words, environment in SCRIPTS[script]:
        done = fakes.run(script, *words, **environment)
        others = {
            k: v
            for k, v in environment.items()
            if k.startswith(("NSYNTH", "PYTHON")) or k.endswith("TASK_ID")
        }
        said = "".join(f"{k}={shlex.quote(v)} " for k, v in others.items())
        out += [title, f"    $ {said}{shlex.join([script, *words])}"]
        for name, arguments, told in fakes.calls():
            with_it = [f"{k}={shlex.quote(v)}" for k, v in told.items()]
            out.append("    " + " ".join([*with_it, shlex.join([name, *arguments])]))
        for stream, lines in (("says", done.stdout), ("complains", done.stderr)):
            out += [f"    {stream}: {line}" for line in lines.splitlines()]
        out += [f"    exit {done.returncode}", ""]
    return fakes.readable("\n".join(out))


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_calls_what_was_agreed_on(script: str, fakes: Machine) -> None:
    golden = GOLDEN / f"{script}.txt"
    found = transcript(fakes, script)
    if os.environ.get("NSYNTH_GOLDEN") == "write":
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(found, encoding="utf-8")
    assert found == golden.read_text(encoding="utf-8")


# How a job ends


@pytest.mark.parametrize("script", ["prepare", "generate", "pads"])
@pytest.mark.parametrize("code", [0, 1, 2, 75, 130])
def test_a_job_ends_as_its_step_does(script: str, code: int, fakes: Machine) -> None:
    done = fakes.run(f"slurm/{script}.slrm", "pack", FAKE_SRUN=f"sys.exit({code})")
    assert done.returncode == code
    assert [name for name, _, _ in fakes.calls()] == ["srun"]


@pytest.mark.parametrize("script", ["prepare", "generate", "pads"])
def test_a_job_fails_if_its_step_is_killed(script: str, fakes: Machine) -> None:
    done = fakes.run(f"slurm/{script}.slrm", "pack", FAKE_SRUN="os.kill(os.getpid(), 9)")
    assert done.returncode in (128 + 9, -9)  # a shell's, or its own
    assert [name for name, _, _ in fakes.calls()] == ["srun"]


def out_of_time(
    fakes: Machine, how: str = "os._exit(75)", times: int = 1, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run generate.slrm and send it USR1, as Slurm does ahead of the time limit.

    Parameters
    ----------
    fakes : Machine
    how : str
        What the step does when it gets the signal.
    times : int
        How often the signal is sent.
    environment
        More of it.
    """
    told = {
        "FAKE_SRUN": RUNS_UNTIL_USR1.format(how=how),
        "FAKE_SCANCEL": SIGNALS_THE_STEP,
        "FAKE_SCONTROL": ENDS_THE_SCRIPT,
    }
    script = fakes.start("slurm/generate.slrm", "pack", **{**told, **environment})
    fakes.wait_for_step(script)
    for time_ in range(1, times + 1):
        script.send_signal(signal.SIGUSR1)
        while len(fakes.calls()) <= time_ and script.poll() is None:
            time.sleep(0.01)
        time.sleep(0.1)
    return ended(script)


def test_out_of_time_the_step_is_told_and_the_job_goes_back_into_the_queue(
    fakes: Machine,
) -> None:
    done = out_of_time(fakes)
    assert fakes.called()[1:] == ["scancel --signal=URG 77", "scontrol requeue 77"]
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == "out of time: what was decoded is saved; back into the queue\n"
    assert done.stderr == ""


def test_of_an_array_only_the_task_that_is_out_of_time_is_told_and_goes_back(
    fakes: Machine,
) -> None:
    # The array's last task has the array's own job number, which alone means all of its tasks.
    out_of_time(fakes, **ARRAY)
    assert fakes.called()[1:] == ["scancel --signal=URG 77_3", "scontrol requeue 77_3"]


def test_a_step_that_takes_its_time_to_stop_is_waited_for(fakes: Machine) -> None:
    done = out_of_time(fakes, how="time.sleep(0.7); os._exit(75)")
    assert fakes.called()[2:] == ["scontrol requeue 77"]
    assert done.returncode == -signal.SIGKILL


def test_a_step_that_is_told_twice_is_waited_for(fakes: Machine) -> None:
    # Once by Slurm, and once by somebody who wants the node.
    done = out_of_time(fakes, how="end.told = hasattr(end, 'told') and os._exit(75)", times=2)
    told = "scancel --signal=URG 77"
    assert fakes.called()[1:] == [told, told, "scontrol requeue 77"]
    assert done.returncode == -signal.SIGKILL


def test_a_step_that_stopped_before_scancel_came_back_is_still_known_by_its_end(
    fakes: Machine,
) -> None:
    out_of_time(fakes, FAKE_SCANCEL=SIGNALS_THE_STEP + "\ntime.sleep(0.7)")
    assert fakes.called()[2:] == ["scontrol requeue 77"]


def test_where_scancel_fails_the_step_is_told_by_srun(fakes: Machine) -> None:
    done = out_of_time(fakes, FAKE_SCANCEL="sys.exit('no controller')")
    assert fakes.called()[1:] == ["scancel --signal=URG 77", "scontrol requeue 77"]
    assert done.stderr == "no controller\n"


@pytest.mark.parametrize(
    ("restarts", "most"), [("20", None), ("21", None), ("1", "1"), ("3", "2"), (None, "0")]
)
def test_after_so_many_restarts_a_job_is_left_alone(
    restarts: str | None, most: str | None, fakes: Machine
) -> None:
    said = {"SLURM_RESTART_COUNT": restarts, "NSYNTH_MAX_RESTARTS": most}
    done = out_of_time(fakes, **{name: value for name, value in said.items() if value})
    assert done.returncode == 75
    assert fakes.called()[1:] == ["scancel --signal=URG 77"]
    assert done.stderr == f"out of time after {restarts or 0} restarts: submit it again to go on\n"


@pytest.mark.parametrize(("restarts", "most"), [("19", None), ("1", "2"), ("20", "21")])
def test_up_to_so_many_restarts_a_job_goes_back(
    restarts: str, most: str | None, fakes: Machine
) -> None:
    said = {"SLURM_RESTART_COUNT": restarts, "NSYNTH_MAX_RESTARTS": most}
    out_of_time(fakes, **{name: value for name, value in said.items() if value})
    assert fakes.called()[2:] == ["scontrol requeue 77"]


def test_a_job_that_may_not_go_back_says_so(fakes: Machine) -> None:
    done = out_of_time(fakes, FAKE_SCONTROL="sys.exit('requeueing is disabled')")
    assert done.returncode == 75
    assert done.stderr.splitlines() == [
        "requeueing is disabled",
        "out of time after 0 restarts: submit it again to go on",
    ]


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_step_that_ended_otherwise_when_it_was_told_is_not_run_again(
    code: int, fakes: Machine
) -> None:
    done = out_of_time(fakes, how=f"os._exit({code})")
    assert done.returncode == code
    assert fakes.called()[1:] == ["scancel --signal=URG 77"]


# What submit does not submit


def submitted(fakes: Machine) -> list[str]:
    return [next(Path(w).stem for w in words if w.endswith(".slrm")) for words in sbatches(fakes)]


def sbatches(fakes: Machine) -> list[list[str]]:
    return [words for name, words, _ in fakes.calls() if name == "sbatch"]


def test_a_missing_image_is_said_and_nothing_is_submitted(fakes: Machine) -> None:
    (fakes.here / "nsynth.sif").unlink()
    done = fakes.run("slurm/submit", "pack")
    assert done.returncode == 2
    assert done.stderr == (
        f"{fakes.here}/nsynth.sif: there is no image -> build it, or name it in NSYNTH_IMAGE\n"
    )
    assert fakes.calls() == []


def test_an_image_in_a_missing_folder_is_said_and_nothing_is_submitted(fakes: Machine) -> None:
    done = fakes.run("slurm/submit", "pack", NSYNTH_IMAGE="none/nsynth.sif")
    assert done.returncode != 0
    assert "none/nsynth.sif" in done.stderr
    assert fakes.calls() == []


@pytest.mark.parametrize("check", ["yes", "no"])
@pytest.mark.parametrize("name", ["pcak", "nsynth.sif", "none/pack"])
def test_a_missing_workspace_is_said_and_nothing_is_submitted(
    name: str, check: str, fakes: Machine
) -> None:
    done = fakes.run("slurm/submit", name, NSYNTH_CHECK=check)
    assert done.returncode != 0
    assert name in done.stderr
    assert fakes.calls() == []


@pytest.mark.parametrize("name", ["my,pack", "my:pack"])
def test_a_workspace_that_cannot_be_bound_is_said_and_nothing_is_submitted(
    name: str, fakes: Machine
) -> None:
    (fakes.here / name).mkdir()
    done = fakes.run("slurm/submit", name)
    assert done.returncode == 2
    assert f"{name}: a container cannot bind a path with , or :" in done.stderr
    assert fakes.calls() == []


def test_what_the_check_finds_is_its_exit_code_and_nothing_is_submitted(fakes: Machine) -> None:
    done = fakes.run("slurm/submit", "pack", FAKE_SINGULARITY="sys.exit(2)")
    assert done.returncode == 2
    assert [name for name, _, _ in fakes.calls()] == ["singularity"]
    assert done.stdout == ""


@pytest.mark.parametrize("refused", [1, 2, 3])
def test_behind_a_job_that_is_not_taken_no_other_is_submitted(refused: int, fakes: Machine) -> None:
    sbatch = f"sys.exit('no such partition') if times == {refused} else print(100 + times)"
    done = fakes.run("slurm/submit", "pack", FAKE_SBATCH=sbatch)
    assert done.returncode == 1
    assert submitted(fakes) == ["prepare", "generate", "pads"][:refused]
    assert done.stderr == "no such partition\n"
    assert done.stdout == ""


@pytest.mark.parametrize("after", ["", ";north"])
def test_each_job_waits_for_the_one_before_it(after: str, fakes: Machine) -> None:
    done = fakes.run("slurm/submit", "pack", FAKE_SBATCH=f"print(f'{{100 + times}}{after}')")
    assert submitted(fakes) == ["prepare", "generate", "pads"]
    waits = [[w for w in words if "dependency" in w] for words in sbatches(fakes)]
    assert waits == [[], ["--dependency=afterok:101"], ["--dependency=afterok:102"]]
    assert "submitted: prepare 101, generate 102, pads 103\n" in done.stdout


def test_submit_finds_its_scripts_from_anywhere_and_by_a_link(
    fakes: Machine, tmp_path: Path
) -> None:
    link = tmp_path / "submit"
    link.symlink_to(ROOT / "slurm" / "submit")
    done = ended(
        subprocess.Popen(
            [link, "pack"],
            env=fakes.environment,
            cwd=fakes.here,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )
    assert done.returncode == 0, done.stderr
    for words in sbatches(fakes):
        assert any(Path(word).parent == ROOT / "slurm" and Path(word).is_file() for word in words)


# As they are written


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_short_and_the_shell_understands_it(script: str) -> None:
    text = (ROOT / script).read_text(encoding="utf-8")
    shell = text.splitlines()[0].removeprefix("#!/bin/")
    assert shell in ("sh", "bash")
    assert len(text.splitlines()) < 40
    assert "set -euo pipefail" in text or text.splitlines()[-1].startswith("exec ")
    subprocess.run([shell, "-n", ROOT / script], check=True)
    assert os.access(ROOT / script, os.X_OK) or script.endswith(".slrm")


@pytest.fixture
def shellcheck() -> Callable[[str, str], None]:
    """Return a function that lets shellcheck look at a text, and asserts that it has no word."""
    program = shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed")

    def look(text: str, shell: str, *options: Any) -> None:
        done = subprocess.run(
            [program, "--shell", shell, *options, "-"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return look


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_has_nothing_to_say_about_a_script(
    script: str, shellcheck: Callable[..., None]
) -> None:
    text = (ROOT / script).read_text(encoding="utf-8")
    shellcheck(text, text.splitlines()[0].removeprefix("#!/bin/"))
