"""Records and shards that are damaged, wild, unreadable, or gone while they are read."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.decoding import decode
from engine.data.model import OperationStatus, VolumeFormat
from engine.data.records import Operation, encode
from engine.errors import Damaged, NotUnderstood, StorageError
from engine.formats.base import Litter
from engine.formats.files import layout
from tests.formats.files.kit import raises, write
from tests.formats.kit import (
    SIZE,
    T1,
    T2,
    V1,
    V2,
    LocalStorage,
    SpyFiles,
    failing,
    once,
    qcow2,
    raw,
    record,
)


def test_a_damaged_record_hides_neither_itself_nor_others(local: LocalStorage):
    """It has a problem in words, is not called unreadable, and the older generation is not used instead."""
    repository = local.open()
    repository.tags.publish(record(T2), 0)
    write(local, f"tags/11/{T1}.{4:016x}", encode(record(epoch=4)))
    write(local, f"tags/11/{T1}.{5:016x}", encode(record(epoch=5))[:-9])
    scan = repository.scan()
    assert scan.tags[T2].record == record(T2)
    entry = scan.tags[T1]
    assert (entry.generation, entry.record, entry.unreadable, entry.tombstone) == (5, None, False, False)
    assert "truncated" in entry.problem
    assert repository.tags.read(T1) == entry
    assert scan.litter == []  # the older generation is evidence
    old = layout.tag_name(T1, 4)
    assert repository.litter.remove([Litter("old-generation", f"tags/11/{old}", 1)]) == 0


@pytest.mark.parametrize("content", [b"", b"{}", b"dw2 1 x\n{}", b"\x00" * 600, b"x" * (1 << 20) + b"yy"])
def test_what_is_no_record_has_a_problem(local: LocalStorage, content: bytes):
    """Empty, wrong, of a newer version, zeros, too long: a problem, never an exception."""
    write(local, f"tags/11/{T1}.{1:016x}", content)
    entry = local.open().scan().tags[T1]
    assert entry.problem and entry.record is None and not entry.unreadable


def test_a_tombstone_is_one_whatever_is_in_it(local: LocalStorage):
    """Its name says it, so a stray byte cannot keep the tag from being used again."""
    write(local, f"tags/11/{T1}.{1 << 48:016x}", b"x")
    entry = local.open().scan().tags[T1]
    assert entry.tombstone and not entry.problem


@pytest.mark.parametrize("generation", ["0" * 16, "f" * 16, "0000" + "f" * 12])
def test_a_generation_without_room_for_the_next_is_foreign(local: LocalStorage, generation: str):
    """It was never written by a program of ours, and must not stand in the way of one."""
    write(local, f"tags/11/{T1}.{generation}", b"x")
    scan = local.open().scan()
    assert T1 not in scan.tags
    assert [item.kind for item in scan.litter] == ["foreign"]


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_record_that_cannot_be_read_is_unknown(local: LocalStorage, spy: SpyFiles, number: int):
    """A reading error is marked as such, with its text; others are read, the older generation is not used."""
    repository = local.open(spy)
    write(local, f"tags/11/{T1}.{4:016x}", encode(record(epoch=4)))
    write(local, f"tags/11/{T1}.{5:016x}", encode(record(epoch=5)))
    write(local, f"tags/12/{T2}.{1:016x}", encode(record(T2)))
    spy.before = failing("read", number, T1)
    scan = repository.scan()
    entry = scan.tags[T1]
    assert (entry.generation, entry.record, entry.unreadable) == (5, None, True)
    assert errno.errorcode[number] in entry.problem
    assert scan.tags[T2].record == record(T2)
    assert scan.litter == []
    assert repository.tags.read(T1) == entry


def test_a_name_that_is_listed_and_never_found_is_unknown(local: LocalStorage, spy: SpyFiles):
    """As on NFS with a stale cache: the tag is reported as unreadable, not as absent."""
    repository = local.open(spy)
    repository.tags.publish(record(), 0)
    spy.before = failing("read", errno.ENOENT)
    entry = repository.tags.read(T1)
    assert entry is not None and entry.unreadable and "listed but not found" in entry.problem
    assert repository.scan().tags == {T1: entry}


def test_a_volume_that_is_listed_and_not_found_is_unknown(local: LocalStorage, spy: SpyFiles):
    """Absent is only what the listing does not have either."""
    repository = local.open(spy)
    repository.volumes.make(qcow2(), SIZE, None)
    for number in (errno.ENOENT, errno.EIO, errno.EACCES):
        spy.before = failing("open", number)
        assert repository.volumes.facts(V1, VolumeFormat.QCOW2).unreadable
        spy.before = failing("stat", number)
        repository.volumes.make(raw(V2), SIZE, None)
        assert repository.volumes.facts(V2, VolumeFormat.RAW).unreadable


def test_a_shard_that_another_host_just_made_is_not_taken_for_absent(local: LocalStorage, spy: SpyFiles):
    """A stale ENOENT for the directory itself is settled by the listing of its parent."""
    repository = local.open(spy)
    repository.tags.publish(record(), 0)
    spy.before = once("list", raises(FileNotFoundError(errno.ENOENT, "stale")), f"tags/{T1[:2]}")
    entry = repository.tags.read(T1)
    assert entry is not None and entry.record == record()


@pytest.mark.parametrize("directory", ["tags/11", "volumes/aa"])
def test_a_shard_that_cannot_be_listed_is_named_and_the_rest_is_seen(
    local: LocalStorage, spy: SpyFiles, directory: str
):
    """The scan goes on; asked for all tags, the answer is an error."""
    repository = local.open(spy)
    repository.tags.publish(record(), 0)
    repository.tags.publish(record(id="22" * 16), 0)
    repository.volumes.make(raw(), SIZE, None)
    spy.before = lambda verb, name: raises(OSError(errno.EIO, "bad"))() if (verb, name) == ("list", directory) else None
    scan = repository.scan()
    assert "22" * 16 in scan.tags and [name for name, _ in scan.unlisted] == [directory]
    if directory.startswith("tags"):
        assert T1 not in scan.tags
        with pytest.raises(StorageError, match="EIO"):
            repository.tags.scan()


def test_without_tags_nothing_is_judged(local: LocalStorage, spy: SpyFiles):
    """A scan that cannot list them fails: a missing tag would make its volumes look unneeded."""
    repository = local.open(spy)
    repository.tags.publish(record(), 0)
    spy.before = lambda verb, name: raises(OSError(errno.EIO, "bad"))() if (verb, name) == ("list", "tags") else None
    with pytest.raises(StorageError, match="list"):
        repository.scan()


def test_without_volumes_records_are_read(local: LocalStorage, spy: SpyFiles):
    """What cannot be listed is named, and no volume is called gone."""
    repository = local.open(spy)
    repository.tags.publish(record(), 0)
    repository.volumes.make(raw(), SIZE, None)
    spy.before = lambda verb, name: raises(OSError(errno.EIO, "bad"))() if (verb, name) == ("list", "volumes") else None
    scan = repository.scan()
    assert scan.tags and [name for name, _ in scan.unlisted] == ["volumes"]
    os.rename(f"{local.path}/volumes", f"{local.path}.volumes")
    spy.before = lambda verb, name: None
    assert [name for name, _ in repository.scan().unlisted] == ["volumes"]
    assert repository.volumes.facts(V1, VolumeFormat.RAW).unreadable


def test_a_repository_that_went_away_while_it_was_open_is_told(local: LocalStorage):
    """Whatever is done with it: an error of the storage, in a sentence. Found so: it was looked for the directory that
    is missing, and that look failed with a traceback."""
    repository = local.open()
    os.rename(local.path, f"{local.path}.away")
    assert repository.parts is not None
    for call in (
        lambda: repository.tags.publish(record(), 0),
        lambda: repository.volumes.make(raw(), SIZE, None),
        lambda: repository.volumes.quarantine(V1, VolumeFormat.RAW),
        lambda: repository.progress.start(T1, 1),
        lambda: repository.parts.make("lost"),
    ):
        with pytest.raises(StorageError, match="cannot"):
            call()


@pytest.mark.parametrize("directory", ["progress", "digests", "tmp", "lost"])
def test_a_litter_directory_that_cannot_be_listed_is_shown(local: LocalStorage, spy: SpyFiles, directory: str):
    """The scan goes on and names it."""
    repository = local.open(spy)
    repository.tags.publish(record(), 0)
    spy.before = lambda verb, name: raises(OSError(errno.EIO, "bad"))() if (verb, name) == ("list", directory) else None
    scan = repository.scan()
    assert scan.tags and not scan.litter and [name for name, _ in scan.unread] == [directory]


def test_progress_of_a_damaged_record_is_no_litter(local: LocalStorage):
    """While the record cannot be understood nothing says that the attempt is over."""
    repository = local.open()
    write(local, f"tags/11/{T1}.{1:016x}", b"garbage")
    repository.progress.start(T1, 1)
    assert repository.scan().litter == []


FULL = record(
    volume=qcow2(V1, T2),
    operation=Operation("merge", raw(V2), 5, T2, T1, 1, T2, T2, "up", (V1, V2), "/x", (1, 2, 3), "raw"),
    last=OperationStatus("copy", "höst", 1, 2, 50, "no space", 1.5, "fill"),
    scrap=(raw(V2),),
    lost=((0, 4096),),
    user_data={"name": ["ä", 1.5, None]},
)


@given(st.data())
def test_mutated_records_only_ever_have_a_problem(data: st.DataObject):
    """However the bytes of a record are changed, decode returns a record or raises Damaged, and never
    another content under an intact checksum."""
    content = bytearray(encode(FULL))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        assert decode(bytes(content), T1) == FULL
    except Damaged as error:
        assert error.message
    except NotUnderstood:  # it seems to be of another version, which nobody here can judge
        assert not bytes(content).startswith(b"dw1 ")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.just(T2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(field=st.sampled_from(sorted(json.loads(encode(FULL).partition(b"\n")[2]))), value=json_values)
def test_a_record_of_wrong_fields_hides_no_other(field: str, value: object):
    """A record with a valid checksum and a wild field: the scan has it, readable or with a problem, and the others."""
    body = json.loads(encode(FULL).partition(b"\n")[2])
    body[field] = value
    directory = tempfile.mkdtemp()
    try:
        os.mkdir(f"{directory}/t")
        local = LocalStorage(Path(directory))
        write(local, f"tags/11/{T1}.{1:016x}", _sealed(body))
        write(local, f"tags/12/{T2}.{1:016x}", encode(record(T2)))
        tags = local.open().scan().tags
        assert tags[T2].record == record(T2)
        assert (tags[T1].record is None) == bool(tags[T1].problem)
    finally:
        shutil.rmtree(directory)


def _sealed(body: object) -> bytes:
    from hashlib import blake2b

    from engine.data.records import canonical

    content = canonical(body)
    return b"dw1 %d %s\n%s\n" % (len(content), blake2b(content, digest_size=16).hexdigest().encode(), content)
