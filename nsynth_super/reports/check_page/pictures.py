"""The page's pictures, drawn as SVG by matplotlib.

Colours are CSS variables that the page defines for its light and dark schemes.
"""

from __future__ import annotations

import io
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nsynth_super.notes.pitch import frequency
from nsynth_super.reports.check_page.rainbowgram import HOP, ROWS, rainbowgram, row
from nsynth_super.settings import NOTE_SAMPLES, SAMPLE_RATE

SECONDS = NOTE_SAMPLES // SAMPLE_RATE
POINTS = 400  # of a waveform's outline and of a spectrum: about the pixels of a screen
QUIETEST = -80.0  # dB below the spectrum's highest peak
HUES, INTENSITIES = 24, 12  # as many as the eye distinguishes; more would enlarge the file
_INK, _SOUND, _NAMED, _HEARD = "#010101", "#010102", "#010103", "#010104"
_NAMES = {_INK: "currentColor", _SOUND: "var(--sound)", _NAMED: "var(--named)"}
_NAMES[_HEARD] = "var(--heard)"
_SVG = "http://www.w3.org/2000/svg"
ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
_TIMES = [*map(str, range(SECONDS)), f"{SECONDS} s"]
_HERTZ = {50: "50", 100: "100", 200: "200", 500: "500", 1000: "1k", 2000: "2k", 5000: "5k"}
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.sans-serif": ["DejaVu Sans"],  # bundled with matplotlib, which measures text with it
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    **{f"{part}.color": _INK for part in ("text", "xtick", "ytick")},
    **{f"axes.{part}": _INK for part in ("edgecolor", "labelcolor")},
}


def waveform_and_spectrum(
    audio: NDArray[np.float32], named: float, heard: float | None, salt: str
) -> str:
    """Draw a note's waveform, and its spectrum with the named and the detected pitch.

    Parameters
    ----------
    audio : ndarray of float32, `[samples]`
    named : float
        The file name's MIDI pitch, plus the shift of a filled-in note.
    heard : float or None
        The detected MIDI pitch.
    salt : str
        Distinguishes the element ids of the pictures of one page.
    """
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=(4.2, 2.7), layout="constrained")
        above, below = figure.subplots(2, 1)
        low, high = outline(audio)
        above.fill_between(
            np.arange(len(low)) * len(audio) / len(low) / SAMPLE_RATE,
            low,
            high,
            color=_SOUND,
            linewidth=0.3,
        )
        above.set(xlim=(0, SECONDS), ylim=(-1, 1), yticks=(-1, 0, 1))
        above.set_xticks(range(SECONDS + 1), _TIMES)
        hertz, level = spectrum(audio)
        below.plot(hertz, level, color=_SOUND, linewidth=0.8)
        below.axvline(frequency(named), color=_NAMED, linewidth=1, linestyle="--")
        if heard is not None:
            below.axvline(frequency(heard), color=_HEARD, linewidth=1, linestyle=":")
        below.set(
            xscale="log", xlim=(20, SAMPLE_RATE / 2), ylim=(QUIETEST, 3), yticks=(-80, -40, 0)
        )
        below.set_xticks(list(_HERTZ), list(_HERTZ.values()))
        below.set_xticks([], minor=True)
        below.set_xlabel("Hz", loc="right", labelpad=-8)
        below.set_ylabel("dB")
        return _svg(figure)


def rainbow(audio: NDArray[np.float32], salt: str) -> str:
    """Draw a sound's rainbowgram on a time axis of four seconds."""
    intensity, hue = rainbowgram(audio)
    hue = np.round(hue * HUES) / HUES  # cyclic: 1 equals 0
    intensity = np.round(intensity * INTENSITIES) / INTENSITIES
    colours = hsv_to_rgb(np.stack([hue, np.full_like(hue, 0.85), intensity], axis=2))
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=(4.2, 2.4), layout="constrained")
        axes = figure.subplots()
        axes.set_facecolor("black")
        extent = (0.0, intensity.shape[1] * HOP / SAMPLE_RATE, 0.0, float(ROWS))
        axes.imshow(
            np.rint(colours * 255).astype(np.uint8),
            origin="lower",
            extent=extent,
            aspect="auto",
            interpolation="none",  # embedded at its own size; the browser scales it
        )
        axes.set(xlim=(0, SECONDS), ylim=(0, ROWS))
        axes.set_xticks(range(SECONDS + 1), _TIMES)
        axes.set_yticks([row(hertz) for hertz in _HERTZ], list(_HERTZ.values()))
        axes.set_ylabel("Hz")
        return _svg(figure)


def outline(audio: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the minimum and the maximum of each of up to `POINTS` equal parts."""
    begins = np.linspace(0, len(audio), min(POINTS, len(audio)), endpoint=False).astype(int)
    return np.minimum.reduceat(audio, begins), np.maximum.reduceat(audio, begins)


def spectrum(audio: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return log-spaced frequencies in Hz, and their levels in dB relative to the highest peak.

    Each point is the maximum of its band, so that no harmonic falls between two points.
    """
    lines = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    level = 20 * np.log10(np.maximum(lines / max(lines.max(), 1e-9), 1e-9))
    edges = np.geomspace(20, SAMPLE_RATE / 2, POINTS + 1)
    begins = (edges[:-1] * len(audio) / SAMPLE_RATE).astype(int)
    highest = [
        level[begin : max(end, begin + 1)].max()
        for begin, end in zip(begins, [*begins[1:], len(level)], strict=True)
    ]
    return np.sqrt(edges[:-1] * edges[1:]), np.maximum(highest, QUIETEST)


def _svg(figure: Figure) -> str:
    """Return a figure as SVG to embed in HTML.

    matplotlib has no settings for what is changed here: the size, so that the page scales the
    picture; ids of groups, which repeat from picture to picture; CSS variables as colours; and
    six decimals of a point in paths, a third of the file.
    """
    content = io.StringIO()
    # Without date and program, equal sounds give equal pages.
    figure.savefig(
        content,
        format="svg",
        transparent=True,
        metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
    )
    svg = ElementTree.fromstring(content.getvalue())
    del svg.attrib["width"], svg.attrib["height"]
    for element in svg.iter():
        if element.tag == f"{{{_SVG}}}g":
            element.attrib.pop("id", None)
        if "d" in element.attrib:
            element.set("d", _rounded(element.attrib["d"]))
        for attribute in ("style", "fill", "stroke"):
            if attribute in element.attrib:
                element.set(attribute, _named_colours(element.attrib[attribute]))
    return ElementTree.tostring(svg, encoding="unicode")


def _rounded(path: str) -> str:
    """Round a path's coordinates to a tenth of a point, which is less than is visible."""
    return " ".join(
        word if word.isalpha() else f"{round(float(word), 1):g}" for word in path.split()
    )


def _named_colours(style: str) -> str:
    for colour, name in _NAMES.items():
        style = style.replace(colour, name)
    return style
