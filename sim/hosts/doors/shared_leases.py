"""The door of a simulated process to leases on a disk that hosts share; what holds is in ``sim.hosts.lease_areas``."""

from __future__ import annotations

from engine.doors.shared_leases import MAX_HOSTS, SLOT_BYTES, TOKEN_PREFIX, HostState, LeaseArea, SharedHost
from engine.errors import BadRequest, Conflict, Refused, StorageError, from_os_error
from sim.hosts.lease_areas import DEAD_S, RENEWED_S, Area, Held, Presence, SharedTable, Slot
from sim.hosts.processes import SimProcess
from sim.lvm.volume_groups import SimDevice


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
        seen = {number: there.known_host(number, by, self._now) for number in there.presences}
        return {
            number: host
            for number, host in seen.items()
            if host.state is not HostState.FREE and not _silent_before(there.presences[number], by)
        }

    def host(self, area: LeaseArea, number: int) -> SharedHost:
        self._enter("host", area)
        return self._area(area).known_host(number, self._presence(area), self._now)

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
        return [there.known_host(number, by, self._now) for number in dict.fromkeys(held.by.number for held in found)]

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
