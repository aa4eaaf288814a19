"""Crashes that are no cases about images: a repository that is being created, what a host notes for itself, and
each call of a repository that says to be durable on return, by itself."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from engine.data.model import Strategy, VolumeFormat
from engine.data.records import Record, VolumeRef
from engine.doors.files import Access
from engine.doors.volume_groups import VolumeGroup
from engine.errors import DiskwrightError, NotFound
from engine.formats.base import Manager, Repository
from engine.formats.files.layout import ACCESS_FILE, PROGRESS_BYTES
from engine.formats.lvm import setup
from engine.formats.lvm.metadata.layout import SLOTS, volume_name
from sim.disk.files import Fault
from sim.disk.nodes import DataOp, FileNode
from sim.disk.profiles import POSIX
from sim.disk.storage import SimStorage
from sim.explore.search.cuts import cuts
from sim.explore.search.explorer import EffectRecorder, Moment
from sim.hosts.crash import Crashed
from sim.hosts.processes import Hook, SimProcess
from sim.hosts.world import DEVICE, FORMAT, LVM, REPOSITORIES, World
from sim.lvm.volume_groups import make_device

_DEVICE_BYTES = 64 << 20
_GROWN_BYTES = 8 << 20
_CONNECTION: dict[str, object] = {"path": f"{REPOSITORIES}/new"}
_GROUP: dict[str, object] = {"volume_group": "new"}
_UNREADABLE = b"not what we wrote"
_DEVICE = f"{REPOSITORIES}/new/{DEVICE}"


def creation(reply_lost: bool = False) -> list[str]:
    """Create a repository and crash everywhere: there is none and it can be created, or it is there, for good.

    ``reply_lost``: the link that commits it succeeds and reports that the name is taken, as NFS may."""
    recorder = EffectRecorder()
    world = World(least_ids=True, hook=_losing_replies(recorder) if reply_lost else recorder)
    return _creation(world, recorder, _CONNECTION, _CONNECTION)


def creation_on_lvm(in_a_group: bool = False) -> list[str]:
    """The same on a device of garbage; or in a group without anything that is there already."""
    recorder = EffectRecorder()
    world = World(least_ids=True, hook=recorder, format=LVM)
    world.storage.make_directory(f"{REPOSITORIES}/new")
    make_device(world.storage, _DEVICE, _DEVICE_BYTES)
    if in_a_group:
        world.host("setup", False).doors.volume_groups.create_group("new", [_DEVICE], "")
    world.storage.settle()
    return _creation(world, recorder, _GROUP if in_a_group else {**_GROUP, "devices": [_DEVICE]}, _GROUP)


def _creation(
    world: World, recorder: EffectRecorder, made_of: dict[str, object], connection: dict[str, object]
) -> list[str]:
    engine = world.host("one", False)
    points = recorder.run(world.storage, tuple, lambda: engine.create_repository(world.format, made_of))
    return [
        problem
        for storage, done in _states(points)
        for problem in _created(world.fork(storage), done, made_of, connection)
    ]


def _losing_replies(recorder: EffectRecorder) -> Hook:
    def hook(process: SimProcess, call: str, what: str) -> Fault:
        recorder(process, call, what)
        return Fault.REPLY_LOST if call == "files.link" else Fault.NONE

    return hook


def _states(points: list[Moment]) -> Iterator[tuple[SimStorage, bool]]:
    """(a state, whether all was acknowledged)"""
    seen: set[tuple[int, bool]] = set()
    for point in points:
        done = point is points[-1]
        for cut in cuts(point.storage, POSIX._replace(max_pending=20)):
            if (cut.key, done) not in seen:
                seen.add((cut.key, done))
                yield cut.build(), done


def _created(world: World, done: bool, made_of: dict[str, object], connection: dict[str, object]) -> Iterator[str]:
    engine = world.host("two", False)
    try:
        engine.connect_storage_repository("new", world.format, connection)
    except NotFound:
        if done:
            yield "the creation of a repository was acknowledged and is lost"
            return
        yield from _tried("to create it again", lambda: engine.create_repository(world.format, made_of))
        yield from _tried("to connect it", lambda: engine.connect_storage_repository("new", world.format, connection))
    except DiskwrightError as error:
        yield f"what a creation left is neither a repository nor none: {error}"
        return
    yield from _tried("to make a disk in it", lambda: engine.create_virtual_disk("new", 65536))


def notes() -> list[str]:
    """Connect a repository and cut the power of the host itself everywhere: the note is there whole, or not."""
    before, run, recorder = _recorded()
    host = run.machine("one")
    host.state_storage.settle()
    engine = run.host("one", False)
    points = recorder.run(
        host.state_storage, tuple, lambda: engine.connect_storage_repository("new", FORMAT, _CONNECTION)
    )
    problems = []
    for storage, done in _states(points):
        other = before.fork(before.storage.clone())
        other.machine("one").state_storage = storage
        try:
            connected = other.host("one", False).list_repositories()
        except DiskwrightError as error:
            problems.append(f"the notes of a host cannot be read: {error}")
            continue
        if done and not connected:
            problems.append("a connection was acknowledged and is forgotten")
    return problems


def note_kept() -> list[str]:
    """Do the same where the note cannot be understood: it is there still, under its name or another."""
    _, run, recorder = _recorded()
    engine = run.host("one", False)
    folder, storage = engine.state.directory, run.machine("one").state_storage
    engine.connect_storage_repository("old", FORMAT, _CONNECTION)
    (path,) = _connections(storage, folder)
    inode, _ = storage.file(path, True)
    storage.change(inode, DataOp(0, "write", 0, len(_UNREADABLE), _UNREADABLE), path)
    storage.settle()
    again = run.host("one", False)
    points = recorder.run(storage, tuple, lambda: again.connect_storage_repository("new", FORMAT, _CONNECTION))
    return [
        "a note that cannot be understood is lost"
        for state, _ in _states(points)
        if not any(
            state.file(path)[1].content.read(0, len(_UNREADABLE)) == _UNREADABLE for path in _connections(state, folder)
        )
    ]


def _recorded() -> tuple[World, World, EffectRecorder]:
    """A repository that no host has connected; the same again, and who records what is done there."""
    world = World(least_ids=True)
    world.host("setup", False).create_repository(FORMAT, _CONNECTION)
    world.storage.settle()
    recorder = EffectRecorder()
    return world, world.fork(world.storage.clone(), recorder), recorder


def _connections(storage: SimStorage, folder: str) -> list[str]:
    names = [entry.name for entry in storage.list_directory(folder)]
    return [f"{folder}/{name}" for name in names if name.startswith("connections.json")]


class _Promise(NamedTuple):
    """A call, and how its effect is seen."""

    name: str
    operation: Callable[[Repository], object]
    holds: Callable[[Repository, SimStorage], bool]


_TAG, _KEPT, _NEW, _STRAY = (f"{number}{number}" * 16 for number in range(1, 5))


def _raw(volume: str) -> VolumeRef:
    return VolumeRef(volume, VolumeFormat.RAW, "")


def _there(volume: str) -> Callable[[Repository, SimStorage], bool]:
    return lambda repository, storage: repository.volumes.facts(volume, VolumeFormat.RAW).present


def _stated(repository: Repository, storage: SimStorage) -> bool:
    return any(entry.name == ACCESS_FILE for entry in storage.list_directory(f"{REPOSITORIES}/a"))


def _room_for_progress(repository: Repository, storage: SimStorage) -> bool:
    found = [node for path, _, node in storage.walk() if path.endswith(f"/progress/{_TAG}.2")]
    return any(isinstance(node, FileNode) and node.content.allocated >= PROGRESS_BYTES for node in found)


def _manager(repository: Repository) -> Manager:
    assert repository.manager is not None
    return repository.manager


def _more_extents(repository: Repository) -> None:
    assert repository.extents is not None
    repository.extents.make_room(_raw(_KEPT), _GROWN_BYTES)


def _given_up_and_taken(repository: Repository) -> None:
    _manager(repository).release()
    _manager(repository).take("")


def _record(tag: str) -> Record:
    return Record(tag, False, False, 65536, False, None, Strategy.SPACE)


def more_room() -> list[str]:
    """Write one record more than a chunk of them has room for: after a power cut it is there where it was acknowledged,
    the others are there anyhow, and another one can be published."""
    world = World(least_ids=True, format=LVM)
    world.create("a")
    engine = world.host("setup")
    repository = engine.context.repository("a")
    tags = [f"{number:032x}" for number in range(1, SLOTS + 3)]
    for tag in tags[:SLOTS]:
        repository.tags.publish(_record(tag), 0)
    engine.close()
    world.storage.settle()
    recorder = EffectRecorder()
    run = world.fork(world.storage.clone(), recorder)
    newcomer = run.host("one").context.repository("a")
    points = recorder.run(run.storage, tuple, lambda: newcomer.tags.publish(_record(tags[SLOTS]), 0))
    return [problem for state, done in _states(points) for problem in _published(world.fork(state), tags, done)]


def _published(world: World, tags: list[str], done: bool) -> Iterator[str]:
    try:
        repository = world.host("two").context.repository("a")
        found = {tag for tag, entry in repository.tags.scan().items() if entry.record is not None}
    except DiskwrightError as error:
        yield f"the records cannot be read: {error}"
        return
    missing = set(tags[: SLOTS + done]) - found
    if missing:
        yield f"{len(missing)} records that were acknowledged are lost"
    yield from _tried("to publish another", lambda: repository.tags.publish(_record(tags[-1]), 0))


def mark_made_anew() -> list[str]:
    """Attach a group that an older program marked with the name of the host alone: once a host has it, no power cut
    makes it look free for another one of that name."""
    world = World(least_ids=True, format=LVM)
    world.create("a")
    engine = world.host("one")
    attached = setup.attach(engine.doors, setup.parse({"volume_group": "a"}))
    attached.meta.write_header(attached.header._replace(nonce="", term=attached.header.term + 1))
    attached.meta.close()
    setup.deactivate_meta(attached.group)
    groups = engine.doors.volume_groups
    groups.set_system_id("a", groups.former_system_id, groups.system_id)
    engine.close()
    world.storage.settle()
    run = world.fork(world.storage.clone())
    setup.attach(run.host("one", False).doors, setup.parse({"volume_group": "a"}))
    reports = (
        world.fork(cut.build()).host("two", False).doors.volume_groups.report("a") for cut in cuts(run.storage, POSIX)
    )
    marked = [report.system_id != groups.former_system_id for report in reports]
    return [] if all(marked) else ["the mark of a group is not durable when the group is attached"]


def room_made_twice() -> list[str]:
    """Give a volume room, be killed before that is durable, and have another do it again: it is durable then."""
    world = World(least_ids=True, format=LVM)
    world.create("a")
    engine = world.host("setup")
    engine.context.repository("a").volumes.make(_raw(_KEPT), 65536, None)
    engine.close()
    world.storage.settle()
    before = [""]

    def hook(process: SimProcess, call: str, what: str) -> Fault:
        if call == "volume_groups.sync" and before[-1] == "volume_groups.change_tags":
            process.kill()
        before.append(call)
        return Fault.NONE

    run = world.fork(world.storage.clone(), hook)
    with contextlib.suppress(Crashed):
        _more_extents(run.host("one").context.repository("a"))
    run = world.fork(run.storage)
    _more_extents(run.host("two").context.repository("a"))
    states = [cut.build() for cut in cuts(run.storage, POSIX)]
    kept = [_grown(world.fork(state).host("three").context.repository("a"), state) for state in states]
    return [] if all(kept) else ["room that was made twice is not durable"]


def _grown(repository: Repository, storage: SimStorage) -> bool:
    facts = repository.volumes.facts(_KEPT, VolumeFormat.RAW)
    if facts.length != _GROWN_BYTES:
        return False
    device = next(node for path, _, node in storage.walk() if path.endswith(f"/{DEVICE}"))
    assert isinstance(device, FileNode)
    report = repository.volumes.listing()
    assert isinstance(report, VolumeGroup)
    return all(
        device.content.read(extent.start, extent.length) == bytes(extent.length)
        for extent in report.volumes[volume_name(_KEPT)].ranges
    )


_PROMISES = (
    _Promise("volumes.make", lambda r: r.volumes.make(_raw(_NEW), 65536, None), _there(_NEW)),
    _Promise(
        "volumes.remove",
        lambda r: r.volumes.remove(_KEPT, VolumeFormat.RAW),
        lambda r, storage: not _there(_KEPT)(r, storage),
    ),
    _Promise(
        "volumes.quarantine",
        lambda r: r.volumes.quarantine(_STRAY, VolumeFormat.RAW),
        lambda r, storage: not _there(_STRAY)(r, storage) and any(one.kind == "lost" for one in r.scan().litter),
    ),
    _Promise(
        "progress.write",
        lambda r: r.progress.write(_TAG, 1, 1, b"{}"),
        lambda r, storage: r.progress.read(_TAG, 1) == b"{}",
    ),
)
_ON_FILES = (
    _Promise("give", lambda r: r.give(Access("", "", 0o640)), _stated),
    _Promise("progress.start", lambda r: r.progress.start(_TAG, 2), _room_for_progress),
    _Promise(
        "digests.write",
        lambda r: r.digests.write(_KEPT, b"d" * 32),
        lambda r, storage: r.digests.read(_KEPT) == b"d" * 32,
    ),
)
_ON_LVM = (
    _Promise("manager.take", _given_up_and_taken, lambda r, storage: _manager(r).host() != ""),
    _Promise("manager.release", lambda r: _manager(r).release(), lambda r, storage: _manager(r).host() == ""),
    _Promise("extents.make_room", _more_extents, _grown),
)


def promises(format: str = FORMAT) -> list[str]:
    """Calls that say to be durable on return, or to have made room, and are not so after a power cut."""
    world = World(least_ids=True, format=format)
    world.create("a")
    engine = world.host("setup")
    repository = engine.context.repository("a")
    for volume in (_KEPT, _STRAY):
        repository.volumes.make(_raw(volume), 65536, None)
    repository.progress.start(_TAG, 1)
    engine.close()
    world.storage.settle()
    promises = _PROMISES + (_ON_LVM if format == LVM else _ON_FILES)
    return [f"{one.name} is not durable on return" for one in promises if not _kept(world, one)]


def part_made_again() -> list[str]:
    """Make the directory of the data again: it is there on return, whatever a power cut leaves."""
    world = World(least_ids=True)
    world.create("a")
    world.storage.remove_directory(f"{REPOSITORIES}/a/volumes")
    world.storage.settle()
    run = world.fork(world.storage.clone())
    parts = run.host("one").context.repository("a").parts
    assert parts is not None
    parts.make("volumes")
    states = [cut.build() for cut in cuts(run.storage, POSIX)]
    missing = [world.fork(state).host("two").context.repository("a").scan().missing for state in states]
    return ["a part that was made again is not durable"] if any(missing) else []


def _kept(world: World, promise: _Promise) -> bool:
    run = world.fork(world.storage.clone())
    promise.operation(run.host("one").context.repository("a"))
    return all(
        promise.holds(world.fork(state).host("two").context.repository("a"), state)
        for state in (cut.build() for cut in cuts(run.storage, POSIX))
    )


def _tried(what: str, operation: Callable[[], object]) -> Iterator[str]:
    try:
        operation()
    except DiskwrightError as error:
        yield f"it is impossible {what}: {error}"
