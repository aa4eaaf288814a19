"""Small sequences of changes of a volume group, for the simulated LVM and for the real one: what a real power cut
leaves of them must be among what the simulation says that it may leave.

Each works in a group with two durable volumes, ``old`` (two extents, data at its beginning, a tag) and ``kept`` (one,
behind it), and yields after every operation. In every other one ``kept`` has so many tags that LVM's text does not
lie beside the header that refers to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from engine.doors.volume_groups import BLOCK_BYTES, VolumeGroup, VolumeGroups
from engine.formats.lvm.group import NOBODY
from sim.disk.nodes import FileNode
from sim.disk.profiles import PROFILES, crash_states
from sim.disk.storage import SimStorage
from sim.hosts.world import DEVICE, LVM, REPOSITORIES, World
from sim.lvm import group_model as model
from sim.lvm.volume_groups import METADATA, group_in, make_device

EXTENT = model.EXTENT_BYTES
SAMPLE_BYTES = 2 * BLOCK_BYTES
"""So much of the beginning of each extent is looked at."""
OLD, KEPT, NEW = "old", "kept", "new"
_EXTENTS = 12
_GARBAGE = b"\xa5"
_MARKS = {b"o": "o", b"n": "n", _GARBAGE: "g", b"\0": "z"}
_GROUP = "group"
_TAG = "a-tag"
_MANY = [f"t{number}-{'x' * 1000}" for number in range(64)]

Workload = Callable[[VolumeGroups, str], Iterator[None]]


class Volume(NamedTuple):
    """One volume as it is found."""

    name: str
    tags: frozenset[str]
    extents: tuple[int, ...]
    data: bytes
    """Of each extent the beginning."""


class Found(NamedTuple):
    """A group as it is found."""

    owner: str
    volumes: frozenset[Volume]


# -- what is done


def creation(groups: VolumeGroups, group: str) -> Iterator[None]:
    """With tags, and the flush that follows."""
    yield from _create(groups, group, NEW, 1)
    groups.sync(group)
    yield


def creation_and_data(groups: VolumeGroups, group: str) -> Iterator[None]:
    """As the engine makes a volume: it is durable before anything is written there."""
    yield from creation(groups, group)
    yield from _write(groups, group, NEW, b"n", sync=True)


def data_before_the_flush_of_the_group(groups: VolumeGroups, group: str) -> Iterator[None]:
    """What the engine must not do: the place may belong to somebody else after a cut."""
    yield from _create(groups, group, NEW, 1)
    yield from _write(groups, group, NEW, b"n", sync=False)
    groups.sync(group)
    yield


def tags(groups: VolumeGroups, group: str) -> Iterator[None]:
    """Added, removed, exchanged; a flush after each."""
    for add, remove in ((["one", "two"], []), ([], ["one"]), (["three"], ["two", _TAG])):
        groups.change_tags(group, OLD, add, remove)
        yield
        groups.sync(group)
        yield


def renaming(groups: VolumeGroups, group: str) -> Iterator[None]:
    """And back."""
    for name, new in ((OLD, NEW), (NEW, OLD)):
        groups.rename(group, name, new)
        yield
        groups.sync(group)
        yield


def extension(groups: VolumeGroups, group: str) -> Iterator[None]:
    """Extend a volume that is in use, behind another one; then write its new end."""
    path = groups.activate(group, OLD)
    yield
    groups.resize(group, OLD, 3 * EXTENT)
    yield
    groups.sync(group)
    yield
    with groups.open_device(path, writable=True) as device:
        device.write_at(2 * EXTENT, b"n" * BLOCK_BYTES)
        yield
        device.sync()
        yield


def reduction(groups: VolumeGroups, group: str) -> Iterator[None]:
    """And what was cut off is given to another one."""
    groups.resize(group, OLD, EXTENT)
    yield
    groups.sync(group)
    yield
    yield from creation(groups, group)


def removal(groups: VolumeGroups, group: str) -> Iterator[None]:
    """Remove a volume that is active."""
    groups.activate(group, OLD)
    yield
    groups.remove(group, OLD)
    yield
    groups.sync(group)
    yield


def removal_and_reuse(groups: VolumeGroups, group: str) -> Iterator[None]:
    """The place is given away and written at once, so that what was there is gone or not, in any order."""
    groups.remove(group, OLD)
    yield
    yield from _create(groups, group, NEW, 2)
    yield from _write(groups, group, NEW, b"n", sync=False)


def data_and_then_a_change(groups: VolumeGroups, group: str) -> Iterator[None]:
    """Neither is flushed, until the group is."""
    yield from _write(groups, group, OLD, b"n", sync=False)
    groups.change_tags(group, OLD, ["one"], [])
    yield
    groups.sync(group)
    yield


def durable_data_and_then_a_change(groups: VolumeGroups, group: str) -> Iterator[None]:
    """The flush of the data is before the change."""
    yield from _write(groups, group, OLD, b"n", sync=True)
    groups.change_tags(group, OLD, ["one"], [])
    yield


def a_change_and_then_durable_data(groups: VolumeGroups, group: str) -> Iterator[None]:
    """The flush of the data is that of the change, too, where both are on one device; nobody relies on it."""
    groups.rename(group, KEPT, NEW)
    yield
    yield from _write(groups, group, OLD, b"n", sync=True)


def two_changes_without_a_flush(groups: VolumeGroups, group: str) -> Iterator[None]:
    """In a row."""
    groups.change_tags(group, OLD, ["one"], [])
    yield
    groups.rename(group, KEPT, NEW)
    yield


def three_changes_without_a_flush(groups: VolumeGroups, group: str) -> Iterator[None]:
    """In a row, and then one."""
    yield from two_changes_without_a_flush(groups, group)
    groups.remove(group, OLD)
    yield
    groups.sync(group)
    yield


def two_changes_with_a_flush(groups: VolumeGroups, group: str) -> Iterator[None]:
    """After each."""
    groups.change_tags(group, OLD, ["one"], [])
    yield
    groups.sync(group)
    yield
    groups.rename(group, KEPT, NEW)
    yield
    groups.sync(group)
    yield


def handing_over(groups: VolumeGroups, group: str) -> Iterator[None]:
    """The only host gives the group up and takes it again; a flush after each."""
    for owner, present in ((NOBODY, groups.system_id), (groups.system_id, NOBODY)):
        groups.set_system_id(group, owner, present)
        yield
        groups.sync(group)
        yield


WORKLOADS: dict[str, Workload] = {
    function.__name__: function
    for function in (
        creation, creation_and_data, data_before_the_flush_of_the_group, tags, renaming, extension, reduction, removal,
        removal_and_reuse, data_and_then_a_change, durable_data_and_then_a_change, a_change_and_then_durable_data,
        two_changes_without_a_flush, three_changes_without_a_flush, two_changes_with_a_flush, handing_over,
    )
}  # fmt: skip


def _create(groups: VolumeGroups, group: str, name: str, extents: int) -> Iterator[None]:
    groups.report(group)  # as the engine does before: then the smallest room in which it fits is chosen
    groups.create(group, name, extents * EXTENT, [_TAG, "new"])
    yield


def _write(groups: VolumeGroups, group: str, name: str, byte: bytes, sync: bool) -> Iterator[None]:
    path = groups.activate(group, name)
    yield
    with groups.open_device(path, writable=True) as device:
        device.write_at(0, byte * BLOCK_BYTES)
        yield
        if sync:
            device.sync()
            yield
    groups.deactivate(group, name)
    yield


# -- before and after


def prepare(groups: VolumeGroups, group: str, device: str, many: bool) -> int:
    """The group as all of them find it, on a device for it alone. Returns where the first extent begins."""
    groups.create_group(group, [device], groups.system_id)
    groups.create(group, OLD, 2 * EXTENT, [_TAG])
    first = groups.report(group).volumes[OLD].ranges[0].start
    groups.create(group, KEPT, EXTENT, _MANY if many else [_TAG])
    with groups.open_device(device, writable=True) as handle:
        for extent in range(_EXTENTS):
            byte = b"o" if extent == 0 else _GARBAGE
            handle.write_at(first + extent * EXTENT, byte * SAMPLE_BYTES)
    groups.sync(group)
    return first


def has_many(name: str) -> bool:
    """Whether the group of that workload has long metadata."""
    return bool(list(WORKLOADS).index(name) % 2)


def found(report: VolumeGroup, own: str, first: int, read: Callable[[int, int], bytes]) -> Found:
    """What a report and the device (``read(offset, length)``) tell to the host that is ``own`` to LVM."""
    volumes = []
    for volume in report.volumes.values():
        starts = [start for part in volume.ranges for start in range(part.start, part.start + part.length, EXTENT)]
        extents = tuple((start - first) // EXTENT for start in starts)
        volumes.append(Volume(volume.name, volume.tags, extents, b"".join(read(at, SAMPLE_BYTES) for at in starts)))
    return Found("this host" if report.system_id == own else report.system_id, frozenset(volumes))


def legal(name: str, profile: str) -> list[set[Found]]:
    """What a power cut may leave of the workload of that name, by number of operations that were done."""
    world = World(format=LVM)
    device = f"{REPOSITORIES}/{_GROUP}/{DEVICE}"
    world.storage.make_directory(f"{REPOSITORIES}/{_GROUP}")
    make_device(world.storage, device, model.RESERVED_BYTES + _EXTENTS * EXTENT)
    groups = world.machine("one").process(name).doors.volume_groups
    prepare(groups, _GROUP, device, has_many(name))
    world.storage.settle()
    allowed = [_states(world.storage, groups.system_id, profile)]
    allowed += [_states(world.storage, groups.system_id, profile) for _ in WORKLOADS[name](groups, _GROUP)]
    return allowed


def _states(storage: SimStorage, own: str, profile: str) -> set[Found]:
    rules = PROFILES[profile]._replace(max_pending=12)
    return {_found(state.storage, own) for state in crash_states(storage, rules)}


def _found(storage: SimStorage, own: str) -> Found:
    group = group_in(_node(storage, METADATA).content)
    assert group is not None, "the simulation keeps a group that was durable"
    return found(group.report(), own, model.RESERVED_BYTES, _node(storage, DEVICE).content.read)


def _node(storage: SimStorage, name: str) -> FileNode:
    return storage.file(f"{REPOSITORIES}/{_GROUP}/{name}")[1]


# -- in words


def shown(one: Found) -> str:
    """A group in one line."""
    volumes = " ".join(_volume(volume) for volume in sorted(one.volumes))
    return f"{one.owner or 'nobody'}: {volumes or 'empty'}"


def _volume(volume: Volume) -> str:
    extents = ",".join(map(str, volume.extents))
    tags = [tag for tag in sorted(volume.tags) if tag not in _MANY]
    many = len(volume.tags) - len(tags)
    tags += [f"{many} long ones"] if many else []
    return f"{volume.name}@{extents}[{' '.join(tags)}]={_content(volume.data)}"


def _content(data: bytes) -> str:
    """Runs of equal sectors, as n8g8; z: zeros, g: what was on the device before."""
    text: list[tuple[str, int]] = []
    for start in range(0, len(data), 512):
        sector = data[start : start + 512]
        mark = _MARKS.get(sector[:1], "?") if sector == sector[:1] * 512 else "?"
        if text and text[-1][0] == mark:
            text[-1] = (mark, text[-1][1] + 1)
        else:
            text.append((mark, 1))
    return "".join(f"{mark}{count}" for mark, count in text)
