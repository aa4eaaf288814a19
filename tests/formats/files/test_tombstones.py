"""Tombstones in a repository of files: they end when no late writer can exist, and no generation comes back."""

from __future__ import annotations

import os

import pytest

from engine.data.model import Strategy
from engine.data.records import Record, is_tombstone
from engine.errors import DiskwrightError, Overtaken
from engine.formats.base import Repository
from sim.disk.profiles import POSIX
from sim.explore.search.cuts import cuts
from sim.explore.search.explorer import EffectRecorder
from sim.hosts.world import World
from tests.formats.kit import T1, LocalStorage, SpyFiles, once, record

SHARD = T1[:2]
OTHERS = [f"{SHARD}{digit * 30}" for digit in "23456789"]


def purged(repository: Repository, tag: str) -> None:
    """The tag begins, or begins again, and is purged."""
    entry = repository.tags.read(tag)
    repository.tags.purge(tag, repository.tags.publish(record(tag), entry.generation if entry else 0))


def tombstones(local: LocalStorage) -> list[str]:
    """The tags that have one, and nothing else is there."""
    names = sorted(os.listdir(f"{local.path}/tags/{SHARD}"))
    assert all(is_tombstone(int(name.partition(".")[2], 16)) for name in names)
    return [name.partition(".")[0] for name in names]


def test_tombstones_are_as_many_as_directories_and_not_as_images_that_were(local: LocalStorage):
    """Images come and go, and a check reads no more for it. One stays, which says where generations go on."""
    repository = local.open()
    for tag in (T1, *OTHERS):
        purged(repository, tag)
    assert len(tombstones(local)) == 1
    assert repository.scan().litter == []


def test_no_generation_of_a_tag_comes_back(local: LocalStorage):
    """A snapshot that is copied in again after its tombstone has ended goes on above all that it ever had: who is late
    with removing one of those removes none that counts, and a fix of then is no fix of now."""
    repository = local.open()
    last = repository.tags.publish(record(), 0)
    repository.tags.purge(T1, last)
    for tag in OTHERS:
        purged(repository, tag)
    assert repository.tags.read(T1) is None
    assert repository.tags.publish(record(), 0) > last
    assert T1 in local.open().tags.scan()


def test_no_generation_comes_back_once_the_highest_tombstone_is_gone_too(local: LocalStorage):
    """It is, when its own tag begins again; what that tag has then says as well where generations go on."""
    repository = local.open()
    last = repository.tags.publish(record(), 0)
    repository.tags.purge(T1, last)
    purged(repository, OTHERS[0])
    (again,) = tombstones(local)
    assert again == OTHERS[0] and repository.tags.read(T1) is None
    entry = repository.tags.read(again)
    generation = entry.generation if entry else 0
    for epoch in range(3):
        generation = repository.tags.publish(record(again, epoch=epoch), generation)
    assert repository.tags.publish(record(), 0) > last


def test_a_writer_that_slept_through_the_end_of_a_tombstone_finds_out(local: LocalStorage, spy: SpyFiles):
    """It has not begun to write its record, so nobody knows of it: it looks after that, and finds that it is late."""
    repository, other = local.open(spy), local.open()
    repository.tags.publish(record(), 0)

    def others() -> None:
        other.tags.purge(T1, 1)
        for tag in OTHERS:
            purged(other, tag)
        assert T1 not in tombstones(local)

    spy.before = once("create", others, "tmp/")
    with pytest.raises(Overtaken):
        repository.tags.publish(record(epoch=2), 1)
    assert repository.tags.read(T1) is None


def test_as_long_as_somebody_writes_a_record_tombstones_stay(local: LocalStorage, spy: SpyFiles):
    """It may be linked however late; the tombstone outdates it, and ends with a purge after that."""
    repository, other = local.open(spy), local.open()
    repository.tags.publish(record(), 0)

    def others() -> None:
        other.tags.purge(T1, 1)
        for tag in OTHERS[1:]:
            purged(other, tag)

    spy.before = once("link", others, "tmp/")
    with pytest.raises(Overtaken):
        repository.tags.publish(record(epoch=2), 1)
    entry = repository.tags.read(T1)
    assert entry is not None and entry.tombstone
    repository.litter.remove(repository.scan().litter)
    purged(other, OTHERS[0])
    assert repository.tags.read(T1) is None and repository.scan().tags.keys() == {OTHERS[0]}


def test_what_strangers_number_is_no_beginning(local: LocalStorage):
    """A file with nearly the highest number there can be stays, and makes nothing else begin after it."""
    repository = local.open()
    purged(repository, OTHERS[0])
    os.rename(
        f"{local.path}/tags/{SHARD}/{OTHERS[0]}.{1 << 48:016x}", f"{local.path}/tags/{SHARD}/{T1}.fffe000000000000"
    )
    purged(repository, OTHERS[1])
    purged(repository, OTHERS[2])
    assert tombstones(local) == [T1, OTHERS[2]]
    assert repository.tags.publish(record(OTHERS[3]), 0) < 1 << 63


def test_no_power_cut_brings_back_what_a_tombstone_outdated():
    """Whichever names survive a cut during a purge that ends an older tombstone: that one's tag has no record."""
    world = World(least_ids=True)
    world.create("a")
    tags = world.host("setup").context.repository("a").tags
    ended, other = (f"{SHARD}{number:030x}" for number in range(2))
    for tag in (ended, other):
        tags.publish(Record(tag, False, False, 65536, False, None, Strategy.SPACE), 0)
    world.storage.settle()
    tags.purge(ended, 1)
    recorder = EffectRecorder()
    run = world.fork(world.storage.clone(), recorder)
    repository = run.host("one").context.repository("a")
    points = recorder.run(run.storage, tuple, lambda: repository.tags.purge(other, 1))
    assert repository.tags.read(ended) is None
    for point in points:
        for cut in cuts(point.storage, POSIX):
            after = world.fork(cut.build()).host("three").context.repository("a")
            try:
                entry = after.tags.read(ended)
            except DiskwrightError as error:
                pytest.fail(str(error))
            assert entry is None or entry.record is None
