"""Killed and failed installs leave a card that does not crash the synth."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from nsynth_super.base.workspace import Workspace
from nsynth_super.pack.geometry import Geometry
from nsynth_super.synth import card as cards
from nsynth_super.synth import verify
from nsynth_super.synth.merge_settings import missing
from tests.cards import make_card, make_pack, program, tree
from tests.faults.processes import AS_ANYONE, DIE, Command, Ended, done, refuses

INSTALL = Callable[..., Ended]


@pytest.fixture
def put(small_checkpoint: Path) -> INSTALL:
    """Return a function that installs a pack in a process."""

    def put(workspace: Workspace, card: Path, *words: object, before: str = "") -> Ended:
        words = ("install", card, "-w", workspace.root, *words)
        return Command(*words, checkpoint=small_checkpoint, before=before).wait()

    return put


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> list[Workspace]:
    """Two packs with equal names and different geometry, and a third with the first's geometry."""
    root = tmp_path_factory.mktemp("packs")
    others = {"NW": ["a"], "NE": ["b"], "SW": ["c"], "SE": ["d"]}
    return [
        make_pack(root / "one"),
        make_pack(root / "finer", resolution=3),
        make_pack(root / "beside", pads=others),
    ]


def assert_no_crash(card: Path) -> None:
    """Assert that every pad in the synth's settings is missing or has the size they require."""
    given = json.loads((program(card) / "settings.json").read_text())
    size = Geometry.of_synth(given).bytes
    bins = cards.find_card(card).bins()
    assert [name for name in missing(given, bins, size) if name in bins] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then", "words"),
    [
        ((), 0, ()),
        ((2,), 0, ()),
        ((1,), 0, ("--replace",)),
        ((0,), 1, ("--replace",)),
        ((0, 2), 1, ("--replace",)),
    ],
    ids=["onto an empty card", "beside another", "for a finer one", "for a coarser one", "for two"],
)
def test_an_install_killed_at_any_point_never_leaves_a_pad_that_crashes_the_synth(
    put: INSTALL,
    packs: list[Workspace],
    tmp_path: Path,
    first: tuple[int, ...],
    then: int,
    words: tuple[str, ...],
) -> None:
    card, before = tmp_path / "card", make_card(tmp_path / "before")
    for number in first:
        done(put(packs[number], before))
    for changes in range(100):
        shutil.rmtree(card, ignore_errors=True)
        shutil.copytree(before, card)
        ended = put(packs[then], card, *words, before=DIE.format(changes=changes, root=str(card)))
        assert_no_crash(card)
        if ended.code == 0:
            break
        assert ended.code == -signal.SIGKILL, ended.said
        done(put(packs[then], card, *words))
        assert verify.verify_card(cards.find_card(card), quiet=True).intact
        assert not list((card / "home/pi/pads").glob(".*.part"))
    assert 8 < changes < 99


@pytest.mark.slow
def test_a_full_card_keeps_its_settings_and_a_second_install_completes_it(
    put: INSTALL, packs: list[Workspace], tmp_path: Path
) -> None:
    large = make_pack(tmp_path / "large", final_length=8_000)
    card = make_card(tmp_path / "card")
    limit = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE,"
        " (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))\n"
    )
    ended = put(large, card, before=limit)
    refuses(ended, 1, "the disk", "run the same command again")
    assert_no_crash(card)
    assert list((card / "home/pi/pads").glob("*.bin")) == []
    assert list((card / "home/pi/pads").glob(".*.part")) == []
    done(put(large, card))
    assert verify.verify_card(cards.find_card(card), quiet=True).intact


@pytest.mark.parametrize("where", ["home/pi/pads", str(cards.PROGRAM)[1:], "home/pi"])
def test_an_unwritable_card_is_refused_before_anything_is_written(
    put: INSTALL, packs: list[Workspace], tmp_path: Path, where: str
) -> None:
    card = make_card(tmp_path / "card")
    if where == "home/pi":
        (card / "home/pi/pads").rmdir()
    before = tree(card)
    os.chmod(card / where, 0o555)
    ended = put(packs[0], card, before=AS_ANYONE)
    os.chmod(card / where, 0o755)
    refuses(ended, 2, where, "is not writable", "sudo")
    assert tree(card) == before


def test_a_second_simultaneous_install_on_a_card_is_refused(
    put: INSTALL, packs: list[Workspace], tmp_path: Path
) -> None:
    card = make_card(tmp_path / "card")
    with (card / "home/pi/pads/.install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refuses(put(packs[0], card), 1, "another `install` is running there")
    done(put(packs[0], card))
