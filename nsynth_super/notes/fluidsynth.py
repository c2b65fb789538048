"""Access to the FluidSynth library: pyfluidsynth, and functions that it does not wrap."""

from __future__ import annotations

import ctypes
import importlib
import io
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache
from typing import Any

from nsynth_super.base.errors import Failed

_LOG_LEVELS = 5
_INSTALL = "`python -m pip install pyfluidsynth`"
_INSTALL_LIBRARY = (
    "`apt install libfluidsynth3` (Debian, Ubuntu), `dnf install fluidsynth-libs` (Fedora) or "
    "`brew install fluid-synth` (macOS)"
)


@cache
def library() -> Any:
    """Return the pyfluidsynth module with the FluidSynth library loaded.

    Raises
    ------
    Failed
        If either is not installed.
    """
    try:
        with redirect_stdout(io.StringIO()):  # it prints the library's path if $CI is set
            return importlib.import_module("fluidsynth")
    except ModuleNotFoundError:
        raise Failed(f"SoundFonts: pyfluidsynth is not installed -> {_INSTALL}") from None
    except (ImportError, OSError) as error:
        raise Failed(
            f"SoundFonts: FluidSynth's library is not installed ({error}) -> {_INSTALL_LIBRARY}"
        ) from None


_POINTER, _INT = ctypes.c_void_p, ctypes.c_int
_PROTOTYPES: dict[str, tuple[Any, ...]] = {  # result, arguments
    "fluid_synth_write_float": (_INT, _POINTER, _INT, *2 * (_POINTER, _INT, _INT)),
    "fluid_sfont_iteration_start": (None, _POINTER),
    "fluid_sfont_iteration_next": (_POINTER, _POINTER),
    "fluid_preset_get_banknum": (_INT, _POINTER),
    "fluid_preset_get_num": (_INT, _POINTER),
    "fluid_set_log_function": (_POINTER, _INT, _POINTER, _POINTER),
}


@cache
def function(name: str) -> Callable[..., Any]:
    """Return a library function that pyfluidsynth does not wrap."""
    result, *arguments = _PROTOTYPES[name]
    named = [(f"a{number}", kind, 1) for number, kind in enumerate(arguments)]
    found: Callable[..., Any] = library().cfunc(name, result, *named)
    return found


@cache
def hush() -> None:
    """Silence FluidSynth's log, since callers report failures themselves."""
    for level in range(_LOG_LEVELS):
        function("fluid_set_log_function")(level, None, None)
