"""A repository on LVM that hosts share: who takes part, who manages it, and what each says it has active."""

from __future__ import annotations

import pytest

from engine.data.model import VolumeFormat
from engine.doors.shared_leases import LeaseArea
from engine.errors import Conflict, Refused
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.pages import PAGE_BYTES, SECTOR_BYTES
from engine.formats.registry import create_repository, detach_repository, open_repository
from sim.hosts.doors.shared_leases import SimSharedLeases
from sim.hosts.lease_areas import DEAD_S, RENEWED_S
from sim.hosts.world import World
from tests.formats.kit import SIZE, T1, V1, raw, record
from tests.formats.lvm.shared_kit import (
    FORMAT,
    GROUP,
    HOSTS,
    ONE,
    THREE,
    TWO,
    changed,
    dies,
    doors,
    guard,
    leave,
    manages,
    number,
    on,
    pass_time,
    with_sectors,
)

# -- taking part


def test_each_host_keeps_its_number(world):
    """Also when it boots; one that comes for the first time gets another one."""
    numbers = {host: number(on(world, host)) for host in (ONE, TWO, THREE)}
    assert len(set(numbers.values())) == 3
    dies(world, TWO, ONE)
    assert number(on(world, "host-4")) not in numbers.values()
    assert {host: number(on(world, host)) for host in (ONE, TWO, THREE)} == numbers


def test_the_number_of_a_dead_host_is_never_given_away(world):
    """What it had under way may still arrive in its lane. The error names who has the numbers."""
    for host in (TWO, THREE, "host-4"):
        on(world, host)
    before = number(on(world, THREE))
    dies(world, TWO, ONE)
    with pytest.raises(Refused, match="no number left") as raised:
        on(world, "host-5")
    assert all(host in str(raised.value) for host in (ONE, TWO, THREE, "host-4"))
    leave(world, THREE)
    assert number(on(world, "host-5")) == before
    with pytest.raises(Refused, match="host-5"):
        on(world, THREE)


def test_two_hosts_that_want_one_number_get_different_ones(world, monkeypatch):
    """Both see it free; sanlock gives it to one of them."""
    wanted: list[int] = []
    real = SimSharedLeases.join

    def join(leases: SimSharedLeases, area: LeaseArea, number: int) -> None:
        if not wanted:
            wanted.append(number)
            real(doors(world, THREE).shared_leases, area._replace(path=leases_path(world, THREE)), number)  # type: ignore[arg-type]
        real(leases, area, number)

    monkeypatch.setattr(SimSharedLeases, "join", join)
    two = number(on(world, TWO))
    assert wanted == [number(on(world, THREE))] != [two]


def leases_path(world: World, host: str) -> str:
    return doors(world, host).volume_groups.activate("a", layout.LEASES)


def test_a_host_that_died_before_it_wrote_who_it_is_leaves_no_gap(world, monkeypatch):
    """sanlock knows its number, the roster does not: it finds it again, or another one does."""
    mine = number(on(world, ONE))
    area = guard(on(world, ONE))._member.area
    free = next(number for number in range(1, HOSTS + 1) if number != mine)
    doors(world, TWO).shared_leases.join(area._replace(path=leases_path(world, TWO)), free)
    others = [number(on(world, host)) for host in (THREE, "host-4")]
    assert sorted([mine, free, *others]) == [1, 2, 3, 4]
    assert number(on(world, TWO)) == free


def test_a_host_with_the_id_of_another_one_is_told(world, monkeypatch):
    """Two hosts that write one lane would write over each other."""
    on(world, TWO)
    twin = doors(world, THREE)
    twin = twin._replace(ids=doors(world, TWO).ids)
    with pytest.raises(Conflict, match="an id of its own"):
        open_repository(FORMAT, GROUP, twin)


def test_leaving_takes_everything_away_and_coming_back_is_possible(world):
    """Not while a process holds a lease, and then nothing has changed; again it is a success."""
    two = on(world, TWO)
    two.tags.publish(record(), 0)
    before = number(two)
    lease = two.leases.try_acquire(T1)
    assert lease is not None
    for _ in range(2):
        two.close()
        with pytest.raises(Conflict, match="holds a lease"):
            detach_repository(FORMAT, GROUP, doors(world, TWO))
        two = on(world, TWO)
        assert two.tags.read(T1) is not None
    lease.release()
    for _ in range(2):
        leave(world, TWO)
        assert not world.machine(TWO).active
    assert number(on(world, TWO)) == before


def test_a_creation_that_was_interrupted_is_done_again(world):
    """Also where the leases were made and the records were not; a repository that is there is never made again."""
    with pytest.raises(Conflict, match="already"):
        create_repository(FORMAT, {**GROUP, "shared": True}, doors(world, ONE))
    identity = on(world, ONE).identity
    leave(world, ONE)
    groups = doors(world, ONE).volume_groups
    groups.remove("a", layout.META)
    create_repository(FORMAT, {**GROUP, "shared": "true", "hosts": "3"}, doors(world, ONE))
    made = on(world, ONE)
    assert made.identity != identity and made._meta.geometry.hosts == 3 and manages(made)


# -- the manager


def test_only_the_manager_changes_the_group(world):
    """Others are refused naming it, and use what there is."""
    one, two = on(world, ONE), on(world, TWO)
    one.volumes.make(raw(), SIZE, None)
    for change in (
        lambda: two.volumes.make(raw("b" * 32), SIZE, None),
        lambda: two.volumes.remove(V1, VolumeFormat.RAW),
        lambda: two.extents.make_room(raw(), 3 * SIZE),
        two.manager.release,
    ):
        with pytest.raises(Refused, match="managed by host host-1"):
            change()
    assert two.volumes.layer(raw()).length == SIZE and not manages(two)
    with guard(one).changing() as report, guard(one).changing() as again:
        assert report.volumes == again.volumes
        with pytest.raises(Conflict, match="volume group"):
            guard(two).release()


def test_the_role_is_taken_from_a_host_that_is_proven_gone_or_said_to_be_dead(world):
    """From one that lives or may live only with the assertion that names it."""
    one, two, three = on(world, ONE), on(world, TWO), on(world, THREE)
    for dead, told in (("", "--dead host-1"), (THREE, "there that host-3 is dead")):
        with pytest.raises(Refused, match=rf"host host-1 manages.*{told}"):
            two.manager.take(dead)
    two.manager.take(ONE)
    assert (one.manager.host(), manages(one), manages(two)) == (TWO, False, True)
    with pytest.raises(Refused, match="host-2"), guard(one).changing():
        raise AssertionError("it is not the manager any more")
    world.machine(TWO).lose_power()
    with pytest.raises(Refused):
        three.manager.take("")
    pass_time(world, THREE, DEAD_S + RENEWED_S)
    three.manager.take("")
    assert one.manager.host() == THREE
    three.manager.release()
    assert one.manager.host() == ""
    with pytest.raises(Refused, match="nobody manages"), guard(one).changing():
        raise AssertionError("nobody is the manager")
    one.manager.take("")


def test_a_manager_that_boots_takes_its_role_again(world):
    """Unless somebody else has it by then."""
    dies(world, ONE, TWO)
    assert manages(on(world, ONE))
    on(world, TWO)
    dies(world, ONE, TWO)
    on(world, TWO).manager.take("")
    one = on(world, ONE)
    assert one.manager.host() == TWO and not manages(one)


def test_what_a_frozen_manager_writes_into_the_header_does_not_count(world):
    """It made room for records when it froze; another one took over: its header is older."""
    one, two = on(world, ONE), on(world, TWO)
    area = one._meta.geometry.header_pages * PAGE_BYTES
    before = one._meta.read(0, area)
    with guard(one)._locked(layout.GROUP_LEASE, "changing") as lease:
        one._meta.write_header(one._meta.header()._replace(identity="9" * 32, term=lease.version), number(one) - 1)
    late = one._meta.read(0, area)
    one._meta.write(0, before)
    two.manager.take(ONE)
    one._meta.write(0, with_sectors(one._meta.read(0, area), late, changed(before, late)))
    header = on(world, THREE)._meta.header()
    assert (header.manager, header.identity) == (TWO, two.identity)


# -- what is active where


def test_a_volume_may_be_written_until_its_host_is_proven_fine(world):
    """One that noted it and then died is not: without a watchdog it may only be frozen."""
    one, two = on(world, ONE), on(world, TWO)
    one.volumes.make(raw(), SIZE, None)
    assert not one.volumes.late_writer(raw())
    two.volumes.layer(raw())
    pass_time(world, ONE, RENEWED_S)
    assert not one.volumes.late_writer(raw())  # it lives: who held a lease there has ended when the lease is free
    dies(world, TWO, ONE)
    assert guard(one).may_be_written(V1) == TWO and one.volumes.late_writer(raw())
    assert guard(one).may_be_written("b" * 32) == ""
    on(world, TWO)
    pass_time(world, ONE, RENEWED_S)
    assert not one.volumes.late_writer(raw())  # it came back, as another presence
    leave(world, TWO)
    assert not one.volumes.late_writer(raw())


def test_notes_are_written_in_turns_and_a_damaged_one_may_name_any_volume(world):
    """Where one is damaged nothing is known of a host that is not proven fine; one that is blank was written too."""
    one, two = on(world, ONE), on(world, TWO)
    notes = guard(two)
    for volume in ("a" * 32, "b" * 32, "c" * 32):
        notes.note(volume)
        notes.note(volume)
    notes.unnote("b" * 32)
    notes.unnote("b" * 32)
    two.close()
    dies(world, TWO, ONE)
    assert [guard(one).may_be_written(letter * 32) for letter in "abc"] == [TWO, "", TWO]
    geometry = one._meta.geometry
    at = geometry.notes_offset(number(two), 1)
    kept = one._meta.read(at, PAGE_BYTES)
    one._meta.write(at, kept[:SECTOR_BYTES].replace(kept[:8], bytes(8)) + kept[SECTOR_BYTES:])
    assert guard(one).may_be_written("d" * 32) == TWO
    one._meta.write(at, kept)
    assert guard(one).may_be_written("d" * 32) == ""
    one._meta.write(at, bytes(PAGE_BYTES))
    assert guard(one).may_be_written("d" * 32) == TWO


def test_more_notes_than_a_sector_holds(world):
    """All of them count."""
    one, two = on(world, ONE), on(world, TWO)
    volumes = [f"{index:032x}" for index in range(1, 60)]
    for volume in volumes:
        guard(two).note(volume)
    newest = one._meta.geometry.notes_offset(number(two), guard(two)._notes._own().sequence & 1)
    dies(world, TWO, ONE)
    assert all(guard(one).may_be_written(volume) == TWO for volume in volumes)
    assert not guard(one).may_be_written("d" * 32)
    kept = one._meta.read(newest, PAGE_BYTES)
    for sector in (kept[:SECTOR_BYTES], kept[SECTOR_BYTES : 2 * SECTOR_BYTES]):
        one._meta.write(newest, kept.replace(sector, bytes(SECTOR_BYTES)))
        assert guard(one).may_be_written("d" * 32) == TWO, "a sector of zeros is no torn write"
        one._meta.write(newest, kept)


def test_who_stops_while_he_notes_something_holds_up_nobody_who_only_looks(world):
    """Another process of that host opens the repository, and is told only when it has something to note."""
    with guard(on(world, TWO))._notes._locked():
        again = on(world, TWO)
        assert again.tags.scan() == {} and not guard(again).noted()
        with pytest.raises(Conflict, match="does not finish noting"):
            guard(again).note("a" * 32)


@pytest.mark.parametrize("count", [29, 40])
def test_a_torn_note_never_counted(world, count):
    """It was not acknowledged, so the one before it counts, and nothing is damaged; also where it takes one sector
    more."""
    one, two = on(world, ONE), on(world, TWO)
    volumes = [f"{index:032x}" for index in range(1, count + 1)]
    for volume in volumes:
        guard(two).note(volume)
    at = one._meta.geometry.notes_offset(number(two), guard(two)._notes._own().sequence + 1 & 1)
    before = one._meta.read(at, PAGE_BYTES)
    guard(two).note("d" * 32)
    one._meta.write(at, one._meta.read(at, PAGE_BYTES)[:SECTOR_BYTES] + before[SECTOR_BYTES:])
    dies(world, TWO, ONE)
    assert guard(one).may_be_written(volumes[-1]) == TWO and not guard(one).may_be_written("d" * 32)
    assert not guard(one).may_be_written("e" * 32)
