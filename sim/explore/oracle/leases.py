"""A monitor at the doors: who changes the data of a tag has its lease.

Judged before each effect on a repository of files, for the process that is about to have it:

* writing, shortening, replacing or deleting a volume that records name needs the exclusive lease of one of these tags;
* writing or deleting the progress of a tag that has a record needs the lease of that tag;
* where that is the lease of a prepared disk's holder, the holder has one of each layer below, too;
* a seal needs the lease of its tag: a record with another volume than the tag has, or whole where it was not.

Left out, since other rules hold for them: making a record of a new tag (a link that replaces nothing), records that
change neither (removal, user data: the generation decides), what no record names (quarantine), syncs (they change
nothing), and the machine of a prepared disk, whose lease is its holder's.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

from engine.data.decoding import decode
from engine.data.records import Record
from engine.errors import DiskwrightError
from engine.formats.files.layout import LOCKS_FILE, lease_key
from sim.disk.nodes import FileNode
from sim.disk.storage import SimStorage
from sim.explore.oracle.newest import TAG, newest
from sim.hosts.lock_table import LockedByte
from sim.hosts.processes import HOLDER, SimProcess
from sim.hosts.world import REPOSITORIES, World, on_server

_VOLUME = re.compile(rf"({REPOSITORIES}/[^/]+)/volumes/[0-9a-f]{{2}}/([0-9a-f]{{32}})\.[a-z0-9]+\Z")
_PROGRESS = re.compile(rf"({REPOSITORIES}/[^/]+)/progress/([0-9a-f]{{32}})\.[0-9]+\Z")
_CHANGES = frozenset(
    "handle.write_at handle.truncate files.unlink files.rename files.link files.create files.clone".split()
)


def without_lease(process: SimProcess, call: str, what: str) -> str:
    """Tell what is wrong with the effect that ``process`` is about to have; "" when nothing is."""
    world = process.host.world
    if call not in _CHANGES or not isinstance(world, World):
        return ""
    paths = on_server(what).split(" ")
    for path in paths:
        if (match := _VOLUME.match(path)) and (problem := _volume(world, process, *match.groups())):
            return f"{call} {path}: {problem}"
        match = _PROGRESS.match(path)
        if match and match[2] in _records(world.storage, match[1]) and _owner(world, process, *match.groups()) is None:
            return f"{call} {path}: the lease of {match[2]} is not held by {process}"
    return _sealed(world, process, *paths) if call == "files.link" and len(paths) == 2 else ""


def _volume(world: World, process: SimProcess, root: str, volume: str) -> str:
    records = _records(world.storage, root)
    tags = [tag for tag, record in records.items() if any(ref.id == volume for ref in record.volumes())]
    owners = {tag: owner for tag in tags if (owner := _owner(world, process, root, tag)) is not None}
    if tags and not owners:
        return f"no lease of {' or '.join(tags)} is held by {process}"
    for tag, owner in owners.items():
        for below in _below(records, tag) if owner is not process else ():
            place = _place(world, root, below)
            if all(lock.place != place for lock in world.locks.owned(owner)):
                return f"the holder of {tag} has no lease of {below}, a layer below"
    return ""


def _below(records: dict[str, Record], tag: str) -> Iterator[str]:
    while (record := records.get(tag)) is not None and record.volume is not None and record.volume.parent:
        tag = record.volume.parent
        yield tag


def _sealed(world: World, process: SimProcess, source: str, target: str) -> str:
    match = TAG.match(target)
    if match is None:
        return ""
    before = _records(world.storage, match[1]).get(match[2])
    after = _record(world.storage.file(source)[1], match[2])
    if before is None or after is None or (before.volume, before.whole) == (after.volume, after.whole):
        return ""
    if _owner(world, process, match[1], match[2]) is not None:
        return ""
    return f"the seal of {match[2]} without its lease, by {process}"


def _owner(world: World, process: SimProcess, root: str, tag: str) -> SimProcess | None:
    """The process itself, or a holder of its host, if that has the exclusive lease of a tag."""
    place = _place(world, root, tag)
    holders = [other for other in process.host.processes.values() if other.name == HOLDER]
    for owner in (process, *holders):
        if any(lock.place == place and not lock.shared for lock in world.locks.owned(owner)):
            return owner
    return None


def _place(world: World, root: str, tag: str) -> LockedByte:
    return world.storage.device, world.storage.stat(f"{root}/{LOCKS_FILE}").inode, lease_key(tag)


def _records(storage: SimStorage, root: str) -> dict[str, Record]:
    """The newest record of each tag of a repository, those that can be read."""
    found = {tag: _record(node, tag) for (where, tag), (_, node) in newest(storage).items() if where == root}
    return {tag: record for tag, record in found.items() if record is not None}


def _record(node: FileNode, tag: str) -> Record | None:
    return _decoded(node.content.read(0, node.content.size), tag)


@functools.lru_cache(20_000)
def _decoded(raw: bytes, tag: str) -> Record | None:
    try:
        return decode(raw, tag)
    except DiskwrightError:
        return None
