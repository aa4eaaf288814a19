"""A running disk gets another volume, and somebody dies at each step of that; played and judged as ``live``.

What is tried besides: the machine is started anew before the watchdog of a dead runner does anything (``LATE``); and
the watchdog dies with its runner (``BOTH``), and whoever looks next, or takes a snapshot (``NEXT``), has to see to it.
It is judged besides that its guest waits for nobody who is dead, once a watchdog has ended, and can be started then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from engine.api import Engine
from engine.data.model import Fix
from engine.errors import DiskwrightError, StorageError
from engine.host.live import switches
from engine.triage import rules
from sim.explore.cases.driver import Driver
from sim.explore.cases.fixtures import images
from sim.explore.together.live import DEATHS, POWER, SEQUELS, VERB, Run, runs
from sim.explore.together.wrong import Wrong, told
from sim.hosts.processes import SimProcess
from sim.hosts.world import FORMAT, LVM
from sim.lvm.group_model import EXTENT_BYTES

REBUILD = "rebuild"
LATE = "late"
BOTH = "both"
"""The process of the fix and its watchdog: as a service manager ends all that a unit has started."""
NEXT = "next"
PREPARED: tuple[Callable[[Driver], object], ...] = (
    images.an_overlay_that_wants_to_be_flat,
    images.a_flat_disk_that_wants_the_other_format,
)


def rebuilt(
    prepare: Callable[[Driver], object],
    format: str = FORMAT,
    deaths: Sequence[str] = (*DEATHS, BOTH),
    every: int = 1,
    first: int = 1,
) -> Iterator[Wrong | None]:
    """What went wrong, as ``live.runs``."""
    yield from runs(REBUILD, prepare, format, deaths, every, first, kind=Rebuild)


class Rebuild(Run):
    """One of them. In a volume group the disk has whole extents: a machine that is started on a raw one has all."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if self._world.format == LVM and self._content.size < EXTENT_BYTES:
            self._world.host("one").resize_disk("a", self._disk, EXTENT_BYTES)
            self._content, self._sizes = self._content.truncate(EXTENT_BYTES), {EXTENT_BYTES}

    @staticmethod
    def sequels(verb: str, dies: str, monitor: str) -> tuple[str, ...]:
        del verb, monitor
        besides = {VERB: (LATE,), BOTH: (LATE, NEXT)}
        return ("",) if dies == POWER else (*SEQUELS, *besides.get(dies, ()))

    def _die(self, process: SimProcess) -> None:
        if self._dies == BOTH:
            for one in [one for one in self._host.processes.values() if one.name == switches.WATCHDOG]:
                one.end(killed=True)
            process.kill()
        super()._die(process)

    def _do(self, engine: Engine) -> None:
        top = self._machine.nodes()[0].name
        found = _rebuilds(engine)
        for fix in found[:1]:
            engine.run_fix_here("a", fix)
        if not self._dies:
            if not found or self._machine.nodes()[0].name == top:
                self._problems.append("the machine goes on in no other volume")
            if len(self._machine.nodes()) != 1 or engine.check_storage_repository("a"):
                self._problems.append("something of the old volume is left")
        self.done = True

    def _act(self, engine: Engine, hooked: bool = False) -> None:
        super()._act(engine, hooked)
        if not hooked or self._then not in (LATE, NEXT):
            self._wake()

    def _wake(self) -> None:
        """The watchdog of a runner that is dead does what it is for; where that is dead too, somebody looks."""
        if self._dies == BOTH:
            self._world.host("one").check_storage_repository("a")
        self._world.direct.run_waiting()
        if self._machine.running and self._machine.stands_still:
            self._problems.append("its guest waits for somebody who is dead")

    def _go_on(self) -> None:
        if self._then == LATE:
            self._machine.kill()
            self._start_anew(False)
            self._wake()
            if not self._machine.running:
                self._start_anew(bool(self._world.host("one").list_prepared()))
            self._use()
        if self._then == NEXT:
            self._snapshot_next()
        super()._go_on()

    def _snapshot_next(self) -> None:
        """Refused at most because of a job that its runner has left, and in which no guest waits."""
        engine = self._world.host("one")
        switching = any(entry.switch for entry in engine.list_prepared())
        try:
            self._take(engine)
        except DiskwrightError as error:
            if switching:
                self._problems.append(f"no snapshot can be taken: {error}")
        if self._machine.stands_still:
            self._problems.append("its guest waits for somebody who is dead, beside a snapshot")

    def _start_anew(self, must: bool) -> None:
        try:
            self._machine = self._started()
        except StorageError as error:  # there is no path, rather than a wrong one
            if must:
                self._problems.append(f"the machine cannot be started anew: {error}")
            return
        self._use()

    def _must_start(self) -> bool:
        engine = self._world.host("one")
        return self._then != LATE and bool(engine.list_prepared() or engine.list_unheld())


def _rebuilds(engine: Engine) -> list[Fix]:
    return [fix for fix in engine.check_storage_repository("a") if fix.rule in rules.BESIDE]


def main(format: str = FORMAT) -> int:
    """Explore all of it in a format, and say what went wrong."""
    return told(run for prepare in PREPARED for run in rebuilt(prepare, format))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
