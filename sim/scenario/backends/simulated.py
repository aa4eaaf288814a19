"""Scenarios on the simulator: ``sim.hosts.world`` with its model of storage, qemu, leases and time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any, cast

from engine.api import Engine
from engine.doors.leases import Lease
from engine.doors.processes import ProcessIdentity
from engine.errors import DiskwrightError
from sim.disk.files import Fault, SimFiles
from sim.disk.profiles import PROFILES
from sim.disk.storage import DEFAULT_CAPACITY
from sim.hosts.crash import Crashed
from sim.hosts.faults import fail_call, possible
from sim.hosts.machine import SimMachine
from sim.hosts.processes import SimProcess
from sim.hosts.tape import Tape
from sim.hosts.world import DEVICE, DEVICE_BYTES, FORMAT, LVM, NFS, REPOSITORIES, SHARED, World
from sim.lvm.volume_groups import make_device
from sim.scenario.backends.backend import (
    ActiveFault,
    Ended,
    Failure,
    Lasting,
    Machines,
    VirtualMachine,
    VirtualMachines,
)
from sim.scenario.backends.groups import SimGroupTools
from sim.scenario.backends.lasting import LastingEngine
from sim.scenario.backends.operations import RUNNER, do, is_by_runner, volume_path
from sim.scenario.backends.watch import Reached, Watch, watching
from sim.scenario.language.model import Interruption, Scenario
from sim.scenario.language.schema import SHARING_HOSTS

_SCRATCH = "/scratch"


class SimBackend:
    """A simulated world for one scenario."""

    name = "sim"
    network = None

    def __init__(self, scenario: Scenario, seed: int = 0) -> None:
        shared = any(plan.shared for plan in scenario.repositories)
        self._world = World(profile=scenario.profile, seed=seed, format=SHARED if shared else FORMAT)
        self._world.order = seed
        self._plans = {plan.name: plan for plan in scenario.repositories}
        self._world.exported = {self.root(plan.name) for plan in scenario.repositories if plan.format == NFS}
        self._faults: tuple[ActiveFault, ...] = ()
        self._jobs: dict[str, _Frozen] = {}
        self._open: dict[str, SimProcess] = {}
        self._lasting: dict[tuple[str, str], tuple[SimProcess, LastingEngine]] = {}
        self.groups = SimGroupTools(self._world.storage)
        self._world.storage.make_directory(_SCRATCH)
        self._vandal = self._world.machine("somebody").process("vandal")
        with self.engine(scenario.hosts[0]) as engine:
            for plan in scenario.repositories:
                engine.create_repository(plan.format, self._made_of(plan.name))
        for host in scenario.hosts:
            with self.engine(host) as engine:
                for plan in scenario.repositories:
                    engine.connect_storage_repository(plan.name, plan.format, self.parameters(plan.name))
        self._world.storage.settle()

    @property
    def world(self) -> World:
        """The simulated world itself."""
        return self._world

    @property
    def machines(self) -> Machines:
        return self

    @property
    def virtual(self) -> VirtualMachines:
        return self

    @property
    def lasting(self) -> Lasting:
        return self

    def root(self, repository: str) -> str:
        return f"{REPOSITORIES}/{self._plans[repository].directory}"

    def group(self, repository: str) -> str:
        return self.root(repository) if self._plans[repository].format == LVM else ""

    def parameters(self, repository: str) -> dict[str, Any]:
        plan = self._plans[repository]
        return {"volume_group": plan.directory} if plan.format == LVM else {"path": self.root(repository)}

    def _made_of(self, repository: str) -> dict[str, Any]:
        """Connection parameters, and for a volume group its device, which is made."""
        if self._plans[repository].format != LVM:
            return self.parameters(repository)
        device = f"{self.root(repository)}/{DEVICE}"
        self._world.storage.make_directory(self.root(repository))
        make_device(self._world.storage, device, DEVICE_BYTES)
        made = {**self.parameters(repository), "devices": [device]}
        return {**made, "shared": True, "hosts": SHARING_HOSTS} if self._plans[repository].shared else made

    def scratch(self, name: str) -> str:
        return f"{_SCRATCH}/{name}"

    @property
    def files(self) -> SimFiles:
        if self._vandal.dead:
            self._vandal = self._world.machine("somebody").process("vandal")
        return self._vandal.files

    def _process(self, host: str, faults: tuple[ActiveFault, ...]) -> SimProcess:
        process = self._world.machine(host).process("scenario")
        if faults:
            process.hook = _Faulty(faults)
        return process

    @contextlib.contextmanager
    def engine(self, host: str) -> Iterator[Engine]:
        process = self._process(host, self._faults)
        engine = Engine(process.doors, process.host.state_directory)
        try:
            yield engine
        finally:
            engine.close()
            process.end()

    def set_faults(self, faults: tuple[ActiveFault, ...]) -> None:
        self._faults = faults

    # -- operations

    def run(
        self,
        host: str,
        verb: str,
        arguments: dict[str, Any],
        interruption: Interruption | None,
        faults: tuple[ActiveFault, ...],
    ) -> Ended:
        process = self._process(host, faults)
        watch = Watch(interruption.point if interruption else None)
        if is_by_runner(arguments):
            process.behind(lambda doors: doors._replace(processes=cast(Any, _Starting(process, watch))))
            ended = _live(process, Watch(), verb, arguments)
            return ended._replace(
                how="killed" if watch.dead else ended.how,
                effects=() if watch.dead else tuple(watch.names),
                reached=watch.reached,
            )

        def live() -> Ended:
            return _live(process, watch, verb, arguments)

        if interruption is not None and interruption.how == "freeze":
            job = _Frozen(process, watch, live)
            ended = job.go_on()
            if ended.how == "frozen":
                self._jobs[interruption.job] = job
            return ended
        if interruption is not None:
            watch.on_reached(_killer(process, watch) if interruption.how == "crash" else _stopper(process))
        return live()

    def go_on(
        self, host: str, process: str, verb: str, arguments: dict[str, Any], faults: tuple[ActiveFault, ...]
    ) -> Ended:
        found = self._lasting.get((host, process))
        if found is None or found[0].dead:
            made = self._process(host, ())
            found = self._lasting[host, process] = made, LastingEngine(made.doors, made.host.state_directory)
        one, engine = found
        one.hook = _Faulty(faults) if faults else self._world.hook
        return engine.do(verb, arguments)

    def thaw(self, job: str) -> Ended:
        return self._jobs.pop(job).go_on()

    # -- the world

    def kill_host(self, host: str) -> None:
        self._world.machine(host).lose_power()

    def freeze_host(self, host: str) -> None:
        self._world.machine(host).freeze()

    def thaw_host(self, host: str) -> None:
        self._world.machine(host).thaw()

    def power_cut(self, lose: str, profile: str, seed: int) -> tuple[str, ...]:
        world = self._world
        chosen = int(lose) if lose.isdigit() else seed
        usual, world.profile = world.profile, PROFILES[profile] if profile else world.profile
        world.tape = Tape.seeded(chosen) if lose.isdigit() else Tape((), _all if lose == "all" else None)
        before = len(world.trace.lines)
        world.power_cut()
        world.profile = usual
        told = world.trace.lines[before].partition("lost: ")[2]
        return tuple(part for part in told.split("; ") if part != "nothing")

    def space_left(self, room: int | None) -> None:
        storage = self._world.storage
        space = storage.space("/")
        used = space.total_bytes - space.free_bytes
        storage.capacity = DEFAULT_CAPACITY if room is None else used + room

    def jump_clock(self, host: str, seconds: float) -> None:
        self._world.jump_clock(host, seconds)

    def wait(self, seconds: float) -> None:
        self._world.advance(seconds)

    def start_machine(self, host: str, path: str, format: str, cache: str, monitor: bool) -> VirtualMachine:
        return SimMachine(self._world.machine(host), path, format, cache, f"qmp:{path}.monitor" if monitor else "")

    def open_volume(self, host: str, repository: str, image: str) -> None:
        process = self._world.machine(host).process("reader")
        with self.engine(host) as engine:
            repo = engine.context.repository(repository)
            process.doors.volume_groups.open_device(volume_path(repo, image))
        self._open[image] = process

    def close_volume(self, image: str) -> None:
        self._open.pop(image).end()

    def close(self) -> None:
        for host in list(self._world.hosts):
            self._world.bury(host)
        for job in self._jobs.values():
            job.go_on()  # it is dead: its thread is to end
        self._jobs.clear()


def _live(process: SimProcess, watch: Watch, verb: str, arguments: dict[str, Any]) -> Ended:
    """A whole process."""
    engine = Engine(watching(process.doors, watch), process.host.state_directory)
    try:
        result = do(engine, verb, arguments, lambda: process.terminating)
        return Ended("done", result, None, tuple(watch.names), watch.reached)
    except DiskwrightError as error:
        failure = Failure(error.code, str(error))
        return Ended("failed", None, failure, tuple(watch.names), watch.reached)
    except Crashed:
        return Ended("killed", reached=watch.reached)
    finally:
        if not process.dead:
            engine.close()
        process.end()


class _Starting:
    """The process door of an operation whose runner is watched."""

    def __init__(self, process: SimProcess, watch: Watch) -> None:
        self._process = process
        self._inner = process.doors.processes
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def spawn(self, module: str, arguments: list[str], leases: list[Lease], log: str) -> ProcessIdentity:
        identity = self._inner.spawn(module, arguments, leases, log)
        child = self._process.host.find(identity)
        if module == RUNNER and child is not None:
            self._watch.on_reached(_killer(child, self._watch))
            child.behind(lambda doors: watching(doors, self._watch))
        return identity


def _killer(process: SimProcess, watch: Watch) -> Callable[[Reached], None]:
    def act(reached: Reached) -> None:
        watch.dead = True
        process.kill()

    return act


def _stopper(process: SimProcess) -> Callable[[Reached], None]:
    def act(reached: Reached) -> None:
        process.terminating = True

    return act


def _all(options: int, label: str, rarity: int) -> int:
    """The choice that loses most: of a file's content index 1 is "all of it"."""
    return 1 if label.startswith("data of inode") else options - 1


class _Frozen:
    """A process in a thread of its own, which runs only while the scenario waits for it."""

    def __init__(self, process: SimProcess, watch: Watch, live: Callable[[], Ended]) -> None:
        self._process = process
        self._mine = threading.Semaphore(0)
        self._theirs = threading.Semaphore(0)
        self._ended: Ended | None = None
        self._error: BaseException | None = None
        self._live = live
        self._watch = watch
        watch.on_reached(self._freeze)
        self._thread = threading.Thread(target=self._main, name="scenario-frozen", daemon=True)
        self._started = False

    def go_on(self) -> Ended:
        """Let it run until it is frozen or has ended."""
        self._process.frozen_until = None
        if self._started:
            self._theirs.release()
        else:
            self._started = True
            self._thread.start()
        self._mine.acquire()
        if self._ended is not None or self._error is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        return self._ended or Ended("frozen", reached=self._watch.reached)

    def _freeze(self, reached: Reached) -> None:
        self._process.frozen_until = float("inf")
        self._mine.release()
        self._theirs.acquire()
        if self._process.dead:
            raise Crashed

    def _main(self) -> None:
        try:
            self._ended = self._live()
        except BaseException as error:  # noqa: BLE001 - it must reach the scenario, not the end of this thread
            self._error = error
        self._mine.release()


class _Faulty:
    """Stands before the doors of a process and makes chosen calls fail."""

    def __init__(self, faults: tuple[ActiveFault, ...]) -> None:
        self._faults = faults
        self._met = [0] * len(faults)

    def __call__(self, process: SimProcess, call: str, what: str) -> Fault:
        for number, fault in enumerate(self._faults):
            if not fnmatchcase(call, fault.call) or not possible(fault.error, call):
                continue
            if fault.fragments and not any(fragment in f"{what}\n" for fragment in fault.fragments):
                continue
            self._met[number] += 1
            met = self._met[number]
            if met >= fault.nth and (not fault.times or met < fault.nth + fault.times):
                return fail_call(fault.error, what)
        return Fault.NONE
