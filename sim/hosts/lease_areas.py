"""Leases on a disk that several hosts share, simulated: what ``engine.tools.sanlock`` does with sanlock's daemons.

A host is present in an area from ``join`` on, until it leaves or stands still: its power fails, it is frozen as a whole
or its daemon ends with it. Others learn of that as time passes: first it fails, then it is dead, as far as they have
watched it for so long themselves. A lease belongs to (number, generation) and counts as long as that one is not gone.
When a host goes on after it has stood still for too long, the processes that registered leases are doomed: the call
that each is in the middle of still happens, which is what a host without a watchdog cannot prevent.

What an area holds is not on the simulated disk: it is durable at once, and not lost with the volume it lies in.
The door through which a process takes such leases is ``sim.hosts.doors.shared_leases``.
"""

from __future__ import annotations

from typing import Protocol

from engine.doors.shared_leases import HostState, SharedHost
from engine.errors import Superseded

RENEWED_S = 20.0
"""Joining takes so long, and so long does it take to see a host renew its presence."""
FAILING_S = 80.0
DEAD_S = 140.0


class Process(Protocol):
    """Who registers a lease."""

    def doom(self) -> None:
        """Kill the process before its next call."""

    def end(self, killed: bool = False) -> None:
        """Kill the process now."""


class Host(Protocol):
    """A machine with a daemon."""

    @property
    def name(self) -> str: ...

    @property
    def opened(self) -> dict[str, int]:
        """How often each volume, by its uuid, is open there."""


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
        """Whether the host has left, or does not know any more that it takes part."""
        self.left = False
        self.held: dict[Held, None] = {}
        """What its processes have registered, also what somebody took over since."""

    def fork(self, now: float) -> Presence:
        """Return the presence for a world where nobody runs: it renews nothing."""
        copy = Presence(self.number, self.generation, self.host, self.since)
        copy.silent, copy.over, copy.left = self.silent if self.silent is not None else now, True, self.left
        return copy


class Held:
    """One lease, and the processes that have its connection."""

    def __init__(self, number: int, key: int, shared: bool, version: int, by: Presence, process: Process) -> None:
        self.number = number
        self.key = key
        self.shared = shared
        self.version = version
        self.by = by
        self.registered = process
        self.owners: dict[Process, None] = {process: None}


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
        """Return the area for a world where nobody runs: leases of hosts that ended there are held until those are
        proven gone."""
        copy = Area()
        copy.presences = {number: presence.fork(now) for number, presence in self.presences.items()}
        copy.slots = {key: slot.fork() for key, slot in self.slots.items()}
        return copy

    def known_host(self, number: int, by: Presence, now: float) -> SharedHost:
        """Return what the host of ``by`` knows of another."""
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
        host = self.known_host(held.by.number, by, now)
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
        """Return the table for a world where nobody runs."""
        copy = SharedTable()
        copy.areas = {name: area.fork(now) for name, area in self.areas.items()}
        return copy

    def present(self, area: str, host: str) -> Presence | None:
        """Return the presence of a host in an area; None when the host does not take part."""
        found = self.areas[area].presences.values() if area in self.areas else ()
        return next((one for one in found if one.host == host and not one.over), None)

    def since(self, area: str, host: str) -> float | None:
        """Return when a host came; None when the host does not take part."""
        presence = self.present(area, host)
        return presence.since if presence is not None else None

    def silence(self, host: Host, now: float, for_ever: bool = False) -> None:
        """Have a host renew nothing from now on; ``for_ever``: because it boots."""
        for area in self.areas.values():
            for presence in area.presences.values():
                if presence.host == host.name and not presence.over:
                    presence.silent = presence.silent if presence.silent is not None else now
                    presence.over = for_ever

    def resume(self, host: Host, now: float) -> None:
        """Let a host go on. Where the host was silent for too long it has lost its presence, and its processes are
        doomed."""
        for name, area in self.areas.items():
            presence = self.present(name, host.name)
            if presence is None or presence.silent is None:
                continue
            if now - presence.silent < FAILING_S:
                presence.silent = None
                area.forget_released(presence)
                continue
            for held in self._lost(host, presence):
                held.registered.doom()

    def evict(self, host: Host, now: float) -> None:
        """Take the presence of a host away everywhere; its processes that had leases end before others get any."""
        for name in self.areas:
            presence = self.present(name, host.name)
            if presence is None:
                continue
            presence.silent = presence.silent if presence.silent is not None else now
            for held in self._lost(host, presence):
                held.registered.end(killed=True)

    def _lost(self, host: Host, presence: Presence) -> list[Held]:
        presence.over = True
        host.opened[presence.device] -= 1
        return list(presence.held)

    def find(self, number: int, process: Process) -> tuple[str, Held] | None:
        """The lease of that number, if it is held and the process has its connection."""
        for name, area in self.areas.items():
            for slot in area.slots.values():
                for held in slot.held:
                    if held.number == number and process in held.owners:
                        return name, held
        return None

    def share(self, number: int, parent: Process, child: Process) -> None:
        """Let a spawned process have the connection too."""
        found = self.find(number, parent)
        if found is not None:
            found[1].owners[child] = None

    def adopt(self, number: int, process: Process) -> Held:
        """Hold a lease in the name of a process from now on; Superseded when the lease is not held any more."""
        found = self.find(number, process)
        if found is None or found[1].by.over:
            raise Superseded("the lease that was handed over is held no more", "Look at the status, and try again")
        name, held = found
        slot = self.areas[name].slots[held.key]
        slot.held.remove(held)
        held.by.held.pop(held, None)
        return self.take(slot, held.key, held.shared, held.by, process)

    def take(self, slot: Slot, key: int, shared: bool, by: Presence, process: Process) -> Held:
        """Make a new lease; nobody's may be in the way."""
        slot.version += not shared
        held = Held(self.next, key, shared, slot.version, by, process)
        self.next += 1
        slot.held.append(held)
        by.held[held] = None
        return held

    def release(self, held: Held, process: Process) -> None:
        """Take an owner away; the last one frees the lease, if its host can still say so."""
        if held.owners.pop(process, self) is self or held.owners:
            return
        held.by.held.pop(held, None)
        if held.by.silent is not None or held.by.over:
            return
        for area in self.areas.values():
            slot = area.slots.get(held.key)
            if slot is not None and held in slot.held:
                slot.held.remove(held)

    def bury(self, process: Process) -> None:
        """Release all that a process had, which has ended."""
        for area in self.areas.values():
            for presence in area.presences.values():
                for held in list(presence.held):
                    if process in held.owners:
                        self.release(held, process)
