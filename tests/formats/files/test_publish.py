"""How a repository of files changes a record: order of effects, races, failures."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from engine.data.model import VolumeFormat
from engine.data.records import is_tombstone
from engine.errors import Damaged, NoSpace, OutcomeUnknown, Overtaken, Refused, StorageError
from engine.formats.base import Repository
from tests.formats.kit import (
    SIZE,
    T1,
    V1,
    LocalStorage,
    SpyFiles,
    failing,
    names_below,
    once,
    qcow2,
    raw,
    record,
)

SHARD = f"tags/{T1[:2]}"


def name(generation: int) -> str:
    return f"{SHARD}/{T1}.{generation:016x}"


def epoch(repository: Repository) -> int:
    """The epoch in the newest record, by which these tests tell records apart."""
    entry = repository.tags.read(T1)
    assert entry is not None and entry.record is not None
    return entry.record.epoch


# -- order of effects


def test_publish_syncs_the_record_before_its_name_and_the_name_before_the_old_one_goes(
    local: LocalStorage, spy: SpyFiles
):
    """tmp is written and synced, linked, the directory synced, and only then the generation unlinked that was before
    the one before, and that one put aside."""
    repository = local.open(spy)
    repository.tags.publish(record(), 0)
    repository.tags.publish(record(epoch=2), 1)
    assert os.path.exists(f"{local.path}/{name(1)}.before")
    spy.log.clear()
    repository.tags.publish(record(epoch=3), 2)
    assert spy.log == [
        "create tmp/*-record",
        "write tmp/*-record",
        "sync tmp/*-record",
        f"link tmp/*-record {name(3)}",
        f"sync_directory {SHARD}",
        f"unlink {name(1)}.before",
        f"rename {name(2)} {name(2)}.before",
        "unlink tmp/*-record",
    ]


def test_the_first_record_of_a_shard_makes_the_shard_durable_first(local: LocalStorage, spy: SpyFiles):
    """A shard is made and its name synced before a record is linked in it; another process that begins a tag there
    syncs too. One that goes on with a tag does not: who linked what is there has synced it. So that is two syncs."""
    local.open(spy).tags.publish(record(), 0)
    assert spy.log[:2] == [f"make_directory {SHARD}", "sync_directory tags"]
    spy.log.clear()
    local.open(spy).tags.publish(record(T1[:2] + "2" * 30), 0)
    assert spy.log.index("sync_directory tags") < spy.log.index("sync tmp/*-record")
    spy.log.clear()
    local.open(spy).tags.publish(record(epoch=2), 1)
    assert [entry for entry in spy.log if entry.startswith("sync")] == ["sync tmp/*-record", f"sync_directory {SHARD}"]


def test_a_purge_is_durable_before_the_record_goes(local: LocalStorage, spy: SpyFiles):
    """The empty tombstone is linked and synced, then the generations below are unlinked."""
    repository = local.open(spy)
    repository.tags.publish(record(), 0)
    spy.log.clear()
    repository.tags.purge(T1, 1)
    tombstone = name(1 << 48)
    assert [line for line in spy.log if not line.startswith(("create", "write"))] == [
        "sync tmp/*-record",
        f"link tmp/*-record {tombstone}",
        f"sync_directory {SHARD}",
        f"unlink {name(1)}",
        "unlink tmp/*-record",
    ]
    assert os.path.getsize(f"{local.path}/{tombstone}") == 0


@pytest.mark.parametrize("volume", [raw(), qcow2()], ids=["raw", "qcow2"])
def test_a_volume_is_synced_and_then_its_directory(local: LocalStorage, spy: SpyFiles, volume):
    """make_volume ends with the sync of the file after its last change, then that of the shard."""
    local.open(spy).volumes.make(volume, SIZE, None)
    path = f"volumes/{V1[:2]}/{V1}.{volume.format}"
    assert spy.log[:3] == [f"make_directory volumes/{V1[:2]}", "sync_directory volumes", f"create {path}"]
    assert spy.log[-3:] == [f"truncate {path}", f"sync {path}", f"sync_directory volumes/{V1[:2]}"]
    assert all(line.split()[1] == path for line in spy.log[2:-1])


def test_removing_and_quarantining_end_with_a_sync(local: LocalStorage, spy: SpyFiles):
    """The shard is synced after the unlink, also when another had unlinked it; a quarantined volume is
    durable in lost before it leaves volumes."""
    repository = local.open(spy)
    shard, path = f"volumes/{V1[:2]}", f"volumes/{V1[:2]}/{V1}.raw"
    repository.volumes.make(raw(), SIZE, None)
    spy.log.clear()
    repository.volumes.quarantine(V1, VolumeFormat.RAW)
    assert spy.log == [f"link {path} lost/{V1}.raw", "sync_directory lost", f"unlink {path}", f"sync_directory {shard}"]
    spy.log.clear()
    repository.volumes.remove(V1, VolumeFormat.RAW)
    assert spy.log == [f"sync_directory {shard}"]


def test_progress_is_all_there_before_its_first_line(local: LocalStorage, spy: SpyFiles):
    """The log has its whole size in real blocks, synced, from the start; a line changes neither."""
    repository = local.open(spy)
    repository.progress.start(T1, 7)
    path = f"progress/{T1}.7"
    assert spy.log == [f"create {path}", f"write {path}", f"sync {path}", "sync_directory progress"]
    before = os.stat(f"{local.path}/{path}")
    assert before.st_size == 16384 and before.st_blocks * 512 >= 16384
    spy.log.clear()
    repository.progress.write(T1, 7, 33, b"{}")
    assert spy.log == [f"write {path}", f"sync {path}"]
    after = os.stat(f"{local.path}/{path}")
    assert (after.st_size, after.st_blocks) == (before.st_size, before.st_blocks)


def test_digests_are_synced_before_they_replace(local: LocalStorage, spy: SpyFiles):
    """tmp is synced, renamed over the old list, and the directory synced."""
    local.open(spy).digests.write(V1, b"d")
    assert spy.log == [
        "create tmp/*-digest",
        "write tmp/*-digest",
        "sync tmp/*-digest",
        f"rename tmp/*-digest digests/{V1}",
        "sync_directory digests",
    ]


# -- races, by what another process does between two calls of ours


def test_a_change_just_before_our_link_overtakes_us(local: LocalStorage, spy: SpyFiles):
    """Somebody links the generation we wanted: Overtaken, theirs stays, ours was never visible."""
    ours, theirs = local.open(spy), local.open()
    ours.tags.publish(record(), 0)
    spy.before = once("link", lambda: _ignore(theirs.tags.publish(record(epoch=2), 1)))
    with pytest.raises(Overtaken) as caught:
        ours.tags.publish(record(epoch=3), 1)
    assert not isinstance(caught.value, OutcomeUnknown)
    assert epoch(theirs) == 2
    assert theirs.scan().litter == []


def test_two_changes_before_our_link_leave_its_outcome_unknown(local: LocalStorage, spy: SpyFiles):
    """The name we want is free again because more changes came and it went: our late link succeeds, the second
    listing sees the higher generation, and that one stays the truth."""
    ours, theirs = local.open(spy), local.open()
    ours.tags.publish(record(), 0)

    def overtake() -> None:
        for generation in (1, 2, 3):
            theirs.tags.publish(record(epoch=generation + 1), generation)

    spy.before = once("link", overtake)
    with pytest.raises(OutcomeUnknown):
        ours.tags.publish(record(epoch=9), 1)
    assert epoch(theirs) == 4
    assert [item.kind for item in theirs.scan().litter] == ["old-generation"]


@pytest.mark.parametrize("moment", ["link", "sync_directory"])
def test_a_change_on_top_of_ours_leaves_the_outcome_unknown(local: LocalStorage, spy: SpyFiles, moment: str):
    """Ours was visible and somebody changed it before we looked: unknown, and nothing of theirs is touched."""
    ours, theirs = local.open(spy), local.open()
    ours.tags.publish(record(), 0)
    armed = once(moment, lambda: _ignore(theirs.tags.publish(record(epoch=5), 2)))
    spy.after = lambda verb, path: armed(verb, path) if path.startswith(("tmp", SHARD)) else None
    with pytest.raises(OutcomeUnknown):
        ours.tags.publish(record(epoch=2), 1)
    assert epoch(theirs) == 5


def test_a_purge_can_be_overtaken(local: LocalStorage, spy: SpyFiles):
    """The id lives again before we looked: the purge's outcome is unknown and the new record is not touched."""
    ours, theirs = local.open(spy), local.open()
    ours.tags.publish(record(), 0)
    spy.after = once("link", lambda: _ignore(theirs.tags.publish(record(epoch=5), 1 << 48)))
    with pytest.raises(OutcomeUnknown):
        ours.tags.purge(T1, 1)
    assert epoch(theirs) == 5


def test_a_writer_that_slept_through_a_purge_never_wins(local: LocalStorage, spy: SpyFiles):
    """Its late link of a generation below the tombstone is reported as unknown and counts for nobody."""
    ours, theirs = local.open(spy), local.open()
    ours.tags.publish(record(), 0)
    spy.before = once("link", lambda: theirs.tags.purge(T1, 1))
    with pytest.raises(OutcomeUnknown):
        ours.tags.publish(record(epoch=2), 1)
    entry = theirs.tags.read(T1)
    assert entry is not None and entry.tombstone
    litter = theirs.scan().litter
    assert [item.kind for item in litter] == ["old-generation"]
    assert theirs.litter.remove(litter) > 0
    entry = theirs.tags.read(T1)
    assert entry is not None and entry.tombstone


def test_a_reader_that_is_overtaken_reads_the_newer_record(local: LocalStorage, spy: SpyFiles):
    """The listed generation is replaced before it is opened: the reader lists again."""
    reader, writer = local.open(spy), local.open()
    writer.tags.publish(record(), 0)

    def twice(expected: int) -> None:
        writer.tags.publish(record(epoch=expected + 1), expected)
        writer.tags.publish(record(epoch=expected + 2), expected + 1)

    spy.before = once("read", lambda: twice(1), SHARD)
    assert epoch(reader) == 3
    spy.before = once("read", lambda: twice(3), SHARD)
    found = reader.scan().tags[T1].record
    assert found is not None and found.epoch == 5


# -- failures


@pytest.mark.parametrize("number", [errno.EEXIST, errno.EIO, errno.ETIMEDOUT])
def test_a_lost_reply_to_our_own_link_is_a_success(local: LocalStorage, spy: SpyFiles, number: int):
    """On NFS link can fail although it was done: the name with our inode is our own."""
    repository = local.open(spy)
    spy.after = failing("link", number)
    assert repository.tags.publish(record(), 0) == 1
    spy.after = lambda verb, path: None
    assert epoch(repository) == 1
    assert repository.scan().litter == []


def test_a_failed_link_changes_nothing(local: LocalStorage, spy: SpyFiles):
    """A link that fails and was not done is a plain storage error: nothing visible, nothing left in tmp."""
    repository = local.open(spy)
    repository.tags.publish(record(), 0)
    spy.before = failing("link", errno.EIO)
    with pytest.raises(StorageError):
        repository.tags.publish(record(epoch=2), 1)
    assert epoch(repository) == 1
    assert os.listdir(f"{local.path}/tmp") == []


def test_an_unsynced_change_is_of_unknown_outcome(local: LocalStorage, spy: SpyFiles):
    """The sync of the directory fails after the link: not acknowledged, and the older generation stays."""
    repository = local.open(spy)
    repository.tags.publish(record(), 0)
    spy.before = failing("sync_directory", errno.EIO)
    with pytest.raises(OutcomeUnknown, match="Input/output error"):
        repository.tags.publish(record(epoch=2), 1)
    assert name(1) in names_below(local.path)


@pytest.mark.parametrize("verb", ["create", "write", "sync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_record_that_cannot_be_written_changes_nothing(local: LocalStorage, spy: SpyFiles, verb: str, number: int):
    """ENOSPC and EDQUOT are NoSpace, EIO is a storage error; the record is as before and tmp is empty."""
    repository = local.open(spy)
    repository.tags.publish(record(), 0)
    spy.before = failing(verb, number)
    with pytest.raises(StorageError) as caught:
        repository.tags.publish(record(epoch=2), 1)
    assert isinstance(caught.value, NoSpace) is (number != errno.EIO)
    assert epoch(repository) == 1
    assert os.listdir(f"{local.path}/tmp") == []


def test_an_old_generation_that_stays_is_litter(local: LocalStorage, spy: SpyFiles):
    """Failing to unlink what was replaced does not fail the change; check finds it and clean removes it, after
    syncing the directory so that the newer one cannot be lost with it."""
    repository = local.open(spy)
    repository.tags.publish(record(), 0)
    repository.tags.publish(record(), 1)
    spy.before = failing("unlink", errno.EACCES)
    assert repository.tags.publish(record(epoch=2), 2) == 3
    spy.before = lambda verb, path: None
    litter = repository.scan().litter
    assert sorted(item.kind for item in litter) == ["old-generation", "temporary"]
    spy.log.clear()
    assert repository.litter.remove(litter) > 0
    assert spy.log.index(f"sync_directory {SHARD}") < spy.log.index(f"unlink {name(1)}.before")
    assert repository.scan().litter == []
    assert epoch(repository) == 2


def test_a_newest_record_that_is_gone_is_known_to_be(local: LocalStorage, spy: SpyFiles):
    """The one before never counts again: the tag is damaged, with that one as a witness, and the next generation is
    written after the one that is gone. Found so: a snapshot whose newest record was deleted was silently one that had
    only been begun."""
    repository = local.open(spy)
    repository.tags.publish(record(), 0)
    repository.tags.publish(record(epoch=2), 1)
    os.unlink(f"{local.path}/{name(2)}")
    for entry in (repository.tags.read(T1), repository.scan().tags[T1], repository.tags.scan()[T1]):
        assert entry is not None and entry.damaged and entry.record is None
        assert entry.generation == 2 and entry.before == record() and "is gone" in entry.problem
    assert repository.scan().litter == []
    with pytest.raises(Overtaken):
        repository.tags.publish(record(epoch=3), 1)
    assert repository.tags.publish(record(epoch=3), 2) == 3 and epoch(repository) == 3


def test_records_are_listed_twice_before_anything_is_concluded_from_them(local: LocalStorage, spy: SpyFiles):
    """A listing may miss a tag whose files get other names meanwhile; whoever asks for all of them gets it."""
    repository = local.open(spy)
    repository.tags.publish(record(), 0)
    path = f"{local.path}/{name(1)}"
    spy.before = once("list", lambda: os.rename(path, f"{local.path}/away"), SHARD)
    spy.after = once("list", lambda: os.rename(f"{local.path}/away", path), SHARD)
    assert repository.tags.scan()[T1].record == record()


def test_records_that_older_programs_left_are_read_and_changed(local: LocalStorage):
    """They gave the one before no other name."""
    repository = local.open()
    repository.tags.publish(record(), 0)
    repository.tags.publish(record(epoch=2), 1)
    os.rename(f"{local.path}/{name(1)}.before", f"{local.path}/{name(1)}")
    assert epoch(repository) == 2 and repository.scan().litter == []
    assert repository.tags.publish(record(epoch=3), 2) == 3
    assert {f"{SHARD}/{entry}" for entry in os.listdir(f"{local.path}/{SHARD}")} == {f"{name(2)}.before", name(3)}


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/etc/passwd", path)])
def test_a_stranger_in_the_way_of_a_generation_is_named(local: LocalStorage, make: Callable[[str], None]):
    """The next name is taken by something that is no record: Damaged names it, and it is left alone."""
    repository = local.open()
    repository.tags.publish(record(), 0)
    make(f"{local.path}/{name(2)}")
    with pytest.raises(Damaged, match=f"{T1}.{2:016x}"):
        repository.tags.publish(record(epoch=2), 1)
    assert os.path.lexists(f"{local.path}/{name(2)}")
    assert epoch(repository) == 1


@pytest.mark.parametrize("last", [(1 << 48) - 1, 0xFFFF << 48, (0xFFFF << 48) + 5])
def test_the_last_generation_is_refused_and_not_wrapped(local: LocalStorage, last: int):
    """A stranger's file with the highest number makes the tag unchangeable, with an error that says so."""
    repository = local.open()
    repository.tags.publish(record(), 0)
    os.rename(f"{local.path}/{name(1)}", f"{local.path}/{name(last)}")
    with pytest.raises(Damaged, match=f"{last:016x}"):
        repository.tags.publish(record(epoch=2), last)
    if not is_tombstone(last):
        with pytest.raises(Damaged):
            repository.tags.purge(T1, last)


def test_without_the_lock_file_nothing_is_changed(local: LocalStorage):
    """A lost lock file is not made anew by the way: changes and leases are refused naming it, reading goes on."""
    repository = local.open()
    repository.tags.publish(record(), 0)
    os.unlink(f"{local.path}/locks")
    for call in (
        lambda: repository.tags.publish(record(epoch=2), 1),
        lambda: repository.leases.try_acquire(T1),
    ):
        with pytest.raises(Refused, match=f"{local.path}/locks"):
            call()
    assert not repository.leases.held(T1)
    assert repository.scan().tags[T1].record == record()
    assert "locks" not in os.listdir(local.path)


@pytest.mark.parametrize("verb", ["create", "write", "truncate", "sync", "sync_directory", "make_directory"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.ESTALE])
def test_every_failing_effect_is_an_error_that_says_what_was_being_done(
    local: LocalStorage, spy: SpyFiles, verb: str, number: int
):
    """No OSError leaves the format: make_volume, start_progress, write_digests convert them all."""
    repository = local.open(spy)
    spy.before = failing(verb, number)
    for call in (
        lambda: repository.volumes.make(qcow2(), SIZE, None),
        lambda: repository.progress.start(T1, 1),
        lambda: repository.digests.write(V1, b"d"),
    ):
        try:
            call()
        except StorageError as error:
            assert error.message.startswith("cannot ")
        else:
            assert verb in {"truncate", "make_directory"}


def test_a_quarantined_name_is_never_replaced(local: LocalStorage):
    """Other data under that name in lost is an error, and both stay."""
    repository = local.open()
    repository.volumes.make(raw(), SIZE, None)
    with open(f"{local.path}/lost/{V1}.raw", "wb") as file:
        file.write(b"older")
    with pytest.raises(StorageError):
        repository.volumes.quarantine(V1, VolumeFormat.RAW)
    assert repository.volumes.facts(V1, VolumeFormat.RAW).present
    assert os.path.getsize(f"{local.path}/lost/{V1}.raw") == 5


def _ignore(_: object) -> None:
    """A hook returns nothing."""


def test_a_replaced_volume_is_a_new_file(local: LocalStorage):
    """On local files: who still has the unfinished one open, lock or not, writes into nothing."""
    repository = local.open()
    repository.volumes.make(raw(), SIZE, None)
    with open(repository.volumes.layer(raw()).path, "r+b", buffering=0) as old:
        repository.volumes.make(raw(), SIZE, None)
        old.write(b"late write!")
    with open(repository.volumes.layer(raw()).path, "rb") as new:
        assert new.read(11) == bytes(11)
