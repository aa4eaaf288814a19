"""What ``qemu-img check`` finds in a qcow2 image, and its repairs.

Every reference that the tables make is counted and compared with the recorded counts, as qemu's
``qcow2_check_refcounts`` does it: a count that is too low is a corruption, one that is too high a
leak; so are entries that point nowhere, and copied flags that the counts do not bear out.
"""

from __future__ import annotations

from sim.qemu.qcow2.image import Qcow2
from sim.qemu.qcow2.tables import COMPRESSED, COPIED, OFFSET_MASK, ZERO_FLAG

_L1_RESERVED = 0x7F000000000001FF
_L2_RESERVED = 0x3F000000000001FE


class Findings:
    """The result of one look at an image."""

    def __init__(self, image: Qcow2) -> None:
        self.corruptions: list[str] = []
        self.leaks: list[str] = []
        self.broken_tables: list[int] = []
        """L1 indexes."""
        self.broken_entries: list[tuple[int, int]] = []
        """(L2 table, index)."""
        self.wrong_flags: list[tuple[int, int]] = []
        """(L2 table or 0 for the L1 table, index)."""
        self.wrong_counts: dict[int, int] = {}
        """What the counts of clusters should be."""
        self.allocated = 0
        self.end_offset = 0
        self.references: dict[int, int] = {}
        self._image = image
        self._count_everything()
        self._compare()
        self._check_flags()

    @property
    def detail(self) -> str:
        """The messages, corruptions first, shortened."""
        text = "; ".join(self.corruptions + self.leaks)
        return text if len(text) <= 300 else text[:299] + "…"

    # -- references

    def _count_everything(self) -> None:
        image = self._image
        self._refer(0, image.cluster)
        self._refer(image.l1_offset, image.l1_entries * 8)
        for index, entry in image.tables():
            self._count_table(index, entry)
        self._refer(image.header.refcount_offset, image.table_entries * 8)
        for index, offset in image.blocks():
            self._count_block(index, offset)

    def _refer(self, offset: int, length: int) -> bool:
        image = self._image
        if length and offset + length - image.file.length >= image.cluster:
            self.corruptions.append(
                "ERROR: counting reference for region exceeding the end of the file by one cluster or more: "
                f"offset {offset:#x} size {length:#x}"
            )
            return False
        for index in range(offset // image.cluster, -(-(offset + length) // image.cluster)):
            self.references[index] = self.references.get(index, 0) + 1
        return True

    def _count_table(self, index: int, entry: int) -> None:
        table = entry & OFFSET_MASK
        if not table:
            return
        if entry & _L1_RESERVED:
            self.corruptions.append(f"ERROR found L1 entry with reserved bits set: {entry:x}")
        sound = self._refer(table, self._image.cluster)
        if table % self._image.cluster:
            self.corruptions.append(f"ERROR l2_offset={table:x}: Table is not cluster aligned; L1 entry corrupted")
            sound = False
        if not sound:
            self.broken_tables.append(index)
        else:
            self._count_entries(table)

    def _count_entries(self, table: int) -> None:
        image = self._image
        for number in range(image.per_l2 // image.l2.per_page):
            page = image.l2.page(table + number * image.l2.page_bytes)
            if page.count(0) == len(page):
                continue
            for inner, entry in enumerate(page):
                if entry & ~ZERO_FLAG:
                    self._count_entry(table, number * image.l2.per_page + inner, entry)

    def _count_entry(self, table: int, index: int, entry: int) -> None:
        image = self._image
        if entry & COMPRESSED:
            image.meaning(entry, 0)  # not modelled, and says so
        if entry & _L2_RESERVED and not (entry & OFFSET_MASK) % image.cluster:
            self.corruptions.append(f"ERROR found l2 entry with reserved bits set: {entry:x}")
        host = entry & OFFSET_MASK
        if not host:
            return
        self.allocated += 1
        if host % image.cluster:
            self.corruptions.append(f"ERROR offset={host:x}: Data cluster is not properly aligned; L2 entry corrupted.")
            self.broken_entries.append((table, index))
        if not self._refer(host, image.cluster):
            self.broken_entries.append((table, index))

    def _count_block(self, index: int, offset: int) -> None:
        image = self._image
        if offset % image.cluster:
            self.corruptions.append(
                f"ERROR refcount block {index} is not cluster aligned; refcount table entry corrupted"
            )
        elif offset // image.cluster >= -(-image.file.length // image.cluster):
            self.corruptions.append(f"ERROR refcount block {index} is outside image")
        elif self._refer(offset, image.cluster) and self.references[offset // image.cluster] != 1:
            self.corruptions.append(f"ERROR refcount block {index} refcount={self.references[offset // image.cluster]}")

    # -- counts

    def _compare(self) -> None:
        image = self._image
        recorded = self._recorded()
        highest = max(-(-image.file.length // image.cluster) - 1, max(self.references, default=0))
        last = 0
        for index in sorted(recorded.keys() | self.references.keys()):
            if index > highest:
                break
            last = index
            have, wanted = recorded.get(index, 0), self.references.get(index, 0)
            if have == wanted:
                continue
            self.wrong_counts[index] = wanted
            if have > wanted:
                self.leaks.append(f"Leaked cluster {index} refcount={have} reference={wanted}")
            else:
                self.corruptions.append(f"ERROR cluster {index} refcount={have} reference={wanted}")
        self.end_offset = (last + 1) * image.cluster

    def _recorded(self) -> dict[int, int]:
        image = self._image
        found: dict[int, int] = {}
        end = -(-image.file.length // image.cluster)
        for block_index, block in image.blocks():
            if block % image.cluster or block >= image.file.length:
                continue
            for number in range(image.per_block // image.counts.per_page):
                first = block_index * image.per_block + number * image.counts.per_page
                if first > end:
                    break
                page = image.counts.page(block + number * image.counts.page_bytes)
                if page.count(0) != len(page):
                    found.update((first + inner, count) for inner, count in enumerate(page) if count)
        return found

    def _check_flags(self) -> None:
        image = self._image
        for index, entry in image.tables():
            table = entry & OFFSET_MASK
            if not table:
                continue
            self._check_flag(0, index, entry, table)
            if index in self.broken_tables:
                continue
            for number in range(image.per_l2 // image.l2.per_page):
                page = image.l2.page(table + number * image.l2.page_bytes)
                if page.count(0) == len(page):
                    continue
                for inner, inner_entry in enumerate(page):
                    place = (table, number * image.l2.per_page + inner)
                    if inner_entry & OFFSET_MASK:
                        self._check_flag(*place, inner_entry, inner_entry & OFFSET_MASK)

    def _check_flag(self, table: int, index: int, entry: int, host: int) -> None:
        count = self._image.count_of(host // self._image.cluster)
        if (count == 1) != (entry & COPIED != 0):
            self.wrong_flags.append((table, index))
            kind = "data cluster: l2_entry" if table else f"L2 cluster: l1_index={index} l1_entry"
            self.corruptions.append(f"ERROR OFLAG_COPIED {kind}={entry:x} refcount={count}")


def repair_leaks(image: Qcow2) -> Findings:
    """Lower the counts that are too high and, when nothing else is wrong then, set the copied flags by the
    counts, as qemu does. Returns what is found afterwards; durable."""
    for index, count in Findings(image).wrong_counts.items():
        if image.count_of(index) > count:
            image.set_count(index, count)
    found = Findings(image)
    if len(found.wrong_flags) == len(found.corruptions):
        _correct_flags(image, found)
    return _finish(image)


def repair_all(image: Qcow2) -> Findings:
    """Drop entries that point nowhere, then make counts and flags what the tables say. Returns what is
    found afterwards; durable. Everything that a dropped entry held reads as zeros."""
    found = Findings(image)
    for table, index in found.broken_entries:
        image.l2.set(table, index, ZERO_FLAG if image.header.version >= 3 else 0)
    for index in found.broken_tables:
        image.l1.set(image.l1_offset, index, 0)
    image.l2.write()
    image.l1.flush()
    found = Findings(image)
    for cluster_index, count in found.wrong_counts.items():
        image.set_count(cluster_index, count)
    _correct_flags(image, Findings(image))
    return _finish(image)


def _correct_flags(image: Qcow2, found: Findings) -> None:
    for table, index in found.wrong_flags:
        cache, offset = (image.l2, table) if table else (image.l1, image.l1_offset)
        cache.set(offset, index, cache.get(offset, index) ^ COPIED)
    image.l1.write()


def _finish(image: Qcow2) -> Findings:
    image.flush()
    after = Findings(image)
    if not after.corruptions:
        image.mark_clean()
    return after
