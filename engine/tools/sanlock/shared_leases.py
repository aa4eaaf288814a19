"""sanlock as the door to leases that hosts share.

Each lease has a registered connection to sanlock's daemon, and is held as long as some process has
that connection open: a program that writes inherits it, as it does an open-file-description lock.
The daemon kills the process that registered it when the host loses its presence in the area, and what
that process started ends with it or keeps the lease until it has ended.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from typing import TYPE_CHECKING

from engine.doors.shared_leases import MAX_HOSTS, SLOT_BYTES, TOKEN_PREFIX, HostState, LeaseArea, SharedHost
from engine.errors import BadRequest, Conflict, Refused, StorageError, Superseded, ToolMissing, from_os_error
from engine.tools.local.command import CommandRunner
from engine.tools.sanlock.codes import (
    HELD_HERE,
    HOST_NUMBER_IN_USE,
    IN_TRANSIT,
    IN_USE,
    JOINED_ALREADY,
    NOT_THERE,
    STILL_USED,
    VERSION_DIFFERS,
    SanlockError,
    failure,
)

if TYPE_CHECKING:
    from engine.tools.sanlock.binding import Library, Resource

_PATIENCE_S = 60.0
_RELEASE_S = 2.0
"""The daemon takes 20 to 70 ms to release what the last process closed."""
_LOOK_AGAIN_S = 0.02

_NAME = r"[a-z0-9_-]{1,47}"
_STATE = r"([^:]+):slot([0-9]+):(.*):[0-9]+:(SH|[0-9]+)"
_STATES = {
    1: HostState.UNKNOWN,
    2: HostState.FREE,
    3: HostState.LIVE,
    4: HostState.FAILING,
    5: HostState.DEAD,
}
_WATCHDOGS = "/sys/class/watchdog"


class SanlockLease:
    """A registered connection that holds one lease."""

    def __init__(self, descriptor: int, version: int, held: list[int]) -> None:
        self.descriptor = descriptor
        self._version = version
        self._held = held
        held.append(descriptor)

    @property
    def version(self) -> int:
        """Sanlock's lease version; 0 for a shared lease."""
        return self._version

    @property
    def token(self) -> str:
        """The number of the connection, the same in the child."""
        return f"{TOKEN_PREFIX}{self.descriptor}"

    def release(self) -> None:
        """Close our copy of the connection. The daemon releases the lease when that was the last one."""
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            self._held.remove(descriptor)
            os.close(descriptor)


class SanlockLeases:
    """The real ``SharedLeases``. ``inherit`` lists the connections that every process started to write gets a copy
    of; ``io_timeout_s`` is sanlock's, of which a host is dead after 8 times it and 60 s (0: the daemon's own, 10)."""

    def __init__(self, inherit: list[int] | None = None, io_timeout_s: int = 0) -> None:
        self.descriptors: list[int] = inherit if inherit is not None else []
        self._io_timeout_s = io_timeout_s
        self._loaded: Library | None = None
        self._sectors: dict[str, int] = {}

    @property
    def _library(self) -> Library:
        if self._loaded is None:
            from engine.tools.sanlock.binding import Library  # with ctypes; only where leases are shared

            self._loaded = Library()
        return self._loaded

    # -- storage

    def make_area(self, area: LeaseArea) -> None:
        """Call ``sanlock_write_lockspace``, with our timeout: a host that joins waits for twice the timeout that it
        finds there, and if that is longer than its own presence lasts, it has lost it when it has joined."""
        _check(area)
        try:
            sectors = self._sector_bytes(area.path)
            self._library.write_lockspace(area.name, area.path, sectors, self._io_timeout_s)
        except SanlockError as error:
            raise failure(error, f"make the lease area {area.name}") from None

    def make_slots(self, area: LeaseArea, first: int, count: int) -> None:
        """Call ``sanlock_write_resource``, 13 ms each."""
        _check(area)
        try:
            for key in range(first, first + count):
                self._library.write_resource(self._resource(area, key))
        except SanlockError as error:
            raise failure(error, f"make lease slots in {area.name}") from None

    # -- taking part

    def join(self, area: LeaseArea, number: int) -> None:
        """Call ``sanlock_add_lockspace``."""
        _check(area)
        if not 1 <= number <= MAX_HOSTS:
            raise BadRequest(f"host number {number} is not in 1 to {MAX_HOSTS}")
        present = self.joined(area)
        if present == number:
            return
        if present:
            raise Conflict(f"this host takes part in the lease area {area.name} as number {present}", "Leave it first")
        deadline = time.monotonic() + _PATIENCE_S
        while not self._try_join(area, number):
            if time.monotonic() > deadline:
                raise StorageError(
                    f"another process of this host joins or leaves the lease area {area.name} and does not finish",
                    "See what sanlock says (sanlock client log_dump), and try again",
                )
            time.sleep(_LOOK_AGAIN_S)

    def _try_join(self, area: LeaseArea, number: int) -> bool:
        """Try to join; False while the lockspace is being left or joined at the moment."""
        try:
            self._library.add_lockspace(area.name, number, area.path, self._io_timeout_s)
        except SanlockError as error:
            if error.code == HOST_NUMBER_IN_USE:
                raise Conflict(
                    f"another host takes part in the lease area {area.name} as number {number}",
                    "Give this host another number",
                ) from None
            if error.code not in (*JOINED_ALREADY, IN_TRANSIT):
                raise failure(error, f"take part in the lease area {area.name} ({area.path})") from None
            return self.joined(area) == number
        return True

    def leave(self, area: LeaseArea) -> None:
        """Call ``sanlock_rem_lockspace``, unless the lockspace is in use."""
        number = self.joined(area)
        if not number:
            return
        try:
            self._library.remove_lockspace(area.name, number, area.path)
        except SanlockError as error:
            if error.code == STILL_USED:
                raise Conflict(
                    f"a process of this host holds a lease in {area.name}", "End it, or what it works on, first"
                ) from None
            if error.code != NOT_THERE:
                raise failure(error, f"leave the lease area {area.name}") from None

    def joined(self, area: LeaseArea) -> int:
        """Call ``sanlock_get_lockspaces``."""
        try:
            return self._library.lockspaces().get(area.name, (0, ""))[0]
        except SanlockError as error:
            raise failure(error, "ask which lease areas this host takes part in") from None

    def hosts(self, area: LeaseArea) -> dict[int, SharedHost]:
        """Call ``sanlock_get_hosts``."""
        return {host.number: host for host in self._known_hosts(area, 0)}

    def host(self, area: LeaseArea, number: int) -> SharedHost:
        """Call ``sanlock_get_hosts`` for one."""
        for host in self._known_hosts(area, number):
            if host.number == number:
                return host
        return SharedHost(number, 0, HostState.UNKNOWN)

    def _known_hosts(self, area: LeaseArea, number: int) -> list[SharedHost]:
        """Return what is known of hosts. That is nothing before the first renewal after joining, so wait for that."""
        if not self.joined(area):
            raise Refused(
                f"this host does not take part in the lease area {area.name}", "Connect the repository on this host"
            )
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                seen = self._library.hosts(area.name, number)
                return [SharedHost(who, count, _STATES.get(state, HostState.UNKNOWN)) for who, count, state in seen]
            except SanlockError as error:
                if error.code != IN_TRANSIT or time.monotonic() > deadline:
                    raise failure(error, f"look at the hosts in the lease area {area.name}") from None
            time.sleep(_LOOK_AGAIN_S)

    # -- leases

    def try_acquire(self, area: LeaseArea, key: int, shared: bool) -> SanlockLease | None:
        """Call ``sanlock_acquire`` on a connection of its own, without waiting for hosts to die. A lease that a process
        of this host just closed is waited for: the daemon takes a moment to release it."""
        _check(area)
        connection = self._register()
        try:
            if not self._try(connection, area, key, shared):
                os.close(connection)
                return None
            return self._lease(connection)
        except BaseException:
            _close(connection)
            raise

    def _try(self, connection: int, area: LeaseArea, key: int, shared: bool) -> bool:
        from engine.tools.sanlock.binding import SHARED

        resource = self._resource(area, key, SHARED if shared else 0)
        deadline = time.monotonic() + _RELEASE_S
        looked_twice = False
        while True:
            try:
                self._library.acquire(connection, resource)
                return True
            except SanlockError as error:
                if error.code not in IN_USE:
                    raise failure(error, f"take lease {key} in {area.name} ({area.path})") from None
                if error.code == IN_TRANSIT:
                    again = time.monotonic() < deadline and not self._held_elsewhere(area, key)
                else:
                    again = error.code == HELD_HERE and not looked_twice  # its last process may have just closed it
                    looked_twice = True
            if not again:
                return False
            time.sleep(_LOOK_AGAIN_S)

    def _held_elsewhere(self, area: LeaseArea, key: int) -> bool:
        """Tell whether other hosts hold the lease. If none does, it is on its way to be free here."""
        return bool({host.number for host in self.holders(area, key)} - {self.joined(area)})

    def holders(self, area: LeaseArea, key: int) -> list[SharedHost]:
        """Return the owners on the disk that are not gone."""
        _check(area)
        try:
            owners = self._library.owners(self._resource(area, key))
        except SanlockError as error:
            raise failure(error, f"look at lease {key} in {area.name} ({area.path})") from None
        found = [(self.host(area, number), generation) for number, generation in owners]
        return [host for host, generation in found if host.generation == generation and not host.gone]

    def adopt(self, token: str) -> SanlockLease:
        """Take the lease over. Shared: taken once more in the name of this process, then given up in that of the other.
        Exclusive: given up and taken at the version it had, so that nobody can have had it in between unnoticed."""
        inherited = int(token.removeprefix(TOKEN_PREFIX))
        connection = self._register()
        try:
            self._take_over(inherited, connection)
            lease = self._lease(connection)
        except BaseException:
            _close(connection)
            raise
        finally:
            _close(inherited)
        return lease

    def warnings(self) -> list[str]:
        """Ask ``sanlock status`` whether it uses a watchdog."""
        runner = CommandRunner("sanlock", ["SANLOCK_RUN_DIR"])
        try:
            done = runner.run(["sanlock", "client", "status", "-D"], patience_s=_PATIENCE_S)
        except ToolMissing as error:
            return [f"{error.message}: nothing tells whether a watchdog resets this host"]
        if b"use_watchdog=" not in done.output:
            return ["sanlock's daemon does not run on this host"]
        if b"use_watchdog=0" in done.output:
            return ["sanlock uses no watchdog: a host that hangs may write after another has taken over its leases"]
        if _only_software_watchdogs():
            return ["the watchdog is software: a host that is frozen as a whole may write when it goes on"]
        return []

    # -- details

    def _register(self) -> int:
        try:
            return self._library.register()
        except SanlockError as error:
            raise failure(error, "register with sanlock") from None

    def _take_over(self, inherited: int, connection: int) -> None:
        from engine.tools.sanlock.binding import SHARED, WITH_VERSION

        try:
            state = self._library.inquire(inherited)
        except SanlockError as error:
            raise failure(error, "look at the lease handed over") from None
        if not state:
            raise Superseded("the lease that was handed over is held no more", "Look at the status, and try again")
        area, key, version = _parse(state)
        try:
            if not version:
                self._library.acquire(connection, self._resource(area, key, SHARED))
                self._library.release(inherited, self._resource(area, key))
            else:
                self._library.release(inherited, self._resource(area, key))
                self._library.acquire(connection, self._resource(area, key, WITH_VERSION, version))
        except SanlockError as error:
            if error.code == VERSION_DIFFERS or error.code in IN_USE:
                raise Superseded(
                    f"somebody else took lease {key} in {area.name} while it was handed over",
                    "Look at the status, and try again",
                ) from None
            raise failure(error, f"take over lease {key} in {area.name}") from None

    def _lease(self, connection: int) -> SanlockLease:
        try:
            return SanlockLease(connection, _parse(self._library.inquire(connection))[2], self.descriptors)
        except SanlockError as error:
            raise failure(error, "look at the lease taken") from None

    def _resource(self, area: LeaseArea, key: int, flags: int = 0, version: int = 0) -> Resource:
        offset = (key + 1) * SLOT_BYTES
        sectors = self._sector_bytes(area.path)
        return self._library.resource(area.name, f"slot{key}", area.path, offset, sectors, flags, version)

    def _sector_bytes(self, path: str) -> int:
        from engine.tools.sanlock.binding import sector_bytes

        if path not in self._sectors:
            try:
                self._sectors[path] = sector_bytes(path)
            except OSError as error:
                raise from_os_error(error, f"look at the lease area on {path}") from error
        return self._sectors[path]


def _check(area: LeaseArea) -> None:
    if not re.fullmatch(_NAME, area.name) or not area.path.startswith("/dev/") or len(area.path) > 1000:
        raise BadRequest(f"{area.name!r:.60} on {area.path!r:.200} cannot be a lease area")


def _parse(state: str) -> tuple[LeaseArea, int, int]:
    """Return (area, slot, version) of the one lease of a connection; version 0 for a shared one."""
    match = re.fullmatch(_STATE, state)
    if match is None:
        raise Superseded(f"the connection holds no lease of ours: {state!r:.100}", "Look at the status, and try again")
    area = LeaseArea(match[1], match[3].replace("\\:", ":"))
    return area, int(match[2]), 0 if match[4] == "SH" else int(match[4])


def _only_software_watchdogs() -> bool:
    """Tell whether the kernel of this host is its own watchdog."""
    kinds = []
    for name in os.listdir(_WATCHDOGS) if os.path.isdir(_WATCHDOGS) else []:
        try:
            with open(f"{_WATCHDOGS}/{name}/identity", encoding="utf-8") as file:
                kinds.append(file.read().strip())
        except OSError:
            continue
    return bool(kinds) and all(kind == "Software Watchdog" for kind in kinds)


def _close(descriptor: int) -> None:
    """Close it unless somebody did."""
    with contextlib.suppress(OSError):
        os.close(descriptor)
