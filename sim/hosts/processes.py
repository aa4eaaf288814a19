"""Simulated processes and hosts: who runs, who is frozen, who is dead, and what a death frees.

A process is the gate before its own doors: once it is dead every call raises ``sim.hosts.crash.Crashed``
and reaches nothing, so the ``finally`` blocks of a killed process are harmless. Its death closes
its files, gives its leases up and calls what was registered with ``at_death`` (programs that it had
started and that end with it). What it did before counts.

Pids are never reused. Not here: who runs when (the executor, ``sim.hosts.schedule``), and what is behind the doors of a
process (``sim.hosts.doors``; ``sim.hosts.world`` puts them together).
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, NoReturn, Protocol
from zlib import crc32

from engine.doors import Doors
from engine.doors.hypervisor import Job, Move, Node
from engine.doors.images import Layer
from engine.doors.processes import ProcessIdentity
from engine.errors import StorageError
from sim.disk.files import RUN_MOUNT, Bind, Fault, SimFiles, Words
from sim.disk.modes import Modes
from sim.disk.nfs_view import HostView, NfsFiles
from sim.disk.nodes import fail
from sim.disk.profiles import Profile
from sim.disk.storage import SimStorage
from sim.hosts.crash import Crashed
from sim.hosts.lease_areas import FAILING_S, SharedTable
from sim.hosts.lock_table import LockTable
from sim.lvm.volume_groups import SimVolumeGroups
from sim.lvm.words import GroupsInWords
from sim.qemu.layers import ImageLocks

STATE_MOUNT = "/state"
"""Where each host has its own storage for what it remembers."""

_ON_SHARED = ("/dev/", "/srv/")
_ASKS_DAEMON = frozenset(f"shared_leases.{call}" for call in "joined host hosts".split())
_FIRST_RUN_DEVICE = 1 << 40
HOLDER = "engine.host.holder"
_NOTE_LIMIT = 65536

Hook = Callable[["SimProcess", str, str], Fault]
"""Called before each door call with (process, call, what); may raise OSError, or kill and raise Crashed."""


class Executor(Protocol):
    """Decides who runs."""

    def launch(self, process: SimProcess) -> None:
        """A process with something to do is new."""

    def sleep(self, process: SimProcess, seconds: float) -> None:
        """A process waits."""


class Surroundings(Protocol):
    """What the world gives to its hosts."""

    storage: SimStorage
    locks: LockTable
    shared: SharedTable
    modes: Modes
    profile: Profile
    executor: Executor
    hook: Hook | None
    order: int
    watchdog: bool

    @property
    def image_locks(self) -> ImageLocks: ...

    def is_exported(self, path: str) -> bool:
        """Whether a path of the shared storage is on a server."""

    def doors(self, process: SimProcess) -> Doors:
        """All doors of a process of this world, with the process as their gate."""

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning."""


class Spoken(Protocol):
    """A machine as its monitor shows it."""

    @property
    def running(self) -> bool:
        """Whether it is neither dead nor frozen."""

    def listen(self) -> None:
        """Another one speaks to it."""

    def nodes(self) -> list[Node]: ...
    def add_overlay(self, name: str, layer: Layer) -> None: ...
    def close_node(self, name: str) -> None: ...
    def switch(self, moves: Sequence[Move]) -> None: ...
    def grow(self, node: str, size: int) -> None: ...
    def jobs(self) -> dict[str, Job]: ...
    def depth(self, node: str) -> int: ...
    def pull(self, job: str, node: str, backing: str) -> None: ...
    def mirror(self, job: str, node: str, target: str) -> None: ...
    def complete(self, job: str) -> None: ...
    def limit(self, job: str, rate: int) -> None: ...
    def finish(self, job: str) -> None: ...
    def write_back(self, node: str) -> None: ...
    def cancel(self, job: str) -> None: ...
    def forget(self, job: str) -> None: ...

    @property
    def has_agent(self) -> bool:
        """Whether the agent in its guest answers."""

    @property
    def guest_frozen(self) -> bool:
        """Whether its guest writes nothing."""

    def freeze_guest(self) -> int: ...
    def thaw_guest(self) -> int: ...


class SimProcess:
    """One process: a gate, and the doors behind it."""

    def __init__(self, host: SimHost, identity: ProcessIdentity, name: str) -> None:
        self.host = host
        self.identity = identity
        self.name = name
        self.dead = False
        """Killed or ended."""
        self.killed = False
        self.terminating = False
        self._doomed = False
        self.asleep_until: float | None = None
        self.frozen_until: float | None = None
        self.main: Callable[[], Any] | None = None
        """What it does; None: it only has leases, or it is driven from outside."""
        self.error: BaseException | None = None
        """What ended it that should not have."""
        self.hook = host.world.hook
        mounts = {STATE_MOUNT: host.state_storage, RUN_MOUNT: host.run_storage}
        world = host.world
        kind = NfsFiles if world.profile.remote else SimFiles
        self.files = kind(world.storage, self, mounts, world.order, world.image_locks, host.mounts.binds)
        self.files.owner = f"{host.name} {identity.pid} {name}"
        self.files.words = host.words
        if isinstance(self.files, NfsFiles):
            self.files.view = host.view
        self.groups = SimVolumeGroups(self) if host.words is None else GroupsInWords(self, host.words)
        self.files.devices = self.groups.open_block
        self._at_death: list[Callable[[], None]] = []
        self._doors: Doors | None = None

    @property
    def doors(self) -> Doors:
        """Return the doors of the process, all behind the process as their gate."""
        if self._doors is None:
            self._doors = self.host.world.doors(self)
        return self._doors

    def behind(self, wrap: Callable[[Doors], Doors]) -> None:
        """Put something before its doors."""
        self._doors = wrap(self.doors)

    @property
    def frozen(self) -> bool:
        """Stopped by a signal: it is not run, and keeps its leases."""
        return self.frozen_until is not None

    def enter(self, call: str, what: str) -> Fault:
        """As ``sim.disk.files.Gate``."""
        if self.dead:
            raise Crashed
        if self._doomed:
            self.kill()
        if self.host.unnamed:
            self.host.look_for_names()
        if self.host.apart:
            self.host.require_storage(call, what)
        if self.host.world.modes.taken:
            self.host.world.modes.require(call, what)
        fault = self.hook(self, call, what) if self.hook is not None else Fault.NONE
        if self.host.watcher is not None:
            self.host.watcher(self, call, what)
        return fault

    def at_death(self, call: Callable[[], None]) -> None:
        """Have ``call`` called when it ends, however it ends. It may touch no door."""
        self._at_death.append(call)

    def end(self, killed: bool = False) -> None:
        """End the process; idempotent. Nothing of the process touches the storage after this."""
        if self.dead:
            return
        self.dead, self.killed = True, killed
        self.host.processes.pop(self.identity.pid, None)
        for call in self._at_death:
            call()
        self.files.close_all()
        self.host.world.locks.bury(self)
        self.host.world.shared.bury(self)

    def lose_locks(self) -> None:
        """The server has not heard of its host for the length of a lease: what it had locked is free for others, and
        fails here for ever. Its open images are such files. What it wrote before counts."""
        for handle in list(self.files.handles):
            handle.revoke()
        for call in self._at_death:  # qemu's sessions: they live, and can do nothing any more
            call()
        locks, server = self.host.world.locks, self.host.world.storage.device
        for lock in locks.owned(self):
            if lock.place[0] == server:
                locks.release(lock, self)

    def doom(self) -> None:
        """Kill the process before its next call; the call that it is in the middle of happens."""
        self._doomed = True
        if self.name == HOLDER:
            self.end(killed=True)

    def kill(self) -> NoReturn:
        """End the running process itself, now."""
        self.end(killed=True)
        raise Crashed

    def __repr__(self) -> str:
        return f"{self.host.name}:{self.identity.pid}"


class MountTable:
    """What one host has mounted."""

    def __init__(self) -> None:
        self.binds: dict[str, Bind] = {}
        """By mount point; ``SimFiles`` looks it up at every call."""
        self.sources: dict[str, str] = {}

    def clear(self) -> None:
        """Forget all mounts."""
        self.binds.clear()
        self.sources.clear()


class SimHost:
    """A host: its private storage, its boot, its processes."""

    def __init__(self, world: Surroundings, name: str, state_storage: SimStorage | None = None) -> None:
        self.world = world
        self.name = name
        self.called = name
        """What it calls itself: two machines may have one name."""
        if state_storage is None:
            state_storage = SimStorage(device=1000)
            state_storage.make_directory(STATE_MOUNT)
            state_storage.make_directory(f"{STATE_MOUNT}/{name}")
        self.state_storage = state_storage
        self.processes: dict[int, SimProcess] = {}
        self.boots = 1
        self.run_storage = self._fresh_run()
        """Empty after each boot."""
        self.mounts = MountTable()
        self.view = HostView(lambda: world.now)
        """What it believes of the shared storage, where that is remote."""
        self.unnamed: dict[int, tuple[SimStorage, str]] = {}
        """Holders, by pid, that have not yet found themselves in the note that is to name them."""
        self.monitors: dict[str, Spoken] = {}
        """Machines that can be spoken to, by their monitor."""
        self.definitions: dict[str, tuple[str, str]] = {}
        """Name in its run directory, and format, by which a manager starts the disk of a machine; by its monitor."""
        self.active: set[str] = set()
        """Logical volumes (their uuids) that are devices here."""
        self.opened: dict[str, int] = {}
        """How often each is open."""
        self.words: Words | None = None
        """Of the program that runs on the host, where that is another one."""
        self.watcher: Callable[[SimProcess, str, str], None] | None = None
        """Told of each door call of its processes, as it happens."""
        self.frozen = False
        self.apart = False
        """Whether the host does not reach the shared storage."""
        self._since = self._until = 0.0
        self._next_pid = 1000

    def fork(self, world: Surroundings) -> SimHost:
        """Return the host in another world, after one more boot: with the same notes, which both may change."""
        other = SimHost(world, self.name, self.state_storage.clone())
        other.boots, other._next_pid, other.called = self.boots + 1, self._next_pid, self.called
        other.words, other.watcher = self.words, self.watcher
        return other

    @property
    def state_directory(self) -> str:
        """What to give to an ``Engine`` of this host."""
        return f"{STATE_MOUNT}/{self.name}"

    @property
    def nonce(self) -> str:
        """What no other host has, whatever it is called."""
        return blake2b(f"host {self.name}".encode(), digest_size=16).hexdigest()

    @property
    def boot_id(self) -> str:
        """Changes with each boot."""
        return f"{self.name}-boot-{self.boots}"

    def look_for_names(self) -> None:
        """Holders that a note names stay from here on."""
        for pid, (storage, note) in list(self.unnamed.items()):
            with contextlib.suppress(OSError, ValueError, LookupError):
                if json.loads(storage.file(note)[1].content.read(0, _NOTE_LIMIT))["process"][1] == pid:
                    del self.unnamed[pid]

    def end_unnamed(self, holder: SimProcess) -> None:
        """The process that started a holder is gone: one that no note has named ends too."""
        self.look_for_names()
        if self.unnamed.pop(holder.identity.pid, None) is not None:
            holder.end()

    def process(self, name: str, main: Callable[[], Any] | None = None) -> SimProcess:
        """A new process; with ``main`` the executor runs it, else it is driven by whoever has it."""
        self._next_pid += 1
        identity = ProcessIdentity(self.boot_id, self._next_pid, self._next_pid)
        process = SimProcess(self, identity, name)
        process.main = main
        self.processes[identity.pid] = process
        if main is not None:
            self.world.executor.launch(process)
        return process

    def lose_power(self) -> None:
        """Crash without giving anything up: leases between hosts are free when the host is proven gone."""
        self.world.shared.silence(self, self.world.now)
        self.crash()

    def freeze(self, seconds: float = float("inf")) -> None:
        """Stop the host as a whole: all its processes, and what renews its presence where hosts share leases."""
        self.frozen = True
        self._since = self.world.now
        self.world.shared.silence(self, self.world.now)
        for process in self.processes.values():
            process.frozen_until = self.world.now + seconds

    def thaw(self) -> None:
        """Let a host that stands still go on."""
        if not self.frozen:
            return
        self.frozen = False
        for process in self.processes.values():
            process.frozen_until = None
        self.world.shared.resume(self, self.world.now)

    def part(self, seconds: float) -> None:
        """Put the shared storage out of reach for a while; so the host renews no presence there."""
        self.apart, self._since, self._until = True, self.world.now, self.world.now + seconds
        self.world.shared.silence(self, self.world.now)

    def require_storage(self, call: str, what: str) -> None:
        """Raise what a call meets whose storage is out of reach."""
        if not what.startswith(_ON_SHARED) or call in _ASKS_DAEMON:
            return
        if call.startswith(("volume_groups", "shared_leases")) and call != "volume_groups.open_device":
            raise StorageError(f"{what} is out of reach")
        raise fail(errno.EIO, what)

    def evict(self) -> None:
        """End the daemon of the host: it is present no more where hosts share, and what had leases is killed."""
        if self.world.watchdog:
            self.lose_power()
        else:
            self.world.shared.evict(self, self.world.now)

    def pass_time(self) -> None:
        """Do what time does to a host: who renews no presence for too long loses it, and is reset by its
        watchdog; the storage is in reach again."""
        if not self.frozen and not self.apart:
            return
        too_long = self.world.now >= self._since + FAILING_S
        if too_long and (self.world.watchdog or self.apart) and (self.frozen or self._until > self._since + FAILING_S):
            self.evict()
        if self.apart and self.world.now >= self._until:
            self.apart = False
            self.world.shared.resume(self, self.world.now)

    def crash(self) -> None:
        """Kill all processes of the host and boot it. Its private storage stays as it is."""
        for process in list(self.processes.values()):
            process.end(killed=True)
        self.world.shared.silence(self, self.world.now, for_ever=True)
        self.frozen = self.apart = False
        self.boots += 1
        self.run_storage = self._fresh_run()
        self.mounts.clear()
        self.view = HostView(lambda: self.world.now)
        self.active.clear()
        self.opened.clear()

    def _fresh_run(self) -> SimStorage:
        # Locks belong to a device number: no two hosts and no two boots may have the same.
        storage = SimStorage(device=_FIRST_RUN_DEVICE + crc32(self.boot_id.encode()))
        storage.make_directory(RUN_MOUNT)
        return storage

    def find(self, identity: ProcessIdentity) -> SimProcess | None:
        """The living process of that identity on this boot."""
        process = self.processes.get(identity.pid)
        return process if process is not None and process.identity == identity else None
