"""Logical volumes of others in the group of a repository that become its volumes as they are: they are renamed.

A logical volume has one name. First it gets the tags of a volume and one that says how it was called, then the name of
the volume; LVM keeps changes in their order. In between hosts are told to make it active by themselves no more, as all
others of ours. As long as it has that last tag it is its owner's: nothing deletes it, and whoever would gives it its
name again (``Volumes``), also where no record speaks of it. Once the image counts the tag goes. Only where one host
alone may use the group: what others have active could not be told.

A device does not tell when it was written. A volume is known by LVM's id, its size and what it begins with, which has
the header of a qcow2 image.
"""

from __future__ import annotations

import errno
import posixpath
from hashlib import blake2b
from types import TracebackType
from typing import Self

from engine.data.model import ADOPTED_VOLUME, VolumeFormat
from engine.data.records import VolumeRef
from engine.doors.files import Access, Kind, Stat
from engine.doors.users import User, describe_users
from engine.doors.volume_groups import LogicalVolume, VolumeGroup, users_of
from engine.errors import ImageBusy, Refused, from_os_errors
from engine.formats.lvm.group import Group
from engine.formats.lvm.guard import Guard
from engine.formats.lvm.metadata import layout
from engine.tools.lvm.names import MAPPER, check_volume, unmapped
from engine.tools.qemu.qcow2 import HEADER_READ_BYTES, parse_header

_NUMBER_BYTES = 7
_GIVE_UP = "Remove the image and clean it away: its volume keeps, or gets, the name that it had"


class Adoption:
    """The logical volumes beside those of one repository."""

    marked = ADOPTED_VOLUME

    def __init__(self, group: Group, guard: Guard) -> None:
        self._group = group
        self._groups = group.doors.volume_groups
        self._guard = guard
        self._root = f"/dev/{group.name}"

    # -- looking

    def resolve(self, path: str) -> str:
        """Compare names: a volume that is not active has none in ``/dev``."""
        return self.meant(path, path)

    def within(self, path: str) -> list[str] | None:
        """List what is not of the repository."""
        report = self._group.report()
        if path == self._root:
            return [f"{path}/{name}" for name in sorted(report.volumes) if not layout.is_ours(name)]
        if self._name(path) is not None:
            self._found(path, report)
        return None

    def meant(self, name: str, path: str) -> str:
        """Take device-mapper's names too."""
        name = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
        group, volume = unmapped(name.removeprefix(MAPPER)) if name.startswith(MAPPER) else ("", "")
        return f"{self._root}/{volume}" if volume and group == self._group.name else name

    def stat(self, path: str) -> Stat:
        """Ask LVM, and read the beginning."""
        return _stat(self._group, self._found(path, self._group.report()))

    def open(self, path: str) -> VolumeSource:
        """Read it where it lies."""
        return VolumeSource(self._group, self._found(path, self._group.report()).name)

    def open_volume(self, volume: VolumeRef, path: str) -> VolumeSource:
        """Read it where it lies: whoever made it durable wrote to its device."""
        return VolumeSource(self._group, layout.volume_name(volume.id))

    def require_here(self, path: str) -> None:
        """Look what the volume is made of."""
        report = self._group.report()
        self._guard.using(report)
        if self._name(path) is None:
            raise Refused(
                f"{path!r:.200} is no logical volume of the volume group {self._group.name}",
                "Import it, which copies its data",
            )
        with from_os_errors(f"look at {path!r:.200}"):
            self._require_plain(report, self._found(path, report))

    def _require_plain(self, report: VolumeGroup, found: LogicalVolume) -> None:
        """Return if the volume can be treated as one of ours."""
        check_volume(found.name)
        snapshot = next((other.name for other in report.volumes.values() if other.origin == found.name), "")
        why = ""
        if layout.is_ours(found.name):
            why = "belongs to the repository"
        elif found.origin or snapshot:
            why = f"is a snapshot of {found.origin}" if found.origin else f"has the snapshot {snapshot}"
        elif found.kind != "linear":
            why = f"is not linear ({found.kind})"
        elif not found.ranges or report.partial:
            why = f"cannot be read: {report.lacks()}"
        if why:
            raise Refused(f"the logical volume {found.name} {why}", "Import it, which copies its data")
        if found.read_only:
            step = f"Make it writable: lvchange --permission rw {self._group.name}/{found.name}"
            raise Refused(f"the logical volume {found.name} is read-only", step)

    def users(self, path: str) -> list[User]:
        """Ask the kernel of this host, the only one that may use the group."""
        with from_os_errors(f"ask who uses {path!r:.200}"):
            return users_of(self._groups, self._group.name, self._found(path, self._group.report()))

    # -- taking

    def taken(self, volume: VolumeRef) -> bool:
        """Look for the name of the volume: it has no other one then."""
        return layout.volume_name(volume.id) in self._group.report().volumes

    def take(self, path: str, volume: VolumeRef) -> None:
        """Make two commits of LVM, tags and name; one more where a host made the volume active by itself."""
        name = layout.volume_name(volume.id)
        with self._guard.changing() as report:
            if name not in report.volumes:
                with from_os_errors(f"give {path!r:.200} the name of a volume"):
                    found = self._found(path, report)
                self._require_plain(report, found)
                self._require_unused(path, found)
                tags = layout.volume_tags(volume.format, self._size(found, volume.format))
                tags.append(layout.former_tag(found.name))
                begun = layout.former_tag(found.name) in found.tags
                if found.autoactivated or (begun and layout.AUTOACTIVATED_TAG in found.tags):
                    tags.append(layout.AUTOACTIVATED_TAG)
                stale = [tag for tag in layout.tags_of_ours(found.tags) if tag not in tags]
                self._groups.change_tags(self._group.name, found.name, tags, stale)
                if found.autoactivated:
                    self._groups.set_autoactivation(self._group.name, found.name, False)
                self._groups.rename(self._group.name, found.name, name)

    def _size(self, found: LogicalVolume, format: VolumeFormat) -> int:
        if format is VolumeFormat.RAW:
            return found.size
        with from_os_errors(f"read the logical volume {found.name}"):
            return parse_header(self._group.read(found, 0, HEADER_READ_BYTES), found.size).size

    def require_taken(self, path: str, inode: int, volume: VolumeRef) -> None:
        """Compare LVM's ids, and look once more who uses it: somebody may have opened it by the name that it had."""
        found = self._group.report().volumes.get(layout.volume_name(volume.id))
        if found is None or _number(found.uuid.encode()) != inode:
            raise Refused(f"volume {volume.id} is another logical volume than {path!r:.200}", _GIVE_UP)
        self._require_unused(path, found)

    def let_go(self, path: str, volume: VolumeRef) -> None:
        """Make a sync, also when it was taken by somebody who died before he could; look who uses it. It has the other
        name no more since it was taken."""
        self._group.sync()
        found = self._group.report().volumes.get(layout.volume_name(volume.id))
        if found is None:
            raise Refused(f"volume {volume.id} is not there any more", _GIVE_UP)
        self._require_unused(path, found)

    def _require_unused(self, path: str, found: LogicalVolume) -> None:
        if users := users_of(self._groups, self._group.name, found):
            raise ImageBusy(
                f"the logical volume {path!r:.200} is in use by {describe_users(users)}", "Stop that, then try again"
            )

    def forget(self, volume: VolumeRef) -> None:
        """Take the tag away; what a crash leaves, or brings back, is litter."""
        name = layout.volume_name(volume.id)
        with self._guard.changing() as report:
            found = report.volumes.get(name)
            if found is not None:
                self._groups.change_tags(self._group.name, name, [], layout.tags_of_adoption(found.tags))

    def give_back(self, path: str, volume: VolumeRef, access: Access | None) -> None:
        """Rename it as its tag says, whatever ``path`` is, and sync, the latter also when that was done."""
        with self._guard.changing() as report:
            found = report.volumes.get(layout.volume_name(volume.id))
            if found is not None:
                former = layout.parse_former(found.tags)
                if former is None:
                    raise Refused(
                        f"nothing tells any more how volume {volume.id} was called",
                        f"Add the tag: lvchange --addtag {layout.former_tag('NAME')} {self._group.name}/{found.name}",
                    )
                self._group.give_back(found, former)
            left = report.volumes.get(self._name(path) or "")
            if left is not None and layout.parse_former(left.tags) == left.name:  # it was not renamed any more
                self._group.leave(left)
            self._group.sync()

    # -- inside

    def _name(self, path: str) -> str | None:
        """The name of the logical volume that a path is of, None where it is of none in this group."""
        directory, _, name = path.rpartition("/")
        return name if directory == self._root and name else None

    def _found(self, path: str, report: VolumeGroup) -> LogicalVolume:
        name = self._name(path)
        found = report.volumes.get(name) if name is not None else None
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such logical volume", path)
        return found


class VolumeSource:
    """A logical volume to look at, whatever becomes of its name."""

    def __init__(self, group: Group, name: str) -> None:
        """Look for it. OSError."""
        self._group = group
        self._name = name
        self._found, _ = _seen(group, name)

    def read_at(self, offset: int, length: int) -> bytes:
        """Read it where it lay when it was opened."""
        return self._group.read(self._found, offset, length)

    def stat(self) -> Stat:
        """Ask LVM again."""
        return _seen(self._group, self._name)[1]

    def held_path(self) -> str:
        """Return "": its device is its name."""
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keep nothing: the group has its devices open."""


def _seen(group: Group, name: str) -> tuple[LogicalVolume, Stat]:
    """Return a logical volume as it is now. OSError."""
    found = group.report().volumes.get(name)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, "no such logical volume", name)
    return found, _stat(group, found)


def _stat(group: Group, found: LogicalVolume) -> Stat:
    if not found.ranges:
        raise OSError(errno.EIO, "it is not linear, or lies on a device that is missing", found.name)
    start = _number(group.read(found, 0, HEADER_READ_BYTES))
    return Stat(Kind.DEVICE, found.size, found.size, _number(found.uuid.encode()), 1, start, 0)


def _number(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=_NUMBER_BYTES).digest(), "big")
