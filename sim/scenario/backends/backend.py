"""What a scenario is played on: hosts whose processes do operations, and the world round them.

``Backend`` is what every backend can do. What only some can (stop whole machines, pull cables, be looked at from
within) is a part of its own, None where a backend has no such thing; the table of verbs in
``sim.scenario.language.schema`` says the same to those who write scenarios.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from engine.api import Engine
from engine.doors.files import Files
from sim.hosts.world import World
from sim.scenario.backends.watch import Reached
from sim.scenario.language.model import Interruption


class Failure(NamedTuple):
    """An error of the engine."""

    code: str
    message: str


class Ended(NamedTuple):
    """How the process of an operation ended, or that it has not."""

    how: str
    """done, failed, killed, frozen."""
    result: Any = None
    failure: Failure | None = None
    effects: tuple[str, ...] = ()
    """Names of its effects, as far as they are known (not of one that was killed)."""
    reached: Reached | None = None
    """Where the interruption came; None: the point was never reached."""


class ActiveFault(NamedTuple):
    """A fault with paths instead of names."""

    error: str
    call: str
    nth: int
    times: int
    fragments: tuple[str, ...]
    """A call meets it when what it works on contains one of these; none: always."""


class Machines(Protocol):
    """Whole machines: their power, their clocks, their storage, and what others do on them."""

    def freeze_host(self, host: str) -> None:
        """Stop a machine as a whole; it keeps what it has until that is proven to be over."""

    def thaw_host(self, host: str) -> None:
        """Let a machine that stands still go on."""

    def power_cut(self, lose: str, profile: str, seed: int) -> tuple[str, ...]:
        """End everything; return what was lost."""

    def space_left(self, room: int | None) -> None:
        """Leave so many bytes free on the storage; None: plenty."""

    def jump_clock(self, host: str, seconds: float) -> None:
        """Set the wall clock of a host forward (or back)."""

    def wait(self, seconds: float) -> None:
        """Let time pass."""

    def open_volume(self, host: str, repository: str, image: str) -> None:
        """Have some program open the data of an image and keep it open."""

    def close_volume(self, image: str) -> None:
        """End that program."""


class VirtualMachine(Protocol):
    """A machine with one disk, started from a prepared path. It lives until it is stopped or its host dies."""

    @property
    def monitor(self) -> str:
        """How to speak to it, "" where it cannot be."""

    @property
    def running(self) -> bool:
        """Whether it is neither dead nor frozen."""

    def write(self, start: int, data: bytes) -> None:
        """Write into the disk; nothing is flushed. StorageError: it was told that it cannot."""

    def flush(self) -> None:
        """Flush, as far as the cache mode passes that on."""

    def freeze(self) -> None:
        """Stop it as by SIGSTOP."""

    def thaw(self) -> None:
        """Let it go on."""

    def kill(self) -> None:
        """Kill it. Idempotent."""

    def stop(self) -> None:
        """Shut it down: it writes its caches back."""


class VirtualMachines(Protocol):
    """Who uses prepared images."""

    def start_machine(self, host: str, path: str, format: str, cache: str, monitor: bool) -> VirtualMachine:
        """Start a machine on a path that ``prepare`` gave; ``monitor``: one that can be spoken to. StorageError: it
        cannot open that."""


class GroupTools(Protocol):
    """LVM's own tools on a host, past the engine. ``root``: as ``Backend.group`` says; ``name``: of what is kept."""

    def back_up(self, host: str, root: str, name: str, data: bool) -> None:
        """Keep what LVM knows of a volume group, and with ``data`` all that is on its devices."""

    def put_back(self, host: str, root: str, name: str, data: bool) -> None:
        """Have it there again; without ``data`` what LVM knows alone."""

    def permit(self, host: str, root: str, volume: str, writable: bool) -> None:
        """Let a volume be written, or only be read."""


class Lasting(Protocol):
    """Processes that go on from step to step."""

    def go_on(
        self, host: str, process: str, verb: str, arguments: dict[str, Any], faults: tuple[ActiveFault, ...]
    ) -> Ended:
        """Do an operation in the process of that name, which is new where there is none or it is dead."""


class Network(Protocol):
    """Cables, and a server at the end of one."""

    def isolate(self, host: str) -> None:
        """Pull the cable of a host."""

    def rejoin(self, host: str) -> None:
        """Plug the cable in again."""

    def server(self, repository: str, does: str) -> None:
        """Have the server of an NFS repository do what ``schema`` lists: stop, start, …"""


class Backend(Protocol):
    """One world, new for each scenario."""

    @property
    def name(self) -> str:
        """As ``diskwright sim run --backend`` has it."""

    @property
    def machines(self) -> Machines | None: ...

    @property
    def network(self) -> Network | None: ...

    @property
    def virtual(self) -> VirtualMachines | None: ...

    @property
    def lasting(self) -> Lasting | None: ...

    @property
    def groups(self) -> GroupTools | None: ...

    def group(self, repository: str) -> str:
        """Return what ``groups`` calls the volume group of a repository, "" where it is none."""

    @property
    def world(self) -> World | None:
        """The simulated world, where there is one."""

    def root(self, repository: str) -> str:
        """Return the path of a repository."""

    def parameters(self, repository: str) -> dict[str, Any]:
        """Return what an engine connects a repository with."""

    def scratch(self, name: str) -> str:
        """Return a path for an image file outside of all repositories."""

    @property
    def files(self) -> Files:
        """The files of the storage, past the engine."""

    def engine(self, host: str) -> AbstractContextManager[Engine]:
        """Make an engine in a process of a host, for looking."""

    def run(
        self,
        host: str,
        verb: str,
        arguments: dict[str, Any],
        interruption: Interruption | None,
        faults: tuple[ActiveFault, ...],
    ) -> Ended:
        """Do an operation in a process of a host."""

    def set_faults(self, faults: tuple[ActiveFault, ...]) -> None:
        """Have engines from ``engine`` meet these faults from now on; none: no more."""

    def thaw(self, job: str) -> Ended:
        """Let a frozen process go on to its end; ``killed`` when its host has died meanwhile."""

    def kill_host(self, host: str) -> None:
        """Kill every process of a host."""

    def close(self) -> None:
        """Leave nothing behind."""
