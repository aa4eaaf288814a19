"""What a scenario is played on: hosts whose processes do deeds, and the world round them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from engine.api import Engine
from engine.doors.files import Files
from sim.scenario.backends.watch import Reached
from sim.scenario.language.model import Interruption


class Failure(NamedTuple):
    """An error of the engine."""

    code: str
    message: str


class Ended(NamedTuple):
    """How the process of a deed ended, or that it has not."""

    how: str
    """done, failed, killed, frozen."""
    result: Any = None
    failure: Failure | None = None
    effects: tuple[str, ...] = ()
    """Names of its effects, as far as they are known (not of one that was killed)."""
    reached: Reached | None = None
    """Where the interruption came; None: the point was never reached."""


class ActiveFault(NamedTuple):
    """A fault with paths instead of names."""

    error: str
    call: str
    nth: int
    times: int
    fragments: tuple[str, ...]
    """A call meets it when what it works on contains one of these; none: always."""


class Backend(Protocol):
    """One world, new for each scenario."""

    name: str

    def root(self, repository: str) -> str:
        """Path of a repository."""

    def parameters(self, repository: str) -> dict[str, Any]:
        """What an engine connects it with."""

    def scratch(self, name: str) -> str:
        """Path for an image file outside of all repositories."""

    @property
    def files(self) -> Files:
        """The files of the storage, past the engine."""

    def engine(self, host: str) -> AbstractContextManager[Engine]:
        """An engine in a process of that host, for looking."""

    def run(
        self,
        host: str,
        verb: str,
        arguments: dict[str, Any],
        interruption: Interruption | None,
        faults: tuple[ActiveFault, ...],
    ) -> Ended:
        """Do a deed in a process of that host."""

    def looking(self, faults: tuple[ActiveFault, ...]) -> None:
        """Faults that engines from ``engine`` meet from now on; none: no more."""

    def thaw(self, job: str) -> Ended:
        """Let a frozen process go on to its end; ``killed`` when its host has died meanwhile."""

    def kill_host(self, host: str) -> None:
        """Every process of the host dies."""

    def power_cut(self, lose: str, profile: str, seed: int) -> tuple[str, ...]:
        """Everything dies; what was lost."""

    def space_left(self, room: int | None) -> None:
        """The storage has so many bytes left, None: plenty."""

    def jump_clock(self, host: str, seconds: float) -> None:
        """The wall clock of a host is set."""

    def wait(self, seconds: float) -> None:
        """Time passes."""

    def close(self) -> None:
        """Leave nothing behind."""
