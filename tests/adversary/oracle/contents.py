"""What an image must contain: numbered blocks that say by themselves which write made them and where they belong.

Here lives the oracle of bytes. It knows nothing of repositories, commands and processes.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = 4096
SECTOR = 512
_STAMP = struct.Struct(">QQ")
_MAGIC = 0xD15C << 48
_ZEROS = bytes(BLOCK)
_TOLD = 4  # runs of wrong blocks that a message lists


def block_bytes(write: int, index: int) -> bytes:
    """Return the 4096 bytes of block `index` as write `write` makes them; write 0 is zeros."""
    return _STAMP.pack(_MAGIC | write, index) * (BLOCK // _STAMP.size) if write else _ZEROS


def extent_bytes(write: int, first: int, count: int) -> bytes:
    """Return the bytes of `count` blocks from block `first` on, as write `write` makes them."""
    return b"".join(block_bytes(write, index) for index in range(first, first + count))


def describe(data: bytes) -> str:
    """Say of what write the bytes at the beginning of `data` are, in words for a report."""
    if not data.strip(b"\0"):
        return "zeros"
    if len(data) >= _STAMP.size:
        write, index = _STAMP.unpack_from(data)
        if write >> 48 == _MAGIC >> 48:
            return f"write {write & ((1 << 48) - 1)} of block {index}"
    return "bytes that no write made"


@dataclass
class Content:
    """The bytes that one moment of an image allows.

    A block that is in `blocks` may hold any of the writes there, each of its sectors for itself (a killed machine tears
    nothing smaller than a sector); any other block is zeros. `older` has what a power cut may bring back.
    """

    size: int
    blocks: dict[int, frozenset[int]] = field(default_factory=dict)
    older: dict[int, frozenset[int]] = field(default_factory=dict)
    torn: bool = False  # written without flushes: a power cut may leave anything

    def copy(self) -> "Content":
        """Return an independent copy."""
        return Content(self.size, dict(self.blocks), dict(self.older), self.torn)

    def allowed(self, index: int) -> frozenset[int]:
        """Return the writes that block `index` may hold."""
        return self.blocks.get(index, frozenset((0,)))

    def write(self, write: int, first: int, count: int, *, certain: bool, durable: bool) -> None:
        """Note a write of `count` blocks: acknowledged (`certain`) or not, flushed (`durable`) or not."""
        for index in range(first, first + count):
            before = self.allowed(index)
            if not durable:
                self.older[index] = self.older.get(index, frozenset()) | before
            elif certain:
                self.older.pop(index, None)
            self.blocks[index] = frozenset((write,)) if certain else before | {write}

    def flush(self) -> None:
        """Note that all of it is durable now."""
        self.older.clear()
        self.torn = False

    def cut(self) -> None:
        """Note a power cut: what was not durable may be back at what it was."""
        for index, before in self.older.items():
            self.blocks[index] = self.allowed(index) | before
        self.older.clear()

    def wrong(self, path: Path) -> str:
        """Compare the raw file at `path` with what is allowed; return "" or what differs, with offsets."""
        actual = path.stat().st_size
        if actual != self.size:
            return f"it has {actual} bytes instead of {self.size}"
        bad = [(index, data) for index, data in _blocks_of(path) if not self._fits(index, data)]
        if not bad:
            return ""
        told = "; ".join(
            f"block {first}" + (f" to {last}" if last > first else "") + f" holds {what}, not {self._wanted(first)}"
            for first, last, what in _runs(bad)[:_TOLD]
        )
        return f"{len(bad)} of {len(list(range(0, self.size, BLOCK)))} blocks differ: {told}"

    def settle(self, path: Path) -> None:
        """Take over which of the allowed writes the file at `path` holds; what was seen does not change by itself."""
        for index, data in _blocks_of(path):
            allowed = self.allowed(index)
            if len(allowed) > 1:
                whole = [write for write in allowed if block_bytes(write, index)[: len(data)] == data]
                self.blocks[index] = frozenset(whole) or allowed

    def _fits(self, index: int, data: bytes) -> bool:
        allowed = self.allowed(index)
        wanted = [block_bytes(write, index)[: len(data)] for write in allowed]
        if data in wanted:
            return True
        if len(allowed) == 1:
            return False
        pieces = range(0, len(data), SECTOR)
        return all(any(data[at : at + SECTOR] == one[at : at + SECTOR] for one in wanted) for at in pieces)

    def _wanted(self, index: int) -> str:
        return " or ".join(f"write {write}" if write else "zeros" for write in sorted(self.allowed(index)))


def judge(candidates: Iterable[Content], path: Path) -> tuple[Content | None, str]:
    """Compare a raw file with each moment that is allowed; return the one that fits, else why the last one does not."""
    why = "nothing is allowed"
    for content in candidates:
        why = content.wrong(path)
        if not why:
            return content, ""
    return None, why


def _blocks_of(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        index = 0
        while data := file.read(BLOCK):
            yield index, data
            index += 1


def _runs(bad: list[tuple[int, bytes]]) -> list[tuple[int, int, str]]:
    runs: list[tuple[int, int, str]] = []
    for index, data in bad:
        what = describe(data).partition(" of block")[0]
        if runs and runs[-1][1] == index - 1 and runs[-1][2] == what:
            runs[-1] = (runs[-1][0], index, what)
        else:
            runs.append((index, index, what))
    return runs
