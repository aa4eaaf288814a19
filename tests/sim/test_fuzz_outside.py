"""Machines and an operator in random runs: they come up, they are judged, and what they are there for is found."""

from __future__ import annotations

import pytest

from engine.gate import gate
from engine.gate.gate import Purpose
from engine.tags import anchors
from sim.disk.content import Content
from sim.explore.oracle.reference import Image, Model, settled
from sim.explore.random.fuzz import fuzz
from sim.explore.random.machines import Write, after

OLD, NEW = Write(0, b"o" * 4096), Write(0, b"n" * 4096)
DISK = Image(8192, Content(8192, ()), True, {})


def test_all_that_comes_from_outside_comes_up():
    """Machines whose holders die, and everything that an operator does."""
    told = "\n".join(line for seed in range(1, 41) for line in fuzz(seed).told)
    for what in (
        "its holder is killed", "is away", "stands in the place of", "is backed up",
        "was at its backup", "bytes are left", "is called", "long by another tool",
    ):  # fmt: skip
        assert what in told, what


def test_what_a_machine_has_not_flushed_may_be_old_or_new_until_it_is():
    """The last write counts; a flush that another write came after leaves only that one open."""
    assert after(DISK, [OLD], []).torn == ((0, 4096),)
    flushed = after(after(DISK, [OLD], []), [], [OLD])
    assert not flushed.torn
    assert flushed.content.read(0, 4096) == OLD.data
    assert after(flushed, [NEW], []).torn == ((0, 4096),)
    assert not after(flushed, [NEW], [NEW]).torn
    assert after(DISK, [OLD, NEW], [OLD]).torn == ((0, 4096),)


def test_a_snapshot_shows_for_ever_what_it_showed_once():
    """Before it was looked at either would do; what shows something else beside that is no surprise that is kept."""
    sealed = after(DISK, [OLD], [])._replace(mutable=False)
    model = Model().made("a", "s", sealed)
    shown = sealed.content.write(0, NEW.data)
    assert settled(model, "a", "s", 8192, shown).images["a", "s"] == sealed._replace(content=shown, torn=())
    elsewhere = sealed.content.write(4096, NEW.data)
    assert settled(model, "a", "s", 8192, elsewhere) == model


def found(most: int) -> bool:
    return any(fuzz(seed).problems for seed in range(1, most))


@pytest.mark.slow
def test_a_seal_that_does_not_ask_the_data_is_found(monkeypatch: pytest.MonkeyPatch):
    """A machine without a holder goes on writing into what a snapshot has."""
    bears = gate.RULES[Purpose.SEAL]._replace(readers=True, writers=True)
    monkeypatch.setitem(gate.RULES, Purpose.SEAL, bears)
    assert found(150)


@pytest.mark.slow
def test_a_repository_in_the_place_of_another_that_is_used_unasked_is_found(monkeypatch: pytest.MonkeyPatch):
    """A clone, or an older copy."""
    monkeypatch.setattr(anchors, "differences", lambda known, now: [])
    assert found(150)
