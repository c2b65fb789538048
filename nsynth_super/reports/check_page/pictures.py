"""The page's pictures, as SVG: arrays in, a string out. Needs matplotlib.

Their ink and colours are names that the page gives a value to, in light and in dark.
"""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nsynth_super.pitch import frequency
from nsynth_super.report.rainbowgram import HOP, ROWS, rainbowgram, row
from nsynth_super.settings import NOTE_SAMPLES, SAMPLE_RATE

SECONDS = NOTE_SAMPLES // SAMPLE_RATE
POINTS = 400  # of a waveform's outline, and of a spectrum: what a screen shows
QUIETEST = -80.0  # dB below the spectrum's highest peak
HUES, INTENSITIES = 24, 12  # as many as the eye keeps apart; more would be a larger file
_INK, _SOUND, _NAMED, _HEARD = "#010101", "#010102", "#010103", "#010104"
_NAMES = {_INK: "currentColor", _SOUND: "var(--sound)", _NAMED: "var(--named)"}
_NAMES[_HEARD] = "var(--heard)"
_TIMES = [*map(str, range(SECONDS)), f"{SECONDS} s"]
_HERTZ = {50: "50", 100: "100", 200: "200", 500: "500", 1000: "1k", 2000: "2k", 5000: "5k"}
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.sans-serif": ["DejaVu Sans"],  # matplotlib's own, to measure with
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
    """Draw a note over time, and its spectrum with the pitches of its name and of its sound.

    Parameters
    ----------
    audio : ndarray of float32, `[samples]`
    named : float
        The MIDI pitch that the file name says, and what it is re-pitched by.
    heard : float or None
        The MIDI pitch detected.
    salt : str
        Another for each picture of a page: their parts have names.
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
    """Draw a sound's rainbowgram, on an axis of four seconds."""
    intensity, hue = rainbowgram(audio)
    hue = np.round(hue * HUES) / HUES  # it goes round: 1 is 0
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
            interpolation="none",  # SVG takes it as it is, and the browser makes it large
        )
        axes.set(xlim=(0, SECONDS), ylim=(0, ROWS))
        axes.set_xticks(range(SECONDS + 1), _TIMES)
        axes.set_yticks([row(hertz) for hertz in _HERTZ], list(_HERTZ.values()))
        axes.set_ylabel("Hz")
        return _svg(figure)


def outline(audio: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the lowest and the highest sample of each of up to `POINTS` equal parts."""
    begins = np.linspace(0, len(audio), min(POINTS, len(audio)), endpoint=False).astype(int)
    return np.minimum.reduceat(audio, begins), np.maximum.reduceat(audio, begins)


def spectrum(audio: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return frequencies in Hz, evenly by octave, and dB below the highest peak.

    Of each part the highest line counts, so that no harmonic falls between two points.
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


def _svg(figure: Any) -> str:
    """Return a figure as SVG to stand in a page: no size of its own, no name but its links'."""
    content = io.StringIO()
    # Neither date nor program: the same sound is the same page.
    figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*"', "", svg)
    svg = re.sub(r' d="([^"]*)"', _shorter, svg)
    for colour, name in _NAMES.items():
        svg = svg.replace(colour, name)
    return svg


def _shorter(path: re.Match[str]) -> str:
    """Round a path to a tenth of a point, less than is seen: a third of the file."""
    points = re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.1f}", path[1])
    return f' d="{" ".join(points.split())}"'
