"""Where the rounds beside real machines have their repositories: on this machine's files, or, in a guest of the lab, on
NFS and on LVM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from engine.api import Engine
from engine.assembly import real_doors
from tests.crash import kit

_MIB = 1 << 20
_DEVICES = {"a": "/dev/ubda", "b": "/dev/ubdc"}
"""The disks of a lab's host that are there for groups."""


class World(Protocol):
    """Repositories "a" and "b", and engines of hosts that have both."""

    def engine(self, host: str) -> Engine: ...


class Place(NamedTuple):
    """How long disks are there, and who can use them."""

    world: Callable[[Path], World]
    size: int = _MIB
    longer: int = 3 << 19
    other: str = "host-b"
    """The host that goes on with what the first one has begun."""
    grown: tuple[str, ...] = ("space", "performance")
    """Strategies of disks that can be made longer beside their machine."""
    first_s: float = 0.6
    """How long a verb takes, before that was seen."""


class _Connected:
    """Repositories that are connected under their names."""

    def __init__(self, root: Path, format: str, parameters: Callable[[str], dict[str, Any]]) -> None:
        self._root, self._format, self._parameters = root, format, parameters

    def create(self, more: Callable[[str], dict[str, Any]] = lambda name: {}) -> _Connected:
        self._root.mkdir(parents=True)
        engine = self._bare("host-a")
        for name in _DEVICES:
            engine.create_repository(self._format, {**self._parameters(name), **more(name)})
        engine.close()
        return self

    def engine(self, host: str) -> Engine:
        engine = self._bare(host)
        if not engine.list_repositories():
            for name in _DEVICES:
                engine.connect_storage_repository(name, self._format, self._parameters(name))
        return engine

    def _bare(self, host: str) -> Engine:
        return Engine(real_doors(host), str(self._root / f"state-{host}"))


def leave(place: Place, world: World) -> None:
    """Have its hosts leave nothing behind that others on this machine would see: mounts, devices."""
    for host in {"host-a", place.other}:
        engine = world.engine(host)
        for repository in engine.list_repositories():
            engine.disconnect_storage_repository(repository)
        engine.close()


LOCAL = Place(lambda root: kit.World(root, "a", "b").create())


def on_nfs(server: str, directory: str) -> Place:
    """On a server that exports its root; the directory is made there by whoever mounts it first."""

    def parameters(name: str) -> dict[str, Any]:
        return {"server": server, "export": "/", "directory": f"{directory}-{name}"}

    return Place(lambda root: _Connected(root, "nfs-1.0", parameters).create(), first_s=2.0)


def on_lvm(group: str) -> Place:
    """In two groups on disks of the lab, which this host has alone. Disks are of whole extents, which a machine has all
    of: no snapshot is taken of another beside it."""

    def world(root: Path) -> World:
        found = _Connected(root, "lvm-1.0", lambda name: {"volume_group": f"{group}{name}"})
        return found.create(lambda name: {"devices": [_DEVICES[name]]})

    return Place(world, 4 * _MIB, 8 * _MIB, other="host-a", grown=("space",), first_s=6.0)
