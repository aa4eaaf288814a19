"""The content digest of an image: what its readers see, whatever represents it.

Content is cut into chunks of 2 MiB and those into blocks of 64 KiB. The digest of a chunk is
SHA-256 over a 4-byte map of its non-zero blocks followed by those blocks, so holes cost
nothing and a block of written zeros counts as a hole; the last block counts as filled up with
zeros. The root is SHA-256 over the size, rounded up to the alignment, and all chunk digests.
SHA-256 was faster than BLAKE2b here because processors have instructions for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

BLOCK_BYTES = 64 * 1024
CHUNK_BYTES = 2 * 1024 * 1024
DIGEST_BYTES = 32

_ZERO_BLOCK = bytes(BLOCK_BYTES)
_ZERO_BYTES = bytes(CHUNK_BYTES)

ZERO_CHUNK = sha256(bytes(4)).digest()
"""Digest of a chunk that reads as zeros, whatever its length."""


def is_zero_block(data: bytes | memoryview, start: int, length: int) -> bool:
    """Tell whether ``length`` bytes (at most a block) at ``start`` are all zero."""
    if length == BLOCK_BYTES and (
        data[start] or data[start + 511] or data[start + 4096] or data[start + 32768] or data[start + 65535]
    ):
        return False  # a few bytes decide for nearly all blocks of data
    return bytes(data[start : start + length]) == _ZERO_BLOCK[:length]


def data_runs(data: bytes | memoryview, zero_too: bool = False) -> list[tuple[int, int, bool]]:
    """Return runs of blocks as (start, length, is_data); runs of zeros only when ``zero_too``."""
    # Not of a view: comparing one goes byte by byte.
    if isinstance(data, bytes) and data and not data[0] and data == _ZERO_BYTES[: len(data)]:
        return [(0, len(data), False)] if zero_too else []
    runs: list[tuple[int, int, bool]] = []
    for start in range(0, len(data), BLOCK_BYTES):
        length = min(BLOCK_BYTES, len(data) - start)
        is_data = not is_zero_block(data, start, length)
        if runs and runs[-1][2] == is_data:
            last = runs[-1]
            runs[-1] = (last[0], last[1] + length, is_data)
        else:
            runs.append((start, length, is_data))
    return runs if zero_too else [run for run in runs if run[2]]


def chunk_digest(pieces: Sequence[tuple[int, bytes | memoryview]]) -> bytes:
    """Return the digest of one chunk from ``(start in the chunk, data)`` pieces in order. Pieces start at block
    boundaries; what they do not cover is zeros."""
    present = 0
    parts: list[memoryview] = []
    for offset, data in pieces:
        view = memoryview(data)
        for start, length, _ in data_runs(data):
            first = (offset + start) // BLOCK_BYTES
            count = -(-length // BLOCK_BYTES)
            present |= ((1 << count) - 1) << first
            parts.append(view[start : start + length])
    state = sha256(present.to_bytes(4, "little"))
    for part in parts:
        state.update(part)
        state.update(_ZERO_BLOCK[: -len(part) % BLOCK_BYTES])  # an image ends where its representation says
    return state.digest()


def chunk_count(size: int) -> int:
    """Return the number of chunks of an image of ``size`` bytes."""
    return -(-size // CHUNK_BYTES)


def root_digest(size: int, chunks: bytes) -> str:
    """Return the root over the concatenated chunk digests."""
    assert len(chunks) == chunk_count(size) * DIGEST_BYTES
    return sha256(b"diskwright content digest 1\n%d\n" % size + chunks).hexdigest()


class DigestList:
    """Chunk digests of an image while they become known; chunks never set are zeros."""

    def __init__(self, size: int, known: bytes = b"") -> None:
        self.size = size
        self._chunks = bytearray(ZERO_CHUNK * chunk_count(size))
        self._chunks[: len(known)] = known[: len(self._chunks)]

    def set(self, index: int, digest: bytes) -> None:
        """Record the digest of chunk ``index``."""
        self._chunks[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES] = digest

    def get(self, index: int) -> bytes:
        """Return the digest of chunk ``index``."""
        return bytes(self._chunks[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES])

    def upto(self, cursor: int) -> bytes:
        """Return the digests of all chunks below ``cursor``, as they are stored."""
        if cursor >= self.size:
            return bytes(self._chunks)
        return bytes(self._chunks[: cursor // CHUNK_BYTES * DIGEST_BYTES])

    def root(self) -> str:
        """Return the root digest."""
        return root_digest(self.size, bytes(self._chunks))

    def to_bytes(self) -> bytes:
        """Return all chunk digests, as they are stored."""
        return bytes(self._chunks)


def proven(stored: bytes | None, size: int, root: str) -> DigestList | None:
    """Return ``stored`` as a list if it belongs to ``root``, else None (it is hostile until proven)."""
    if stored is None or not root or len(stored) != chunk_count(size) * DIGEST_BYTES:
        return None
    return DigestList(size, stored) if root_digest(size, stored) == root else None
