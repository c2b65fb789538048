"""docs/troubleshooting.md explains every error and warning of the program."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MESSAGE_CALLS = {"Problem": 1, "only_one": 1} | dict.fromkeys(
    ("Failed", "Stopped", "OutOfMemoryError", "ValueError", "UsageError", "BadParameter", "here"), 0
)
"""Calls that create a message, and the position of its text; `here` and `only_one` pass it on."""
SHORT = 20  # characters: shorter texts are matched together with their fix


def name_of(node: ast.AST) -> str:
    return getattr(node, "id", "") or getattr(node, "attr", "")


@cache
def assigned_values(scope: ast.AST) -> dict[str, list[ast.AST]]:
    """Return the expressions assigned to each name in a scope, or returned by its functions."""
    found: dict[str, list[ast.AST]] = {}
    inside = list(ast.walk(scope)) if isinstance(scope, ast.FunctionDef) else []
    for each in inside or getattr(scope, "body", ()):
        if isinstance(each, ast.Assign | ast.AnnAssign | ast.NamedExpr) and each.value:
            targets = each.targets if isinstance(each, ast.Assign) else [each.target]
            for name in (name_of(part) for target in targets for part in ast.walk(target)):
                found.setdefault(name, []).append(each.value)
    for each in inside or ast.walk(scope):
        if isinstance(each, ast.FunctionDef):
            returned = [one for one in ast.walk(each) if isinstance(one, ast.Return)]
            found.setdefault(each.name, []).extend(returned)
    return found


def texts(node: ast.AST, scopes: list[ast.AST], seen: frozenset[str] = frozenset()) -> list[str]:
    """Return the possible values of a text expression, with `…` for the parts set at run time."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    parts = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.JoinedStr):
        text = "".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in parts)
        if len(re.findall("[a-z]", text)) > 2:
            return [text]
        parts = [part for part in parts if isinstance(part, ast.FormattedValue)]
    if (name := name_of(node)) and name not in seen:
        seen |= {name}
        parts += [each for scope in scopes for each in assigned_values(scope).get(name, ())]
    return [text for part in parts for text in texts(part, scopes, seen) if " " in text.strip()]


def lines(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line number and text of every message in a module."""
    tree = ast.parse(source)
    functions = [each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)]
    for call in (each for each in ast.walk(tree) if isinstance(each, ast.Call)):
        place = MESSAGE_CALLS.get(name_of(call.func), len(call.args))
        around = [f for f in functions if f.lineno <= call.lineno <= (f.end_lineno or 0)]
        scopes = [*around[-1:], tree]
        fixes = [text for fix in call.args[place + 1 : 3] for text in texts(fix, scopes)]
        for text in (text for what in call.args[place : place + 1] for text in texts(what, scopes)):
            alone = len(text) > SHORT or not fixes
            yield from (
                (call.lineno, text if alone else f"{text} -> {fix}") for fix in fixes or " "
            )


def plain(text: str) -> str:
    """Normalize a text: ignore backticks, repeated spaces and the number of `…`."""
    return re.sub(r"…+", "…", " ".join(text.replace("`", "").split()))


def undocumented(name: str, source: str, document: str) -> list[str]:
    """Return for each message missing from the document what to add and under which heading."""
    sections = re.split(r"^(?=## )", document, flags=re.MULTILINE)
    there = next((s.splitlines()[0] for s in sections if re.search(rf"<!--.*\b{name}\b", s)), "any")
    documented = plain(document)
    messages = {plain(text): number for number, text in lines(source)}
    return [
        f"docs/troubleshooting.md, {there!r}: explain `{text}` ({name}, line {number})"
        for text, number in messages.items()
        if re.search("[a-z]{2}", text) and text not in documented
    ]


def test_every_message_is_explained() -> None:
    document = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    files = [ROOT / "build.py", *(ROOT / "image_build").glob("*.py")]
    files += [
        file
        for file in (ROOT / "nsynth_super").rglob("*.py")
        if file.parent.name != "python27_scripts"
    ]
    sources = {file.relative_to(ROOT).as_posix(): file.read_text("utf-8") for file in sorted(files)}
    assert sum(1 for source in sources.values() for _ in lines(source)) > 200
    missing = [line for name in sources for line in undocumented(name, sources[name], document)]
    assert not missing, "\n".join(["", *missing])


def test_a_new_message_is_reported_as_missing() -> None:
    source = 'def f(x):\n    what = f"{x} is {x} and blue"\n    raise Failed(what)\n'
    [report] = undocumented("sky.py", source, "# T\n## Weather\n<!-- sky.py -->\n- `is missing`\n")
    assert report.endswith("'## Weather': explain `… is … and blue` (sky.py, line 3)")
    assert not undocumented("sky.py", source, "## Weather\n- `… is … and\n  blue`: look up")
