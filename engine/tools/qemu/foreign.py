"""Image files of other programs: what is looked at before a tool opens one. No effects.

Three of these formats can make a reader open other files: a VMDK names its extents and its parent, VHD and VHDX may
hold the difference to a parent. What is let pass holds all of its data itself. Limits are far above what the formats
allow to be useful. Layouts after the specifications of VMware, Microsoft and VirtualBox, and qemu's drivers.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import NamedTuple

from engine.data.model import FileFormat
from engine.errors import BadRequest, Refused

Read = Callable[[int, int], bytes]
"""Reads (offset, length) of the file; fewer bytes at its end."""

DRIVERS = {FileFormat.VMDK: "vmdk", FileFormat.VHDX: "vhdx", FileFormat.VHD: "vpc", FileFormat.VDI: "vdi"}
"""qemu's names."""

_SECTOR = 512
_VMDK = struct.Struct("<4sIIQQQQIQQQ")
_VMDK_AT_END = (1 << 64) - 1
_VMDK_KINDS = ("monolithicsparse", "streamoptimized")
_MAX_DESCRIPTOR_BYTES = 64 << 10
_EXTENT = re.compile(r"^[^\S\n]*(?:RW|RDONLY|NOACCESS)[^\S\n]+\d+[^\S\n]+(\w+)", re.MULTILINE | re.IGNORECASE)
"""Never matches across the end of a line: who tries it at each of them would take quadratic time."""

_VHDX_REGIONS_AT = 192 << 10


def _guid(text: str) -> bytes:
    """Return a GUID as it stands on a disk. Importing ``uuid`` takes as long as a twentieth of a command."""
    raw = bytes.fromhex(text.replace("-", ""))
    return raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]


_VHDX_METADATA = _guid("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_VHDX_TABLE = _guid("2dc27766-f623-4200-9d64-115e9bfd4a08")
_VHDX_SIZE = _guid("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
_VHDX_PARAMETERS = _guid("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
_VHDX_HAS_PARENT = 2
_VHDX_MOST_ENTRIES = 2047

_VHD_FIXED, _VHD_DYNAMIC, _VHD_DIFFERENCE = 2, 3, 4
_VDI_OWN = (1, 2)
"""Dynamic and fixed."""
_VDI_DIFFERENCE = (3, 4)


def require_own_data(format: FileFormat, read: Read, length: int, path: str) -> int:
    """Return the logical size in bytes, as the header has it (a tool may round it), if a file of ``length`` bytes is of
    the format and holds all of its data itself, and the tables that a tool reads into memory when it opens it.

    BadRequest: it is not of the format, or is cut off. Refused: it needs other files."""
    try:
        return _LOOKS[format](read, length)
    except _Wrong as error:
        raise BadRequest(
            f"{path!r:.200} is no whole {format} image: {error}", "State the right format, or get it again whole"
        ) from None
    except _Needs as error:
        step = "Flatten it first with the program that made it, or with qemu-img convert where you trust it"
        raise Refused(f"the image file {path!r:.200} {error}; nothing it names is followed", step) from None


class _Wrong(Exception):
    """It is not what was stated."""


class _Needs(Exception):
    """It needs other files."""


def _vmdk(read: Read, length: int) -> int:
    head = read(0, _SECTOR)
    if head.startswith(b"# Disk DescriptorFile"):
        raise _Needs("is the descriptor of a VMDK, whose data is in other files (NAME-flat.vmdk is a raw image)")
    header = _vmdk_header(head)
    if header.gd_offset == _VMDK_AT_END:
        # Stream-optimised: what counts stands at the end, so a file without its end is found here.
        header = _vmdk_header(read(max(0, length - 2 * _SECTOR), _SECTOR))
    start, size = header.descriptor_offset * _SECTOR, header.descriptor_size * _SECTOR
    if not start:
        start, size = _of_first_descriptor(head)
    if not 0 < size <= _MAX_DESCRIPTOR_BYTES or start + size > length:
        raise _Wrong("its descriptor is not in the file")
    _require_one_extent(read(start, size).rstrip(b"\0").decode("latin-1"))
    return header.capacity * _SECTOR


class _VmdkHeader(NamedTuple):
    capacity: int
    descriptor_offset: int
    descriptor_size: int
    gd_offset: int


def _vmdk_header(raw: bytes) -> _VmdkHeader:
    if len(raw) < _VMDK.size or not raw.startswith(b"KDMV"):
        raise _Wrong("it does not begin with the mark of a sparse VMDK, or its end is not there")
    _, _, _, capacity, _, at, size, _, _, gd_offset, _ = _VMDK.unpack_from(raw)
    if not capacity:  # then qemu takes the descriptor for a list of files
        raise _Needs("is a VMDK without data of its own")
    return _VmdkHeader(capacity, at, size, gd_offset)


def _of_first_descriptor(head: bytes) -> tuple[int, int]:
    header = _vmdk_header(head)
    return header.descriptor_offset * _SECTOR, header.descriptor_size * _SECTOR


def _require_one_extent(text: str) -> None:
    """Return if the descriptor of a VMDK names no extent but the file that it is in, and no parent."""
    settings = {key.strip().lower(): value.strip().strip('"') for key, _, value in (
        line.partition("=") for line in text.splitlines()
    )}  # fmt: skip
    kind = settings.get("createtype", "")
    if kind.lower() not in _VMDK_KINDS:
        raise _Needs(f"is a VMDK of the kind {kind[:40]!r}, whose data is in other files")
    if settings.get("parentcid", "ffffffff").lower() != "ffffffff" or "parentfilenamehint" in settings:
        raise _Needs("holds only the difference to a parent")
    extents = _EXTENT.findall(text)
    if len(extents) != 1 or extents[0].upper() != "SPARSE":
        raise _Needs(f"lists {len(extents)} extents, which are other files")


def _vhdx(read: Read, length: int) -> int:
    if read(0, 8) != b"vhdxfile":
        raise _Wrong("it does not begin with the mark of VHDX")
    regions = read(_VHDX_REGIONS_AT, 64 << 10)
    parts = _entries(regions, b"regi", 8, 16, 32)
    at, _ = parts.get(_VHDX_METADATA, (0, 0))
    if not at or at + (64 << 10) > length:
        raise _Wrong("its metadata is not in the file")
    items = _entries(read(at, 64 << 10), b"metadata", 10, 32, 32, short=True)
    if _VHDX_PARAMETERS not in items or _VHDX_SIZE not in items:
        raise _Wrong("its metadata says nothing of its parameters, or of its size")
    parameters, size = (read(at + items[item][0], 8) for item in (_VHDX_PARAMETERS, _VHDX_SIZE))
    if len(parameters) < 8 or len(size) < 8:
        raise _Wrong("its metadata is not in the file")
    if parameters[4] & _VHDX_HAS_PARENT:
        raise _Needs("holds only the difference to a parent")
    _require_table(*parts.get(_VHDX_TABLE, (0, 0)), length)
    return int.from_bytes(size, "little")


def _require_table(at: int, size: int, length: int) -> None:
    """Return if the table of blocks, which a tool holds whole, is in the file: then it is no larger than that."""
    if at + size > length:
        raise _Wrong(f"its table of blocks has {size} bytes at {at}, and the file ends at {length}")


def _entries(
    table: bytes, mark: bytes, count_at: int, start: int, size: int, short: bool = False
) -> dict[bytes, tuple[int, int]]:
    """(offset, length) of the entries of a table of VHDX, by GUID; its count has two or four bytes."""
    if not table.startswith(mark) or len(table) < start:
        raise _Wrong("a table of it is not there")
    (count,) = struct.unpack_from("<H" if short else "<I", table, count_at)
    if count > _VHDX_MOST_ENTRIES or start + count * size > len(table):
        raise _Wrong(f"a table of it has {count} entries")
    form = struct.Struct("<16sII" if short else "<16sQI")
    rows = (form.unpack_from(table, start + number * size) for number in range(count))
    return {guid: (offset, part) for guid, offset, part in rows}


def _vhd(read: Read, length: int) -> int:
    footer = read(0, _SECTOR)
    if not footer.startswith(b"conectix"):
        footer = read(max(0, length - _SECTOR), _SECTOR)
    if not footer.startswith(b"conectix") or len(footer) < _SECTOR:
        raise _Wrong("it has the mark of VHD neither at its beginning nor at its end")
    (kind,) = struct.unpack_from(">I", footer, 60)
    if kind == _VHD_DIFFERENCE:
        raise _Needs("holds only the difference to a parent")
    if kind not in (_VHD_FIXED, _VHD_DYNAMIC):
        raise _Needs(f"is a VHD of the kind {kind}")
    at, size = (int(struct.unpack_from(">Q", footer, place)[0]) for place in (16, 48))
    if kind == _VHD_DYNAMIC:
        if not read(max(0, length - _SECTOR), _SECTOR).startswith(b"conectix"):
            raise _Wrong("it does not have the mark of VHD at its end")
        dynamic = read(at, _SECTOR) if at < length else b""
        if not dynamic.startswith(b"cxsparse") or len(dynamic) < _SECTOR:
            raise _Wrong("it does not have the header of a dynamic VHD")
        table, _, entries = struct.unpack_from(">QII", dynamic, 16)
        _require_table(table, entries * 4, length)
    return size


def _vdi(read: Read, length: int) -> int:
    head = read(0, _SECTOR)
    if head[64:68] != b"\x7f\x10\xda\xbe" or len(head) < _SECTOR:
        raise _Wrong("it does not have the mark of VDI")
    (kind,) = struct.unpack_from("<I", head, 76)
    if kind in _VDI_DIFFERENCE:
        raise _Needs("holds only the difference to a parent")
    if kind not in _VDI_OWN:
        raise _Needs(f"is a VDI of the kind {kind}")
    at, size, blocks = (struct.unpack_from(form, head, at)[0] for form, at in (("<I", 340), ("<Q", 368), ("<I", 384)))
    _require_table(at, blocks * 4, length)
    return int(size)


_LOOKS: dict[FileFormat, Callable[[Read, int], int]] = {
    FileFormat.VMDK: _vmdk,
    FileFormat.VHDX: _vhdx,
    FileFormat.VHD: _vhd,
    FileFormat.VDI: _vdi,
}
