"""The real lease door: one byte, as long as anybody has its description open."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from engine.tools.local.leases import OfdLeases
from tests.doors.children import Pipe, wait_ended
from tests.doors.conftest import Start

LEASES = OfdLeases()
KEY = (1 << 60) - 1


@pytest.fixture
def path(tmp_path: Path) -> str:
    """An empty lock file."""
    (tmp_path / "locks").touch()
    return str(tmp_path / "locks")


def test_a_lease_is_exclusive_until_released(path: str):
    """Also within one process; the largest key works; asking takes nothing."""
    lease = LEASES.try_acquire(path, KEY, shared=False)
    assert lease is not None
    assert LEASES.held(path, KEY) and LEASES.held(path, KEY)
    assert LEASES.try_acquire(path, KEY, shared=False) is None
    assert LEASES.try_acquire(path, KEY, shared=True) is None
    lease.release()
    lease.release()
    assert not LEASES.held(path, KEY)
    assert os.path.getsize(path) == 0


def test_shared_leases_go_together(path: str):
    """Any number of readers, no writer beside them."""
    readers = [LEASES.try_acquire(path, 7, shared=True) for _ in range(3)]
    assert LEASES.held(path, 7) and LEASES.try_acquire(path, 7, shared=False) is None
    for reader in readers:
        assert reader is not None
        assert LEASES.held(path, 7)
        reader.release()
    assert not LEASES.held(path, 7)


def test_neighbours_do_not_touch(path: str):
    """Exactly one byte is locked."""
    lease = LEASES.try_acquire(path, 100, shared=False)
    assert lease is not None
    assert not LEASES.held(path, 99) and not LEASES.held(path, 101)
    lease.release()


def test_opening_and_closing_the_file_elsewhere_loses_nothing(path: str):
    """Unlike POSIX locks, which any close of the file drops."""
    lease = LEASES.try_acquire(path, 1, shared=False)
    assert lease is not None
    os.close(os.open(path, os.O_RDWR))
    assert LEASES.held(path, 1)
    lease.release()


def test_a_failed_attempt_leaves_no_descriptor(path: str):
    """Trying a held lease again and again costs nothing."""
    lease = LEASES.try_acquire(path, 1, shared=False)
    assert lease is not None
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert LEASES.try_acquire(path, 1, shared=False) is None
        assert LEASES.held(path, 1)
    assert len(os.listdir("/proc/self/fd")) == before
    lease.release()


@pytest.mark.parametrize("make", [None, lambda path: os.symlink("locks", path)])
def test_a_missing_or_linked_lock_file_is_an_error(path: str, make):
    """It is neither made nor followed."""
    other = f"{path}2"
    if make:
        make(other)
    for call in (lambda: LEASES.try_acquire(other, 1, shared=False), lambda: LEASES.held(other, 1)):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == (errno.ELOOP if make else errno.ENOENT)


def test_a_lease_lives_on_in_the_child_of_a_killed_parent(path: str, start: Start, told: Pipe, tmp_path: Path):
    """The parent takes it, hands it to a child and is killed: held as long as the child lives, and no longer."""
    parent = start("parent", path, "9", str(tmp_path / "child-log"))
    child = int(told.line().split()[0])
    try:
        os.kill(parent.pid, signal.SIGKILL)
        wait_ended(parent.pid)
        assert LEASES.held(path, 9)
        assert LEASES.try_acquire(path, 9, shared=True) is None
    finally:
        os.kill(child, signal.SIGKILL)
        wait_ended(child)
    assert not LEASES.held(path, 9)


def test_a_stopped_holder_keeps_its_lease(path: str, start: Start, told: Pipe):
    """Frozen is not dead: nobody takes over until it ends."""
    lease = LEASES.try_acquire(path, 9, shared=False)
    assert lease is not None
    holder = start("adopt", lease.token, leases=(lease,))
    told.line()
    lease.release()
    os.kill(holder.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, holder.pid, os.WSTOPPED | os.WNOWAIT)
    assert LEASES.held(path, 9) and LEASES.try_acquire(path, 9, shared=False) is None
    os.kill(holder.pid, signal.SIGKILL)
    wait_ended(holder.pid)
    assert not LEASES.held(path, 9)


def test_a_lease_that_was_not_handed_over_ends_with_its_process(path: str, start: Start, told: Pipe):
    """A child that was not given the lease does not keep it by accident."""
    lease = LEASES.try_acquire(path, 9, shared=False)
    assert lease is not None
    start("wait")
    told.line()
    lease.release()
    assert not LEASES.held(path, 9)


def test_giving_up_asks_nothing(path: str, monkeypatch: pytest.MonkeyPatch):
    """A server that is away could not answer, and the lease would be kept for as long as this process lives."""
    lease = LEASES.try_acquire(path, KEY, shared=False)
    assert lease is not None

    def away(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", away)
        lease.release()
    assert not LEASES.held(path, KEY)
