"""What a survey saw, as plain data, and the graph of who depends on whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from engine.copying.ranges import exact
from engine.data.model import Wait
from engine.data.progress import Progress
from engine.data.records import Record, VolumeRef
from engine.data.seen import Stamp
from engine.doors.images import CheckReport
from engine.doors.users import User
from engine.formats.base import Litter, Scan, TagEntry, VolumeFacts
from engine.tags.seen import written


class Replica(NamedTuple):
    """The same immutable image, whole, in another connected repository."""

    repository: str
    repo_id: str
    size: int
    digest: str


class Keeper(NamedTuple):
    """A copy that hidden data is the source of."""

    copy: str
    text: str
    """Why it needs that; part of a sentence about the copy."""
    sure: bool
    """It does. Else nobody here can tell."""

    @property
    def fact(self) -> str:
        """What the operator is told of a fix that takes the source away."""
        return f"the copy {self.copy} could not be finished without it, and {self.text}"


class Depths(NamedTuple):
    """What only a deep check knows, by volume or tag."""

    checks: dict[str, CheckReport]
    """qcow2 volumes by id."""
    required: dict[str, int]
    """Bytes a fresh flat copy of a tag would need."""
    wrong: dict[str, str]
    """Tags whose content is not what their digest says, with the reason."""
    lost: dict[str, tuple[tuple[int, int], ...]]
    """Ranges of a tag known to be wrong; none when all that is known is that some cannot be read, and a salvage may
    find out which."""
    failed: dict[str, str]
    """Tags that could not be looked at more deeply, with the reason: nothing may be concluded."""
    unreadable: dict[str, tuple[str, ...]]
    """Tags of which a part could not be read just now: the reason, and then where (file, offset, errno)."""


def no_depths() -> Depths:
    """Nothing is known yet."""
    return Depths({}, {}, {}, {}, {}, {})


NO_DEPTHS = no_depths()


class View(NamedTuple):
    """Everything triage needs."""

    repository: str
    scan: Scan
    facts: dict[str, VolumeFacts]
    progress: dict[str, Progress]
    """Newest line of the current attempt, for tags with an operation."""
    replicas: dict[str, list[Replica]]
    waits: dict[str, Wait]
    """Forming tags whose source or base is not available now."""
    pending: dict[str, int]
    """Bytes that remain to be read for an unfinished operation, where the source tells."""
    total_bytes: int
    free_bytes: int
    throughput: float | None = None
    depths: Depths = NO_DEPTHS
    deep: bool = False
    managed: bool = False
    """One host, the manager, makes, removes and resizes the volumes, which take all their room at once."""
    shared: bool = False
    """Managed, and the other hosts may do everything else there. What one of them had under way when it lost a lease
    may still arrive."""
    format: str = ""
    """Type and version of the repository."""
    late_writers: Mapping[str, str] = MappingProxyType({})
    """Of the volumes that a fix would go on with or reduce, by id the host that may still write to them."""
    unheld: Mapping[str, tuple[User, ...]] = MappingProxyType({})
    """Tags whose data is written to although nobody has their lease, with who does it."""
    handed_out: Mapping[str, str] = MappingProxyType({})
    """Tags whose lease is free and whose data another host has handed out all the same, with that host."""
    monitored: Mapping[str, bool] = MappingProxyType({})
    """Images that a machine of this host has open and that it can be told to merge, and layers that it alone needs;
    whether it can go on in another volume."""
    keepers: Mapping[str, Keeper] = MappingProxyType({})
    """Hidden data that an unfinished copy needs, or may need, by tag."""


class Graph:
    """The view with its dependencies turned round."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.dependants: dict[str, list[str]] = {}
        self._namer: dict[str, str] = {}
        """Of each volume the first tag that names it."""
        self._several: dict[str, list[str]] = {}
        """Of volumes that several name, all; few are."""
        records = {tag: entry.record for tag, entry in view.scan.tags.items() if entry.record is not None}
        for tag, record in records.items():
            for parent in record.parents():
                if parent != tag:
                    self.dependants.setdefault(parent, []).append(tag)
            for volume in record.volumes():
                first = self._namer.get(volume.id)
                if first is None:
                    self._namer[volume.id] = tag
                else:
                    self._several.setdefault(volume.id, [first]).append(tag)
        self._any_lost = any(record.lost for record in records.values())
        several = {tag for namers in self._several.values() for tag in namers}
        self.left_behind = {tag for tag in several if self.new_owner(records[tag])}
        """Disks whose records are older than what has their data now."""
        for tag, record in records.items() if self.left_behind else ():  # as ``uses.needs``
            owner = self.new_owner(record) if tag in self.left_behind else ""
            if owner and owner not in record.parents():
                self.dependants.setdefault(owner, []).append(tag)

    def namers(self, volume: str) -> Sequence[str]:
        """Tags that name the volume of this id; one that names it twice is there twice."""
        if volume in self._several:
            return self._several[volume]
        return (self._namer[volume],) if volume in self._namer else ()

    def entry(self, tag: str) -> TagEntry | None:
        """The tag as found, None when it was not."""
        return self.view.scan.tags.get(tag)

    def record(self, tag: str) -> Record | None:
        """The readable record of a tag."""
        entry = self.view.scan.tags.get(tag)
        return entry.record if entry else None

    def children(self, tag: str) -> list[str]:
        """Tags whose data needs this tag, sorted."""
        return sorted(self.dependants.get(tag, ()))

    def left(self, tag: str) -> list[str]:
        """Disks that have left their data to this snapshot, and whose records are older than that."""
        above = [record for child in self.dependants.get(tag, ()) if (record := self.record(child)) is not None]
        return [record.id for record in above if tag not in record.parents()]

    def used(self, volume: VolumeRef | None) -> int:
        """Bytes the volume occupies, 0 when it is not there."""
        facts = self.view.facts.get(volume.id) if volume else None
        return facts.used if facts else 0

    def data(self, volume: VolumeRef) -> int:
        """Bytes that moving its data takes at most; a volume that takes all its room at once may hold much less."""
        facts = self.view.facts.get(volume.id)
        return 0 if facts is None else facts.used if facts.in_use is None else min(facts.in_use, facts.used)

    def present(self, volume: VolumeRef) -> bool:
        """Whether the volume is there, as far as can be seen."""
        facts = self.view.facts.get(volume.id)
        return facts is not None and facts.present

    def cursor(self, record: Record) -> int:
        """How far its unfinished operation is known to be."""
        operation, line = record.operation, self.view.progress.get(record.id)
        if operation is None:
            return 0
        return max(operation.cursor, line.cursor if line and line.volume == operation.target else 0)

    def used_by(self, record: Record) -> int:
        """Bytes of all volumes of a tag. One that several tags name counts for one of them only."""
        volumes = record.volumes()
        if len(volumes) == 1 and volumes[0].id not in self._several:  # nearly always
            facts = self.view.facts.get(volumes[0].id)
            return facts.used if facts else 0
        return sum([self.used(volume) for volume in dict.fromkeys(volumes) if self._owner(volume) == record.id])

    def _owner(self, volume: VolumeRef) -> str:
        """The tag whose data the volume is, before those that merely name it."""
        namers = self.namers(volume.id)
        if len(namers) == 1:
            return namers[0]
        records = [record for tag in namers if (record := self.record(tag)) is not None]
        return next((record.id for record in records if record.volume == volume), namers[0])

    def written(self, record: Record) -> Stamp | None:
        """See ``engine.tags.seen.written``."""
        return written(record, self.view.facts.get(record.volume.id)) if record.volume else None

    def chain(self, record: Record) -> list[Record]:
        """The chain from ``record`` down as far as it can be followed, without repeats."""
        links, seen = [record], {record.id}
        while links[-1].volume and links[-1].volume.parent:
            parent = self.record(links[-1].volume.parent)
            if parent is None or parent.id in seen:
                break
            seen.add(parent.id)
            links.append(parent)
        return links

    def chain_bytes(self, record: Record) -> int:
        """Upper estimate of the data that a flat copy of ``record`` holds."""
        return min(record.size, sum(self.used(link.volume) for link in self.chain(record)))

    def lost(self, record: Record) -> tuple[tuple[int, int], ...]:
        """Ranges known to be lost in the image or below it: layers above may hide some."""
        if not self._any_lost:
            return ()
        links = self.chain(record) if record.volume and record.volume.parent else [record]
        parts = [part for link in links for part in link.lost]
        return tuple(exact(parts)) if parts else ()

    def new_owner(self, disk: Record) -> str:
        """The snapshot that has the volume of a disk as its own data: the disk has left it, so the record of the disk
        is older than that. "" for none."""
        if disk.volume is None or disk.volume.id not in self._several:
            return ""
        others = ((tag, self.record(tag)) for tag in self._several[disk.volume.id])
        return next((tag for tag, other in others if other is not None and disk.left_to(other)), "")

    def quarantined(self, volume: VolumeRef) -> Litter | None:
        """The volume where it stands in quarantine, None when it does not."""
        names = (f"lost/{volume.id}.{volume.format}", f"dwlost-{volume.id}")
        return next((item for item in self.litter("lost") if item.name in names), None)

    def litter(self, kind: str) -> list[Litter]:
        """Leftovers of one kind."""
        return [item for item in self.view.scan.litter if item.kind == kind]


def unseen(scan: Scan) -> str:
    """Return where there is data that cannot be seen, so that who uses it cannot be asked; "" when all is seen. Where
    no image has its data the directory is taken for another: a file system that is not mounted leaves an empty one."""
    for where, _ in scan.unlisted:
        if where.partition("/")[0] == "volumes":
            return where
    named = ""
    for entry in scan.tags.values():
        if entry.record is not None and entry.record.volume is not None:
            if entry.record.volume.id in scan.volumes:
                return ""
            named = "volumes"
    return named


def strong_above(tag: str, children: Callable[[str], Iterable[str]], record: Callable[[str], Record | None]) -> str:
    """Return an image that was not removed and stands on ``tag``, directly or not; "" for none."""
    todo, seen = [tag], {tag}
    while todo:
        for child in children(todo.pop()):
            found = record(child)
            if found is not None and found.strong:
                return child
            if child not in seen:
                seen.add(child)
                todo.append(child)
    return ""
