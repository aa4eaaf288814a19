"""What backends of real kernels have in common: starting the process of an operation, waiting for it, telling how it
ended.

Where the process runs, and how it is signalled, is for ``local`` and ``lab`` to say.
"""

from __future__ import annotations

import contextlib
import json
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from enum import Enum
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from engine.api import Engine
from engine.errors import DiskwrightError, StorageError
from engine.tags import chains, changes
from sim.scenario.backends.backend import ActiveFault, Ended, Failure
from sim.scenario.backends.operations import is_by_runner
from sim.scenario.backends.watch import Reached
from sim.scenario.language.model import Interruption

_PATIENCE_S = 60.0
_SAID_CHARACTERS = 600


class Exit(Enum):
    """How a process came to its end."""

    BY_ITSELF = "by itself"
    KILLED = "killed"
    WITH_ITS_HOST = "with its host"


class Process(Protocol):
    """The process of an operation."""

    @property
    def ended(self) -> bool:
        """Whether it is gone."""

    def wait_stopped(self) -> bool:
        """Wait until it is stopped; False when it has ended instead."""

    def wait(self) -> tuple[Exit, str]:
        """Wait until it has ended; how, and what it has said."""

    def go_on(self) -> None:
        """Continue it where it was stopped; nothing when it has ended."""


P = TypeVar("P", bound=Process)


class Worker(NamedTuple, Generic[P]):
    """An operation under way."""

    host: str
    process: P
    note: str
    """A file of this machine: where the operation was interrupted."""
    busy: set[tuple[str, str]] | None
    """Leases that others held when it began; None: ``RealBackend.end`` does not wait for those of this one."""


class RealBackend(ABC, Generic[P]):
    """A world of real processes. Everything of it lies below one directory of each host, and what an operation is told
    and notes in the folder ``work`` of that."""

    world = None
    look_again_s: float
    """How long to wait between two looks at leases."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.frozen: dict[str, Worker[P]] = {}
        """Operations that were stopped, by the names of their jobs."""
        self._count = 0

    @property
    @abstractmethod
    def top(self) -> str:
        """The directory, as processes of a host see it."""

    @abstractmethod
    def outside(self, host: str, path: str) -> str:
        """Where a path below the directory of a host lies on this machine."""

    @abstractmethod
    def engine(self, host: str) -> AbstractContextManager[Engine]:
        """As ``Backend.engine``."""

    @abstractmethod
    def start(self, host: str, spec: str) -> P:
        """Start ``worker`` on a host with a specification, whose path is below ``top``."""

    def reachable(self, host: str) -> bool:
        """Whether a host can see the storage of others now."""
        return True

    def state(self, host: str) -> str:
        """The directory in which engines of a host keep what they remember."""
        return f"{self.top}/state/{host}"

    def set_faults(self, faults: tuple[ActiveFault, ...]) -> None:
        assert not faults, "faults are for the simulator"

    # -- operations

    def run(
        self,
        host: str,
        verb: str,
        arguments: dict[str, Any],
        interruption: Interruption | None,
        faults: tuple[ActiveFault, ...],
    ) -> Ended:
        assert not faults, "faults are for the simulator"
        worker = self.begin(host, verb, arguments, interruption)
        if interruption is not None and interruption.how == "freeze" and worker.process.wait_stopped():
            self.frozen[interruption.job] = worker
            return Ended("frozen", reached=_reached(worker.note))
        return self.end(worker)

    def begin(
        self,
        host: str,
        verb: str,
        arguments: dict[str, Any],
        interruption: Interruption | None,
        *,
        look: bool = True,
    ) -> Worker[P]:
        """Start an operation; ``end`` waits for it. ``look``: first, who else has leases, since ``end`` waits for all
        that an operation had which may have left programs behind."""
        self._count += 1
        name = f"work/{self._count}"
        spec = {
            "host": host,
            "top": self.top,
            "seed": self._seed,
            "state": self.state(host),
            "verb": verb,
            "arguments": arguments,
            "how": interruption.how if interruption else "",
            "point": interruption.point._asdict() if interruption else None,
            "note": f"{self.top}/{name}.note",
        }
        with open(self.outside(host, f"{name}.spec"), "w", encoding="utf-8") as stream:
            json.dump(spec, stream)
        leaves_some = interruption is not None or is_by_runner(arguments)
        busy = self._held(host) if look and leaves_some else None
        return Worker(host, self.start(host, f"{name}.spec"), self.outside(host, f"{name}.note"), busy)

    def end(self, worker: Worker[P]) -> Ended:
        """Wait until an operation has ended, in whatever way."""
        how, said = worker.process.wait()
        reached = _reached(worker.note)
        if how is Exit.WITH_ITS_HOST:
            return Ended("killed", reached=reached)
        self.wait_for_leases(worker)
        return Ended("killed", reached=reached) if how is Exit.KILLED else _answered(said, reached)

    def thaw(self, job: str) -> Ended:
        worker = self.frozen.pop(job)
        worker.process.go_on()
        return self.end(worker)

    # -- leases

    def _held(self, host: str) -> set[tuple[str, str]]:
        """(repository, tag) of all leases that anybody has, but for the layers below a disk that is prepared: a holder
        gets those of layers that come to be beside its machine."""
        found: set[tuple[str, str]] = set()
        with self.engine(host) as engine:
            for repo_id, connection in engine.list_repositories().items():
                with contextlib.suppress(DiskwrightError):
                    repository = engine.context.repository(repo_id)
                    below: set[str] = set()
                    for entry in engine.list_prepared():
                        if entry.repository == connection.identity:
                            record = changes.read(repository, entry.image).record
                            below |= {link.tag for link in chains.load(repository, record)[1:]}
                    tags = repository.tags.scan().keys() - below
                    found |= {(repo_id, tag) for tag in tags if repository.leases.held(tag)}
        return found

    def wait_for_leases(self, worker: Worker[P]) -> None:
        """Return when nothing of an operation that has ended holds a lease: programs that a dead process had started
        carry its leases on for some milliseconds more. StorageError when they do so for long."""
        if worker.busy is None or not self.reachable(worker.host):
            return
        deadline = time.monotonic() + _PATIENCE_S
        while left := self._held(worker.host) - worker.busy:
            if time.monotonic() > deadline:
                raise StorageError(f"leases of a process that has ended are still held: {sorted(left)}")
            time.sleep(self.look_again_s)


def _answered(said: str, reached: Reached | None) -> Ended:
    """What the process of an operation said at its end."""
    try:
        answer = json.loads(said)
        failure = Failure(*answer["failure"]) if answer["failure"] else None
        how = "killed" if answer["runner"] == "killed" else "failed" if failure else "done"
        return Ended(how, answer["result"], failure, tuple(answer["effects"]), reached)
    except (ValueError, KeyError, TypeError):
        raise StorageError(f"the process of the step failed: {said[-_SAID_CHARACTERS:]}") from None


def _reached(note: str) -> Reached | None:
    try:
        with open(note, encoding="utf-8") as stream:
            return Reached(*json.load(stream))
    except (OSError, ValueError, TypeError):
        return None
