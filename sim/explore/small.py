"""Crashes that are no stories about images: a repository that is being created, what a host notes for itself, and
each call of a repository that says to be durable on return, by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from engine.errors import DiskwrightError, NotFound
from engine.formats.base import Repository
from engine.formats.files_layout import PROGRESS_BYTES
from engine.model import VolumeFormat
from engine.records import VolumeRef
from sim.disk.files import Fault
from sim.disk.nodes import FileNode
from sim.disk.profiles import POSIX
from sim.disk.storage import SimStorage
from sim.explore.cuts import cuts
from sim.explore.explorer import Point, Recorder
from sim.hosts.processes import Hook, SimProcess
from sim.hosts.world import FORMAT, REPOSITORIES, World

_CONNECTION = {"path": f"{REPOSITORIES}/new"}


def creation(reply_lost: bool = False) -> list[str]:
    """Create a repository and crash everywhere: there is none and it can be created, or it is there, for good.

    ``reply_lost``: the link that commits it succeeds and reports that the name is taken, as NFS may."""
    recorder = Recorder()
    world = World(least_ids=True, hook=_losing_replies(recorder) if reply_lost else recorder)
    engine = world.host("one", False)
    points = recorder.run(world.storage, tuple, lambda: engine.create_repository(FORMAT, _CONNECTION))
    return [problem for storage, done in _states(points) for problem in _created(world.fork(storage), done)]


def _losing_replies(recorder: Recorder) -> Hook:
    def hook(process: SimProcess, call: str, what: str) -> Fault:
        recorder(process, call, what)
        return Fault.REPLY_LOST if call == "files.link" else Fault.NONE

    return hook


def _states(points: list[Point]) -> Iterator[tuple[SimStorage, bool]]:
    """(a state, whether all was acknowledged)"""
    seen: set[tuple[int, bool]] = set()
    for point in points:
        done = point is points[-1]
        for cut in cuts(point.storage, POSIX._replace(max_pending=20)):
            if (cut.key, done) not in seen:
                seen.add((cut.key, done))
                yield cut.build(), done


def _created(world: World, done: bool) -> Iterator[str]:
    engine = world.host("two", False)
    try:
        engine.connect_storage_repository("new", FORMAT, _CONNECTION)
    except NotFound:
        if done:
            yield "the creation of a repository was acknowledged and is lost"
            return
        yield from _tried("to create it again", lambda: engine.create_repository(FORMAT, _CONNECTION))
        yield from _tried("to connect it", lambda: engine.connect_storage_repository("new", FORMAT, _CONNECTION))
    except DiskwrightError as error:
        yield f"what a creation left is neither a repository nor none: {error}"
        return
    yield from _tried("to make a disk in it", lambda: engine.create_virtual_disk("new", 65536))


def notes() -> list[str]:
    """Connect a repository and cut the power of the host itself everywhere: the note is there whole, or not."""
    world = World(least_ids=True)
    world.host("setup", False).create_repository(FORMAT, _CONNECTION)
    world.storage.settle()
    recorder = Recorder()
    run = world.fork(world.storage.clone(), recorder)
    host = run.machine("one")
    host.state_storage.settle()
    engine = run.host("one", False)
    points = recorder.run(
        host.state_storage, tuple, lambda: engine.connect_storage_repository("new", FORMAT, _CONNECTION)
    )
    problems = []
    for storage, done in _states(points):
        other = world.fork(world.storage.clone())
        other.machine("one").state_storage = storage
        try:
            connected = other.host("one", False).list_repositories()
        except DiskwrightError as error:
            problems.append(f"the notes of a host cannot be read: {error}")
            continue
        if done and not connected:
            problems.append("a connection was acknowledged and is forgotten")
    return problems


class _Promise(NamedTuple):
    """A call, and how its effect is seen."""

    name: str
    act: Callable[[Repository], object]
    holds: Callable[[Repository, SimStorage], bool]


_TAG, _KEPT, _NEW, _STRAY = (f"{number}{number}" * 16 for number in range(1, 5))


def _raw(volume: str) -> VolumeRef:
    return VolumeRef(volume, VolumeFormat.RAW, "")


def _there(volume: str) -> Callable[[Repository, SimStorage], bool]:
    return lambda repository, storage: repository.volume_facts(volume, VolumeFormat.RAW).present


def _room_for_progress(repository: Repository, storage: SimStorage) -> bool:
    found = [node for path, _, node in storage.walk() if path.endswith(f"/progress/{_TAG}.2")]
    return any(isinstance(node, FileNode) and node.content.allocated >= PROGRESS_BYTES for node in found)


_PROMISES = (
    _Promise("make_volume", lambda r: r.make_volume(_raw(_NEW), 65536, None), _there(_NEW)),
    _Promise(
        "remove_volume",
        lambda r: r.remove_volume(_KEPT, VolumeFormat.RAW),
        lambda r, storage: not _there(_KEPT)(r, storage),
    ),
    _Promise(
        "quarantine_volume",
        lambda r: r.quarantine_volume(_STRAY, VolumeFormat.RAW),
        lambda r, storage: not _there(_STRAY)(r, storage) and any(one.kind == "lost" for one in r.scan().litter),
    ),
    _Promise("start_progress", lambda r: r.start_progress(_TAG, 2), _room_for_progress),
    _Promise(
        "write_progress",
        lambda r: r.write_progress(_TAG, 1, 1, b"{}"),
        lambda r, storage: r.read_progress(_TAG, 1) == b"{}",
    ),
    _Promise(
        "write_digests",
        lambda r: r.write_digests(_KEPT, b"d" * 32),
        lambda r, storage: r.read_digests(_KEPT) == b"d" * 32,
    ),
)


def promises() -> list[str]:
    """Calls that say to be durable on return, or to have made room, and are not so after a power cut."""
    world = World(least_ids=True)
    world.create("a")
    repository = world.host("setup").context.repository("a")
    for volume in (_KEPT, _STRAY):
        repository.make_volume(_raw(volume), 65536, None)
    repository.start_progress(_TAG, 1)
    world.storage.settle()
    return [f"{one.name} is not durable on return" for one in _PROMISES if not _kept(world, one)]


def _kept(world: World, promise: _Promise) -> bool:
    run = world.fork(world.storage.clone())
    promise.act(run.host("one").context.repository("a"))
    return all(
        promise.holds(world.fork(state).host("two").context.repository("a"), state)
        for state in (cut.build() for cut in cuts(run.storage, POSIX))
    )


def _tried(what: str, act: Callable[[], object]) -> Iterator[str]:
    try:
        act()
    except DiskwrightError as error:
        yield f"it is impossible {what}: {error}"
