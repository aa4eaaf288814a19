"""One random run: rounds in which hosts act at once under faults, and what may be found after each of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from engine.api import Engine
from sim.explore.cases import operations
from sim.explore.cases.driver import FILES, KiB
from sim.explore.cases.operations import Operation, outcomes, summaries
from sim.explore.oracle.invariants import observe
from sim.explore.oracle.recovery import recover
from sim.explore.oracle.reference import Model
from sim.hosts.faults import KINDS, Faults
from sim.hosts.tape import Tape
from sim.hosts.world import FORMAT, Job, World

HOSTS = ("one", "two", "three")
RESCUER = "rescuer"
REPOSITORIES = ("a", "b")
ROUNDS = 6
SIZES = (64 * KiB, 256 * KiB - 300, 256 * KiB)
_MOST_IMAGES = 9
_MOST_MODELS = 64


class RunResult(NamedTuple):
    """What came of one seed."""

    seed: int
    problems: tuple[str, ...]
    told: tuple[str, ...]
    """What was done, line by line."""
    digest: str
    """Of the trace: equal for equal runs."""
    steps: int
    tape: tuple[int, ...]


class RandomRun:
    """One run."""

    format = FORMAT
    kinds: tuple[str, ...] = KINDS
    """Faults that may happen."""
    pace = 300
    """About so many calls has a round."""

    def __init__(self, tape: Tape, rounds: int = ROUNDS) -> None:
        self._tape = tape
        self._rounds = rounds
        self.told: list[str] = []
        self.world = World(tape, format=self.format)
        self.world.storage.make_directory(FILES)
        self.world.create(*REPOSITORIES)
        for host in (*HOSTS, RESCUER):
            self.world.host(host).close()
        self.world.storage.settle()
        self.world.trace.lines.clear()
        self.models: tuple[Model, ...] = (Model(),)

    def play(self) -> list[str]:
        """All of it; what is wrong."""
        for number in range(self._rounds):
            problems = self._round(number)
            if problems:
                return problems
        self.told.append("peace")
        self._make_peace()
        return recover(self.world, self.models, RESCUER)

    def _make_peace(self) -> None:
        """Before everything is brought in order."""

    def _round(self, number: int) -> list[str]:
        world, tape = self.world, self._tape
        count = 1 + tape.choose(3, "hosts")
        doing = [self._operation(self.models[tape.choose(len(self.models), "model")]) for _ in range(count)]
        jobs = self._start(doing)
        kinds = tuple(kind for kind in self.kinds if number and not tape.choose(2, f"no {kind}"))
        faults = Faults(kinds, self.pace // 5, 1 + tape.choose(3, "how many faults")) if kinds else None
        world.run(world.pct(1 + tape.choose(3, "depth"), self.pace), faults)
        self.told += [f"round {number}: {line}" for line in summaries(doing, jobs)]
        self.models = outcomes(self.models, doing, jobs)
        if not self.models:
            return ["no order of the operations explains what was acknowledged"]
        self._end()
        if tape.choose(2, "power cut"):
            world.power_cut()
            self.told.append(world.trace.lines[-1])
        world.storage.settle()
        return self._look()

    def _start(self, doing: list[Operation]) -> list[Job]:
        """Each by another host."""
        return [self.world.start(host, operation.run) for host, operation in zip(HOSTS, doing, strict=False)]

    def _end(self) -> None:
        """Nobody runs any more."""
        for host in list(self.world.hosts):
            self.world.bury(host)

    @contextlib.contextmanager
    def _rescuer(self) -> Iterator[Engine]:
        """A process that looks, and ends."""
        yield self.world.host(RESCUER)
        self.world.bury(RESCUER)

    def _look(self) -> list[str]:
        with self._rescuer() as engine:
            found = observe(self.world, engine, self.models)
        self.models = found.models[:_MOST_MODELS]
        if not found.problems:
            self.models = tuple(self._named(model) for model in self.models)
        return list(found.problems)

    def _named(self, model: Model) -> Model:
        """Give the images whose ids nobody was told the ids under which they are found."""
        with self._rescuer() as engine:
            for repo, image in model.unnamed:
                for found in engine.list_images(repo):
                    if (repo, found.id) not in model.images and not found.removed:
                        data = engine.get_user_data(repo, found.id)
                        if (found.size_bytes, found.mutable, data) == (image.size, image.mutable, image.user_data):
                            model = model.made(repo, found.id, image)
                            break
        return model._replace(unnamed=())

    # -- what to do

    def _operation(self, model: Model) -> Operation:
        images = sorted(model.images)
        tape = self._tape
        if not images or (len(images) < _MOST_IMAGES and not tape.choose(6, "a new disk")):
            return operations.create(self._repository(), self._size(), **self._strategy())
        repo, image = images[tape.choose(len(images), "image")]
        known = model.images[repo, image]
        if known.removed:
            choices: list[Callable[[], Operation]] = [lambda: operations.restore(repo, image), self._any_fix]
        else:
            choices = [
                self._any_fix,
                lambda: self._work(repo, image, known.mutable, known.size),
                lambda: operations.user_data(repo, image, {"n": tape.choose(1000, "user data")}),
                lambda: operations.remove(repo, image),
                lambda: operations.strategy(repo, image, ("space", "performance")[tape.choose(2, "strategy")]),
                lambda: self._work(repo, image, known.mutable, known.size),
            ]
        return choices[tape.choose(len(choices), "verb")]()

    def _work(self, repo: str, image: str, mutable: bool, size: int) -> Operation:
        tape = self._tape
        if mutable:
            if tape.choose(2, "snapshot or write"):
                offset = tape.choose(size // (4 * KiB), "where") * 4 * KiB
                return operations.write(repo, image, offset, bytes([1 + tape.choose(255, "what")]) * 4 * KiB)
            return operations.snapshot(repo, image)
        other = REPOSITORIES[1 - REPOSITORIES.index(repo)]
        if tape.choose(2, "copy or base"):
            return operations.copy(repo, image, other, auto_fix=bool(tape.choose(2, "auto fix")), **self._strategy())
        where = self._repository()
        return operations.create(
            where, max(size, self._size()), (repo, image), image_hints={image: repo}, **self._strategy()
        )

    def _any_fix(self) -> Operation:
        return operations.fix(self._repository(), self._tape.choose(8, "fix"))

    def _repository(self) -> str:
        return REPOSITORIES[self._tape.choose(len(REPOSITORIES), "repository")]

    def _size(self) -> int:
        return SIZES[self._tape.choose(len(SIZES), "size")]

    def _strategy(self) -> dict[str, Any]:
        return {"strategy": ("space", "performance")[self._tape.choose(2, "strategy")]}
