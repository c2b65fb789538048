"""The model's weights that go into the image: at hand and whole, or to be had where they are."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path

import requests
from safetensors import SafetensorError, safe_open

from nsynth_super.files import sha256
from nsynth_super.problems import Problem
from nsynth_super.progress import amount
from nsynth_super.wavenet.magenta_format import DATA, INDEX, PUBLISHED_BYTES, is_published

ANY = "any"  # CHECKPOINT_SHA256: whatever came is taken
_LEAST = sum(PUBLISHED_BYTES.values())  # a .tar of the published checkpoint holds at least these
_ENDINGS = (".tar", INDEX, ".safetensors")
_PATIENCE = 30.0  # seconds for a server to answer
_BY_HAND = (
    "put wavenet-ckpt.tar into checkpoint/, or name one with --checkpoint, or name a mirror with "
    "--build-arg CHECKPOINT_URL=…"
)


def problems(values: Mapping[str, str], folder: Path) -> list[Problem]:
    """Return what is wrong with the checkpoint that a definition would take.

    Parameters
    ----------
    values : mapping of str to str
        Of the definition's arguments CHECKPOINT, CHECKPOINT_URL, CHECKPOINT_SHA256; a definition
        without the first takes no checkpoint.
    folder : Path
        Where the definition stands.
    """
    if "CHECKPOINT" not in values:
        return []
    given = folder / values["CHECKPOINT"]
    if not given.exists():
        return []  # as every file that the definition copies, this one is looked for elsewhere
    if any(letter.isspace() for letter in str(given)):
        fix = "link or move it to a path without"
        return [Problem(str(given), "has a space in its path, which %files cannot take", fix)]
    if given.name.endswith(INDEX):
        what = "is one of the two files of TensorFlow's format, and only this one would be copied"
        return [Problem(str(given), what, "name the folder that holds both")]
    if given.is_file():
        return _of_file(given, values.get("CHECKPOINT_SHA256", ANY))
    found = sorted(file for file in given.rglob("*") if file.name.endswith(_ENDINGS))
    if len(found) > 1:
        names = ", ".join(str(file.relative_to(given)) for file in found)
        return [Problem(str(given), f"holds several checkpoints: {names}", "leave one")]
    if found:
        return _of_file(found[0], values.get("CHECKPOINT_SHA256", ANY))
    return _of_url(values.get("CHECKPOINT_URL", ""))


def _of_file(file: Path, expected: str) -> list[Problem]:
    if expected != ANY and (is_so := sha256(file)) != expected:
        what = f"has the sha256 {is_so}, not {expected}, which CHECKPOINT_SHA256 asks for"
        return [Problem(str(file), what, "download or copy it again, or correct the argument")]
    if file.suffix == ".tar":
        return _of_tar(file)
    if file.suffix == INDEX:
        data = file.with_name(file.name.removesuffix(INDEX) + DATA)
        missing = [Problem(str(data), "is missing beside its .index", "copy it there too")]
        return [] if data.exists() else missing
    if file.suffix == ".safetensors":
        return _of_safetensors(file)
    what = "is no checkpoint: no .tar, no .safetensors, no folder with one or with TensorFlow's"
    return [Problem(str(file), what, "name one of those")]


def _of_tar(file: Path) -> list[Problem]:
    try:
        published = is_published(file)
    except (tarfile.TarError, EOFError, OSError) as error:
        fix = "download or copy it again: `nsynth-super checkpoint fetch` goes on where it stopped"
        return [Problem(str(file), f"is no whole .tar ({error})", fix)]
    if published:
        return []
    what = "holds no files of the published checkpoint's sizes; it is taken as it is"
    return [Problem(str(file), what, level="warning")]


def _of_safetensors(file: Path) -> list[Problem]:
    try:
        with safe_open(str(file), framework="np"):
            return []
    except (SafetensorError, OSError) as error:
        return [Problem(str(file), f"is no whole .safetensors ({error})", "copy it again")]


def _of_url(url: str) -> list[Problem]:
    """Ask for it as the build will, and hang up once the server has begun to answer."""
    if not url.startswith(("http://", "https://")):
        return [Problem("CHECKPOINT_URL", f"{url!r} is no address of the web", _BY_HAND)]
    try:
        with requests.get(url, stream=True, timeout=_PATIENCE) as answer:
            answer.raise_for_status()
            length = answer.headers.get("Content-Length")
    except requests.RequestException as error:
        what = f"the checkpoint cannot be had from there ({_reason(error)})"
        return [Problem(url, what, _BY_HAND)]
    if length is None:
        return [Problem(url, "answers, and does not say how much it has", level="warning")]
    if int(length) < _LEAST:
        what = f"has {amount(int(length))}, and the checkpoint is {amount(_LEAST)} or more"
        return [Problem(url, what, _BY_HAND)]
    return []


def _reason(error: BaseException) -> str:
    """Return what went wrong, out of what requests and urllib3 wrap around it."""
    inner = getattr(error, "reason", None) or next(iter(error.args), None)
    return _reason(inner) if isinstance(inner, BaseException) else str(error).rpartition("): ")[2]
