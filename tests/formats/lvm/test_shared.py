"""A repository on LVM that hosts share: who may change what, and what hosts that hang or die leave behind.

Each test runs on the simulator's hosts; what a host wrote late is put where it would have landed.
"""

from __future__ import annotations

import random

import pytest

from engine.errors import Conflict, OutcomeUnknown, Overtaken, Refused
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.area import Meta
from engine.formats.lvm.metadata.pages import PAGE_BYTES
from engine.formats.lvm.metadata.slots import stand_in
from sim.lvm.volume_groups import SimVolumeGroups
from tests.formats.kit import T1, T2, record
from tests.formats.lvm.shared_kit import (
    ONE,
    THREE,
    TWO,
    before_first,
    changed,
    guard,
    heads,
    number,
    on,
    put_heads,
    tags,
    with_sectors,
)

# -- records


def test_every_host_changes_records_and_writes_nothing_but_its_own_lane(world):
    """Each has two copies of every record; the newest one counts, whoever wrote it."""
    one, two = on(world, ONE), on(world, TWO)
    generation, before = 0, heads(one)
    for step, repository in enumerate([one, two, two, one, two, one]):
        generation = repository.tags.publish(record(epoch=step), generation)
        after = heads(one)
        assert {at // PAGE_BYTES // 2 for at in changed(before, after)} == {number(repository) - 1}
        before = after
        for reader in (one, two):
            entry = reader.tags.read(T1)
            assert entry is not None and entry.record == record(epoch=step) and entry.generation == generation
    with pytest.raises(Overtaken):
        two.tags.publish(record(), 1)


@pytest.mark.parametrize("user_data", ["late", "late " * 5000])
def test_what_a_frozen_host_writes_when_it_thaws_hides_nothing(world, user_data):
    """It was in the middle of a change; others made theirs meanwhile, several times, so its copies come round again."""
    one, two, three = on(world, ONE), on(world, TWO), on(world, THREE)
    start = one.tags.publish(record(), 0)
    before = heads(one)
    two.tags.publish(record(user_data=user_data), start)
    late = heads(one)
    for writers in ([three], [three, one, three], [one, one, one]):
        put_heads(one, before)
        generation = start
        for step, writer in enumerate(writers):
            generation = writer.tags.publish(record(epoch=9, user_data=f"new {step}"), generation)
        put_heads(two, with_sectors(heads(one), late, changed(before, late)))
        entry = three.tags.read(T1)
        assert entry is not None and not entry.problem and entry.generation == generation
        assert entry.record == record(epoch=9, user_data=f"new {len(writers) - 1}")


def test_a_torn_change_in_any_lane_leaves_the_record_before_it(world):
    """Any part of its sectors but all."""
    chosen = random.Random(3)
    for host in (ONE, TWO, THREE):
        repository = on(world, host)
        entry = repository.tags.read(T1)
        kept = repository.tags.publish(record(user_data=f"kept by {host}"), entry.generation if entry else 0)
        before = heads(repository)
        repository.tags.publish(record(user_data=["torn"] * 300), kept)
        after = heads(repository)
        sectors = changed(before, after)
        assert len(sectors) > 3
        for _ in range(12):
            part = [at for at in sectors if chosen.random() < 0.6]
            put_heads(repository, with_sectors(before, after, part if len(part) < len(sectors) else part[1:]))
            found = on(world, ONE).tags.read(T1)
            assert found is not None and not found.problem
            assert found.record == record(user_data=f"kept by {host}")
        put_heads(repository, before)


def test_a_lease_lost_between_the_lock_and_the_change_makes_the_outcome_unknown(world, monkeypatch):
    """This host stood still for too long and came back as another presence: nobody is told that the change counts."""
    two = on(world, TWO)
    real = Meta.sync

    def late(meta: Meta) -> None:
        monkeypatch.setattr(Meta, "sync", real)
        presence = world.shared.present(guard(two)._member.area.name, TWO)
        assert presence is not None
        presence.generation += 1
        real(meta)

    monkeypatch.setattr(Meta, "sync", late)
    with pytest.raises(OutcomeUnknown, match="took the repository over"):
        two.tags.publish(record(), 0)


def test_a_damaged_record_is_given_up_without_touching_the_lanes_of_others(world):
    """What is bad in them stays, and is known: it is no doubt about later changes. New damage is."""
    one, two = on(world, ONE), on(world, TWO)
    generation = one.tags.publish(record(), 0)
    two.tags.publish(record(epoch=2), generation)
    broken = b"".join(b"?" * PAGE_BYTES if any(heads(one)[at:][:PAGE_BYTES]) else bytes(PAGE_BYTES)
                      for at in range(0, len(heads(one)), PAGE_BYTES))  # fmt: skip
    put_heads(one, broken)
    (entry,) = two.tags.scan().values()
    assert entry.id == stand_in(0) and entry.problem
    three = on(world, THREE)
    three.tags.purge(entry.id, entry.generation)
    assert {at // PAGE_BYTES // 2 for at in changed(broken, heads(one))} == {number(three) - 1}
    (entry,) = two.tags.scan().values()
    assert entry.tombstone and not entry.problem
    sound = heads(one)
    at = next(at for at in range(0, len(sound), PAGE_BYTES) if sound[at:].startswith(b"?"))
    put_heads(one, sound[:at] + b"!" * PAGE_BYTES + sound[at + PAGE_BYTES :])
    (entry,) = two.tags.scan().values()
    assert "damaged" in entry.problem
    two.tags.purge(entry.id, entry.generation)
    (entry,) = one.tags.scan().values()
    assert entry.tombstone and not entry.problem


# -- leases


def test_a_tag_without_a_record_has_a_place_set_apart_for_it(world):
    """Nobody else takes it, with a lease or without one; its record goes there."""
    one, two = on(world, ONE), on(world, TWO)
    lease = one.leases.try_acquire(T1)
    assert lease is not None and one.leases.held(T1) and one.leases.try_acquire(T1) is None
    two.tags.publish(record(T2), 0)
    one.tags.publish(record(T1), 0)
    assert two.leases.held(T1) and two.leases.try_acquire(T1) is None and not one.leases.held(T2)
    assert one.records.slot_of(T1) == 0 != two.records.slot_of(T2)
    lease.release()
    taken = two.leases.try_acquire(T1)
    assert taken is not None
    taken.release()


def test_a_place_that_was_set_apart_for_nothing_is_used_by_others(world):
    """Released, or its process ended."""
    one = on(world, ONE)
    lease = one.leases.try_acquire(T1)
    assert lease is not None
    lease.release()
    assert not one.leases.held(T1)
    on(world, TWO).tags.publish(record(T2), 0)
    assert one.records.slot_of(T2) == 0


def test_a_place_that_was_given_to_another_tag_meanwhile_is_not_leased_for_the_first(world, monkeypatch):
    """The lease taken is of the place: it is looked at again, and let go."""
    one, two = on(world, ONE), on(world, TWO)
    generations = {tag: two.tags.publish(record(tag), 0) for tag in tags(layout.SLOTS)}
    victim, last = next(iter(generations)), "f" * 32

    def given_away() -> None:
        two.tags.purge(victim, generations[victim])
        two.tags.publish(record(last), 0)  # there is no other place, and this host cannot make room

    three = on(world, THREE)
    place = two.records.slot_of(victim)
    before_first(monkeypatch, "try_acquire", given_away)
    with pytest.raises(Refused, match="managed by host host-1"):
        three.leases.try_acquire(victim)  # it has no record, and there is no room to set apart
    assert one.records.slot_of(last) == place
    assert not one.leases.held(last)


def test_only_the_manager_makes_room_for_more_records(world, monkeypatch):
    """Elsewhere it is refused naming it; then records and their leases go on in the new part, on every host, which
    first has the device of the leases as long as it is by then."""
    one, two = on(world, ONE), on(world, TWO)
    for tag in tags(layout.SLOTS):
        two.tags.publish(record(tag), 0)
    with pytest.raises(Refused, match="host-1"):
        two.tags.publish(record("e" * 32), 0)
    one.tags.publish(record("e" * 32), 0)
    made_active: list[str] = []
    real = SimVolumeGroups.activate

    def activate(groups: SimVolumeGroups, group: str, name: str) -> str:
        made_active.append(name)
        return real(groups, group, name)

    monkeypatch.setattr(SimVolumeGroups, "activate", activate)
    two.tags.publish(record("f" * 32), 0)
    assert two.records.slot_of("f" * 32) == layout.SLOTS + 1 and layout.LEASES in made_active
    assert len(on(world, THREE).tags.scan()) == layout.SLOTS + 2
    lease = two.leases.try_acquire("f" * 32)
    assert lease is not None and one.leases.try_acquire("f" * 32) is None
    lease.release()


def test_a_host_that_keeps_the_records_to_itself_is_named(world):
    """With what is known of it; nothing waits for ever."""
    one, two = on(world, ONE), on(world, TWO)
    with guard(two).records(), pytest.raises(Conflict, match=r"host-2 \(live\) does not finish changing the records"):
        one.tags.publish(record(), 0)
    one.tags.publish(record(), 0)
