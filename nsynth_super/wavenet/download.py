"""Download Magenta's published checkpoint (1 GB), with resume."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import requests

from nsynth_super.base.errors import BadInput, Problem
from nsynth_super.base.files import explained, only_one, sha256, write_json

URL = "http://download.magenta.tensorflow.org/models/nsynth/wavenet-ckpt.tar"
_PIECE = 1 << 20  # bytes


def fetch(url: str, destination: Path, progress: Callable[[int, int], None]) -> Path:
    """Download `url` to `destination`; resume an earlier attempt if there is one.

    Parameters
    ----------
    url : str
        URL of Magenta's .tar, or of a mirror.
    destination : Path
        Final path, written only when the download is complete. A .json file next to it records
        the URL, the size and the SHA-256 of the download; there is no published checksum.
    progress : callable
        Called with the bytes received so far and the expected total (0 if unknown).

    Returns
    -------
    Path
        `destination`.

    Raises
    ------
    BadInput
        If the server refuses the request or the connection breaks; the partial file is kept for
        the next attempt.
    Failed
        If the file cannot be written.
    """
    if _is_complete(destination):
        return destination
    partial = partial_of(url, destination)
    busy = f"{destination}: another `checkpoint fetch` is running"
    with only_one(partial.with_name(f".{destination.name}.lock"), busy):
        return _fetch(url, partial, destination, progress)


def partial_of(url: str, destination: Path) -> Path:
    """Return the path of the partial download; each mirror has its own."""
    return destination.with_name(
        f"{destination.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part"
    )


def _is_complete(destination: Path) -> bool:
    try:
        record = json.loads(destination.with_suffix(".json").read_text(encoding="utf-8"))
        return bool(destination.stat().st_size == record["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _fetch(
    url: str, partial: Path, destination: Path, progress: Callable[[int, int], None]
) -> Path:
    try:
        _resume(url, partial, progress)
    except requests.RequestException as error:
        done = partial.stat().st_size if partial.exists() else 0
        raise BadInput(
            Problem(
                url,
                f"the download stopped at {done:,} bytes ({type(error).__name__}: {error})",
                "run it again to resume, or choose a mirror with --url, or copy the .tar by hand "
                "and pass it with --checkpoint",
            )
        ) from None
    except OSError as error:
        raise explained(error, partial) from error
    if not tarfile.is_tarfile(partial):
        partial.unlink()
        raise BadInput(Problem(url, "is not a .tar file", "choose another mirror with --url"))
    record = {"url": url, "bytes": partial.stat().st_size, "sha256": sha256(partial)}
    write_json(destination.with_suffix(".json"), record)
    os.replace(partial, destination)
    return destination


def _resume(url: str, partial: Path, progress: Callable[[int, int], None]) -> None:
    done = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={done}-", "Accept-Encoding": "identity"}
    with requests.get(url, headers=headers, stream=True, timeout=60) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            if answer.headers.get("Content-Range", "").endswith(f"/{done}"):
                return None  # already complete: the last attempt ended before its rename
            partial.unlink()
            return _resume(url, partial, progress)
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
        raise requests.ConnectionError(f"expected {total:,} bytes")
    return None
