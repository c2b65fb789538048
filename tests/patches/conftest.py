"""Fixtures: Magenta as published, with a single patch, and with all patches."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.patches.magentas import (
    FILES,
    LACKING,
    PY27,
    Magenta,
    apply,
    apply_one,
    copy_magenta,
    empty_init,
)


@pytest.fixture(scope="session")
def magenta(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Magenta]:
    """Return a function that creates a Magenta: "published", "patched", or a patch's number."""
    if not PY27.exists():
        pytest.skip(LACKING)
    created: dict[str, Magenta] = {}

    def create(which: str) -> Magenta:
        if which not in created:
            package = copy_magenta(tmp_path_factory.mktemp(which))
            if which == "patched":
                assert apply(package).returncode == 0
            elif which != "published":
                (patch,) = (file for file in FILES if file.name.startswith(which))
                apply_one(package, patch)
            if which not in ("patched", "0008"):
                empty_init(package)
            created[which] = Magenta(package)
        return created[which]

    return create


@pytest.fixture
def published(magenta: Callable[[str], Magenta]) -> Magenta:
    """Magenta 1.1.7 as published, but with an empty __init__.py."""
    return magenta("published")


@pytest.fixture
def patched(magenta: Callable[[str], Magenta]) -> Magenta:
    """Magenta with all patches."""
    return magenta("patched")


@pytest.fixture
def fixed(request: pytest.FixtureRequest, magenta: Callable[[str], Magenta]) -> Magenta:
    """Magenta with the patches of the test's `fixed_by` marker."""
    return magenta(request.param)
