"""Whatever order the offered fixes are run in, and wherever one is killed, no image gets worse, and the end is clean.

The graph that is walked: a node is a storage, the models that it may be, and how many kills are left. From a node each
fix that is offered is run, by another host than the one before; the run to its end is a node, and so is what it leaves
when it is killed before one of its effects. Nodes that are alike to the engine are visited once, whichever case led
to them. In every node all images are compared with the models; an image that could be used can be used ever after;
a fix that ran to its end has brought something nearer; and where no fix is left nothing else is left over.

Where power fails too, what is left is a node for some of the states that a cut before that effect, or after the end of
the run, may leave. All of them are walked through by ``sim.explore.search.explorer``, in the cases that people wrote.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import NamedTuple

from engine.data.model import Fix
from engine.errors import DiskwrightError
from sim.disk.profiles import PROFILES
from sim.disk.storage import SimStorage
from sim.explore.cases.case import RESCUERS
from sim.explore.cases.driver import Driver
from sim.explore.cases.generated import Generated, do
from sim.explore.oracle.invariants import Observation, Rank, observe
from sim.explore.oracle.reference import Key, Model
from sim.explore.search.canonical import canonical_key
from sim.explore.search.cuts import cuts, pending_count
from sim.explore.search.explorer import MAX_ENUMERATED, EffectRecorder, Moment

_RULES = {"files": "posix", "nfs": "nfs", "lvm": "posix"}
"""What a power cut may leave, by where the repositories are."""


class Run(NamedTuple):
    """One fix that was run."""

    rule: str
    """Or the last verb of a case."""
    image: str
    killed: int = 0
    """Before which effect, from 1; 0: it ran to its end."""
    effect: str = ""
    state: int = 0
    """Of the states that a power cut there may leave, from 1; 0: the power has not failed."""

    def __str__(self) -> str:
        what = f"left in state {self.state} by a power cut" if self.state else "killed"
        how = f" {what} before effect {self.killed}, {self.effect or 'its end'}" if self.killed else ""
        return f"{self.rule}{f' of {self.image}' if self.image else ''}{how}"


class Node(NamedTuple):
    """A storage to start from."""

    storage: SimStorage
    models: tuple[Model, ...]
    kills: int
    """So many more processes may be killed."""
    path: tuple[Run, ...] = ()
    usable: frozenset[Key] = frozenset()
    """Images that could be used before."""
    above: Rank | None = None
    """The rank that this one must fall below: a fix ran to its end."""


class Wrong(NamedTuple):
    """What must not be, and how it came about."""

    case: str
    path: tuple[Run, ...]
    problems: tuple[str, ...]


class Convergence:
    """Walks through the fixes of cases, one after the other."""

    def __init__(self, kills: int = 1, most_effects: int = 1_000_000, cuts: int = 0) -> None:
        """``kills``: so many fixes of a path may be killed. ``most_effects``: each before so many effects at most.
        ``cuts``: the power fails there too, and in the last verb of a case, which is killed as well; so many of the
        states that it may leave are walked from."""
        self.recorder = EffectRecorder()
        self.nodes = 0
        self.rules: Counter[str] = Counter()
        self._kills = kills
        self._most_effects = most_effects
        self._most_cuts = cuts
        self._rules = PROFILES[_RULES["files"]]
        self._cut_before: set[tuple[int, bytes]] = set()
        """States of power cuts that were walked from."""
        self._seen: dict[bytes, int] = {}
        """Nodes that were visited, and how many kills were left there."""

    def walk(self, case: Generated) -> Iterator[Wrong | None]:
        """Visit all nodes of a case that no case before it has led to; yield for each what is wrong there. What lies
        behind something wrong is not visited."""
        self._rules = PROFILES[_RULES[case.start.on]]
        todo = deque([Node(case.driver.world.storage, case.driver.models, self._kills), *self._interrupted(case)])
        while todo:
            node = todo.popleft()
            if not self._is_new(node):
                continue
            self.nodes += 1
            problems, following = self._visit(case.driver, node)
            yield Wrong(str(case), node.path, tuple(problems)) if problems else None
            todo += following

    def _is_new(self, node: Node) -> bool:
        key = canonical_key(node.storage, exact=False) + b"".join(sorted(model.key() for model in node.models))
        if self._seen.get(key, -1) >= node.kills:
            return False
        self._seen[key] = node.kills
        return True

    def _visit(self, driver: Driver, node: Node) -> tuple[list[str], list[Node]]:
        """What is wrong in a node, and those that follow it."""
        found = self._look(driver, node)
        problems = list(found.problems)
        problems += [f"{repo}/{_name(driver, image)} could be used and cannot be used now"
                     for repo, image in sorted(node.usable - found.usable)]  # fmt: skip
        if node.above is not None and not problems and found.rank >= node.above:
            problems.append(f"I10 the fix brought nothing nearer to its end: rank {node.above} then {found.rank}")
        following: list[Node] = []
        for repo, fix in () if problems else found.fixes:
            run = Run(fix.rule, f"{repo}/{_name(driver, fix.target)}")
            try:
                points = self._run(driver, node, found.models, repo, fix)
            except (DiskwrightError, AssertionError) as error:
                problems.append(f"I10 the fix {run} fails: {error!r}")
                continue
            if self.recorder.improper:
                problems.append(f"I7 {run}: {self.recorder.improper}")
            following += self._leads_to(node, found, run, points)
        return problems, following

    def _run(self, driver: Driver, node: Node, models: tuple[Model, ...], repo: str, fix: Fix) -> list[Moment]:
        self.rules[fix.rule] += 1
        world = driver.world.fork(node.storage.clone(), self.recorder)
        host = world.host(RESCUERS[len(node.path) % 2])
        return self.recorder.run(world.storage, lambda: models, lambda: host.run_fix_here(repo, fix))

    def _look(self, driver: Driver, node: Node) -> Observation:
        world = driver.world.fork(node.storage.clone(), self.recorder)
        try:
            return observe(world, world.host(RESCUERS[len(node.path) % 2]), node.models)
        except (DiskwrightError, AssertionError) as error:
            return Observation(node.models, (), (), (), (f"I11 the check fails: {error!r}",))

    def _leads_to(self, node: Node, found: Observation, run: Run, points: list[Moment]) -> Iterator[Node]:
        """The end of a run, and what it leaves when it is killed."""
        *killed, end = points
        yield Node(_settled(end.storage), found.models, node.kills, (*node.path, run), found.usable, found.rank)
        step = -(-len(killed) // self._most_effects)
        for point in killed[::step] if node.kills else ():
            path = (*node.path, run._replace(killed=point.number, effect=f"{point.call} {point.what}"))
            yield Node(_settled(point.storage), found.models, node.kills - 1, path, found.usable)
        for point in (*killed[::step], end) if node.kills else ():
            yield from self._cut(node._replace(models=found.models, usable=found.usable), run, point)

    def _cut(self, node: Node, run: Run, point: Moment) -> Iterator[Node]:
        """Some of what a power cut may leave, evenly out of all, that in which most is lost among them."""
        if not self._most_cuts or pending_count(point.storage) > MAX_ENUMERATED:
            return
        states = list(enumerate(cuts(point.storage, self._rules)))[1:]
        models = b"".join(sorted(model.key() for model in node.models))
        for number, cut in states[:: -(-len(states) // self._most_cuts) or 1] + states[-1:]:
            if (cut.key, models) not in self._cut_before:
                self._cut_before.add((cut.key, models))
                effect = f"{point.call} {point.what}".strip()
                path = (*node.path, run._replace(killed=point.number, effect=effect, state=number))
                yield Node(cut.build(), node.models, node.kills - 1, path, node.usable)

    def _interrupted(self, case: Generated) -> Iterator[Node]:
        """What the last verb leaves when it is killed, and when the power fails. Not a write: what a copy shows that
        follows the disk is not told by a write that is half done."""
        if case.before is None or not self._most_cuts or case.verbs[-1].word == "write":
            return
        world = case.before.world.fork(case.before.world.storage.clone(), self.recorder)
        driver = case.before.fork(world)
        *killed, end = self.recorder.run(world.storage, lambda: driver.models, lambda: do(driver, case.verbs[-1]))
        run = Run(str(case.verbs[-1]), "")
        step = -(-len(killed) // self._most_effects)
        for point in killed[::step]:
            stopped = run._replace(killed=point.number, effect=f"{point.call} {point.what}")
            yield Node(_settled(point.storage), point.models, self._kills - 1, (stopped,))
        for point in (*killed[::step], end):
            yield from self._cut(Node(point.storage, point.models, self._kills), run, point)


def _settled(storage: SimStorage) -> SimStorage:
    """Where only processes die, what is not durable makes no difference."""
    copy = storage.clone()
    copy.settle()
    return copy


def _name(driver: Driver, image: str) -> str:
    return next((name for name, known in driver.named.items() if known == image), image or "the repository")
