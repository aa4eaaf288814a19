"""A host that shares a volume group and lost its presence meanwhile; damaged and foreign bytes in what hosts tell."""

from __future__ import annotations

import pytest

from engine.errors import Conflict, StorageError
from engine.formats import lvm_group
from engine.formats.lvm_meta import sealed_header
from engine.formats.lvm_notes import _COUNT, _MAGIC
from engine.formats.lvm_pages import PAGE_BYTES, Stamp, seal
from engine.formats.registry import detach_repository
from sim.hosts.processes import RUN_MOUNT
from tests.formats.kit import SIZE, T1, qcow2, raw, record
from tests.formats.lvm_shared_kit import FORMAT, GROUP, ONE, TWO, dies, doors, guard, on, shared_world


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr(lvm_group, "RUN_DIRECTORY", f"{RUN_MOUNT}/test")
    return shared_world()


def rejoined(world):
    """A process of host-2 without a lease, whose host has left and come back."""
    two = on(world, TWO)
    with pytest.raises(StorageError):
        detach_repository(FORMAT, GROUP, doors(world, TWO))
    on(world, TWO)
    return two


def with_volume(world):
    one = on(world, ONE)
    one.make_volume(qcow2(), SIZE, None)
    one.deactivate()
    return one


def test_a_presence_of_before_publishes_nothing(world):
    """It is told so before anything is written, not that the outcome is unknown."""
    on(world, ONE).publish(record(), 0)
    two = rejoined(world)
    entry = two.read_tag(T1)
    with pytest.raises(Conflict):
        two.publish(record(epoch=5), entry.generation)
    assert on(world, ONE).read_tag(T1) == entry


def test_a_presence_of_before_activates_nothing(world):
    """Its note would not count, so others would give the volume's room away while it writes."""
    with_volume(world)
    with pytest.raises(Conflict):
        rejoined(world).layer(qcow2())


def test_a_damaged_note_of_its_own_is_not_forgotten(world):
    """What is active here is noted again with the next change."""
    one = on(world, ONE)
    other = raw()._replace(id="cc" * 16)
    for volume in (qcow2(), other):
        one.make_volume(volume, SIZE, None)
    one.deactivate()
    two = on(world, TWO)
    two.layer(qcow2())
    notes, member = guard(two)._notes, guard(two)._member
    at = two._meta.geometry.notes_offset(member.number, notes._own().sequence & 1)
    page = bytearray(two._meta.read(at, PAGE_BYTES))
    page[100] ^= 1
    two._meta.write(at, bytes(page))
    two._meta.sync()
    two.layer(other)
    dies(world, TWO, ONE)
    assert not one.may_continue(qcow2())


@pytest.mark.parametrize("stamp", [Stamp(1, 2**64 - 1, bytes(8)), Stamp(2**63, 1, bytes(8))])
def test_a_note_with_an_endless_number_is_damage(world, stamp):
    """The host goes on noting, and is believed."""
    one = with_volume(world)
    two = on(world, TWO)
    number = guard(two)._member.number
    two._meta.write(two._meta.geometry.notes_offset(number, 1), seal(stamp, _COUNT.pack(_MAGIC, 0)))
    two._meta.sync()
    two.layer(qcow2())
    dies(world, TWO, ONE)
    assert not one.may_continue(qcow2())


def test_a_header_with_an_endless_number_is_damage(world):
    """The role can still be given up."""
    one = on(world, ONE)
    header = one._meta.header()._replace(term=2**63, sequence=2**64 - 1)
    one._meta.write(PAGE_BYTES, sealed_header(header))
    one._meta.sync()
    one.release_management()
    assert one.manager() == ""
