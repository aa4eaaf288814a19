"""A volume group as plain data: names, extents, tags, and how LVM gives extents away. No effects.

Extents are taken from the first device that has free ones, lowest first, so what was removed last is
what a new volume gets: with its old bytes.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple

from engine.doors.volume_groups import LogicalVolume, PhysicalRange, VolumeGroup
from engine.errors import Conflict, NoSpace, NotFound, ToolFailed

EXTENT_BYTES = 4 << 20
METADATA_BYTES = 16 << 20
_VOLUME_TEXT_BYTES = 600
RESERVED_BYTES = 1 << 20
"""Where the first extent of a device begins."""


def device_uuid(path: str) -> str:
    """LVM's uuid of a device."""
    return f"pv-{path.rpartition('/')[2]}"


class Volume(NamedTuple):
    """One logical volume."""

    uuid: str
    extents: tuple[tuple[int, int], ...]
    """(device, extent), one each, in order."""
    tags: frozenset[str] = frozenset()
    autoactivated: bool = False
    read_only: bool = False


class Group(NamedTuple):
    """One volume group."""

    name: str
    uuid: str
    system_id: str
    devices: tuple[tuple[str, int], ...]
    """(path, number of extents)"""
    volumes: Mapping[str, Volume] = {}
    born: int = 0
    """Volumes that were ever made; their uuids count."""
    extent_bytes: int = EXTENT_BYTES

    # -- changes

    def created(self, name: str, size: int, tags: Iterable[str]) -> Group:
        """With a new volume."""
        if name in self.volumes:
            raise Conflict(f"the volume group {self.name} has a volume {name} already")
        made = Volume(f"{self.uuid}-{self.born + 1}", self._take(self._extents(size)), frozenset(tags))
        return self._replace(volumes={**self.volumes, name: made}, born=self.born + 1)

    def resized(self, name: str, size: int) -> Group:
        """With a longer or shorter volume."""
        volume = self.volume(name)
        wanted = self._extents(size)
        extents = volume.extents[:wanted]
        extents += self._take(wanted - len(extents))
        return self._with(name, volume._replace(extents=extents))

    def tagged(self, name: str, add: Iterable[str], remove: Iterable[str]) -> Group:
        """With other tags."""
        volume = self.volume(name)
        return self._with(name, volume._replace(tags=(volume.tags - set(remove)) | set(add)))

    def autoactivating(self, name: str, wanted: bool) -> Group:
        """With a volume that hosts make active by themselves, or not."""
        return self._with(name, self.volume(name)._replace(autoactivated=wanted))

    def permitted(self, name: str, read_only: bool) -> Group:
        """With a volume that may only be read, or be written again (``lvchange --permission``)."""
        return self._with(name, self.volume(name)._replace(read_only=read_only))

    def renamed(self, name: str, new: str) -> Group:
        """With another name."""
        volume = self.volume(name)
        if new in self.volumes:
            raise Conflict(f"the volume group {self.name} has a volume {new} already")
        volumes = dict(self.volumes)
        del volumes[name]
        return self._replace(volumes={**volumes, new: volume})

    def removed(self, name: str) -> Group:
        """Without a volume."""
        volumes = dict(self.volumes)
        volumes.pop(name, None)
        return self._replace(volumes=volumes)

    def _with(self, name: str, volume: Volume) -> Group:
        return self._replace(volumes={**self.volumes, name: volume})

    # -- looking

    def volume(self, name: str) -> Volume:
        """A volume, or NotFound."""
        if name not in self.volumes:
            raise NotFound(f"the volume group {self.name} has no volume {name}")
        return self.volumes[name]

    def ranges(self, volume: Volume) -> tuple[PhysicalRange, ...]:
        """Where a volume lies, neighbours joined."""
        found: list[PhysicalRange] = []
        for device, extent in volume.extents:
            path, start = self.devices[device][0], RESERVED_BYTES + extent * self.extent_bytes
            last = found[-1] if found else None
            if last is not None and last.device == path and last.start + last.length == start:
                found[-1] = last._replace(length=last.length + self.extent_bytes)
            else:
                found.append(PhysicalRange(path, start, self.extent_bytes))
        return tuple(found)

    def report(
        self, active: Iterable[str] = (), opened: Iterable[str] = (), missing: Container[str] = ()
    ) -> VolumeGroup:
        """As the door tells it; volumes in use by their uuids, devices that are missing by their paths."""
        here, busy = set(active), set(opened)
        away = [path for path, _ in self.devices if path in missing]
        total = sum(extents for _, extents in self.devices)
        used = sum(len(volume.extents) for volume in self.volumes.values())
        volumes = {
            name: LogicalVolume(
                name, len(volume.extents) * self.extent_bytes, volume.tags, volume.uuid in here, volume.uuid in busy,
                self.ranges(volume) if self.whole(volume, missing) else (), uuid=volume.uuid,
                autoactivated=volume.autoactivated,
                read_only=volume.read_only,
            )
            for name, volume in self.volumes.items()
        }  # fmt: skip
        return VolumeGroup(
            self.name, self.uuid, self.system_id, self.extent_bytes, total * self.extent_bytes,
            (total - used) * self.extent_bytes, bool(away), tuple(path for path, _ in self.devices if path not in away),
            max(0, METADATA_BYTES - _VOLUME_TEXT_BYTES * len(self.volumes)), volumes, tuple(map(device_uuid, away)),
        )  # fmt: skip

    def whole(self, volume: Volume, missing: Container[str]) -> bool:
        """Whether no device of a volume is missing."""
        return not any(part.device in missing for part in self.ranges(volume))

    def _extents(self, size: int) -> int:
        """How many a volume of that size has; LVM makes none that has no extent, nor reduces one to that."""
        if size <= 0:
            raise ToolFailed(f"a volume of {size} bytes in {self.name} would have no extents")
        return -(-size // self.extent_bytes)

    def _take(self, count: int) -> tuple[tuple[int, int], ...]:
        taken = {extent for volume in self.volumes.values() for extent in volume.extents}
        found: list[tuple[int, int]] = []
        for device, (_, extents) in enumerate(self.devices):
            for extent in range(extents):
                if len(found) >= count:
                    return tuple(found)
                if (device, extent) not in taken:
                    found.append((device, extent))
        if len(found) < count:
            raise NoSpace(f"the volume group {self.name} has {len(found)} free extents, {count} are needed")
        return tuple(found)

    # -- as bytes

    def to_bytes(self) -> bytes:
        """As it stands in the metadata area."""
        data = self._asdict()
        data["volumes"] = {
            name: [volume.uuid, volume.extents, sorted(volume.tags), volume.autoactivated, volume.read_only]
            for name, volume in self.volumes.items()
        }
        return json.dumps(data, sort_keys=True).encode()


def from_bytes(raw: bytes) -> Group | None:
    """The group in a metadata area, None when there is none."""
    text = raw.rstrip(b"\0")
    if not text:
        return None
    data: dict[str, Any] = json.loads(text)
    data["devices"] = tuple((path, extents) for path, extents in data["devices"])
    data["volumes"] = {name: _volume(*parts) for name, parts in data["volumes"].items()}
    return Group(**data)


def _volume(
    uuid: str, extents: list[tuple[int, int]], tags: Iterable[str], autoactivated: bool = False, read_only: bool = False
) -> Volume:
    """One that was written before has no such flags."""
    return Volume(
        uuid, tuple((device, extent) for device, extent in extents), frozenset(tags), autoactivated, read_only
    )
