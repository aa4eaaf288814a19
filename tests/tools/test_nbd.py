"""The NBD session against a scripted server: order, limits, errors and abandoned work."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from engine.errors import BadRequest, NoSpace, ToolFailed
from engine.tools.local.lending import PIECE_BYTES
from engine.tools.qemu.nbd import READ_DEPTH, WRITE_DEPTH, NbdSession
from tests.tools.nbd_server import FLAGS, FLUSH, READ, WRITE, ZERO, ScriptedServer

SIZE = 24 * PIECE_BYTES + 4096


@contextmanager
def session(batches: list[int], hang_up_after: int = -1, **options: Any) -> Iterator[tuple[ScriptedServer, NbdSession]]:
    server = ScriptedServer(SIZE, batches, **options)
    server.hang_up_after = hang_up_after
    opened = NbdSession(server.client, server, "image X")
    try:
        yield server, opened
    finally:
        opened.close()
        assert server.was_stopped


def pattern(server: ScriptedServer) -> bytes:
    for place in range(0, SIZE, PIECE_BYTES):
        server.memory[place : place + 4] = place.to_bytes(4, "big")
    return bytes(server.memory)


def test_the_handshake_tells_the_size_and_then_dismisses_the_guard() -> None:
    """After the handshake the size is known and the server has been told that it is in use."""
    with session([]) as (server, opened):
        assert opened.size == SIZE
        assert server.was_started


def test_replies_out_of_order_are_put_in_order() -> None:
    """Answers that come in reverse reach the caller in the order asked for, in pieces of at most 2 MiB."""
    with session([READ_DEPTH]) as (server, opened):
        content = pattern(server)
        pieces = list(opened.stream([(4096, 9 * PIECE_BYTES), (0, 0), (0, 100), (SIZE - 5, 5)]))
        starts = [4096 + index * PIECE_BYTES for index in range(9)] + [0, SIZE - 5]
        assert [start for start, _ in pieces] == starts
        assert all(data == content[start : start + len(data)] for start, data in pieces)
        assert sum(len(data) for _, data in pieces) == 9 * PIECE_BYTES + 105
        assert max(len(data) for _, data in pieces) == PIECE_BYTES


def test_reads_are_asked_for_ahead() -> None:
    """The first piece is handed out only after the whole window was asked for: a server that waits for it gets it."""
    with session([READ_DEPTH]) as (server, opened):
        start, _ = next(opened.stream([(0, SIZE)]))
        assert start == 0
        assert len(server.asked) == READ_DEPTH


def test_an_abandoned_stream_does_no_harm() -> None:
    """What an abandoned stream still has in flight, closed or just left, is never taken for a later read's data."""
    with session([READ_DEPTH]) as (server, opened):
        content = pattern(server)
        for _ in opened.stream([(0, SIZE)]):
            break
        left = opened.stream([(PIECE_BYTES, SIZE - PIECE_BYTES)])
        next(left)
        assert opened.read(3 * PIECE_BYTES, 100) == content[3 * PIECE_BYTES : 3 * PIECE_BYTES + 100]
        assert next(left) == (2 * PIECE_BYTES, content[2 * PIECE_BYTES : 3 * PIECE_BYTES])


def test_writes_are_queued_up_to_a_bound_and_a_flush_waits_for_all() -> None:
    """Writes do not wait for their answers while fewer than the bound are open; flush is asked for last."""
    with session([WRITE_DEPTH]) as (server, opened):
        for index in range(WRITE_DEPTH):
            opened.write(index * PIECE_BYTES, bytes([index + 1]) * PIECE_BYTES)
        opened.write(WRITE_DEPTH * PIECE_BYTES, b"last")
        opened.flush()
        assert [asked.kind for asked in server.asked] == [WRITE] * (WRITE_DEPTH + 1) + [FLUSH]
        assert server.memory[7 * PIECE_BYTES : 8 * PIECE_BYTES] == b"\x08" * PIECE_BYTES


def test_a_long_write_is_split() -> None:
    """One write of many MiB arrives whole, in requests of at most 2 MiB."""
    data = bytes(range(256)) * (3 * PIECE_BYTES // 256) + b"tail"
    with session([]) as (server, opened):
        opened.write(512, data)
        opened.flush()
        assert server.memory[512 : 512 + len(data)] == data
        assert [asked.length for asked in server.asked if asked.kind == WRITE] == [PIECE_BYTES] * 3 + [4]


def test_overlapping_requests_take_effect_in_order() -> None:
    """A request that overlaps one in flight is sent only after its answer, so the server cannot mix them up; others
    do not wait."""
    with session([]) as (server, opened):
        server.patience_s = 0.05
        opened.write(0, b"a" * 8192)
        opened.zero(4096, 4096)
        opened.write(4096, b"b")
        assert opened.read(4095, 3) == b"ab\0"
        assert not server.impatient
        opened.write(0, b"c")
        opened.write(4096, b"d")
        opened.flush()
        assert server.impatient


def test_a_zero_may_unmap() -> None:
    """Zeroing is one request without the flag that would forbid to make a hole."""
    with session([]) as (server, opened):
        server.memory[:] = b"x" * SIZE
        opened.zero(1, SIZE - 2)
        opened.flush()
        assert [(asked.kind, asked.flags) for asked in server.asked] == [(ZERO, 0), (FLUSH, 0)]
        assert server.memory == b"x" + bytes(SIZE - 2) + b"x"


def test_zeros_are_written_where_the_server_cannot_zero() -> None:
    """Without write-zeroes the range is written with zeros."""
    with session([], flags=FLAGS & ~(1 << 6)) as (server, opened):
        server.memory[:] = b"x" * SIZE
        opened.zero(10, 2 * PIECE_BYTES)
        opened.flush()
        assert [asked.kind for asked in server.asked] == [WRITE, WRITE, FLUSH]
        assert server.memory[9 : 2 * PIECE_BYTES + 11] == b"x" + bytes(2 * PIECE_BYTES) + b"x"


def test_a_failed_read_names_its_range_and_leaves_the_session_usable() -> None:
    """The error says where and why; a later read works."""
    with session([], errors={READ: errno.EIO}) as (_, opened):
        with pytest.raises(ToolFailed, match=r"reading 100 bytes at 4096 of image X.*EIO"):
            opened.read(4096, 100)
        assert opened.read(4096, 100) == bytes(100)


@pytest.mark.parametrize("kind", [WRITE, ZERO, FLUSH])
def test_no_flush_succeeds_after_a_failure(kind: int) -> None:
    """After a write, zero or flush failed, every later flush and write raises that error."""
    with session([], errors={kind: errno.EIO}) as (_, opened):
        opened.write(0, b"data")
        opened.zero(8192, 4096)
        with pytest.raises(ToolFailed, match="EIO") as first:
            opened.flush()
        with pytest.raises(ToolFailed, match="EIO") as second:
            opened.flush()
        assert second.value is first.value
        with pytest.raises(ToolFailed, match="EIO"):
            opened.write(0, b"data")
        assert opened.read(1 << 20, 10) == bytes(10)


def test_a_full_storage_is_told_apart() -> None:
    """ENOSPC from the server is NoSpace."""
    with session([], errors={WRITE: errno.ENOSPC}) as (_, opened):
        opened.write(0, b"data")
        with pytest.raises(NoSpace, match="writing 4 bytes at 0"):
            opened.flush()


def test_a_server_that_ends_is_quoted() -> None:
    """When the connection closes, the error carries what the server said; so does each later one."""
    with session([], hang_up_after=2, last_words="something died") as (_, opened):
        opened.write(0, b"data")
        opened.write(4096, b"data")
        for _ in range(2):
            with pytest.raises(ToolFailed, match="image X is gone: something died"):
                opened.flush()


def test_a_server_that_ends_before_the_handshake_is_quoted_and_stopped() -> None:
    """No session comes of it and nothing is left open."""
    server = ScriptedServer(SIZE, [], last_words="no such image")
    server.connection.shutdown(2)
    with pytest.raises(ToolFailed, match="cannot open image X: no such image"):
        NbdSession(server.client, server, "image X")
    assert server.was_stopped
    assert not server.was_started
    assert server.client.fileno() == -1


@pytest.mark.parametrize(("start", "length"), [(-1, 4), (SIZE - 3, 4), (0, SIZE + 1)])
def test_ranges_outside_of_the_image_are_refused(start: int, length: int) -> None:
    """They are never sent."""
    with session([]) as (server, opened):
        for call in (opened.read, opened.zero):
            with pytest.raises(BadRequest):
                call(start, length)
        with pytest.raises(BadRequest):
            opened.write(start, bytes(length))
        assert not server.asked


def test_a_closed_session_does_nothing_more() -> None:
    """Close may be repeated; afterwards every call says that the session is over."""
    with session([]) as (_, opened):
        opened.close()
        opened.close()
        with pytest.raises(ToolFailed, match="is over"):
            opened.write(0, b"data")
        with pytest.raises(ToolFailed, match="is over"):
            opened.read(0, 4)
