"""The command that makes the demo: a workspace, its pack, WAV files and a page to play it on."""

from __future__ import annotations

import shlex
import shutil
import sys
import webbrowser
from pathlib import Path

import click

from nsynth_super.base.workspace import Workspace
from nsynth_super.cli.pipeline import run
from nsynth_super.cli.preview import has_display, preview
from nsynth_super.cli.workspace import check, export
from nsynth_super.demo import copy_workspace


@click.command(short_help="Make a small pack from bundled notes, and a page to play it on.")
@click.argument("folder", type=click.Path(path_type=Path), default="demo")
@click.option("--no-open", is_flag=True, help="Do not open the page in a browser.")
@click.pass_context
def demo(ctx: click.Context, folder: Path, no_open: bool) -> None:
    """Make a small pack in FOLDER (demo by default) from bundled notes, and a page to play it on.

    It takes about a minute. If it is interrupted, run it again: it resumes.
    """
    root, sounds, page, quiet = folder, folder / "wav", folder / "pad.html", ctx.obj["quiet"]
    copy_workspace(root)
    _call(ctx, check, "-w", root, "--checkpoint", "demo")
    _call(ctx, run, "-w", root, "--checkpoint", "demo")
    ctx.obj = {**ctx.obj, "quiet": True}  # the summary says the same
    _call(ctx, export, "-w", root, "--", sounds)
    _call(ctx, preview, "-w", root, "--export", page)
    if not quiet:
        click.echo("\n".join(["", *_summary(root, sounds, page)]))
    if not no_open and sys.stdout.isatty() and has_display():
        webbrowser.open(page.resolve().as_uri())


def _call(ctx: click.Context, command: click.Command, *words: str | Path) -> None:
    """Call another command with `words` as its command line; exit with its code if it fails."""
    code = command.main([*map(str, words)], command.name, standalone_mode=False, parent=ctx)
    if code:
        ctx.exit(code)


def _summary(root: Path, sounds: Path, page: Path) -> list[str]:
    """Return what was made, how to play it, and what to do next, as commands to type."""
    from nsynth_super.wavenet.checkpoint import default_path

    program = _program()
    magenta = [
        "Magenta's model sounds far better than the demo's:",
        shlex.join([program, "checkpoint", "fetch"]),
    ]
    following = [
        *(magenta if default_path() is None else []),
        "Your own sounds:",
        shlex.join([program, "new", "my-pack"]),
    ]
    return [
        f"Made: {Workspace(root).pads}: one pad of 75 sounds, the synth's settings, a manifest",
        f"      {sounds}: the same sounds as WAV files",
        f"      {page}: a page to play them on",
        f"Play: open {page} in a browser, or run",
        f"      {shlex.join([program, 'preview', '-w', str(root)])}",
        f"Next: {following[0]}",
        *(f"      {line}" for line in following[1:]),
    ]


def _program() -> str:
    """Return what to type for `nsynth-super`: its path, if the shell does not find it by name."""
    here, found = Path(sys.argv[0]), shutil.which("nsynth-super")
    if here.name != "nsynth-super" or (found and here.exists() and here.samefile(found)):
        return "nsynth-super"
    return str(here)
