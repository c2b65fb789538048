"""The commands for the synth's SD card: install and verify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nsynth_super.base.errors import errors
from nsynth_super.base.text import amount, say
from nsynth_super.base.workspace import Workspace
from nsynth_super.cli.options import settings_of, synth_settings_option, workspace_option
from nsynth_super.runtime.signals import stop_at_once

if TYPE_CHECKING:
    from nsynth_super.synth.install_plan import InstallPlan

target_argument = click.argument("target", type=click.Path(path_type=Path))
settings_option = synth_settings_option("The synth's settings.json, if it is not on TARGET.")


@click.command(short_help="Copy the pack to the synth's SD card.")
@workspace_option
@target_argument
@settings_option
@click.option(
    "--folder",
    help="Pads folder as the synth sees it, such as /home/pi/pads-drums; a name without / is a "
    "folder next to the current one.",
)
@click.option(
    "--replace",
    is_flag=True,
    help="Overwrite pads of the same name; remove truncated pads and those of another geometry.",
)
@click.option(
    "--add",
    is_flag=True,
    help="Keep the synth's current instruments listed next to the pack's; needs a pad for every "
    "combination of them.",
)
@click.option(
    "--looping/--no-looping",
    default=None,
    help="While a key is held, loop a part of the sound back and forth (20 to 41 % as shipped), or "
    "play it to its end  [default: from settings.json, or the synth's current setting]",
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, and write nothing.")
@click.pass_obj
def install(
    obj: dict[str, bool],
    /,
    root: Path,
    target: Path,
    synth_settings: Path | None,
    folder: str | None,
    dry_run: bool,
    **options: Any,
) -> None:
    """Copy the pack to the synth's SD card, mounted at TARGET, and select it in its settings.

    TARGET is the card's root, which contains home/pi, or the card's pads folder. Each pad is copied
    atomically, read back and compared; pads that are already present are skipped. In the synth's
    settings.json only nsynth.dataDirectory, resolution, pitches, length, sampleRate, looping and
    the corners change. A backup of it is kept in the same folder.

    Packs with the same resolution, pitches and length can share a folder. The synth lists the pack
    installed last; install another one again to switch.
    """
    from nsynth_super.synth.card import find_card
    from nsynth_super.synth.install import install_pack
    from nsynth_super.synth.install_plan import InstallOptions, plan_install

    quiet, workspace = obj["quiet"], Workspace(root)
    settings = settings_of(workspace, quiet)
    card = find_card(target, folder, synth_settings)
    choices = InstallOptions(**options)
    plan = plan_install(workspace, settings, card, choices, quiet)
    if dry_run:
        click.echo("\n".join(_dry_run(plan)))
        return
    if not quiet:
        for problem in plan.problems:
            say(f"{problem.level}: {problem}")
    backup = install_pack(workspace, plan, quiet)
    if quiet:
        return
    if plan.removed:
        count = len(plan.removed)
        say(f"install: {count} pad{'s' * (count > 1)} removed from {card.pads}")
    say(
        f"install: {len(plan.copied)} of {len(plan.pack.pads)} pads copied and read back, "
        f"{plan.kept} already present, in {card.pads}"
    )
    say(f"install: {card.settings} {_settings_outcome(plan, backup)}")
    say(_next_step(plan))


def _dry_run(plan: InstallPlan) -> list[str]:
    """Return the lines of `--dry-run`, one per action."""
    size = amount(plan.pack.geometry.bytes)
    out = [f"{problem.level}: {problem}" for problem in plan.problems]
    out += [f"would remove {plan.card.pads / name}" for name in plan.removed]
    for name in plan.copied:
        verb = "overwrite" if name in plan.replaced else "write"
        out.append(f"would {verb} {plan.card.pads / name} ({size})")
    out.append(f"{plan.kept} of {len(plan.pack.pads)} pads are already present")
    if plan.changes:
        backup = ", keeping a backup" if plan.card.given is not None else ""
        out.append(f"would change {plan.card.settings}{backup}:")
        out += [f"  {line}" for line in plan.changes]
    return out


def _settings_outcome(plan: InstallPlan, backup: Path | None) -> str:
    if backup:
        return f"changed; the previous version is in {backup.name}"
    return "written" if plan.card.given is None else "unchanged"


def _next_step(plan: InstallPlan) -> str:
    card = plan.card
    if card.root or card.is_synth:
        return "install: unmount the card before removing it; `nsynth-super verify` checks the card"
    return (
        f"install: copy the keys nsynth and corners of {card.settings} to the synth's "
        "settings.json, or give its path with --synth-settings"
    )


@click.command(short_help="Verify every pad on the card against its manifest.")
@target_argument
@settings_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def verify(ctx: click.Context, /, target: Path, synth_settings: Path | None, as_json: bool) -> None:
    """Verify the card at TARGET: its pads, their manifest and the synth's settings.

    Lists every problem and exits with 2 if there is one. Before you run it, remove and reinsert the
    card, so that the pads are read from the card and not from this computer's cache.
    """
    from nsynth_super.synth.card import find_card
    from nsynth_super.synth.verify import verify_card

    stop_at_once()
    report = verify_card(find_card(target, None, synth_settings), ctx.obj["quiet"] or as_json)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=1, ensure_ascii=False))
    else:
        for problem in report.problems:
            click.echo(f"{problem.level}: {problem}")
        found = len(errors(report.problems))
        click.echo(
            f"ok: {report.pads} pad{'s' * (report.pads != 1)} ({amount(report.bytes)}), "
            "and settings that match them"
            if report.intact
            else f"{found} problem{'s' * (found > 1)}"
        )
    ctx.exit(0 if report.intact else 2)
