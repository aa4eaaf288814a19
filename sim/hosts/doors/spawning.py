"""The process door of a simulated process: starts, finds, stops and kills others of its host.

``spawn`` starts ``engine.host.runner`` (the same code, called as a function with doors of this host; its
output goes to the log), ``engine.host.holder`` (a process that only has leases; until a note names it, it ends with
the one that started it) and ``engine.host.live.watchdog`` (which begins to run when its runner is dead: that
it kills that one when it stands still is not modelled). Process groups, sessions, limits and the exit code of a child
are not modelled.
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from engine.doors.leases import Lease
from engine.doors.processes import ProcessIdentity, ProcessState
from engine.doors.shared_leases import TOKEN_PREFIX
from engine.errors import DiskwrightError
from engine.host import machines, runner
from engine.host.live import switches, watchdog
from sim.disk.nodes import DataOp, fail
from sim.disk.storage import SimStorage
from sim.hosts.lock_table import Description
from sim.hosts.processes import HOLDER, SimProcess

_T = TypeVar("_T")
_R = TypeVar("_R")


class SimProcesses:
    """The process door of one process."""

    def __init__(self, process: SimProcess) -> None:
        self._process = process
        self._host = process.host

    def own(self) -> ProcessIdentity:
        return self._process.identity

    def spawn(self, module: str, arguments: list[str], leases: list[Lease], log: str) -> ProcessIdentity:
        self._process.enter("processes.spawn", module)
        storage = self._process.files.storage_of(log)
        append(storage, log, b"")
        programs: dict[str, Callable[[SimProcess], Any] | None] = {
            "engine.host.runner": lambda child: run_engine_runner(child, arguments[0], log),
            HOLDER: None,
            switches.WATCHDOG: None,
        }
        if module not in programs:
            raise fail(errno.ENOENT, module)
        program = programs[module]
        child = self._host.process(module)
        for lease in leases:
            if lease.token.startswith(TOKEN_PREFIX):
                number = int(lease.token.removeprefix(TOKEN_PREFIX))
                self._host.world.shared.share(number, self._process, child)
                if module == HOLDER:
                    self._host.world.shared.adopt(number, child)
            else:
                self._host.world.locks.share(self._lock(lease), child)
        if module == HOLDER:
            self._host.unnamed[child.identity.pid] = storage, arguments[1]
            self._process.at_death(lambda: self._host.end_unnamed(child))
        if module == switches.WATCHDOG:
            self._watch_over(ProcessIdentity(arguments[-3], *map(int, arguments[-2:])), child, arguments)
        if program is not None:
            child.main = lambda: program(child)
            self._host.world.executor.launch(child)
        return child.identity

    def _watch_over(self, runner: ProcessIdentity, child: SimProcess, arguments: list[str]) -> None:
        found = self._host.find(runner)
        if found is None:
            self._wake(child, arguments)
        else:
            found.at_death(lambda: self._wake(child, arguments))

    def _wake(self, child: SimProcess, arguments: list[str]) -> None:
        if not child.dead:
            child.main = lambda: watch(child, arguments)
            self._host.world.executor.launch(child)

    def _lock(self, lease: Lease) -> Description:
        lock = self._host.world.locks.get(int(lease.token), self._process)
        assert lock is not None, "a lease that is not held is handed over"
        return lock

    def state(self, identity: ProcessIdentity) -> ProcessState:
        self._process.enter("processes.state", str(identity.pid))
        found = self._host.find(identity)
        if found is None:
            return ProcessState.GONE
        return ProcessState.STOPPED if found.frozen else ProcessState.RUNNING

    def terminate(self, identity: ProcessIdentity) -> None:
        self._process.enter("processes.terminate", str(identity.pid))
        found = self._host.find(identity)
        if found is not None:
            found.terminating, found.frozen_until = True, None
            if found.main is None:
                found.end()

    def kill(self, identity: ProcessIdentity) -> None:
        self._process.enter("processes.kill", str(identity.pid))
        found = self._host.find(identity)
        if found is not None:
            found.end(killed=True)

    def at_once(self, work: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
        """One after the other: what is waited for takes no time of its own here."""
        return [work(item) for item in items]


def run_engine_runner(process: SimProcess, spec: str, log: str) -> int:
    """What ``python -m engine.host.runner SPEC`` does, with simulated doors."""
    storage = process.files.storage_of(log)

    def narrate(event: dict[str, Any]) -> None:
        if not process.dead:
            append(storage, log, json.dumps(event).encode() + b"\n")

    try:
        return runner.run(process.doors, runner.read_spec(process.doors, spec), narrate, lambda: process.terminating)
    except DiskwrightError as error:
        narrate({"event": "failed", "error": str(error), "code": error.code})
        return error.exit_code


def watch(process: SimProcess, arguments: list[str]) -> None:
    """What the watchdog does when the one that started it is gone."""
    with contextlib.suppress(DiskwrightError):
        if arguments[0] == machines.GUEST:
            watchdog.thaw(process.doors, arguments[1:])
        else:
            watchdog.settle(process.doors, arguments)


def append(storage: SimStorage, path: str, data: bytes) -> None:
    """Add to a file as an inherited descriptor does: made if need be, past every gate."""
    try:
        inode, node = storage.file(path, True)
    except FileNotFoundError:
        inode = storage.create(path)
        _, node = storage.file(path, True)
    if data:
        storage.change(inode, DataOp(0, "write", node.content.size, len(data), data), path)
