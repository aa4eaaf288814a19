"""Two hosts at the same repository: every schedule with one change of turn, or as many as are asked for; of those
that come to the same (``commuting``), one.

The other way round is a race of its own (the operations swapped). After each schedule a third host checks,
compares with every order in which the operations may have counted, fixes everything, and compares again.

``run_passed`` is the other kind: the first host stands still at one of its calls, the second one does its operation
meanwhile, to its end or until it is killed with a name changed and not yet durable. The first goes on, and then,
before each of its records counts and at its end, the power goes, and all is lost that was not durable. Who builds on
what was only seen must have made it durable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from engine.api import Engine
from engine.errors import OutcomeUnknown, Refused
from engine.tags.changes import change, read
from engine.triage import rules
from sim.disk.profiles import POSIX, one_state
from sim.disk.storage import SimStorage
from sim.explore.cases import operations
from sim.explore.cases.case import Case, prepared
from sim.explore.cases.driver import Driver
from sim.explore.cases.fixtures import images
from sim.explore.cases.operations import Operation, outcomes
from sim.explore.oracle.recovery import recover
from sim.explore.oracle.reference import Model
from sim.explore.search.canonical import canonical_key
from sim.explore.search.explorer import EFFECTS
from sim.explore.together.commuting import Turns
from sim.explore.together.overtaking import Overtaking
from sim.hosts.processes import SimProcess
from sim.hosts.tape import Tape, explore
from sim.hosts.world import Job, World

OperationOf = Callable[[Driver], Operation]


class Race(NamedTuple):
    """Two operations at once."""

    name: str
    prepare: Callable[[Driver], object]
    first: OperationOf
    second: OperationOf
    uses: bool = True
    """Its repositories are made by a version that knows of uses."""

    @property
    def case(self) -> Case:
        """The world that it begins in, as a case."""
        return Case(self.name, self.prepare, lambda driver: None, uses=self.uses)


class WrongSchedule(NamedTuple):
    """A schedule that went wrong."""

    race: str
    swapped: bool
    tape: tuple[int, ...]
    problems: tuple[str, ...]


def _removed_here_whole_there(driver: Driver) -> None:
    images.a_snapshot_in_b(driver)
    driver.remove("a", images.disk(driver))
    driver.fix("a", rules.C_REMOVED)
    driver.remove("a", images.snap(driver))


def _removed_with_a_child(driver: Driver) -> None:
    """Raw and flat below: it will be merged down, into what the other one bases its disk on."""
    images.a_chain(driver, strategy="performance")
    driver.copy(("a", images.snap(driver)), "b")
    driver.wait()
    driver.remove("a", images.snap(driver))


def _rule(repo: str, name: str) -> OperationOf:
    return lambda driver: operations.rule(repo, name)


def _disk_on_replica(driver: Driver) -> Operation:
    """Made by the same process: then it uses what is there before the other one goes on."""
    made = operations.create("a", images.SIZE, ("b", images.snap(driver)), auto_fix=False)
    return operations.both(made, operations.rule("a", rules.B_CREATE))


def _snapshot(driver: Driver) -> Operation:
    return operations.snapshot("a", images.disk(driver))


def _copy(driver: Driver) -> Operation:
    return operations.copy("a", images.snap(driver), "b", auto_fix=False)


def _on_its_overlay_and_back(driver: Driver) -> Operation:
    """What no verb does that quickly: a flat disk stands on its overlay again, and then does not."""
    image = driver.named["second"]

    def run(engine: Engine) -> None:
        repository = engine.context.repository("a")
        base = read(repository, images.snap(driver)).record
        if base.absorbed_by or base.purging:
            raise Refused("too late")
        flat = read(repository, image).record
        (overlay,) = flat.scrap
        own = flat.volume
        assert own is not None
        change(repository, image, lambda record: record._replace(volume=overlay, scrap=(own,)))
        change(repository, image, lambda record: record._replace(volume=own, scrap=(overlay,)))

    return Operation("there and back", run)


def _there_and_back(driver: Driver) -> Operation:
    """Three records: the generation before the newest is kept, so only the third makes the name of the first free."""
    disk = images.disk(driver)
    away = operations.both(operations.strategy("a", disk, "performance"), operations.remove("a", disk))
    return operations.both(away, operations.restore("a", disk))


def _remove_and_merge(driver: Driver) -> Operation:
    return operations.both(operations.remove("a", images.snap(driver)), operations.rule("a", rules.M_CHAIN))


_ALL = (
    Race("user-data", images.a_disk, lambda s: operations.user_data("a", images.disk(s), {"n": 1}), _there_and_back),
    Race("snapshots", images.a_disk, _snapshot, _snapshot),
    Race(
        "snapshot-groups",
        images.two_disks,
        lambda s: operations.snapshots("a", images.both(s)),
        lambda s: operations.snapshots("a", images.both(s)[1:]),
    ),
    Race("copies", images.a_chain, _copy, _copy),
    Race("clean-and-base", _removed_here_whole_there, _rule("a", rules.C_REMOVED), _disk_on_replica),
    Race("merge-and-base", _removed_with_a_child, _rule("a", rules.M_CHAIN), _disk_on_replica),
    Race(
        "remove-and-base",
        images.a_chain,
        _remove_and_merge,
        lambda s: operations.create("a", images.SIZE, ("a", images.snap(s))),
    ),
    Race(
        "restore-and-clean",
        images.a_removed_disk,
        lambda s: operations.restore("a", images.disk(s)),
        _rule("a", rules.C_REMOVED),
    ),
    Race("same-mend", images.a_committed_copy, _rule("b", rules.B_COPY), _rule("b", rules.B_COPY)),
    Race(
        "mend-and-user-data",
        images.a_mutable_copy,
        _rule("b", rules.B_COPY),
        lambda s: operations.user_data("b", s.named["copy"], {"n": 2}),
    ),
    Race("snapshot-and-remove", images.a_disk, _snapshot, lambda s: operations.remove("a", images.disk(s))),
)
RACES = {race.name: race for race in _ALL}

_MERGE = Race(
    "merge-and-repoint", images.one_that_stood_on_a_removed_one, _rule("a", rules.M_CHAIN), _on_its_overlay_and_back
)
ENTERINGS = {
    race.name: race
    for race in (
        Race(
            "enter-uses-and-base",
            images.a_chain,
            _rule("a", rules.O_USES),
            lambda s: operations.create("a", images.SIZE, ("a", images.snap(s))),
            uses=False,
        ),
        Race("enter-uses-and-snapshot", images.a_disk, _rule("a", rules.O_USES), _snapshot, uses=False),
        Race(
            "enter-uses-and-merge", images.a_raw_chain, _rule("a", rules.O_USES), _rule("a", rules.M_CHAIN), uses=False
        ),
        Race("enter-uses-twice", images.a_chain, _rule("a", rules.O_USES), _rule("a", rules.O_USES), uses=False),
    )
}
"""Others work on while a repository from before is given uses."""
PASSINGS = {**RACES, **ENTERINGS, _MERGE.name: _MERGE}
"""For ``run_passed``."""


def run_race(
    race: Race, swapped: bool = False, switches: int = 1, profile: str = "posix"
) -> Iterator[WrongSchedule | None]:
    """What went wrong, None for nothing, for each schedule. Under the profile ``nfs`` what a host has looked up before
    stays what it believes."""
    driver = prepared(race.case, profile)
    seen: set[bytes] = set()
    needless: set[tuple[int, ...]] = set()
    for tape in explore(changes=switches, needless=needless):
        problems = play(driver, race, swapped, tape, seen, needless)
        yield WrongSchedule(race.name, swapped, tuple(tape.values), tuple(problems)) if problems else None


def play(
    driver: Driver, race: Race, swapped: bool, tape: Tape, seen: set[bytes], needless: set[tuple[int, ...]]
) -> list[str]:
    """Play one schedule; return what is wrong after it. A storage that is in ``seen``, with the same that may be true,
    is not recovered once more; it is added. Added to ``needless`` are beginnings of tapes that lead to the same."""
    world = driver.world.fork(driver.world.storage.clone())
    world.tape = tape
    first, second = race.first(driver), race.second(driver)
    order = (second, first) if swapped else (first, second)
    jobs = [world.start(host, operation.run) for host, operation in zip(("one", "two"), order, strict=True)]
    turns = Turns(tape, world.trace)
    world.run(turns)
    needless.update(turns.same())
    problems = list(_rash(world, jobs)) if sum(map(bool, tape.values)) <= 1 else []
    models = outcomes(driver.models, order, jobs)
    for host in list(world.hosts):
        world.bury(host)
    world.storage.settle()
    if not models:
        return [*problems, "no order of the operations explains what was acknowledged"]
    if (key := _key(world.storage, models)) in seen:
        return problems
    seen.add(key)
    came_of_them = "; ".join(operations.summaries(order, jobs))
    return problems + [f"{problem} ({came_of_them})" for problem in recover(world, models)]


class Passed(NamedTuple):
    """A passing after which something was wrong."""

    race: str
    swapped: bool
    call: int
    """Of the first host, before which the other one passed."""
    effect: int
    """Of the second one, before which it was killed; 0: it came to its end."""
    problems: tuple[str, ...]


def run_passed(race: Race, swapped: bool = False) -> Iterator[Passed | None]:
    """What went wrong, None for nothing, for each place and each death."""
    driver = prepared(race.case)
    seen: set[bytes] = set()
    call = 0
    while True:
        call += 1
        whole = _Passing(driver, race, swapped, call, 0, seen)
        problems = whole.play()
        if not whole.before:
            return
        yield Passed(race.name, swapped, call, 0, tuple(problems)) if problems else None
        for effect in whole.unsafe:
            problems = _Passing(driver, race, swapped, call, effect, seen).play()
            yield Passed(race.name, swapped, call, effect, tuple(problems)) if problems else None


LOOKS = ("files.list_directory", "leases.try_acquire")
"""Beside effects: between two of all these it does not matter when others act."""


class _Passing(Overtaking):
    """One of them."""

    looks = LOOKS

    def __init__(self, driver: Driver, race: Race, swapped: bool, call: int, effect: int, seen: set[bytes]) -> None:
        first, second = race.first(driver), race.second(driver)
        super().__init__(driver, *((second, first) if swapped else (first, second)), call)
        self._seen = seen
        self._moments: list[SimStorage] = []
        self._effect = effect
        self._effects = 0
        self._passing: SimProcess | None = None
        self.unsafe: list[int] = []
        """Effects of the second host before which a name is changed and not durable."""

    def judge(self) -> list[str]:
        problems = self._judge(self.world.storage)
        self.jobs[0] = Job()
        for storage in self._moments:
            problems += self._judge(storage)
        return problems

    def _judge(self, storage: SimStorage) -> list[str]:
        lost = _all_lost(storage)
        key = _key(lost, self.outcomes())
        if key in self._seen:
            return []
        self._seen.add(key)
        return self.recovered(self.world.fork(lost))

    def may_stop(self, process: SimProcess, call: str, what: str) -> bool:
        if process.host.name == "one":
            if self.before and call == "files.link":
                self._moments.append(self.world.storage.clone())
            return call in EFFECTS or call in self.looks
        if process is self._passing and call in EFFECTS:
            self._effects += 1
            if call == "files.sync_directory" and "/tags" in what:
                self.unsafe.append(self._effects)
            if self._effects == self._effect:
                process.kill()
        return False

    def meanwhile(self, process: SimProcess) -> None:
        engine = self.world.host("two")
        self._passing = self.world.process_of(engine)
        self.do(engine, 1)


def _key(storage: SimStorage, models: Sequence[Model]) -> bytes:
    return b"".join([canonical_key(storage), *sorted(model.key() for model in models)])


def _all_lost(storage: SimStorage) -> SimStorage:
    """After a loss of power that takes all that can be lost."""

    def most(options: int, label: str) -> int:
        return 1 if label.startswith("data of") else options - 1

    return one_state(storage, POSIX, most)[0]


def _rash(world: World, jobs: list[Job]) -> Iterator[str]:
    """An outcome is unknown only to one who had looked which generation is the newest and was interrupted after
    that: what others had done before it looked must be seen in time. For schedules with one change of turn."""
    for job in jobs:
        if isinstance(job.error, OutcomeUnknown):
            calls = list(_calls(world))
            others = [index for index, (who, _) in enumerate(calls) if who != repr(job.process)]
            before = [call for who, call in calls[: others[0] if others else 0] if who == repr(job.process)]
            looks = [call for call in before if call in ("files.list_directory", "files.read_file")]
            if not others or looks[-1:] != ["files.list_directory"]:  # a record that was read is of before the look
                yield f"{job.error}: but nobody interrupted it where that can be"


def _calls(world: World) -> Iterator[tuple[str, str]]:
    for line in world.trace.lines:
        parts = line.split()
        if len(parts) > 3:
            yield parts[2], parts[3]
