"""A directory storage of Proxmox VE: images/VMID/, templates (base-…), their linked clones, chains of snapshots.

The number of the machine that owns an image is in its path. Snapshots of version 9 that are files of their own are
``snap-NAME-IMAGE`` or ``snap_IMAGE_NAME``, and the image stands on them.
"""

from __future__ import annotations

import posixpath
import re

from engine.audit.layouts.base import plain
from engine.audit.model import Candidate, Contents, Role
from engine.audit.places import Name, Places

_IMAGE = re.compile(r"(?:snap[-_].*)?(?:vm|base|subvol)-(?P<machine>\d+)-(?P<what>[^/]*)\Z", re.DOTALL)
_ROLES = {"images": None, "private": None, "template": Role.MEDIUM, "dump": Role.BACKUP, "snippets": Role.METADATA}


class Proxmox:
    """A directory with images/VMID/."""

    name = "proxmox"

    def recognises(self, places: Places, root: str) -> bool:
        """Look for a directory images/NUMBER with an image that is named as Proxmox names them."""
        images = posixpath.join(root, "images")
        return any(
            machine.isdigit() and any(_IMAGE.match(name) for name in places.children.get(f"{images}/{machine}", ()))
            for machine in places.children.get(images, ())
        )

    def contents(self, places: Places, root: str) -> Contents:
        """Go by the folder first, then by the name."""
        return Contents(self.name, {name.path: _candidate(root, name) for name in places.files(root)})


def _candidate(root: str, name: Name) -> Candidate:
    folder, _, rest = posixpath.relpath(name.path, root).partition("/")
    role = _ROLES.get(folder) if rest else None
    if role is not None:
        return Candidate(role)
    machine, _, base = rest.partition("/")
    matched = _IMAGE.match(base)
    if folder != "images" or not machine.isdigit() or matched is None:
        return plain(name)
    if matched["what"].startswith("state-"):
        return Candidate(Role.MEMORY)
    return plain(name, ("qm", "disk", "rescan", "--vmid", machine))
