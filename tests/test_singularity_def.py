"""The text of Singularity.def: its stages, arguments, labels, help, apps and test.

tests/cluster tests that it builds and runs.
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
        The title line without its %, and the text, of each section.
    """

    header: dict[str, str] = field(default_factory=dict)
    sections: list[tuple[str, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.header["Stage"]

    def section(self, title: str) -> str:
        """Return the text of the only section with this title."""
        (text,) = [text for found, text in self.sections if found == title]
        return text

    @property
    def arguments(self) -> dict[str, str]:
        lines = [line.strip() for line in self.section("arguments").splitlines() if line.strip()]
        return {name: value for name, _, value in (line.partition("=") for line in lines)}

    def without_arguments(self) -> str:
        """Return the text of the stage without its %arguments."""
        sections = [text for title, text in self.sections if title != "arguments"]
        return "\n".join([*self.header.values(), *sections])


def parse_stages(text: str) -> list[Stage]:
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


STAGES = parse_stages(TEXT)
IMAGE = STAGES[-1]
by_stage = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)


def test_the_stages_have_the_expected_names() -> None:
    assert [stage.name for stage in STAGES] == ["cuda", "build", "image"]


@by_stage
def test_a_stages_base_can_be_replaced(stage: Stage) -> None:
    assert ARGUMENT.fullmatch(stage.header["Bootstrap"])
    assert ARGUMENT.fullmatch(stage.header["From"])


# Arguments


@by_stage
def test_every_argument_that_a_stage_uses_is_declared_there(stage: Stage) -> None:
    # An argument is defined only in the stages that declare it.
    used = set(ARGUMENT.findall(stage.without_arguments()))
    used |= {name for value in stage.arguments.values() for name in ARGUMENT.findall(value)}
    assert used <= stage.arguments.keys()
    assert used


@by_stage
def test_a_default_has_no_quotes_comments_or_outer_spaces(stage: Stage) -> None:
    for name, value in stage.arguments.items():
        assert re.fullmatch(r"[A-Z0-9_]+", name)
        assert value
        assert not re.search(r"['\"#]|^\s|\s$", value), (
            f"{name}: Apptainer inserts {value!r} verbatim"
        )


def test_an_argument_has_the_same_default_in_every_stage() -> None:
    defaults: dict[str, set[str]] = {}
    for stage in STAGES:
        for name, value in stage.arguments.items():
            defaults.setdefault(name, set()).add(value)
    assert {name: values for name, values in defaults.items() if len(values) > 1} == {}
    assert len(defaults) > 5


def test_no_argument_follows_a_hash() -> None:
    # Apptainer substitutes nothing after a #, even outside of comments.
    lines = [line for line in TEXT.splitlines() if re.search(r"#.*\{\{", line)]
    assert lines == []


# Copied files


def with_defaults(stage: Stage, text: str) -> str:
    """Substitute the stage's default arguments in a text."""
    return ARGUMENT.sub(lambda match: stage.arguments.get(match[1], match[0]), text)


def copied(stage: Stage, title: str) -> Iterator[tuple[str, str]]:
    """Yield (source, destination) for each line of these sections, with default arguments."""
    for found, text in stage.sections:
        if found == title:
            for line in text.splitlines():
                if line.strip() and not line.lstrip().startswith("#"):
                    source, to = with_defaults(stage, line).split()
                    yield source, to


def test_files_copied_from_the_repository_exist() -> None:
    sources = [source for stage in STAGES for source, _ in copied(stage, "files")]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert {"entrypoints", "nsynth_super", "requirements", "patches"} <= set(sources)


def test_files_copied_from_a_stage_are_created_in_an_earlier_one() -> None:
    checked = 0
    for number, stage in enumerate(STAGES):
        for title, _ in stage.sections:
            if title.startswith("files from "):
                (earlier,) = [s for s in STAGES[:number] if s.name == title.split()[-1]]
                for source, _ in copied(stage, title):
                    assert creates(earlier, source), source
                    checked += 1
    assert checked >= 2


def creates(stage: Stage, path: str) -> bool:
    """Return whether a stage copies a path from the repository or mentions it in its %post."""
    for source, to in copied(stage, "files"):
        target = f"{to}{Path(source).name}"
        if path == target or path.startswith(f"{target}/"):
            return (ROOT / source / path[len(target) :].strip("/")).exists()
    (post,) = [text for title, text in stage.sections if title.startswith("post")]
    return re.search(rf"{re.escape(path)}\b", post) is not None


def test_repository_files_used_in_post_are_copied() -> None:
    for stage in STAGES:
        sources = [source for source, _ in copied(stage, "files")]
        for title, text in stage.sections:
            if title.startswith("post"):
                for path in re.findall(r"(?<![/\w.])((?:requirements|patches)/[\w.-]+)", text):
                    assert (ROOT / path).is_file()
                    assert any(path.startswith(source) for source in sources), path


# Labels, help, apps


def test_labels_describe_the_image_and_its_contents() -> None:
    labels = dict(
        line.split(maxsplit=1) for line in IMAGE.section("labels").splitlines() if line.strip()
    )
    post, built = IMAGE.section("post"), STAGES[1].section("post -c /bin/bash")
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


def test_help_names_only_existing_commands() -> None:
    words = re.findall(
        r"(?:run|exec)(?: --nv)?(?: --app)? nsynth\.sif ([a-z|]+)", IMAGE.section("help")
    )
    named = {word for alternatives in words for word in alternatives.split("|")}
    assert {"new", "check", "run", "status", *APPS} <= named
    assert named <= {*cli.commands, *APPS}
    for script in re.findall(r"slurm/[\w.]+", IMAGE.section("help")):
        assert (ROOT / "slurm" / script.removeprefix("slurm/").rstrip(".,")).exists()


def test_each_entrypoint_is_an_app_with_help() -> None:
    for kind in ("apprun", "apphelp"):
        found = [title.split() for title, _ in IMAGE.sections if title.startswith(kind)]
        assert sorted(found) == [[kind, name] for name in APPS]
    for name in APPS:
        assert (
            IMAGE.section(f"apprun {name}").strip() == f'exec /opt/nsynth/entrypoints/{name} "$@"'
        )
        assert f"--app {name} nsynth.sif -w WORKSPACE" in IMAGE.section(f"apphelp {name}")


def test_running_the_image_runs_the_program() -> None:
    assert IMAGE.section("runscript").strip() == 'exec nsynth-super "$@"'


def test_the_entrypoints_come_first_on_the_path() -> None:
    (path,) = re.findall(r"export PATH=(\S+)", IMAGE.section("environment"))
    assert path.split(":")[0] == "/opt/nsynth/entrypoints"
    assert dict(copied(STAGES[1], "files"))["entrypoints"] == "/opt/nsynth/"


# Shell


def test_the_test_section_fails_if_any_command_fails() -> None:
    # Without `set -e`, only the last command of a %test counts.
    first, second, *_ = IMAGE.section("test").splitlines()
    assert first.strip() == "#!/bin/bash"
    assert second.strip() == "set -e"


@by_stage
def test_a_build_fails_if_any_command_fails(stage: Stage) -> None:
    ((title, text),) = [(t, body) for t, body in stage.sections if t.startswith("post")]
    bash = title == "post -c /bin/bash"
    assert text.splitlines()[0].strip() == ("set -euo pipefail" if bash else "set -eu")


def shell_sections(stage: Stage) -> Iterator[tuple[str, str, str]]:
    """Yield (title, shell, text) for each section with shell code, with default arguments."""
    for title, text in stage.sections:
        if title.split()[0] in ("post", "environment", "runscript", "apprun", "test"):
            text = with_defaults(stage, textwrap.dedent(text))
            bash = "/bin/bash" in title or text.startswith("#!/bin/bash")
            yield title, "bash" if bash else "sh", text


SECTIONS = [
    pytest.param(*section, id=f"{stage.name}-{section[0]}")
    for stage in STAGES
    for section in shell_sections(stage)
]


def test_every_kind_of_shell_section_is_tested() -> None:
    assert {str(section.values[0]).split()[0] for section in SECTIONS} == {
        "post",
        "environment",
        "runscript",
        "apprun",
        "test",
    }


@pytest.mark.parametrize(("title", "kind", "text"), SECTIONS)
def test_the_shell_parses_a_section(title: str, kind: str, text: str) -> None:
    assert "{{" not in text
    done = subprocess.run([kind, "-n"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), title


@pytest.mark.parametrize(("title", "kind", "text"), SECTIONS)
def test_shellcheck_accepts_a_section(title: str, kind: str, text: str) -> None:
    program = shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed")
    # SC2050, SC2194: a substituted argument makes a comparison constant.
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
"""CUDA's libraries in TensorFlow's image of 2019: links to files with longer names."""


def copied_cuda(usr: Path, to: Path, cuda10: str) -> subprocess.CompletedProcess[str]:
    """Run the section that copies CUDA's libraries, with `usr` as the image's /usr."""
    script = (
        STAGES[0].section("post").replace("{{ CUDA10 }}", cuda10).replace("/opt/cuda-10.0", str(to))
    )
    return subprocess.run(
        ["sh", "-c", script.replace("/usr/", f"{usr}/")], capture_output=True, text=True
    )


def fake_cuda(usr: Path) -> list[str]:
    """Create fake libraries and return their names."""
    for folder, names in CUDA_10.items():
        (usr / folder).mkdir(parents=True)
        for name in names:
            (usr / folder / f"{name}.130").write_text(f"fake {name}")
            (usr / folder / name).symlink_to(f"{name}.130")
    (usr / "local/cuda-10.0/stubs").mkdir()
    (usr / "local/cuda-10.0/stubs/libcuda.so.1").write_text("a stub that must not be copied")
    return sorted(name for names in CUDA_10.values() for name in names)


def test_tensorflows_cuda_libraries_are_copied_without_the_driver_stub(tmp_path: Path) -> None:
    names = fake_cuda(tmp_path / "usr")
    done = copied_cuda(tmp_path / "usr", tmp_path / "out", "required")
    assert done.returncode == 0, done.stderr
    copied = {path.name: path for path in (tmp_path / "out").iterdir()}
    assert sorted(copied) == names
    for name, path in copied.items():
        assert not path.is_symlink()
        assert path.read_text() == f"fake {name}"


def test_a_missing_cuda_library_fails_the_build_by_name(tmp_path: Path) -> None:
    fake_cuda(tmp_path / "usr")
    (tmp_path / "usr/lib/x86_64-linux-gnu/libcudnn.so.7").unlink()
    refused = copied_cuda(tmp_path / "usr", tmp_path / "out", "required")
    assert refused.returncode == 1
    assert "has no libcudnn.so.7" in refused.stderr
    assert "CUDA10=none" in refused.stderr


def test_cuda_10_can_be_omitted(tmp_path: Path) -> None:
    (tmp_path / "usr").mkdir()
    assert copied_cuda(tmp_path / "usr", tmp_path / "out", "none").returncode == 0
    assert list((tmp_path / "out").iterdir()) == []
