"""Memory for data on its way: aligned, as direct I/O needs it, and used again, because fresh memory costs more than
what is done with it."""

from __future__ import annotations

import ctypes
import mmap
import weakref
from queue import Empty, SimpleQueue

PIECE_BYTES = 2 << 20
"""The most that a session reads or writes in one piece."""

_LENT_BYTES = PIECE_BYTES + 2 * mmap.PAGESIZE
_SMALL_BYTES = 256 << 10
_ZEROS = bytes(PIECE_BYTES)

_COMPARE = ctypes.CDLL(None).memcmp
_COMPARE.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_Lent = ctypes.c_ubyte * _LENT_BYTES


class Lender:
    """Lends buffers for a piece, and a little more where it does not begin at a page. One comes back by itself when
    nobody refers to a view of it any more, in whichever thread that happens; how many are lent is not limited."""

    def __init__(self, keeps: int) -> None:
        """Keep up to ``keeps`` buffers that came back."""
        self._keeps = keeps
        self._free: SimpleQueue[mmap.mmap] = SimpleQueue()  # may be used by what runs when an object ends

    def lend(self) -> memoryview:
        """Lend a buffer, its bytes as they were left. A view of a part of it keeps all of it."""
        try:
            memory = self._free.get_nowait()
        except Empty:
            memory = mmap.mmap(-1, _LENT_BYTES)
        whole = _Lent.from_buffer(memory)
        weakref.finalize(whole, self._back, memory).atexit = False
        return memoryview(whole).cast("B")

    def _back(self, memory: mmap.mmap) -> None:
        if self._free.qsize() < self._keeps:
            self._free.put(memory)


def is_lent(data: bytes | memoryview, alignment: int) -> bool:
    """Tell whether ``data`` is in a lent buffer, so nobody changes it as long as anybody refers to it, and aligned
    there."""
    if not isinstance(data, memoryview) or not isinstance(data.obj, _Lent):
        return False
    return not _address(data) % alignment


def as_read(view: memoryview, first: int, length: int) -> bytes | memoryview:
    """Return the part that was asked for of what was read into a lent buffer: without a copy, but of a few bytes,
    which would keep much memory. Zeros of a whole piece are always the same object, which compares equal to itself
    at once."""
    if not view[0] and _is_zero(view):
        return _ZEROS[:length]
    asked = view[first : first + length]
    return bytes(asked) if length <= _SMALL_BYTES else asked


def _is_zero(view: memoryview) -> bool:
    """Tell whether all bytes are zero, without the interpreter's lock."""
    at = _address(view)
    return not _COMPARE(at, at + 1, len(view) - 1)


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))
