"""What a host that shares a group on LVM says of volumes that its machines may use: others believe that, not leases."""

from __future__ import annotations

import pytest

from engine.doors.users import User
from engine.errors import ImageBusy
from engine.formats.lvm.metadata.pages import PAGE_BYTES
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


@pytest.mark.parametrize("copy", [0, 1])
def test_no_damage_of_one_copy_of_the_notes_hides_it(world, copy):
    """That the volume is active was noted before; so it may be handed out, until that host has looked."""
    one, two = handed_out(world)
    at = one._meta.geometry.notes_offset(number(two), copy)
    kept = one._meta.read(at, PAGE_BYTES)
    one._meta.write(at, bytes(8) + kept[8:])
    assert elsewhere(one) == {V1: (TWO, True)}
    guard(two).note(V2)
    assert elsewhere(one)[V1] == (TWO, True), "that host has written over the damage since, and not looked"
    assert not two.activation.end_unheld() and not elsewhere(one)
