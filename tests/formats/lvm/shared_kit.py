"""Hosts of the simulator that share a repository on LVM, for tests of the format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from engine.doors import Doors
from engine.errors import Refused
from engine.formats.lvm.metadata.pages import SECTOR_BYTES
from engine.formats.lvm.repository import LvmRepository
from engine.formats.lvm.shared.guard import SharedGuard
from engine.formats.registry import create_repository, detach_repository, open_repository
from sim.hosts.doors.shared_leases import SimSharedLeases
from sim.hosts.lease_areas import DEAD_S, RENEWED_S
from sim.hosts.processes import SimProcess
from sim.hosts.world import DEVICE, DEVICE_BYTES, REPOSITORIES, SHARED, World
from sim.lvm.volume_groups import SimVolumeGroups, make_device

FORMAT = "lvm-1.0"
GROUP: dict[str, object] = {"volume_group": "a"}
HOSTS = 4
ONE, TWO, THREE = "host-1", "host-2", "host-3"


def shared_world() -> World:
    """A group that four hosts may share; host-1 manages it."""
    made = World(format=SHARED)
    made.storage.make_directory(f"{REPOSITORIES}/a")
    device = f"{REPOSITORIES}/a/{DEVICE}"
    make_device(made.storage, device, DEVICE_BYTES)
    create_repository(FORMAT, {**GROUP, "devices": [device], "shared": True, "hosts": HOSTS}, doors(made, ONE))
    on(made, ONE)
    return made


def doors(world: World, host: str) -> Doors:
    return world.machine(host).process("direct").doors


def on(world: World, host: str) -> LvmRepository:
    """As a process of its own has it open."""
    return cast(LvmRepository, open_repository(FORMAT, GROUP, doors(world, host)))


def guard(repository: LvmRepository) -> SharedGuard:
    return cast(SharedGuard, repository._guard)


def manages(repository: LvmRepository) -> bool:
    """Whether its host may change the group, as it took part when it opened it."""
    try:
        with guard(repository).changing():
            return True
    except Refused:
        return False


def process(repository: LvmRepository) -> SimProcess:
    """That has it open."""
    groups = repository._group.doors.volume_groups
    assert isinstance(groups, SimVolumeGroups)
    assert isinstance(groups.process, SimProcess)
    return groups.process


def number(repository: LvmRepository) -> int:
    return guard(repository)._member.number


def heads(repository: LvmRepository, slot: int = 0) -> bytes:
    geometry = repository._meta.geometry
    return repository._meta.read(geometry.head_offset(slot, 0), geometry.slot_bytes)


def put_heads(repository: LvmRepository, data: bytes, slot: int = 0) -> None:
    repository._meta.write(repository._meta.geometry.head_offset(slot, 0), data)
    repository._meta.sync()


def changed(before: bytes, after: bytes) -> list[int]:
    """Sectors."""
    return [at for at in range(0, len(after), SECTOR_BYTES) if before[at:][:SECTOR_BYTES] != after[at:][:SECTOR_BYTES]]


def with_sectors(base: bytes, source: bytes, sectors: list[int]) -> bytes:
    made = bytearray(base)
    for at in sectors:
        made[at : at + SECTOR_BYTES] = source[at : at + SECTOR_BYTES]
    return bytes(made)


def leave(world: World, host: str) -> None:
    """Once no process of the host has anything open."""
    for process in list(world.machine(host).processes.values()):
        process.end(killed=False)
    detach_repository(FORMAT, GROUP, doors(world, host))


def pass_time(world: World, host: str, seconds: float) -> None:
    doors(world, host).clock.sleep(seconds)


def dies(world: World, host: str, watcher: str) -> None:
    """Its power fails, and the watcher has waited until it is proven dead."""
    world.machine(host).lose_power()
    pass_time(world, watcher, DEAD_S + RENEWED_S)


def before_first(monkeypatch: pytest.MonkeyPatch, call: str, action: Callable[[], object]) -> None:
    """Do something just before the next call of the lease door."""
    real: Any = getattr(SimSharedLeases, call)
    done = False

    def hooked(leases: SimSharedLeases, *arguments: Any) -> Any:
        nonlocal done
        if not done:
            done = True
            action()
        return real(leases, *arguments)

    monkeypatch.setattr(SimSharedLeases, call, hooked)


def tags(count: int) -> list[str]:
    return [f"{index:02x}" * 16 for index in range(1, count + 1)]
