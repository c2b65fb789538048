"""The model's weights for the image: a complete local checkpoint, or a URL that serves one."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path

import requests
from safetensors import SafetensorError, safe_open

from nsynth_super.base.errors import Problem
from nsynth_super.base.files import sha256
from nsynth_super.base.text import amount
from nsynth_super.wavenet.magenta_format import DATA, INDEX, PUBLISHED_BYTES, has_published_sizes

ANY = "any"  # CHECKPOINT_SHA256: accept any file
_LEAST = sum(PUBLISHED_BYTES.values())  # bytes of the smallest .tar of the published checkpoint
_ENDINGS = (".tar", INDEX, ".safetensors")
_TIMEOUT = 30.0  # seconds for a server to answer
_BY_HAND = (
    "put wavenet-ckpt.tar into checkpoint/, or name one with --checkpoint, or name a mirror with "
    "--build-arg CHECKPOINT_URL=…"
)


def problems(values: Mapping[str, str], folder: Path) -> list[Problem]:
    """Return problems with the checkpoint that a definition would use.

    Parameters
    ----------
    values : mapping of str to str
        The definition's arguments CHECKPOINT, CHECKPOINT_URL, CHECKPOINT_SHA256; a definition
        without the first uses no checkpoint.
    folder : Path
        The definition's folder.
    """
    if "CHECKPOINT" not in values:
        return []
    given = folder / values["CHECKPOINT"]
    if not given.exists():
        return []  # Definition.problems reports every missing file
    if any(letter.isspace() for letter in str(given)):
        fix = "link or move it to a path without spaces"
        return [Problem(str(given), "has a space in its path, which %files does not support", fix)]
    if given.name.endswith(INDEX):
        what = "is one of a TensorFlow checkpoint's two files, and only this one would be copied"
        return [Problem(str(given), what, "name the folder that holds both")]
    if given.is_file():
        return _of_file(given, values.get("CHECKPOINT_SHA256", ANY))
    found = sorted(file for file in given.rglob("*") if file.name.endswith(_ENDINGS))
    if len(found) > 1:
        names = ", ".join(str(file.relative_to(given)) for file in found)
        return [Problem(str(given), f"holds several checkpoints: {names}", "keep one")]
    if found:
        return _of_file(found[0], values.get("CHECKPOINT_SHA256", ANY))
    return _of_url(values.get("CHECKPOINT_URL", ""))


def _of_file(file: Path, expected: str) -> list[Problem]:
    if expected != ANY and (actual := sha256(file)) != expected:
        what = f"has the sha256 {actual}, and CHECKPOINT_SHA256 requires {expected}"
        return [Problem(str(file), what, "download or copy it again, or correct the argument")]
    if file.suffix == ".tar":
        return _of_tar(file)
    if file.suffix == INDEX:
        data = file.with_name(file.name.removesuffix(INDEX) + DATA)
        missing = [Problem(str(data), "is missing beside its .index", "copy it there too")]
        return [] if data.exists() else missing
    if file.suffix == ".safetensors":
        return _of_safetensors(file)
    what = "is not a checkpoint: a .tar, a .safetensors, or a folder with one or with TensorFlow's"
    return [Problem(str(file), what, "name one of those")]


def _of_tar(file: Path) -> list[Problem]:
    try:
        published = has_published_sizes(file)
    except (tarfile.TarError, EOFError, OSError) as error:
        fix = "download or copy it again: `nsynth-super checkpoint fetch` resumes a download"
        return [Problem(str(file), f"is truncated or damaged ({error})", fix)]
    if published:
        return []
    what = "file sizes differ from the published checkpoint; the build uses it as it is"
    return [Problem(str(file), what, level="warning")]


def _of_safetensors(file: Path) -> list[Problem]:
    try:
        with safe_open(str(file), framework="np"):
            return []
    except (SafetensorError, OSError) as error:
        return [Problem(str(file), f"is truncated or damaged ({error})", "copy it again")]


def _of_url(url: str) -> list[Problem]:
    """Request it as the build will, and disconnect once the response has begun."""
    if not url.startswith(("http://", "https://")):
        return [Problem("CHECKPOINT_URL", f"{url!r} is not a web address", _BY_HAND)]
    try:
        with requests.get(url, stream=True, timeout=_TIMEOUT) as answer:
            answer.raise_for_status()
            length = answer.headers.get("Content-Length")
    except requests.RequestException as error:
        what = f"cannot download the checkpoint ({_reason(error)})"
        return [Problem(url, what, _BY_HAND)]
    if length is None:
        return [Problem(url, "the server does not report the checkpoint's size", level="warning")]
    if int(length) < _LEAST:
        what = f"offers {amount(int(length))}, and the checkpoint is {amount(_LEAST)} or more"
        return [Problem(url, what, _BY_HAND)]
    return []


def _reason(error: BaseException) -> str:
    """Return the innermost reason that requests and urllib3 wrap."""
    inner = getattr(error, "reason", None) or next(iter(error.args), None)
    return _reason(inner) if isinstance(inner, BaseException) else str(error).rpartition("): ")[2]
