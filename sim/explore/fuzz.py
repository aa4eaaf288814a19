"""``diskwright sim fuzz``: random verbs of several hosts, random schedules, random faults; then peace.

One seed is one run: some rounds, in each of which two or three hosts act at once (schedules by priorities,
as PCT has it) while calls fail, processes are killed or frozen, clocks jump and the power goes; after each
round the storage is settled or its power is cut. What may then be found is computed by the reference
model, and compared. At the end faults stop: one host must bring everything in order, in bounded steps.

Everything that is left to chance comes from one tape, so the same seed gives the same trace. Exit
codes: 0 nothing found, 1 a violation, 2 a wrong request.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from engine.errors import BadRequest, DiskwrightError
from sim.arguments import Parser
from sim.explore import acts
from sim.explore.acts import Act, outcomes, told
from sim.explore.invariants import observe
from sim.explore.recovery import recover
from sim.explore.reference import Model
from sim.explore.stage import FILES, KiB
from sim.hosts.crash import Crashed
from sim.hosts.faults import KINDS, Faults
from sim.hosts.tape import Tape
from sim.hosts.world import World

COMMAND = "diskwright sim fuzz"
HOSTS = ("one", "two", "three")
REPOSITORIES = ("a", "b")
ROUNDS = 6
SIZES = (64 * KiB, 256 * KiB - 300, 256 * KiB)
_MOST_IMAGES = 9
_MOST_MODELS = 64


class Outcome(NamedTuple):
    """What came of one seed."""

    seed: int
    problems: tuple[str, ...]
    told: tuple[str, ...]
    """What was done, line by line."""
    digest: str
    """Of the trace: equal for equal runs."""
    steps: int
    tape: tuple[int, ...]


class Run:
    """One run."""

    def __init__(self, tape: Tape, rounds: int = ROUNDS) -> None:
        self._tape = tape
        self._rounds = rounds
        self.told: list[str] = []
        self.world = World(tape)
        self.world.storage.make_directory(FILES)
        self.world.create(*REPOSITORIES)
        for host in (*HOSTS, "rescuer"):
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
        return recover(self.world, self.models)

    def _round(self, number: int) -> list[str]:
        world, tape = self.world, self._tape
        count = 1 + tape.choose(3, "hosts")
        doing = [self._act(self.models[tape.choose(len(self.models), "model")]) for _ in range(count)]
        jobs = [world.start(host, act.run) for host, act in zip(HOSTS, doing, strict=False)]
        kinds = tuple(kind for kind in KINDS if number and not tape.choose(2, f"no {kind}"))
        faults = Faults(kinds, 60, 1 + tape.choose(3, "how many faults")) if kinds else None
        world.run(world.pct(1 + tape.choose(3, "depth"), 300), faults)
        self.told += [f"round {number}: {line}" for line in told(doing, jobs)]
        self.models = outcomes(self.models, doing, jobs)
        if not self.models:
            return ["no order of the acts explains what was acknowledged"]
        for host in list(world.hosts):
            world.bury(host)
        if tape.choose(2, "power cut"):
            world.power_cut()
            self.told.append(world.trace.lines[-1])
        world.storage.settle()
        return self._look()

    def _look(self) -> list[str]:
        engine = self.world.host("rescuer")
        found = observe(self.world, engine, self.models)
        self.world.bury("rescuer")
        self.models = found.models[:_MOST_MODELS]
        if not found.problems:
            self.models = tuple(self._named(model) for model in self.models)
        return list(found.problems)

    def _named(self, model: Model) -> Model:
        """Give the images whose ids nobody was told the ids under which they are found."""
        engine = self.world.host("rescuer")
        for repo, image in model.unnamed:
            for found in engine.list_images(repo):
                if (repo, found.id) not in model.images and not found.removed:
                    data = engine.get_user_data(repo, found.id)
                    if (found.size_bytes, found.mutable, data) == (image.size, image.mutable, image.user_data):
                        model = model.made(repo, found.id, image)
                        break
        self.world.bury("rescuer")
        return model._replace(unnamed=())

    # -- what to do

    def _act(self, model: Model) -> Act:
        images = sorted(model.images)
        tape = self._tape
        if not images or (len(images) < _MOST_IMAGES and not tape.choose(6, "a new disk")):
            return acts.create(self._repository(), self._size(), **self._strategy())
        repo, image = images[tape.choose(len(images), "image")]
        known = model.images[repo, image]
        if known.removed:
            choices: list[Callable[[], Act]] = [lambda: acts.restore(repo, image), self._any_fix]
        else:
            choices = [
                self._any_fix,
                lambda: self._work(repo, image, known.mutable, known.size),
                lambda: acts.user_data(repo, image, {"n": tape.choose(1000, "user data")}),
                lambda: acts.remove(repo, image),
                lambda: acts.strategy(repo, image, ("space", "performance")[tape.choose(2, "strategy")]),
                lambda: self._work(repo, image, known.mutable, known.size),
            ]
        return choices[tape.choose(len(choices), "verb")]()

    def _work(self, repo: str, image: str, mutable: bool, size: int) -> Act:
        tape = self._tape
        if mutable:
            if tape.choose(2, "snapshot or write"):
                offset = tape.choose(size // (4 * KiB), "where") * 4 * KiB
                return acts.write(repo, image, offset, bytes([1 + tape.choose(255, "what")]) * 4 * KiB)
            return acts.snapshot(repo, image)
        other = REPOSITORIES[1 - REPOSITORIES.index(repo)]
        if tape.choose(2, "copy or base"):
            return acts.copy(repo, image, other, auto_fix=bool(tape.choose(2, "auto fix")), **self._strategy())
        where = self._repository()
        return acts.create(where, max(size, self._size()), (repo, image), image_hints={image: repo}, **self._strategy())

    def _any_fix(self) -> Act:
        return acts.fix(self._repository(), self._tape.choose(8, "fix"))

    def _repository(self) -> str:
        return REPOSITORIES[self._tape.choose(len(REPOSITORIES), "repository")]

    def _size(self) -> int:
        return SIZES[self._tape.choose(len(SIZES), "size")]

    def _strategy(self) -> dict[str, Any]:
        return {"strategy": ("space", "performance")[self._tape.choose(2, "strategy")]}


def fuzz(seed: int, tape: Tape | None = None, rounds: int = ROUNDS) -> Outcome:
    """One seed, or one recorded tape."""
    tape = tape if tape is not None else Tape.seeded(seed)
    run = Run(tape, rounds)
    try:
        problems = run.play()
    except (AssertionError, DiskwrightError, Crashed, OSError) as error:
        problems = [f"{type(error).__name__}: {error}"]
    lines = run.world.trace.lines
    return Outcome(seed, tuple(problems), tuple(run.told), run.world.trace.digest, len(lines), tuple(tape.values))


def shrunk(outcome: Outcome, seconds: float = 20.0) -> Outcome:
    """The same failure from a tape with fewer choices that are not 0."""
    deadline = time.monotonic() + seconds
    best = outcome
    step = max(1, len(best.tape) // 2)
    while step and time.monotonic() < deadline:
        position = 0
        while position < len(best.tape) and time.monotonic() < deadline:
            part = best.tape[position : position + step]
            if any(part):
                tried = (*best.tape[:position], *(0,) * len(part), *best.tape[position + step :])
                found = fuzz(outcome.seed, Tape(tried))
                if found.problems and len(found.tape) <= len(best.tape):
                    best = found
            position += step
        step //= 2
    return best


def main(argv: Sequence[str]) -> int:
    """Entry point of the command."""
    try:
        options = make_parser().parse_args(argv)
    except SystemExit as done:  # --help
        return int(done.code or 0)
    if not options.replay:
        return _fuzz_on(options)
    try:
        with open(options.replay, encoding="utf-8") as stream:
            data = json.load(stream)
        outcome = fuzz(int(data["seed"]), Tape([int(value) for value in data["tape"]]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadRequest(f"{options.replay!r:.200} is no saved run: {error}", f"{COMMAND} saves one") from None
    _tell(options, outcome, *_lines(outcome))
    return 1 if outcome.problems else 0


def _fuzz_on(options: argparse.Namespace) -> int:
    started, seed, steps = time.monotonic(), options.seed, 0
    while time.monotonic() - started < options.seconds:
        outcome = fuzz(seed)
        steps += outcome.steps
        if outcome.problems:
            small = shrunk(outcome)
            name = options.save or f"fuzz-{seed}.json"
            with open(name, "w", encoding="utf-8") as stream:
                json.dump({"seed": seed, "tape": small.tape, "problems": small.problems}, stream)
            _tell(options, small, *_lines(small), f"{COMMAND} --replay {name}")
            return 1
        if options.verbose and not options.json:
            _say(f"seed {seed}: {outcome.steps} steps, trace {outcome.digest}")
        seed += 1
    spent = time.monotonic() - started
    _tell(options, None, f"seeds {options.seed} to {seed - 1}: {steps} steps in {spent:.1f} s, nothing found")
    return 0


def _tell(options: argparse.Namespace, outcome: Outcome | None, *lines: str) -> None:
    if options.json:
        found = [] if outcome is None else list(outcome.problems)
        _say(json.dumps({"problems": found, "told": lines}, indent=1))
    else:
        _say(*lines)


def make_parser() -> Parser:
    """What the command understands."""
    parser = Parser(
        COMMAND,
        "Random verbs of several hosts under random schedules and faults, then recovery.",
        "exit codes: 0 nothing found, 1 a violation (the run is saved, and shrunk), 2 wrong usage",
    )
    parser.add_argument("--seconds", type=float, default=60.0, metavar="N", help="how long (default: 60)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="the first seed (default: 1)")
    parser.add_argument("--save", metavar="FILE", help="where a failing run goes (default: fuzz-SEED.json)")
    parser.add_argument("--replay", metavar="FILE", help="run a saved one again")
    parser.add_argument("--verbose", action="store_true", help="a line for each seed")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    return parser


def _lines(outcome: Outcome) -> list[str]:
    return [*outcome.told, *(f"VIOLATION {problem}" for problem in outcome.problems), f"trace {outcome.digest}"]


def _say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)  # noqa: T201 - this is a command


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
