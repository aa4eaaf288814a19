"""What tests of verbs beside a running machine have in common."""

from __future__ import annotations

from typing import Any

from engine.data.model import Fix
from engine.triage import rules
from sim.explore.cases.driver import Driver
from sim.explore.together.live import runs
from sim.explore.together.wrong import Wrong
from sim.hosts.machine import SimMachine

MONITOR = "qmp:/run/vm"


def wrong(*arguments: Any, **named: Any) -> list[Wrong]:
    played = list(runs(*arguments, **named))
    assert len(played) > 1, "nobody died"
    return [run for run in played if run is not None]


def is_found(what: str, *arguments: Any, **named: Any) -> bool:
    """Whether one of these runs tells of that."""
    return any(what in problem for run in runs(*arguments, **named) if run is not None for problem in run.problems)


def start(driver: Driver, disk: str, monitor: str = MONITOR) -> SimMachine:
    """Prepare a disk, and start a machine on it."""
    entry = driver.engine().prepare_image("a", disk, monitor=monitor)
    return SimMachine(driver.world.process_of(driver.engine()).host, entry.path, entry.format, monitor=monitor)


def a_merge(driver: Driver) -> Fix:
    """The first merge that is offered."""
    return next(fix for fix in driver.engine().check_storage_repository("a") if fix.rule == rules.M_CHAIN)
