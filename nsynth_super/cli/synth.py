"""The commands for the instrument's card: install, verify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nsynth_super.cli.options import settings_of, workspace_option
from nsynth_super.problems import errors
from nsynth_super.progress import amount, say, stop_at_once
from nsynth_super.workspace import Workspace

if TYPE_CHECKING:
    from nsynth_super.card.installation import Work

target_argument = click.argument("target", type=click.Path(path_type=Path))
settings_option = click.option(
    "--device-settings",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The settings.json that the device reads, where TARGET does not show it.",
)


@click.command(short_help="Put the pack onto the instrument's mounted card.")
@workspace_option
@target_argument
@settings_option
@click.option(
    "--folder",
    help="The pads' folder as the device sees it, as in /home/pi/pads-drums; a name alone lies "
    "beside the present one.",
)
@click.option(
    "--replace",
    is_flag=True,
    help="Overwrite pads of the same name, remove those of another geometry or cut short.",
)
@click.option(
    "--add",
    is_flag=True,
    help="Go on listing the device's present instruments beside the pack's: only where every "
    "combination of them has its pad.",
)
@click.option(
    "--looping/--no-looping",
    default=None,
    help="Whether a held key plays a part of the sound to and fro (as shipped, 20 to 41 % of it), "
    "or the sound to its end; by default as the pack's or the device's settings say.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing.")
@click.pass_obj
def install(
    obj: dict[str, bool],
    /,
    root: Path,
    target: Path,
    device_settings: Path | None,
    folder: str | None,
    dry_run: bool,
    **options: Any,
) -> None:
    """Put the pack onto the instrument's card, mounted at TARGET, and set the device to it.

    TARGET is the card's root, which has home/pi, or the folder of its pads. Pads are copied aside,
    read back and compared; those that are there already are left. Of the device's settings only
    nsynth.dataDirectory, resolution, pitches, length, sampleRate and the corners change, and the
    file from before is kept beside it.

    Several packs may lie in one folder if their resolution, pitches, length agree. The device lists
    the one installed last; installing another again is how to switch.
    """
    from nsynth_super import card as cards
    from nsynth_super.card import install as stage
    from nsynth_super.card import installation

    quiet, workspace = obj["quiet"], Workspace(root)
    settings = settings_of(workspace, quiet)
    card = cards.find(target, folder, device_settings)
    choices = installation.Choices(**options)
    work = installation.plan(workspace, settings, card, choices, quiet)
    if dry_run:
        click.echo("\n".join(_planned(work)))
        return
    if not quiet:
        for problem in work.problems:
            say(f"{problem.level}: {problem}")
    backup = stage.run(workspace, work, quiet)
    if quiet:
        return
    if work.removed:
        count = len(work.removed)
        say(f"install: {count} pad{'s' * (count > 1)} removed from {card.pads}")
    say(
        f"install: {len(work.copied)} of {len(work.pack.pads)} pads copied and read back, "
        f"{work.kept} there already, in {card.pads}"
    )
    say(f"install: {card.settings} {_settled(work, backup)}")
    say(_then(work))


def _planned(work: Work) -> list[str]:
    """Say what would be done, a line for each thing."""
    size = amount(work.pack.geometry.bytes)
    out = [f"{problem.level}: {problem}" for problem in work.problems]
    out += [f"would remove {work.card.pads / name}" for name in work.removed]
    for name in work.copied:
        verb = "overwrite" if name in work.replaced else "write"
        out.append(f"would {verb} {work.card.pads / name} ({size})")
    out.append(f"{work.kept} of {len(work.pack.pads)} pads are there already")
    if work.changes:
        backup = ", and keep it as it is now beside it" if work.card.given is not None else ""
        out.append(f"would change {work.card.settings}{backup}:")
        out += [f"  {line}" for line in work.changes]
    return out


def _settled(work: Work, backup: Path | None) -> str:
    if backup:
        return f"changed, kept as it was in {backup.name}"
    return "written" if work.card.given is None else "is as it should be"


def _then(work: Work) -> str:
    card = work.card
    if card.root or card.is_device:
        return "install: unmount the card before you take it out; `nsynth-super verify` proves it"
    return (
        f"install: let the device's own settings.json take the parts nsynth and corners of "
        f"{card.settings}, or name it: --device-settings"
    )


@click.command(short_help="Prove a card: every pad against its manifest.")
@target_argument
@settings_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def verify(
    ctx: click.Context, /, target: Path, device_settings: Path | None, as_json: bool
) -> None:
    """Prove the card at TARGET: every pad against its manifest, the device's settings against both.

    Ends with 2 if anything is wrong, and lists all of it. Take the card out and in again before, so
    that it is the card that is read and not this computer's memory of it.
    """
    from nsynth_super import card as cards
    from nsynth_super.card import verify as stage

    stop_at_once()
    report = stage.run(cards.find(target, None, device_settings), ctx.obj["quiet"] or as_json)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=1, ensure_ascii=False))
    else:
        for problem in report.problems:
            click.echo(f"{problem.level}: {problem}")
        found = len(errors(report.problems))
        click.echo(
            f"whole: {report.pads} pad{'s' * (report.pads != 1)} ({amount(report.bytes)}), "
            "and settings that fit them"
            if report.whole
            else f"{found} problem{'s' * (found > 1)}"
        )
    ctx.exit(0 if report.whole else 2)
