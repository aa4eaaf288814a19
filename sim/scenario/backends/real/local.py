"""Scenarios on this machine: real files, real qemu tools, real locks, and a real SIGKILL.

Everything is in one directory of its own, which is deleted at the end. What is interrupted runs in
a process of its own (``sim.scenario.backends.real.worker``); the rest in this one, with doors of the host that
does it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import sim
from engine.api import Engine
from engine.doors import Doors
from engine.doors.processes import ProcessState
from engine.errors import DiskwrightError, ToolMissing
from engine.tools.local.files import RealFiles
from sim.scenario.backends.backend import ActiveFault, Ended, Failure, Lasting, VirtualMachine, VirtualMachines
from sim.scenario.backends.lasting import LastingEngine
from sim.scenario.backends.operations import do, is_by_runner
from sim.scenario.backends.real import worker
from sim.scenario.backends.real.base import Exit, RealBackend
from sim.scenario.backends.real.doors import PlainFiles, real_doors_of
from sim.scenario.backends.real.machines import QemuIo, StorageDaemon
from sim.scenario.backends.watch import Watch, watching
from sim.scenario.language.model import Interruption, Scenario


class LocalProcess:
    """A process of this machine."""

    def __init__(self, popen: subprocess.Popen[bytes], answer: str) -> None:
        """``answer``: the file that it writes to."""
        self._popen = popen
        self._answer = answer

    @property
    def ended(self) -> bool:
        """Whether it is gone."""
        return self._popen.poll() is not None

    def wait_stopped(self) -> bool:
        found = os.waitid(os.P_PID, self._popen.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        return found is not None and found.si_code == os.CLD_STOPPED

    def wait(self) -> tuple[Exit, str]:
        code = self._popen.wait()
        with open(self._answer, encoding="utf-8", errors="replace") as stream:
            return Exit.KILLED if code == -signal.SIGKILL else Exit.BY_ITSELF, stream.read()

    def go_on(self) -> None:
        if not self.ended:
            os.kill(self._popen.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        if not self.ended:
            self._popen.kill()
            self._popen.wait()


def _programs_of(scenario: Scenario) -> dict[str, str]:
    """What a scenario needs, and the packages that have it."""
    programs = dict.fromkeys(("qemu-img", "qemu-nbd", "qemu-io"), "qemu-utils")
    if any(step.verb == "start_machine" and step.values.get("monitor") for step in scenario.steps):
        programs["qemu-storage-daemon"] = "qemu-system-common"
    return programs


class LocalBackend(RealBackend[LocalProcess]):
    """A directory for one scenario."""

    name = "local"
    machines = None
    network = None
    look_again_s = 0.002

    def __init__(self, scenario: Scenario, seed: int = 0) -> None:
        super().__init__(seed)
        for program, package in _programs_of(scenario).items():
            if shutil.which(program) is None:
                raise ToolMissing(f"{program} is not installed", f"Install the package {package}")
        self._top = os.path.realpath(tempfile.mkdtemp(prefix="diskwright-scenario-"))
        self._hosts = scenario.hosts
        self._machines: dict[str, list[QemuIo | StorageDaemon]] = {host: [] for host in scenario.hosts}
        self._lasting: dict[tuple[str, str], LastingEngine] = {}
        self._roots = {plan.name: f"{self._top}/srv/{plan.directory}" for plan in scenario.repositories}
        try:
            for folder in ("srv", "scratch", "state", "work", "ids"):
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

    @property
    def top(self) -> str:
        return self._top

    def outside(self, host: str, path: str) -> str:
        return f"{self._top}/{path}"

    def root(self, repository: str) -> str:
        return self._roots[repository]

    def parameters(self, repository: str) -> dict[str, Any]:
        return {"path": self.root(repository)}

    def scratch(self, name: str) -> str:
        return f"{self._top}/scratch/{name}"

    @property
    def virtual(self) -> VirtualMachines:
        return self

    groups = None

    def group(self, repository: str) -> str:
        return ""

    @property
    def lasting(self) -> Lasting:
        return self

    @property
    def files(self) -> RealFiles:
        return PlainFiles(self._top)

    def _doors(self, host: str) -> Doors:
        return real_doors_of(host, self._top, self._seed)

    @contextlib.contextmanager
    def engine(self, host: str) -> Iterator[Engine]:
        engine = Engine(self._doors(host), self.state(host))
        try:
            yield engine
        finally:
            engine.close()

    # -- operations

    def run(
        self,
        host: str,
        verb: str,
        arguments: dict[str, Any],
        interruption: Interruption | None,
        faults: tuple[ActiveFault, ...],
    ) -> Ended:
        if interruption is None and not is_by_runner(arguments):
            assert not faults, "faults are for the simulator"
            return self._here(host, verb, arguments)
        return super().run(host, verb, arguments, interruption, faults)

    def _here(self, host: str, verb: str, arguments: dict[str, Any]) -> Ended:
        watch = Watch()
        engine = Engine(watching(self._doors(host), watch), self.state(host))
        try:
            result = do(engine, verb, arguments, lambda: False)
            return Ended("done", result, None, tuple(watch.names))
        except DiskwrightError as error:
            return Ended("failed", None, Failure(error.code, str(error)), tuple(watch.names))
        finally:
            engine.close()

    def go_on(
        self, host: str, process: str, verb: str, arguments: dict[str, Any], faults: tuple[ActiveFault, ...]
    ) -> Ended:
        assert not faults, "faults are for the simulator"
        engine = self._lasting.get((host, process))
        if engine is None:
            engine = self._lasting[host, process] = LastingEngine(self._doors(host), self.state(host))
        return engine.do(verb, arguments)

    def start(self, host: str, spec: str) -> LocalProcess:
        ours = os.path.dirname(sim.__path__[0])
        path = os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH", "")]))
        answer = f"{self._top}/{spec}.answer"
        with open(answer, "wb") as stream:
            popen = subprocess.Popen(
                [sys.executable, "-P", "-m", worker.MODULE, f"{self._top}/{spec}"],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": path},
                cwd="/",
            )
        return LocalProcess(popen, answer)

    # -- hosts

    def start_machine(self, host: str, path: str, format: str, cache: str, monitor: bool) -> VirtualMachine:
        machine = (StorageDaemon if monitor else QemuIo)(path, format, cache)
        self._machines[host].append(machine)
        return machine

    def kill_host(self, host: str) -> None:
        for machine in self._machines[host]:
            machine.kill()
        for key in [key for key in self._lasting if key[0] == host]:
            self._lasting.pop(key).close()
        workers = [one for one in self.frozen.values() if one.host == host]
        for one in workers:
            one.process.kill()
        with self.engine(host) as engine:
            processes = engine.doors.processes
            prepared = engine.list_prepared()
            for entry in prepared:
                processes.kill(entry.process)
            for entry in prepared:
                while processes.state(entry.process) is not ProcessState.GONE:
                    engine.doors.clock.sleep(self.look_again_s)
        for one in workers:
            self.wait_for_leases(one)

    def close(self) -> None:
        try:
            for host in self._hosts:
                with contextlib.suppress(DiskwrightError):
                    self.kill_host(host)
        finally:
            shutil.rmtree(self._top)
