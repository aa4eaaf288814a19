"""What an image file says of itself, read with one open; two or three more reads only where something looks wrong.

Nothing that the content says is believed for more than a look at the same file: every offset is checked against its
length, and every length has a limit.
"""

from __future__ import annotations

import re
import struct
import sys
from array import array
from typing import NamedTuple

from engine.audit.model import Image
from engine.audit.places import Name
from engine.copying.magic import QCOW2, name_of
from engine.doors.trees import Start
from engine.errors import Damaged
from engine.tools.qemu.qcow2 import HEADER_READ_BYTES, Header, parse_header

RAW, LUKS = "raw", "luks"
_SHORT_NAMES = {
    "a vmdk image": "vmdk",
    "the descriptor of a vmdk image": "vmdk",
    "a vhdx image": "vhdx",
    "a vhd image": "vpc",
    "a vdi image": "vdi",
    "a qed image": "qed",
    "a LUKS container": LUKS,
    "a parallels image": "parallels",
    QCOW2: QCOW2,
}
"""qemu's names of the formats that are images."""

_ISO_AT, _ISO = 0x8001, b"CD001"
_FIRMWARE_AT, _FIRMWARE = 0x28, b"_FVH"
_SAVED = (b"LibvirtQemudSave", b"LibvirtQemudPart", b"QEVM")
ISO, NVRAM, MEMORY, BACKUP = "iso", "nvram", "memory", "backup"
"""Kinds of content that are no images of disks."""

_SPARSE, _SPARSE_BYTES, _DESCRIPTOR_AT, _SECTOR = b"KDMV", 512, 28, 512
_ENCODING = re.compile(rb'encoding[ \t]*=[ \t]*"([^"\n]*)"', re.IGNORECASE)

_MAX_DIRECTORY_BYTES = 1 << 20
_MAX_BITMAPS = 65535
_MAX_TABLES_BYTES = 64 << 20
_STEP = 512
_ZEROS = bytes(_STEP)
_BITMAP = struct.Struct(">QIIBBHI")
_IN_USE = 1
_COMPRESSED = 1 << 62
_OFFSET = 0x00FFFFFFFFFFFE00


class Bitmaps(NamedTuple):
    """The persistent bitmaps of an image."""

    total: int
    in_use: int
    """Were being written when the image was closed last, so they are not right."""


def content(start: bytes) -> str:
    """Return what a file is by its first bytes: qemu's name of a format, one of the kinds above, or "" for what may be
    a raw image. People are told; nothing is opened by it."""
    name = name_of(start)
    if name in _SHORT_NAMES:  # before what may be a guest's data in it
        return _SHORT_NAMES[name]
    if start[_ISO_AT : _ISO_AT + len(_ISO)] == _ISO:
        return ISO
    if start[_FIRMWARE_AT : _FIRMWARE_AT + len(_FIRMWARE)] == _FIRMWARE:
        return NVRAM
    if start.startswith(_SAVED):
        return MEMORY
    return BACKUP if name else ""


_OF_HOSTS = (
    (0x438, b"\x53\xef"),  # ext2 to ext4
    (0, b"XFSB"),
    (0x10040, b"_BHRfS_M"),
    (0x400, b"\x10\x20\xf5\xf2"),  # F2FS
    *((at, b"OCFSV2") for at in (0x400, 0x800, 0x1000, 0x2000)),
    (0x10000, b"\x01\x16\x19\x70"),  # GFS2
    (0x10034, b"ReIsEr"),
    *((page - 10, mark) for page in (0x1000, 0x4000, 0x10000) for mark in (b"SWAPSPACE2", b"SWAP-SPACE")),
    *((sector * 512, b"LABELONE") for sector in range(4)),
    (0, b"LUKS\xba\xbe"),
    *((at, b"\xfc\x4e\x2b\xa9") for at in (0, 0x1000)),  # a part of an array
    (0, b"bluestore block device\n"),
)
"""Where what a host puts on a device of its own begins, and with what."""
_MORE_BYTES = 4096


def is_of_host(name: Name, start: bytes) -> bool:
    """Tell whether a volume that may be a raw image has a file system, or something else that a host puts on a whole
    device. A machine's disk has that too where it has no partitions: it is judged no further then. OSError."""
    if len(start) == HEADER_READ_BYTES:
        start += name.tree.read(name.inside, HEADER_READ_BYTES, _MORE_BYTES)
    return any(start[at : at + len(mark)] == mark for at, mark in _OF_HOSTS)


def read_start(name: Name) -> Start | str:
    """Return the beginning of a file, or why it cannot be read."""
    try:
        return name.tree.start(name.inside, HEADER_READ_BYTES)
    except OSError as error:
        return error.strerror or str(error)


def image_of(names: tuple[Name, ...], start: Start | str, kind: str) -> Image:
    """Return what is known of one image file from its beginning."""
    first = names[0]
    paths = tuple(name.path for name in names)
    if isinstance(start, str):
        return Image(
            first.path, paths, "", 0, first.stat.size, first.stat.allocated, None, "", start, (), first.stat.links
        )
    header: Header | None = None
    problem = ""
    if kind == QCOW2:
        try:
            header = parse_header(start.data, start.length)
        except Damaged as error:
            problem = error.message
    size = header.size if header is not None else start.length
    return Image(
        first.path, paths, kind or RAW, size, start.length, first.stat.allocated, header, problem, "", start.users,
        first.stat.links, _says(start.data, kind), _may_stand(kind, start),
    )  # fmt: skip


def _says(start: bytes, kind: str) -> str:
    """The text in a VMDK: its names are in UTF-8, or in what it says that they are. A descriptor need not begin as one,
    so any text counts."""
    if kind != "vmdk" and b"\0" in start:
        return ""
    return "\0".join((start.decode("utf-8", "surrogateescape"), start.decode("latin-1")))


def _may_stand(kind: str, read: Start) -> bool:
    """Whether an image of another format than qcow2 may hold only the difference to another file, or need others that
    are not known by name."""
    start = read.data
    if kind == "vmdk":
        return _has_unknown_names(read)
    if kind == "vpc":
        return start[60:64] == b"\0\0\0\4"
    if kind == "vdi":
        return start[76:80] == b"\4\0\0\0"
    return kind == "vhdx" or (kind == "qed" and bool(start[16:17] and start[16] & 1))


def _has_unknown_names(vmdk: Start) -> bool:
    """Whether the descriptor of a VMDK was not read to its end, or has a name that is in no encoding known here."""
    text, whole = vmdk.data, len(vmdk.data) >= vmdk.length
    if text.startswith(_SPARSE):
        if len(text) < _SPARSE_BYTES:
            return True
        first, length = (sectors * _SECTOR for sectors in struct.unpack_from("<QQ", text, _DESCRIPTOR_AT))
        whole = first + length <= len(text)
        text = text[first : first + length]
    encoding = _ENCODING.search(text)
    known = encoding is None or encoding[1].lower() in (b"utf-8", b"utf8")
    return not whole or (not text.isascii() and not (known and _is_utf8(text)))


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def bitmaps(name: Name, header: Header, length: int) -> Bitmaps | None:
    """Count the bitmaps that the header lists; None where the list cannot be understood. OSError."""
    if header.bitmap_directory is None:
        return Bitmaps(0, 0) if not header.bitmaps else None
    offset, size = header.bitmap_directory
    if size > _MAX_DIRECTORY_BYTES or offset + size > length:
        return None
    data = name.tree.read(name.inside, offset, size)
    at = total = in_use = 0
    while at < size:
        if at + _BITMAP.size > len(data):
            return None
        _, _, flags, _, _, name_length, extra = _BITMAP.unpack_from(data, at)
        step = (_BITMAP.size + extra + name_length + 7) & ~7
        if at + step > size:
            return None
        total, in_use, at = total + 1, in_use + (flags & _IN_USE), at + step
        if total > _MAX_BITMAPS:
            return None
    return Bitmaps(total, in_use)


def cut_at(name: Name, header: Header, length: int) -> int | None:
    """Return the offset of data or of a table that lies behind the end of the file; None where there is none, or where
    that would take too long to find out. OSError.

    First the last cluster that is counted: that one is inside of nearly every image. Where it is not, the tables are
    read, because a crash may leave clusters that are counted and not used.
    """
    if not _last_counted_is_outside(name, header, length):
        return None
    cluster = 1 << header.cluster_bits
    if header.has_data_file:
        return None
    left = _MAX_TABLES_BYTES
    compressed_bits = (1 << (62 - (header.cluster_bits - 8))) - 1
    for entry in _words(name.tree.read(name.inside, header.l1_offset, header.l1_entries * 8)):
        table = entry & _OFFSET
        if not table:
            continue
        if table + cluster > length:
            return table
        left -= cluster
        if left < 0:
            return None
        entries = _words(name.tree.read(name.inside, table, cluster))
        for mapped in entries[:: 2 if header.extended_l2 else 1]:
            place = mapped & compressed_bits if mapped & _COMPRESSED else mapped & _OFFSET
            if place >= length:
                return place
    return None


def _last_counted_is_outside(name: Name, header: Header, length: int) -> bool:
    """Whether the last cluster with a reference count begins at the end of the file or behind it."""
    cluster = 1 << header.cluster_bits
    table = name.tree.read(name.inside, header.refcount_offset, header.refcount_clusters * cluster)
    used = _used(table)
    if not used:
        return False
    last = (used - 1) // 8
    block = int.from_bytes(table[last * 8 : last * 8 + 8].ljust(8, b"\0"), "big") & ~(cluster - 1)
    if block + cluster > length:
        return True
    counts = _used(name.tree.read(name.inside, block, cluster))
    per_block = cluster * 8 // header.refcount_bits
    counted = last * per_block + max(0, counts * 8 - 1) // header.refcount_bits
    return counted * cluster >= length


def _used(data: bytes) -> int:
    """Return the length of ``data`` without the zeros at its end. Most of a table is zeros: whole steps are compared,
    which is forty times as fast as to strip them."""
    end = len(data)
    while end and data[max(0, end - _STEP) : end] == _ZEROS[: min(end, _STEP)]:
        end = max(0, end - _STEP)
    return max(0, end - _STEP) + len(data[max(0, end - _STEP) : end].rstrip(b"\0"))


def _words(data: bytes) -> array[int]:
    found = array("Q", data[: len(data) // 8 * 8])
    if sys.byteorder == "little":
        found.byteswap()
    return found
