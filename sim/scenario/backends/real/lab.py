"""Scenarios on hosts of the lab: other kernels, file systems and volume groups, and machines that really die.

Each operation is a process in its host's guest, interrupted there as on this machine. What the player looks at (an
engine, files) is used from here and lives in the guest too.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from engine.api import Engine
from engine.doors.files import Files
from engine.formats.nfs import place
from sim.lab.channel import Running
from sim.lab.errors import GuestDied
from sim.lab.guest import Guest
from sim.lab.nfs import NfsServer
from sim.lab.remote import RemotePython
from sim.scenario.backends.backend import Machines, Network
from sim.scenario.backends.operations import volume_path
from sim.scenario.backends.real import clusters, worker
from sim.scenario.backends.real.base import Exit, RealBackend
from sim.scenario.backends.real.clusters import LOCAL, TOP
from sim.scenario.backends.real.doors import SANLOCK_TIMEOUT_S, PlainFiles
from sim.scenario.backends.real.groups import LabGroupTools
from sim.scenario.language.model import RepositoryPlan, Scenario
from sim.scenario.language.schema import SHARING_HOSTS

_OPERATION_TIMEOUT_S = 300.0
_PATIENCE_S = 60.0
_RENEWAL_FAILS_S = 10.0 * SANLOCK_TIMEOUT_S
_PRELOAD = ["engine.api", "engine.assembly", worker.MODULE]
_SERVER_DOES = ("stop", "start", "restart", "unexport", "export", "hang", "go-on")
_FILL = """
import os, sys
path, room = sys.argv[1], int(sys.argv[2])
found = os.statvfs(path)
free = found.f_bavail * found.f_frsize
with open(path + "/ballast", "ab") as stream:
    os.posix_fallocate(stream.fileno(), 0, os.fstat(stream.fileno()).st_size + max(1, free - room))
"""
_JUMP = "import sys, time; time.clock_settime(time.CLOCK_REALTIME, time.time() + float(sys.argv[1]))"
_HOLD_OPEN = "import sys, time; keep = open(sys.argv[1], 'rb'); print('open', flush=True); time.sleep(1e6)"


class LabProcess:
    """A process in a guest."""

    def __init__(self, running: Running) -> None:
        self._running = running

    @property
    def ended(self) -> bool:
        return self._running.ended

    def wait_stopped(self) -> bool:
        return self._running.wait_stopped(_OPERATION_TIMEOUT_S)

    def wait(self) -> tuple[Exit, str]:
        try:
            done = self._running.wait(_OPERATION_TIMEOUT_S)
        except GuestDied:
            return Exit.WITH_ITS_HOST, ""
        if done.code in (-signal.SIGKILL, 128 + signal.SIGKILL):
            return Exit.KILLED, done.stdout
        return Exit.BY_ITSELF, done.stdout + (done.stderr if done.code else "")

    def go_on(self) -> None:
        with contextlib.suppress(GuestDied):
            self._running.signal(signal.SIGCONT)


class LabBackend(RealBackend[LabProcess]):
    """A cluster for one scenario."""

    name = "lab"
    virtual = None
    lasting = None
    look_again_s = 0.05

    def __init__(self, scenario: Scenario, seed: int = 0) -> None:
        super().__init__(seed)
        self._cluster = clusters.cluster_for(scenario)
        self._hosts = scenario.hosts
        self._guests = dict(zip(scenario.hosts, self._cluster.hosts, strict=False))
        self._plans = {plan.name: plan for plan in scenario.repositories}
        self._groups_of = clusters.groups(scenario)
        self._shared = clusters.is_shared(scenario)
        self._frozen_at: dict[str, float] = {}
        self._pythons: dict[str, RemotePython] = {}
        self._open: dict[str, Running] = {}
        self.groups = LabGroupTools(self._python, self.guest)
        try:
            self._make_repositories()
        except BaseException:
            self.close()
            raise

    def _make_repositories(self) -> None:
        with self.engine(self._hosts[0]) as engine:
            for plan in self._plans.values():
                shared = {"shared": True, "hosts": SHARING_HOSTS} if plan.shared else {}
                engine.create_repository(plan.format, {**self.parameters(plan.name), **shared})
        with ThreadPoolExecutor(len(self._hosts)) as pool:  # sanlock takes 20 s for each
            for _ in pool.map(self._connect_all, self._hosts):
                pass

    def _connect_all(self, host: str) -> None:
        with self.engine(host) as engine:
            for plan in self._plans.values():
                if host == self._hosts[0] or not plan.format.startswith("localfs"):
                    engine.connect_storage_repository(plan.name, plan.format, self.parameters(plan.name))

    @property
    def machines(self) -> Machines:
        return self

    @property
    def network(self) -> Network:
        return self

    # -- places

    @property
    def top(self) -> str:
        return TOP

    def outside(self, host: str, path: str) -> str:
        return f"{self._guests[host].keep}/{clusters.FOLDER}/{path}"

    def parameters(self, repository: str) -> dict[str, Any]:
        # Local files are on the first host alone; an export and a volume group can be reached by all.
        plan = self._plans[repository]
        if plan.format.startswith("localfs"):
            return {"path": self.root(repository)}
        if plan.format.startswith("lvm"):
            return {"volume_group": self.group(repository)}
        return {"server": plan.server or self._server(plan).guest.address, "export": "/", "directory": plan.directory}

    def group(self, repository: str) -> str:
        return self._groups_of.get(repository, "")

    def root(self, repository: str) -> str:
        plan = self._plans[repository]
        if plan.format.startswith("localfs"):
            return f"{LOCAL}/srv/{plan.directory}"
        return place.parse(self.parameters(repository)).root(self._hosts[0])

    def scratch(self, name: str) -> str:
        return f"{LOCAL}/scratch/{name}"

    def _server(self, plan: RepositoryPlan) -> NfsServer:
        assert self._cluster.nfs is not None, f"{plan.name} is on NFS, so there is a server"
        return self._cluster.nfs

    @property
    def files(self) -> Files:
        """Return the files of the first host."""
        made = f"{PlainFiles.__module__}:{PlainFiles.__name__}"
        return cast(Files, self._python(self._hosts[0]).call(made, self.top))

    def _python(self, host: str) -> RemotePython:
        if host not in self._pythons:
            self._pythons[host] = RemotePython(self._guests[host], _PRELOAD)
        return self._pythons[host]

    @contextlib.contextmanager
    def engine(self, host: str) -> Iterator[Engine]:
        engine = cast(Engine, self._python(host).call(f"{worker.MODULE}:make_engine", host, TOP, self._seed))
        try:
            yield engine
        finally:
            with contextlib.suppress(GuestDied):
                engine.close()

    def start(self, host: str, spec: str) -> LabProcess:
        words = [f"{TOP}/{spec}"]
        return LabProcess(self._guests[host].begin_call(f"{worker.MODULE}:work_in_guest", words, preload=_PRELOAD))

    def reachable(self, host: str) -> bool:
        return not self._guests[host].cable_cut

    # -- the world

    def kill_host(self, host: str) -> None:
        """Switch a machine off and on."""
        self.switch_off(host)
        self.switch_on(host)

    def switch_off(self, host: str) -> None:
        """Switch a machine off."""
        self._pythons.pop(host, None)
        self._open.clear()
        self._guests[host].kill()

    def switch_on(self, host: str) -> None:
        """Boot a machine that is off."""
        guest = self._guests[host]
        if guest.cable_cut:
            guest.mend()
        clusters.revive(self._cluster, guest, self._shared)

    def freeze_host(self, host: str) -> None:
        self._pythons.pop(host, None)
        self._guests[host].freeze()
        self._frozen_at[host] = time.monotonic()

    def thaw_host(self, host: str) -> None:
        """Let a machine go on. Return when its sanlock has killed what it must: without a watchdog that takes a
        moment, in which it might write."""
        self._guests[host].thaw()
        if not self._shared or time.monotonic() - self._frozen_at.pop(host) < _RENEWAL_FAILS_S:
            return
        deadline = time.monotonic() + _PATIENCE_S
        while any(job.host == host and not job.process.ended for job in self.frozen.values()):
            if time.monotonic() > deadline:
                return  # it has no lease there
            time.sleep(self.look_again_s)

    def guest(self, host: str) -> Guest:
        """Return the machine of a host."""
        return self._guests[host]

    def power_cut(self, lose: str, profile: str, seed: int) -> tuple[str, ...]:
        """Switch every host off and on: what its kernel had not written yet is lost, whatever ``lose`` says."""
        for host in self._hosts:
            self.kill_host(host)
        return ("what was only in the memory of the hosts",)

    def isolate(self, host: str) -> None:
        self._guests[host].cut()

    def rejoin(self, host: str) -> None:
        self._guests[host].mend()

    def server(self, repository: str, does: str) -> None:
        nfs = self._server(self._plans[repository])
        actions = (nfs.stop, nfs.start, nfs.restart, nfs.withdraw, nfs.offer, nfs.guest.freeze, nfs.guest.thaw)
        dict(zip(_SERVER_DOES, actions, strict=True))[does]()

    def open_volume(self, host: str, repository: str, image: str) -> None:
        with self.engine(host) as engine:
            path = volume_path(engine.context.repository(repository), image)
            running = self._guests[host].begin(["python3", "-c", _HOLD_OPEN, path])
            while b"open" not in running.output:
                if running.ended:
                    running.checked()
                time.sleep(self.look_again_s)
        self._open[image] = running

    def close_volume(self, image: str) -> None:
        running = self._open.pop(image, None)
        if running is not None:
            running.signal(signal.SIGKILL)
            running.wait()

    def space_left(self, room: int | None) -> None:
        """Leave so much room on the file system of local files."""
        guest = self._guests[self._hosts[0]]
        guest.run(["rm", "-f", f"{LOCAL}/ballast"])
        if room is not None:
            guest.python(_FILL, LOCAL, str(room))

    def jump_clock(self, host: str, seconds: float) -> None:
        self._guests[host].python(_JUMP, str(seconds))

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        """Kill the hosts; the next scenario finds them so and boots them."""
        for guest in self._guests.values():
            guest.kill()
        if self._cluster.nfs and self._cluster.nfs.guest.state == "frozen":
            self._cluster.nfs.guest.thaw()
