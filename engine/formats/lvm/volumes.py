"""Volumes of a repository on LVM: one linear logical volume each, active only while it is used.

A volume that is made holds what was on the devices before. A raw one is zeroed as a whole, but only behind the end of
its image when whoever fills it leaves no byte of that as it is; of a qcow2 one everything that is read before it is
written. A raw volume is as long as the tag dw.s says; the rest of its last extent is nobody's. A qcow2 volume has room
for all data that its image can hold (``make_room``) until ``reduce`` takes away what a snapshot will never use.

Whoever uses a volume on this host holds a shared lock on it (``hold``), and so does every process
that goes on using it; who gets the exclusive one may deactivate it.
"""

from __future__ import annotations

from engine.data.model import VolumeFormat, aligned
from engine.data.records import VolumeRef
from engine.doors.images import Layer
from engine.doors.leases import Lease
from engine.doors.volume_groups import BlockHandle, LogicalVolume, PhysicalRange, VolumeGroup
from engine.errors import Conflict, Damaged, NoSpace, StorageError, from_os_error
from engine.formats.base import VolumeFacts, backing_name
from engine.formats.files.layout import lease_key
from engine.formats.files.tree import doing
from engine.formats.lvm.group import Group, HostLocks
from engine.formats.lvm.guard import Guard
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.places import Places, opened
from engine.formats.lvm.refcounts import end_of_data
from engine.tools.qemu.qcow2 import HEADER_READ_BYTES, Header, fresh_image, parse_header

_FIRST_READ_BYTES = 4096
_METADATA_RESERVE_BYTES = 16 * 1024
"""LVM writes its metadata twice and needs room for both; a volume takes some hundred bytes."""

_ID_DIGITS = 32
_PATIENCE_S = 20.0
_LOOK_AGAIN_S = 0.02


class Volumes:
    """The volumes of one repository."""

    def __init__(self, group: Group, guard: Guard) -> None:
        self._group = group
        self._groups = group.doors.volume_groups
        self._guard = guard
        self._users = HostLocks(group.doors, group.run_path("users"))
        self._used: dict[str, tuple[Lease, Layer]] = {}
        self._noted: set[str] = set()
        self._some_active = False
        """When a volume was made here, others were active: what uses them may be dead."""

    # -- looking

    def facts(self, volume: str, format: VolumeFormat, report: VolumeGroup) -> VolumeFacts:
        """A look at one volume without activation."""
        found = report.volumes.get(layout.volume_name(volume))
        if found is None:
            return VolumeFacts(volume, format, False)
        facts = VolumeFacts(volume, format, True, found.size, found.size, thick=True)
        parsed = layout.parse_tags(found.tags)
        if parsed is None or parsed[0] is not format:
            there = f"its tags say {parsed[0]}" if parsed else "its tags make no sense"
            return facts._replace(problem=f"{there}, its record says {format}")
        if not found.ranges:
            return facts._replace(problem="it is not linear", unreadable=True)
        if format is VolumeFormat.RAW:
            return facts._replace(length=min(parsed[1], found.size))
        try:
            header, problem = self._header(found)
            in_use = end_of_data(self._reader(found), header, found.size) if header is not None else None
        except OSError as error:
            return facts._replace(problem=from_os_error(error, "read it").message, unreadable=True)
        if in_use is not None:
            in_use = min(found.size, _rounded(in_use, report))
        return facts._replace(header=header, problem=problem, in_use=in_use)

    def _header(self, volume: LogicalVolume) -> tuple[Header | None, str]:
        problem = ""
        for length in (_FIRST_READ_BYTES, HEADER_READ_BYTES):
            try:
                return parse_header(self._group.read(volume, 0, length), volume.size), ""
            except Damaged as error:
                problem = error.message
        return None, problem

    def _reader(self, volume: LogicalVolume) -> _Reader:
        return _Reader(self._group, volume)

    # -- making and removing

    def require_room(self, format: VolumeFormat, size: int) -> None:
        """Return if a volume for an image of that size can be made now and here. Refused, NoSpace, StorageError."""
        with self._guard.changing() as report:
            self._require_free(report, _rounded(_bytes(format, size), report))

    def make(self, volume: VolumeRef, size: int, backing_format: VolumeFormat | None, filled: bool) -> None:
        """See ``Repository.make_volume``."""
        assert volume.format is VolumeFormat.QCOW2 or not volume.parent, "a raw volume has no parent"
        size = aligned(size)
        user = self.hold(volume)  # it is written where it lies: its note must not be taken back meanwhile
        try:
            with self._guard.changing() as report:
                length = _rounded(_bytes(volume.format, size), report)
                lies = self._make_room_for(volume, size, length, report)
            with doing(f"make volume {volume.id}"), opened(self._groups, lies) as device:
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
        """A logical volume of its name, whose bytes are whatever is there; where it lies."""
        name = layout.volume_name(volume.id)
        there = report.volumes.get(name)
        self._some_active = any(found.active and layout.parse_volume(found.name) for found in report.volumes.values())
        self._require_free(report, length - (there.size if there else 0))
        if there is not None:
            self._out_of_the_way(volume.id, name)
        self._note(volume.id)
        lies = self._groups.create(self._group.name, name, length, layout.volume_tags(volume.format, size))
        self._group.sync()  # before anything is written there: a power cut must not give the place back to another
        return lies or self._known(volume, self._group.report())[0].ranges

    def _out_of_the_way(self, volume: str, name: str) -> None:
        """Who still has the old one open goes on using that, and nothing else."""
        self._let_go(volume)
        if not self._guard.may_be_written(volume):
            try:
                self._groups.remove(self._group.name, name)
            except StorageError:
                pass
            else:
                return
        self._park(volume, name)

    def _park(self, volume: str, name: str) -> None:
        """Its space is not given away before nobody can write there any more."""
        old = layout.old_name(volume, self._group.doors.ids.new_id()[:8])
        self._groups.rename(self._group.name, name, old)

    def remove(self, volume: str) -> None:
        """See ``Repository.remove_volume``."""
        name = layout.volume_name(volume)
        with self._guard.changing() as report:
            if name in report.volumes:
                self.remove_unused(volume, name)
            self._group.sync()

    def remove_unused(self, volume: str, name: str) -> bool:
        """Remove a logical volume that stands for ``volume``, or park it while another host may write to it: then
        False. Conflict while a process of this host uses it. The caller may change the group."""
        self._let_go(volume)
        lease = self._users.try_acquire(lease_key(volume))
        if lease is None:
            raise Conflict(f"volume {volume} is in use on this host", "Wait for what uses it, and try again")
        try:
            if not self._guard.may_be_written(volume):
                self._groups.remove(self._group.name, name)
                self._unnote(volume)
                return True
            if not layout.is_old(name):
                self._groups.deactivate(self._group.name, name)
                self._park(volume, name)
            return False
        finally:
            lease.release()

    def quarantine(self, volume: str) -> None:
        """See ``Repository.quarantine_volume``."""
        name, lost = layout.volume_name(volume), layout.lost_name(volume)
        with self._guard.changing() as report:
            if name in report.volumes:
                self._let_go(volume)
                self._groups.rename(self._group.name, name, lost)
            elif lost not in report.volumes:
                raise StorageError(f"volume {volume} is not there", "Check again")
            self._group.sync()

    # -- sizes

    def make_room(self, volume: VolumeRef, size: int) -> None:
        """See ``Repository.make_room``."""
        size = aligned(size)
        report = self._usable()
        found, known = self._known(volume, report)
        length = _rounded(_bytes(volume.format, size), report)
        if found.size < length:
            self._extend(volume, length)
        if volume.format is VolumeFormat.QCOW2 or known >= size:
            return
        with doing(f"grow volume {volume.id}"), self._device(volume) as device:
            device.zero(known, max(length, found.size) - known)
            device.sync()
        with self._guard.changing():
            self._groups.change_tags(self._group.name, found.name, [layout.size_tag(size)], [layout.size_tag(known)])
            self._group.sync()
        if volume.id in self._used:
            lease, layer = self._used[volume.id]
            self._used[volume.id] = lease, layer._replace(length=size)

    def _extend(self, volume: VolumeRef, length: int) -> None:
        with self._guard.changing() as report:
            found, _ = self._known(volume, report)
            if found.size < length:
                self._require_free(report, length - found.size)
                self._groups.resize(self._group.name, found.name, length)
                self._group.sync()

    def reduce(self, volume: VolumeRef) -> int:
        """See ``Repository.reduce``."""
        with self._guard.changing() as report:
            facts = self.facts(volume.id, volume.format, report)
            if facts.problem or facts.in_use is None:
                raise Damaged(f"how much of volume {volume.id} is in use is not known: {facts.problem or 'no qcow2'}")
            if facts.in_use >= facts.length:
                return 0
            host = self._guard.may_be_written(volume.id)
            if host:
                raise Conflict(
                    f"host {host} may still write to volume {volume.id}", "Try again when it is back, or was restarted"
                )
            self._let_go(volume.id)
            lease = self._users.try_acquire(lease_key(volume.id))
            if lease is None:
                raise Conflict(f"volume {volume.id} is in use on this host", "Wait for what uses it, and try again")
            try:
                self._group.sync()  # what is written in it may be on its way: a killed machine flushed nothing
                self._groups.resize(self._group.name, layout.volume_name(volume.id), facts.in_use)
                self._group.sync()
            finally:
                lease.release()
            return facts.length - facts.in_use

    def freeze(self, volume: VolumeRef) -> None:
        """See ``Repository.freeze``."""
        if volume.format is VolumeFormat.QCOW2:
            return
        found, size = self._known(volume, self._usable())
        if size < found.size:
            with doing(f"clear the end of volume {volume.id}"), self._device(volume) as device:
                device.zero(size, found.size - size)
                device.sync()

    def _known(self, volume: VolumeRef, report: VolumeGroup) -> tuple[LogicalVolume, int]:
        found = report.volumes.get(layout.volume_name(volume.id))
        if found is None:
            raise StorageError(f"volume {volume.id} is not there", "diskwright check tells what can be done")
        parsed = layout.parse_tags(found.tags)
        if parsed is None or parsed[0] is not volume.format:
            raise Damaged(f"the tags of volume {volume.id} are not those of a {volume.format} volume")
        return found, parsed[1]

    # -- using

    def layer(self, volume: VolumeRef) -> Layer:
        """See ``Repository.layer``."""
        used = self._used.get(volume.id)
        if used is not None:
            return used[1]
        found, size = self._known(volume, self._usable())
        lease = self.hold(volume)
        try:
            self._note(volume.id)
            path = self._groups.activate(self._group.name, found.name)
        except BaseException:
            lease.release()
            raise
        length = min(size, found.size) if volume.format is VolumeFormat.RAW else 0
        layer = Layer(path, volume.format, True, length)
        self._used[volume.id] = lease, layer
        return layer

    def hold(self, volume: VolumeRef) -> Lease:
        """See ``Repository.hold``. Waits a moment for somebody who is just deactivating it."""
        clock = self._group.doors.clock
        deadline = clock.monotonic() + _PATIENCE_S
        while (lease := self._users.try_acquire(lease_key(volume.id), shared=True)) is None:
            if clock.monotonic() > deadline:
                raise Conflict(f"volume {volume.id} is being taken away by another process of this host", "Try again")
            clock.sleep(_LOOK_AGAIN_S)
        return lease

    def _let_go(self, volume: str) -> None:
        used = self._used.pop(volume, None)
        if used is not None:
            used[0].release()

    def deactivate_unused(self, every: bool) -> list[str]:
        """Deactivate what nobody on this host uses; returns the names of what is still in use. Without ``every``
        only when this object has used or made something; what processes that died left is then found too."""
        if not self._used and not self._some_active and not every:
            for volume in list(self._noted):  # made, and never active
                self._deactivate(volume, "")
            return []
        for volume in list(self._used):
            self._let_go(volume)
        self._some_active = False
        busy = []
        active = [found.name for found in self._group.report().volumes.values() if found.active]
        for name in active:
            id = layout.parse_volume(name)
            if id is not None and not self._deactivate(id, name):
                busy.append(name)
        # Also of volumes that other hosts have removed since, or that a process noted and then died.
        for volume in self._guard.noted().difference(name.partition("-")[2][:_ID_DIGITS] for name in active):
            self._deactivate(volume, "")
        return busy

    def _deactivate(self, volume: str, name: str) -> bool:
        """Whether nobody uses it; "" for the name of one that is not active."""
        lease = self._users.try_acquire(lease_key(volume))
        if lease is None:
            return False
        try:
            if name:
                self._groups.deactivate(self._group.name, name)
            self._unnote(volume)
        except StorageError:
            return False  # a program that knows nothing of our locks has it open
        finally:
            lease.release()
        return True

    # -- inside

    def _device(self, volume: VolumeRef) -> BlockHandle:
        return self._groups.open_device(self.layer(volume).path, writable=True)

    def _usable(self) -> VolumeGroup:
        """The group, if this host may use volumes of it."""
        report = self._group.report()
        self._guard.using(report)
        return report

    def _note(self, volume: str) -> None:
        """Other hosts know that this one may write to it. Before it can."""
        self._guard.note(volume)
        self._noted.add(volume)

    def _unnote(self, volume: str) -> None:
        self._noted.discard(volume)
        self._guard.unnote(volume)

    @staticmethod
    def _require_free(report: VolumeGroup, wanted: int) -> None:
        if report.partial:
            raise StorageError(f"a device of the volume group {report.name} is missing", "Bring it back")
        if wanted > report.free:
            raise NoSpace(
                f"{report.name} has {report.free} free bytes, {wanted} are needed",
                "Make room (check lists what can be cleaned), or add a device to the group",
            )
        if report.metadata_free < _METADATA_RESERVE_BYTES:
            raise NoSpace(
                f"LVM's metadata area of {report.name} is nearly full ({report.metadata_free} bytes are left)",
                "Remove images and clean, or move to a group with larger metadata areas",
            )


class _Reader:
    """A volume as bytes at any offset."""

    def __init__(self, group: Group, volume: LogicalVolume) -> None:
        self._group = group
        self._volume = volume

    def __call__(self, offset: int, length: int) -> bytes:
        start = offset // 4096 * 4096
        end = -(-(offset + length) // 4096) * 4096
        return self._group.read(self._volume, start, end - start)[offset - start : offset - start + length]


def _bytes(format: VolumeFormat, size: int) -> int:
    """What a volume for an image of that size needs at most."""
    size = aligned(size)
    return layout.qcow2_bytes(size) if format is VolumeFormat.QCOW2 else size


def _rounded(length: int, report: VolumeGroup) -> int:
    return -(-length // report.extent_bytes) * report.extent_bytes


def _write_empty(device: Places, volume: VolumeRef, size: int, backing_format: VolumeFormat | None) -> None:
    name = backing_name(volume.parent) if volume.parent else None
    image = fresh_image(size, name, str(backing_format) if name and backing_format else None)
    device.zero(0, image.length)
    for offset, data in image.pieces:
        device.write_at(offset, data + bytes(-len(data) % 4096))
