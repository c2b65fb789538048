"""Singularity.def as a text: what its stages, arguments, labels, help, apps and test must be.

That it builds and runs is seen in tests/cluster.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nsynth_super.cli import cli

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Singularity.def").read_text(encoding="utf-8")
ARGUMENT = re.compile(r"\{\{\s*(\w+)\s*\}\}")
PROGRAM = "nsynth-super"
APPS = sorted({path.name for path in (ROOT / "entrypoints").iterdir()} - {PROGRAM})


@dataclass
class Stage:
    """A stage of the definition.

    Attributes
    ----------
    header : dict of str to str
        `Bootstrap`, `From`, `Stage`.
    sections : list of (str, str)
        Each section's first line, without its %, and what follows.
    """

    header: dict[str, str] = field(default_factory=dict)
    sections: list[tuple[str, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.header["Stage"]

    def of(self, title: str) -> str:
        """Return the one section of this title."""
        (text,) = [text for found, text in self.sections if found == title]
        return text

    @property
    def arguments(self) -> dict[str, str]:
        lines = [line.strip() for line in self.of("arguments").splitlines() if line.strip()]
        return {name: value for name, _, value in (line.partition("=") for line in lines)}

    def everything_but_its_arguments(self) -> str:
        sections = [text for title, text in self.sections if title != "arguments"]
        return "\n".join([*self.header.values(), *sections])


def stages_of(text: str) -> list[Stage]:
    """Split a definition into stages and sections."""
    found: list[Stage] = []
    title = None
    for line in text.splitlines():
        if line.startswith("Bootstrap:"):
            found.append(Stage())
            title = None
        if line.startswith("%"):
            title = line[1:].strip()
            found[-1].sections.append((title, ""))
        elif title is None and (header := re.fullmatch(r"(\w+): (.*)", line)):
            found[-1].header[header[1]] = header[2]
        elif title is not None:
            found[-1].sections[-1] = (title, found[-1].sections[-1][1] + line + "\n")
    return found


STAGES = stages_of(TEXT)
IMAGE = STAGES[-1]
by_stage = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)


def test_the_stages_are_known_by_name() -> None:
    assert [stage.name for stage in STAGES] == ["cuda", "build", "image"]


@by_stage
def test_a_stages_base_can_be_replaced(stage: Stage) -> None:
    assert ARGUMENT.fullmatch(stage.header["Bootstrap"])
    assert ARGUMENT.fullmatch(stage.header["From"])


# Arguments


@by_stage
def test_every_argument_that_a_stage_uses_is_declared_there(stage: Stage) -> None:
    # Arguments belong to a stage: what another has declared is not defined here.
    used = set(ARGUMENT.findall(stage.everything_but_its_arguments()))
    used |= {name for value in stage.arguments.values() for name in ARGUMENT.findall(value)}
    assert used <= stage.arguments.keys()
    assert used


@by_stage
def test_a_default_is_as_it_shall_be_put_in(stage: Stage) -> None:
    for name, value in stage.arguments.items():
        assert re.fullmatch(r"[A-Z0-9_]+", name)
        assert value
        assert not re.search(r"['\"#]|^\s|\s$", value), (
            f"{name}: Apptainer keeps {value!r} as it is"
        )


def test_an_argument_has_the_same_default_wherever_it_is_declared() -> None:
    defaults: dict[str, set[str]] = {}
    for stage in STAGES:
        for name, value in stage.arguments.items():
            defaults.setdefault(name, set()).add(value)
    assert {name: values for name, values in defaults.items() if len(values) > 1} == {}
    assert len(defaults) > 5


def test_no_argument_stands_behind_a_hash() -> None:
    # Apptainer substitutes nothing there, be it a comment or not.
    lines = [line for line in TEXT.splitlines() if re.search(r"#.*\{\{", line)]
    assert lines == []


# What it copies


def copied(stage: Stage, title: str) -> Iterator[tuple[str, str]]:
    """Give (from, to) for each line of the sections of this title, with the defaults put in."""
    for found, text in stage.sections:
        if found == title:
            for line in text.splitlines():
                if line.strip() and not line.lstrip().startswith("#"):
                    put_in = ARGUMENT.sub(
                        lambda match: stage.arguments.get(match[1], match[0]), line
                    )
                    source, to = put_in.split()
                    yield source, to


def test_what_it_copies_from_the_repository_is_there() -> None:
    sources = [source for stage in STAGES for source, _ in copied(stage, "files")]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert {"entrypoints", "nsynth_super", "requirements", "patches"} <= set(sources)


def test_what_it_copies_from_a_stage_was_made_in_an_earlier_one() -> None:
    checked = 0
    for number, stage in enumerate(STAGES):
        for title, _ in stage.sections:
            if title.startswith("files from "):
                (earlier,) = [s for s in STAGES[:number] if s.name == title.split()[-1]]
                for source, _ in copied(stage, title):
                    assert is_made_in(earlier, source), source
                    checked += 1
    assert checked >= 2


def is_made_in(stage: Stage, path: str) -> bool:
    """Tell whether a path was copied from the repository into a stage, or its %post names it."""
    for source, to in copied(stage, "files"):
        there = f"{to}{Path(source).name}"
        if path == there or path.startswith(f"{there}/"):
            return (ROOT / source / path[len(there) :].strip("/")).exists()
    (post,) = [text for title, text in stage.sections if title.startswith("post")]
    return re.search(rf"{re.escape(path)}\b", post) is not None


def test_what_it_needs_of_the_repository_is_not_left_to_chance() -> None:
    # Everything in %post that is named by a path of the repository is copied.
    for stage in STAGES:
        sources = [source for source, _ in copied(stage, "files")]
        for title, text in stage.sections:
            if title.startswith("post"):
                for named in re.findall(r"(?<![/\w.])((?:requirements|patches)/[\w.-]+)", text):
                    assert (ROOT / named).is_file()
                    assert any(named.startswith(source) for source in sources), named


# Labels, help, apps


def test_the_image_says_what_it_is_and_what_is_inside_by_labels() -> None:
    labels = dict(
        line.split(maxsplit=1) for line in IMAGE.of("labels").splitlines() if line.strip()
    )
    post, built = IMAGE.of("post"), STAGES[1].of("post -c /bin/bash")
    assert '>>"$APPTAINER_LABELS"' in post
    assert "cat /opt/nsynth/checkpoint/labels" in post
    echoed = re.compile(r'^ *echo "([\w.]+) \S', re.MULTILINE)
    computed = [*echoed.findall(post), *echoed.findall(built)]
    assert sorted([*labels, *computed]) == [
        "nsynth.checkpoint.sha256",
        "nsynth.checkpoint.weights",
        "nsynth.cuda10",
        "nsynth.magenta",
        "nsynth.torch",
        "org.opencontainers.image.description",
        "org.opencontainers.image.licenses",
        "org.opencontainers.image.revision",
        "org.opencontainers.image.title",
        "org.opencontainers.image.version",
    ]
    assert labels["org.opencontainers.image.title"] == "nsynth-super"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.revision"] == "{{ REVISION }}"


def test_help_names_commands_that_there_are() -> None:
    words = re.findall(r"(?:run|exec)(?: --nv)?(?: --app)? nsynth\.sif ([a-z|]+)", IMAGE.of("help"))
    named = {word for alternatives in words for word in alternatives.split("|")}
    assert {"new", "check", "run", "status", *APPS} <= named
    assert named <= {*cli.commands, *APPS}
    for script in re.findall(r"slurm/[\w.]+", IMAGE.of("help")):
        assert (ROOT / "slurm" / script.removeprefix("slurm/").rstrip(".,")).exists()


def test_each_entrypoint_is_an_app_with_a_help() -> None:
    for kind in ("apprun", "apphelp"):
        found = [title.split() for title, _ in IMAGE.sections if title.startswith(kind)]
        assert sorted(found) == [[kind, name] for name in APPS]
    for name in APPS:
        assert IMAGE.of(f"apprun {name}").strip() == f'exec /opt/nsynth/entrypoints/{name} "$@"'
        assert f"--app {name} nsynth.sif -w WORKSPACE" in IMAGE.of(f"apphelp {name}")


def test_by_itself_the_image_is_the_command_line() -> None:
    assert IMAGE.of("runscript").strip() == 'exec nsynth-super "$@"'


def test_the_entrypoints_are_found_first() -> None:
    (path,) = re.findall(r"export PATH=(\S+)", IMAGE.of("environment"))
    assert path.split(":")[0] == "/opt/nsynth/entrypoints"
    assert dict(copied(STAGES[1], "files"))["entrypoints"] == "/opt/nsynth/"


# Shell


def test_the_test_fails_if_any_line_does() -> None:
    # A %test passes or fails by its last command alone, unless it says so itself.
    first, second, *_ = IMAGE.of("test").splitlines()
    assert first.strip() == "#!/bin/bash"
    assert second.strip() == "set -e"


@by_stage
def test_a_build_fails_if_any_line_does(stage: Stage) -> None:
    ((title, text),) = [(t, body) for t, body in stage.sections if t.startswith("post")]
    bash = title == "post -c /bin/bash"
    assert text.splitlines()[0].strip() == ("set -euo pipefail" if bash else "set -eu")


def shell(stage: Stage) -> Iterator[tuple[str, str, str]]:
    """Give (title, shell, text) for each section that a shell reads, with the defaults put in."""
    for title, text in stage.sections:
        if title.split()[0] in ("post", "environment", "runscript", "apprun", "test"):
            text = ARGUMENT.sub(
                lambda match: stage.arguments.get(match[1], match[0]), textwrap.dedent(text)
            )
            bash = "/bin/bash" in title or text.startswith("#!/bin/bash")
            yield title, "bash" if bash else "sh", text


SECTIONS = [
    pytest.param(*section, id=f"{stage.name}-{section[0]}")
    for stage in STAGES
    for section in shell(stage)
]


def test_every_kind_of_section_is_looked_at() -> None:
    assert {str(section.values[0]).split()[0] for section in SECTIONS} == {
        "post",
        "environment",
        "runscript",
        "apprun",
        "test",
    }


@pytest.mark.parametrize(("title", "kind", "text"), SECTIONS)
def test_the_shell_understands_a_section(title: str, kind: str, text: str) -> None:
    assert "{{" not in text
    done = subprocess.run([kind, "-n"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), title


@pytest.mark.parametrize(("title", "kind", "text"), SECTIONS)
def test_shellcheck_has_nothing_to_say_about_a_section(title: str, kind: str, text: str) -> None:
    program = shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed")
    # SC2050, SC2194: with an argument put in, what is compared is a constant.
    words = [program, "--shell", kind, "--exclude", "SC2050,SC2194", "-"]
    done = subprocess.run(words, input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"{title}\n{done.stdout}{done.stderr}"


CUDA_10 = {
    "local/cuda-10.0/targets/x86_64-linux/lib": [
        "libcudart.so.10.0", "libcublas.so.10.0", "libcufft.so.10.0", "libcurand.so.10.0",
        "libcusolver.so.10.0", "libcusparse.so.10.0",
    ],
    "lib/x86_64-linux-gnu": ["libcudnn.so.7"],
}  # fmt: skip
"""Where TensorFlow's image of 2019 has what TensorFlow opens: links to files of longer names."""


def copied_cuda(usr: Path, to: Path, cuda10: str) -> subprocess.CompletedProcess[str]:
    """Run the section that copies CUDA's libraries, on folders that stand for the image's."""
    script = STAGES[0].of("post").replace("{{ CUDA10 }}", cuda10).replace("/opt/cuda-10.0", str(to))
    return subprocess.run(
        ["sh", "-c", script.replace("/usr/", f"{usr}/")], capture_output=True, text=True
    )


def fake_cuda(usr: Path) -> list[str]:
    """Make empty stand-ins for the libraries; return their names."""
    for folder, names in CUDA_10.items():
        (usr / folder).mkdir(parents=True)
        for name in names:
            (usr / folder / f"{name}.130").write_text(f"fake {name}")
            (usr / folder / name).symlink_to(f"{name}.130")
    (usr / "local/cuda-10.0/stubs").mkdir()
    (usr / "local/cuda-10.0/stubs/libcuda.so.1").write_text("a stub that must stay behind")
    return sorted(name for names in CUDA_10.values() for name in names)


def test_what_tensorflow_opens_of_cuda_is_copied_and_no_stub_of_the_driver(tmp_path: Path) -> None:
    names = fake_cuda(tmp_path / "usr")
    done = copied_cuda(tmp_path / "usr", tmp_path / "out", "required")
    assert done.returncode == 0, done.stderr
    copied = {path.name: path for path in (tmp_path / "out").iterdir()}
    assert sorted(copied) == names
    for name, path in copied.items():
        assert not path.is_symlink()
        assert path.read_text() == f"fake {name}"


def test_a_base_without_one_of_cudas_libraries_is_refused_by_name(tmp_path: Path) -> None:
    fake_cuda(tmp_path / "usr")
    (tmp_path / "usr/lib/x86_64-linux-gnu/libcudnn.so.7").unlink()
    refused = copied_cuda(tmp_path / "usr", tmp_path / "out", "required")
    assert refused.returncode == 1
    assert "has no libcudnn.so.7" in refused.stderr
    assert "CUDA10=none" in refused.stderr


def test_an_image_can_be_had_without_cuda_10(tmp_path: Path) -> None:
    (tmp_path / "usr").mkdir()
    assert copied_cuda(tmp_path / "usr", tmp_path / "out", "none").returncode == 0
    assert list((tmp_path / "out").iterdir()) == []
