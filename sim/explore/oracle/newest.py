"""The newest record of each tag, as it lies on the storage, whatever an engine makes of it."""

from __future__ import annotations

import re

from sim.disk.nodes import FileNode
from sim.disk.storage import SimStorage
from sim.hosts.world import REPOSITORIES

TAG = re.compile(rf"({REPOSITORIES}/[^/]+)/tags/[0-9a-f]{{2}}/([0-9a-f]{{32}})\.([0-9a-f]{{16}})\Z")
"""The path of a record: its repository's, tag and generation."""


def newest(storage: SimStorage) -> dict[tuple[str, str], tuple[str, FileNode]]:
    """Return path and file of the newest generation of each tag, by the path of its repository and the tag."""
    found: dict[tuple[str, str], tuple[str, FileNode]] = {}
    for path, _, node in storage.walk():
        if (match := TAG.match(path)) and isinstance(node, FileNode):
            key = match[1], match[2]
            if key not in found or path > found[key][0]:
                found[key] = path, node
    return found
