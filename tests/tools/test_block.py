"""Direct I/O on real block devices: loop devices over files of this machine."""

from __future__ import annotations

import errno
import fcntl
import os
import random

import pytest

from engine.doors.volume_groups import BLOCK_BYTES
from engine.tools.block import device as block
from engine.tools.block.device import DirectBlockHandle, flush_device, is_block_device

MiB = 1 << 20


def content(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length)


@pytest.mark.parametrize("sector", [512, 4096])
def test_what_is_written_is_read_back_and_reaches_the_file(loop_device, sector):
    """Direct writes go where they are told to and nowhere else, with sectors of both sizes."""
    device, path = loop_device(4 * MiB, sector)
    data = content(1, 3 * BLOCK_BYTES)
    with DirectBlockHandle(device, writable=True) as handle:
        handle.write_at(2 * BLOCK_BYTES, data)
        handle.sync()
        assert handle.read_at(2 * BLOCK_BYTES, len(data)) == data
        assert handle.read_at(0, 2 * BLOCK_BYTES) == bytes(2 * BLOCK_BYTES)
        assert handle.read_at(5 * BLOCK_BYTES, BLOCK_BYTES) == bytes(BLOCK_BYTES)
    with open(path, "rb") as file:
        assert file.read(5 * BLOCK_BYTES) == bytes(2 * BLOCK_BYTES) + data


def test_more_than_one_system_call_takes_keeps_its_order(loop_device, monkeypatch):
    """A long range is moved in pieces that join without a seam."""
    monkeypatch.setattr(block, "PIECE_BYTES", 2 * BLOCK_BYTES)
    device, _ = loop_device(4 * MiB)
    data = content(2, 7 * BLOCK_BYTES)
    with DirectBlockHandle(device, writable=True) as handle:
        handle.write_at(BLOCK_BYTES, data)
        assert handle.read_at(BLOCK_BYTES, len(data)) == data


def test_a_short_read_or_write_is_continued(loop_device, monkeypatch):
    """The kernel may move less than asked for; what comes out is whole all the same."""
    device, _ = loop_device(4 * MiB)
    data = content(3, 5 * BLOCK_BYTES)
    read, write = os.preadv, os.pwritev
    monkeypatch.setattr(os, "preadv", lambda fd, parts, offset: read(fd, [parts[0][:BLOCK_BYTES]], offset))
    monkeypatch.setattr(os, "pwritev", lambda fd, parts, offset: write(fd, [parts[0][:BLOCK_BYTES]], offset))
    with DirectBlockHandle(device, writable=True) as handle:
        handle.write_at(0, data)
        assert handle.read_at(0, len(data)) == data


def test_a_device_that_moves_nothing_is_an_error(loop_device, monkeypatch):
    """No endless loop when the kernel returns 0."""
    device, _ = loop_device(4 * MiB)
    monkeypatch.setattr(os, "preadv", lambda fd, parts, offset: 0)
    monkeypatch.setattr(os, "pwritev", lambda fd, parts, offset: 0)
    with DirectBlockHandle(device, writable=True) as handle:
        for move in (lambda: handle.read_at(0, BLOCK_BYTES), lambda: handle.write_at(0, bytes(BLOCK_BYTES))):
            with pytest.raises(OSError, match="0 of 4096") as raised:
                move()
            assert (raised.value.errno, raised.value.filename) == (errno.EIO, device)


@pytest.mark.parametrize("sector", [512, 4096])
def test_zeroed_ranges_read_as_zeros_and_their_neighbours_stay(loop_device, sector, monkeypatch):
    """Zeroing covers its range exactly, over as many commands as it takes."""
    monkeypatch.setattr(block, "ZERO_PIECE_BYTES", MiB)
    device, _ = loop_device(8 * MiB, sector)
    data = content(4, 8 * MiB)
    with DirectBlockHandle(device, writable=True) as handle:
        handle.write_at(0, data)
        handle.zero(BLOCK_BYTES, 3 * MiB)
        expected = data[:BLOCK_BYTES] + bytes(3 * MiB) + data[BLOCK_BYTES + 3 * MiB :]
        assert handle.read_at(0, 8 * MiB) == expected


def test_zeroing_is_taken_up_again_after_an_interruption(loop_device, monkeypatch):
    """EINTR is no failure."""
    device, _ = loop_device(4 * MiB)
    real, calls = fcntl.ioctl, []

    def interrupted(descriptor, request, argument):
        if request == 0x127F:
            calls.append(argument)
            if len(calls) == 1:
                raise InterruptedError(errno.EINTR, "Interrupted system call")
        return real(descriptor, request, argument)

    monkeypatch.setattr(fcntl, "ioctl", interrupted)
    with DirectBlockHandle(device, writable=True) as handle:
        handle.write_at(0, content(5, MiB))
        handle.zero(0, MiB)
        assert handle.read_at(0, MiB) == bytes(MiB)
    assert len(calls) == 2


def test_ranges_beyond_the_end_are_refused_before_anything_moves(loop_device):
    """An offset from a hostile table is an error of the storage, not of the program, and changes nothing."""
    device, path = loop_device(4 * MiB)
    with DirectBlockHandle(device, writable=True) as handle:
        assert handle.size == 4 * MiB
        for move in (
            lambda: handle.read_at(4 * MiB, BLOCK_BYTES),
            lambda: handle.write_at(4 * MiB - BLOCK_BYTES, b"x" * 2 * BLOCK_BYTES),
            lambda: handle.zero(1 << 62, BLOCK_BYTES),
        ):
            with pytest.raises(OSError, match="do not lie in a device of 4194304"):
                move()
    with open(path, "rb") as file:
        assert file.read() == bytes(4 * MiB)


def test_misaligned_ranges_are_mistakes(loop_device):
    """They would work on some devices and fail on others."""
    device, _ = loop_device(4 * MiB)
    with DirectBlockHandle(device, writable=True) as handle:
        for offset, length in ((512, BLOCK_BYTES), (0, 512), (0, -BLOCK_BYTES)):
            with pytest.raises(AssertionError):
                handle.read_at(offset, length)
        with pytest.raises(AssertionError):
            handle.write_at(0, b"x")


def test_a_read_only_handle_cannot_change_the_device(loop_device):
    """Neither writing nor zeroing gets through."""
    device, _ = loop_device(4 * MiB)
    with DirectBlockHandle(device) as handle:
        for move in (lambda: handle.write_at(0, bytes(BLOCK_BYTES)), lambda: handle.zero(0, BLOCK_BYTES)):
            with pytest.raises(OSError):
                move()


def test_what_is_no_block_device_is_refused(tmp_path):
    """A file under the name of a device (a leftover in /dev) is neither opened nor flushed; no FIFO is waited for."""
    file, fifo = tmp_path / "file", tmp_path / "fifo"
    file.write_bytes(bytes(BLOCK_BYTES))
    os.mkfifo(fifo)
    for path in (file, fifo, tmp_path):
        with pytest.raises(OSError):
            DirectBlockHandle(str(path))
        with pytest.raises(OSError):
            flush_device(str(path))
        assert not is_block_device(str(path))
    assert not is_block_device(str(tmp_path / "nothing"))


def test_flush_and_close(loop_device):
    """A device is flushed by name; closing twice is harmless."""
    device, _ = loop_device(4 * MiB)
    flush_device(device)
    assert is_block_device(device)
    handle = DirectBlockHandle(device)
    handle.close()
    handle.close()
    with pytest.raises(OSError):
        handle.read_at(0, BLOCK_BYTES)
