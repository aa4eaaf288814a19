"""A process that goes on from step to step: its engine keeps what it knows of the storage, and what it has open."""

from __future__ import annotations

from typing import Any

from engine.api import Engine
from engine.doors import Doors
from engine.errors import DiskwrightError
from sim.hosts.crash import Crashed
from sim.scenario.backends.backend import Ended, Failure
from sim.scenario.backends.operations import do
from sim.scenario.backends.watch import Watch, watching


class LastingEngine:
    """The engine of such a process."""

    def __init__(self, doors: Doors, state: str) -> None:
        self._watch = Watch()
        self._engine = Engine(watching(doors, self._watch), state)

    def do(self, verb: str, arguments: dict[str, Any]) -> Ended:
        """Do one operation more."""
        before = len(self._watch.names)
        result, failure = None, None
        try:
            result = do(self._engine, verb, arguments, lambda: False)
        except DiskwrightError as error:
            failure = Failure(error.code, str(error))
        except Crashed:
            return Ended("killed")
        return Ended("failed" if failure else "done", result, failure, tuple(self._watch.names[before:]))

    def close(self) -> None:
        """End it; its process ends with it."""
        self._engine.close()
