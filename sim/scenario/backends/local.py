"""Scenarios on this machine: real files, real qemu tools, real locks, and a real SIGKILL.

Everything is in one directory of its own, which is deleted at the end. What is interrupted runs in
a process of its own (``sim.scenario.backends.worker``); the rest in this one, with doors of the host that
does it. Blocks are never shared (reflink), so that effects have the same numbers on every file system.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import sim
from engine.api import Engine
from engine.assembly import real_doors
from engine.doors import Doors
from engine.doors.files import Abilities, FileHandle
from engine.doors.processes import ProcessState
from engine.errors import DiskwrightError, StorageError, ToolMissing
from engine.tools.local.files import RealFiles
from engine.tools.local.leases import OfdLeases
from engine.tools.sanlock.shared_leases import SanlockLeases
from sim.hosts.doors.clock import uuid4
from sim.scenario.backends.backend import ActiveFault, Ended, Failure
from sim.scenario.backends.operations import do, is_by_runner
from sim.scenario.backends.watch import Reached, Watch, watching
from sim.scenario.language.model import Interruption, Scenario

SANLOCK_TIMEOUT_S = 1
_PATIENCE_S = 30.0
_LOOK_AGAIN_S = 0.002


class PlainFiles(RealFiles):
    """The kernel's files, of which none shares blocks."""

    def probe(self, path: str) -> Abilities:
        return super().probe(path)._replace(reflink=False)

    def clone(self, source: FileHandle, target: FileHandle) -> bool:
        return False


class CountedIds:
    """The ids that a simulated host of that name gets: the order of things that are otherwise alike depends on ids.

    How many were given stands in a file, for all processes of the host."""

    def __init__(self, host: str, counter: str, seed: int) -> None:
        self.host_id = host
        self._counter = counter
        self._seed = seed

    def new_id(self) -> str:
        descriptor = os.open(self._counter, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            count = int(os.pread(descriptor, 20, 0) or b"0") + 1
            os.pwrite(descriptor, b"%020d" % count, 0)
        finally:
            os.close(descriptor)
        return uuid4(f"{self._seed}/{self.host_id}/{count}")  # as sim.hosts.doors.clock.IdSource


def local_doors(host: str, top: str, seed: int) -> Doors:
    """The doors of a host of a scenario below the directory ``top``. Where hosts share leases one that died is known
    to be dead as soon as sanlock can be had to tell."""
    doors = real_doors(host)
    return doors._replace(
        files=PlainFiles(),
        ids=CountedIds(host, f"{top}/ids/{host}", seed),
        shared_leases=SanlockLeases(cast(OfdLeases, doors.leases).descriptors, SANLOCK_TIMEOUT_S),
    )


class _Worker(NamedTuple):
    host: str
    process: subprocess.Popen[bytes]
    answer: str
    note: str
    busy: set[tuple[str, str]]
    """Leases that others held when it began."""


class LocalBackend:
    """A directory for one scenario."""

    name = "local"

    def __init__(self, scenario: Scenario, seed: int = 0) -> None:
        for program in ("qemu-img", "qemu-nbd"):
            if shutil.which(program) is None:
                raise ToolMissing(f"{program} is not installed", "Install the package qemu-utils")
        self._top = os.path.realpath(tempfile.mkdtemp(prefix="diskwright-scenario-"))
        self._hosts = scenario.hosts
        self._seed = seed
        self._roots = {plan.name: f"{self._top}/srv/{plan.directory}" for plan in scenario.repositories}
        self._jobs: dict[str, _Worker] = {}
        self._count = 0
        try:
            for folder in ("srv", "scratch", "state", "jobs", "ids"):
                os.mkdir(f"{self._top}/{folder}")
            with self.engine(scenario.hosts[0]) as engine:
                for plan in scenario.repositories:
                    engine.create_repository(plan.format, {"path": self._roots[plan.name]})
            for host in scenario.hosts:
                with self.engine(host) as engine:
                    for plan in scenario.repositories:
                        engine.connect_storage_repository(plan.name, plan.format, {"path": self._roots[plan.name]})
        except BaseException:
            shutil.rmtree(self._top)
            raise

    def root(self, repository: str) -> str:
        return self._roots[repository]

    def parameters(self, repository: str) -> dict[str, Any]:
        return {"path": self.root(repository)}

    def scratch(self, name: str) -> str:
        return f"{self._top}/scratch/{name}"

    @property
    def files(self) -> RealFiles:
        return PlainFiles()

    def _doors(self, host: str) -> Doors:
        return local_doors(host, self._top, self._seed)

    def _state(self, host: str) -> str:
        return f"{self._top}/state/{host}"

    @contextlib.contextmanager
    def engine(self, host: str) -> Iterator[Engine]:
        engine = Engine(self._doors(host), self._state(host))
        try:
            yield engine
        finally:
            engine.close()

    def looking(self, faults: tuple[ActiveFault, ...]) -> None:
        assert not faults, "faults are for the simulator"

    # -- deeds

    def run(
        self,
        host: str,
        verb: str,
        arguments: dict[str, Any],
        interruption: Interruption | None,
        faults: tuple[ActiveFault, ...],
    ) -> Ended:
        assert not faults, "faults are for the simulator"
        if interruption is None and not is_by_runner(arguments):
            return self._here(host, verb, arguments)
        worker = self._start(host, verb, arguments, interruption)
        if interruption is not None and interruption.how == "freeze" and self._stopped(worker):
            self._jobs[interruption.job] = worker
            return Ended("frozen", reached=_reached(worker.note))
        return self._wait(worker)

    def _here(self, host: str, verb: str, arguments: dict[str, Any]) -> Ended:
        watch = Watch()
        engine = Engine(watching(self._doors(host), watch), self._state(host))
        try:
            result = do(engine, verb, arguments, lambda: False)
            return Ended("done", result, None, tuple(watch.names))
        except DiskwrightError as error:
            return Ended("failed", None, Failure(error.code, str(error)), tuple(watch.names))
        finally:
            engine.close()

    def _start(self, host: str, verb: str, arguments: dict[str, Any], interruption: Interruption | None) -> _Worker:
        self._count += 1
        place = f"{self._top}/jobs/{self._count}"
        spec = {
            "host": host,
            "top": self._top,
            "seed": self._seed,
            "state": self._state(host),
            "verb": verb,
            "arguments": arguments,
            "how": interruption.how if interruption else "",
            "point": interruption.point._asdict() if interruption else None,
            "note": f"{place}.note",
        }
        with open(f"{place}.spec", "w", encoding="utf-8") as stream:
            json.dump(spec, stream)
        ours = os.path.dirname(sim.__path__[0])
        path = os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH", "")]))
        busy = self._held(host)
        with open(f"{place}.answer", "wb") as answer:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "sim.scenario.backends.worker", f"{place}.spec"],
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": path},
                cwd="/",
            )
        return _Worker(host, process, f"{place}.answer", f"{place}.note", busy)

    @staticmethod
    def _stopped(worker: _Worker) -> bool:
        """Whether it is stopped now; false: it has ended instead."""
        found = os.waitid(os.P_PID, worker.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return found is not None and found.si_code == os.CLD_STOPPED

    def _wait(self, worker: _Worker) -> Ended:
        code = worker.process.wait()
        if code == -signal.SIGKILL:
            self._leases_gone(worker)
            return Ended("killed", reached=_reached(worker.note))
        with open(worker.answer, encoding="utf-8", errors="replace") as stream:
            said = stream.read()
        try:
            answer = json.loads(said)
            failure = Failure(*answer["failure"]) if answer["failure"] else None
        except (ValueError, KeyError, TypeError):
            raise StorageError(f"the process of the step failed ({code}): {said[-600:]}") from None
        self._leases_gone(worker)
        reached = _reached(worker.note)
        how = "failed" if failure else "done"
        if answer["runner"] == "killed":
            how = "killed"
        return Ended(how, answer["result"], failure, tuple(answer["effects"]), reached)

    def thaw(self, job: str) -> Ended:
        worker = self._jobs.pop(job)
        if worker.process.poll() is None:
            os.kill(worker.process.pid, signal.SIGCONT)
        return self._wait(worker)

    # -- the world

    def kill_host(self, host: str) -> None:
        for worker in self._jobs.values():
            if worker.host == host and worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
        with self.engine(host) as engine:
            processes = engine.doors.processes
            prepared = engine.list_prepared()
            for entry in prepared:
                processes.kill(entry.process)
            for entry in prepared:
                while processes.state(entry.process) is not ProcessState.GONE:
                    engine.doors.clock.sleep(_LOOK_AGAIN_S)
        for worker in self._jobs.values():
            if worker.host == host:
                self._leases_gone(worker)

    def _held(self, host: str) -> set[tuple[str, str]]:
        """(repository, tag) of all leases that anybody has."""
        found = set()
        with self.engine(host) as engine:
            for repo_id in engine.list_repositories():
                with contextlib.suppress(DiskwrightError):
                    repository = engine.context.repository(repo_id)
                    found |= {(repo_id, tag) for tag in repository.scan_tags() if repository.lease_held(tag)}
        return found

    def _leases_gone(self, worker: _Worker) -> None:
        """Programs that a dead process had started carry its leases on for some milliseconds more."""
        clock = self._doors(worker.host).clock
        deadline = clock.monotonic() + _PATIENCE_S
        while left := self._held(worker.host) - worker.busy:
            if clock.monotonic() > deadline:
                raise StorageError(f"leases of a process that has ended are still held: {sorted(left)}")
            clock.sleep(_LOOK_AGAIN_S)

    def power_cut(self, lose: str, profile: str, seed: int) -> tuple[str, ...]:
        raise AssertionError("only the simulator can cut the power")

    def space_left(self, room: int | None) -> None:
        raise AssertionError("only the simulator can fill the storage")

    def jump_clock(self, host: str, seconds: float) -> None:
        raise AssertionError("only the simulator can set a clock")

    def wait(self, seconds: float) -> None:
        raise AssertionError("only the simulator can let time pass")

    def close(self) -> None:
        try:
            for host in self._hosts:
                with contextlib.suppress(DiskwrightError):
                    self.kill_host(host)
            for worker in self._jobs.values():
                worker.process.wait()
        finally:
            shutil.rmtree(self._top)


def _reached(note: str) -> Reached | None:
    try:
        with open(note, encoding="utf-8") as stream:
            return Reached(*json.load(stream))
    except (OSError, ValueError, TypeError):
        return None
