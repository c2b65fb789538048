"""Magenta's published checkpoint, downloaded: one gigabyte, going on where it broke off."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import requests

from nsynth_super.files import explained, only_one, sha256, write_json
from nsynth_super.problems import BadInput, Problem

URL = "http://download.magenta.tensorflow.org/models/nsynth/wavenet-ckpt.tar"
_PIECE = 1 << 20  # bytes


def fetch(url: str, destination: Path, progress: Callable[[int, int], None]) -> Path:
    """Download `url` to `destination`, going on where an earlier attempt broke off.

    Parameters
    ----------
    url : str
        Of Magenta's .tar, or of a mirror.
    destination : Path
        Where it goes once it is whole. Beside it a .json records the url, the size and the sha256
        of what came; nobody has published one to compare it with.
    progress : callable
        Called with (bytes so far, bytes in all; 0 if the server does not say).

    Returns
    -------
    Path
        `destination`.

    Raises
    ------
    BadInput
        If the server does not have it, or the connection breaks; the partial file stays, for the
        next attempt.
    Failed
        If the disk cannot hold it.
    """
    if _is_there(destination):
        return destination
    partial = partial_of(url, destination)
    busy = f"{destination}: another `checkpoint fetch` is at work there"
    with only_one(partial.with_name(f".{destination.name}.lock"), busy):
        return _fetch(url, partial, destination, progress)


def partial_of(url: str, destination: Path) -> Path:
    """Return where what came of `url` so far is kept; another mirror's is not gone on with."""
    return destination.with_name(
        f"{destination.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part"
    )


def _is_there(destination: Path) -> bool:
    try:
        record = json.loads(destination.with_suffix(".json").read_text(encoding="utf-8"))
        return bool(destination.stat().st_size == record["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _fetch(
    url: str, partial: Path, destination: Path, progress: Callable[[int, int], None]
) -> Path:
    try:
        _go_on(url, partial, progress)
    except requests.RequestException as error:
        done = partial.stat().st_size if partial.exists() else 0
        raise BadInput(
            Problem(
                url,
                f"the download broke off at {done:,} bytes ({type(error).__name__}: {error})",
                "run it again to go on, or give a mirror with --url, or copy the .tar by hand "
                "and name it with --checkpoint",
            )
        ) from None
    except OSError as error:
        raise explained(error, partial) from error
    if not tarfile.is_tarfile(partial):
        partial.unlink()
        raise BadInput(Problem(url, "is no .tar", "give a mirror of Magenta's with --url"))
    record = {"url": url, "bytes": partial.stat().st_size, "sha256": sha256(partial)}
    write_json(destination.with_suffix(".json"), record)
    os.replace(partial, destination)
    return destination


def _go_on(url: str, partial: Path, progress: Callable[[int, int], None]) -> None:
    done = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={done}-", "Accept-Encoding": "identity"}
    with requests.get(url, headers=headers, stream=True, timeout=60) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            if answer.headers.get("Content-Range", "").endswith(f"/{done}"):
                return None  # whole already: the last attempt ended before its rename
            partial.unlink()
            return _go_on(url, partial, progress)
        answer.raise_for_status()
        resumed = answer.status_code == requests.codes.partial_content
        done = done if resumed else 0
        total = done + int(answer.headers.get("Content-Length", 0))
        with partial.open("ab" if resumed else "wb") as file:
            for piece in answer.iter_content(_PIECE):
                file.write(piece)
                done += len(piece)
                progress(done, total)
    if done < total:
        raise requests.ConnectionError(f"{total:,} bytes were promised")
    return None
