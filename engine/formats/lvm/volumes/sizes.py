"""How long volumes are: what an image can need, in whole extents, and what the group has left."""

from __future__ import annotations

from engine.data.amounts import human
from engine.data.model import VolumeFormat, aligned
from engine.data.records import VolumeRef
from engine.doors.volume_groups import LogicalVolume, VolumeGroup
from engine.errors import Damaged, NoSpace, StorageError
from engine.formats.lvm.metadata import layout

_METADATA_RESERVE_BYTES = 16 * 1024
"""LVM writes its metadata twice and needs room for both; a volume takes some hundred bytes."""


def most_bytes(format: VolumeFormat, size: int) -> int:
    """Return the bytes that a volume for an image of that size needs at most."""
    size = aligned(size)
    return layout.qcow2_bytes(size) if format is VolumeFormat.QCOW2 else size


def in_extents(length: int, report: VolumeGroup) -> int:
    """Return a length in bytes rounded up to whole extents."""
    return -(-length // report.extent_bytes) * report.extent_bytes


def require_free(report: VolumeGroup, wanted: int) -> None:
    """Return if the group can give so many bytes more. NoSpace, StorageError while a device is missing."""
    if report.partial:
        raise StorageError(
            report.say_missing(), "Attach it; pvs -o pv_name,pv_uuid on a host that sees it tells which device that is"
        )
    if wanted > report.free:
        raise NoSpace(
            f"{report.name} lacks {human(wanted - report.free)}: {human(report.free)} are free, "
            f"{human(wanted)} are needed",
            "Make room (check lists what can be cleaned), or add a device to the group",
        )
    if report.metadata_free < _METADATA_RESERVE_BYTES:
        raise NoSpace(
            f"LVM's metadata area of {report.name} is nearly full ({human(report.metadata_free)} are left)",
            "Remove images and clean, or move to a group with larger metadata areas",
        )


def known(volume: VolumeRef, report: VolumeGroup) -> tuple[LogicalVolume, int]:
    """Return the logical volume and the size of the image that its tags tell. StorageError when it is not there,
    Damaged when its tags are not those of ``volume``."""
    found = report.volumes.get(layout.volume_name(volume.id))
    if found is None:
        raise StorageError(f"volume {volume.id} is not there", "diskwright check tells what can be done")
    parsed = layout.parse_tags(found.tags)
    if parsed is None or parsed[0] is not volume.format:
        raise Damaged(f"the tags of volume {volume.id} are not those of a {volume.format} volume")
    return found, parsed[1]
