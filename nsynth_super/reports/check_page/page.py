"""Rendering of the page: the report and every note's entry, as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nsynth_super.base.text import amount, duration
from nsynth_super.reports.check_page.entries import PLAYED, Entry

if TYPE_CHECKING:
    from nsynth_super.reports.check import Report

TEMPLATE = Path(__file__).with_name("page.html.jinja")
_MINUS, _NONE = "\N{MINUS SIGN}", "\N{EM DASH}"


def page(name: str, report: Report, entries: Sequence[Entry]) -> bytes:
    """Return the page as UTF-8.

    Parameters
    ----------
    name : str
        Of the pack: its title.
    report : check.Report
    entries : sequence of Entry
        Sorted by instrument and pitch.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        decibels=_decibels, cents=_cents, pitch=_pitch, amount=amount, duration=duration
    )
    by_instrument = [
        (instrument, list(group))
        for instrument, group in groupby(entries, lambda entry: entry.heard.note.name[0])
    ]
    text = environment.get_template(TEMPLATE.name).render(
        name=name, report=report, entries=entries, by_instrument=by_instrument, played=PLAYED
    )
    # File names may not be valid UTF-8.
    return text.encode(errors="replace")


def _signed(number: float, digits: int = 0) -> str:
    text = f"{number:+.{digits}f}"
    return "0" if float(text) == 0 and not digits else text.replace("-", _MINUS)


def _decibels(level: float | None) -> str:
    return _NONE if level is None else f"{level:.1f}".replace("-", _MINUS)


def _cents(semitones: float | None) -> str:
    return _NONE if semitones is None else _signed(100 * semitones)


def _pitch(pitch: float | None) -> str:
    return _NONE if pitch is None else f"{pitch:.2f}"
