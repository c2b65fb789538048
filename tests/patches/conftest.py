"""Three Magentas for a test: as published, with the one patch that it is about, with all."""

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
    """Return a function that makes a Magenta: "published", "patched", or a patch's number."""
    if not PY27.exists():
        pytest.skip(LACKING)
    made: dict[str, Magenta] = {}

    def make(which: str) -> Magenta:
        if which not in made:
            package = copy_magenta(tmp_path_factory.mktemp(which))
            if which == "patched":
                assert apply(package).returncode == 0
            elif which != "published":
                (patch,) = (file for file in FILES if file.name.startswith(which))
                apply_one(package, patch)
            if which not in ("patched", "0008"):
                empty_init(package)
            made[which] = Magenta(package)
        return made[which]

    return make


@pytest.fixture
def published(magenta: Callable[[str], Magenta]) -> Magenta:
    """Magenta 1.1.7 but for its empty __init__.py."""
    return magenta("published")


@pytest.fixture
def patched(magenta: Callable[[str], Magenta]) -> Magenta:
    """Magenta with all patches."""
    return magenta("patched")


@pytest.fixture
def mended(request: pytest.FixtureRequest, magenta: Callable[[str], Magenta]) -> Magenta:
    """Magenta with the patches that the test's `mended_by` says."""
    return magenta(request.param)
