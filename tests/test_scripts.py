"""The Slurm scripts and the image's entrypoints: what they run and how they handle failures.

Fake programs on the PATH record each call. tests/golden/scripts holds the expected calls and
output; set NSYNTH_GOLDEN=write to regenerate it.
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

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "scripts"
FAKES = ("nsynth-super", "sbatch", "scancel", "scontrol", "singularity", "srun")
REAL = ("bash", "cut", "dirname", "realpath", "sh", "sleep")
RECORDED_VARIABLES = (
    "SRUN_CPUS_PER_TASK",
    "NSYNTH_IMAGE",
    "NSYNTH_CHECKPOINT",
    "NSYNTH_MAGENTA",
    "NSYNTH_MAGENTA_CHECKPOINTS",
    "PYTHONHOME",
    "PYTHONPATH",
)
"""Environment variables that the fakes record."""
INSIDE = "/opt/nsynth"
"""The program's folder in the image; tests replace it by a fake elsewhere."""
REPOSITORY = "@repository@"
"""Stands for `ROOT` while arguments are quoted, so that a space in its path adds no quotes."""

FAKE = f"""#!/bin/sh
'''exec' "{sys.executable}" -S "$0" "$@"  # a #! line cannot hold a path with a space
' '''
# A fake program: records its call, then executes the Python code in the variable FAKE_<NAME>.
import json, os, signal, sys, time
folder, name = os.environ["FAKES"], os.path.basename(sys.argv[0])
if os.path.dirname(sys.argv[0]) != folder:
    name = sys.argv[0]  # called by its path, not found on the PATH
variables = {{k: os.environ[k] for k in {RECORDED_VARIABLES} if k in os.environ}}
with open(os.path.join(folder, "calls"), "a") as file:
    file.write(json.dumps([name, sys.argv[1:], variables]) + "\\n")
with open(os.path.join(folder, "calls")) as file:
    times = [json.loads(line)[0] for line in file].count(name)  # calls so far
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
"""Slurm kills the batch script of a job that is requeued."""


class Machine:
    """A folder with workspaces and images, and a PATH with fakes.

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
        """Start a script of the repository; a .slrm script gets the environment of a job."""
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
        """Run a script and return its result."""
        return wait_for(self.start(*words, **environment))

    def calls(self) -> list[tuple[str, list[str], dict[str, str]]]:
        """Return the calls of the last script: name, arguments, environment."""
        try:
            lines = (self._fakes / "calls").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [tuple(json.loads(line)) for line in lines]

    def commands(self) -> list[str]:
        """Return the calls of the last script as command lines, without the environment."""
        return [shlex.join([name, *words]) for name, words, _ in self.calls()]

    def wait_for_step(self, script: subprocess.Popen[str]) -> None:
        """Wait until the step of a script handles signals."""
        end = time.monotonic() + 20
        while not (self._fakes / "step").exists():
            assert script.poll() is None, script.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)

    def readable(self, text: str) -> str:
        """Replace this machine's paths in a text by placeholders."""
        text = text.replace(str(self._inside), INSIDE).replace(str(self.here), "<here>")
        return text.replace(str(ROOT), "<repository>").replace(REPOSITORY, "<repository>")


def wait_for(script: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    try:
        out, err = script.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(script.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(script.args, script.returncode, out, err)


@pytest.fixture
def fakes(tmp_path: Path) -> Machine:
    return Machine(tmp_path.resolve())


# Commands

JOB_CASES: list[tuple[str, list[str], dict[str, str]]] = [
    ("in the workspace", [], {}),
    ("a workspace", ["pack"], {}),
    ("a workspace from the environment", [], {"NSYNTH_WORKSPACE": "pack"}),
    ("an argument overrides the environment", ["pack"], {"NSYNTH_WORKSPACE": "images"}),
    ("a link to a folder with a space in its name", ["link"], {}),
    ("with options", ["pack", "--engine", "magenta", "--checkpoint", "a model.tar"], {}),
    ("only options", ["", "--engine", "torch"], {"NSYNTH_WORKSPACE": "pack"}),
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
    ("sbatch options", ["pack", "--gpus=4", "--array=0-7", "--partition", "gpu"], {}),
    (
        "sbatch and stage options",
        ["pack", "--gpus=v100:4", "--", "--engine", "magenta", "--", "x y"],
        {},
    ),
    ("stage options", ["pack", "--", "--checkpoint", "a model.tar"], {}),
    ("a link to a folder with a space in its name", ["link"], {}),
    ("another image", ["pack"], {"NSYNTH_IMAGE": "images/other.sif"}),
    ("more folders", ["pack"], {"NSYNTH_BIND": "/scratch,/data:/mnt:ro"}),
    ("check disabled", ["pack"], {"NSYNTH_CHECK": "no"}),
    ("several clusters", ["pack"], {"FAKE_SBATCH": "print(f'{100 + times};north')"}),
    ("no arguments", [], {}),
    ("an option first", ["--gpus=4", "pack"], {}),
]
ENTRYPOINT_CASES: list[tuple[str, list[str], dict[str, str]]] = [
    ("no arguments", [], {}),
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
        ("no arguments", [], {}),
        ("a command", ["status", "-w", "another pack"], {}),
        (
            "another model and another Magenta",
            ["check"],
            {
                "NSYNTH_CHECKPOINT": "a model.tar",
                "NSYNTH_MAGENTA": "/usr/bin/python2.7",
                "NSYNTH_MAGENTA_CHECKPOINTS": "models",
            },
        ),
        (
            "Python settings on the host",
            ["check"],
            {"PYTHONHOME": "/conda", "PYTHONPATH": "/conda/packages"},
        ),
    ],
    "entrypoints/prepare": ENTRYPOINT_CASES,
    "entrypoints/generate": [
        *ENTRYPOINT_CASES,
        ("overridden workers", ["--workers", "2", "--shard", "0/2"], {}),
    ],
    "entrypoints/pads": ENTRYPOINT_CASES,
}


def test_every_script_has_test_cases() -> None:
    scripts = [path for folder in ("slurm", "entrypoints") for path in (ROOT / folder).iterdir()]
    assert sorted(str(path.relative_to(ROOT)) for path in scripts) == sorted(SCRIPTS)


def sbatch_options(script: Path) -> Iterator[str]:
    """Yield the options of a script's `#SBATCH` lines."""
    for line in script.read_text(encoding="utf-8").splitlines():
        if line.startswith("#SBATCH"):
            yield from shlex.split(line.removeprefix("#SBATCH"))
        elif not line.startswith("#"):
            return  # Slurm ignores #SBATCH lines after the first command


def transcript(fakes: Machine, script: str) -> str:
    """Return the calls and the output of a script in each case, without machine paths."""
    out = []
    if options := list(sbatch_options(ROOT / script)):
        out += ["#SBATCH options", *(f"    {option}" for option in options), ""]
    for title, words, environment in SCRIPTS[script]:
        done = fakes.run(script, *words, **environment)
        shown = {
            k: v
            for k, v in environment.items()
            if k.startswith(("NSYNTH", "PYTHON")) or k.endswith("TASK_ID")
        }
        assignments = "".join(f"{k}={shlex.quote(v)} " for k, v in shown.items())
        out += [title, f"    $ {assignments}{shlex.join([script, *words])}"]
        for name, arguments, variables in fakes.calls():
            prefix = [f"{k}={shlex.quote(v)}" for k, v in variables.items()]
            words = [word.replace(str(ROOT), REPOSITORY) for word in (name, *arguments)]
            out.append("    " + " ".join([*prefix, shlex.join(words)]))
        for stream, lines in (("stdout", done.stdout), ("stderr", done.stderr)):
            out += [f"    {stream}: {line}" for line in lines.splitlines()]
        out += [f"    exit {done.returncode}", ""]
    return fakes.readable("\n".join(out))


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_runs_the_expected_commands(script: str, fakes: Machine) -> None:
    golden = GOLDEN / f"{script}.txt"
    found = transcript(fakes, script)
    if os.environ.get("NSYNTH_GOLDEN") == "write":
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(found, encoding="utf-8")
    assert found == golden.read_text(encoding="utf-8")


# Exit codes and requeueing


@pytest.mark.parametrize("script", ["prepare", "generate", "pads"])
@pytest.mark.parametrize("code", [0, 1, 2, 75, 130])
def test_a_job_exits_with_the_code_of_its_step(script: str, code: int, fakes: Machine) -> None:
    done = fakes.run(f"slurm/{script}.slrm", "pack", FAKE_SRUN=f"sys.exit({code})")
    assert done.returncode == code
    assert [name for name, _, _ in fakes.calls()] == ["srun"]


@pytest.mark.parametrize("script", ["prepare", "generate", "pads"])
def test_a_job_fails_if_its_step_is_killed(script: str, fakes: Machine) -> None:
    done = fakes.run(f"slurm/{script}.slrm", "pack", FAKE_SRUN="os.kill(os.getpid(), 9)")
    assert done.returncode in (128 + 9, -9)  # from the shell, or from srun after exec
    assert [name for name, _, _ in fakes.calls()] == ["srun"]


def out_of_time(
    fakes: Machine, how: str = "os._exit(75)", times: int = 1, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run generate.slrm and send it USR1, as Slurm does before the time limit.

    Parameters
    ----------
    fakes : Machine
    how : str
        Python code that the step executes on the signal.
    times : int
        How often the signal is sent.
    environment
        Additional variables.
    """
    defaults = {
        "FAKE_SRUN": RUNS_UNTIL_USR1.format(how=how),
        "FAKE_SCANCEL": SIGNALS_THE_STEP,
        "FAKE_SCONTROL": ENDS_THE_SCRIPT,
    }
    script = fakes.start("slurm/generate.slrm", "pack", **{**defaults, **environment})
    fakes.wait_for_step(script)
    for time_ in range(1, times + 1):
        script.send_signal(signal.SIGUSR1)
        while len(fakes.calls()) <= time_ and script.poll() is None:
            time.sleep(0.01)
        time.sleep(0.1)
    return wait_for(script)


def test_a_job_out_of_time_stops_its_step_and_requeues(fakes: Machine) -> None:
    done = out_of_time(fakes)
    assert fakes.commands()[1:] == ["scancel --signal=URG 77", "scontrol requeue 77"]
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == "out of time: progress is saved; requeueing\n"
    assert done.stderr == ""


def test_only_the_array_task_out_of_time_is_signalled_and_requeued(fakes: Machine) -> None:
    # The last task's job id equals the array's, which without _TASK means all tasks.
    out_of_time(fakes, **ARRAY)
    assert fakes.commands()[1:] == ["scancel --signal=URG 77_3", "scontrol requeue 77_3"]


def test_a_job_waits_for_a_step_that_stops_slowly(fakes: Machine) -> None:
    done = out_of_time(fakes, how="time.sleep(0.7); os._exit(75)")
    assert fakes.commands()[2:] == ["scontrol requeue 77"]
    assert done.returncode == -signal.SIGKILL


def test_a_job_waits_for_a_step_that_is_signalled_twice(fakes: Machine) -> None:
    # Once for the time limit, once for preemption.
    done = out_of_time(fakes, how="end.before = hasattr(end, 'before') and os._exit(75)", times=2)
    scancel = "scancel --signal=URG 77"
    assert fakes.commands()[1:] == [scancel, scancel, "scontrol requeue 77"]
    assert done.returncode == -signal.SIGKILL


def test_the_exit_code_of_a_step_that_ends_before_scancel_is_kept(fakes: Machine) -> None:
    out_of_time(fakes, FAKE_SCANCEL=SIGNALS_THE_STEP + "\ntime.sleep(0.7)")
    assert fakes.commands()[2:] == ["scontrol requeue 77"]


def test_a_failing_scancel_falls_back_to_signalling_srun(fakes: Machine) -> None:
    done = out_of_time(fakes, FAKE_SCANCEL="sys.exit('no controller')")
    assert fakes.commands()[1:] == ["scancel --signal=URG 77", "scontrol requeue 77"]
    assert done.stderr == "no controller\n"


@pytest.mark.parametrize(
    ("restarts", "maximum"), [("20", None), ("21", None), ("1", "1"), ("3", "2"), (None, "0")]
)
def test_a_job_at_its_maximum_of_restarts_is_not_requeued(
    restarts: str | None, maximum: str | None, fakes: Machine
) -> None:
    variables = {"SLURM_RESTART_COUNT": restarts, "NSYNTH_MAX_RESTARTS": maximum}
    done = out_of_time(fakes, **{name: value for name, value in variables.items() if value})
    assert done.returncode == 75
    assert fakes.commands()[1:] == ["scancel --signal=URG 77"]
    assert done.stderr == (
        f"out of time after {restarts or 0} restarts: submit the job again to resume\n"
    )


@pytest.mark.parametrize(("restarts", "maximum"), [("19", None), ("1", "2"), ("20", "21")])
def test_a_job_below_its_maximum_of_restarts_is_requeued(
    restarts: str, maximum: str | None, fakes: Machine
) -> None:
    variables = {"SLURM_RESTART_COUNT": restarts, "NSYNTH_MAX_RESTARTS": maximum}
    out_of_time(fakes, **{name: value for name, value in variables.items() if value})
    assert fakes.commands()[2:] == ["scontrol requeue 77"]


def test_a_job_that_cannot_requeue_reports_it(fakes: Machine) -> None:
    done = out_of_time(fakes, FAKE_SCONTROL="sys.exit('requeueing is disabled')")
    assert done.returncode == 75
    assert done.stderr.splitlines() == [
        "requeueing is disabled",
        "out of time after 0 restarts: submit the job again to resume",
    ]


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_signalled_step_with_another_exit_code_is_not_requeued(code: int, fakes: Machine) -> None:
    done = out_of_time(fakes, how=f"os._exit({code})")
    assert done.returncode == code
    assert fakes.commands()[1:] == ["scancel --signal=URG 77"]


# slurm/submit


def submitted(fakes: Machine) -> list[str]:
    return [next(Path(w).stem for w in words if w.endswith(".slrm")) for words in sbatches(fakes)]


def sbatches(fakes: Machine) -> list[list[str]]:
    return [words for name, words, _ in fakes.calls() if name == "sbatch"]


def test_submit_reports_a_missing_image(fakes: Machine) -> None:
    (fakes.here / "nsynth.sif").unlink()
    done = fakes.run("slurm/submit", "pack")
    assert done.returncode == 2
    assert done.stderr == (
        f"{fakes.here}/nsynth.sif: image not found -> build it, or set NSYNTH_IMAGE to its path\n"
    )
    assert fakes.calls() == []


def test_submit_reports_an_image_in_a_missing_folder(fakes: Machine) -> None:
    done = fakes.run("slurm/submit", "pack", NSYNTH_IMAGE="none/nsynth.sif")
    assert done.returncode != 0
    assert "none/nsynth.sif" in done.stderr
    assert fakes.calls() == []


@pytest.mark.parametrize("check", ["yes", "no"])
@pytest.mark.parametrize("name", ["pcak", "nsynth.sif", "none/pack"])
def test_submit_reports_a_missing_workspace(name: str, check: str, fakes: Machine) -> None:
    done = fakes.run("slurm/submit", name, NSYNTH_CHECK=check)
    assert done.returncode != 0
    assert name in done.stderr
    assert fakes.calls() == []


@pytest.mark.parametrize("name", ["my,pack", "my:pack"])
def test_submit_reports_a_workspace_that_cannot_be_bound(name: str, fakes: Machine) -> None:
    (fakes.here / name).mkdir()
    done = fakes.run("slurm/submit", name)
    assert done.returncode == 2
    assert f"{name}: a path with , or : cannot be bound" in done.stderr
    assert fakes.calls() == []


def test_submit_exits_with_the_code_of_a_failing_check(fakes: Machine) -> None:
    done = fakes.run("slurm/submit", "pack", FAKE_SINGULARITY="sys.exit(2)")
    assert done.returncode == 2
    assert [name for name, _, _ in fakes.calls()] == ["singularity"]
    assert done.stdout == ""


@pytest.mark.parametrize("refused", [1, 2, 3])
def test_submit_stops_at_the_first_job_that_sbatch_refuses(refused: int, fakes: Machine) -> None:
    sbatch = f"sys.exit('no such partition') if times == {refused} else print(100 + times)"
    done = fakes.run("slurm/submit", "pack", FAKE_SBATCH=sbatch)
    assert done.returncode == 1
    assert submitted(fakes) == ["prepare", "generate", "pads"][:refused]
    assert done.stderr == "no such partition\n"
    assert done.stdout == ""


@pytest.mark.parametrize("after", ["", ";north"])
def test_each_job_depends_on_the_previous_one(after: str, fakes: Machine) -> None:
    done = fakes.run("slurm/submit", "pack", FAKE_SBATCH=f"print(f'{{100 + times}}{after}')")
    assert submitted(fakes) == ["prepare", "generate", "pads"]
    waits = [[w for w in words if "dependency" in w] for words in sbatches(fakes)]
    assert waits == [[], ["--dependency=afterok:101"], ["--dependency=afterok:102"]]
    assert "submitted: prepare 101, generate 102, pads 103\n" in done.stdout


def test_submit_finds_its_scripts_through_a_symbolic_link(fakes: Machine, tmp_path: Path) -> None:
    link = tmp_path / "submit"
    link.symlink_to(ROOT / "slurm" / "submit")
    done = wait_for(
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


# Syntax


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_short_and_parses(script: str) -> None:
    text = (ROOT / script).read_text(encoding="utf-8")
    shell = text.splitlines()[0].removeprefix("#!/bin/")
    assert shell in ("sh", "bash")
    assert len(text.splitlines()) < 40
    assert "set -euo pipefail" in text or text.splitlines()[-1].startswith("exec ")
    subprocess.run([shell, "-n", ROOT / script], check=True)
    assert os.access(ROOT / script, os.X_OK) or script.endswith(".slrm")


@pytest.fixture
def shellcheck() -> Callable[[str, str], None]:
    """Return a function that asserts that shellcheck finds nothing in a text."""
    program = shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed")

    def check(text: str, shell: str, *options: Any) -> None:
        done = subprocess.run(
            [program, "--shell", shell, *options, "-"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return check


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_accepts_a_script(script: str, shellcheck: Callable[..., None]) -> None:
    text = (ROOT / script).read_text(encoding="utf-8")
    shellcheck(text, text.splitlines()[0].removeprefix("#!/bin/"))
