"""A volume group: each logical volume is an image, but for what a host uses itself.

LVM says of a volume what it is made of and whose snapshot it is; what is in it nobody says but its content.
"""

from __future__ import annotations

import posixpath

from engine.audit.model import Candidate, Contents, Finding, Role
from engine.audit.places import Name, Places
from engine.doors.volume_groups import LogicalVolume, VolumeGroup
from engine.formats.lvm.metadata import layout as repository


class Volumes:
    """A group that no other layout knows."""

    name = "lvm"

    def recognises(self, places: Places, root: str) -> bool:
        """Look whether LVM told it."""
        return root in places.groups

    def contents(self, places: Places, root: str) -> Contents:
        """Go by what LVM says of each volume."""
        group = places.groups.get(root)
        if group is None:
            return Contents(self.name, {name.path: Candidate(Role.IMAGE) for name in places.files(root)})
        return Contents(self.name, {name.path: volume_candidate(group, name) for name in places.files(root)})


def volume_candidate(group: VolumeGroup, name: Name) -> Candidate:
    """Return what LVM says of a volume."""
    volume = group.volumes[name.inside]
    # Without its records a repository is damaged, and its volumes have the content of its images all the same.
    known = repository.META in group.volumes or repository.tags_of_ours(volume.tags)
    if known and repository.is_ours(volume.name):
        return Candidate(Role.REPOSITORY, needed_by="a repository")
    if _is_pool(volume):
        return Candidate(Role.OTHER)
    snapshot = next((other.name for other in group.volumes.values() if other.origin == volume.name), "")
    needed = f"its snapshot {snapshot}" if snapshot else ""
    return Candidate(Role.IMAGE, mentions(group, volume), None, remedy(group, volume), needed, by_host=True)


def mentions(group: VolumeGroup, volume: LogicalVolume) -> tuple[str, ...]:
    """Return the words by which definitions may mean a volume, besides its name."""
    doubled = volume.name.replace("-", "--")
    return (doubled,) if doubled != volume.name else ()


def remedy(group: VolumeGroup, volume: LogicalVolume) -> tuple[str, ...]:
    """Return the command that removes a volume."""
    return ("lvremove", f"{group.name}/{volume.name}")


def _is_pool(volume: LogicalVolume) -> bool:
    """Whether other volumes are made of it: it has no content of its own."""
    return any(kind.endswith("-pool") for kind in volume.kind.split(","))


def for_volumes(places: Places, found: Finding) -> Finding:
    """Return a finding with a command that is right where it is about a logical volume: nothing is put beside one in
    ``/dev``, and none is removed as a file."""
    root = posixpath.dirname(found.path)
    if root not in places.groups or not found.command:
        return found
    if found.command[0] == "rm":
        return found._replace(command=("lvremove", found.path.removeprefix("/dev/")))
    beside = [word for word in found.command if word.startswith(f"{found.path}.")]
    return found._replace(command=tuple("TARGET" if word in beside else word for word in found.command))
