"""A case: what is there, what is then done and crashed, and the world in which that happens."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from engine.data.records import canonical
from engine.doors.images import Chain, ImageTool
from engine.errors import DiskwrightError
from engine.formats.files import layout
from sim.disk.files import SimFiles
from sim.disk.profiles import Profile
from sim.explore.cases.driver import FILES, Driver
from sim.hosts.processes import SimProcess
from sim.hosts.world import FORMAT, REPOSITORIES, World
from sim.qemu.images import SimImageTool, SimSession

RESCUERS = ("two", "three")
"""Hosts that recover, in turns."""

_SLOW_S = 6.0


class Case(NamedTuple):
    """Something to be crashed."""

    name: str
    prepare: Callable[[Driver], object]
    operation: Callable[[Driver], object]
    about: str = ""
    again: bool = False
    """After a kill another host does the same once more: it must come out as if done once."""
    then: Callable[[Driver], object] | None = None
    """What another host does after a kill, with what it sees."""
    slow: bool = False
    """Reading images takes virtual time, so that a copy has checkpoints."""
    strangers: bool = False
    """Volumes that no record names are part of it."""
    repositories: tuple[str, ...] = ("a", "b")
    format: str = FORMAT
    uses: bool = True
    """Its repositories are made by a version that knows of uses."""


def prepared(case: Case, profile: Profile | str = "posix") -> Driver:
    """The world of a case before its operation: everything durable, no process alive."""
    world = World(profile=profile, least_ids=True, format=case.format, images=slow_tool if case.slow else None)
    world.storage.make_directory(FILES)
    world.create(*case.repositories)
    driver = Driver(world)
    if not case.uses:
        before_uses(world, case.repositories)
    if world.sharing:
        world.manage("one")
    for host in ("one", *RESCUERS):
        world.host(host)
    case.prepare(driver)
    driver.close()
    look_around(world)
    return driver.on("one")


def look_around(world: World) -> None:
    """Have the hosts note what they are connected to as they find it after the boot with which each fork of this world
    begins: once here, and not anew in each of them. The shared storage is not touched."""
    for name in () if world.sharing else list(world.hosts):
        other = world.fork(world.storage.clone())
        engine = other.host(name)
        for repo in engine.list_repositories():
            with contextlib.suppress(DiskwrightError):
                engine.context.repository(repo)
        world.hosts[name].state_storage = other.hosts[name].state_storage


def before_uses(world: World, repositories: Iterable[str]) -> None:
    """Make empty repositories what they were before there were uses. Everything is durable."""
    files = SimFiles(world.storage)
    for name in repositories:
        root = f"{REPOSITORIES}/{name}"
        found = layout.decode_identity(files.read_file(f"{root}/{layout.IDENTITY_FILE}", 4096), root)
        put_identity(files, root, canonical({"format": found.version, "identity": found.identity}) + b"\n")
    world.storage.settle()


def put_identity(files: SimFiles, root: str, text: bytes) -> None:
    """Have a repository of files say that of itself, in both places."""
    for path, content in ((layout.COPY_FILE, layout.encode_copy(text)), (layout.IDENTITY_FILE, text)):
        with files.open(f"{root}/{path}", writable=True) as handle:
            handle.truncate(0)
            handle.write_at(0, content)
            handle.sync()


def slow_tool(process: SimProcess) -> ImageTool:
    """The simulated qemu on a storage where each piece that is read takes seconds."""
    world = process.host.world
    assert isinstance(world, World)
    tool = _SlowTool(process.files, world.image_locks)
    tool.read_something = lambda: world.advance(_SLOW_S)
    process.at_death(tool.abandon)
    return tool


class _SlowTool(SimImageTool):
    read_something: Callable[[], None]

    def open_session(self, chain: Chain, writable: bool, direct: bool, later: bool = False) -> SimSession:
        session = super().open_session(chain, writable, direct, later)
        stream = session.stream

        def slowly(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
            for piece in stream(ranges):
                self.read_something()
                yield piece

        session.stream = slowly  # type: ignore[method-assign]
        return session
