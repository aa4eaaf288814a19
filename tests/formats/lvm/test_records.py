"""Records in slots: what a power cut leaves of a change never counts, and damage is never taken for a power cut."""

from __future__ import annotations

import random
from typing import cast

import pytest

from engine.data.records import is_tombstone
from engine.errors import NoSpace, OutcomeUnknown, Overtaken, StorageError
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.layout import EXCLUSIVE_GEOMETRY
from engine.formats.lvm.metadata.pages import PAGE_BYTES, SECTOR_BYTES, Stamp, State, newest_stamp, seal, unseal
from engine.formats.lvm.metadata.records import Records
from engine.formats.lvm.metadata.slots import read_slot, stand_in
from engine.formats.lvm.repository import LvmRepository
from tests.formats.kit import T1, T2, LvmStorage, record

LONG = "more than one sector " * 40


@pytest.fixture
def lvm(tmp_path) -> LvmStorage:
    """A repository on a group of files."""
    return LvmStorage(tmp_path)


class Meta:
    """The bytes of ``dw-meta`` under the repository, to be damaged."""

    def __init__(self, storage: LvmStorage) -> None:
        group = storage.state.named("dwtest")
        self.path = storage.state.path(group.volumes[layout.META].uuid)

    def content(self) -> bytes:
        with open(self.path, "rb") as file:
            return file.read()

    def write(self, offset: int, data: bytes) -> None:
        with open(self.path, "r+b") as file:
            file.seek(offset)
            file.write(data)

    def slot(self, tag: str) -> int:
        """Of a tag."""
        raw = self.content()
        for number in range(layout.SLOTS):
            at = EXCLUSIVE_GEOMETRY.head_offset(number, 0)
            if bytes.fromhex(tag) in raw[at : at + EXCLUSIVE_GEOMETRY.slot_bytes]:
                return number
        raise AssertionError("there is no record of it")


def changed_sectors(before: bytes, after: bytes) -> list[int]:
    return [
        at
        for at in range(0, len(after), SECTOR_BYTES)
        if before[at : at + SECTOR_BYTES] != after[at : at + SECTOR_BYTES]
    ]


@pytest.mark.parametrize("payload", [b"", b"x" * 5, b"y" * 3000, b"z" * 70_000])
def test_what_is_sealed_is_read_back(payload):
    """Whole pages, the payload as it was."""
    stamp = Stamp(3, 9, b"12345678")
    raw = seal(stamp, payload)
    assert len(raw) % PAGE_BYTES == 0
    assert unseal(raw, stamp, len(payload)) == (State.WHOLE, payload)


def test_each_flipped_bit_is_bad_and_each_mixture_is_torn():
    """A sector of another write is torn, one that was never written too; one that is unsound is bad."""
    stamp, older = Stamp(1, 7, b"newnewne"), Stamp(1, 5, b"oldoldol")
    new, old = seal(stamp, b"n" * 2000), seal(older, b"o" * 2000)
    for at in range(0, 5 * SECTOR_BYTES, SECTOR_BYTES):
        for other in (old[at : at + SECTOR_BYTES], bytes(SECTOR_BYTES)):
            mixed = new[:at] + other + new[at + SECTOR_BYTES :]
            assert unseal(mixed, stamp, 2000) == (State.TORN, b"")
        flipped = bytearray(new)
        flipped[at + random.Random(at).randrange(SECTOR_BYTES)] ^= 4
        assert unseal(bytes(flipped), stamp, 2000) == (State.BAD, b"")
    assert newest_stamp(old[:512] + new[512:])[0] == stamp


@pytest.mark.parametrize("user_data", [1, "long " * 12_000])
def test_every_part_of_a_torn_change_leaves_the_record_before_it(lvm, user_data):
    """Sectors of a change that arrived in any combination but all of them: the older record, no problem."""
    repository = lvm.open()
    meta = Meta(lvm)
    first = repository.tags.publish(record(user_data="first"), 0)
    repository.tags.publish(record(T2), 0)
    second = repository.tags.publish(record(user_data="second"), first)
    before = meta.content()
    repository.tags.publish(record(user_data=user_data, epoch=9), second)
    after = meta.content()
    sectors = changed_sectors(before, after)
    chosen = random.Random(1)
    subsets = [sectors[:count] for count in range(len(sectors))] + [sectors[count:] for count in range(1, len(sectors))]
    subsets = chosen.sample(subsets, min(40, len(subsets)))
    subsets += [[at for at in sectors if chosen.random() < 0.6] for _ in range(40)]
    for subset in subsets:
        torn = bytearray(before)
        for at in subset:
            torn[at : at + SECTOR_BYTES] = after[at : at + SECTOR_BYTES]
        meta.write(0, bytes(torn))
        entry = lvm.open().tags.read(T1)
        assert entry is not None and not entry.problem
        expected = record(user_data=user_data, epoch=9) if len(subset) == len(sectors) else record(user_data="second")
        assert entry.record == expected
    meta.write(0, before)
    assert repository.tags.publish(record(user_data="third"), second) > second


def test_a_torn_change_over_a_damaged_copy_leaves_the_record_before_that(lvm):
    """Found so: what mends a record is written over its damaged copy. A power cut that mixed the two left a generation
    two above the intact one, which was then not believed to be the one before, and the record could not be mended."""
    repository = lvm.open()
    meta = Meta(lvm)
    first = repository.tags.publish(record(user_data=LONG + "first"), 0)
    older = meta.content()
    second = repository.tags.publish(record(user_data=LONG + "second"), first)
    head, sector, *_ = changed_sectors(older, meta.content())
    for generation in (second, second + 1):
        meta.write(sector + 100, bytes([meta.content()[sector + 100] ^ 1]))
        repository = lvm.open()
        damaged = meta.content()
        repository.tags.publish(record(user_data=LONG + "mended", epoch=generation), generation)
        meta.write(0, damaged[:head] + meta.content()[head : head + SECTOR_BYTES] + damaged[head + SECTOR_BYTES :])
        entry = lvm.open().tags.read(T1)
        assert entry is not None and entry.damaged and entry.generation == generation + 1
        assert entry.before == record(user_data=LONG + "first")
        meta.write(sector + 100, bytes([meta.content()[sector + 100] ^ 1]))


@pytest.mark.parametrize("user_data", [1, "long " * 12_000])
def test_damage_of_the_newest_copy_is_never_taken_for_a_torn_write(lvm, user_data):
    """Whichever bit is flipped, the tag is damaged, the older copy is not silently used, and others are as before."""
    repository = lvm.open()
    meta = Meta(lvm)
    first = repository.tags.publish(record(user_data="first"), 0)
    other = repository.tags.publish(record(T2), 0)
    before = meta.content()
    repository.tags.publish(record(user_data=user_data), first)
    after = meta.content()
    sectors = changed_sectors(before, after)
    for at in sectors if len(sectors) < 20 else random.Random(2).sample(sectors, 20):
        damaged = bytearray(after[at : at + SECTOR_BYTES])
        damaged[random.Random(at).randrange(SECTOR_BYTES)] ^= 1
        meta.write(at, bytes(damaged))
        tags = lvm.open().tags.scan()
        assert tags[T1].problem and tags[T1].record is None and not tags[T1].unreadable
        assert tags[T2].generation == other and not tags[T2].problem
        meta.write(at, after[at : at + SECTOR_BYTES])
    assert lvm.open().tags.scan()[T1].problem == ""


def test_damage_of_an_older_copy_does_no_harm(lvm):
    """It would have been overwritten next."""
    repository = lvm.open()
    generation = repository.tags.publish(record(epoch=1, user_data=LONG), 0)
    repository.tags.publish(record(epoch=2, user_data=LONG), generation)
    meta = Meta(lvm)
    slot = meta.slot(T1)
    raw = meta.content()
    newest = read_slot(
        slot, raw[EXCLUSIVE_GEOMETRY.head_offset(slot, 0) :][: EXCLUSIVE_GEOMETRY.slot_bytes], lambda copy, length: b""
    ).newest
    assert newest is not None
    for copy in range(EXCLUSIVE_GEOMETRY.copies):
        page = raw[EXCLUSIVE_GEOMETRY.head_offset(slot, copy) :][:PAGE_BYTES]
        if copy != newest.copy and any(page):
            meta.write(EXCLUSIVE_GEOMETRY.head_offset(slot, copy) + 600, b"?")
    entry = lvm.open().tags.read(T1)
    assert entry is not None and entry.record == record(epoch=2, user_data=LONG) and not entry.problem


def test_a_damaged_record_can_be_given_up_and_its_tag_used_again(lvm):
    """purge_tag replaces it by a tombstone that no remnant makes doubtful."""
    repository = lvm.open()
    generation = repository.tags.publish(record(epoch=1, user_data=LONG), 0)
    repository.tags.publish(record(epoch=2, user_data=LONG), generation)
    meta = Meta(lvm)
    slot = meta.slot(T1)
    for copy in range(EXCLUSIVE_GEOMETRY.copies):
        if any(meta.content()[EXCLUSIVE_GEOMETRY.head_offset(slot, copy) :][:PAGE_BYTES]):
            meta.write(EXCLUSIVE_GEOMETRY.head_offset(slot, copy) + 600, b"?")
    entry = lvm.open().tags.read(T1)
    assert entry is not None and entry.problem
    repository.tags.purge(T1, entry.generation)
    entry = lvm.open().tags.read(T1)
    assert entry is not None and entry.tombstone and is_tombstone(entry.generation)
    repository.tags.publish(record(epoch=3), entry.generation)
    entry = lvm.open().tags.read(T1)
    assert entry is not None and entry.record == record(epoch=3)


def test_a_slot_of_which_nobody_can_tell_whose_it_is_stays_in_sight(lvm):
    """It is shown under an id that no image has, holds back what must know every record, and can be given up."""
    repository = lvm.open()
    repository.tags.publish(record(), 0)
    meta = Meta(lvm)
    slot = meta.slot(T1)
    for copy in range(EXCLUSIVE_GEOMETRY.copies):
        meta.write(EXCLUSIVE_GEOMETRY.head_offset(slot, copy), b"noise" * 800)
    tags = lvm.open().tags.scan()
    assert list(tags) == [stand_in(slot)]
    assert tags[stand_in(slot)].problem
    assert lvm.open().tags.read(T1) is None
    repository.tags.purge(stand_in(slot), tags[stand_in(slot)].generation)
    assert [entry.tombstone for entry in lvm.open().tags.scan().values()] == [True]


def test_two_slots_of_one_tag_are_a_problem_of_that_tag(lvm):
    """A copy made by hand is reported and not guessed about."""
    repository = lvm.open()
    repository.tags.publish(record(), 0)
    repository.tags.publish(record(T2), 0)
    meta = Meta(lvm)
    slot = meta.slot(T1)
    meta.write(
        EXCLUSIVE_GEOMETRY.head_offset(60, 0),
        meta.content()[EXCLUSIVE_GEOMETRY.head_offset(slot, 0) :][: EXCLUSIVE_GEOMETRY.slot_bytes],
    )
    tags = lvm.open().tags.scan()
    assert "two records" in tags[T1].problem and not tags[T2].problem


def test_room_for_records_grows_and_the_oldest_tombstones_go_last(lvm, monkeypatch):
    """More records than a chunk has slots: ``dw-meta`` grows. Tombstones are reused only when it cannot."""
    repository = lvm.open()
    tags = [f"{number:02x}" * 16 for number in range(1, layout.SLOTS + 3)]
    generations = {tag: repository.tags.publish(record(tag), 0) for tag in tags}
    assert set(lvm.open().tags.scan()) == set(tags)
    meta_size = lvm.doors().volume_groups.report("dwtest").volumes[layout.META].size
    assert meta_size >= EXCLUSIVE_GEOMETRY.meta_bytes(2)
    monkeypatch.setattr(type(_records(repository)._meta), "extend", _no_room)
    for tag in tags[:3]:
        repository.tags.purge(tag, generations[tag])
    more = [f"{number:02x}" * 16 for number in range(100, 100 + 2 * layout.SLOTS - len(tags) + 3)]
    for tag in more:
        repository.tags.publish(record(tag), 0)
    now = lvm.open().tags.scan()
    assert set(now) == {*tags[3:], *more}
    with pytest.raises(NoSpace):
        repository.tags.publish(record("ab" * 16), 0)


def _no_room(self: object, header: object) -> None:
    raise NoSpace("no room")


def _records(repository: object) -> Records:
    return cast(LvmRepository, repository).records


def test_a_sync_that_fails_makes_the_outcome_unknown(lvm, monkeypatch):
    """The record may or may not be there after a loss of power; nobody is told that it is."""
    repository = cast(LvmRepository, lvm.open())
    generation = repository.tags.publish(record(), 0)

    def fails() -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(repository._meta, "sync", fails)
    with pytest.raises(OutcomeUnknown, match="writing it failed"):
        repository.tags.publish(record(epoch=2), generation)
    with pytest.raises(OutcomeUnknown):
        repository.tags.purge(T1, generation + 1)


def test_what_cannot_be_read_is_unknown_and_never_overwritten(lvm, monkeypatch):
    """EIO of one slot: that tag is unreadable, others are read, and nothing is written over it."""
    repository = cast(LvmRepository, lvm.open())
    repository.tags.publish(record(), 0)
    repository.tags.publish(record(T2), 0)
    slot = Meta(lvm).slot(T1)
    real = repository._meta.read

    def read(offset: int, length: int) -> bytes:
        low, high = (
            EXCLUSIVE_GEOMETRY.head_offset(slot, 0),
            EXCLUSIVE_GEOMETRY.head_offset(slot, EXCLUSIVE_GEOMETRY.copies),
        )
        if offset < high and low < offset + length:
            raise OSError(5, "Input/output error")
        return real(offset, length)

    monkeypatch.setattr(repository._meta, "read", read)
    tags = repository.tags.scan()
    assert tags[T1].unreadable and tags[T1].problem and not tags[T2].problem
    with pytest.raises(StorageError) as caught:
        repository.tags.publish(record(), tags[T1].generation)
    assert not isinstance(caught.value, Overtaken)
    monkeypatch.undo()
    entry = lvm.open().tags.read(T1)
    assert entry is not None and entry.record == record()


def test_a_late_write_of_an_earlier_manager_hits_none_of_its_successors_copies(lvm):
    """Copies go by the parity of the manager's term, so what a successor wrote stays and has the higher stamp."""
    repository = cast(LvmRepository, lvm.open())
    generation = repository.tags.publish(record(epoch=1), 0)
    meta = Meta(lvm)
    before = meta.content()
    repository.tags.publish(record(epoch=2, user_data="late"), generation)
    late = meta.content()
    meta.write(0, before)  # that write was still on its way when the group was taken over
    successor = cast(LvmRepository, lvm.open(host="host-2"))
    successor.manager.take("host-1")
    newest = successor.tags.publish(record(epoch=2, user_data="new"), generation)
    for at in changed_sectors(before, late):
        meta.write(at, late[at : at + SECTOR_BYTES])
    entry = lvm.open(host="host-2").tags.read(T1)
    assert entry is not None and entry.record is not None
    assert (entry.record.user_data, entry.generation, entry.problem) == ("new", newest, "")
