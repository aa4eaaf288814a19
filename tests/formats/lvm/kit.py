"""A volume group without LVM, for tests of the format that need real files: each volume is a file of garbage."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.doors.files import Access
from engine.doors.users import User
from engine.doors.volume_groups import PhysicalRange, VolumeGroup, VolumeGroups
from engine.errors import Conflict, NotFound, Refused, StorageError
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.area import sealed_header
from engine.formats.lvm.metadata.pages import PAGE_BYTES
from engine.tools.local.clock import RealIds
from engine.tools.lvm.volume_groups import LvmVolumeGroups
from sim.lvm import group_model as model

GARBAGE = b"\xa5"


class FileHandle:
    """A file as a block device."""

    def __init__(self, path: str, writable: bool) -> None:
        self._descriptor = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
        self._size = os.fstat(self._descriptor).st_size

    @property
    def size(self) -> int:
        return self._size

    def give(self, access: Access) -> None:
        raise AssertionError("nobody has stated whose it is")

    def read_at(self, offset: int, length: int) -> bytes:
        assert offset % 4096 == length % 4096 == 0, "not aligned"
        data = os.pread(self._descriptor, length, offset)
        if len(data) != length:
            raise OSError(5, "the device is shorter")
        return data

    def write_at(self, offset: int, data: bytes) -> None:
        assert offset % 4096 == len(data) % 4096 == 0, "not aligned"
        assert os.pwrite(self._descriptor, data, offset) == len(data)

    def zero(self, offset: int, length: int) -> None:
        assert offset % 4096 == length % 4096 == 0, "not aligned"
        for start in range(offset, offset + length, 1 << 20):
            os.pwrite(self._descriptor, bytes(min(1 << 20, offset + length - start)), start)

    def sync(self) -> None:
        pass

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FileGroups:
    """The door: one group in a directory, shared by all hosts that are given the same ``state``."""

    def __init__(self, state: GroupState, host: str = "host-1") -> None:
        self._state = state
        self.system_id = self.former_system_id = f"dw-{host}"

    def report(self, group: str) -> VolumeGroup:
        self._state.commands += 1
        found = self._state.named(group)
        report = found.report(self._state.active, self._state.busy)
        volumes = {
            name: volume._replace(ranges=(PhysicalRange(self._state.path(found.volumes[name].uuid), 0, volume.size),))
            for name, volume in report.volumes.items()
        }
        return report._replace(volumes=volumes)

    def create_group(self, group: str, devices: Sequence[str], system_id: str) -> None:
        with self._state.lock:
            if self._state.group is not None:
                raise Conflict("in use")
            extents = tuple((path, 256) for path in devices)
            self._state.group = model.Group(group, f"uuid-{group}", system_id, extents)

    def set_system_id(self, group: str, system_id: str, present: str) -> None:
        with self._state.lock:
            found = self._state.named(group)
            if found.system_id != present:
                raise Conflict("it is another")
            self._state.group = found._replace(system_id=system_id)

    def create(self, group: str, name: str, size: int, tags: Sequence[str]) -> tuple[PhysicalRange, ...]:
        with self._state.lock:
            self._state.group = self._ours(group).created(name, size, tags)
            self._lengthen(name)
            return ()

    def resize(self, group: str, name: str, size: int) -> None:
        with self._state.lock:
            self._state.group = self._ours(group).resized(name, size)
            self._lengthen(name)

    def _lengthen(self, name: str) -> None:
        """As long as it is now; what is new is garbage."""
        assert self._state.group is not None
        volume = self._state.group.volumes[name]
        size = len(volume.extents) * model.EXTENT_BYTES
        with open(self._state.path(volume.uuid), "ab") as file:
            for _ in range(max(0, size - file.tell()) >> 20):
                file.write(GARBAGE * (1 << 20))
            file.truncate(size)

    def change_tags(self, group: str, name: str, add: Sequence[str], remove: Sequence[str]) -> None:
        with self._state.lock:
            self._state.group = self._ours(group).tagged(name, add, remove)

    def set_autoactivation(self, group: str, name: str, wanted: bool) -> None:
        with self._state.lock:
            self._state.group = self._ours(group).autoactivating(name, wanted)

    def rename(self, group: str, name: str, new: str) -> None:
        with self._state.lock:
            self._state.group = self._ours(group).renamed(name, new)

    def remove(self, group: str, name: str) -> None:
        with self._state.lock:
            found = self._ours(group)
            if name in found.volumes:
                uuid = found.volumes[name].uuid
                if uuid in self._state.busy:
                    raise StorageError("it is open")
                os.unlink(self._state.path(uuid))
                self._state.active.discard(uuid)
                self._state.group = found.removed(name)

    def activate(self, group: str, name: str) -> str:
        uuid = self._ours(group).volume(name).uuid
        self._state.active.add(uuid)
        return self._state.path(uuid)

    def deactivate(self, group: str, name: str) -> None:
        if self.deactivate_each(group, [name]):
            raise StorageError("it is open")

    def deactivate_each(self, group: str, names: Sequence[str]) -> list[str]:
        volumes = self._state.named(group).volumes
        uuids = {name: volumes[name].uuid for name in names if name in volumes}
        stay = [name for name, uuid in uuids.items() if uuid in self._state.busy]
        self._state.active.difference_update(uuid for name, uuid in uuids.items() if name not in stay)
        return stay

    def remove_devices(self, uuid: str) -> list[str]:
        busy = sorted(self._state.active & self._state.busy)
        self._state.active.intersection_update(busy)
        return busy

    def sync(self, group: str) -> None:
        pass

    def users(self, group: str, name: str) -> list[User]:
        """Nobody else has a file of a test open."""
        return []

    def open_device(self, path: str, writable: bool = False) -> FileHandle:
        return FileHandle(path, writable)

    def attach_files(self, files: Sequence[str], sector_bytes: int, file_bytes: int = 0) -> list[str]:
        return list(files)

    def detach_files(self, files: Sequence[str]) -> None:
        pass

    def _ours(self, group: str) -> model.Group:
        found = self._state.named(group)
        if found.system_id not in ("", self.system_id):
            raise Refused(f"the group belongs to {found.system_id}")
        return found


class GroupState:
    """What all hosts see, and what is active."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.group: model.Group | None = None
        self.active: set[str] = set()
        self.busy: set[str] = set()
        """Volumes (uuids) that something has open."""
        self.commands = 0
        """Reports that were asked for."""
        self.lock = threading.RLock()

    def named(self, name: str) -> model.Group:
        if self.group is None or self.group.name != name:
            raise NotFound(f"no volume group {name}")
        return self.group

    def path(self, uuid: str) -> str:
        return str(self.directory / uuid)


def emptied(groups: VolumeGroups, group: str) -> None:
    """Make the repository in a real group as new: to create one each time takes a minute in a lab. NotFound."""
    volumes = [f"{group}/{name}" for name in groups.report(group).volumes if name != layout.META]
    if volumes:
        assert isinstance(groups, LvmVolumeGroups)
        done = groups._commands.on_group("lvremove", group, ["--force", "--yes", *volumes])
        assert done.exit_code == 0, done.words
    with groups.open_device(groups.activate(group, layout.META), writable=True) as device:
        found = layout.newest_header(device.read_at(0, 8192), group)
        assert found is not None
        device.zero(0, found.geometry.meta_bytes(found.chunks))
        header = found._replace(identity=RealIds("").new_id(), chunks=1, sequence=0)
        for sequence in (0, 1):  # both pages, as a creation does
            device.write_at(sequence * PAGE_BYTES, sealed_header(header._replace(sequence=sequence)))
        device.sync()
