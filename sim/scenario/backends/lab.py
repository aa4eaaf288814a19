"""Scenarios on hosts of the lab: other kernels, file systems and volume groups, and machines that really die.

Each deed is a process in its host's guest, interrupted there as ``on_local`` does it here. What the player looks
at (an engine, files) is used from here and lives in the guest too.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, cast

from engine.api import Engine
from engine.doors.files import Files
from engine.errors import DiskwrightError, Refused, StorageError
from engine.formats.nfs import place
from sim.lab.channel import Running
from sim.lab.errors import GuestDied
from sim.lab.guest import Guest
from sim.lab.nfs import NfsServer
from sim.lab.remote import RemotePython
from sim.scenario.backends import lab_hosts, worker
from sim.scenario.backends.backend import ActiveFault, Ended, Failure
from sim.scenario.backends.lab_hosts import LOCAL, TOP
from sim.scenario.backends.local import SANLOCK_TIMEOUT_S, local_doors
from sim.scenario.backends.watch import Reached
from sim.scenario.language.model import Interruption, RepositoryPlan, Scenario
from sim.scenario.language.schema import SHARING_HOSTS

_DEED_TIMEOUT_S = 300.0
_PATIENCE_S = 60.0
_LOOK_AGAIN_S = 0.05
_RENEWAL_FAILS_S = 10.0 * SANLOCK_TIMEOUT_S
_PRELOAD = ["engine.api", "engine.assembly", "sim.scenario.backends.worker", "sim.scenario.backends.lab"]
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


def work(words: list[str]) -> int:
    """In a guest: the process of one deed."""
    worker.main(*words)
    return 0


def make_engine(host: str, seed: int) -> Engine:
    """In a guest: an engine of the host of that name."""
    return Engine(local_doors(host, TOP, seed), f"{TOP}/state/{host}")


class Worker(NamedTuple):
    """The process of a deed, in a guest."""

    host: str
    running: Running
    note: str
    """A file of this machine."""
    busy: set[tuple[str, str]] | None
    """Leases that others held when it began; None: ``end`` does not wait for those of this one."""


class LabBackend:
    """A cluster for one scenario."""

    name = "lab"

    def __init__(self, scenario: Scenario, seed: int = 0) -> None:
        self._seed = seed
        self._cluster = lab_hosts.cluster_for(scenario)
        self._hosts = scenario.hosts
        self._guests = dict(zip(scenario.hosts, self._cluster.hosts, strict=False))
        self._plans = {plan.name: plan for plan in scenario.repositories}
        self._groups = lab_hosts.groups(scenario)
        self._shared = lab_hosts.is_shared(scenario)
        self._frozen_at: dict[str, float] = {}
        self._pythons: dict[str, RemotePython] = {}
        self._jobs: dict[str, Worker] = {}
        self._open: dict[str, Running] = {}
        self._count = 0
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

    # -- places

    def parameters(self, repository: str) -> dict[str, Any]:
        """Local files are on the first host alone; an export and a volume group can be reached by all."""
        plan = self._plans[repository]
        if plan.format.startswith("localfs"):
            return {"path": self.root(repository)}
        if plan.format.startswith("lvm"):
            return {"volume_group": self._groups[repository]}
        return {"server": plan.server or self._server(plan).guest.address, "export": "/", "directory": plan.directory}

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
        """Those of the first host."""
        return cast(Files, self._python(self._hosts[0]).call("sim.scenario.backends.local:PlainFiles"))

    def _python(self, host: str) -> RemotePython:
        if host not in self._pythons:
            self._pythons[host] = RemotePython(self._guests[host], _PRELOAD)
        return self._pythons[host]

    @contextlib.contextmanager
    def engine(self, host: str) -> Iterator[Engine]:
        engine = cast(Engine, self._python(host).call("sim.scenario.backends.lab:make_engine", host, self._seed))
        try:
            yield engine
        finally:
            with contextlib.suppress(GuestDied):
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
        started = self.begin(host, verb, arguments, interruption)
        if interruption is not None and interruption.how == "freeze" and started.running.wait_stopped(_DEED_TIMEOUT_S):
            self._jobs[interruption.job] = started
            return Ended("frozen", reached=_reached(started.note))
        return self.end(started)

    def begin(
        self,
        host: str,
        verb: str,
        arguments: dict[str, Any],
        interruption: Interruption | None,
        *,
        look: bool = True,
    ) -> Worker:
        """Start a deed; ``end`` waits for it. ``look``: first, who else has leases, since ``end`` waits for all that
        an interrupted deed had."""
        self._count += 1
        guest = self._guests[host]
        name = f"work/{self._count}"
        spec = {
            "host": host,
            "top": TOP,
            "seed": self._seed,
            "state": f"{TOP}/state/{host}",
            "verb": verb,
            "arguments": arguments,
            "how": interruption.how if interruption else "",
            "point": interruption.point._asdict() if interruption else None,
            "note": f"{TOP}/{name}.note",
        }
        with open(f"{guest.keep}/story/{name}.spec", "w", encoding="utf-8") as stream:
            json.dump(spec, stream)
        busy = self._held(host) if interruption and look else None
        running = guest.begin_call("sim.scenario.backends.lab:work", [f"{TOP}/{name}.spec"], preload=_PRELOAD)
        return Worker(host, running, f"{guest.keep}/story/{name}.note", busy)

    def end(self, started: Worker) -> Ended:
        """Wait until a deed has ended, in whatever way."""
        try:
            done = started.running.wait(_DEED_TIMEOUT_S)
        except GuestDied:
            return Ended("killed", reached=_reached(started.note))
        reached = _reached(started.note)
        if done.code in (-signal.SIGKILL, 128 + signal.SIGKILL):
            self._leases_gone(started)
            return Ended("killed", reached=reached)
        try:
            answer = json.loads(done.stdout)
            failure = Failure(*answer["failure"]) if answer["failure"] else None
        except (ValueError, KeyError, TypeError):
            said = (done.stdout + done.stderr)[-600:]
            raise StorageError(f"the process of the step failed ({done.code}): {said}") from None
        if reached is not None:
            self._leases_gone(started)
        how = "killed" if answer["runner"] == "killed" else "failed" if failure else "done"
        return Ended(how, answer["result"], failure, tuple(answer["effects"]), reached)

    def thaw(self, job: str) -> Ended:
        started = self._jobs.pop(job)
        self.wake(started)
        return self.end(started)

    def wake(self, started: Worker) -> None:
        """A process that was stopped goes on, if its host lives."""
        with contextlib.suppress(GuestDied):
            started.running.signal(signal.SIGCONT)

    def _held(self, host: str) -> set[tuple[str, str]]:
        """(repository, tag) of all leases that anybody has."""
        found = set()
        with self.engine(host) as engine:
            for repo_id in engine.list_repositories():
                with contextlib.suppress(DiskwrightError):
                    repository = engine.context.repository(repo_id)
                    found |= {(repo_id, tag) for tag in repository.scan_tags() if repository.lease_held(tag)}
        return found

    def _leases_gone(self, started: Worker) -> None:
        """Programs that a dead process had started carry its leases on for some milliseconds more."""
        if started.busy is None or self._guests[started.host].cable_cut:
            return
        deadline = time.monotonic() + _PATIENCE_S
        while left := self._held(started.host) - started.busy:
            if time.monotonic() > deadline:
                raise StorageError(f"leases of a process that has ended are still held: {sorted(left)}")
            time.sleep(_LOOK_AGAIN_S)

    # -- the world

    def kill_host(self, host: str) -> None:
        """The machine dies and comes back."""
        self.switch_off(host)
        self.switch_on(host)

    def switch_off(self, host: str) -> None:
        """The machine dies."""
        self._pythons.pop(host, None)
        self._open.clear()
        self._guests[host].kill()

    def switch_on(self, host: str) -> None:
        """A dead machine boots."""
        guest = self._guests[host]
        if guest.cable_cut:
            guest.mend()
        lab_hosts.revive(self._cluster, guest, self._shared)

    def freeze_host(self, host: str) -> None:
        """The machine stands still."""
        self._pythons.pop(host, None)
        self._guests[host].freeze()
        self._frozen_at[host] = time.monotonic()

    def thaw_host(self, host: str) -> None:
        """It goes on. Returns when its sanlock has killed what it must: without a watchdog that takes a moment, in
        which it might write."""
        self._guests[host].thaw()
        if not self._shared or time.monotonic() - self._frozen_at.pop(host) < _RENEWAL_FAILS_S:
            return
        deadline = time.monotonic() + _PATIENCE_S
        while any(job.host == host and not job.running.ended for job in self._jobs.values()):
            if time.monotonic() > deadline:
                return  # it has no lease there
            time.sleep(_LOOK_AGAIN_S)

    def guest(self, host: str) -> Guest:
        """The machine of a host."""
        return self._guests[host]

    def power_cut(self, lose: str, profile: str, seed: int) -> tuple[str, ...]:
        """Every host dies and comes back: what its kernel had not written yet is lost, whatever ``lose`` says."""
        for host in self._hosts:
            self.kill_host(host)
        return ("what was only in the memory of the hosts",)

    def isolate(self, host: str) -> None:
        """Its cable is pulled."""
        self._guests[host].cut()

    def rejoin(self, host: str) -> None:
        """It is plugged in again."""
        self._guests[host].mend()

    def server(self, repository: str, does: str) -> None:
        """What happens to the server of an NFS repository."""
        nfs = self._server(self._plans[repository])
        actions = (nfs.stop, nfs.start, nfs.restart, nfs.withdraw, nfs.offer, nfs.guest.freeze, nfs.guest.thaw)
        dict(zip(_SERVER_DOES, actions, strict=True))[does]()

    def open_volume(self, host: str, repository: str, image: str) -> None:
        """Some program opens the data of an image and keeps it open."""
        with self.engine(host) as engine:
            repo = engine.context.repository(repository)
            entry = repo.read_tag(image)
            if entry is None or entry.record is None or entry.record.volume is None:
                raise Refused(f"image {image} has no data to be opened")
            path = repo.layer(entry.record.volume).path
            running = self._guests[host].begin(["python3", "-c", _HOLD_OPEN, path])
            while b"open" not in running.output:
                if running.ended:
                    running.checked()
                time.sleep(_LOOK_AGAIN_S)
        self._open[image] = running

    def close_volume(self, image: str) -> None:
        """That program ends."""
        running = self._open.pop(image, None)
        if running is not None:
            running.signal(signal.SIGKILL)
            running.wait()

    def space_left(self, room: int | None) -> None:
        """The file system of local files has so much room left."""
        guest = self._guests[self._hosts[0]]
        guest.run(["rm", "-f", f"{LOCAL}/ballast"])
        if room is not None:
            guest.python(_FILL, LOCAL, str(room))

    def jump_clock(self, host: str, seconds: float) -> None:
        self._guests[host].python(_JUMP, str(seconds))

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        """The hosts die; the next scenario finds them so and boots them."""
        for guest in self._guests.values():
            guest.kill()
        if self._cluster.nfs and self._cluster.nfs.guest.state == "frozen":
            self._cluster.nfs.guest.thaw()


def _reached(note: str) -> Reached | None:
    try:
        with open(note, encoding="utf-8") as stream:
            return Reached(*json.load(stream))
    except (OSError, ValueError, TypeError):
        return None
