"""The mark of the newest commit in a volume group, read from its devices: two small reads each, no command.

LVM ends every commit by writing one sector per metadata area, the area's header, which tells place,
length and checksum of the text that counts. As long as the headers of all areas are the same bytes, and the
labels say that the devices are the same, whatever ``fullreport`` told of the group's metadata still
holds, on every host. Offsets and magics are those of LVM's format 2, which its own tools cannot change.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from engine.doors.volume_groups import BLOCK_BYTES
from engine.tools.block.device import DirectBlockHandle

_SECTOR_BYTES = 512
_LABEL_SECTORS = 4
_LABEL = struct.Struct("<8sQII8s")
"""Magic, its own sector, checksum, offset of the header of the physical volume, type."""
_PLACE = struct.Struct("<QQ")
_UUID_BYTES = 32
_AREA_MAGIC = b" LVM2 x[5A%r0N*>"
_MAX_AREAS = 8


def commit_mark(devices: Sequence[str]) -> bytes | None:
    """Return bytes that differ after every commit to the group on these devices, and when these are other devices. None
    when that cannot be told: one cannot be read, or has no label or an area that is not as expected."""
    parts = []
    areas = 0
    try:
        for device in devices:
            with DirectBlockHandle(device) as handle:
                label, offsets = _label(handle.read_at(0, BLOCK_BYTES))
                parts.append(label)
                for offset in offsets:
                    parts.append(_area_header(handle, offset))
                    areas += 1
    except (OSError, ValueError, struct.error):
        return None
    return b"".join(parts) if areas else None


def label_of(device: str) -> bytes:
    """Return which physical volume is on the device. Plain OSError; ValueError when there is none."""
    with DirectBlockHandle(device) as handle:
        return _label(handle.read_at(0, BLOCK_BYTES))[0]


def _label(start: bytes) -> tuple[bytes, list[int]]:
    """Return (the physical volume's uuid, offsets of its metadata areas)."""
    for sector in range(_LABEL_SECTORS):
        at = sector * _SECTOR_BYTES
        magic, number, _, offset, kind = _LABEL.unpack_from(start, at)
        if magic == b"LABELONE" and kind == b"LVM2 001" and number == sector and offset < _SECTOR_BYTES:
            header = start[at + offset : at + _SECTOR_BYTES]
            return header[:_UUID_BYTES], _areas(header)
    raise ValueError("no label")


def _areas(header: bytes) -> list[int]:
    """Return offsets of the metadata areas. After uuid and size come the data areas and the metadata areas, each list
    with a pair of zeros at its end."""
    position = _UUID_BYTES + 8
    lists: list[list[int]] = [[], []]
    for found in lists:
        while len(found) <= _MAX_AREAS:
            offset, _ = _PLACE.unpack_from(header, position)
            position += _PLACE.size
            if not offset:
                break
            found.append(offset)
    return lists[1]


def _area_header(handle: DirectBlockHandle, offset: int) -> bytes:
    if offset % _SECTOR_BYTES:
        raise ValueError("an area that does not begin with a sector")
    inside = offset % BLOCK_BYTES
    header = handle.read_at(offset - inside, BLOCK_BYTES)[inside : inside + _SECTOR_BYTES]
    if header[4 : 4 + len(_AREA_MAGIC)] != _AREA_MAGIC:
        raise ValueError("no metadata area")
    return header
