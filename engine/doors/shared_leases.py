"""The door to leases on a disk that several hosts share (sanlock).

A host takes part in an *area* of such a disk under a number of its own, and renews its presence there
all the time. A process holds a lease itself; when its host cannot renew its presence in time, the
process is killed before another host may take the lease. What a killed or frozen host had under way
may still reach the disk unless a hardware watchdog resets the host: ``warnings`` tells.

Errors: ``ToolMissing``; ``Refused`` (this host does not take part); ``StorageError`` for the rest.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, Protocol

from engine.doors.leases import Lease

SLOT_BYTES = 1 << 20
"""Slot ``key`` of an area lies at ``(key + 1) * SLOT_BYTES``; the presence of hosts stands before slot 0."""

MAX_HOSTS = 250
"""Numbers of hosts are 1 to this: what fits into a slot with sectors of 4096 bytes."""


TOKEN_PREFIX = "sanlock:"
"""Begins the token of a lease of this door: those of the local kernel are numbers."""


class LeaseArea(NamedTuple):
    """A part of a shared disk with leases, the same for all hosts but for the path."""

    name: str
    """1 to 47 of a-z, 0-9, - and _; different areas that a host takes part in have different ones."""
    path: str
    """The device, which the area fills from its beginning."""


class HostState(StrEnum):
    """What is known here of a host that takes part in an area."""

    UNKNOWN = "unknown"
    """This host has not watched for long enough."""
    FREE = "free"
    """The host left, or ended in order."""
    LIVE = "live"
    FAILING = "failing"
    """The host does not renew its presence; its processes are being killed if it runs at all."""
    DEAD = "dead"
    """The host did not renew its presence for so long that its watchdog has reset it, if it has one."""


class SharedHost(NamedTuple):
    """A host in an area."""

    number: int
    generation: int
    """Counts how often it came. What an earlier generation held or had under way is void."""
    state: HostState

    @property
    def gone(self) -> bool:
        """Whether it is proven that nothing of the host runs, as far as a watchdog guarantees that."""
        return self.state in (HostState.FREE, HostState.DEAD)


class SharedLease(Lease, Protocol):
    """Held until released, or until the last process that has it ends. A spawned process that adopts it holds it
    in its own name from then on, and that process is the one to be killed."""

    @property
    def version(self) -> int:
        """Version of an exclusive lease: grows each time anybody takes it, on any host. 0 for a shared one."""


class SharedLeases(Protocol):
    """Leases over numbered slots of areas."""

    def make_area(self, area: LeaseArea) -> None:
        """Begin an area that nobody takes part in; what stood in its presence part is lost."""

    def make_slots(self, area: LeaseArea, first: int, count: int) -> None:
        """Make slots of free leases, whatever stood there. Nobody may hold one of them."""

    def join(self, area: LeaseArea, number: int) -> None:
        """Take part as host ``number`` until ``leave`` or the end of this host; takes 20 s, more after a crash.
        Success when it does already. Conflict: another host has the number, or this host has another one."""

    def leave(self, area: LeaseArea) -> None:
        """Take part no more; success when it does not. Conflict while a process of this host holds a lease."""

    def joined(self, area: LeaseArea) -> int:
        """Return the number of this host in the area, 0 when it does not take part."""

    def hosts(self, area: LeaseArea) -> dict[int, SharedHost]:
        """Return every host that was seen to renew its presence since this one takes part, itself included, by number.
        One that has left is not among them."""

    def host(self, area: LeaseArea, number: int) -> SharedHost:
        """Return what is known of one host, also of one that was never there (free, generation 0)."""

    def try_acquire(self, area: LeaseArea, key: int, shared: bool) -> SharedLease | None:
        """Take it now or return None. A lease of a host that is not proven gone is held."""

    def holders(self, area: LeaseArea, key: int) -> list[SharedHost]:
        """Return the hosts that hold a lease as far as this one knows; take nothing."""

    def adopt(self, token: str) -> SharedLease:
        """Return the lease that the process which spawned this one handed over. Superseded: another took it in
        between."""

    def warnings(self) -> list[str]:
        """Return what this host lacks to keep the promise, a sentence each; none where a watchdog is in use."""
