"""A host of several freezes for longer than the server keeps its locks, others go on, and then it wakes up.

For every call of the first host that is an effect or a look, from its first lease on: it stands still before it, the
server gives its locks away, the second host does its operation to the end, and the first one goes on as if nothing had
happened. Then a third host compares with everything that may have counted, fixes all, and compares again. Hosts see
the storage as NFS clients do: time stands still, so what a host has looked up it goes on believing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from engine.api import Engine
from engine.triage import rules
from sim.disk.files import Fault
from sim.explore.cases import operations
from sim.explore.cases.case import Case, prepared
from sim.explore.cases.driver import REFUSALS, Driver
from sim.explore.cases.fixtures import damage, images
from sim.explore.cases.operations import Operation
from sim.explore.search.explorer import EFFECTS
from sim.explore.together.overtaking import Overtaking
from sim.explore.together.races import LOOKS, OperationOf
from sim.hosts.processes import SimProcess
from sim.hosts.world import NFS, REPOSITORIES, on_server

_MOST_FIXES = 8
_LONGER = images.SIZE + 2 * images.BLOCK


class Freeze(NamedTuple):
    """What one host does when it freezes, and what another does until it wakes up."""

    name: str
    prepare: Callable[[Driver], object]
    frozen: OperationOf
    meanwhile: OperationOf


class Woken(NamedTuple):
    """A freeze after which something was wrong."""

    name: str
    call: int
    """Of the first host, before which it stood still."""
    before: str
    problems: tuple[str, ...]


def _removed_here_whole_there(driver: Driver) -> None:
    images.a_chain(driver)
    driver.set_user_data("a", images.snap(driver), {})  # what it will have when it is copied in again
    driver.copy(("a", images.snap(driver)), "b")
    driver.wait()
    driver.remove("a", images.disk(driver))
    driver.fix("a", rules.C_REMOVED)
    driver.remove("a", images.snap(driver))


def _fix_all(repo: str) -> Operation:
    """Run what check offers until it offers nothing that loses nothing."""

    def run(engine: Engine) -> None:
        for _ in range(_MOST_FIXES):
            offered = [fix for fix in engine.check_storage_repository(repo) if not fix.waits_for]
            if not offered:
                return
            engine.run_fix_here(repo, offered[0])

    return Operation(f"fix all of {repo}", run)


def _try(operation: Operation) -> Operation:
    """The same; refused, it was not done."""

    def run(engine: Engine) -> object:
        try:
            return operation.run(engine), True
        except REFUSALS:
            return None, False

    return Operation(
        operation.name,
        run,
        lambda model, result: operation.effect(model, result and result[0]) if not result or result[1] else model,
    )


def _restored_if_possible(driver: Driver) -> Operation:
    return operations.both(_fix_all("a"), _try(operations.restore("a", images.snap(driver))))


def _based_on_it_and_restored(driver: Driver) -> Operation:
    """A disk needs the removed snapshot again, by its replica; a fix may take its deletion back."""
    made = operations.create("a", images.SIZE, ("b", images.snap(driver)), auto_fix=False)
    return operations.both(made, _restored_if_possible(driver))


def _copied_in_again(driver: Driver) -> Operation:
    """Delete a snapshot for good, and bring it again from its replica, under the same id."""
    copied = operations.copy("b", images.snap(driver), "a", auto_fix=False)
    return operations.both(_fix_all("a"), operations.both(copied, _fix_all("a")))


def _fixed_and_written(driver: Driver, repo: str, image: str) -> Operation:
    """Others finish it, and then a machine uses it."""
    return operations.both(_fix_all(repo), operations.write(repo, driver.named[image], 0, images.data(9)))


def _flat_above_nothing(driver: Driver) -> None:
    """A disk that does not need its snapshot any more."""
    images.a_chain(driver)
    driver.set_strategy("a", images.disk(driver), "performance")
    driver.fix("a", rules.O_FLAT)


def _revert(driver: Driver) -> Operation:
    return operations.revert("a", images.disk(driver), images.snap(driver))


def _made_longer_still(driver: Driver) -> Operation:
    """The same disk, and then a machine writes behind the end that the first host gives it."""
    written = operations.write("a", images.disk(driver), 3 * images.SIZE, images.data(9))
    return operations.both(operations.resize("a", images.disk(driver), 4 * images.SIZE), written)


def _given_up_halfway(repo: str) -> Operation:
    """Begin to delete what an image does not need any more, and die with a volume deleted and its record as it was."""

    def run(engine: Engine) -> None:
        wanted = (rules.C_ATTEMPT, rules.C_SCRAP)
        offered = [fix for fix in engine.check_storage_repository(repo) if fix.rule in wanted]
        if not offered:
            return
        deleted = False

        def hook(process: SimProcess, call: str, what: str) -> Fault:
            nonlocal deleted
            if deleted and call in EFFECTS:
                process.kill()
            deleted = deleted or call == "volume_groups.remove" or (call == "files.unlink" and "/volumes/" in what)
            return Fault.NONE

        process = engine.doors.files.gate  # type: ignore[attr-defined]
        process.hook = hook
        engine.run_fix_here(repo, offered[0])

    return Operation(f"give up of {repo}, killed", run)


def _given_back(driver: Driver) -> Operation:
    """Others give an adoption up, the operator says where the file was; or find that it counts, and keep the image."""
    disk = images.disk(driver)

    def run(engine: Engine) -> bool:
        engine.remove_image("a", disk)
        try:
            engine.name_import_file("a", disk, images.on_server_of(engine))
        except REFUSALS:
            engine.restore_image("a", disk)
            return False
        _fix_all("a").run(engine)
        return True

    removed = operations.remove("a", disk).effect
    return Operation("give back", run, lambda model, result: model if result is False else removed(model, None))


def _rule(repo: str, name: str) -> OperationOf:
    return lambda driver: operations.rule(repo, name)


_ALL = (
    Freeze("create", images.a_disk, lambda driver: operations.create("a", images.SIZE), lambda driver: _fix_all("a")),
    Freeze("clean-and-base", _removed_here_whole_there, _rule("a", rules.C_REMOVED), _based_on_it_and_restored),
    Freeze("clean-and-copy-in-again", _removed_here_whole_there, _rule("a", rules.C_REMOVED), _copied_in_again),
    Freeze(
        "clean-and-restore",
        images.a_removed_disk,
        _rule("a", rules.C_REMOVED),
        lambda driver: _try(operations.restore("a", images.disk(driver))),
    ),
    Freeze("clean-scrap", images.a_replaced_volume, _rule("a", rules.C_SCRAP), lambda driver: _fix_all("a")),
    Freeze(
        "clean-attempt",
        images.an_unwanted_attempt,
        _rule("a", rules.C_ATTEMPT),
        lambda driver: operations.both(operations.strategy("a", images.disk(driver), "performance"), _fix_all("a")),
    ),
    Freeze(
        "snapshot-and-clean",
        images.a_disk,
        lambda driver: operations.snapshot("a", images.disk(driver)),
        lambda driver: _fix_all("a"),
    ),
    Freeze(
        "snapshot-group-and-clean",
        images.two_disks,
        lambda driver: operations.snapshots("a", images.both(driver)),
        lambda driver: _fix_all("a"),
    ),
    Freeze(
        "snapshot-and-longer",
        images.a_disk,
        lambda driver: operations.snapshot("a", images.disk(driver)),
        _made_longer_still,
    ),
    Freeze("revert-and-longer", images.a_chain, _revert, _made_longer_still),
    Freeze(
        "revert-and-clean",
        _flat_above_nothing,
        _revert,
        lambda driver: operations.both(
            operations.remove("a", images.snap(driver)), operations.rule("a", rules.C_REMOVED)
        ),
    ),
    Freeze(
        "revert-and-fix-all",
        _flat_above_nothing,
        _revert,
        lambda driver: operations.both(operations.remove("a", images.snap(driver)), _fix_all("a")),
    ),
    Freeze("revert-and-give-up", images.a_chain, _revert, lambda driver: _given_up_halfway("a")),
    Freeze(
        "resize",
        images.a_chain,
        lambda driver: operations.resize("a", images.disk(driver), _LONGER),
        _made_longer_still,
    ),
    Freeze(
        "adopt-grown",
        damage.a_grown_disk,
        _rule("a", rules.O_GROWN),
        lambda driver: operations.both(_fix_all("a"), _made_longer_still(driver)),
    ),
    Freeze("adopt", images.an_adoption_on_a_server, _rule("a", rules.B_ADOPT), _given_back),
    Freeze("merge", images.a_raw_chain, _rule("a", rules.M_CHAIN), lambda driver: _fix_all("a")),
    Freeze(
        "copy", images.a_mutable_copy, _rule("b", rules.B_COPY), lambda driver: _fixed_and_written(driver, "b", "copy")
    ),
    Freeze(
        "flatten",
        images.an_overlay_that_wants_to_be_flat,
        _rule("a", rules.O_FLAT),
        lambda driver: _fixed_and_written(driver, "a", "disk"),
    ),
)
FREEZES = {freeze.name: freeze for freeze in _ALL}


def run_frozen(freeze: Freeze) -> Iterator[Woken | None]:
    """What went wrong, None for nothing, for each place at which the first host can freeze."""
    driver = prepared(Case(freeze.name, freeze.prepare, lambda driver: None, format=NFS), "nfs")
    return every_place(freeze.name, lambda call: _Run(driver, freeze, call), itertools.count(1))


def every_place(name: str, run: Callable[[int], Overtaking], calls: Iterable[int]) -> Iterator[Woken | None]:
    """What went wrong, None for nothing, at each of those calls, until there is none of that number."""
    for call in calls:
        one = run(call)
        problems = one.play()
        if not one.before:
            return
        yield Woken(name, call, one.before, tuple(problems)) if problems else None


class _Run(Overtaking):
    """One of them."""

    looks = LOOKS

    def __init__(self, driver: Driver, freeze: Freeze, call: int) -> None:
        super().__init__(driver, freeze.frozen(driver), freeze.meanwhile(driver), call)
        self._leased = False

    def may_stop(self, process: SimProcess, call: str, what: str) -> bool:
        if not super().may_stop(process, call, what) or REPOSITORIES not in on_server(what):
            return False
        self._leased = self._leased or call == "leases.try_acquire"
        return self._leased

    def meanwhile(self, process: SimProcess) -> None:
        process.lose_locks()
        self.do(self.world.host("two"), 1)
