"""The newest record of each tag, as it lies on the storage, whatever an engine makes of it."""

from __future__ import annotations

import functools
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
        key = _tag_at(path)
        if key is not None and isinstance(node, FileNode) and (key not in found or path > found[key][0]):
            found[key] = path, node
    return found


@functools.lru_cache(50_000)
def _tag_at(path: str) -> tuple[str, str] | None:
    """Repository and tag of the record at a path, None where none is."""
    match = TAG.match(path)
    return (match[1], match[2]) if match else None
