"""One case, crashed everywhere: all states of the storage, and recovery from each of them crashed in its turn.

The graph that is walked: a node is a storage (what is not durable included) and the models that it
may be. From a node a host starts, checks, compares, and runs the first fix that is offered; that run
is recorded, and before each of its effects the process is killed (nothing is lost, what is pending
stays pending), and the power is cut in every legal way. Each of those storages is a node, and so is
the one after the whole fix. Nodes that are alike to the engine (``sim.explore.search.canonical``) are visited
once; when none is left the exploration is *closed*: no number of crashes, of processes or of power, in
the case or in the recovery from it, leads anywhere else.

One reduction, which loses nothing: before an effect that only changes names, power is not cut, since
whatever can be left there can be left one effect later too (that change being lost).
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from engine.api import Engine
from engine.data.model import Fix
from engine.errors import DiskwrightError
from sim.disk.files import Fault
from sim.disk.profiles import PROFILES, Profile
from sim.disk.storage import SimStorage
from sim.explore.cases.case import RESCUERS, Case, prepared
from sim.explore.oracle.invariants import Observation, Rank, observe
from sim.explore.oracle.leases import without_lease
from sim.explore.oracle.reference import Model
from sim.explore.search.canonical import canonical_key, key_and_boring
from sim.explore.search.cuts import Cut, cuts, pending_count
from sim.hosts.crash import FILE_EFFECTS, GROUP_EFFECTS, HANDLE_EFFECTS
from sim.hosts.processes import SimProcess
from sim.hosts.world import World

EFFECTS = frozenset(
    [f"files.{name}" for name in FILE_EFFECTS]
    + [f"handle.{name}" for name in HANDLE_EFFECTS]
    + [f"volume_groups.{name}" for name in GROUP_EFFECTS]
)
NAMES_ONLY = frozenset(
    f"files.{name}" for name in "create link rename unlink make_directory remove_directory symlink".split()
)


MAX_PENDING = 8
"""More at once in one run is an error of the engine's discipline."""
MAX_ENUMERATED = 13
"""Several killed processes may leave more than that together; beyond this the power is not cut."""
_CUTS_OF_A_SAMPLE = 4
"""So many states of one power cut, about."""

KILLED, ENDED = -1, -2
"""Instead of the number of a state: the process was killed; the run came to its end."""


class PathStep(NamedTuple):
    """One run and how it ended."""

    run: str
    """"operation", "again", "then", or the rule of the fix."""
    effect: int
    """Before which effect, from 1."""
    state: int
    """Which of the states of ``crash_states``, or KILLED or ENDED."""
    lost: Callable[[], tuple[str, ...]] = tuple
    """What did not survive. Only asked when something is wrong: to tell takes longer than to recover."""


class Node(NamedTuple):
    """A storage to start from."""

    storage: SimStorage
    models: tuple[Model, ...]
    path: tuple[PathStep, ...]
    above: Rank | None = None
    """The rank that this one must fall below: the fix ran to its end."""


class Moment(NamedTuple):
    """A moment of a recorded run."""

    number: int
    call: str
    what: str
    storage: SimStorage
    models: tuple[Model, ...]


class Violation(NamedTuple):
    """Something that must not be."""

    case: str
    profile: str
    path: tuple[PathStep, ...]
    problems: tuple[str, ...]

    @property
    def weight(self) -> tuple[int, int, int]:
        """Small: easy to understand."""
        return len(self.path), sum(len(step.lost()) for step in self.path), sum(step.effect for step in self.path)


class Tally(NamedTuple):
    """What an exploration did."""

    case: str
    profile: str
    effects: int
    """Of the case itself."""
    states: int
    """Visited: each is checked, compared with the models, fixed, and its fix crashed."""
    cuts: int
    """States of a power cut that were enumerated, equal ones included."""
    seconds: float
    closed: bool
    left: int
    """States that were found and not visited when a bound was reached."""
    storages: int
    """Different contents of the storage among the cuts; those that are alike to the engine are visited once."""
    uncut: int
    """Points of killed runs at which too much was pending to cut the power."""
    depth: int
    """Most crashes and fixes one after the other."""
    max_pending: int
    rules: Counter[str]
    violations: tuple[Violation, ...]


class EffectRecorder:
    """Takes a picture of the storage before each effect."""

    def __init__(self) -> None:
        self.points: list[Moment] = []
        self.on = False
        self.improper = ""
        """The first effect of the run that its process had no right to."""
        self._storage: SimStorage | None = None
        self._models: Callable[[], tuple[Model, ...]] = tuple
        self.watch: Callable[[SimProcess, str, str], None] | None = None

    def __call__(self, process: SimProcess, call: str, what: str) -> Fault:
        if self.on and call in EFFECTS:
            storage = self._storage
            assert storage is not None
            if process.files.storage_of(what.partition(" ")[0]) is storage:
                self.points.append(Moment(len(self.points) + 1, call, what, storage.clone(), self._models()))
                self.improper = self.improper or without_lease(process, call, what)
                if self.watch is not None:
                    self.watch(process, call, what)
        return Fault.NONE

    def run(
        self, storage: SimStorage, models: Callable[[], tuple[Model, ...]], body: Callable[[], Any]
    ) -> list[Moment]:
        """Record ``body``; the last point is after its end."""
        self.points, self._storage, self._models, self.on, self.improper = [], storage, models, True, ""
        try:
            body()
        finally:
            self.on = False
        self.points.append(Moment(len(self.points) + 1, "", "", storage.clone(), models()))
        return self.points


class Explorer:
    """Explores one case under one profile."""

    def __init__(
        self,
        case: Case,
        profile: Profile | str = "posix",
        max_states: int = 200_000,
        seconds: float = 1e9,
        max_violations: int = 12,
        recover: bool = True,
        sample: int = 0,
    ) -> None:
        """``recover`` False: recovery is checked, but not crashed itself. ``sample``: of each run about so many effects
        are crashed, spread over it, and of each power cut a few states; 0: all."""
        self.case = case
        self.profile = PROFILES[profile] if isinstance(profile, str) else profile
        self.recorder = EffectRecorder()
        self.driver = prepared(case, self.profile)
        self.violations: list[Violation] = []
        self.rules: Counter[str] = Counter()
        self.states = self.cuts = self.uncut = self.depth = self.max_pending = 0
        self._max_states, self._seconds, self._max_violations = max_states, seconds, max_violations
        self._recover, self._sample = recover, sample
        self._seen: set[bytes] = set()
        self._raw: set[tuple[int, bytes]] = set()
        self._cut_before: set[bytes] = set()
        self._queue: deque[Node] = deque()
        self._keys: dict[int, tuple[tuple[Model, ...], bytes]] = {}

    # -- the walk

    def run(self) -> Tally:
        """Explore until closed, or until a bound is reached."""
        started = time.perf_counter()
        effects = self._case()
        while self._queue and self.states < self._max_states and len(self.violations) < self._max_violations:
            if time.perf_counter() - started > self._seconds:
                break
            self._visit(self._queue.popleft())
        return Tally(
            self.case.name, self.profile.name, effects, self.states, self.cuts, time.perf_counter() - started,
            not self._queue, len(self._queue), len(self._raw), self.uncut, self.depth, self.max_pending, self.rules,
            tuple(sorted(self.violations, key=lambda violation: violation.weight)),
        )  # fmt: skip

    def _case(self) -> int:
        try:
            points = self.points_of("operation", self.driver.world.storage, self.driver.models, 0)
        except (DiskwrightError, AssertionError) as error:
            self._violation((), [f"the case itself fails: {error!r}"])
            return len(self.recorder.points)
        if self.recorder.improper and not self.case.strangers:  # what no verb does has no lease either
            self._violation((PathStep("operation", len(points), ENDED),), [f"I7 {self.recorder.improper}"])
        self._spread(points, (), "operation", None)
        for run in ("again",) * self.case.again + ("then",) * (self.case.then is not None):
            for point in points:
                path = (PathStep("operation", point.number, KILLED),)
                try:
                    after = self.points_of(run, point.storage, point.models, 1)
                except DiskwrightError as error:
                    step = PathStep(run, len(self.recorder.points), ENDED)
                    self._violation((*path, step), [f"{run} after a kill fails: {error}"])
                else:
                    self._spread(after, path, run, None)
        return len(points) - 1

    def points_of(self, run: str, storage: SimStorage, models: tuple[Model, ...], depth: int) -> list[Moment]:
        """Run the case, or what follows a kill, or the first fix of that rule, on a copy of ``storage``, and record
        it. ``depth``: how many runs there were before. Raises what the engine raises."""
        world = self.driver.world.fork(storage.clone(), self.recorder)
        if run in ("operation", "again", "then"):
            driver = self.driver.fork(world)
            operation = self.case.operation
            if run != "operation":
                driver.on(RESCUERS[0])
            if run == "then":
                assert self.case.then is not None
                operation = self.case.then
                seen = observe(world, driver.engine(), models, self.case.strangers)
                driver.models = models if _undecided(storage) else seen.models
            return self.recorder.run(world.storage, lambda: driver.models, lambda: operation(driver))
        host = world.host(RESCUERS[depth % 2])
        found = observe(world, host, models, self.case.strangers)
        repo, fix = next((repo, fix) for repo, fix in found.fixes if fix.rule == run)
        models = models if _undecided(storage) else found.models
        return self.recorder.run(world.storage, lambda: models, lambda: host.run_fix_here(repo, fix))

    def _spread(self, points: list[Moment], path: tuple[PathStep, ...], run: str, above: Rank | None) -> None:
        """All states that this run can leave; without ``recover`` those of the case itself, and the ends."""
        alive = any(step.state == KILLED for step in path)
        crashed = self._recover or not path
        if self.profile.names == "kept":
            points = [point._replace(storage=_settled(point.storage)) for point in points]
        for index, point in enumerate(points):
            last = index == len(points) - 1
            if self._sample and not last and index % -(-len(points) // self._sample):
                continue
            pending = pending_count(point.storage)
            if not alive:
                self.max_pending = max(self.max_pending, pending)
                if pending > MAX_PENDING:
                    self._violation(
                        (*path, PathStep(run, point.number, KILLED)),
                        [f"I16 {pending} operations are pending at once", *point.storage.pending()],
                    )
            if last or (crashed and self._may_kill(path)):
                step = PathStep(run, point.number, ENDED if last else KILLED)
                self._add(Node(point.storage, point.models, (*path, step), above if last else None))
            if not crashed or self.profile.names == "kept":  # there a power cut leaves no more than a kill
                continue
            if self._is_cut_later(points, index):
                continue
            if pending > MAX_ENUMERATED:
                self.uncut += 1
                continue
            boring: list[int] = []
            if path:
                key, boring = key_and_boring(point.storage, exact=False)
                key += self._key_of(point.models)
                if key in self._cut_before:
                    continue
                self._cut_before.add(key)
            self._cut(point, path, run, boring)

    def _is_cut_later(self, points: list[Moment], index: int) -> bool:
        """Whether all that can be left before this effect can be left before the next one, and that is not left out."""
        if self._sample or index == len(points) - 1:
            return False
        return points[index].call in NAMES_ONLY and points[index + 1].models == points[index].models

    def _may_kill(self, path: tuple[PathStep, ...]) -> bool:
        """Whether a process that ran after ``path`` is also killed: when nothing was lost or killed before. Kills on
        top of each other are what the profile ``process`` is about."""
        return self.profile.names == "kept" or all(step.state == ENDED for step in path)

    def _cut(self, point: Moment, path: tuple[PathStep, ...], run: str, boring: list[int]) -> None:
        models = self._key_of(point.models)
        for number, cut in self._some(point.storage, boring):
            self.cuts += 1
            known = (cut.key, models)
            if known in self._raw:
                continue
            self._raw.add(known)
            # The first ones are told apart exactly, for which they must be built.
            rough = cut.canonical() + models if path else b""
            if rough not in self._seen:
                step = PathStep(run, point.number, number, cut.lost)
                self._add(Node(cut.build(), point.models, (*path, step)), rough)

    def _some(self, storage: SimStorage, boring: list[int]) -> Iterator[tuple[int, Cut]]:
        """The states of a power cut; of a sample the first, which loses nothing, the last, and few between them."""
        every: Iterator[tuple[int, Cut]] = enumerate(cuts(storage, self.profile, boring))
        if self._sample:
            last = sum(1 for _ in cuts(storage, self.profile, boring)) - 1
            step = -(-last // _CUTS_OF_A_SAMPLE) or 1
            every = ((number, cut) for number, cut in every if number == last or number % step == 0)
        return every

    def _add(self, node: Node, rough: bytes = b"") -> None:
        """Visit a node later, if none that is alike was found before. ``rough``: its key, where it is known."""
        models = self._key_of(node.models)
        rough = rough or canonical_key(node.storage, exact=False) + models
        if len(node.path) > 1:
            if rough in self._seen:
                return
        else:
            exact = canonical_key(node.storage) + models
            if exact in self._seen:
                return
            self._seen.add(exact)
        self._seen.add(rough)
        self._queue.append(node)

    def _key_of(self, models: tuple[Model, ...]) -> bytes:
        known = self._keys.get(id(models))
        if known is None or known[0] is not models:
            known = models, b"".join(sorted(model.key() for model in models))
            self._keys[id(models)] = known
        return known[1]

    # -- one state

    def look(self, storage: SimStorage, models: tuple[Model, ...], depth: int) -> tuple[World, Engine, Observation]:
        """A host starts and checks a copy of ``storage``."""
        world = self.driver.world.fork(storage.clone(), self.recorder)
        host = world.host(RESCUERS[depth % 2])
        try:
            return world, host, observe(world, host, models, self.case.strangers)
        except (DiskwrightError, AssertionError) as error:
            return world, host, Observation(models, (), (), (), (f"I11 the check fails: {error!r}",))

    def _visit(self, node: Node) -> None:
        self.states += 1
        self.depth = max(self.depth, len(node.path))
        world, host, found = self.look(node.storage, node.models, len(node.path))
        problems = list(found.problems)
        if node.above is not None and not problems and found.rank >= node.above:
            problems.append(f"I10 the fix brought nothing nearer to its end: rank {node.above} then {found.rank}")
        if problems:
            self._violation(node.path, problems)
            return
        early = all(step.state == ENDED for step in node.path[1:])
        for number, (repo, fix) in enumerate(found.fixes if early else found.fixes[:1]):
            if number:  # in another order, whole
                world = self.driver.world.fork(node.storage.clone(), self.recorder)
                host = world.host(RESCUERS[len(node.path) % 2])
            self._fix(node, world, host, found, repo, fix, number == 0, early)

    def _fix(
        self, node: Node, world: World, host: Engine, found: Observation, repo: str, fix: Fix, crash: bool, early: bool
    ) -> None:
        # What is seen and not durable may still be lost: then nothing is decided yet.
        models = node.models if _undecided(node.storage) else found.models
        self.rules[fix.rule] += 1
        try:
            points = self.recorder.run(world.storage, lambda: models, lambda: host.run_fix_here(repo, fix))
        except (DiskwrightError, AssertionError) as error:
            step = PathStep(fix.rule, len(self.recorder.points), ENDED)
            self._violation((*node.path, step), [f"I10 the fix {fix.rule} of {fix.target} fails: {error!r}"])
            return
        if self.recorder.improper:
            self._violation((*node.path, PathStep(fix.rule, len(points), ENDED)), [f"I7 {self.recorder.improper}"])
        self._spread(points if crash else points[-1:], node.path, fix.rule, found.rank)
        if early:
            self._again(node, world, host, repo, fix, points[-1])

    def _again(self, node: Node, world: World, host: Engine, repo: str, fix: Fix, end: Moment) -> None:
        """The same fix once more is refused, or there is nothing to do; and nothing is written."""
        with contextlib.suppress(DiskwrightError):
            host.run_fix_here(repo, fix)
        if world.storage.fingerprint() != end.storage.fingerprint():
            step = PathStep(fix.rule, end.number, ENDED)
            self._violation((*node.path, step), [f"I9 the fix {fix.rule} does something when it is run again"])

    def _violation(self, path: tuple[PathStep, ...], problems: list[str]) -> None:
        if len(self.violations) < self._max_violations:
            self.violations.append(Violation(self.case.name, self.profile.name, path, tuple(problems)))


def _undecided(storage: SimStorage) -> bool:
    return bool(storage.log or storage.dirty)


def _settled(storage: SimStorage) -> SimStorage:
    """Where only processes die, what is not durable makes no difference."""
    copy = storage.clone()
    copy.settle()
    return copy
