"""A host of several freezes for longer than the server keeps its locks, others go on, and then it wakes up.

For every call of the first host that is an effect or a look, from its first lease on: it stands still before it, the
server gives its locks away, the second host does its act to the end, and the first one goes on as if nothing had
happened. Then a third host compares with everything that may have counted, fixes all, and compares again. Hosts see
the storage as NFS clients do: time stands still, so what a host has looked up it goes on believing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from engine.api import Engine
from sim.explore.cases import fixtures, operations
from sim.explore.cases.driver import REFUSALS, Stage
from sim.explore.cases.operations import Act
from sim.explore.search.explorer import Story, prepared
from sim.explore.together.overtaking import Overtaking
from sim.explore.together.races import LOOKS, ActOf
from sim.hosts.processes import SimProcess
from sim.hosts.world import NFS, REPOSITORIES, on_server

_MOST_FIXES = 8


class Freeze(NamedTuple):
    """What one host does when it freezes, and what another does until it wakes up."""

    name: str
    prepare: Callable[[Stage], object]
    frozen: ActOf
    meanwhile: ActOf


class Woken(NamedTuple):
    """A freeze after which something was wrong."""

    name: str
    call: int
    """Of the first host, before which it stood still."""
    before: str
    problems: tuple[str, ...]


def _removed_here_whole_there(stage: Stage) -> None:
    fixtures.a_chain(stage)
    stage.set_user_data("a", fixtures.snap(stage), {})  # what it will have when it is copied in again
    stage.copy(("a", fixtures.snap(stage)), "b")
    stage.wait()
    stage.remove("a", fixtures.disk(stage))
    stage.fix("a", "C-REMOVED")
    stage.remove("a", fixtures.snap(stage))


def _fix_all(repo: str) -> Act:
    """Run what check offers until it offers nothing that loses nothing."""

    def run(engine: Engine) -> None:
        for _ in range(_MOST_FIXES):
            offered = [fix for fix in engine.check_storage_repository(repo) if not fix.waits_for]
            if not offered:
                return
            engine.run_fix_here(repo, offered[0])

    return Act(f"fix all of {repo}", run)


def _try(act: Act) -> Act:
    """The same; refused, it was not done."""

    def run(engine: Engine) -> object:
        try:
            return act.run(engine), True
        except REFUSALS:
            return None, False

    return Act(
        act.name,
        run,
        lambda model, result: act.effect(model, result and result[0]) if not result or result[1] else model,
    )


def _restored_if_possible(stage: Stage) -> Act:
    return operations.both(_fix_all("a"), _try(operations.restore("a", fixtures.snap(stage))))


def _based_on_it_and_restored(stage: Stage) -> Act:
    """A disk needs the removed snapshot again, by its replica; a fix may take its deletion back."""
    made = operations.create("a", fixtures.SIZE, ("b", fixtures.snap(stage)), auto_fix=False)
    return operations.both(made, _restored_if_possible(stage))


def _copied_in_again(stage: Stage) -> Act:
    """It is deleted for good, and comes again from its replica under the same id."""
    copied = operations.copy("b", fixtures.snap(stage), "a", auto_fix=False)
    return operations.both(_fix_all("a"), operations.both(copied, _fix_all("a")))


def _fixed_and_written(stage: Stage, repo: str, image: str) -> Act:
    """Others finish it, and then a machine uses it."""
    return operations.both(_fix_all(repo), operations.write(repo, stage.named[image], 0, fixtures.data(9)))


def _rule(repo: str, name: str) -> ActOf:
    return lambda stage: operations.rule(repo, name)


_ALL = (
    Freeze("create", fixtures.a_disk, lambda stage: operations.create("a", fixtures.SIZE), lambda stage: _fix_all("a")),
    Freeze("clean-and-base", _removed_here_whole_there, _rule("a", "C-REMOVED"), _based_on_it_and_restored),
    Freeze("clean-and-copy-in-again", _removed_here_whole_there, _rule("a", "C-REMOVED"), _copied_in_again),
    Freeze(
        "clean-and-restore",
        fixtures.a_removed_disk,
        _rule("a", "C-REMOVED"),
        lambda stage: _try(operations.restore("a", fixtures.disk(stage))),
    ),
    Freeze("clean-scrap", fixtures.a_replaced_volume, _rule("a", "C-SCRAP"), lambda stage: _fix_all("a")),
    Freeze(
        "clean-attempt",
        fixtures.an_unwanted_attempt,
        _rule("a", "C-ATTEMPT"),
        lambda stage: operations.both(operations.strategy("a", fixtures.disk(stage), "performance"), _fix_all("a")),
    ),
    Freeze(
        "snapshot-and-clean",
        fixtures.a_disk,
        lambda stage: operations.snapshot("a", fixtures.disk(stage)),
        lambda stage: _fix_all("a"),
    ),
    Freeze("merge", fixtures.a_raw_chain, _rule("a", "M-CHAIN"), lambda stage: _fix_all("a")),
    Freeze("copy", fixtures.a_mutable_copy, _rule("b", "B-COPY"), lambda stage: _fixed_and_written(stage, "b", "copy")),
    Freeze(
        "flatten",
        fixtures.an_overlay_that_wants_to_be_flat,
        _rule("a", "O-FLAT"),
        lambda stage: _fixed_and_written(stage, "a", "disk"),
    ),
)
FREEZES = {freeze.name: freeze for freeze in _ALL}


def run_frozen(freeze: Freeze) -> Iterator[Woken | None]:
    """What went wrong, None for nothing, for each place at which the first host can freeze."""
    stage = prepared(Story(freeze.name, freeze.prepare, lambda stage: None, format=NFS), "nfs")
    return every_place(freeze.name, lambda call: _Run(stage, freeze, call), itertools.count(1))


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

    def __init__(self, stage: Stage, freeze: Freeze, call: int) -> None:
        super().__init__(stage, freeze.frozen(stage), freeze.meanwhile(stage), call)
        self._leased = False

    def may_stop(self, process: SimProcess, call: str, what: str) -> bool:
        if not super().may_stop(process, call, what) or REPOSITORIES not in on_server(what):
            return False
        self._leased = self._leased or call == "leases.try_acquire"
        return self._leased

    def meanwhile(self, process: SimProcess) -> None:
        process.lose_locks()
        self.do(self.world.host("two"), 1)
