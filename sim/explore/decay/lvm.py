"""Objects of a repository on LVM: logical volumes and their tags, and pages of ``dw-meta``."""

from __future__ import annotations

from collections.abc import Iterator

from engine.data.records import Record
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.layout import HEADER_PAGES, LOG_BYTES
from engine.formats.lvm.metadata.pages import PAGE_BYTES, is_blank
from sim.disk.storage import SimStorage
from sim.explore.decay.objects import REPOSITORY, ROOT, Damage, naming
from sim.hosts.world import World
from sim.lvm.lvm_view import GroupContents, disks

ESSENTIAL: tuple[Damage, ...] = (Damage(layout.META, "gone"), Damage(layout.LEASES, "gone"))
_FLIPPED_AT = 100


def damages(storage: SimStorage) -> list[Damage]:
    """Return every damage of the repository."""
    disk = disk_of(storage)
    assert disk.group is not None
    found = []
    for name, volume in disk.group.volumes.items():
        found.append(Damage(name, "gone"))
        if layout.parse_volume(name) is not None and volume.tags:
            found.append(Damage(name, "untagged"))
    meta = disk.volumes[layout.META]
    for offset, tag in _pages(disk):
        if not is_blank(meta.read(offset, PAGE_BYTES)):
            found.append(Damage(f"{offset // PAGE_BYTES} {tag}", "flip"))
    return found


def touched(records: dict[str, Record], damage: Damage) -> set[str]:
    """Return the tags whose record or data it is. Any copy of a record may have been the newest."""
    if damage.kind == "flip":
        return {damage.name.partition(" ")[2]}
    return naming(records, layout.parse_volume(damage.name) or "no volume")


def inflict(world: World, damage: Damage) -> None:
    """Flip a bit of a page, remove a volume, or take its tags away."""
    doors = world.host("decay", connect=False).doors
    disk = disk_of(world.storage)
    assert disk.group is not None
    if damage.kind == "gone":
        doors.volume_groups.remove(REPOSITORY, damage.name)
    elif damage.kind == "untagged":
        doors.volume_groups.change_tags(REPOSITORY, damage.name, [], sorted(disk.group.volumes[damage.name].tags))
    else:
        at = int(damage.name.partition(" ")[0]) * PAGE_BYTES + _FLIPPED_AT
        for device, start, length in disk.group.ranges(disk.group.volumes[layout.META]):
            if 0 <= at < length:
                with doors.files.open(device, writable=True) as handle:
                    handle.write_at(start + at, bytes([handle.read_at(start + at, 1)[0] ^ 1]))
                    handle.sync()
            at -= length
    doors.volume_groups.sync(REPOSITORY)


def disk_of(storage: SimStorage) -> GroupContents:
    """Return the group."""
    return next(disk for disk in disks(storage) if f"{disk.root}/" == ROOT)


def _pages(disk: GroupContents) -> Iterator[tuple[int, str]]:
    """The pages that may hold something, each with the tag whose record it holds, "" for none."""
    assert disk.header is not None
    geometry = disk.header.geometry
    for page in range(HEADER_PAGES):
        yield page * PAGE_BYTES, ""
    for number in range(1, geometry.hosts + 1):
        yield geometry.roster_offset(number), ""
        yield from ((geometry.notes_offset(number, copy), "") for copy in range(2))
    for slot in disk.slots:
        for copy in range(geometry.copies):
            yield geometry.head_offset(slot.number, copy), slot.tag
            yield geometry.body_offset(slot.number, copy), slot.tag
    for log in disk.logs:
        for line in range(LOG_BYTES // PAGE_BYTES):
            yield geometry.line_offset(log.number, line), ""
