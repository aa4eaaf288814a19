"""What a host that shares a group on LVM says of volumes that its machines may use: others believe that, not leases."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from engine.doors.users import User
from engine.errors import ImageBusy
from engine.formats.lvm.metadata.layout import NOTES_BYTES
from engine.formats.lvm.repository import LvmRepository
from engine.gate import gate
from engine.gate.gate import Purpose
from sim.hosts.lease_areas import RENEWED_S
from tests.formats.kit import SIZE, T1, V1, V2, raw
from tests.formats.lvm.shared_kit import ONE, THREE, TWO, dies, guard, leave, number, on, pass_time


def elsewhere(repository: LvmRepository) -> dict[str, tuple[str, bool]]:
    """Who uses each volume, and whether he writes."""
    found = repository.activation.handed_out_elsewhere()
    return {volume: (users[0].host, users[0].writes) for volume, users in found.items()}


def handed_out(world, writable: bool = True) -> tuple[LvmRepository, LvmRepository]:
    """On host-2, where nobody holds it."""
    one, two = on(world, ONE), on(world, TWO)
    one.volumes.make(raw(), SIZE, None)
    two.volumes.layer(raw())
    two.activation.hold(raw(), writable).release()
    two.activation.let_go(V1)
    return one, two


def test_what_is_handed_out_is_told_until_it_is_inactive(world):
    """To every other host, as its user; what a host merely uses itself is not."""
    one, two = on(world, ONE), on(world, TWO)
    one.volumes.make(raw(), SIZE, None)
    two.volumes.layer(raw())
    assert not elsewhere(one) and guard(two).noted() == {V1}
    lease = two.activation.hold(raw(), True)
    assert elsewhere(one) == {V1: (TWO, True)} == elsewhere(on(world, THREE))
    assert not elsewhere(two) and guard(two).noted() == {V1} == two.activation.handed_out()
    (user,) = one.volumes.users(raw())
    assert user == User(0, f"host {TWO}, where it is handed out", True, TWO)
    two.activation.let_go(V1)
    assert two.activation.end_unheld() == {V1} and elsewhere(one)
    lease.release()
    assert not two.activation.end_unheld() and not elsewhere(one) and not guard(two).noted()


def test_what_is_lent_is_read_only(world):
    """Others may read it too; nobody may delete it."""
    one, _ = handed_out(world, writable=False)
    assert elsewhere(one) == {V1: (TWO, False)}
    for purpose in (Purpose.LEND, Purpose.READ):
        gate.require(one, T1, raw(), purpose)
    for purpose in (Purpose.DELETE, Purpose.REPLACE, Purpose.REWRITE):
        with pytest.raises(ImageBusy, match=f"host {TWO}"):
            gate.require(one, T1, raw(), purpose)


def test_who_made_it_takes_no_note_back_of_what_is_handed_out_since(world):
    """A process of that host, which notes a volume before it makes it, and ends after another one has handed it out."""
    one, two = on(world, ONE), on(world, TWO)
    one.volumes.make(raw(), SIZE, None)
    other = on(world, ONE)
    other.volumes.layer(raw())
    other.activation.hold(raw(), True).release()
    other.activation.let_go(V1)
    one.activation.deactivate()
    assert elsewhere(two) == {V1: (ONE, True)} and guard(one).noted() == {V1}
    assert not other.activation.end_unheld() and not elsewhere(two) and not guard(one).noted()


def test_a_host_that_is_gone_uses_nothing(world):
    """It has died, or come anew. What a dead one may still write is put away (``may_be_written``)."""
    one, _ = handed_out(world)
    dies(world, TWO, ONE)
    assert not elsewhere(one) and guard(one).may_be_written(V1) == TWO
    on(world, TWO)
    pass_time(world, ONE, RENEWED_S)
    assert not elsewhere(one)
    leave(world, TWO)
    assert not elsewhere(one)


ZEROED, FLIPPED = bytes(NOTES_BYTES), b"\xff" * 8


def damage(world, one: LvmRepository, copies: Sequence[int], written: bytes) -> None:
    """Of the notes of host-2."""
    there = next(entry.number for entry in guard(one)._roster.entries() if entry.host == TWO)
    for copy in copies:
        at = one._meta.geometry.notes_offset(there, copy)
        one._meta.write(at, written + one._meta.read(at, NOTES_BYTES)[len(written) :])
    one._meta.sync()


@pytest.mark.parametrize("written", [FLIPPED, ZEROED])
@pytest.mark.parametrize("copy", [0, 1])
def test_no_damage_of_one_copy_of_the_notes_hides_it(world, copy, written):
    """That the volume is active was noted before; so it may be handed out, until that host has looked."""
    one, two = handed_out(world)
    damage(world, one, [copy], written)
    assert elsewhere(one) == {V1: (TWO, True)}
    guard(two).note(V2)
    assert elsewhere(one)[V1] == (TWO, True), "that host has written over the damage since, and not looked"
    assert not two.activation.end_unheld() and not elsewhere(one)


def test_what_was_never_active_before_is_noted_as_active_first(world):
    """So damage of the copy that says that it is handed out leaves the other one."""
    one, two = on(world, ONE), on(world, TWO)
    one.volumes.make(raw(), SIZE, None)
    guard(two).hand_out(V1, True)
    damage(world, one, [guard(two)._notes._own().sequence & 1], FLIPPED)
    assert elsewhere(one) == {V1: (TWO, True)}


@pytest.mark.parametrize("written", [FLIPPED, ZEROED])
def test_what_a_host_has_handed_out_is_not_known_where_its_notes_are_lost(world, written):
    """Nobody else deletes, replaces, seals or hands out anything, and is told which host has to look: there the notes
    are written anew as soon as it opens the repository, and what is active counts as handed out until it has looked."""
    one, two = handed_out(world)
    two.volumes.layer(raw())
    damage(world, one, [0, 1], written)
    assert elsewhere(one) == {V1: (TWO, True)}
    gate.require(one, T1, raw(), Purpose.READ)
    for purpose in (Purpose.DELETE, Purpose.REPLACE, Purpose.SEAL, Purpose.HAND_OUT, Purpose.PUT_AWAY):
        with pytest.raises(ImageBusy, match=f"whether host {TWO} uses .* is not known") as refused:
            gate.require(one, T1, raw(), purpose)
        assert f"diskwright check on {TWO}" in refused.value.next_step
    again = on(world, TWO)
    with pytest.raises(ImageBusy, match=f"in use by host {TWO}, where it is handed out"):
        gate.require(one, T1, raw(), Purpose.DELETE)
    assert elsewhere(on(world, THREE)) == {V1: (TWO, True)}
    two.activation.let_go(V1)
    assert not again.activation.end_unheld() and not elsewhere(one)
    gate.require(one, T1, raw(), Purpose.DELETE)


def test_a_host_that_has_lost_its_notes_and_died_says_nothing(world):
    """What it may still write is put away."""
    one, _ = handed_out(world)
    damage(world, one, [0, 1], ZEROED)
    dies(world, TWO, ONE)
    assert not elsewhere(one) and guard(one).may_be_written(V1) == guard(one).may_be_written(V2) == TWO


def test_who_never_handed_anything_out_is_told_from_who_lost_that(world):
    """Notes of a number that nobody has are blank, and so are those of an older program that never wrote any."""
    one, two = on(world, ONE), on(world, TWO)
    one.volumes.make(raw(), SIZE, None)
    assert not elsewhere(one)
    damage(world, one, [0, 1], ZEROED)
    assert elsewhere(one)
    roster = guard(one)._roster
    roster._write(roster.entries()[number(two) - 1]._replace(noted=False))  # as an older program does
    assert not elsewhere(one)
    on(world, TWO)
    assert roster.entries()[number(two) - 1].noted and not elsewhere(one)
    damage(world, one, [0, 1], ZEROED)
    assert elsewhere(one)
