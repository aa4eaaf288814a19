"""Objects of a repository of files: files, and directories."""

from __future__ import annotations

import re

from engine.data.records import Record
from engine.doors.files import Files, Kind
from sim.disk.nodes import FileNode
from sim.disk.storage import SimStorage
from sim.explore.decay.objects import ROOT, Damage, naming
from sim.hosts.world import World

ESSENTIAL: tuple[Damage, ...] = (Damage("tags", "tree"),)
_DERIVED = ("progress", "digests", "tmp", "lost")
_SHARD = re.compile(r"(tags|volumes)/([0-9a-f]{2})\Z")
_RECORD = re.compile(r"tags/[0-9a-f]{2}/([0-9a-f]{32})\.[0-9a-f]{16}(\.before)?\Z")
_VOLUME = re.compile(r"volumes/[0-9a-f]{2}/([0-9a-f]{32})\.")


def damages(storage: SimStorage) -> list[Damage]:
    """Return every damage of the repository."""
    found = [Damage(name, "empty") for name in _DERIVED if storage.list_directory(ROOT + name)]
    for path, _, node in storage.walk():
        name = path.removeprefix(ROOT)
        if not path.startswith(ROOT):
            continue
        if not isinstance(node, FileNode):
            found.append(Damage(name, "tree"))
            continue
        if node.content.size:
            found += [Damage(name, "flip"), Damage(name, "cut")]
        found.append(Damage(name, "gone"))
    return found


def touched(records: dict[str, Record], damage: Damage) -> set[str]:
    """Return the tags whose record or data it is; the record before the newest is needed by nobody."""
    if match := _RECORD.match(damage.name):
        return set() if match[2] else {match[1]}
    match, shard = _VOLUME.match(damage.name), _SHARD.match(damage.name)
    if shard and shard[1] == "tags":
        return {tag for tag in records if tag.startswith(shard[2])}
    if match or shard or damage.name == "volumes":
        return naming(records, match[1] if match else shard[2] if shard else "")
    return set()


def inflict(world: World, damage: Damage) -> None:
    """Flip a bit of the object, cut it in half, or take it away."""
    files = world.host("decay").doors.files
    path = ROOT + damage.name
    if damage.kind == "empty":
        for entry in files.list_directory(path):
            files.unlink(f"{path}/{entry.name}")
        files.sync_directory(path)
    elif damage.kind == "tree":
        _remove(files, path)
        files.sync_directory(path.rpartition("/")[0])
    elif damage.kind == "gone":
        files.unlink(path)
        files.sync_directory(path.rpartition("/")[0])
    else:
        with files.open(path, writable=True) as handle:
            size = handle.stat().size
            if damage.kind == "cut":
                handle.truncate(size // 2)
            else:
                at = min(size - 1, 60) if _RECORD.match(damage.name) else 0
                handle.write_at(at, bytes([handle.read_at(at, 1)[0] ^ 1]))
            handle.sync()


def _remove(files: Files, directory: str) -> None:
    for entry in files.list_directory(directory):
        path = f"{directory}/{entry.name}"
        if entry.kind is Kind.DIRECTORY:
            _remove(files, path)
        else:
            files.unlink(path)
    files.remove_directory(directory)
