"""The repository's documents: every relative link resolves, and the Python example runs."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

import nsynth_super

ROOT = Path(__file__).parents[1]
SIBLING = "../" + "shared"
"""A folder beside the checkout that only CI may mention: readers do not have it."""
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
CODE = re.compile(r"^(`{3,}).*?^\1`*[^\S\n]*$|`+[^`\n]*`+", re.MULTILINE | re.DOTALL)


@lru_cache
def tracked() -> list[Path]:
    """Return the repository's files, without what builds and runs leave in it."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs git and a clone, to know which files belong to the project")
    words = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub gives to a document's headings."""
    text = re.sub(r"^(`{3,}).*?^\1$", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", each) is not None for each in found)
        found.add(f"{slug}-{number}" if number else slug)
    return found


def test_every_relative_link_points_at_something():
    documents = [path for path in tracked() if path.suffix == ".md"]
    assert ROOT / "README.md" in documents
    broken = []
    for document in documents:
        text = CODE.sub("", document.read_text(encoding="utf-8"))
        for link in LINK.findall(text):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = unquote(link).partition("#")
            target = (document.parent / path).resolve() if path else document
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{document.relative_to(ROOT)}: {link}")
    assert broken == []


def test_the_index_of_the_architecture_names_files_that_exist():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    index = text.partition("## Where does")[2].partition("## Layers")[0]
    cells = [line.split("|")[2] for line in index.splitlines() if line.startswith("| ")]
    names = [name for cell in cells for name in re.findall(r"`([\w./]+[./][\w./]*)`", cell)]
    assert len(names) > 60
    folders = (ROOT / "nsynth_super", ROOT)
    assert [n for n in names if not any((folder / n).exists() for folder in folders)] == []


def test_no_file_mentions_a_folder_beside_the_checkout():
    allowed = {ROOT / ".ci" / "run"}
    mentions = [path for path in tracked() if SIBLING.encode() in path.read_bytes()]
    assert set(mentions) <= allowed


def test_citation_names_the_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE)[1] == nsynth_super.__version__


def test_the_python_example_runs():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    names: dict[str, np.ndarray] = {}
    exec(example, names)
    assert names["embedding"].shape == (1, 125, 16)
    assert names["codes"].shape == (1, 100)
