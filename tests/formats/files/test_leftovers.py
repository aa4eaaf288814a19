"""Progress that is torn, litter, and who still works on what lies about."""

from __future__ import annotations

import errno
import itertools
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.records import Operation, encode
from engine.errors import Refused
from engine.formats.base import Scan
from engine.formats.files import layout, localfs
from engine.tools.local import threads
from engine.tools.local.clock import RealClock
from engine.tools.local.files import RealFiles
from engine.tools.local.leases import OfdLeases
from tests.formats.files.kit import write
from tests.formats.kit import (
    SIZE,
    T1,
    V1,
    V2,
    LocalStorage,
    SpyFiles,
    failing,
    once,
    raw,
    real_doors,
    record,
)

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


def test_a_slow_storage_is_scanned_by_threads_with_the_same_result(
    local: LocalStorage, monkeypatch: pytest.MonkeyPatch
):
    """With a clock that says each file is slow, and a kernel that says that the storage is waited for, the scan goes on
    in threads, and sees the same."""
    monkeypatch.setattr(threads, "_waits", itertools.count(step=1000).__next__)

    class SlowClock(RealClock):
        now = 0.0

        def monotonic(self) -> float:
            self.now += 3600
            return self.now

    def scan(in_threads: bool) -> tuple[Scan, int]:
        spy, workers = SpyFiles(local.path), set()
        spy.before = lambda verb, name: workers.add(threading.get_ident())
        doors = real_doors(files=spy)._replace(clock=SlowClock())
        return localfs.open(doors, {"path": local.path}, in_threads).scan(), len(workers)

    for number in range(300):
        tag = f"{number % 100:02x}{number:030x}"
        write(local, f"tags/{tag[:2]}/{tag}.{1:016x}", encode(record(tag)))
    plain = local.open().scan()
    assert len(plain.tags) == 300
    slow, workers = scan(in_threads=True)
    alone, one = scan(in_threads=False)
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


def test_a_generation_that_has_both_names_goes_in_one_round(local: LocalStorage):
    """A loss of power may leave that of the newest beside that of one that was put aside: both are litter once."""
    repository = local.open()
    for expected in range(3):
        repository.tags.publish(record(epoch=expected + 1), expected)
    shard = f"{local.path}/tags/{T1[:2]}"
    for name in (f"{T1}.{1:016x}", f"{T1}.{1:016x}.before"):
        os.link(f"{shard}/{T1}.{2:016x}.before", f"{shard}/{name}")
    litter = repository.scan().litter
    assert [item.kind for item in litter] == ["old-generation"] * 2
    repository.litter.remove(litter)
    assert repository.scan().litter == []
    assert sorted(os.listdir(shard)) == [f"{T1}.{2:016x}.before", f"{T1}.{3:016x}"]
