"""Two hosts of the simulator that share leases, driven as those of ``sanlock_kit`` are."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable
from typing import Any

from engine.doors.shared_leases import SLOT_BYTES, TOKEN_PREFIX, LeaseArea
from engine.errors import DiskwrightError
from sim.hosts.crash import Crashed
from sim.hosts.doors.shared_leases import SimSharedLease
from sim.hosts.processes import SimProcess
from sim.hosts.world import REPOSITORIES, World
from sim.lvm.volume_groups import make_device
from tests.tools.sanlock_kit import Failed

_GROUP_BYTES = 64 << 20
_LONGEST_S = 1000


class SimActor:
    """A process on a host."""

    def __init__(self, host: SimSharingHost) -> None:
        self.host = host
        self.inside = host.machine.process("direct")
        self.process = _Process(self.inside)
        self.leases = self.inside.doors.shared_leases
        self.held: dict[str, SimSharedLease] = {}
        self.child: SimProcess | None = None
        self._answer: Any = None

    def __call__(self, verb: str, *arguments: Any, area: LeaseArea | None = None) -> Any:
        own: Callable[..., Any] | None = getattr(self, f"_{verb}", None)
        where = area or self.host.area
        try:
            if verb == "warnings":
                answer = self.leases.warnings()
            else:
                answer = own(where, *arguments) if own else getattr(self.leases, verb)(where, *arguments)
        except DiskwrightError as error:
            raise Failed(error.code, str(error)) from None
        return json.loads(json.dumps(answer))

    def begin(self, verb: str, *arguments: Any) -> None:
        """Nothing goes on at the same time here."""
        self._answer = self(verb, *arguments)

    def answer(self) -> Any:
        """Of what was begun."""
        return self._answer

    def _acquire(self, area: LeaseArea, key: int, shared: bool, name: str) -> int | None:
        lease = self.leases.try_acquire(area, key, shared)
        if lease is None:
            return None
        assert isinstance(lease, SimSharedLease)
        self.held[name] = lease
        return lease.version

    def _release(self, area: LeaseArea, name: str) -> None:
        self.held.pop(name).release()

    def _drop(self, area: LeaseArea, name: str) -> None:
        held = self.held[name].held
        self.host.machine.world.shared.areas[area.name].slots[held.key].held.remove(held)

    def _spawn(self, area: LeaseArea, name: str) -> int:
        self.child = self.host.machine.process("child")
        token = self.held[name].token
        self.host.machine.world.shared.share(int(token.removeprefix(TOKEN_PREFIX)), self.inside, self.child)
        self.token = token
        return self.child.identity.pid

    def _go(self, area: LeaseArea) -> list[Any]:
        assert self.child is not None
        try:
            lease = self.child.doors.shared_leases.adopt(self.token)
        except DiskwrightError as error:
            return [error.code, error.message]
        return [self.child.identity.pid, lease.version]

    def _end_child(self, area: LeaseArea) -> None:
        assert self.child is not None
        self.child.end(killed=True)

    def _holders(self, area: LeaseArea, key: int) -> list[list[Any]]:
        return [[host.number, host.state] for host in self.leases.holders(area, key)]

    def _hosts(self, area: LeaseArea) -> dict[int, list[Any]]:
        return {number: [host.generation, host.state, host.gone] for number, host in self.leases.hosts(area).items()}

    def _host(self, area: LeaseArea, number: int) -> list[Any]:
        return list(self.leases.host(area, number))


class _Process:
    """A simulated process as ``subprocess`` shows one."""

    def __init__(self, inside: SimProcess) -> None:
        self._inside = inside

    def kill(self) -> None:
        self._inside.end(killed=True)

    def send_signal(self, number: signal.Signals) -> None:
        assert number == signal.SIGSTOP
        self._inside.frozen_until = float("inf")

    def poll(self) -> int | None:
        return -signal.SIGKILL if self._inside.dead else None

    def wait(self, timeout_s: float = 0) -> int | None:
        """It gets as far as its next call."""
        with contextlib.suppress(Crashed):
            self._inside.enter("clock.sleep", "")
        return self.poll()


class SimSharingHost:
    """A host, and actors on it."""

    def __init__(self, world: World, name: str, area: LeaseArea) -> None:
        self.world = world
        self.machine = world.machine(name)
        self.area = area
        self.actors: list[SimActor] = []

    def until(self, condition: Callable[[], object], timeout_s: float = 0) -> None:
        """Let virtual time pass until it is so."""
        for _ in range(_LONGEST_S):
            if condition():
                return
            self.world.advance(1.0)
        raise AssertionError("it did not happen")

    def kill(self, pid: int) -> None:
        """Kill a process of this host."""
        self.machine.processes[pid].end(killed=True)

    def actor(self) -> SimActor:
        """A new process on this host."""
        self.actors.append(SimActor(self))
        return self.actors[-1]

    def end_actors(self) -> None:
        """Kill all processes of the host; their leases go."""
        for process in list(self.machine.processes.values()):
            process.end(killed=True)
        self.actors.clear()

    def signal(self, number: signal.Signals) -> None:
        """To what keeps its presence up."""
        if number == signal.SIGSTOP:
            self.machine.freeze()
        else:
            self.machine.thaw()


def sharing_hosts(slots: int) -> list[SimSharingHost]:
    """Two hosts that take part in one area."""
    world = World()
    world.storage.make_directory(f"{REPOSITORIES}/disk")
    path = f"{REPOSITORIES}/disk/device"
    make_device(world.storage, path, _GROUP_BYTES)
    area = LeaseArea("area", "/dev/shared/leases")
    hosts = [SimSharingHost(world, name, area) for name in ("a", "b")]
    groups = hosts[0].actor().inside.doors.volume_groups
    groups.create_group("shared", [path], "")
    groups.create("shared", "leases", (slots + 1) * SLOT_BYTES, [])
    for host in hosts:
        host.actor().inside.doors.volume_groups.activate("shared", "leases")
    return hosts
