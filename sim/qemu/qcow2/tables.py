"""The tables of a qcow2 image: where guest data lies, which clusters of the file are in use.

Not modelled (ToolFailed): compression, encryption, extended L2 entries, writing to images with
internal snapshots, reference counts of less than 8 bits, growth of the reference count table.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from engine.errors import Damaged, ToolFailed
from engine.tools.qemu.qcow2 import CORRUPT, DIRTY, HEADER_READ_BYTES, Header, parse_header
from sim.qemu.image_file import ImageFile
from sim.qemu.qcow2.cache import Cache

COPIED = 1 << 63
COMPRESSED = 1 << 62
ZERO_FLAG = 1
OFFSET_MASK = 0x00FFFFFFFFFFFE00
PAGE_BYTES = 4096

_COUNT_TYPES = {8: "B", 16: "H", 32: "I", 64: "Q"}
_INCOMPATIBLE_AT = 72  # in the header


class Kind(IntEnum):
    """What a layer says of a range."""

    ABSENT = 0
    """Nothing: the layer below shows."""
    ZERO = 1
    DATA = 2


class Run(NamedTuple):
    """A range of one layer; ``host`` is where it lies in the file, None where no place is kept for it."""

    start: int
    length: int
    kind: Kind
    host: int | None


class Tables:
    """An open image. One writer or several readers; the caller sees to that."""

    def __init__(self, file: ImageFile, writable: bool, repairing: bool = False) -> None:
        """Read the header. ToolFailed: not an image that this model, or qemu, opens like that."""
        self.file = file
        self.writable = writable
        try:
            self.header = parse_header(file.read_up_to(0, HEADER_READ_BYTES), file.length)
        except Damaged as error:
            raise ToolFailed(f"cannot open {file.path}: {error.message}") from None
        self._require_known(self.header, repairing)
        self.size = self.header.size
        self.cluster = 1 << self.header.cluster_bits
        page = min(PAGE_BYTES, self.cluster)
        self.l1_offset, self.l1_entries = self.header.l1_offset, self.header.l1_entries
        self.table_entries = self.header.refcount_clusters * self.cluster // 8
        self.per_l2 = self.cluster // 8
        self.per_block = self.cluster * 8 // self.header.refcount_bits
        self.l1 = Cache(file, "Q", page)
        self.l2 = Cache(file, "Q", page)
        self.table = Cache(file, "Q", page)
        self.counts = Cache(file, _COUNT_TYPES.get(self.header.refcount_bits, "H"), page)
        self._free_from = 0
        self._metadata: set[int] | None = None
        self._dead: ToolFailed | None = None

    def _require_known(self, header: Header, repairing: bool) -> None:
        reasons = {
            "wants an external data file": header.has_data_file,
            "has features that are unknown here": bool(header.unknown_incompatible),
            "has extended L2 entries": header.extended_l2,
            "is compressed": header.compression,
            "is encrypted": header.encrypted,
            "has internal snapshots": header.internal_snapshots > 0 and self.writable,
            "is marked corrupt": header.corrupt and self.writable and not repairing,
            "has small reference counts": self.writable and header.refcount_bits not in _COUNT_TYPES,
        }
        for reason, applies in reasons.items():
            if applies:
                raise ToolFailed(f"cannot open {self.file.path}: the image {reason}")

    # -- looking

    def runs(self, start: int, end: int) -> Iterator[Run]:
        """What the image says of a range inside its size: gapless, in order; neighbours may be of one kind."""
        span = self.cluster * self.per_l2
        while start < end:
            index = start // span
            table = self.table_at(index)
            if not table:
                stop = min(end, self._past_absent(index) * span)
                yield Run(start, stop - start, Kind.ABSENT, None)
            else:
                stop = min(end, (index + 1) * span)
                yield from self._runs_of_table(table, start, stop)
            start = stop

    def _past_absent(self, index: int) -> int:
        """The first L1 index from ``index`` on that may be in use; skips pages of nothing."""
        while index < self.l1_entries:
            page = self.l1.page(self.l1_offset + index // self.l1.per_page * self.l1.page_bytes)
            inner = index % self.l1.per_page
            if inner == 0 and page.count(0) == len(page):
                index += self.l1.per_page
                continue
            while inner < len(page) and not page[inner]:
                inner, index = inner + 1, index + 1
            if inner < len(page):
                break
        return index

    def _runs_of_table(self, table: int, start: int, end: int) -> Iterator[Run]:
        while start < end:
            number = start // self.cluster % self.per_l2
            page_number, inner = divmod(number, self.l2.per_page)
            page = self.l2.page(table + page_number * self.l2.page_bytes)
            stop = min(end, (start // self.cluster - inner + self.l2.per_page) * self.cluster)
            if page.count(0) == len(page):
                yield Run(start, stop - start, Kind.ABSENT, None)
                start = stop
            while start < stop:
                run = self._run_at(page, inner, start, stop)
                yield run
                start += run.length
                inner = start // self.cluster % self.l2.per_page

    def _run_at(self, page: array[int], inner: int, start: int, stop: int) -> Run:
        """The run that starts at ``start``, as far as one look at the entries after it tells."""
        kind, host = self.meaning(page[inner], start)
        step = 0 if host is None else self.cluster
        end = (start // self.cluster + 1) * self.cluster
        entry = page[inner]
        while end < stop and inner + 1 < len(page) and page[inner + 1] == entry + step:
            inner, entry, end = inner + 1, entry + step, end + self.cluster
        return Run(start, min(end, stop) - start, kind, None if host is None else host + start % self.cluster)

    def meaning(self, entry: int, start: int) -> tuple[Kind, int | None]:
        """(kind, offset in the file) of an L2 entry for guest offset ``start``."""
        if entry & COMPRESSED:
            raise ToolFailed(f"reading at {start} of {self.file.path}: compressed clusters are not modelled")
        host = entry & OFFSET_MASK
        if host % self.cluster:
            raise self.corrupted(f"cluster offset {host:#x} for {start:#x} is unaligned")
        if entry & ZERO_FLAG and self.header.version >= 3:
            return Kind.ZERO, host or None
        return (Kind.DATA, host) if host else (Kind.ABSENT, None)

    def table_at(self, l1_index: int) -> int:
        """Offset of an L2 table, 0 when there is none."""
        if l1_index >= self.l1_entries:
            return 0
        offset = self.l1.get(self.l1_offset, l1_index) & OFFSET_MASK
        if offset % self.cluster:
            raise self.corrupted(f"L2 table offset {offset:#x} unaligned (L1 index {l1_index})")
        return offset

    def corrupted(self, what: str) -> ToolFailed:
        """The error for damage met on the way; a writer marks the image and does nothing more."""
        error = ToolFailed(f"{self.file.path} is damaged: {what}", "Check the image")
        if self.writable and self._dead is None:
            self._dead = error
            self.mark(self._incompatible() | CORRUPT)
        return error

    def alive(self) -> None:
        """Raise when damage ended this open."""
        if self._dead is not None:
            raise self._dead

    # -- marks

    def _incompatible(self) -> int:
        return int.from_bytes(self.file.read(_INCOMPATIBLE_AT, 8), "big")

    def mark(self, incompatible: int) -> None:
        """Set the incompatible feature bits; durable."""
        self._write_synced(_INCOMPATIBLE_AT, incompatible.to_bytes(8, "big"))

    def mark_clean(self) -> None:
        """Take the dirty and corrupt bits away; durable."""
        if self.header.dirty or self.header.corrupt:
            self.mark(self._incompatible() & ~(DIRTY | CORRUPT))

    def _write_synced(self, offset: int, data: bytes) -> None:
        self.file.write(offset, data)
        self.file.sync()

    # -- tables and clusters

    def _table_for(self, start: int) -> int:
        """The L2 table for a guest offset, made when there is none."""
        index = start // (self.cluster * self.per_l2)
        table = self.table_at(index)
        if table:
            if not self.l1.get(self.l1_offset, index) & COPIED:
                raise ToolFailed(f"writing at {start} of {self.file.path}: shared L2 tables are not modelled")
            return table
        table = self.allocate()
        self.counts.flush()
        self.file.fill(table, b"", self.cluster)
        self.l2.blank(table, self.cluster)
        self.l2.flush()
        self._write_synced(self.l1_offset + index * 8, (table | COPIED).to_bytes(8, "big"))
        self.l1.set(self.l1_offset, index, table | COPIED, dirty=False)
        self._metadata_clusters().add(table)
        return table

    def count_of(self, cluster_index: int) -> int:
        """The recorded reference count of a cluster of the file."""
        block_index, inner = divmod(cluster_index, self.per_block)
        block = self.block_at(block_index)
        return self.counts.get(block, inner) if block else 0

    def block_at(self, index: int) -> int:
        """Offset of a reference count block, 0 when there is none."""
        if index >= self.table_entries:
            return 0
        return self.table.get(self.header.refcount_offset, index) & ~511

    def set_count(self, cluster_index: int, count: int) -> None:
        """Record a count; the block must exist."""
        block_index, inner = divmod(cluster_index, self.per_block)
        block = self.block_at(block_index)
        if not block:
            raise ToolFailed(f"{self.file.path}: rebuilding reference count blocks is not modelled")
        self.counts.set(block, inner, count)

    def allocate(self, count: int = 1) -> int:
        """The offset of ``count`` free clusters in a row, now counted."""
        while True:
            first = self._next_free(self._free_from)
            if count == 1:
                self._free_from = first
            while any(self.count_of(first + more) for more in range(1, count)):
                first = self._next_free(first + 1)
            missing = [
                index
                for index in {first // self.per_block, (first + count - 1) // self.per_block}
                if not self.block_at(index)
            ]
            if not missing:
                break
            self._make_block(min(missing), first)
        self._forbid_metadata(first, count)
        for index in range(first, first + count):
            self.set_count(index, 1)
        self._free_from = first + count if count == 1 else self._free_from
        return first * self.cluster

    def _next_free(self, index: int) -> int:
        """The first cluster from ``index`` on that has no reference."""
        while True:
            block = self.block_at(index // self.per_block)
            if not block:
                return index
            inner = index % self.per_block
            page_number, at = divmod(inner, self.counts.per_page)
            page = self.counts.page(block + page_number * self.counts.page_bytes)
            if not page[at]:
                return index
            try:
                return index - at + page.index(0, at)
            except ValueError:
                index += self.counts.per_page - at

    def _make_block(self, block_index: int, free: int) -> None:
        """A new block of reference counts, put where ``free`` says; durable before the table names it."""
        if block_index >= self.table_entries:
            raise ToolFailed(f"{self.file.path}: growing the reference count table is not modelled")
        self._forbid_metadata(free, 1)
        itself = free // self.per_block == block_index
        if not itself:
            self.set_count(free, 1)
            self.counts.flush()
        offset = free * self.cluster
        self.file.fill(offset, b"", self.cluster)
        self.counts.blank(offset, self.cluster)
        if itself:
            self.counts.set(offset, free % self.per_block, 1)
        self.counts.flush()
        self._write_synced(self.header.refcount_offset + block_index * 8, offset.to_bytes(8, "big"))
        self.table.set(self.header.refcount_offset, block_index, offset, dirty=False)
        self._metadata_clusters().add(offset)

    def release(self, hosts: list[int]) -> None:
        """Drop one reference to each cluster, after the entries that named them."""
        self.counts.after(self.l2)
        for host in hosts:
            index = host // self.cluster
            count = self.count_of(index)
            if not count:
                raise self.corrupted(f"cluster {host:#x} is freed and has no reference")
            self.set_count(index, count - 1)
            if count == 1:
                self._free_from = min(self._free_from, index)
                with contextlib.suppress(OSError):  # only room is lost
                    self.file.punch(host, self.cluster)

    def _forbid_metadata(self, first: int, count: int) -> None:
        known = self._metadata_clusters()
        for index in range(first, first + count):
            if index * self.cluster in known:
                raise self.corrupted(f"cluster {index * self.cluster:#x} is in use and has no reference")

    def _metadata_clusters(self) -> set[int]:
        """Offsets of everything that is not guest data."""
        if self._metadata is None:
            found = {0, *self._span(self.l1_offset, self.l1_entries * 8)}
            found.update(self._span(self.header.refcount_offset, self.table_entries * 8))
            found.update(block for _, block in self.blocks())
            found.update(entry & OFFSET_MASK for _, entry in self.tables())
            self._metadata = found
        return self._metadata

    def _span(self, offset: int, length: int) -> range:
        return range(offset, offset + length, self.cluster)

    def blocks(self) -> Iterator[tuple[int, int]]:
        """(index, offset) of the reference count blocks."""
        yield from self._entries(self.table, self.header.refcount_offset, self.table_entries)

    def tables(self) -> Iterator[tuple[int, int]]:
        """(index, entry) of the L1 entries in use."""
        yield from self._entries(self.l1, self.l1_offset, self.l1_entries)

    @staticmethod
    def _entries(cache: Cache, offset: int, count: int) -> Iterator[tuple[int, int]]:
        for first in range(0, count, cache.per_page):
            page = cache.page(offset + first * 8)
            if page.count(0) == len(page):
                continue
            for inner in range(min(cache.per_page, count - first)):
                if page[inner]:
                    yield first + inner, page[inner]
