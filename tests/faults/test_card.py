"""A card taken out, full or not to be written: the device plays or is silent, and no worse."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from nsynth_super import card as cards
from nsynth_super.card import verify
from nsynth_super.card.merging import missing
from nsynth_super.device import Geometry
from nsynth_super.workspace import Workspace
from tests.cards import make_card, make_pack, program, tree
from tests.faults.processes import AS_ANYONE, DIE, Command, Ended, done, refuses

INSTALL = Callable[..., Ended]


@pytest.fixture
def put(small_checkpoint: Path) -> INSTALL:
    """Return a function that installs a pack, as a process."""

    def put(workspace: Workspace, card: Path, *words: object, before: str = "") -> Ended:
        words = ("install", card, "-w", workspace.root, *words)
        return Command(*words, checkpoint=small_checkpoint, before=before).wait()

    return put


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> list[Workspace]:
    """Two packs of the same names and different geometry; a third of the first's geometry."""
    root = tmp_path_factory.mktemp("packs")
    others = {"NW": ["a"], "NE": ["b"], "SW": ["c"], "SE": ["d"]}
    return [
        make_pack(root / "one"),
        make_pack(root / "finer", resolution=3),
        make_pack(root / "beside", pads=others),
    ]


def ends_no_device(card: Path) -> None:
    """Assert that what the device's settings ask for is whole and of their geometry, or absent."""
    given = json.loads((program(card) / "settings.json").read_text())
    size = Geometry.of_device(given).bytes
    bins = cards.find(card).bins()
    assert [name for name in missing(given, bins, size) if name in bins] == []


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
def test_an_install_killed_anywhere_never_leaves_a_pad_that_would_end_the_device(
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
        ends_no_device(card)
        if ended.code == 0:
            break
        assert ended.code == -signal.SIGKILL, ended.said
        done(put(packs[then], card, *words))
        assert verify.run(cards.find(card), quiet=True).whole
        assert not list((card / "home/pi/pads").glob(".*.part"))
    assert 8 < changes < 99


def test_a_card_that_fills_up_keeps_its_settings_and_takes_the_rest_later(
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
    ends_no_device(card)
    assert list((card / "home/pi/pads").glob("*.bin")) == []
    assert list((card / "home/pi/pads").glob(".*.part")) == []
    done(put(large, card))
    assert verify.run(cards.find(card), quiet=True).whole


@pytest.mark.parametrize("where", ["home/pi/pads", str(cards.PROGRAM)[1:], "home/pi"])
def test_a_card_that_may_not_be_written_is_refused_before_anything_is(
    put: INSTALL, packs: list[Workspace], tmp_path: Path, where: str
) -> None:
    card = make_card(tmp_path / "card")
    if where == "home/pi":
        (card / "home/pi/pads").rmdir()
    before = tree(card)
    os.chmod(card / where, 0o555)
    ended = put(packs[0], card, before=AS_ANYONE)
    os.chmod(card / where, 0o755)
    refuses(ended, 2, where, "may not be written by you", "sudo")
    assert tree(card) == before


def test_two_installs_onto_one_card_do_not_meet(
    put: INSTALL, packs: list[Workspace], tmp_path: Path
) -> None:
    card = make_card(tmp_path / "card")
    hold = (
        "import fcntl\n"
        f"held = open({str(card / 'home/pi/pads/.install.lock')!r}, 'w')\n"
        "fcntl.flock(held, fcntl.LOCK_EX)\n"
    )
    refuses(put(packs[0], card, before=hold), 1, "another `install` is at work there")
    done(put(packs[0], card))
