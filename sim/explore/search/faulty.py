"""One call of a case fails: at every effect, in every way that such a call can fail.

The case may then report an error, or go on; what it acknowledged must be there all the same, also
after a power cut, and everything else must be as if it had been interrupted.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import NamedTuple

from engine.errors import DiskwrightError
from sim.disk.files import Fault
from sim.disk.profiles import POSIX
from sim.explore.cases.case import Case
from sim.explore.oracle.recovery import recover
from sim.explore.search.canonical import canonical_key
from sim.explore.search.cuts import cuts
from sim.explore.search.explorer import EFFECTS, Explorer
from sim.hosts.faults import fail_call, possible
from sim.hosts.processes import SimProcess
from sim.hosts.world import World

KINDS = ("eio", "enospc", "short", "sync", "reply")


class HarmfulFault(NamedTuple):
    """A fault after which something was wrong."""

    case: str
    kind: str
    effect: int
    call: str
    problems: tuple[str, ...]


class _Fault:
    """Lets one effect fail."""

    def __init__(self, world: World, number: int, kind: str) -> None:
        self._world, self._number, self._kind = world, number, kind
        self.count = 0
        self.on = False

    def __call__(self, process: SimProcess, call: str, what: str) -> Fault:
        if not self.on or call not in EFFECTS:
            return Fault.NONE
        if process.files.storage_of(what.partition(" ")[0]) is not self._world.storage:
            return Fault.NONE
        self.count += 1
        if self.count != self._number:
            return Fault.NONE
        return fail_call(self._kind, what)


def failures(case: Case) -> Iterator[HarmfulFault]:
    """What goes wrong; nothing: whatever fails, the case holds."""
    explorer = Explorer(case)
    base = explorer.driver
    points = explorer.points_of("operation", base.world.storage, base.models, 0)
    harmless: set[bytes] = set()
    for point in points[:-1]:
        for kind in KINDS:
            if possible(kind, point.call):
                problems = _play(explorer, case, point.number, kind, harmless)
                if problems:
                    yield HarmfulFault(case.name, kind, point.number, f"{point.call} {point.what}", tuple(problems))


def _play(explorer: Explorer, case: Case, number: int, kind: str, harmless: set[bytes]) -> list[str]:
    """``harmless``: what was recovered from before; what is alike to the engine and may be the same is not again."""
    world = explorer.driver.world.fork(explorer.driver.world.storage.clone())
    fault = _Fault(world, number, kind)
    world.hook = fault
    driver = explorer.driver.fork(world)
    driver.engine()
    fault.on = True
    try:
        case.operation(driver)
    except DiskwrightError:
        pass
    except OSError as error:
        return [f"an error of the system comes out as it is: {errno.errorcode.get(error.errno or 0, '')} {error}"]
    fault.on = False
    for host in list(world.hosts):
        world.bury(host)
    states = [cut.build for cut in cuts(world.storage, POSIX._replace(max_pending=30))]
    for build in (states[0], states[-1]) if len(states) > 1 else states:
        left = build()
        key = canonical_key(left) + b"".join(sorted(model.key() for model in driver.models))
        if key in harmless and not world.sharing:  # there recovery asks the other hosts, too
            continue
        problems = recover(world.fork(left), driver.models, strangers=case.strangers)
        if problems:
            return problems
        harmless.add(key)
    return []
