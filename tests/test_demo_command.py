"""The command `nsynth-super demo`; tests/test_demo.py tests the sounds that it makes."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from nsynth_super import demo
from nsynth_super.base.errors import BadInput
from nsynth_super.cli import cli
from nsynth_super.settings import read

command = import_module(
    "nsynth_super.cli.demo"
)  # `nsynth_super.cli.demo` as an attribute is the command


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The recorded calls of the commands that `demo` runs, which are replaced by fakes."""
    calls: list[list[str]] = []

    def fake_command(name: str) -> click.Command:
        @click.command(name, context_settings={"ignore_unknown_options": True})
        @click.argument("words", nargs=-1, type=click.UNPROCESSED)
        @click.pass_context
        def fake(ctx: click.Context, words: tuple[str, ...]) -> None:
            calls.append([name, *(["-q"] if ctx.obj["quiet"] else []), *words])

        return fake

    for name in ("check", "run", "export", "preview"):
        monkeypatch.setattr(command, name, fake_command(name))
    return calls


def invoke(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_the_bundled_workspace_has_a_note_for_every_instrument_and_pitch():
    settings, problems = read(demo.SETTINGS)
    assert settings is not None
    assert problems == []
    wanted = {f"{name}_{pitch}.flac" for name in settings.instruments for pitch in settings.pitches}
    assert {path.name for path in demo.NOTES.iterdir()} == wanted


def test_the_demo_runs_check_run_export_and_preview_on_a_copy(
    tmp_path: Path, called: list[list[str]]
):
    root = tmp_path / "a demo"
    done = invoke("demo", root)
    assert done.exit_code == 0, done.output
    assert [words[0] for words in called] == ["check", "run", "export", "preview"]
    assert called[0] == ["check", "-w", str(root), "--checkpoint", "demo"]
    assert called[2][-1] == str(root / "wav")
    assert called[3][-2:] == ["--export", str(root / "pad.html")]
    assert sorted(files(root)) == sorted(
        [
            "LICENSE-FluidR3_GM",
            "settings.json",
            *(f"audio_input/{p.name}" for p in demo.NOTES.iterdir()),
        ]
    )


def test_the_summary_prints_commands_that_can_be_pasted(
    tmp_path: Path, called: list[list[str]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.argv", [".venv/bin/nsynth-super", "demo"])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    out = invoke("demo", tmp_path / "a demo").stdout
    assert f".venv/bin/nsynth-super preview -w '{tmp_path}/a demo'\n" in out
    assert ".venv/bin/nsynth-super checkpoint fetch\n" in out
    assert ".venv/bin/nsynth-super new my-pack\n" in out


def test_the_summary_does_not_fetch_an_existing_model(
    tmp_path: Path,
    called: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    small_checkpoint: Path,
):
    monkeypatch.setenv("NSYNTH_CHECKPOINT", str(small_checkpoint))
    assert "fetch" not in invoke("demo", tmp_path / "demo").stdout
    assert "new my-pack" in invoke("demo", tmp_path / "demo").stdout


def test_quiet_prints_no_summary(tmp_path: Path, called: list[list[str]]):
    assert invoke("-q", "demo", tmp_path / "demo").stdout == ""


def test_a_failing_command_ends_the_demo_with_its_exit_code(
    tmp_path: Path, called: list[list[str]], monkeypatch: pytest.MonkeyPatch
):
    @click.command(context_settings={"ignore_unknown_options": True})
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    @click.pass_context
    def failing(ctx: click.Context, words: tuple[str, ...]) -> None:
        ctx.exit(2)

    monkeypatch.setattr(command, "check", failing)
    assert invoke("demo", tmp_path / "demo").exit_code == 2
    assert called == []


def test_an_interrupted_copy_is_completed_without_replacing_files(tmp_path: Path):
    demo.copy_workspace(tmp_path / "complete")
    root = tmp_path / "demo"
    demo.copy_workspace(root)
    (root / "audio_input" / "cello_48.flac").unlink()
    (root / "audio_input" / "cello_60.flac").write_bytes(b"mine")
    (root / "mine.txt").write_text("mine")
    demo.copy_workspace(root)
    expected = files(tmp_path / "complete")
    assert files(root) == expected | {"audio_input/cello_60.flac": b"mine", "mine.txt": b"mine"}


def test_a_folder_with_other_contents_is_refused_and_unchanged(tmp_path: Path):
    full, changed = tmp_path / "full", tmp_path / "changed"
    full.mkdir()
    (full / "thesis.txt").write_text("years of work")
    demo.copy_workspace(changed)
    settings = json.loads(changed.joinpath("settings.json").read_text())
    changed.joinpath("settings.json").write_text(json.dumps({**settings, "resolution": 9}))
    for folder in (full, changed, full / "thesis.txt"):
        before = files(tmp_path)
        with pytest.raises(BadInput, match="nsynth-super demo FOLDER"):
            demo.copy_workspace(folder)
        assert files(tmp_path) == before


def test_a_folder_with_only_hidden_files_is_accepted(tmp_path: Path):
    (tmp_path / ".DS_Store").touch()
    demo.copy_workspace(tmp_path)
    assert (tmp_path / "settings.json").exists()
