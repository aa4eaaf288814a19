"""Where the last cluster in use of a qcow2 volume ends, told by its reference counts. No effects."""

from __future__ import annotations

from collections.abc import Callable

from engine.tools.qemu.qcow2 import Header

_COUNT_BITS = 16
_MAX_TABLE_BYTES = 8 << 20
_READ_BYTES = 4096
"""What a device is read in: so much of the table costs no more than the part that the volume needs."""
_OFFSET = 0x00FFFFFFFFFFFE00


def end_of_data(read: Callable[[int, int], bytes], header: Header, length: int) -> int | None:
    """Return the bytes from the start of a volume of ``length`` bytes after which nothing is in use, None when that
    cannot be told: counts of another width. More than ``length``: the volume was made shorter than what is in it, which
    shows then. ``read`` takes (offset, length)."""
    if header.refcount_bits != _COUNT_BITS:
        return None
    cluster = 1 << header.cluster_bits
    counts = cluster * 8 // _COUNT_BITS
    blocks = -(-length // (cluster * counts))
    wanted = max(blocks * 8, _READ_BYTES)
    table_bytes = min(header.refcount_clusters << header.cluster_bits, wanted, _MAX_TABLE_BYTES)
    table = read(header.refcount_offset, table_bytes)
    for index in range(len(table) // 8 - 1, -1, -1):
        offset = int.from_bytes(table[index * 8 : index * 8 + 8], "big") & _OFFSET
        if not offset:
            continue
        if offset + cluster > length:
            return offset + cluster
        used = len(read(offset, cluster).rstrip(b"\0"))
        if used:
            return (index * counts + -(-used // 2)) * cluster
    return None
