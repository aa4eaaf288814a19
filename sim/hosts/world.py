"""A simulated world: one shared storage, hosts with the real engine, and the two ways to run them.

Directly: ``world.host("a")`` is an ``Engine`` in a new process of host a; its verbs run in the
caller's thread. That is the fast path, for exploring crash states: ``fork`` gives a world around another
state of the storage in some microseconds.

Scheduled: ``world.start("a", lambda engine: …)`` for each process, then ``world.run()``: they take
turns as the tape says, with the faults that were asked for.

Repositories are directories below ``/srv``. Each host keeps its own notes on a storage of its own
(``/state/<host>``), which a power cut leaves as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from engine.api import Engine
from engine.doors import Doors
from engine.doors.clock import Ids
from engine.doors.files import Kind
from engine.doors.images import ImageTool
from engine.errors import DiskwrightError
from engine.formats.nfs.place import MOUNTS
from sim.disk.modes import Modes
from sim.disk.profiles import PROFILES, CrashState, Profile, crash_states, one_state
from sim.disk.storage import DEFAULT_CAPACITY, SimStorage
from sim.hosts.doors.clock import IdSource, LeastUnused, SimClock, SimIds
from sim.hosts.doors.hypervisor import SimHypervisors
from sim.hosts.doors.leases import SimLeases
from sim.hosts.doors.mounts import SimMounts
from sim.hosts.doors.shared_leases import SimSharedLeases
from sim.hosts.doors.spawning import SimProcesses
from sim.hosts.faults import Faults, FaultSource
from sim.hosts.lease_areas import DEAD_S, SharedTable
from sim.hosts.lock_table import GUARD_KEPT, GUARD_WRITABLE, LockTable
from sim.hosts.processes import Executor, Hook, SimHost, SimProcess
from sim.hosts.schedule import MAX_STEPS, Direct, Pct, Scheduler, Strategy, Uniform
from sim.hosts.tape import Tape
from sim.hosts.trace import Trace
from sim.lvm.volume_groups import make_device
from sim.qemu.images import SimImageTool
from sim.qemu.layers import ImageLocks

REPOSITORIES = "/srv"
FORMAT = "localfs-1.0"
LVM = "lvm-1.0"
SHARED = "lvm-1.0 shared"
"""The same for several hosts at once; the engine has no name of its own for it."""
SHARING_HOSTS = 4
NFS = "nfs-1.0"
DEVICE = "device"
DEVICE_BYTES = 1 << 30
ONLY_HOST = "one"

ImageToolFactory = Callable[[SimProcess], ImageTool]
"""Makes the image door of a process; it may use ``process.files`` and ``process.at_death``."""

_T = TypeVar("_T")
_MOUNTED = re.compile(f"{MOUNTS}/[0-9a-f]{{32}}(?=/)")


def on_server(text: str) -> str:
    """Paths below the engine's own mounts as the shared storage has them."""
    return _MOUNTED.sub(REPOSITORIES, text)


class Job:
    """A process that was started with something to do."""

    def __init__(self) -> None:
        self.process: SimProcess | None = None
        self.result: Any = None
        self.error: DiskwrightError | None = None
        self.done = False
        """Whether the job came to its end, with a result or an error of the engine; else it was killed, or has not
        run."""


class World:
    """Hosts on one storage."""

    def __init__(  # noqa: PLR0913 - a world has that many sides; callers name each
        self,
        tape: Tape | None = None,
        profile: Profile | str = "",
        *,
        format: str = FORMAT,
        capacity: int = DEFAULT_CAPACITY,
        storage: SimStorage | None = None,
        images: ImageToolFactory | None = None,
        seed: int = 0,
        least_ids: bool = False,
        hook: Hook | None = None,
    ) -> None:
        """``seed`` decides about ids alone. ``least_ids``: see ``sim.hosts.doors.clock.LeastUnused``. ``hook``: what is
        called before each door call of processes that run directly. ``images``: another image door than
        the simulated qemu. ``profile``: what a power cut may leave, and whether hosts have caches; that of an NFS
        server or of POSIX where it is not said."""
        self.tape = tape if tape is not None else Tape()
        profile = profile or ("nfs" if format == NFS else "posix")
        self.profile = PROFILES[profile] if isinstance(profile, str) else profile
        if storage is None:
            storage = SimStorage(capacity)
            storage.make_directory(REPOSITORIES)
            storage.settle()
        self.storage = storage
        self.storage.flush_on_close = self.profile.remote
        self.hook = hook
        self.order = 0
        self.locks = LockTable()
        self.shared = SharedTable()
        self.modes = Modes(on_server)
        self.trace = Trace()
        self.hosts: dict[str, SimHost] = {}
        self.sharing = format == SHARED
        self.watchdog = False
        """Each host has one: it resets what has lost its presence where hosts share."""
        self.format = LVM if self.sharing else format
        self.only_host = ONLY_HOST if format == LVM else ""
        """Where one host alone may change anything, operations of several are done by that one."""
        self.exported: set[str] = set()
        """Directories of the shared storage that hosts see as a server's, besides all where the format is not of one
        host."""
        self._images = images
        self.image_locks = ImageLocks(
            lambda image: self.locks.is_locked((*image, GUARD_KEPT)),
            lambda image: self.locks.is_locked((*image, GUARD_WRITABLE)),
        )
        self._seed = seed
        self._least_ids = least_ids
        self._sources: dict[str, IdSource | LeastUnused] = {}
        self._skew: dict[str, float] = {}
        self._now = 0.0
        self.direct = Direct(self.advance)
        self.executor: Executor = self.direct
        self._jobs: list[tuple[str, Callable[[Engine], Any], Job]] = []

    # -- repositories

    def create(self, *names: str) -> None:
        """Empty repositories ``/srv/<name>``, everything durable."""
        engine = self.host("setup", connect=False)
        for name in names:
            engine.create_repository(self.format, self._made(name))
        engine.close()
        if self.sharing:
            self._hand_over(engine)
        self.storage.settle()

    def _hand_over(self, engine: Engine) -> None:
        """Nobody manages them, and the host that made them takes part no more."""
        self.connect(engine)
        for name in self.repositories():
            engine.release_srm(name)
            engine.disconnect_storage_repository(name)

    def manage(self, host: str) -> None:
        """Have a host manage all repositories. Nobody else may be alive who does."""
        engine = self.host(host)
        for name in self.repositories():
            engine.take_srm(name)

    def repositories(self) -> list[str]:
        """Names of the directories that may be repositories."""
        listed = self.storage.list_directory(REPOSITORIES)
        return sorted(entry.name for entry in listed if entry.kind is Kind.DIRECTORY)

    def connect(self, engine: Engine) -> None:
        """Connect all repositories under their names, where the host has none connected."""
        if not engine.list_repositories():
            for name in self.repositories():
                engine.connect_storage_repository(name, self.format, self.parameters(name))

    def parameters(self, name: str) -> dict[str, Any]:
        """What an engine connects the repository of that name with."""
        if self.format == LVM:
            return {"volume_group": name}
        if self.format == NFS:
            return {"server": "nas", "export": REPOSITORIES, "directory": name}
        return {"path": f"{REPOSITORIES}/{name}"}

    def _made(self, name: str) -> dict[str, Any]:
        """What it is made of."""
        if self.format != LVM:
            return self.parameters(name)
        self.storage.make_directory(f"{REPOSITORIES}/{name}")
        make_device(self.storage, f"{REPOSITORIES}/{name}/{DEVICE}", DEVICE_BYTES)
        made = {**self.parameters(name), "devices": [f"{REPOSITORIES}/{name}/{DEVICE}"]}
        return {**made, "shared": True, "hosts": SHARING_HOSTS} if self.sharing else made

    # -- hosts

    def machine(self, name: str) -> SimHost:
        """The host of that name, new when there was none; ``only_host`` whatever the name, where there is one."""
        name = self.only_host or name
        if name not in self.hosts:
            self.hosts[name] = SimHost(self, name)
        return self.hosts[name]

    def host(self, name: str, connect: bool = True) -> Engine:
        """An engine in a new process of that host, which lives until ``bury`` or the end of the host."""
        process = self.machine(name).process("direct")
        engine = Engine(process.doors, process.host.state_directory)
        if connect:
            self.connect(engine)
            self._take_part(engine)
        return engine

    def _take_part(self, engine: Engine) -> None:
        """Where hosts share leases a host that has just come waits until it knows of every other whether it lives."""
        if not self.sharing:
            return
        for name in self.repositories():
            engine.context.repository(name)
        host = self.process_of(engine).host.name
        if any(
            (since := self.shared.since(area, host)) is not None and self.now < since + DEAD_S
            for area in self.shared.areas
        ):
            self.advance(DEAD_S + 1)

    def bury(self, name: str) -> None:
        """Every process of that host is killed: its leases are free, its files closed; nothing is lost."""
        self.machine(name).crash()

    def process_of(self, engine: Engine) -> SimProcess:
        """The process that an engine of this world runs in."""
        owner = engine.doors.files.gate  # type: ignore[attr-defined]
        assert isinstance(owner, SimProcess)
        return owner

    # -- states

    def fork(self, storage: SimStorage, hook: Hook | None = None) -> World:
        """A world around another state of the storage: no process runs and nothing is leased. Hosts keep their notes
        (and so their connections), but both worlds may write them independently."""
        other = World(
            Tape(), self.profile, format=SHARED if self.sharing else self.format, storage=storage,
            images=self._images, seed=self._seed, least_ids=self._least_ids, hook=hook,
        )  # fmt: skip
        other.order, other.only_host, other.watchdog = self.order, self.only_host, self.watchdog
        other._now, other._skew = self._now, dict(self._skew)
        other.shared = self.shared.fork(self._now)
        other._sources = {n: source.fork() for n, source in self._sources.items() if isinstance(source, IdSource)}
        for name, host in self.hosts.items():
            other.hosts[name] = host.fork(other)
        return other

    def crash_states(self, profile: Profile | str | None = None) -> list[CrashState]:
        """What the shared storage may look like after a power cut now."""
        return list(crash_states(self.storage, profile if profile is not None else self.profile))

    def power_cut(self) -> None:
        """Everything dies, and the shared storage is what the tape says: each operation that is not durable is one
        choice, 0 for "it survived". What hosts remember for themselves stays."""
        state, lost = one_state(self.storage, self.profile, self.tape.choose)
        for host in self.hosts.values():
            host.lose_power()
        self.storage.become(state)
        self.trace.event(f"power cut, lost: {'; '.join(lost) or 'nothing'}")

    # -- scheduled

    def start(self, host: str, work: Callable[[Engine], Any]) -> Job:
        """Have ``work`` done in a new process of that host by the next ``run``. Its connections must be made
        before, or by ``work`` itself."""
        job = Job()
        self._jobs.append((host, work, job))
        return job

    def run(
        self,
        strategy: Strategy | None = None,
        faults: Faults | None = None,
        max_steps: int = MAX_STEPS,
    ) -> None:
        """Let all that was started run, and whatever they spawn, until everything has ended or is dead.

        An error of the engine is the result of its job; anything else that a process raises is raised here."""
        source = FaultSource(faults, self.tape, self) if faults is not None else None
        chosen = strategy if strategy is not None else Uniform(self.tape)
        scheduler = Scheduler(chosen, self.trace, self.advance, lambda: self._now, source, max_steps)
        self.executor = scheduler
        try:
            for host, work, job in self._jobs:
                job.process = self.machine(host).process("job", _work(self.machine(host), work, job))
            self._jobs = []
            scheduler.run()
        finally:
            self.executor = self.direct

    def pct(self, depth: int = 3, steps: int = 1000) -> Pct:
        """A strategy for ``run``."""
        return Pct(self.tape, depth, steps)

    # -- what hosts get (see Surroundings)

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
        for host in list(self.hosts.values()):
            host.pass_time()

    def jump_clock(self, host: str, seconds: float) -> None:
        """The wall clock of a host is set; its monotonic clock is not affected."""
        self._skew[host] = self._skew.get(host, 0.0) + seconds

    def is_exported(self, path: str) -> bool:
        above = any(f"{path}/".startswith(f"{directory}/") for directory in self.exported)
        return above or self.format != FORMAT

    def doors(self, process: SimProcess) -> Doors:
        name = process.host.name
        return Doors(
            files=process.files,
            leases=SimLeases(self.locks, process.files, process),
            images=self._image_tool(process),
            processes=SimProcesses(process),
            clock=SimClock(process, lambda: self._skew.get(name, 0.0)),
            ids=self._ids(process),
            mounts=SimMounts(process),
            volume_groups=process.groups,
            shared_leases=SimSharedLeases(process),
            hypervisors=SimHypervisors(process),
        )

    def _ids(self, process: SimProcess) -> Ids:
        name = process.host.name
        if self._least_ids:
            storages = [self.storage, *(host.state_storage for host in self.hosts.values())]
            source = self._sources.setdefault("", LeastUnused(storages, self._seed))
        else:
            source = self._sources.setdefault(name, IdSource(name, self._seed))
        return SimIds(process.host.called, process.host.nonce, source)

    def _image_tool(self, process: SimProcess) -> ImageTool:
        if self._images is not None:
            return self._images(process)
        tool = SimImageTool(process.files, self.image_locks, process.files.owner)
        process.at_death(tool.abandon)
        return tool


def _work(host: SimHost, work: Callable[[Engine], Any], job: Job) -> Callable[[], None]:
    def main() -> None:
        assert job.process is not None
        engine = Engine(job.process.doors, host.state_directory)
        try:
            job.result = work(engine)
            job.done = True
        except DiskwrightError as error:
            job.error, job.done = error, True
        finally:
            if not job.process.dead:
                engine.close()

    return main
