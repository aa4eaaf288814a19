"""A snapshot is taken of a disk whose guest is frozen for that, and somebody dies at each step of it; played and judged
as ``live``.

It is judged besides that a snapshot shows what was there while the guest was frozen, and that no guest stays frozen:
not when the watchdog of who is dead has ended, and where that was killed too (``UNWATCHED``) not after the next check.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from engine.api import Engine
from engine.host.live import switches
from sim.disk.files import Fault
from sim.explore.cases.driver import Driver
from sim.explore.cases.fixtures import images
from sim.explore.together.live import DEATHS, LIBVIRT, POWER, QMP, SEQUELS, SNAPSHOT, VERB, Run, runs
from sim.explore.together.wrong import Wrong, told
from sim.hosts.processes import SimProcess
from sim.hosts.world import FORMAT

MONITORS = (f"{QMP},agent=/run/agent", LIBVIRT)
UNWATCHED = "unwatched"
PREPARED: tuple[Callable[[Driver], object], ...] = (images.a_disk, images.a_raw_disk)


def quiesced(
    prepare: Callable[[Driver], object],
    format: str = FORMAT,
    deaths: Sequence[str] = DEATHS,
    every: int = 1,
    first: int = 1,
    monitor: str = MONITORS[0],
) -> Iterator[Wrong | None]:
    """What went wrong, as ``live.runs``."""
    yield from runs(SNAPSHOT, prepare, format, deaths, every, first, monitor, Quiesced)


class Quiesced(Run):
    """One of them."""

    options: ClassVar[dict[str, Any]] = {"quiesce": True}

    @staticmethod
    def sequels(verb: str, dies: str, monitor: str) -> tuple[str, ...]:
        del verb, monitor
        return ("",) if dies == POWER else (*SEQUELS, UNWATCHED) if dies == VERB else SEQUELS

    def _take(self, engine: Engine) -> None:
        before, self._still = {*self._snapshots}, [] if self._hooked else [self._content]
        try:
            super()._take(engine)
        finally:  # it may count though nobody was told
            for made in self._snapshots.keys() - before:
                if not any(self._snapshots[made].same(content) for content in self._still):
                    self._problems.append("a snapshot shows what was there when its guest was not frozen")

    def __call__(self, process: SimProcess, call: str, what: str) -> Fault:
        if self._machine.guest_frozen:
            self._still.append(self._content)
        return super().__call__(process, call, what)

    def _act(self, engine: Engine, hooked: bool = False) -> None:
        self._hooked = hooked
        super()._act(engine, hooked)
        if self._then == UNWATCHED:
            for process in [*self._host.processes.values()]:
                if process.name == switches.WATCHDOG:
                    process.end(killed=True)
        self._world.direct.run_waiting()
        if self._then != UNWATCHED:
            self._require_thawed()
        engine = self._world.host("one")
        engine.check_storage_repository("a")
        self._require_thawed()
        left = [process for process in self._host.processes.values() if process.name == switches.WATCHDOG]
        if left or engine.state.frozen():
            self._problems.append("something of a freeze is left")

    def _require_thawed(self) -> None:
        if self._machine.running and self._machine.guest_frozen:
            self._problems.append("its guest stays frozen")


if __name__ == "__main__":
    sys.exit(told(run for prepare in PREPARED for monitor in MONITORS for run in quiesced(prepare, monitor=monitor)))
