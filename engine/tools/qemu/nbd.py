"""A client of one NBD server over one connected Unix socket: the image door's ``Session``.

Newstyle handshake with NBD_OPT_GO, simple replies. Requests are pipelined: they carry a cookie,
replies come in any order, and the caller's thread reads them when it needs one. No thread of our
own is needed: the server works on what is in flight while the caller computes.

Never a deadlock: at most ``MAX_IN_FLIGHT`` requests are unanswered, fewer than the 16 after which
qemu-nbd stops listening, so it always takes in what we send even while we do not read.

The server may carry out what is in flight in any order; a request that overlaps one still in
flight therefore waits for it, and the caller sees its calls take effect in the order made.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Protocol

from engine.doors.images import Data
from engine.errors import MAKE_ROOM, BadRequest, NoSpace, ReadFailed, StorageError, ToolFailed
from engine.tools.local.lending import PIECE_BYTES, Lender, as_read
from engine.tools.qemu.server import STOP_TIMEOUT_S

READ_DEPTH = 8
"""Reads in flight per stream, of a piece each."""

WRITE_DEPTH = 8
"""Writes in flight per session."""

MAX_IN_FLIGHT = 12

ZERO_BYTES = 1 << 30
"""Largest range zeroed by one request (the protocol's length has 32 bits)."""

_NBD_MAGIC = b"NBDMAGICIHAVEOPT"
_OPTION_MAGIC = 0x49484156454F5054
_OPTION_REPLY_MAGIC = 0x3E889045565A9
_REQUEST_MAGIC = 0x25609513
_REPLY_MAGIC = 0x67446698
_FIXED_NEWSTYLE = 1
_NO_ZEROES = 2
_OPTION_GO = 7
_REPLY_ACK = 1
_REPLY_INFO = 3
_REPLY_ERROR = 1 << 31
_MAX_OPTION_REPLY = 65536
_CAN_FLUSH = 1 << 2
_CAN_WRITE_ZEROES = 1 << 6

_OPTION = struct.Struct(">QII")
_OPTION_REPLY = struct.Struct(">QIII")
_EXPORT = struct.Struct(">HQH")
_REQUEST = struct.Struct(">IHHQQI")
_REPLY = struct.Struct(">IIQ")

_NO_SPACE_CODES = (errno.ENOSPC, errno.EDQUOT)
_UNANSWERED_CODES = (errno.EIO, errno.ETIMEDOUT)  # of a storage that is away, as of one that is damaged
_UNANSWERED_S = 1.0
_ABOUT_THE_SERVER = (errno.ENOMEM, errno.ESHUTDOWN, errno.EPERM)  # and nothing about what was to be read


class Server(Protocol):
    """The process at the other end."""

    def started(self) -> None:
        """Note that the handshake is done. Called once."""

    def words(self) -> str:
        """Return what the server said on its standard error, shortened; wait for its end when it is ending."""

    def stop(self, patience_s: float = STOP_TIMEOUT_S) -> None:
        """End it, by force when it does not end within that time; the socket is closed already. Idempotent, never
        raises."""


class _Kind(IntEnum):
    """NBD commands."""

    READ = 0
    WRITE = 1
    FLUSH = 3
    ZERO = 6


_DOING = {_Kind.READ: "reading", _Kind.WRITE: "writing", _Kind.ZERO: "zeroing", _Kind.FLUSH: "flushing"}


class _Request:
    """A request on its way. ``done`` when its reply came; then ``data`` or ``error``."""

    __slots__ = ("data", "done", "error", "kind", "length", "start", "wanted")

    def __init__(self, kind: _Kind, start: int, length: int) -> None:
        self.kind = kind
        self.start = start
        self.length = length
        self.data: Data = b""
        self.error: StorageError | None = None
        self.done = False
        self.wanted = True


class NbdSession:
    """A ``Session`` on a connected socket. Not for use by two threads at once.

    A failed write, zero or flush is final: every later one raises the same error, so a flush
    never succeeds after something before it was lost. A failed read concerns that read only.
    """

    def __init__(self, connection: socket.socket, server: Server, label: str, later: bool = False) -> None:
        """Shake hands, or ``later``, at the first use; owns ``connection`` and ``server`` from here on, also when it
        raises.

        ``label`` names the image in messages. ToolFailed: the server went away or refused.
        """
        self._connection = connection
        self._server = server
        self._label = label
        self._size = -1  # until the handshake tells
        self._pending: dict[int, _Request] = {}
        self._memory = Lender(READ_DEPTH)
        self._writes_in_flight = 0
        self._next_cookie = 1
        self._write_error: StorageError | None = None
        self._unanswered = False
        self._usable = True
        self._lost_error: ToolFailed | None = None
        self._closed = False
        if not later:
            self._open()

    # -- the door's interface

    @property
    def size(self) -> int:
        """Virtual size in bytes, as the server told it at the start."""
        self._open()
        return self._size

    def stream(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, Data]]:
        """Read in order with ``READ_DEPTH`` requests in flight; each piece has up to
        ``PIECE_BYTES``. May be abandoned at any point: what is still in flight is thrown away."""
        window: deque[_Request] = deque()
        try:
            for start, length in ranges:
                self._check_range(start, length)
                for piece_start, piece_length in _pieces(start, length, PIECE_BYTES):
                    window.append(self._submit(_Kind.READ, piece_start, piece_length))
                    if len(window) >= READ_DEPTH:
                        yield self._take(window.popleft())
            while window:
                yield self._take(window.popleft())
        finally:
            for request in window:
                request.wanted = False
                request.data = b""

    def read(self, start: int, length: int) -> bytes:
        """Read one range into memory."""
        return b"".join([data for _, data in self.stream([(start, length)])])

    def write(self, start: int, data: Data) -> None:
        """Send now, answered later; waits while ``WRITE_DEPTH`` others are unanswered."""
        self._check_range(start, len(data))
        view = memoryview(data)
        for piece_start, length in _pieces(start, len(data), PIECE_BYTES):
            offset = piece_start - start
            self._submit_write(_Kind.WRITE, piece_start, length, view[offset : offset + length])

    def zero(self, start: int, length: int) -> None:
        """Queue zeros as ``write`` queues data; they are written out when the server cannot zero a range by itself."""
        self._check_range(start, length)
        if self._flags & _CAN_WRITE_ZEROES:
            for piece_start, piece_length in _pieces(start, length, ZERO_BYTES):
                self._submit_write(_Kind.ZERO, piece_start, piece_length)
            return
        zeros = memoryview(bytes(min(length, PIECE_BYTES)))
        for piece_start, piece_length in _pieces(start, length, PIECE_BYTES):
            self._submit_write(_Kind.WRITE, piece_start, piece_length, zeros[:piece_length])

    def flush(self) -> None:
        """Wait until all writes are answered and then NBD_CMD_FLUSH is: the server has synced its files."""
        self._open()
        while self._writes_in_flight:
            self._receive()
        if self._write_error:
            raise self._write_error
        if not self._flags & _CAN_FLUSH:
            raise ToolFailed(f"the server of {self._label} cannot flush")
        request = self._submit(_Kind.FLUSH, 0, 0)
        while not request.done:
            self._receive()
        if request.error:
            raise request.error

    def close(self) -> None:
        """Close the socket and end the server."""
        if not self._closed:
            self._closed = True
            self._usable = False
            with contextlib.suppress(OSError):
                self._connection.close()
            # One whose storage does not answer would wait for it once more, to write out what does not count any more.
            self._server.stop(_UNANSWERED_S if self._unanswered else STOP_TIMEOUT_S)

    # -- requests

    def _check_range(self, start: int, length: int) -> None:
        if start < 0 or length < 0 or start + length > self.size:
            raise BadRequest(f"{length} bytes at {start} are not inside {self._label} of {self._size} bytes")

    def _submit_write(self, kind: _Kind, start: int, length: int, payload: memoryview | None = None) -> None:
        while self._writes_in_flight >= WRITE_DEPTH:
            self._receive()
        if self._write_error:
            raise self._write_error
        self._submit(kind, start, length, payload)
        self._writes_in_flight += 1

    def _submit(self, kind: _Kind, start: int, length: int, payload: memoryview | None = None) -> _Request:
        while len(self._pending) >= MAX_IN_FLIGHT or self._overlaps(kind, start, start + length):
            self._receive()
        cookie = self._next_cookie
        self._next_cookie += 1
        request = _Request(kind, start, length)
        parts = [memoryview(_REQUEST.pack(_REQUEST_MAGIC, 0, kind, cookie, start, length))]
        if payload is not None:
            parts.append(payload)
        self._send(parts)
        self._pending[cookie] = request
        return request

    def _overlaps(self, kind: _Kind, start: int, end: int) -> bool:
        reading = kind is _Kind.READ
        return any(
            other.start < end and start < other.start + other.length
            for other in self._pending.values()
            if not (reading and other.kind is _Kind.READ)
        )

    def _take(self, request: _Request) -> tuple[int, Data]:
        while not request.done:
            self._receive()
        if request.error:
            raise request.error
        data, request.data = request.data, b""
        return request.start, data

    # -- the wire

    def _send(self, parts: list[memoryview]) -> None:
        self._require_usable()
        try:
            while parts:
                sent = self._connection.sendmsg(parts)
                while parts and sent >= len(parts[0]):
                    sent -= len(parts.pop(0))
                if sent:
                    parts[0] = parts[0][sent:]
        except OSError as error:
            raise self._lost(os.strerror(error.errno or 0)) from None
        except BaseException:
            self._usable = False  # half a request is out: nothing more can be said on this socket
            raise

    def _receive(self) -> None:
        """Read one reply and hand it to its request."""
        self._require_usable()
        try:
            magic, code, cookie = _REPLY.unpack(self._receive_exactly(_REPLY.size))
            request = self._pending.pop(cookie, None)
            if magic != _REPLY_MAGIC or request is None:
                raise self._lost("it answered something that was not asked")
            if request.kind is _Kind.READ and not code:
                data = self._receive_piece(request.length)
                if request.wanted:
                    request.data = data
        except BaseException:
            self._usable = False
            raise
        request.done = True
        if request.kind in (_Kind.WRITE, _Kind.ZERO):
            self._writes_in_flight -= 1
        if code:
            request.error = self._failure(request, code)
            if request.kind is not _Kind.READ:
                self._write_error = self._write_error or request.error

    def _receive_piece(self, length: int) -> Data:
        view = self._memory.lend()[:length]
        try:
            done = self._connection.recv_into(view, length, socket.MSG_WAITALL)
            while done < length:
                more = self._connection.recv_into(view[done:], length - done, socket.MSG_WAITALL)
                if not more:
                    raise self._lost("it closed the connection")
                done += more
        except OSError as error:
            raise self._lost(os.strerror(error.errno or 0)) from None
        return as_read(view, 0, length)

    def _receive_exactly(self, length: int) -> bytes:
        try:
            data = self._connection.recv(length, socket.MSG_WAITALL)
            while len(data) < length:
                more = self._connection.recv(length - len(data), socket.MSG_WAITALL)
                if not more:
                    raise self._lost("it closed the connection")
                data += more
        except OSError as error:
            raise self._lost(os.strerror(error.errno or 0)) from None
        return data

    def _require_usable(self) -> None:
        if not self._usable:
            raise self._lost_error or ToolFailed(f"the session on {self._label} is over", "Open a new one")

    def _lost(self, reason: str) -> ToolFailed:
        """Give the connection up and return the error that says why, in the server's words if any."""
        self._usable = False
        with contextlib.suppress(OSError):
            self._connection.close()
        words = self._server.words()
        what = f"cannot open {self._label}" if self._size < 0 else f"the server of {self._label} is gone"
        self._lost_error = ToolFailed(f"{what}: {words or reason}")
        return self._lost_error

    def _failure(self, request: _Request, code: int) -> StorageError:
        what = f"{_DOING[request.kind]} {request.length} bytes at {request.start} of {self._label}"
        if request.kind is _Kind.FLUSH:
            what = f"flushing {self._label}"
        reason = f"{os.strerror(code)} [{errno.errorcode.get(code, code)}]"
        self._unanswered = self._unanswered or code in _UNANSWERED_CODES
        if code in _NO_SPACE_CODES:
            return NoSpace(f"{what} failed: {reason}", MAKE_ROOM)
        message, step = f"{what} failed: {reason}", "Check the storage and try again"
        if request.kind is _Kind.READ and code not in _ABOUT_THE_SERVER:
            return ReadFailed(message, step, request.start, request.length, reason)
        return ToolFailed(message, step)

    # -- the handshake

    def _open(self) -> None:
        if self._size >= 0:
            return
        self._require_usable()
        try:
            self._size, self._flags = self._shake_hands()
            self._server.started()
        except BaseException:
            self.close()
            raise

    def _shake_hands(self) -> tuple[int, int]:
        """Return (size, transmission flags) of the default export."""
        greeting = self._receive_exactly(18)
        flags = int.from_bytes(greeting[16:], "big")
        if greeting[:16] != _NBD_MAGIC or not flags & _FIXED_NEWSTYLE:
            raise self._lost("it does not speak fixed newstyle NBD")
        answer = struct.pack(">I", flags & (_FIXED_NEWSTYLE | _NO_ZEROES))
        name_and_infos = struct.pack(">IH", 0, 0)  # the export "" and no information beyond its size
        option = _OPTION.pack(_OPTION_MAGIC, _OPTION_GO, len(name_and_infos))
        self._send([memoryview(answer + option + name_and_infos)])
        export: tuple[int, int] | None = None
        while True:
            kind, body = self._option_reply()
            if kind == _REPLY_INFO and len(body) == _EXPORT.size and body[:2] == b"\0\0":
                _, size, transmission = _EXPORT.unpack(body)
                export = size, transmission
            elif kind == _REPLY_ACK and export is not None:
                return export
            elif kind != _REPLY_INFO:
                text = body.decode("utf-8", "backslashreplace") if kind & _REPLY_ERROR else ""
                raise self._lost(text[:200] or f"it answered the handshake with {kind}")

    def _option_reply(self) -> tuple[int, bytes]:
        magic, option, kind, length = _OPTION_REPLY.unpack(self._receive_exactly(_OPTION_REPLY.size))
        if magic != _OPTION_REPLY_MAGIC or option != _OPTION_GO or length > _MAX_OPTION_REPLY:
            raise self._lost("it broke the handshake")
        return kind, self._receive_exactly(length) if length else b""


def _pieces(start: int, length: int, limit: int) -> Iterator[tuple[int, int]]:
    """Split a range into ranges of up to ``limit`` bytes."""
    end = start + length
    while start < end:
        yield start, min(limit, end - start)
        start += limit
