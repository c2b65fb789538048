"""The command that shows a pack in a browser."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from nsynth_super.cli.options import settings_of, workspace_option
from nsynth_super.progress import STOPS, amount, say
from nsynth_super.workspace import Workspace

if TYPE_CHECKING:
    from nsynth_super.preview.pack import Preview


@click.command(short_help="Play the pad in a browser, even while generate is at it.")
@workspace_option
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    help="Of the page's address; by default 8420, or the next that is free.",
)
@click.option("--no-open", is_flag=True, help="Only print the address: open no browser.")
@click.option(
    "--export",
    "exported",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.html",
    help="Write the page and the pack's sounds into one file, to send to a friend.",
)
@click.pass_obj
def preview(
    obj: dict[str, bool], root: Path, port: int | None, no_open: bool, exported: Path | None
) -> None:
    """Play the pad in a browser, even while `generate` is at it: Ctrl-C ends it.

    \b
    The page is for this machine only. From another one, forward its port:
    ssh -L 8420:127.0.0.1:8420 HOST
    """  # noqa: D301 - \b is click's
    from nsynth_super.preview.pack import Preview

    workspace = Workspace(root)
    settings_of(workspace, True)
    opened = Preview(workspace)
    if exported:
        from nsynth_super.preview import export

        written = export.run(opened.now(), exported)
        if not obj["quiet"]:
            for line in written.notices:
                say(f"preview: {line}")
            say(f"preview: {written.sounds} sounds, {amount(written.size)}, written to {exported}")
        return
    _serve(opened, port, not no_open and _has_display(), obj["quiet"])


def _serve(pack: Preview, port: int | None, opening: bool, quiet: bool) -> None:
    import webbrowser

    from nsynth_super.preview.server import listen

    for wanted in (*STOPS, signal.SIGINT):
        signal.signal(wanted, _end)
    with suppress(KeyboardInterrupt), listen(pack, port) as server:
        click.echo(server.url)
        if not quiet:
            say("preview: open this address in a browser on this machine; Ctrl-C ends it")
        if opening:
            webbrowser.open(server.url)
        server.serve_forever()


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _has_display() -> bool:
    """Tell whether a browser would have a window; where there is none, some take the terminal."""
    if sys.platform in ("darwin", "win32"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"))
