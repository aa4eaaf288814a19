"""A repository of files in which a stranger, a crash or a failing disk has been."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.model import OperationStatus, VolumeFormat
from engine.data.records import Operation, decode, encode
from engine.errors import Damaged, NotUnderstood, Refused, StorageError
from engine.formats.base import Litter, Repository, Scan
from engine.formats.files import layout, localfs
from engine.tools.local.clock import RealClock
from engine.tools.local.files import RealFiles
from engine.tools.local.leases import OfdLeases
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
    real_doors,
    record,
)

MAKERS: list[Callable[[str], object]] = [
    os.mkdir,
    os.mkfifo,
    lambda path: os.symlink("/etc/passwd", path),
    lambda path: os.symlink("nowhere", path),
]
MAKER_NAMES = ["directory", "fifo", "symlink", "dangling-symlink"]


def kinds(repository: Repository) -> dict[str, str]:
    return {item.name: item.kind for item in repository.scan().litter}


def write(local: LocalStorage, name: str, content: bytes) -> None:
    path = f"{local.path}/{name}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


# -- strangers


FOREIGN_NAMES = [
    "notes.txt",
    "tags/notes",
    "tags/zz/x",
    f"tags/11/{T1}",
    f"tags/11/{T1}.{0:016x}",
    f"tags/11/{T1}.{1:015x}",
    f"tags/11/{T1}.{'A' * 16}",
    f"tags/22/{T1}.{1:016x}",
    f"tags/11/{T1}.{1:016x}\n",
    "tags/11/.nfs000000000001",
    "volumes/notes",
    f"volumes/aa/{V1}",
    f"volumes/aa/{V1}.vmdk",
    f"volumes/bb/{V1}.raw",
    "volumes/aa/.nfs000000000001",
    f"progress/{T1}",
    f"progress/{T1}.01",
    f"progress/{T1}.-1",
    "digests/notes",
    f"digests/{V1}.tmp",
    "tmp/notes",
    f"tmp/{T1}",
    "tmp/.nfs000000000001",
    f"lost/{V1}",
    "lost/.nfs000000000001",
]


@pytest.mark.parametrize("name", FOREIGN_NAMES)
def test_a_file_of_a_wrong_name_is_foreign(local: LocalStorage, name: str):
    """It is reported with the room it takes, is nobody's image or volume, and is never removed."""
    repository = local.open()
    write(local, name, b"x" * 5000)
    scan = repository.scan()
    top = "/".join(name.split("/")[:2]) if name.startswith("tags/zz") else name
    assert [(item.kind, item.name) for item in scan.litter] == [("foreign", top)]
    assert scan.litter[0].size >= 4096
    assert not scan.tags and not scan.volumes
    assert repository.litter.remove(scan.litter) == 0
    assert os.path.lexists(f"{local.path}/{name}")


@pytest.mark.parametrize("make", MAKERS, ids=MAKER_NAMES)
@pytest.mark.parametrize(
    "name",
    [
        "locks2",
        "tags/11",
        f"tags/11/{T1}.{1:016x}",
        "volumes/aa",
        f"volumes/aa/{V1}.raw",
        f"progress/{T1}.1",
        f"digests/{V1}",
        f"tmp/{T1}-record",
        f"lost/{V1}.raw",
    ],
)
def test_what_is_no_regular_file_is_foreign(local: LocalStorage, make: Callable[[str], object], name: str):
    """Links, FIFOs and directories under names of ours are neither followed, opened nor offered for removal."""
    repository = local.open()
    os.makedirs(f"{local.path}/{os.path.dirname(name)}", exist_ok=True)
    make(f"{local.path}/{name}")
    is_shard = name in {"tags/11", "volumes/aa"} and make is os.mkdir
    scan = repository.scan()
    assert [(item.kind, item.name) for item in scan.litter] == ([] if is_shard else [("foreign", name)])
    assert not scan.tags and not scan.volumes
    for kind in ("temporary", "old-generation", "progress", "digest", "lost"):
        assert repository.litter.remove([item._replace(kind=kind) for item in scan.litter]) == 0
    assert os.path.lexists(f"{local.path}/{name}")


def test_names_that_are_not_utf8_are_told_in_letters_that_print(local: LocalStorage):
    """A foreign name of wild bytes is shown escaped, so that it can go into JSON."""
    with open(os.fsencode(local.path) + b"/tmp/\xff\xfe\x1b", "wb"):
        pass
    (item,) = local.open().scan().litter
    assert item.kind == "foreign"
    assert json.loads(json.dumps(item.name).encode("utf-8")) == item.name == "tmp/\\xff\\xfe\x1b"
    item.name.encode("utf-8")


def test_of_two_formats_of_one_volume_one_is_foreign(local: LocalStorage):
    """A volume has one format: a second file of that id is not silently merged with the first."""
    repository = local.open()
    repository.volumes.make(raw(V1), SIZE, None)
    repository.volumes.make(qcow2(V1), SIZE, None)
    scan = repository.scan()
    assert len(scan.volumes) == 1
    assert [item.kind for item in scan.litter] == ["foreign"]


@pytest.mark.parametrize("make", MAKERS, ids=MAKER_NAMES)
@pytest.mark.parametrize("format", list(VolumeFormat))
def test_a_volume_that_is_no_regular_file_is_refused(
    local: LocalStorage, make: Callable[[str], object], format: VolumeFormat
):
    """volume_facts tells the problem without following or blocking; layer refuses to hand it to a tool."""
    repository = local.open()
    repository.volumes.make(raw(V2), SIZE, None)
    os.makedirs(f"{local.path}/volumes/aa")
    make(f"{local.path}/volumes/aa/{V1}.{format}")
    facts = repository.volumes.facts(V1, format)
    assert facts.present and "not a file" in facts.problem and not facts.unreadable
    with pytest.raises(Damaged, match="not a file"):
        repository.volumes.layer(raw(V1)._replace(format=format))


@pytest.mark.parametrize("length", [0, 1, 71, 100, 4095, 4096, 5000])
def test_a_short_or_wild_qcow2_header_is_a_problem(local: LocalStorage, length: int):
    """Whatever a qcow2 volume holds, it is a problem in words and not an exception."""
    write(local, f"volumes/aa/{V1}.qcow2", b"QFI\xfb" + b"\xff" * length)
    facts = local.open().volumes.facts(V1, VolumeFormat.QCOW2)
    assert facts.present and facts.problem and not facts.unreadable and facts.header is None


def test_a_header_that_needs_more_than_a_page_is_read(local: LocalStorage):
    """A backing name behind the first 4 KiB is legal, so more is read before a verdict."""
    repository = local.open()
    repository.volumes.make(qcow2(V1, T2), SIZE, VolumeFormat.RAW)
    with open(f"{local.path}/volumes/aa/{V1}.qcow2", "r+b") as file:
        file.seek(8)
        file.write((8192).to_bytes(8, "big") + (3).to_bytes(4, "big"))
        file.seek(8192)
        file.write(b"far")
    header = repository.volumes.facts(V1, VolumeFormat.QCOW2).header
    assert header is not None and header.backing_name == "far"


# -- records


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
    spy.before = once("list", _raise(FileNotFoundError(errno.ENOENT, "stale")), f"tags/{T1[:2]}")
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
    spy.before = lambda verb, name: _raise(OSError(errno.EIO, "bad"))() if (verb, name) == ("list", directory) else None
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
    spy.before = lambda verb, name: _raise(OSError(errno.EIO, "bad"))() if (verb, name) == ("list", "tags") else None
    with pytest.raises(StorageError, match="list"):
        repository.scan()


def test_without_volumes_records_are_read(local: LocalStorage, spy: SpyFiles):
    """What cannot be listed is named, and no volume is called gone."""
    repository = local.open(spy)
    repository.tags.publish(record(), 0)
    repository.volumes.make(raw(), SIZE, None)
    spy.before = lambda verb, name: _raise(OSError(errno.EIO, "bad"))() if (verb, name) == ("list", "volumes") else None
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
    spy.before = lambda verb, name: _raise(OSError(errno.EIO, "bad"))() if (verb, name) == ("list", directory) else None
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


# -- progress


def test_a_torn_slot_costs_one_line(local: LocalStorage):
    """Damage to the slot of the newest line leaves the one before it as the newest."""
    repository = local.open()
    repository.progress.start(T1, 1)
    for sequence in range(40):
        repository.progress.write(T1, 1, sequence, b'{"n":%d}' % sequence)
    with open(f"{local.path}/progress/{T1}.1", "r+b") as file:
        file.seek(layout.slot_of(39) + 5)
        file.write(b"\0" * 100)
    assert repository.progress.read(T1, 1) == b'{"n":38}'
    repository.progress.write(T1, 1, 40, b'{"n":40}')
    assert repository.progress.read(T1, 1) == b'{"n":40}'


@given(st.integers(0, layout.SLOT_BYTES - 1), st.integers(1, 255), st.integers(0, 1 << 61), st.binary(max_size=440))
def test_no_flipped_byte_makes_another_line(position: int, flip: int, sequence: int, line: bytes):
    """A slot with one byte changed is intact (the byte was padding) or is not there at all."""
    log = bytearray(layout.PROGRESS_BYTES)
    start = layout.slot_of(sequence)
    log[start : start + layout.SLOT_BYTES] = layout.encode_slot(sequence, line)
    assert layout.newest_line(bytes(log)) == line
    log[start + position] ^= flip
    assert layout.newest_line(bytes(log)) in (line, None)


@given(st.binary(max_size=2000))
def test_wild_progress_is_none(log: bytes):
    """Bytes that nobody wrote are no line."""
    assert layout.newest_line(log) is None


def test_a_slot_in_a_strange_place_does_not_count(local: LocalStorage):
    """A line counts only in its own slot: a copy of an older block elsewhere cannot come back as the newest."""
    log = bytearray(layout.PROGRESS_BYTES)
    log[512:1024] = layout.encode_slot(64, b"stray")
    assert layout.newest_line(bytes(log)) is None


# -- litter and leases


def test_a_temporary_file_is_live_as_long_as_its_writer(local: LocalStorage, spy: SpyFiles):
    """While it is being written it is busy and cannot be removed; when the writer is gone it can."""
    writer, cleaner = local.open(spy), local.open()
    seen = []

    def look() -> None:
        litter = cleaner.scan().litter
        seen.append([(item.kind, item.busy) for item in litter])
        assert cleaner.litter.remove(litter) == 0

    spy.before = once("link", look)
    writer.tags.publish(record(), 0)
    assert seen == [[("temporary", True)]]

    write(local, f"tmp/{V1}-record", b"x" * 9000)
    (item,) = cleaner.scan().litter
    assert (item.kind, item.busy) == ("temporary", False)
    lease = OfdLeases().try_acquire(f"{local.path}/locks", int(V1[:15], 16), shared=False)
    assert lease is not None
    assert cleaner.litter.remove([item]) == 0
    lease.release()
    assert cleaner.litter.remove([item]) >= 8192
    assert os.listdir(f"{local.path}/tmp") == []


def test_a_temporary_name_of_a_linked_record_goes_without_it(local: LocalStorage, spy: SpyFiles):
    """A crash between link and unlink leaves two names: the temporary one is removed, frees nothing, and the
    record stays."""
    repository = local.open(spy)
    spy.before = failing("unlink", errno.EIO)
    repository.tags.publish(record(), 0)
    spy.before = lambda verb, name: None
    litter = repository.scan().litter
    assert [item.kind for item in litter] == ["temporary"]
    assert repository.litter.remove(litter) == 0
    assert repository.scan().litter == []
    entry = repository.tags.read(T1)
    assert entry is not None and entry.record == record()


def test_liveness_that_cannot_be_asked_removes_nothing(local: LocalStorage):
    """Without the lock file nobody can tell whether a writer lives: removal is refused."""
    repository = local.open()
    write(local, f"tmp/{V1}-record", b"x")
    os.unlink(f"{local.path}/locks")
    litter = repository.scan().litter
    assert [item.kind for item in litter] == ["temporary"]
    with pytest.raises(Refused, match="locks"):
        repository.litter.remove(litter)


def test_an_attempt_that_begins_during_a_scan_is_no_litter(local: LocalStorage, spy: SpyFiles):
    """Its record was read before it was claimed, its progress listed after: the second look decides."""
    scanner, executor = local.open(spy), local.open()
    executor.tags.publish(record(epoch=1), 0)

    def claim() -> None:
        executor.tags.publish(record(epoch=2, operation=Operation("copy")), 1)
        executor.progress.start(T1, 2)
        executor.volumes.make(raw(V2), SIZE, None)
        executor.digests.write(V2, b"d")

    spy.before = once("list", claim, "progress")
    assert scanner.scan().litter == []


def test_a_slow_storage_is_scanned_by_threads_with_the_same_result(local: LocalStorage):
    """With a clock that says each file is slow the scan goes on in threads, and sees the same."""

    class SlowClock(RealClock):
        now = 0.0

        def monotonic(self) -> float:
            self.now += 3600
            return self.now

    def scan(threads: bool) -> tuple[Scan, int]:
        spy, workers = SpyFiles(local.path), set()
        spy.before = lambda verb, name: workers.add(threading.get_ident())
        doors = real_doors(files=spy)._replace(clock=SlowClock())
        return localfs.open(doors, {"path": local.path}, threads).scan(), len(workers)

    for number in range(300):
        tag = f"{number % 100:02x}{number:030x}"
        write(local, f"tags/{tag[:2]}/{tag}.{1:016x}", encode(record(tag)))
    plain = local.open().scan()
    assert len(plain.tags) == 300
    slow, workers = scan(threads=True)
    alone, one = scan(threads=False)
    assert slow == alone == plain
    assert workers > 1 and one == 1


def test_constraints_of_a_full_disk_promise_nothing(local: LocalStorage, spy: SpyFiles):
    """A probe that fails means no abilities, not no repository; the next call asks again."""
    repository = local.open(spy)
    spy.before = failing("probe", errno.ENOSPC)
    poor = repository.constraints()
    assert not (poor.direct_io or poor.reflink or poor.hole_punching)
    spy.before = lambda verb, name: None
    files = RealFiles()
    assert repository.constraints().direct_io is files.probe(f"{local.path}/tmp/{V1}-probe").direct_io


def _raise(error: OSError) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act
