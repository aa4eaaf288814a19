"""Leases on a disk that several hosts share, simulated: what ``engine.tools.sanlock`` does with sanlock's daemons.

A host is present in an area from ``join`` on, until it leaves or stands still: its power fails, it is frozen as a whole
or its daemon ends with it. Others learn of that as time passes: first it fails, then it is dead, as far as they have
watched it for so long themselves. A lease belongs to (number, generation) and counts as long as that one is not gone.
When a host goes on after it has stood still for too long, the processes that registered leases are doomed: the call
that each is in the middle of still happens, which is what a host without a watchdog cannot prevent.

What an area holds is not on the simulated disk: it is durable at once, and not lost with the volume it lies in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.doors.shared_leases import MAX_HOSTS, SLOT_BYTES, TOKEN_PREFIX, HostState, LeaseArea, SharedHost
from engine.errors import BadRequest, Conflict, Refused, StorageError, Superseded, from_os_error

if TYPE_CHECKING:
    from sim.hosts.processes import SimHost, SimProcess
    from sim.lvm.volume_groups import SimDevice

RENEWED_S = 20.0
"""Joining takes so long, and so long does it take to see a host renew its presence."""
FAILING_S = 80.0
DEAD_S = 140.0


class Presence:
    """A host in an area, from one join on."""

    def __init__(self, number: int, generation: int, host: str, since: float, device: str = "") -> None:
        self.number = number
        self.generation = generation
        self.host = host
        self.since = since
        self.device = device
        """What its host has open for it."""
        self.silent: float | None = None
        """Since when it renews nothing."""
        self.over = False
        """It has left, or is not known to its host any more."""
        self.left = False
        self.held: dict[Held, None] = {}
        """What its processes have registered, also what somebody took over since."""

    def fork(self, now: float) -> Presence:
        """In a world where nobody runs."""
        copy = Presence(self.number, self.generation, self.host, self.since)
        copy.silent, copy.over, copy.left = self.silent if self.silent is not None else now, True, self.left
        return copy


class Held:
    """One lease, and the processes that have its connection."""

    def __init__(self, number: int, key: int, shared: bool, version: int, by: Presence, process: SimProcess) -> None:
        self.number = number
        self.key = key
        self.shared = shared
        self.version = version
        self.by = by
        self.registered = process
        self.owners: dict[SimProcess, None] = {process: None}


class Slot:
    """One lease of the area, and who has it."""

    def __init__(self) -> None:
        self.version = 0
        self.held: list[Held] = []

    def fork(self) -> Slot:
        copy = Slot()
        copy.version, copy.held = self.version, list(self.held)
        return copy


class Area:
    """What stands in one area."""

    def __init__(self) -> None:
        self.presences: dict[int, Presence] = {}
        self.slots: dict[int, Slot] = {}

    def fork(self, now: float) -> Area:
        """In a world where nobody runs: leases of hosts that ended there are held until those are proven gone."""
        copy = Area()
        copy.presences = {number: presence.fork(now) for number, presence in self.presences.items()}
        copy.slots = {key: slot.fork() for key, slot in self.slots.items()}
        return copy

    def seen(self, number: int, by: Presence, now: float) -> SharedHost:
        """What the host of ``by`` knows of another."""
        found = self.presences.get(number)
        if found is None or found.left:
            return SharedHost(number, found.generation if found else 0, HostState.FREE)
        return SharedHost(number, found.generation, _state(found, by, now))

    def forget_released(self, by: Presence) -> None:
        """What its host could not release on the disk while it was silent is released now."""
        for slot in self.slots.values():
            slot.held = [held for held in slot.held if held.by is not by or held.owners]

    def in_the_way(self, slot: Slot, by: Presence, now: float) -> list[Held]:
        """Leases of a slot whose hosts are not gone."""
        return [held for held in slot.held if self._counts(held, by, now)]

    def _counts(self, held: Held, by: Presence, now: float) -> bool:
        host = self.seen(held.by.number, by, now)
        return host.generation == held.by.generation and not host.gone


def _state(found: Presence, by: Presence, now: float) -> HostState:
    if found is by:
        return HostState.LIVE
    if found.silent is None:
        return HostState.LIVE if now >= by.since + RENEWED_S else HostState.UNKNOWN
    quiet = now - max(found.silent, by.since)
    if quiet >= DEAD_S:
        return HostState.DEAD
    if quiet >= FAILING_S:
        return HostState.FAILING
    return HostState.LIVE if found.silent >= by.since + RENEWED_S else HostState.UNKNOWN


class SharedTable:
    """All areas of the simulated world, and the daemons of its hosts."""

    def __init__(self) -> None:
        self.areas: dict[str, Area] = {}
        self.next = 3

    def fork(self, now: float) -> SharedTable:
        """For a world where nobody runs."""
        copy = SharedTable()
        copy.areas = {name: area.fork(now) for name, area in self.areas.items()}
        return copy

    def present(self, area: str, host: str) -> Presence | None:
        """That host in an area, None when it does not take part."""
        found = self.areas[area].presences.values() if area in self.areas else ()
        return next((one for one in found if one.host == host and not one.over), None)

    def since(self, area: str, host: str) -> float | None:
        """When that host came, None when it does not take part."""
        presence = self.present(area, host)
        return presence.since if presence is not None else None

    def silence(self, host: SimHost, for_ever: bool = False) -> None:
        """The host renews nothing from now on; ``for_ever``: it boots."""
        for area in self.areas.values():
            for presence in area.presences.values():
                if presence.host == host.name and not presence.over:
                    presence.silent = presence.silent if presence.silent is not None else host.world.now
                    presence.over = for_ever

    def resume(self, host: SimHost) -> None:
        """The host goes on. Where it was silent for too long it has lost its presence, and its processes are doomed."""
        for name, area in self.areas.items():
            presence = self.present(name, host.name)
            if presence is None or presence.silent is None:
                continue
            if host.world.now - presence.silent < FAILING_S:
                presence.silent = None
                area.forget_released(presence)
                continue
            for held in self._lost(host, presence):
                held.registered.doom()

    def evict(self, host: SimHost) -> None:
        """The host has lost its presence everywhere; its processes that had leases end before others get any."""
        for name in self.areas:
            presence = self.present(name, host.name)
            if presence is None:
                continue
            presence.silent = presence.silent if presence.silent is not None else host.world.now
            for held in self._lost(host, presence):
                held.registered.end(killed=True)

    def _lost(self, host: SimHost, presence: Presence) -> list[Held]:
        presence.over = True
        host.opened[presence.device] -= 1
        return list(presence.held)

    def find(self, number: int, process: SimProcess) -> tuple[str, Held] | None:
        """The lease of that number, if it is held and the process has its connection."""
        for name, area in self.areas.items():
            for slot in area.slots.values():
                for held in slot.held:
                    if held.number == number and process in held.owners:
                        return name, held
        return None

    def share(self, number: int, parent: SimProcess, child: SimProcess) -> None:
        """A spawned process has the connection too."""
        found = self.find(number, parent)
        if found is not None:
            found[1].owners[child] = None

    def adopt(self, number: int, process: SimProcess) -> Held:
        """Held in the name of that process from now on; Superseded when it is not held any more."""
        found = self.find(number, process)
        if found is None or found[1].by.over:
            raise Superseded("the lease that was handed over is held no more", "Look at the status, and try again")
        name, held = found
        slot = self.areas[name].slots[held.key]
        slot.held.remove(held)
        held.by.held.pop(held, None)
        return self.take(slot, held.key, held.shared, held.by, process)

    def take(self, slot: Slot, key: int, shared: bool, by: Presence, process: SimProcess) -> Held:
        """A new lease; nobody's is in the way."""
        slot.version += not shared
        held = Held(self.next, key, shared, slot.version, by, process)
        self.next += 1
        slot.held.append(held)
        by.held[held] = None
        return held

    def release(self, held: Held, process: SimProcess) -> None:
        """One owner less; the last one frees the lease, if its host can still say so."""
        if held.owners.pop(process, self) is self or held.owners:
            return
        held.by.held.pop(held, None)
        if held.by.silent is not None or held.by.over:
            return
        for area in self.areas.values():
            slot = area.slots.get(held.key)
            if slot is not None and held in slot.held:
                slot.held.remove(held)

    def bury(self, process: SimProcess) -> None:
        """A process has ended."""
        for area in self.areas.values():
            for presence in area.presences.values():
                for held in list(presence.held):
                    if process in held.owners:
                        self.release(held, process)


class SimSharedLease:
    """A lease as one process has it."""

    def __init__(self, table: SharedTable, held: Held, process: SimProcess) -> None:
        self.held = held
        self._table = table
        self._process = process

    @property
    def version(self) -> int:
        """0 for a shared one."""
        return 0 if self.held.shared else self.held.version

    @property
    def token(self) -> str:
        """The number of the connection."""
        return f"{TOKEN_PREFIX}{self.held.number}"

    def release(self) -> None:
        """The gate is not asked: a dead process may do it."""
        self._table.release(self.held, self._process)


class SimSharedLeases:
    """The ``SharedLeases`` of one process."""

    def __init__(self, process: SimProcess) -> None:
        self._process = process
        self._host = process.host
        self._table = process.host.world.shared

    # -- storage

    def make_area(self, area: LeaseArea) -> None:
        self._enter("make_area", area)
        self._size(area)
        there = self._table.areas.setdefault(area.name, Area())
        assert all(presence.over for presence in there.presences.values()), "somebody takes part in it"
        there.presences.clear()

    def make_slots(self, area: LeaseArea, first: int, count: int) -> None:
        self._enter("make_slots", area)
        if (first + count + 1) * SLOT_BYTES > self._size(area):
            raise StorageError(f"{area.path} is too small for lease slots")
        slots = self._area(area).slots
        for key in range(first, first + count):
            slots[key] = Slot()

    # -- taking part

    def join(self, area: LeaseArea, number: int) -> None:
        self._enter("join", area)
        if not 1 <= number <= MAX_HOSTS:
            raise BadRequest(f"host number {number} is not in 1 to {MAX_HOSTS}")
        there, present = self._area(area), self._table.present(area.name, self._host.name)
        if present is not None and present.number == number:
            return
        if present is not None:
            raise Conflict(f"this host takes part in the lease area {area.name} as number {present.number}")
        device = self._open(area)
        before = there.presences.get(number)
        if before is not None and not before.left and before.host != self._host.name:
            self._wait_for_its_death(before, area)
        # The daemon goes on when who asked it is killed.
        generation = before.generation + 1 if before else 1
        there.presences[number] = Presence(number, generation, self._host.name, self._now, device)
        self._host.opened[device] = self._host.opened.get(device, 0) + 1
        self._host.world.executor.sleep(self._process, RENEWED_S)

    def _wait_for_its_death(self, other: Presence, area: LeaseArea) -> None:
        if other.silent is not None:
            self._host.world.executor.sleep(self._process, DEAD_S)
        if other.silent is None or self._area(area).presences[other.number] is not other:
            raise Conflict(f"another host takes part in the lease area {area.name} as number {other.number}")

    def leave(self, area: LeaseArea) -> None:
        self._enter("leave", area)
        presence = self._table.present(area.name, self._host.name)
        if presence is None:
            return
        if any(held.by is presence for slot in self._area(area).slots.values() for held in slot.held):
            raise Conflict(f"a process of this host holds a lease in {area.name}")
        presence.over = presence.left = True
        self._host.opened[presence.device] -= 1

    def joined(self, area: LeaseArea) -> int:
        self._enter("joined", area)
        presence = self._table.present(area.name, self._host.name)
        return presence.number if presence is not None else 0

    def hosts(self, area: LeaseArea) -> dict[int, SharedHost]:
        self._enter("hosts", area)
        by, there = self._presence(area), self._area(area)
        seen = {number: there.seen(number, by, self._now) for number in there.presences}
        return {
            number: host
            for number, host in seen.items()
            if host.state is not HostState.FREE and not _silent_before(there.presences[number], by)
        }

    def host(self, area: LeaseArea, number: int) -> SharedHost:
        self._enter("host", area)
        return self._area(area).seen(number, self._presence(area), self._now)

    # -- leases

    def try_acquire(self, area: LeaseArea, key: int, shared: bool) -> SimSharedLease | None:
        self._enter("try_acquire", area, key)
        by, slot = self._presence(area), self._slot(area, key)
        others = self._area(area).in_the_way(slot, by, self._now)
        if others and not (shared and all(held.shared for held in others)):
            return None
        slot.held = others
        return SimSharedLease(self._table, self._table.take(slot, key, shared, by, self._process), self._process)

    def holders(self, area: LeaseArea, key: int) -> list[SharedHost]:
        self._enter("holders", area, key)
        by, there = self._presence(area), self._area(area)
        found = there.in_the_way(self._slot(area, key), by, self._now)
        return [there.seen(number, by, self._now) for number in dict.fromkeys(held.by.number for held in found)]

    def adopt(self, token: str) -> SimSharedLease:
        self._process.enter("shared_leases.adopt", token)
        held = self._table.adopt(int(token.removeprefix(TOKEN_PREFIX)), self._process)
        return SimSharedLease(self._table, held, self._process)

    def warnings(self) -> list[str]:
        self._process.enter("shared_leases.warnings", "")
        return ["no host of the simulator has a watchdog: one that hangs may write after another has taken over"]

    # -- inside

    @property
    def _now(self) -> float:
        return self._host.world.now

    def _enter(self, call: str, area: LeaseArea, key: int | None = None) -> None:
        self._process.enter(f"shared_leases.{call}", area.path if key is None else f"{area.path} {key}")

    def _open(self, area: LeaseArea) -> str:
        return self._looked_at(area).uuid

    def _size(self, area: LeaseArea) -> int:
        return self._looked_at(area).size

    def _looked_at(self, area: LeaseArea) -> SimDevice:
        try:
            with self._process.groups.open_device(area.path) as device:
                return device
        except OSError as error:
            raise from_os_error(error, f"look at the lease area on {area.path}") from error

    def _area(self, area: LeaseArea) -> Area:
        if area.name not in self._table.areas:
            raise StorageError(f"there is no lease area {area.name} on {area.path}")
        return self._table.areas[area.name]

    def _presence(self, area: LeaseArea) -> Presence:
        presence = self._table.present(area.name, self._host.name)
        if presence is None:
            raise Refused(
                f"this host does not take part in the lease area {area.name}", "Connect the repository on this host"
            )
        return presence

    def _slot(self, area: LeaseArea, key: int) -> Slot:
        slots = self._area(area).slots
        if key not in slots:
            raise StorageError(f"what is on {area.path} is not this lease ({key})")
        return slots[key]


def _silent_before(found: Presence, by: Presence) -> bool:
    return found.silent is not None and found.silent < by.since
