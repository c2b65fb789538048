"""The `notes` command: imports source notes from a SoundFont or a folder of recordings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nsynth_super.base.errors import BadInput, Problem, refuse
from nsynth_super.base.text import say
from nsynth_super.base.workspace import Workspace
from nsynth_super.cli.options import settings_of, workspace_option

if TYPE_CHECKING:
    from nsynth_super.notes.filenames import Guess
    from nsynth_super.notes.importing import Arrival
    from nsynth_super.settings import Settings

_FOLDER_OPTIONS = ("guess", "middle_c")
_SOUNDFONT_OPTIONS = ("presets", "listing", "skip_silent")
_OPTIONS = {
    "guess": "--guess",
    "middle_c": "--middle-c",
    "presets": "--preset",
    "listing": "--list",
    "skip_silent": "--skip-silent",
}


@click.command(short_help="Fill audio_input from a SoundFont or named recordings.")
@click.argument("source", type=click.Path(path_type=Path))
@workspace_option
@click.option(
    "--preset",
    "presets",
    multiple=True,
    metavar="NAME[=INSTRUMENT]",
    help="SoundFont preset: name, part of the name or BANK:PROGRAM, and the instrument's name. "
    "Can be repeated  [default: list the presets]",
)
@click.option("--list", "listing", is_flag=True, help="List the SoundFont's presets.")
@click.option("--skip-silent", is_flag=True, help="Omit pitches at which a preset is silent.")
@click.option("--guess", is_flag=True, help="Detect the notes of a folder by file name and pitch.")
@click.option(
    "--middle-c",
    type=click.Choice(["C3", "C4", "C5"]),
    help="Name of MIDI 60 in the file names  [default: detected from the recordings, or C4]",
)
@click.option(
    "--as", "instrument", metavar="INSTRUMENT", help="Name of the instrument, if there is only one."
)
@click.option(
    "--velocity",
    type=click.IntRange(1, 127),
    default=100,
    show_default=True,
    help="MIDI velocity to render; in a folder, the take closest to it is chosen.",
)
@click.option("--replace", is_flag=True, help="Replace existing recordings of the same notes.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.pass_obj
def notes(obj: dict[str, bool], /, source: Path, root: Path, **options: Any) -> None:
    """Fill audio_input from SOURCE: a SoundFont, or a folder of recordings named by note.

    \b
    nsynth-super notes FILE.sf2                              list the presets
    nsynth-super notes FILE.sf2 --preset "Tin Drum=drum"     render a preset at all pitches
    nsynth-super notes FOLDER --guess                        copy files like piano-A#3-mf.wav

    SOURCE is never changed. Existing recordings are replaced only with --replace.
    """  # noqa: D301 - \b is click's
    folder = source.is_dir()
    _refuse_mismatched_options(source, folder, options)
    if folder:
        _from_folder(source, Workspace(root), obj["quiet"], **options)
    elif options["listing"] or not options["presets"]:
        _list(source)
    else:
        _from_soundfont(source, Workspace(root), obj["quiet"], **options)


def _refuse_mismatched_options(source: Path, folder: bool, options: dict[str, Any]) -> None:
    if not source.exists():
        raise BadInput(Problem(str(source), "does not exist", "check the path"))
    if folder and not options["guess"]:
        raise BadInput(
            Problem(str(source), "is a folder", "add --guess to detect its notes by file name")
        )
    kind, wanted, other = (
        ("a folder", "a SoundFont", _SOUNDFONT_OPTIONS)
        if folder
        else ("a file", "a folder", _FOLDER_OPTIONS)
    )
    refuse(
        Problem(str(source), f"is {kind}, but {_OPTIONS[option]} needs {wanted}", "omit it")
        for option in other
        if options[option]
    )


def _list(source: Path) -> None:
    from nsynth_super.notes.soundfont import SoundFont

    for preset in SoundFont(source).presets:
        click.echo(f"{preset.bank:>3}:{preset.program:<3}  {preset.name}")


def _from_soundfont(
    source: Path,
    workspace: Workspace,
    quiet: bool,
    presets: tuple[str, ...],
    instrument: str | None,
    velocity: int,
    skip_silent: bool,
    **options: Any,
) -> None:
    from nsynth_super.notes.importing import Arrival, wav
    from nsynth_super.notes.soundfont import SoundFont, assigned, play

    if instrument is not None:
        if len(presets) > 1:
            raise BadInput(
                Problem("--as", "names only one instrument", "write --preset NAME=INSTRUMENT")
            )
        presets = (f"{presets[0]}={instrument}",)
    settings = settings_of(workspace, quiet)
    font = SoundFont(source)
    chosen = assigned(font, presets, settings.instruments)
    played = play(font, chosen, settings.pitches, velocity, skip_silent)
    arrivals = [Arrival(name, ".wav", wav(audio)) for name, audio in played.items()]
    if not quiet:
        for name, preset in chosen.items():
            count = sum(arrival.name[0] == name for arrival in arrivals)
            click.echo(f"{name}: {preset}, {count} of {len(settings.pitches)} pitches")
    _add(workspace, settings, arrivals, quiet, **options)


def _from_folder(
    source: Path,
    workspace: Workspace,
    quiet: bool,
    instrument: str | None,
    middle_c: Any,
    velocity: int,
    replace: bool,
    dry_run: bool,
    **_: Any,
) -> None:
    from nsynth_super.notes.filenames import guess as guess_notes
    from nsynth_super.notes.importing import Arrival
    from nsynth_super.notes.instrument_names import problem_of_name

    if instrument is not None and (problem := problem_of_name(instrument, "--as")) is not None:
        raise BadInput(problem)
    if workspace.notes.is_dir() and source.samefile(workspace.notes):
        raise BadInput(
            Problem(
                str(source),
                "is the workspace's audio_input, where --guess writes",
                "move the recordings to another folder",
            )
        )
    settings = settings_of(workspace, quiet)
    if not quiet:
        say(f"notes: detecting the pitches of {source} …")
    guess = guess_notes(source, middle_c, instrument, settings.instruments, velocity)
    arrivals = [Arrival(name, path.suffix.lower(), path) for name, path in guess.taken.items()]
    if not quiet:
        click.echo("\n".join(_table(guess, arrivals)))
        for problem in guess.problems:
            say(f"{problem.level}: {problem}")
    _add(workspace, settings, arrivals, quiet, replace, dry_run)


def _table(guess: Guess, arrivals: list[Arrival]) -> list[str]:
    files = {arrival.name: arrival.file for arrival in arrivals}
    rows = [("file", "note", "MIDI", "heard", "becomes")]
    for each in sorted(
        guess.recordings, key=lambda each: (each.name is None, each.name or ("", 0))
    ):
        heard = "unsure"
        if each.heard is not None:
            nearest = round(each.heard)
            heard = f"{nearest} {round(100 * (each.heard - nearest)):+d} cents"
        note = " or ".join(dict.fromkeys(reading.note for reading in each.readings)) or "-"
        midi = str(each.name[1]) if each.name is not None else "-"
        becomes = files[each.name] if each.name is not None else f"- ({each.why_not})"
        rows.append((each.path.name, note, midi, heard, becomes))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return [*lines, f"middle C (MIDI 60) is {guess.middle_c}: {guess.because}"]


def _add(
    workspace: Workspace,
    settings: Settings,
    arrivals: list[Arrival],
    quiet: bool,
    replace: bool,
    dry_run: bool,
    **_: Any,
) -> None:
    from nsynth_super.notes import importing

    written = importing.add(workspace.notes, arrivals, replace, dry_run)
    if quiet:
        return
    for problem in importing.advice(settings, workspace.notes, [each.name for each in arrivals]):
        say(f"{problem.level}: {problem}")
    existing = len(arrivals) - len(written)
    say(
        f"notes: {len(written)} {'would be ' * dry_run}written to {workspace.notes}"
        + (f", {existing} already present" if existing else "")
    )
