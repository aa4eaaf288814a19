"""The LVM door of a simulated process, over files of the simulated storage.

A device is a file ``/srv/<directory>/<name>``; LVM's metadata of a group is a file ``metadata`` beside
its first device, so the crash states of both are those of the storage. A command changes the
metadata in one operation, all of it or nothing, which is durable after ``sync`` only; of several that are not
durable the first ones may survive, as many as there are. What is written to a
device and not synced persists, vanishes or is torn sector by sector (``SimStorage.devices``). Nothing zeroes
a new volume: it shows what was there.

Which volumes are active, and who has them open, is this host's and gone when it boots. An open
volume keeps meaning itself when it is renamed. Not modelled: missing devices, LVM's own locks,
device tables that are older than the metadata, metadata that a power cut makes unreadable (real LVM leaves
that now and then; its own tools put the last state back, which is one of those here: ``sim.trials.powercut``).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self
from zlib import crc32

from engine.doors.files import Access, Kind, Stat
from engine.doors.users import User
from engine.doors.volume_groups import BLOCK_BYTES, PhysicalRange, VolumeGroup
from engine.errors import BadRequest, Conflict, NotFound, Refused, StorageError, ToolFailed
from sim.disk.content import Content, Segment
from sim.disk.files import Fault
from sim.disk.nodes import DataOp, fail
from sim.disk.storage import SimStorage
from sim.lvm import group_model as model
from sim.lvm.group_model import Group
from sim.lvm.users import Process

DEVICE_ROOT = "/dev/"
METADATA = "metadata"
METADATA_FILE_BYTES = 256 * 1024
GARBAGE = 0xA5
"""What is on a device that nobody has used yet."""


def make_device(storage: SimStorage, path: str, size: int) -> None:
    """A device full of garbage, and the place for the metadata of a group on it. Durable with the next settle."""
    inode = storage.create(path)
    storage.change(inode, DataOp(0, "fill", 0, size, GARBAGE), path)
    storage.devices = storage.devices | {inode}
    place = _metadata_path(path)
    storage.change(storage.create(place), DataOp(0, "truncate", 0, METADATA_FILE_BYTES, 0), place)


def _metadata_path(device: str) -> str:
    return f"{device.rpartition('/')[0]}/{METADATA}"


def groups_of(storage: SimStorage) -> dict[str, Group]:
    """All groups on a storage, by the path of their metadata."""
    found = {}
    for path, _, _ in storage.walk():
        if path.endswith(f"/{METADATA}"):
            group = group_in(storage.file(path)[1].content)
            if group is not None:
                found[path] = group
    return found


_known: dict[Content, Group | None] = {}


def group_in(content: Content) -> Group | None:
    """The group in a metadata area, None when there is none."""
    if content not in _known:
        if len(_known) > 2000:
            _known.clear()
        _known[content] = model.from_bytes(content.read(0, METADATA_FILE_BYTES))
    return _known[content]


def _flush(storage: SimStorage, paths: Iterable[str], fault: Fault) -> None:
    """Make durable what was written to devices, or lose it where flushing fails."""
    for path in paths:
        inode, _ = storage.file(path)
        if fault is Fault.SYNC_FAILS:
            storage.lose_pending(inode)
        else:
            storage.sync(inode)


class SimDevice:
    """An open device: a ``BlockHandle``, and what the simulated qemu needs of a file."""

    def __init__(self, owner: SimVolumeGroups, path: str, writable: bool, uuid: str) -> None:
        self.path = path
        self._owner = owner
        self._process = owner.process
        self._storage = owner.storage
        self.writable = writable
        self.uuid = uuid
        self._closed = False
        self._count(+1)
        self._process.files.handles.add(self)  # type: ignore[arg-type] # closed when the process ends

    @property
    def size(self) -> int:
        return sum(part.length for part in self._ranges())

    def give(self, access: Access) -> None:
        self._enter("handle.give")  # there is one user here

    def read_at(self, offset: int, length: int) -> bytes:
        self._enter("handle.read_at")
        parts = [
            self._storage.file(part.device)[1].content.read(part.start, part.length)
            for part in self._pieces(offset, length, errno.EIO)
        ]
        return b"".join(parts)

    def write_at(self, offset: int, data: bytes) -> None:
        fault = self._enter("handle.write_at")
        data = bytes(data)
        if fault is Fault.SHORT and len(data) > 1:
            half = len(data) // 2
            self._write(offset, data[:half])
            self._enter("handle.write_at")
            offset, data = offset + half, data[half:]
        self._write(offset, data)

    def _write(self, offset: int, data: bytes) -> None:
        done = 0
        for device, start, length in self._pieces(offset, len(data), errno.ENOSPC):
            self._change(device, DataOp(0, "write", start, length, data[done : done + length]))
            done += length

    def zero(self, offset: int, length: int) -> None:
        self.fill(offset, length, 0)

    def fill(self, offset: int, length: int, byte: int) -> None:
        """Write ``byte`` so many times, at no cost."""
        self._enter("handle.write_at")
        for device, start, count in self._pieces(offset, length, errno.ENOSPC):
            self._change(device, DataOp(0, "fill", start, count, byte))

    def sync(self) -> None:
        fault = self._enter("handle.sync")
        _flush(self._storage, {part.device for part in self._ranges()}, fault)
        if fault is Fault.SYNC_FAILS:
            raise fail(errno.EIO, self.path)

    def close(self) -> None:
        """Idempotent; a dead process may do it."""
        if not self._closed:
            self._closed = True
            self._count(-1)
            self._process.files.handles.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- for the simulated qemu

    def stat(self) -> Stat:
        self._enter("handle.stat")
        identity = crc32(f"{self._process.host.name} {self.uuid}".encode())  # locks are those of a host
        return Stat(Kind.OTHER, self.size, self.size, identity, 1, 0, -1)

    def lock(self) -> bool:
        return True

    def held_path(self) -> str:
        return self.path

    def truncate(self, size: int) -> None:
        raise fail(errno.EINVAL, self.path)

    def punch(self, offset: int, length: int) -> None:
        raise fail(errno.EOPNOTSUPP, self.path)

    def segments(self, offset: int = 0, length: int | None = None) -> list[Segment]:
        """A device has no holes."""
        self._enter("handle.segments")
        end = self.size if length is None else min(self.size, offset + length)
        return [Segment(offset, end - offset, True, False)] if offset < end else []

    # -- inside

    def _ranges(self) -> tuple[PhysicalRange, ...]:
        return self._owner.ranges(self.uuid, self.path)

    def _pieces(self, offset: int, length: int, beyond: int) -> list[PhysicalRange]:
        found, start = [], 0
        for device, at, count in self._ranges():
            low, high = max(offset, start), min(offset + length, start + count)
            if low < high:
                found.append(PhysicalRange(device, at + low - start, high - low))
            start += count
        if offset < 0 or offset + length > start:
            raise fail(beyond, self.path)
        return found

    def _change(self, device: str, op: DataOp) -> None:
        if not self.writable:
            raise fail(errno.EBADF, self.path)
        inode, _ = self._storage.file(device)
        self._storage.change(inode, op, device)

    def _enter(self, call: str) -> Fault:
        fault = self._process.enter(call, self.path)
        if self._closed:
            raise fail(errno.EBADF, self.path)
        return fault

    def _count(self, change: int) -> None:
        opened = self._process.host.opened
        opened[self.uuid] = opened.get(self.uuid, 0) + change


class AlignedDevice(SimDevice):
    """As the door promises it: what is not aligned is an error of the program."""

    def read_at(self, offset: int, length: int) -> bytes:
        _require_aligned(offset, length)
        return super().read_at(offset, length)

    def write_at(self, offset: int, data: bytes) -> None:
        _require_aligned(offset, len(data))
        super().write_at(offset, data)

    def zero(self, offset: int, length: int) -> None:
        _require_aligned(offset, length)
        super().zero(offset, length)


def _require_aligned(offset: int, length: int) -> None:
    assert offset % BLOCK_BYTES == length % BLOCK_BYTES == 0, f"{length} bytes at {offset} are not aligned"


class SimVolumeGroups:
    """The ``VolumeGroups`` of one process."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.storage: SimStorage = process.files.storage
        self._active = process.host.active
        self._opened = process.host.opened

    @property
    def system_id(self) -> str:
        return f"{self.former_system_id}.{self.process.host.nonce[:8]}"

    @property
    def former_system_id(self) -> str:
        return f"dw-{self.process.host.called}"

    # -- the group

    def report(self, group: str) -> VolumeGroup:
        self.process.enter("volume_groups.report", f"{DEVICE_ROOT}{group}")
        _, found = self._find(group)
        return found.report(self._active, [uuid for uuid, count in self._opened.items() if count], self._missing(found))

    def create_group(self, group: str, devices: Sequence[str], system_id: str) -> None:
        self._enter("create_group", group)
        if any(found.name == group for found in groups_of(self.storage).values()):
            raise Conflict(f"there is a volume group {group} already")
        place = _metadata_path(devices[0])
        try:
            if group_in(self.storage.file(place)[1].content) is not None:
                raise Conflict(f"the device {devices[0]} is in use")
            sizes = [(path, self._extents(path)) for path in devices]
        except FileNotFoundError:
            raise BadRequest(f"there is no device {devices[0]}") from None
        self._commit(place, Group(group, f"uuid-{group}", system_id, tuple(sizes)))

    def _extents(self, device: str) -> int:
        return (self.storage.file(device)[1].content.size - model.RESERVED_BYTES) // model.EXTENT_BYTES

    def set_system_id(self, group: str, system_id: str, present: str) -> None:
        self._enter("set_system_id", group)
        place, found = self._find(group)
        if found.system_id != present:
            if found.system_id == system_id:
                return
            raise Conflict(f"the system id of {group} is {found.system_id}")
        self._commit(place, found._replace(system_id=system_id))

    def sync(self, group: str) -> None:
        fault = self.process.enter("volume_groups.sync", f"{DEVICE_ROOT}{group}")
        place, found = self._find(group)
        if self._missing(found):
            raise _incomplete(f"make {group} durable")
        _flush(self.storage, (place, *(path for path, _ in found.devices)), fault)
        if fault is Fault.SYNC_FAILS:
            raise StorageError(f"the devices of {group} cannot be flushed")

    # -- volumes

    def create(self, group: str, name: str, size: int, tags: Sequence[str]) -> tuple[PhysicalRange, ...]:
        self._change("create", group, name, lambda found: found.created(name, size, tags))
        _, made = self._find(group)
        return made.ranges(made.volume(name))

    def resize(self, group: str, name: str, size: int) -> None:
        self._change("resize", group, name, lambda found: found.resized(name, size))

    def change_tags(self, group: str, name: str, add: Sequence[str], remove: Sequence[str]) -> None:
        self._change("change_tags", group, name, lambda found: found.tagged(name, add, remove))

    def set_autoactivation(self, group: str, name: str, wanted: bool) -> None:
        self._change("set_autoactivation", group, name, lambda found: found.autoactivating(name, wanted))

    def rename(self, group: str, name: str, new: str) -> None:
        self._change("rename", group, name, lambda found: found.renamed(name, new))

    def remove(self, group: str, name: str) -> None:
        def removed(found: Group) -> Group:
            volume = found.volumes.get(name)
            if volume is not None:
                self._not_open(group, name, volume.uuid)
                self._active.discard(volume.uuid)
            return found.removed(name)

        self._change("remove", group, name, removed)

    def activate(self, group: str, name: str) -> str:
        self.process.enter("volume_groups.activate", f"{DEVICE_ROOT}{group}/{name}")
        found = self._ours(group)[1]
        if not found.whole(found.volume(name), self._missing(found)):
            raise _incomplete(f"activate {group}/{name}")
        self._active.add(found.volume(name).uuid)
        return f"{DEVICE_ROOT}{group}/{name}"

    def deactivate(self, group: str, name: str) -> None:
        self._take_away(group, name)

    def deactivate_each(self, group: str, names: Sequence[str]) -> list[str]:
        stay = []
        for name in names:
            try:
                self._take_away(group, name)
            except StorageError:
                stay.append(name)
        return stay

    def _take_away(self, group: str, name: str) -> None:
        self.process.enter("volume_groups.deactivate", f"{DEVICE_ROOT}{group}/{name}")
        volume = self._find(group)[1].volumes.get(name)
        if volume is not None:
            self._not_open(group, name, volume.uuid)
            self._active.discard(volume.uuid)

    def remove_devices(self, uuid: str) -> list[str]:
        self.process.enter("volume_groups.remove_devices", uuid)
        here = sorted(volume for volume in self._active if volume.startswith(f"{uuid}-"))
        busy = [volume for volume in here if self._opened.get(volume, 0)]
        self._active.difference_update(set(here) - set(busy))
        return busy

    # -- devices

    def users(self, group: str, name: str) -> list[User]:
        """Look at what the other processes of the host have open."""
        self._enter("users", f"{group}/{name}")
        try:
            uuid = self._uuid(f"{DEVICE_ROOT}{group}/{name}")
        except OSError:
            return []  # it is not active
        found: dict[int, User] = {}
        for other in self.process.host.processes.values():
            for handle in other.files.handles if other is not self.process else ():
                if isinstance(handle, SimDevice) and handle.uuid == uuid:
                    pid = other.identity.pid
                    writes = handle.writable or (pid in found and found[pid].writes)
                    found[pid] = User(pid, other.name, writes)
        return list(found.values())

    def open_device(self, path: str, writable: bool = False) -> SimDevice:
        return AlignedDevice(self, path, writable, self._uuid(path, writable))

    def open_block(self, path: str, writable: bool) -> SimDevice:
        """Open a device for the simulated qemu, which reads and writes any bytes."""
        return SimDevice(self, path, writable, self._uuid(path, writable))

    def _uuid(self, path: str, writable: bool = False) -> str:
        self.process.enter("volume_groups.open_device", path)
        if not path.startswith(DEVICE_ROOT):
            self.storage.file(path)
            return path
        group, _, name = path.removeprefix(DEVICE_ROOT).partition("/")
        for found in groups_of(self.storage).values():
            if found.name == group and name in found.volumes and found.volumes[name].uuid in self._active:
                if writable and found.volumes[name].read_only:
                    raise fail(errno.EACCES, path)
                return found.volumes[name].uuid
        raise fail(errno.ENOENT, path)

    def ranges(self, uuid: str, path: str) -> tuple[PhysicalRange, ...]:
        """Where an open device lies now."""
        if uuid == path:
            return (PhysicalRange(path, 0, self.storage.file(path)[1].content.size),)
        for found in groups_of(self.storage).values():
            for volume in found.volumes.values():
                if volume.uuid == uuid:
                    return found.ranges(volume)
        raise fail(errno.EIO, path)

    def attach_files(self, files: Sequence[str], sector_bytes: int, file_bytes: int = 0) -> list[str]:
        raise BadRequest("the simulator has no loop devices")

    def detach_files(self, files: Sequence[str]) -> None:
        """Do nothing: the simulator has no loop devices."""

    # -- inside

    def _find(self, group: str) -> tuple[str, Group]:
        for place, found in groups_of(self.storage).items():
            if found.name == group:
                return place, found
        raise NotFound(f"there is no volume group {group}")

    def _missing(self, found: Group) -> frozenset[str]:
        """The devices of a group that this machine does not see."""
        away = set()
        for path, _ in found.devices:
            try:
                self.storage.file(path)
            except FileNotFoundError:
                away.add(path)
        return frozenset(away)

    def _ours(self, group: str) -> tuple[str, Group]:
        place, found = self._find(group)
        if found.system_id not in ("", self.system_id):
            raise Refused(f"the volume group {group} belongs to host {found.system_id}")
        return place, found

    def _enter(self, verb: str, group: str, name: str = "") -> None:
        what = os.path.join(DEVICE_ROOT, group, name).rstrip("/")
        self.process.enter(f"volume_groups.{verb}", what)

    def _change(self, verb: str, group: str, name: str, derive: Callable[[Group], Group]) -> None:
        self._enter(verb, group, name)
        place, found = self._ours(group)
        if self._missing(found):
            raise _incomplete(f"change {group}")
        self._commit(place, derive(found))

    def _commit(self, place: str, group: Group) -> None:
        text = group.to_bytes()
        assert len(text) <= METADATA_FILE_BYTES, "too many volumes for the simulated metadata area"
        inode, node = self.storage.file(place)
        content = Content(0, ()).write(0, text).truncate(METADATA_FILE_BYTES)
        if not content.same(node.content):
            self.storage.change(inode, DataOp(0, "clone", 0, METADATA_FILE_BYTES, content), place)

    def _not_open(self, group: str, name: str, uuid: str) -> None:
        if self._opened.get(uuid, 0):
            raise ToolFailed(f"logical volume {group}/{name} in use", "Close what has it open on this host")


def _incomplete(what: str) -> ToolFailed:
    """As LVM refuses what a group without all of its physical volumes cannot do."""
    return ToolFailed(f"cannot {what} while PVs are missing", "Attach the missing device to this host and try again")
