"""Volumes of a repository on LVM: one linear logical volume each, active only while it is used.

A volume that is made holds what was on the devices before. A raw one is zeroed as a whole, but only behind the end of
its image when whoever fills it leaves no byte of that as it is; of a qcow2 one everything that is read before it is
written. A raw volume is as long as the tag dw.s says; the rest of its last extent is nobody's. How a volume gets longer
and shorter is said in ``extents``, who uses it on this host in ``activation``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from engine.data.model import VolumeFormat, aligned, require_id
from engine.data.records import VolumeRef
from engine.doors.images import Layer
from engine.doors.users import User
from engine.doors.volume_groups import LogicalVolume, PhysicalRange, VolumeGroup, users_of
from engine.errors import Conflict, Damaged, DiskwrightError, StorageError, from_os_error, from_os_errors
from engine.formats.base import VolumeFacts, backing_name, unverified
from engine.formats.lvm.group import Group
from engine.formats.lvm.guard import Guard
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.volumes.activation import Activation
from engine.formats.lvm.volumes.places import Places, opened
from engine.formats.lvm.volumes.refcounts import end_of_data
from engine.formats.lvm.volumes.sizes import in_extents, known, most_bytes, require_free
from engine.tools.qemu.qcow2 import HEADER_READ_BYTES, Header, fresh_image, parse_header

_FIRST_READ_BYTES = 4096


class Volumes:
    """The volumes of one repository."""

    def __init__(self, group: Group, guard: Guard, activation: Activation) -> None:
        self._group = group
        self._groups = group.doors.volume_groups
        self._guard = guard
        self._activation = activation

    # -- looking

    def listing(self) -> object:
        """Return a report of the group."""
        return self._group.report()

    def facts(self, volume: str, format: VolumeFormat, listing: object = None, at_rest: object = None) -> VolumeFacts:
        """Look into LVM's report; the header of a qcow2 is read from where its first extent lies."""
        require_id(volume, "volume")
        try:
            report = listing if isinstance(listing, VolumeGroup) else self._group.report()
            return self._look(volume, format, report)
        except DiskwrightError as error:
            return VolumeFacts(volume, format, True, problem=error.message, unreadable=True)

    def _look(self, volume: str, format: VolumeFormat, report: VolumeGroup) -> VolumeFacts:
        found = report.volumes.get(layout.volume_name(volume))
        if found is None:
            return VolumeFacts(volume, format, False)
        facts = VolumeFacts(volume, format, True, found.size, found.size, thick=True)
        parsed = layout.parse_tags(found.tags)
        if parsed is None or parsed[0] is not format:
            there = f"its tags say {parsed[0]}" if parsed else "its tags make no sense"
            return facts._replace(problem=f"{there}, its record says {format}")
        if not found.ranges:
            return facts._replace(problem=report.lacks(), unreadable=True)
        if format is VolumeFormat.RAW:
            return facts._replace(length=min(parsed[1], found.size))
        try:
            header, problem = self._header(found)
            in_use = end_of_data(partial(self._group.read, found), header, found.size) if header is not None else None
        except OSError as error:
            return facts._replace(problem=from_os_error(error, "read it").message, unreadable=True)
        facts = facts._replace(header=header, backing_name=header.backing_name if header is not None else None)
        if in_use is not None and in_use > found.size:
            now = self._group.report()
            again = now.volumes.get(found.name)
            if again is None or again.size != found.size:
                return self._look(volume, format, now)  # somebody made it longer, and wrote there
            shorter = f"it was made shorter: it has data up to byte {in_use}, and {found.size} bytes"
            return facts._replace(problem=problem or shorter)
        if in_use is not None:
            in_use = min(found.size, in_extents(in_use, report))
        return facts._replace(problem=problem, in_use=in_use)

    def _header(self, volume: LogicalVolume) -> tuple[Header | None, str]:
        problem = ""
        for length in (_FIRST_READ_BYTES, HEADER_READ_BYTES):
            try:
                return parse_header(self._group.read(volume, 0, length), volume.size), ""
            except Damaged as error:
                problem = error.message
        return None, problem

    # -- making and removing

    def make(
        self,
        volume: VolumeRef,
        size: int,
        backing_format: VolumeFormat | None,
        verify: Callable[[], None] = unverified,
        filled: bool = False,
    ) -> None:
        """Make a logical volume that has its tags from the start, sync, zero it as far as needed, and sync."""
        require_id(volume.id, "volume")
        verify()
        assert volume.format is VolumeFormat.QCOW2 or not volume.parent, "a raw volume has no parent"
        size = aligned(size)
        user = self._activation.keep(volume)  # it is written where it lies: its note must not be taken back meanwhile
        try:
            with self._guard.changing() as report:
                length = in_extents(most_bytes(volume.format, size), report)
                lies = self._make_room_for(volume, size, length, report)
            with from_os_errors(f"make volume {volume.id}"), opened(self._groups, lies) as device:
                if volume.format is VolumeFormat.RAW:
                    first = size if filled else 0
                    device.zero(first, length - first)
                else:
                    _write_empty(device, volume, size, backing_format)
                device.sync()
        finally:
            user.release()

    def _make_room_for(
        self, volume: VolumeRef, size: int, length: int, report: VolumeGroup
    ) -> tuple[PhysicalRange, ...]:
        """Make a logical volume of the volume's name, whose bytes are as they are on the devices; return where it
        lies."""
        name = layout.volume_name(volume.id)
        there = report.volumes.get(name)
        self._activation.some_active = any(
            found.active and layout.parse_volume(found.name) for found in report.volumes.values()
        )
        require_free(report, length - (there.size if there else 0))
        if there is not None:
            self._out_of_the_way(volume.id, there)
        self._activation.note(volume.id)
        lies = self._groups.create(self._group.name, name, length, layout.volume_tags(volume.format, size))
        self._group.sync()  # before anything is written there: a power cut must not give the place back to another
        return lies or known(volume, self._group.report())[0].ranges

    def _out_of_the_way(self, volume: str, there: LogicalVolume) -> None:
        """Take the name from a volume of that name, if there is one: whoever still has it open goes on using that
        one."""
        self._activation.let_go(volume)
        if not self._guard.may_be_written(volume):
            try:
                self._delete(there)
            except StorageError:
                pass
            else:
                return
        self._park(volume, there.name)

    def _park(self, volume: str, name: str) -> None:
        """Give a volume another name, and its space away only when nobody can write there any more."""
        old = layout.old_name(volume, self._group.doors.ids.new_id()[:8])
        self._groups.rename(self._group.name, name, old)

    def remove(self, volume: str, format: VolumeFormat) -> None:
        """Make one commit of LVM and a sync of its devices, the latter also when the volume was gone."""
        name = layout.volume_name(require_id(volume, "volume"))
        with self._guard.changing() as report:
            if name in report.volumes:
                self.remove_unused(volume, report.volumes[name])
            self._group.sync()

    def remove_unused(self, volume: str, found: LogicalVolume) -> bool:
        """Remove a logical volume that stands for ``volume``, or park it while another host may write to it: then
        False. Conflict while a process of this host uses it. The caller may change the group."""
        self._activation.let_go(volume)
        lease = self._activation.try_alone(volume)
        if lease is None:
            raise Conflict(f"volume {volume} is in use on this host", "Wait for what uses it, and try again")
        try:
            if not self._guard.may_be_written(volume):
                self._delete(found)
                self._activation.unnote(volume)
                return True
            if not layout.is_old(found.name):
                self._groups.deactivate(self._group.name, found.name)
                self._park(volume, found.name)
            return False
        finally:
            lease.release()

    def _delete(self, found: LogicalVolume) -> None:
        """Remove a logical volume; one whose adoption has not ended is its owner's, whatever has become of its record:
        it gets the name again that it had."""
        former = layout.parse_former(found.tags)
        if former is None:
            self._groups.remove(self._group.name, found.name)
        else:
            self._group.give_back(found, former)

    def quarantine(self, volume: str, format: VolumeFormat) -> None:
        """Rename the logical volume to ``dwlost-<volume>``."""
        require_id(volume, "volume")
        self._rename(volume, layout.volume_name(volume), layout.lost_name(volume))

    def put_back(self, volume: str, format: VolumeFormat) -> None:
        """Rename it back."""
        require_id(volume, "volume")
        self._rename(volume, layout.lost_name(volume), layout.volume_name(volume))

    def _rename(self, volume: str, name: str, other: str) -> None:
        with self._guard.changing() as report:
            if name in report.volumes and other in report.volumes:
                raise StorageError(f"volume {volume} is there twice, as {name} and {other}", "Look at both")
            if name in report.volumes:
                self._activation.let_go(volume)
                self._groups.rename(self._group.name, name, other)
            elif other not in report.volumes:
                raise StorageError(f"volume {volume} is not there", "Check again")
            self._group.sync()

    # -- using

    def layer(self, volume: VolumeRef) -> Layer:
        """Activate and hold the device until it is let go."""
        require_id(volume.id, "volume")
        there = self._activation.layer(volume.id)
        if there is not None:
            return there
        report = self._group.report()
        self._guard.using(report)
        found, size = known(volume, report)
        length = min(size, found.size) if volume.format is VolumeFormat.RAW else 0
        return self._activation.activate(volume, found.name, length)

    def stamp(self, volume: VolumeRef) -> None:
        """Return None: neither LVM nor a device notes when it was written."""

    def users(self, volume: VolumeRef) -> list[User]:
        """Ask the kernel of this host whether the device is open, and by whom; and read whether other hosts have handed
        it out. What a dead host may still do is told by ``late_writer``."""
        name = layout.volume_name(require_id(volume.id, "volume"))
        found = self._group.report().volumes.get(name)
        here = users_of(self._groups, self._group.name, found) if found is not None else []
        return [*here, *self._guard.handed_out_elsewhere().get(volume.id, ())]

    def guard(self, volume: VolumeRef, writable: bool) -> None:
        """Return None: a lock on a device is of one host, which has its lock of use for that."""

    def guarded(self, volume: VolumeRef) -> bool:
        """Return False: who has it handed out has a lock of use."""
        return False

    def late_writer(self, volume: VolumeRef) -> str:
        """Believe what the hosts say themselves that they have active."""
        return self._guard.may_be_written(require_id(volume.id, "volume"))


def _write_empty(device: Places, volume: VolumeRef, size: int, backing_format: VolumeFormat | None) -> None:
    name = backing_name(volume.parent) if volume.parent else None
    image = fresh_image(size, name, str(backing_format) if name and backing_format else None)
    device.zero(0, image.length)
    for offset, data in image.pieces:
        device.write_at(offset, data + bytes(-len(data) % 4096))
