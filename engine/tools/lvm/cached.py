"""What LVM last reported of a group, and whether it still holds: LVM's commands are slow, and most change nothing."""

from __future__ import annotations

from typing import NamedTuple

from engine.doors.volume_groups import LogicalVolume, PhysicalRange, VolumeGroup
from engine.tools.lvm.device_mapper import devices_of, lies_there, uuid_of
from engine.tools.lvm.label import commit_mark, label_of
from engine.tools.lvm.report import Report


class Place(NamedTuple):
    """Room for a volume in one piece."""

    range: PhysicalRange
    argument: str
    """For LVM: exactly these extents, so that a volume of their size lies there or is not made."""
    label: bytes
    """Which physical volume is on the device."""

    def still_there(self) -> bool:
        """Tell whether the device of that name is the one that was reported. To be asked before writing there."""
        try:
            return label_of(self.range.device) == self.label
        except (OSError, ValueError):
            return False


class CachedReport(NamedTuple):
    """A whole report, and the mark of the commit that it tells of."""

    devices: tuple[str, ...]
    mark: bytes
    report: Report

    def holds(self) -> bool:
        """Tell whether nobody has committed since: the mark, which is read from the devices at this moment, is the
        same."""
        return commit_mark(self.devices) == self.mark

    def now(self) -> VolumeGroup | None:
        """Return the group as it is now, None when LVM must be asked again. What is active is asked of the kernel."""
        if not self.holds():
            return None
        group = self.report.group
        try:
            mapped = {device.volume: device.opened > 0 for device in devices_of(group.uuid)}
        except OSError:
            return None

        def updated(volume: LogicalVolume) -> LogicalVolume:
            opened = mapped.get(self.report.plain(volume.name))
            if (volume.active, volume.open) == (opened is not None, bool(opened)):
                return volume
            return volume._replace(active=opened is not None, open=bool(opened))

        return group._replace(volumes={name: updated(volume) for name, volume in group.volumes.items()})

    def is_device(self, name: str, path: str, host: str) -> bool:
        """Tell whether the device of that name is the volume as it lies now, and the host may use the group."""
        volume = self.report.group.volumes.get(name)
        if volume is None or not volume.ranges or self.report.group.system_id not in ("", host) or not self.holds():
            return False
        return lies_there(path, uuid_of(self.report.group.uuid, self.report.uuids[name]), volume.ranges)

    def place(self, size: int) -> Place | None:
        """Return the smallest piece of free room in which a volume of that size fits, None when there is none or LVM
        must be asked again."""
        extent = self.report.group.extent_bytes
        wanted = -(-size // extent) * extent
        fitting = [room for room in self.report.room if room.length >= wanted > 0 and ":" not in room.device]
        if not fitting or not self.holds():
            return None
        room = min(fitting, key=lambda room: (room.length, room.device, room.start))
        first = (room.start - self.report.starts[room.device]) // extent
        try:
            label = label_of(room.device)
        except (OSError, ValueError):
            return None
        last = first + wanted // extent - 1
        return Place(room._replace(length=wanted), f"{room.device}:{first}-{last}", label)
