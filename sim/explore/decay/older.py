"""What an operator puts back from a backup of before the case: one record of a repository of files, all records, or the
whole repository; of a volume group all of its metadata."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict

from engine.data.decoding import decode
from engine.data.records import Record
from engine.errors import Damaged
from engine.formats.lvm.metadata.layout import META
from sim.disk.nodes import DirectoryNode, FileNode
from sim.disk.storage import SimStorage
from sim.explore.cases.driver import FILES
from sim.explore.decay import lvm
from sim.explore.decay.objects import ROOT, Damage, naming
from sim.hosts.trees import remove_tree
from sim.hosts.world import World

_RECORD = re.compile(r"tags/[0-9a-f]{2}/([0-9a-f]{32})\.")
_PIECE = 1 << 16
TAGS = Damage("tags", "older")
EVERYTHING = Damage("", "older")
_Files = dict[str, bytes]
"""Contents by path in the repository."""


class OlderMeta:
    """The metadata of a volume group as ``before`` has it: all records at once."""

    ESSENTIAL: tuple[Damage, ...] = ()

    def __init__(self, before: SimStorage) -> None:
        self._meta = lvm.disk_of(before).volumes[META]
        self._then = _slots(before)
        self._changed: set[str] = set()

    def damages(self, storage: SimStorage) -> list[Damage]:
        """Return the one, where a record has changed."""
        now = _slots(storage)
        self._changed = {tag for tag in now.keys() | self._then.keys() if now.get(tag) != self._then.get(tag)}
        return [Damage(META, "older")] if self._changed else []

    def touched(self, records: dict[str, Record], damage: Damage) -> set[str]:
        """Return the tags whose records are others."""
        return self._changed

    def inflict(self, world: World, damage: Damage) -> None:
        """Write it over what is there."""
        files, at = world.host("decay", connect=False).doors.files, 0
        disk = lvm.disk_of(world.storage)
        assert disk.group is not None
        for device, start, length in disk.group.ranges(disk.group.volumes[META]):
            with files.open(device, writable=True) as handle:
                for offset in range(0, length, _PIECE):
                    old = self._meta.read(at + offset, min(_PIECE, length - offset))
                    if old != disk.volumes[META].read(at + offset, len(old)):
                        handle.write_at(start + offset, old)
                handle.sync()
            at += length


def _slots(storage: SimStorage) -> dict[str, int]:
    """The generation of each tag."""
    return {slot.tag: slot.generation for slot in lvm.disk_of(storage).slots}


class Older:
    """The objects of a repository as ``before`` has them."""

    ESSENTIAL: tuple[Damage, ...] = ()

    def __init__(self, before: SimStorage) -> None:
        self._before = before
        self._then = _files(before)
        self._changed: set[str] = set()
        """Tags whose records are others now."""

    def damages(self, storage: SimStorage) -> list[Damage]:
        """Return what can be put back and is not as it was."""
        now, then = _records(_files(storage)), _records(self._then)
        self._changed = {tag for tag in now.keys() | then.keys() if now.get(tag) != then.get(tag)}
        found = [Damage(tag, kind) for tag in sorted(self._changed & then.keys()) for kind in ("older", "beside")]
        if not self._changed:
            return []
        # A file that an adoption took, or that was given back, would be there twice.
        return [*found, TAGS, *([EVERYTHING] if _outside(self._before) == _outside(storage) else [])]

    def touched(self, records: dict[str, Record], damage: Damage) -> set[str]:
        """Return the tags whose record it is, and those that have got its data since: whose that is nothing tells. One
        that is put beside a newer one says nothing."""
        if damage.kind == "beside":
            return set()
        if damage in (TAGS, EVERYTHING):
            return self._changed
        found = {damage.name}
        for content in _records(self._then)[damage.name].values():
            with contextlib.suppress(Damaged):  # it was, or says that there is nothing any more
                for volume in decode(content, damage.name).volumes():
                    found |= naming(records, volume.id)
        return found

    def inflict(self, world: World, damage: Damage) -> None:
        """Put back the records of one tag, in the place of those that are there or beside them; or all."""
        files = world.host("decay").doors.files
        if damage == EVERYTHING:
            remove_tree(files, ROOT.rstrip("/"))
            put, place = self._then, ""
            self._make_directories(world)
        else:
            match = None if damage == TAGS else damage.name
            place = "tags/"
            put = {path: content for path, content in self._then.items() if path.startswith(place)}
            if match:
                put = _records(put)[match]
            now = _files(world.storage)
            for path in [path for path in now if path.startswith(place)]:
                of_tag = not match or path in _records(now).get(match, {})
                if of_tag and (damage.kind == "older" or path in put):
                    files.unlink(f"{ROOT}{path}")
        for path, content in put.items():
            with files.create(f"{ROOT}{path}") as handle:
                if content.strip(b"\0"):
                    handle.write_at(0, content)
                handle.truncate(len(content))
        world.storage.settle()

    def _make_directories(self, world: World) -> None:
        for path, _, node in self._before.walk():
            if isinstance(node, DirectoryNode) and f"{path}/".startswith(ROOT):
                world.storage.make_directory(path)


def _files(storage: SimStorage) -> _Files:
    return {
        path.removeprefix(ROOT): node.content.read(0, node.content.size)
        for path, _, node in storage.walk()
        if path.startswith(ROOT) and isinstance(node, FileNode)
    }


def _outside(storage: SimStorage) -> set[str]:
    return {path for path, _, _ in storage.walk() if path.startswith(f"{FILES}/")}


def _records(files: _Files) -> dict[str, _Files]:
    """The records of each tag."""
    found: dict[str, _Files] = defaultdict(dict)
    for path, content in files.items():
        if match := _RECORD.match(path):
            found[match[1]][path] = content
    return dict(found)
