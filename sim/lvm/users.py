"""Who uses simulated logical volumes: what the door needs to know of a process, and of the machine that it runs on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from engine.doors.processes import ProcessIdentity
from sim.disk.files import Fault, SimFiles


class Host(Protocol):
    """A machine, and what it has of logical volumes until it boots."""

    called: str
    """Its name, which another may have too."""

    @property
    def name(self) -> str: ...

    @property
    def nonce(self) -> str:
        """What no other has."""

    @property
    def active(self) -> set[str]:
        """Volumes, by their uuids, that are devices there."""

    @property
    def opened(self) -> dict[str, int]:
        """How often each is open there."""

    @property
    def processes(self) -> Mapping[int, Process]:
        """Those that live, by pid."""


class Process(Protocol):
    """A process whose door to volume groups this is."""

    identity: ProcessIdentity
    name: str

    @property
    def host(self) -> Host: ...

    @property
    def files(self) -> SimFiles: ...

    def enter(self, call: str, what: str) -> Fault:
        """As ``sim.disk.files.Gate``."""
