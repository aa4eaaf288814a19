"""The room that volumes have: all that an image can need, until a snapshot is reduced to what it uses.

A qcow2 volume has room for all data that its image can hold (``make_room``) until ``reduce`` takes away what a
snapshot will never use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from engine.data.model import VolumeFormat, aligned
from engine.data.records import VolumeRef
from engine.doors.images import Layer
from engine.doors.volume_groups import BlockHandle, LogicalVolume, VolumeGroup
from engine.errors import Conflict, Damaged, Refused, from_os_errors
from engine.formats.base import TagEntry, Tags
from engine.formats.lvm.group import Group
from engine.formats.lvm.guard import Guard
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.volumes.activation import Activation
from engine.formats.lvm.volumes.sizes import in_extents, known, most_bytes, require_free
from engine.formats.lvm.volumes.volumes import Volumes


class Extents:
    """The room of the volumes of one repository."""

    def __init__(self, group: Group, guard: Guard, activation: Activation, volumes: Volumes, tags: Tags) -> None:
        self._tags = tags
        self._group = group
        self._groups = group.doors.volume_groups
        self._guard = guard
        self._activation = activation
        self._volumes = volumes

    def require_room(self, format: VolumeFormat, size: int) -> None:
        """Ask the group for its free extents, and its metadata area for room. What lay in free extents is not to be put
        back: Refused while a record names a volume that LVM does not know any more."""
        with self._guard.changing() as report:
            require_free(report, in_extents(most_bytes(format, size), report))
        self._require_all_there()

    def _require_all_there(self) -> None:
        tags = self._tags.scan()
        there = self._group.report().volumes  # after the records: a volume is made before one says that it is whole
        for tag, entry in tags.items():
            if _lacks(entry, there) and _lacks(self._tags.read(tag), there):
                name = self._group.name
                raise Refused(
                    f"the volume of image {tag} is not in the volume group {name} any more, and what is made now could "
                    "be put where it lay",
                    "If LVM's metadata was put back (vgcfgrestore), put back what it was before that: vgcfgrestore "
                    f"--list {name}. Else mend image {tag} from a replica, or remove it and clean",
                )

    def make_room(self, volume: VolumeRef, size: int, kept: int = 0) -> None:
        """Extend the logical volume where that is needed, if no other may lie there; durable on return."""
        size = aligned(size)
        report = self._usable()
        found, before = known(volume, report)
        length = in_extents(most_bytes(volume.format, size), report)
        if found.size < length:
            self._require_all_there()
            self._extend(volume, length)
        if volume.format is VolumeFormat.QCOW2 or before >= size:
            self._group.sync()  # who made it longer may have died before that was durable
            return
        with from_os_errors(f"grow volume {volume.id}"), self._device(volume) as device:
            if (first := max(before, kept)) < (end := max(length, found.size)):
                device.zero(first, end - first)
            device.sync()
        with self._guard.changing():
            self._groups.change_tags(self._group.name, found.name, [layout.size_tag(size)], [layout.size_tag(before)])
            self._group.sync()
        self._activation.lengthened(volume.id, size)

    def _extend(self, volume: VolumeRef, length: int) -> None:
        with self._guard.changing() as report:
            found, _ = known(volume, report)
            if found.size < length:
                require_free(report, length - found.size)
                self._groups.resize(self._group.name, found.name, length)
                self._group.sync()

    def reduce(self, volume: VolumeRef) -> int:
        """Cut behind the last extent in which the reference counts know of data."""
        with self._guard.changing() as report:
            facts = self._volumes.facts(volume.id, volume.format, report)
            if facts.problem or facts.in_use is None:
                raise Damaged(f"how much of volume {volume.id} is in use is not known: {facts.problem or 'no qcow2'}")
            if facts.in_use >= facts.length:
                return 0
            host = self._guard.may_be_written(volume.id)
            if host:
                raise Conflict(
                    f"host {host} may still write to volume {volume.id}", "Try again when it is back, or was restarted"
                )
            self._activation.let_go(volume.id)
            lease = self._activation.try_alone(volume.id)
            if lease is None:
                raise Conflict(f"volume {volume.id} is in use on this host", "Wait for what uses it, and try again")
            try:
                self._group.sync()  # what is written in it may be on its way: a killed machine flushed nothing
                self._groups.resize(self._group.name, layout.volume_name(volume.id), facts.in_use)
                self._group.sync()
            finally:
                lease.release()
            return facts.length - facts.in_use

    def freeze(self, volume: VolumeRef, settle: Callable[[Layer], None]) -> None:
        """Flush what is not active where it lies: this host remembers nothing of it that the devices have not been
        given, and to activate it takes commands of LVM. Zero the rest of the last extent of a raw volume: whoever had
        it prepared may have written there."""
        found, size = known(volume, self._usable())
        if found.active:
            settle(self._volumes.layer(volume))
        else:
            self._group.sync()
        if volume.format is VolumeFormat.RAW and size < found.size:
            with from_os_errors(f"clear the end of volume {volume.id}"), self._device(volume) as device:
                device.zero(size, found.size - size)
                device.sync()

    def _device(self, volume: VolumeRef) -> BlockHandle:
        return self._groups.open_device(self._volumes.layer(volume).path, writable=True)

    def _usable(self) -> VolumeGroup:
        """Return the group, if this host may use volumes of it."""
        report = self._group.report()
        self._guard.using(report)
        return report


def _lacks(entry: TagEntry | None, there: Mapping[str, LogicalVolume]) -> bool:
    """Return whether a record that is whole has a volume that is neither there nor in quarantine."""
    record = entry.record if entry is not None else None
    if record is None or record.volume is None or not record.whole or record.purging:
        return False
    return layout.volume_name(record.volume.id) not in there and layout.lost_name(record.volume.id) not in there
