"""The `preview` command: plays a pack in a browser."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from nsynth_super.base.text import amount, say
from nsynth_super.base.workspace import Workspace
from nsynth_super.cli.options import settings_of, workspace_option
from nsynth_super.runtime.signals import STOPS

if TYPE_CHECKING:
    from nsynth_super.preview.pack import Preview


@click.command(short_help="Play the pack in a browser, even while generate runs.")
@workspace_option
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    help="Port of the page  [default: 8420, or the next free one]",
)
@click.option("--no-open", is_flag=True, help="Print the address without opening a browser.")
@click.option(
    "--export",
    "exported",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.html",
    help="Write the page and the pack's sounds to a single file to share.",
)
@click.pass_obj
def preview(
    obj: dict[str, bool], root: Path, port: int | None, no_open: bool, exported: Path | None
) -> None:
    """Play the pack in a browser, even while `generate` runs. Ctrl-C stops the server.

    \b
    The server accepts connections from this machine only. From another one, forward the port:
    ssh -L 8420:127.0.0.1:8420 HOST
    """  # noqa: D301 - \b is click's
    from nsynth_super.preview.pack import Preview

    workspace = Workspace(root)
    settings_of(workspace, True)
    opened = Preview(workspace)
    if exported:
        from nsynth_super.preview import export

        written = export.export_page(opened.now(), exported)
        if not obj["quiet"]:
            for line in written.notices:
                say(f"preview: {line}")
            say(f"preview: wrote {written.sounds} sounds ({amount(written.size)}) to {exported}")
        return
    _serve(opened, port, not no_open and has_display(), obj["quiet"])


def _serve(pack: Preview, port: int | None, opening: bool, quiet: bool) -> None:
    import webbrowser

    from nsynth_super.preview.server import listen

    for number in (*STOPS, signal.SIGINT):
        signal.signal(number, _interrupt)
    with suppress(KeyboardInterrupt), listen(pack, port) as server:
        click.echo(server.url)
        if not quiet:
            say("preview: open this address in a browser on this machine; Ctrl-C stops the server")
        if opening:
            webbrowser.open(server.url)
        server.serve_forever()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def has_display() -> bool:
    """Return whether there is a display; without one, some browsers take over the terminal."""
    if sys.platform in ("darwin", "win32"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"))
