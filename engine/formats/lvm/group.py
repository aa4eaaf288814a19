"""A volume group as one host sees it: reading without activation, and locks of this host.

Nothing is read through a cache: of the group itself each ``report`` is fresh, devices are opened
for direct I/O. What a host needs for itself only (locks, users of active volumes, digest lists)
stands below ``/run/diskwright`` and is gone when it boots.
"""

from __future__ import annotations

import contextlib

from engine.doors import Doors
from engine.doors.files import make_directories
from engine.doors.leases import Lease
from engine.doors.volume_groups import BLOCK_BYTES, BlockHandle, LogicalVolume, VolumeGroup
from engine.errors import Conflict, Refused, StorageError, from_os_error, from_os_errors
from engine.formats.lvm.metadata.layout import AUTOACTIVATED_TAG, MetaHeader, tags_of_ours

RUN_DIRECTORY = "/run/diskwright"
"""Gone at boot, as all that is kept there: leases, and which volumes are in use."""

NOBODY = "diskwright.nobody"
"""LVM's mark of a group that its manager gave up: LVM lets no host use it. Without a mark every host could."""


class Group:
    """One volume group."""

    def __init__(self, doors: Doors, name: str, uuid: str) -> None:
        self.doors = doors
        self.name = name
        self.uuid = uuid
        self._devices: dict[str, BlockHandle] = {}

    def report(self) -> VolumeGroup:
        """Ask LVM for the group as it is now. StorageError when another group has its name."""
        found = self.doors.volume_groups.report(self.name)
        if self.uuid and found.uuid != self.uuid:
            raise StorageError(
                f"the volume group {self.name} is not the one that was opened", "Disconnect the repository"
            )
        return found

    def is_ours(self, report: VolumeGroup) -> bool:
        """Return whether LVM lets this host use the group, and no other."""
        return report.system_id == self.doors.volume_groups.system_id

    def manages(self, header: MetaHeader) -> bool:
        """Return whether the header of an exclusive repository names this very host, and not only its name."""
        return (header.manager, header.nonce) == (self.doors.ids.host_id, self.doors.ids.host_nonce)

    def managed_by_name(self, report: VolumeGroup, header: MetaHeader) -> bool:
        """Return whether an older program made a host of this name the manager, which nothing tells from this one: the
        first host of the name that comes has the group from then on, and no other."""
        by_name = header.manager == self.doors.ids.host_id and not header.nonce
        return by_name and report.system_id == self.doors.volume_groups.former_system_id

    def read(self, volume: LogicalVolume, offset: int, length: int) -> bytes:
        """Return a piece of a volume, read in whole blocks from where it lies, whether it is active or not; shorter at
        the end of the volume. Plain OSError."""
        first = offset - offset % BLOCK_BYTES
        end = min(offset + length, volume.size)
        pieces = volume.pieces(first, -(-end // BLOCK_BYTES) * BLOCK_BYTES - first)
        data = b"".join(self._device(piece.device).read_at(piece.start, piece.length) for piece in pieces)
        return data[offset - first : max(0, end - first)]

    def _device(self, path: str) -> BlockHandle:
        handle = self._devices.get(path)
        if handle is None:
            handle = self._devices[path] = self.doors.volume_groups.open_device(path)
        return handle

    def sync(self) -> None:
        """Make changes of the group durable."""
        self.doors.volume_groups.sync(self.name)

    def give_back(self, volume: LogicalVolume, former: str) -> None:
        """Give an adopted volume the name again that it had, and take away what tells that it was a repository's. Not
        durable before ``sync``. Refused when another volume has that name."""
        groups = self.doors.volume_groups
        self._autoactivate_again(volume)
        try:
            groups.rename(self.name, volume.name, former)
        except Conflict:
            raise Refused(
                f"the name {former!r:.200}, which the adopted volume {volume.name} had, is another one's by now",
                "Rename that one (lvrename), then try again",
            ) from None
        groups.change_tags(self.name, former, [], tags_of_ours(volume.tags))

    def leave(self, volume: LogicalVolume) -> None:
        """Take away what tells of a volume that is called as it was that it was to be a repository's."""
        self._autoactivate_again(volume)
        self.doors.volume_groups.change_tags(self.name, volume.name, [], tags_of_ours(volume.tags))

    def _autoactivate_again(self, volume: LogicalVolume) -> None:
        if AUTOACTIVATED_TAG in volume.tags:
            self.doors.volume_groups.set_autoactivation(self.name, volume.name, True)

    def close(self) -> None:
        """Close the devices that were read; idempotent."""
        for handle in self._devices.values():
            handle.close()
        self._devices.clear()

    def run_path(self, name: str) -> str:
        """Return the path of something that this host keeps about the group until it boots."""
        return f"{RUN_DIRECTORY}/lvm-{self.uuid}.{name}"


class HostLocks:
    """A file of this host whose bytes are locks, made when it is first needed."""

    def __init__(self, doors: Doors, path: str) -> None:
        self._doors = doors
        self._path = path

    def try_acquire(self, key: int, shared: bool = False) -> Lease | None:
        """Take a lock, or return None when it is held. StorageError."""
        with from_os_errors("take a lease"):
            try:
                return self._doors.leases.try_acquire(self._path, key, shared)
            except FileNotFoundError:
                make_directories(self._doors.files, self._path.rpartition("/")[0])
                with contextlib.suppress(FileExistsError):
                    self._doors.files.create(self._path).close()
                return self._doors.leases.try_acquire(self._path, key, shared)

    def held(self, key: int) -> bool:
        """Return whether anybody holds a lock. StorageError."""
        try:
            return self._doors.leases.held(self._path, key)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise from_os_error(error, "ask who holds a lease") from error
