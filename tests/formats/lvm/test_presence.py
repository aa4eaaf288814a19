"""A host that shares a volume group and lost its presence meanwhile; damaged and foreign bytes in what hosts tell."""

from __future__ import annotations

import errno

import pytest

from engine.data.model import VolumeFormat
from engine.errors import Conflict, Damaged, Refused, StorageError
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.area import sealed_header
from engine.formats.lvm.metadata.pages import PAGE_BYTES, Stamp, seal
from engine.formats.lvm.shared.notes import _COUNT, _MAGIC
from engine.formats.registry import detach_repository, open_repository
from sim.disk.files import Fault
from sim.hosts.crash import Crashed
from sim.hosts.lease_areas import DEAD_S, RENEWED_S
from sim.hosts.processes import SimProcess
from tests.formats.kit import SIZE, T1, qcow2, raw, record
from tests.formats.lvm.shared_kit import (
    FORMAT,
    GROUP,
    ONE,
    THREE,
    TWO,
    dies,
    doors,
    guard,
    leave,
    number,
    on,
    pass_time,
    process,
    tags,
)


def rejoined(world):
    """A process of host-2 without a lease, whose host has left and come back."""
    two = on(world, TWO)
    guard(two)._roster.leave()
    on(world, TWO)
    return two


def with_volume(world):
    one = on(world, ONE)
    one.volumes.make(qcow2(), SIZE, None)
    one.activation.deactivate()
    return one


def test_a_host_that_cannot_leave_takes_part_as_before(world):
    """Another process of it has the repository open: nothing is taken from that one."""
    assert on(world, ONE).tags.publish(record(), 0) == 1
    two = on(world, TWO)
    with pytest.raises(StorageError, match="in use"):
        detach_repository(FORMAT, GROUP, doors(world, TWO))
    two.tags.publish(record(epoch=5), 1)
    two.close()
    detach_repository(FORMAT, GROUP, doors(world, TWO))
    assert not world.machine(TWO).active


def test_a_host_whose_page_is_damaged_goes_on_until_it_is_disconnected(world):
    """It is not told whose the number is, so nobody joins or leaves on a guess; then it gets another number."""
    two = on(world, TWO)
    start = two.tags.publish(record(), 0)
    before = number(two)
    two._meta.write(two._meta.geometry.roster_offset(before), b"?" * PAGE_BYTES)
    two._meta.sync()
    with pytest.raises(Damaged, match=f"whose number {before} is"):
        on(world, TWO)
    two.tags.publish(record(epoch=5), start)
    leave(world, TWO)
    assert number(on(world, TWO)) != before


def test_notes_of_volumes_that_other_hosts_have_removed_are_dropped(world):
    """A process died while it had them active, so it could not take its notes back."""
    one = with_volume(world)
    two = on(world, TWO)
    two.volumes.layer(qcow2())
    process(two).end(killed=True)
    one.volumes.remove(qcow2().id, VolumeFormat.QCOW2)
    one.volumes.make(raw("cc" * 16), SIZE, None)
    two = on(world, TWO)
    assert guard(two).noted() == {qcow2().id}
    two.volumes.layer(raw("cc" * 16))
    two.activation.deactivate()
    assert guard(two).noted() == frozenset()


def test_a_volume_that_is_open_under_a_second_name_keeps_its_note(world):
    """It was put away and made anew while something had it open: its space is not given away under a late write."""
    one, two = with_volume(world), on(world, TWO)
    layer = two.volumes.layer(qcow2())
    with two._group.doors.volume_groups.open_device(layer.path):
        old = layout.old_name(qcow2().id, "0" * 8)
        one._group.doors.volume_groups.rename("a", layout.volume_name(qcow2().id), old)
        one.volumes.make(qcow2(), SIZE, None)
        two.activation.let_go(qcow2().id)
        two.volumes.layer(qcow2())
        assert two.activation.deactivate() == [old]
        assert guard(two).noted() == {qcow2().id}
    assert two.activation.deactivate(every=True) == [] and not guard(two).noted()


def test_a_volume_that_is_being_made_keeps_its_note(world):
    """Another process of the same host cleans a parked twin of it away, and deactivates what is not in use."""
    one = with_volume(world)
    groups = one._group.doors.volume_groups
    groups.rename("a", f"dwv-{qcow2().id}", layout.old_name(qcow2().id, "0" * 8))
    other, noted = on(world, ONE), list[object]()

    def meanwhile(process: SimProcess, call: str, what: str) -> Fault:
        if call == "handle.write_at" and what.startswith("/srv") and not noted:
            (twin,) = other.scan().litter
            noted.append(twin)
            assert other.litter.remove([twin]) == 0
            other.activation.deactivate(every=True)
            noted.append(guard(other).noted())
        return Fault.NONE

    process(one).hook = meanwhile
    one.volumes.make(qcow2(), SIZE, None)
    assert noted[1:] == [{qcow2().id}]
    (twin,) = other.scan().litter
    assert other.litter.remove([twin]) > 0


def test_room_for_records_that_a_frozen_host_may_still_zero_is_not_used(world):
    """It was making it when it was given up: another one makes none until it is back, or said to be dead."""
    one, two = on(world, ONE), on(world, TWO)
    for tag in tags(layout.SLOTS):
        two.tags.publish(record(tag), 0)

    def frozen(process: SimProcess, call: str, what: str) -> Fault:
        if call == "handle.write_at" and what.endswith(layout.META) and process.host.name == ONE:
            written.append(what)
            if len(written) > 2:  # the note, and what says which image the room is for: then the zeros
                world.machine(ONE).lose_power()
                process.kill()
        return Fault.NONE

    written: list[str] = []
    process(one).hook = frozen
    with pytest.raises(Crashed):
        one.tags.publish(record("e" * 32), 0)
    pass_time(world, TWO, DEAD_S + RENEWED_S)
    two.manager.take("")
    with pytest.raises(Conflict, match="host-1 was making room"):
        two.tags.publish(record("e" * 32), 0)
    two.manager.take(ONE)
    two.tags.publish(record("e" * 32), 0)
    assert on(world, THREE).tags.read("e" * 32) is not None


def test_a_host_that_is_said_to_be_dead_writes_nothing_any_more(world):
    """The operator says so; it does not hold for its next presence, and not against what sanlock knows."""
    one = with_volume(world)
    two = on(world, TWO)
    two.volumes.layer(qcow2())
    with pytest.raises(Refused, match="no host 'host-2' that has fallen silent"):
        one.manager.take(TWO)
    dies(world, TWO, ONE)
    assert one.volumes.late_writer(qcow2())
    one.manager.take(TWO)
    assert not one.volumes.late_writer(qcow2())
    on(world, TWO).volumes.layer(qcow2())
    dies(world, TWO, ONE)
    assert one.volumes.late_writer(qcow2())


def test_records_that_cannot_be_read_when_a_host_comes_are_an_error_of_the_storage(world):
    """It has seen where they lie, and has just made them active. Found so: the error came through as it was."""
    coming = world.machine(TWO).process("coming")

    def fails(process: SimProcess, call: str, what: str) -> Fault:
        if call == "handle.read_at" and what.endswith(layout.META):
            raise OSError(errno.EIO, "Input/output error")
        return Fault.NONE

    coming.hook = fails
    with pytest.raises(StorageError, match="cannot read the records"):
        open_repository(FORMAT, GROUP, coming.doors)


@pytest.mark.parametrize("user_data", ["short", "long " * 5000])
def test_a_record_whose_flush_failed_is_not_lost_though_others_saw_it(world, user_data):
    """Found so: it was seen as removed, and after a power cut it was back."""
    one, failed = on(world, ONE), list[str]()
    start = one.tags.publish(record(), 0)

    def fails(process: SimProcess, call: str, what: str) -> Fault:
        if call == "handle.sync" and not failed:
            failed.append(what)
            return Fault.SYNC_FAILS
        return Fault.NONE

    process(one).hook = fails
    one.tags.publish(record(user_data=user_data), start)
    assert failed
    world.power_cut()
    entry = on(world, TWO).tags.read(T1)
    assert entry is not None and entry.record == record(user_data=user_data)


def test_a_presence_of_before_publishes_nothing(world):
    """It is told so before anything is written, not that the outcome is unknown."""
    on(world, ONE).tags.publish(record(), 0)
    two = rejoined(world)
    entry = two.tags.read(T1)
    with pytest.raises(Conflict):
        two.tags.publish(record(epoch=5), entry.generation)
    assert on(world, ONE).tags.read(T1) == entry


def test_a_presence_of_before_activates_nothing(world):
    """Its note would not count, so others would give the volume's room away while it writes."""
    with_volume(world)
    with pytest.raises(Conflict):
        rejoined(world).volumes.layer(qcow2())


def test_a_damaged_note_of_its_own_is_not_forgotten(world):
    """What is active here is noted again with the next change."""
    one = on(world, ONE)
    other = raw()._replace(id="cc" * 16)
    for volume in (qcow2(), other):
        one.volumes.make(volume, SIZE, None)
    one.activation.deactivate()
    two = on(world, TWO)
    two.volumes.layer(qcow2())
    notes, member = guard(two)._notes, guard(two)._member
    at = two._meta.geometry.notes_offset(member.number, notes._own().sequence & 1)
    page = bytearray(two._meta.read(at, PAGE_BYTES))
    page[100] ^= 1
    two._meta.write(at, bytes(page))
    two._meta.sync()
    two.volumes.layer(other)
    dies(world, TWO, ONE)
    assert one.volumes.late_writer(qcow2())


@pytest.mark.parametrize("stamp", [Stamp(1, 2**64 - 1, bytes(8)), Stamp(2**63, 1, bytes(8))])
def test_a_note_with_an_endless_number_is_damage(world, stamp):
    """The host goes on noting, and is believed."""
    one = with_volume(world)
    two = on(world, TWO)
    number = guard(two)._member.number
    two._meta.write(two._meta.geometry.notes_offset(number, 1), seal(stamp, _COUNT.pack(_MAGIC, 0)))
    two._meta.sync()
    two.volumes.layer(qcow2())
    dies(world, TWO, ONE)
    assert one.volumes.late_writer(qcow2())


def test_a_header_with_an_endless_number_is_damage(world):
    """The role can still be given up."""
    one = on(world, ONE)
    header = one._meta.header()._replace(term=2**63, sequence=2**64 - 1)
    one._meta.write(PAGE_BYTES, sealed_header(header))
    one._meta.sync()
    one.manager.release()
    assert one.manager.host() == ""
