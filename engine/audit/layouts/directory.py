"""A plain directory, or a pool of libvirt: images in any folders, under any names."""

from __future__ import annotations

from engine.audit.layouts.base import plain
from engine.audit.model import Contents
from engine.audit.places import Places


class Directory:
    """What every directory is that is nothing else."""

    name = "directory"

    def recognises(self, places: Places, root: str) -> bool:
        """Take everything."""
        del places, root
        return True

    def contents(self, places: Places, root: str) -> Contents:
        """Go by the ends of names; the content decides later whether a file is an image."""
        return Contents(self.name, {name.path: plain(name) for name in places.files(root)})
