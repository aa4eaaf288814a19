"""qcow2 headers as plain data: read a hostile one, make a fresh one. No effects.

Only what decides about an image is read: sizes, names, flags and the places of the two tables
without which nothing can be found. The limits are qemu's own, so what passes here is what
qemu-img opens and what raises ``Damaged`` is what it refuses. Integers are big endian; layout
after qemu's ``docs/interop/qcow2.txt``.
"""

from __future__ import annotations

import functools
import struct
from typing import NamedTuple

from engine.errors import BadRequest, Damaged

HEADER_READ_BYTES = 65536
"""How much of a file's start ``parse_header`` wants to see."""

MAX_L1_BYTES = 32 << 20
"""qemu opens no image with a larger first-level table."""

CLUSTER_BYTES = 65536
"""Cluster size of the images made here."""

MAX_FRESH_SIZE = MAX_L1_BYTES // 8 * (CLUSTER_BYTES // 8) * CLUSTER_BYTES
"""Largest virtual size a fresh image can have (2 PiB)."""

MAX_BACKING_NAME_BYTES = 1023
"""qemu's limit."""

DIRTY = 1 << 0
CORRUPT = 1 << 1
DATA_FILE = 1 << 2
COMPRESSION = 1 << 3
EXTENDED_L2 = 1 << 4
_KNOWN_INCOMPATIBLE = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2
_BITMAPS = 1 << 0  # autoclear

_MAGIC = 0x514649FB
_END = 1 << 63
"""qemu has no offset that is this large, and neither has the kernel."""
_MAX_REFCOUNT_TABLE_BYTES = 8 << 20
_MAX_SNAPSHOTS = 65536
_SNAPSHOT_BYTES = 40
_MAX_FORMAT_NAME = 15

_V2 = struct.Struct(">IIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_NAME = struct.Struct(">QI")  # at 8: where the name of the file below is, and its length
_EXTENSION = struct.Struct(">II")
_BITMAPS_EXTENSION = struct.Struct(">IIQQ")

_EXTENSION_END = 0
_EXTENSION_FORMAT = 0xE2792ACA
_EXTENSION_BITMAPS = 0x23852875
_EXTENSION_DATA_FILE = 0x44415441


class Header(NamedTuple):
    """What the header of a qcow2 image says. Names come from the image and may be hostile."""

    version: int
    size: int
    """Virtual size in bytes."""
    cluster_bits: int
    backing_name: str | None
    """Name of the backing file as stored (bytes that are not UTF-8 are escaped with a backslash), None for none."""
    backing_format: str | None
    has_data_file: bool
    """Wants its data in another file, by flag or by name."""
    dirty: bool
    """Reference counts may be wrong (lazy refcounts and no clean close)."""
    corrupt: bool
    """qemu found damage and allows no more writing."""
    extended_l2: bool
    compression: bool
    """Compressed clusters are not zlib."""
    unknown_incompatible: int
    """Incompatible feature bits that this version does not know; 0 when it may be opened."""
    encrypted: bool
    internal_snapshots: int
    bitmaps: int
    """1 when the header lists persistent bitmaps, else 0."""
    refcount_bits: int
    l1_offset: int
    l1_entries: int
    refcount_offset: int
    refcount_clusters: int
    data_name: str | None
    """Name of the external data file as stored, None for none."""
    bitmap_directory: tuple[int, int] | None
    """Offset and length of the list of persistent bitmaps, as stored; None for none."""
    bitmaps_current: bool
    """The last program that wrote the image kept its bitmaps; else they are to be ignored."""


class _Extensions(NamedTuple):
    backing_format: str | None = None
    bitmaps: bool = False
    data_file: bool = False
    data_name: str | None = None
    bitmap_directory: tuple[int, int] | None = None


_NO_EXTENSIONS = _Extensions()


def parse_header(raw: bytes, file_length: int) -> Header:
    """Return what the header at the start of ``raw`` says of an image file of ``file_length`` bytes.

    ``raw`` is the start of the file, up to ``HEADER_READ_BYTES``. Damaged: it is no qcow2 of
    version 2 or 3, is outside of qemu's limits, or the file ends before its tables do.
    """
    if len(raw) < 72:
        raise Damaged(f"a qcow2 header has 72 bytes or more, the file has {len(raw)}")
    (
        magic, version, name_offset, name_length, cluster_bits, size, crypt,
        l1_entries, l1_offset, table_offset, table_clusters, snapshots, snapshots_offset,
    ) = _V2.unpack_from(raw)  # fmt: skip
    if magic != _MAGIC:
        raise Damaged(f"the file starts with the bytes {raw[:4].hex(' ')}, not with the magic of qcow2")
    if not 9 <= cluster_bits <= 21:
        raise Damaged(f"cluster size of 2^{cluster_bits} bytes; 2^9 to 2^21 are possible")
    cluster = 1 << cluster_bits
    if version == 3:
        incompatible, autoclear, order, header_length = _version_3(raw, cluster)
    elif version == 2:
        incompatible, autoclear, order, header_length = 0, 0, 4, 72
    else:
        raise Damaged(f"qcow2 version {version}; 2 and 3 are known")
    if crypt > 2:
        raise Damaged(f"encryption method {crypt} is unknown")
    _check_l1(size, cluster_bits, incompatible, l1_entries, l1_offset, file_length)
    _check_refcounts(cluster_bits, table_offset, table_clusters, file_length)
    if snapshots or snapshots_offset:
        _check_snapshots(cluster, snapshots, snapshots_offset, file_length)
    name = _backing_name(raw, name_offset, name_length, cluster, file_length) if name_offset else None
    end = name_offset or cluster
    extensions = _extensions(raw, header_length, end, file_length) if header_length < end else _NO_EXTENSIONS
    return Header(
        version, size, cluster_bits, name, extensions.backing_format,
        incompatible & DATA_FILE != 0 or extensions.data_file,
        incompatible & DIRTY != 0, incompatible & CORRUPT != 0,
        incompatible & EXTENDED_L2 != 0, incompatible & COMPRESSION != 0,
        incompatible & ~_KNOWN_INCOMPATIBLE, crypt != 0, snapshots,
        1 if extensions.bitmaps or autoclear & _BITMAPS else 0,
        1 << order, l1_offset, l1_entries, table_offset, table_clusters,
        extensions.data_name, extensions.bitmap_directory, autoclear & _BITMAPS != 0,
    )  # fmt: skip


_parsed_before = functools.lru_cache(maxsize=64)(parse_header)


def parse_alike(raw: bytes, file_length: int) -> tuple[Header, str | None]:
    """Do what ``parse_header`` does, for many images: those of one size begin with the same bytes but for the name of
    what they stand on, so only the first of them is parsed, and they have one header. Return that, whose own name may
    be any, and the name."""
    name_offset, name_length = _NAME.unpack_from(raw, 8) if len(raw) >= 104 else (0, 0)
    end = name_offset + name_length
    if name_offset < max(104, int.from_bytes(raw[100:104])) or end > len(raw):
        header = _parsed_before(raw, file_length)  # has no name, or not behind the header as ``fresh_image`` puts it
        return header, header.backing_name
    try:
        alike = _parsed_before(raw[:name_offset] + bytes(name_length) + raw[end:], file_length)
    except Damaged:
        header = parse_header(raw, file_length)  # says what is wrong with this one
        return header, header.backing_name
    return alike, raw[name_offset:end].decode("utf-8", "backslashreplace") or None


def _version_3(raw: bytes, cluster: int) -> tuple[int, int, int, int]:
    """Return (incompatible, autoclear, refcount order, header length), checked."""
    if len(raw) < 104:
        raise Damaged(f"a qcow2 header of version 3 has 104 bytes or more, the file has {len(raw)}")
    incompatible, _, autoclear, order, header_length = _V3.unpack_from(raw, 72)
    if not 104 <= header_length <= cluster:
        raise Damaged(f"header length {header_length} is not between 104 and the cluster size {cluster}")
    if order > 6:
        raise Damaged(f"reference counts of 2^{order} bits; 2^6 is the limit")
    if not incompatible & ~_KNOWN_INCOMPATIBLE:  # else the layout below may mean something else
        compression = raw[104] if header_length > 104 and len(raw) > 104 else 0
        if compression > 1 or (compression != 0) != (incompatible & COMPRESSION != 0):
            raise Damaged(f"compression type {compression} does not fit the feature bits {incompatible:#x}")
    return incompatible, autoclear, order, header_length


def _check_l1(size: int, cluster_bits: int, incompatible: int, entries: int, offset: int, file_length: int) -> None:
    entry_bits = 3
    if incompatible & EXTENDED_L2:
        if cluster_bits < 14:
            raise Damaged(f"extended L2 entries need clusters of 16 KiB, here they have {1 << cluster_bits} bytes")
        entry_bits = 4
    needed = -(-size >> (2 * cluster_bits - entry_bits))
    if entries * 8 > MAX_L1_BYTES:
        raise Damaged(f"L1 table of {entries} entries; qemu opens at most {MAX_L1_BYTES // 8}")
    if entries < needed:
        raise Damaged(f"L1 table of {entries} entries is too small for {size} bytes, which need {needed}")
    if offset & ((1 << cluster_bits) - 1) or (entries and not offset) or offset + entries * 8 >= _END:
        raise Damaged(f"L1 table at {offset:#x}, which is no cluster of its own")
    if entries and offset + entries * 8 > file_length:
        raise Damaged(f"the file is truncated: its L1 table ends at {offset + entries * 8}, the file at {file_length}")


def _check_refcounts(cluster_bits: int, offset: int, clusters: int, file_length: int) -> None:
    length = clusters << cluster_bits
    if not clusters or length > _MAX_REFCOUNT_TABLE_BYTES:
        raise Damaged(f"reference count table of {length} bytes; it has at least one cluster and at most 8 MiB")
    if offset & ((1 << cluster_bits) - 1) or not offset:
        raise Damaged(f"reference count table at {offset:#x}, which is no cluster of its own")
    if offset + length > file_length:
        raise Damaged(
            f"the file is truncated: its reference count table ends at {offset + length}, the file at {file_length}"
        )


def _check_snapshots(cluster: int, count: int, offset: int, file_length: int) -> None:
    if count > _MAX_SNAPSHOTS:
        raise Damaged(f"{count} internal snapshots; qemu allows {_MAX_SNAPSHOTS}")
    if offset & (cluster - 1) or not offset or offset >= _END:
        raise Damaged(f"snapshot table at {offset:#x}, which is no cluster of its own")
    if count and offset + count * _SNAPSHOT_BYTES > file_length:
        raise Damaged(
            f"the file is truncated: {count} snapshots are listed at {offset}, the file ends at {file_length}"
        )


def _backing_name(raw: bytes, offset: int, length: int, cluster: int, file_length: int) -> str | None:
    if offset > cluster or length > min(MAX_BACKING_NAME_BYTES, cluster - offset):
        raise Damaged(f"backing name of {length} bytes at {offset:#x}; it must be short and in the first cluster")
    if offset + length > file_length:
        raise Damaged(f"the file is truncated: its backing name ends at {offset + length}, the file at {file_length}")
    if offset + length > len(raw):
        raise Damaged(f"backing name at {offset:#x}; it is read in the first {len(raw)} bytes only")
    return raw[offset : offset + length].decode("utf-8", "backslashreplace") if length else None


def _extensions(raw: bytes, offset: int, end: int, file_length: int) -> _Extensions:
    """Walk the header extensions. What lies behind the end of the file reads as zeros, as in qemu."""
    backing_format: str | None = None
    bitmaps = data_file = False
    data_name: str | None = None
    directory: tuple[int, int] | None = None
    available = len(raw)
    while offset < end:
        if offset + 8 > available:
            if available < file_length:
                raise Damaged(f"header extensions go past the first {available} bytes")
            break
        magic, length = _EXTENSION.unpack_from(raw, offset)
        offset += 8
        if length > end - offset:
            raise Damaged(f"header extension {magic:#010x} of {length} bytes at {offset - 8:#x} is too long")
        if magic == _EXTENSION_END:
            break
        if magic == _EXTENSION_FORMAT:
            if length > _MAX_FORMAT_NAME:
                raise Damaged(f"backing format name of {length} bytes; {_MAX_FORMAT_NAME} are possible")
            backing_format = raw[offset : offset + length].decode("utf-8", "backslashreplace") or None
        elif magic == _EXTENSION_BITMAPS:
            bitmaps = True
            if length >= _BITMAPS_EXTENSION.size and offset + length <= available:
                _, _, size, at = _BITMAPS_EXTENSION.unpack_from(raw, offset)
                directory = (at, size)
        elif magic == _EXTENSION_DATA_FILE:
            data_file = True
            data_name = raw[offset : offset + length].decode("utf-8", "backslashreplace") or None
        offset += (length + 7) & ~7
    return _Extensions(backing_format, bitmaps, data_file, data_name, directory)


class FreshImage(NamedTuple):
    """The content of a new image: everything in no piece reads as zero, up to ``length``.

    A file needs the pieces written and its length set; on a device that held other data the
    rest of ``length`` must be zeroed first.
    """

    length: int
    pieces: tuple[tuple[int, bytes], ...]
    """``(offset, bytes)``, ascending, within ``length``."""


def fresh_image(size: int, backing: str | None, backing_format: str | None) -> FreshImage:
    """Return a new empty qcow2 (version 3, 64 KiB clusters) of ``size`` virtual bytes.

    Layout: header, reference count table, one reference count block, L1 table. One block counts
    32768 clusters, more than the largest L1 table has, so there is never a second. BadRequest:
    a size that is no multiple of 512 or over qemu's limit, or names that do not fit.
    """
    if size <= 0 or size % 512:
        raise BadRequest(f"a qcow2 image cannot have {size} bytes", "Choose a positive multiple of 512")
    if size > MAX_FRESH_SIZE:
        raise BadRequest(
            f"size {size} is over the {MAX_FRESH_SIZE} bytes of a qcow2 image (L1 table limit of {MAX_L1_BYTES} bytes)",
            "Choose a smaller size or the raw format",
        )
    l1_entries = -(-size // (CLUSTER_BYTES // 8 * CLUSTER_BYTES))
    clusters = 3 + -(-l1_entries * 8 // CLUSTER_BYTES)
    pieces = (
        (0, _fresh_header(size, l1_entries, backing, backing_format)),
        (CLUSTER_BYTES, struct.pack(">Q", 2 * CLUSTER_BYTES)),
        (2 * CLUSTER_BYTES, b"\x00\x01" * clusters),
    )
    return FreshImage(clusters * CLUSTER_BYTES, pieces)


_FRESH_HEADER_BYTES = 112


def _fresh_header(size: int, l1_entries: int, backing: str | None, backing_format: str | None) -> bytes:
    name = _encoded(backing, "backing name", MAX_BACKING_NAME_BYTES)
    extensions = b""
    if backing_format is not None:
        text = _encoded(backing_format, "backing format", _MAX_FORMAT_NAME)
        extensions = _EXTENSION.pack(_EXTENSION_FORMAT, len(text)) + text + bytes(-len(text) % 8)
    extensions += _EXTENSION.pack(_EXTENSION_END, 0)
    name_offset = _FRESH_HEADER_BYTES + len(extensions) if name else 0
    start = _V2.pack(
        _MAGIC, 3, name_offset, len(name), 16, size, 0, l1_entries, 3 * CLUSTER_BYTES, CLUSTER_BYTES, 1, 0, 0
    )
    return start + _V3.pack(0, 0, 0, 4, _FRESH_HEADER_BYTES) + bytes(8) + extensions + name


def _encoded(text: str | None, what: str, limit: int) -> bytes:
    if text is None:
        return b""
    try:
        encoded = text.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRequest(f"{what} {text!r:.80} is not valid UTF-8") from None
    if not encoded or len(encoded) > limit or b"\0" in encoded:
        raise BadRequest(f"{what} {text!r:.80} must have 1 to {limit} bytes and no NUL")
    return encoded
