"""What a file looks like by its first bytes. No format is chosen by it: people are told what they may not know."""

from __future__ import annotations

import struct

QCOW2 = "qcow2"

_SECTOR = 512
_TAR_AT = 257

_STARTS = {
    b"QFI\xfb": QCOW2,
    b"\xfd7zXZ\0": "a file compressed by xz",
    b"\x1f\x8b": "a file compressed by gzip",
    b"\x28\xb5\x2f\xfd": "a file compressed by zstd",
    b"BZh": "a file compressed by bzip2",
    b"\x04\x22\x4d\x18": "a file compressed by lz4",
    b"LZIP": "a file compressed by lzip",
    b"7z\xbc\xaf\x27\x1c": "an archive of 7z",
    b"Rar!\x1a\x07": "an archive of rar",
    b"PK\x03\x04": "an archive of zip",
    b"KDMV": "a vmdk image",
    b"# Disk DescriptorFile": "the descriptor of a vmdk image",
    b"vhdxfile": "a vhdx image",
    b"conectix": "a vhd image",
    b"QED\0": "a qed image",
    b"LUKS\xba\xbe": "a LUKS container",
    b"WithoutFreeSpace": "a parallels image",
    b"WithouFreSpacExt": "a parallels image",
    b"<!DOCTYPE": "a page of the web",
    b"<html": "a page of the web",
}

_INSIDE = {(64, b"\x7f\x10\xda\xbe"): "a vdi image", (_TAR_AT, b"ustar"): "an archive of tar"}


def name_of(head: bytes) -> str:
    """Return what a file that starts with ``head`` looks like, in words; "" for nothing that is known here."""
    for start, name in _STARTS.items():
        if head.startswith(start):
            return name
    for (at, mark), name in _INSIDE.items():
        if head[at : at + len(mark)] == mark:
            return name
    return ""


def remarks(head: bytes, length: int) -> tuple[str, ...]:
    """Return, in sentences, what speaks against a file of ``length`` bytes being a whole raw image; empty: nothing."""
    found = []
    name = name_of(head)
    if name:
        found.append(
            f"The imported file looks like {name}, and was imported as raw: the disk holds its bytes as they are"
        )
    if length % _SECTOR:
        found.append(f"The imported file has {length} bytes, no multiple of {_SECTOR}: it may be cut off")
    end = _partitioned_end(head)
    if end > length:
        found.append(
            f"The partition table in the imported file is for {end} bytes, and it has {length}: it may be cut off"
        )
    return tuple(found)


def _partitioned_end(head: bytes) -> int:
    """Return the bytes that a disk must have for its partition table; 0 where there is none."""
    if head[_SECTOR : _SECTOR + 8] == b"EFI PART" and len(head) >= _SECTOR + 40:
        (backup,) = struct.unpack_from("<Q", head, _SECTOR + 32)  # its second table stands in the last sector
        return int(backup + 1) * _SECTOR
    if head[510:512] != b"\x55\xaa":
        return 0
    end = 0
    for at in range(446, 510, 16):
        active, kind, start, sectors = struct.unpack_from("<B3xB3xII", head, at)
        if active not in (0, 0x80):
            return 0  # the boot sector of a file system, not a table
        if kind and kind != 0xEE:
            end = max(end, (start + sectors) * _SECTOR)
    return end
