"""qcow2 images as qemu keeps them, on a file handle: the same bytes, written in the same order.

What is modelled after qemu's ``block/qcow2*.c`` (version 7.2, checked against it by tests):

* Guest data goes to the file at once. L2 entries and reference counts are kept in two caches and
  written back at a flush, or earlier where one must be durable before the other: an L2 entry never
  reaches the file before the count of the cluster it names, a count is never lowered before the
  entry that named the cluster is gone. New tables are written, and synced, before what names them.
* So a file that loses its writer, or any of the writes since the last sync, has leaks at worst.

Any call may raise the ``OSError`` of the file; what it was asked to do may then be done in part, as
with qemu. What is not modelled at all is listed in ``sim.qemu.qcow2.tables``.
"""

from __future__ import annotations

import contextlib
import struct
from array import array
from collections.abc import Iterator
from typing import Protocol

from engine.errors import ToolFailed
from engine.tools.qemu.qcow2 import MAX_L1_BYTES
from sim.qemu.qcow2.cache import Cache
from sim.qemu.qcow2.tables import COPIED, OFFSET_MASK, ZERO_FLAG, Kind, Tables

_SIZE_AT = 24  # places in the header
_L1_AT = 36
_BACKING_FORMAT = 0xE2792ACA


class Below(Protocol):
    """What shows through where an image has nothing."""

    def read(self, start: int, length: int) -> bytes: ...

    def is_zero(self, start: int, length: int) -> bool: ...


class Qcow2(Tables):
    """An open image. One writer or several readers; the caller sees to that."""

    # -- changing content

    def write(self, start: int, data: bytes | memoryview, below: Below) -> None:
        """Write inside the size. Durable after ``flush``."""
        self.alive()
        view = memoryview(data)
        while view:
            table = self._table_for(start)
            length = min(len(view), self._left_in_table(start))
            self._write_in_table(table, start, view[:length], below)
            start, view = start + length, view[length:]

    def _left_in_table(self, start: int) -> int:
        span = self.cluster * self.per_l2
        return span - start % span

    def _write_in_table(self, table: int, start: int, view: memoryview, below: Below) -> None:
        while view:
            entry = self.l2.get(table, start // self.cluster % self.per_l2)
            kind, host = self.meaning(entry, start)
            if kind is Kind.DATA and host is not None and entry & COPIED:
                length = self._in_place_length(table, start, len(view), host)
                self.file.write(host + start % self.cluster, view[:length])
            else:
                length = self._replace_clusters(table, start, view, below)
            start, view = start + length, view[length:]

    def _in_place_length(self, table: int, start: int, length: int, host: int) -> int:
        """Bytes from ``start`` on that lie one after the other in the file and may be written there."""
        index = start // self.cluster % self.per_l2
        have = self.cluster - start % self.cluster
        while have < length:
            index, host = index + 1, host + self.cluster
            if self.l2.get(table, index) != host | COPIED:
                return have
            have += self.cluster
        return length

    def _replace_clusters(self, table: int, start: int, view: memoryview, below: Below) -> int:
        """Write to clusters that hold nothing, zeros, or data shared with others. Returns the bytes done."""
        first = start // self.cluster % self.per_l2
        wanted = -(-(start % self.cluster + len(view)) // self.cluster)
        old = [self.l2.get(table, first)]
        kept = old[0] & OFFSET_MASK if old[0] & COPIED else 0
        if kept:
            hosts = [kept]
        else:
            while len(old) < wanted and self._like(self.l2.get(table, first + len(old)), old[0]):
                old.append(self.l2.get(table, first + len(old)))
            hosts = self._allocate_following(len(old))
            old = old[: len(hosts)]
        length = min(len(view), len(hosts) * self.cluster - start % self.cluster)
        try:
            self._write_around(hosts[0], start, view[:length], old, below, fresh=not kept)
        except OSError:
            if not kept:
                with contextlib.suppress(OSError):
                    self.release(hosts)
            raise
        self.l2.after(self.counts)
        for number, host in enumerate(hosts):
            self.l2.set(table, first + number, host | COPIED)
        if not kept and old[0] & OFFSET_MASK:
            self.release([entry & OFFSET_MASK for entry in old])
        return length

    @staticmethod
    def _like(entry: int, other: int) -> bool:
        return entry == other and not entry & OFFSET_MASK

    def _allocate_following(self, count: int) -> list[int]:
        """Up to ``count`` clusters, one after the other in the file."""
        hosts = [self.allocate()]
        while len(hosts) < count:
            index = self._next_free(hosts[-1] // self.cluster + 1)
            if index * self.cluster != hosts[-1] + self.cluster or not self.block_at(index // self.per_block):
                break
            hosts.append(self.allocate())
        return hosts

    def _write_around(self, host: int, start: int, view: memoryview, old: list[int], below: Below, fresh: bool) -> None:
        """Write ``view`` and what else its clusters show."""
        head = start % self.cluster
        tail = -(head + len(view)) % self.cluster
        if not head and not tail:
            self.file.write(host, view)
            return
        before = self._shown(old[0], start - head, 0, head, below)
        last = start + len(view) - (-tail % self.cluster)
        after = self._shown(old[-1], last, -tail % self.cluster, tail, below)
        if before is None and after is None and fresh and self.file.extend(host, head + len(view) + tail):
            self.file.write(host + head, view)
            return
        parts = (before or bytes(head), view, after or bytes(tail))
        self.file.write(host, b"".join(parts))

    def _shown(self, entry: int, cluster_start: int, inner: int, length: int, below: Below) -> bytes | None:
        """What the image shows at ``inner`` of a cluster; None: zeros."""
        kind, host = self.meaning(entry, cluster_start)
        if not length or kind is Kind.ZERO:
            return None
        if kind is Kind.DATA and host is not None:
            return self.file.read(host + inner, length)
        if below.is_zero(cluster_start + inner, length):
            return None
        return below.read(cluster_start + inner, length)

    def zero(self, start: int, length: int, below: Below, unmap: bool = True) -> None:
        """Make a range inside the size read as zeros; whole clusters give their place back."""
        self.alive()
        end = start + length
        while start < end:
            inner = start % self.cluster
            if inner or (end - start < self.cluster and end != self.size):
                stop = min(end, start - inner + self.cluster)
            else:
                stop = end if end == self.size else end - end % self.cluster
            self._zero_piece(start, stop, below, unmap)
            start = stop

    def _zero_piece(self, start: int, end: int, below: Below, unmap: bool) -> None:
        """A range of whole clusters, up to the end of the image, or inside one cluster."""
        if self.header.version < 3:
            return self.write(start, bytes(end - start), below)
        first = start - start % self.cluster
        last = -(-end // self.cluster) * self.cluster
        if first != start or end not in (last, self.size):
            run = next(self.runs(first, first + 1))
            rest_is_zero = run.kind is Kind.ZERO or (
                run.kind is Kind.ABSENT
                and below.is_zero(first, start - first)
                and below.is_zero(end, min(last, self.size) - end)
            )
            if not rest_is_zero:
                return self.write(start, bytes(end - start), below)
        return self.zeroize(first, last, unmap)

    def zeroize(self, start: int, end: int, unmap: bool) -> None:
        """Set the zero flag on whole clusters."""
        while start < end:
            table = self._table_for(start)
            index = start // self.cluster % self.per_l2
            count = min((end - start) // self.cluster, self.l2.per_page - index % self.l2.per_page)
            freed = self._zero_entries(table, index, count, unmap)
            if freed:
                self.release(freed)
            start += count * self.cluster

    def _zero_entries(self, table: int, index: int, count: int, unmap: bool) -> list[int]:
        number, inner = divmod(index, self.l2.per_page)
        offset = table + number * self.l2.page_bytes
        old = self.l2.page(offset)[inner : inner + count]
        hosts = [entry & OFFSET_MASK for entry in old if entry & OFFSET_MASK]
        if hosts and not unmap:
            new = array("Q", (entry | ZERO_FLAG if entry & OFFSET_MASK else ZERO_FLAG for entry in old))
        else:
            new = array("Q", (ZERO_FLAG,)) * count
        if new != old:
            self.l2.touched(offset)[inner : inner + count] = new
        return hosts if unmap else []

    def flush(self) -> None:
        """Write the caches back and sync: what was written is durable."""
        self.alive()
        self.l2.write()
        self.counts.write()
        self.file.sync()

    # -- changing the shape

    def resize(self, size: int) -> None:
        """Grow to ``size``; nothing below may be longer than the image is now."""
        needed = -(-size // (self.cluster * self.per_l2))
        if needed * 8 > MAX_L1_BYTES:
            raise ToolFailed(f"{self.file.path} cannot have {size} bytes: its L1 table would be too large")
        if needed > self.l1_entries:
            self._grow_l1(needed)
        self.size = size
        self._write_synced(_SIZE_AT, size.to_bytes(8, "big"))

    def _grow_l1(self, entries: int) -> None:
        old_offset, old_bytes = self.l1_offset, self.l1_entries * 8
        clusters = -(-entries * 8 // self.cluster)
        offset = self.allocate(clusters)
        self.counts.flush()
        self.file.fill(offset, self.file.read(old_offset, old_bytes), clusters * self.cluster)
        self.file.sync()
        self._write_synced(_L1_AT, entries.to_bytes(4, "big") + offset.to_bytes(8, "big"))
        self.l1 = Cache(self.file, "Q", self.l1.page_bytes)
        self.l1_offset, self.l1_entries, self._metadata = offset, entries, None
        self.release([old_offset + at for at in range(0, -(-old_bytes // self.cluster) * self.cluster, self.cluster)])

    def rewrite_backing(self, name: bytes, format_name: bytes, synced: bool = True) -> None:
        """Put other backing names (empty: none) into the header, all else kept: one write, then a sync, which a
        machine does without."""
        start = self.file.read(0, self.cluster)
        length = int.from_bytes(start[100:104], "big") if self.header.version >= 3 else 72
        name_offset, name_length = struct.unpack_from(">QI", start, 8)
        extensions = b"".join(
            _extension(magic, data)
            for magic, data in _extensions(start, length, name_offset or self.cluster)
            if magic != _BACKING_FORMAT
        )
        if format_name:
            extensions = _extension(_BACKING_FORMAT, format_name) + extensions
        extensions += _extension(0, b"")
        at = length + len(extensions) if name else 0
        if length + len(extensions) + len(name) > self.cluster:
            raise ToolFailed(f"the header of {self.file.path} has no room for the backing name")
        new = start[:8] + struct.pack(">QI", at, len(name)) + start[20:length] + extensions + name
        whole = -(-max(len(new), name_offset + name_length) // 512) * 512
        self.file.write(0, new + bytes(min(whole, self.cluster) - len(new)))
        if synced:
            self.file.sync()


def _extensions(raw: bytes, offset: int, end: int) -> Iterator[tuple[int, bytes]]:
    """(magic, data) of the header extensions, which ``parse_header`` has found sound."""
    while offset + 8 <= end:
        magic, length = struct.unpack_from(">II", raw, offset)
        if not magic:
            return
        yield magic, raw[offset + 8 : offset + 8 + length]
        offset += 8 + (length + 7 & ~7)


def _extension(magic: int, data: bytes) -> bytes:
    return struct.pack(">II", magic, len(data)) + data + bytes(-len(data) % 8)
