"""``diskwright lab torture``: random operations on hosts that are killed and frozen at random moments.

Round after round every host does something while one of them dies, before a random effect or at a random time, or
freezes longer than its locks live. Another host carries on. Then everything must be there that was acknowledged, with
exactly its content, and what was not acknowledged must be there whole or not at all. Contents that nothing happened
to in a round are read by turns; in every fourth round and in the last one all are, of all repositories.

A seed repeats the choices. It does not repeat the timing of the hosts, so a failure may need several runs.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from engine.api import Engine
from engine.data.model import FixType, Risk
from engine.errors import BadRequest, DiskwrightError
from sim.scenario.backends.backend import Ended
from sim.scenario.backends.operations import read
from sim.scenario.backends.real.base import Worker
from sim.scenario.backends.real.clusters import close as close_world
from sim.scenario.backends.real.lab import LabBackend, LabProcess
from sim.scenario.language.model import Interruption, Point, RepositoryPlan, Scenario
from sim.trials.torture.model import Model
from sim.trials.torture.operations import Action, Choices

FORMATS = ("nfs", "lvm", "local")
REPOSITORIES = ("main", "backup")
_MOST_EFFECTS = 60
_LONGEST_S = 2.5
_FROZEN_S = 14.0  # longer than the NFS server's lease of 10 s
_PATIENCE_S = 150.0
_LOOK_AGAIN_S = 1.0
_EVERYTHING_EVERY = 4
_TURNS = 3
_PEACEFUL_AT_MOST = 2

Tell = Callable[[str], None]


class Result(NamedTuple):
    """What came of it."""

    seed: int
    rounds: int
    """Rounds that were finished."""
    operations: int
    acknowledged: int
    deaths: int
    freezes: int
    contents: int
    """Images whose content was compared."""
    wrong: tuple[str, ...]
    """Nothing, or what is wrong; the torture ends with that."""


def torture(format: str, rounds: int, seed: int, tell: Tell = lambda line: None) -> Result:
    """Run it. ToolMissing, LabError: this machine cannot; BadRequest."""
    if format not in FORMATS:
        raise BadRequest(f"there is no torture of {format!r:.40}", f"Formats: {', '.join(FORMATS)}")
    run = _Torture(format, seed, tell)
    try:
        return run.all(rounds)
    finally:
        run.close()


def _scenario(format: str) -> Scenario:
    full = {"nfs": "nfs-1.0", "lvm": "lvm-1.0", "local": "localfs-1.0"}[format]
    plans = tuple(RepositoryPlan(name, name, full) for name in REPOSITORIES)
    hosts = ("host-a",) if format == "local" else ("host-a", "host-b")
    return Scenario("torture", "torture", "", ("lab",), "posix", plans, hosts, ())


class _Torture:
    def __init__(self, format: str, seed: int, tell: Tell) -> None:
        scenario = _scenario(format)
        self._format = format
        self._seed = seed
        self._tell = tell
        self._random = random.Random(seed)
        self._backend = LabBackend(scenario, seed)
        self._hosts = list(scenario.hosts)
        self._model = Model()
        self._choices = Choices(self._model, REPOSITORIES, self._random)
        self._counts: Counter[str] = Counter()
        self._jobs = 0
        self._number = 0
        self._touched: set[str] = set()
        self._places: set[str] = set()
        self._wrong: list[str] = []
        self._manager = self._hosts[0]
        if format == "lvm":
            for repo in REPOSITORIES:
                self._run(self._manager, "take_srm", {"repo": repo, "dead": ""})

    def close(self) -> None:
        """The hosts die."""
        self._backend.close()
        close_world()

    def all(self, rounds: int) -> Result:
        """Rounds until something is wrong."""
        wrong: list[str] = []
        finished = 0
        for number in range(1, rounds + 1):
            self._number = number
            told = self._round()
            everything = number % _EVERYTHING_EVERY == 0 or number == rounds
            wrong = self._verify(everything)
            count = len(self._model.there())
            self._tell(f"round {number}: {told}; {count} images {'WRONG' if wrong else 'are as they must be'}")
            if wrong:
                break
            finished += 1
        counts = self._counts
        return Result(
            self._seed, finished, counts["operations"], counts["acknowledged"], counts["deaths"], counts["freezes"],
            counts["contents"], tuple(wrong),
        )  # fmt: skip

    # -- one round

    def _workers(self) -> list[str]:
        """Hosts that can work now: of LVM repositories only the manager."""
        return [self._manager] if self._format == "lvm" else list(self._hosts)

    def _peace(self) -> None:
        """Some operations that nobody interrupts."""
        for _ in range(self._random.randint(0, _PEACEFUL_AT_MOST)):
            action = self._choices.choose(frozenset())
            self._counts["operations"] += 1
            self._mark(action)
            host = self._random.choice(self._workers())
            self._judge(action, self._run(host, action.verb, action.arguments))

    def _mark(self, action: Action) -> None:
        """Note the images of an action, to be looked at after this round."""
        self._touched |= action.images
        self._places.add(action.arguments["repo"])

    def _round(self) -> str:
        self._peace()
        hosts = self._workers()
        victim = self._random.choice(hosts)
        events = ["none", "kill before an effect", "kill before an effect", "kill at a moment"]
        event = self._random.choice(events if self._format == "local" else [*events, "freeze"])
        point = Point(effect=self._random.randint(1, _MOST_EFFECTS))
        moment = self._random.uniform(0.0, _LONGEST_S)
        busy: frozenset[str] = frozenset()
        started: list[tuple[str, Action, Worker[LabProcess]]] = []
        for host in hosts:
            action = self._choices.choose(busy)
            busy |= action.images
            self._mark(action)
            self._jobs += 1
            self._counts["operations"] += 1
            stops = host == victim and event in ("kill before an effect", "freeze")
            interruption = Interruption("freeze", point, f"job-{self._jobs}") if stops else None
            worker = self._backend.begin(host, action.verb, action.arguments, interruption, look=False)
            started.append((host, action, worker))
        told = [f"{host} {action.about}" for host, action, _ in started]
        mine = next(worker for host, _, worker in started if host == victim)
        told.append(self._strike(victim, mine, event, moment))
        for _host, action, worker in started:
            self._judge(action, self._backend.end(worker))
        self._recover(victim)
        return ", ".join(filter(None, told))

    def _strike(self, victim: str, worker: Worker[LabProcess], event: str, moment: float) -> str:
        """Have it happen to the victim; what has happened, in words."""
        if event == "none":
            return ""
        if event == "kill at a moment":
            time.sleep(moment)
        elif not worker.process.wait_stopped():
            return f"{victim} was done before it could be struck"
        if event == "freeze":
            return self._freeze(victim, worker)
        self._backend.switch_off(victim)
        self._counts["deaths"] += 1
        return f"{victim} dies"

    def _freeze(self, victim: str, worker: Worker[LabProcess]) -> str:
        """Freeze a host until its locks expire and another host carries on; then wake it up. The role of a manager does
        not expire."""
        guest = self._backend.guest(victim)
        guest.freeze()
        self._counts["freezes"] += 1
        other = next(host for host in self._hosts if host != victim)
        if self._format == "nfs":
            time.sleep(_FROZEN_S)
            for repo in REPOSITORIES:
                self._run(other, *self._fix(repo, ""))
            self._places |= set(REPOSITORIES)
        elif self._run(other, "take_srm", {"repo": self._random.choice(REPOSITORIES), "dead": ""}).how == "done":
            self._wrong.append(f"{other} took the role of a manager that lives")
        guest.thaw()
        worker.process.go_on()
        return f"{victim} is frozen for a while"

    def _judge(self, action: Action, ended: Ended) -> None:
        if ended.how == "done":
            self._counts["acknowledged"] += 1
            action.done(ended.result)
        else:
            action.unsure()

    def _recover(self, victim: str) -> None:
        """A dead host comes back, before or after another has carried on. Of LVM another may become the manager."""
        if self._backend.guest(victim).state != "off":
            return
        others = [host for host in self._hosts if host != victim]
        if others and self._random.random() < 0.5:
            if self._format == "lvm":
                self._manager = others[0]
                for repo in REPOSITORIES:
                    self._run(self._manager, "take_srm", {"repo": repo, "dead": victim})
            for repo in REPOSITORIES:
                self._run(others[0], *self._fix(repo, "mend"))
        self._backend.switch_on(victim)

    def _fix(self, repo: str, type: str) -> tuple[str, dict[str, Any]]:
        action = self._choices.fix(repo, type)
        return action.verb, action.arguments

    def _run(self, host: str, verb: str, arguments: dict[str, Any]) -> Ended:
        return self._backend.run(host, verb, arguments, None, ())

    # -- afterwards

    def _verify(self, everything: bool) -> list[str]:
        """Let a host finish what is unfinished (or everything), and compare: where something was done, or all."""
        host = self._random.choice(self._workers())
        wrong, self._wrong = self._wrong, []
        with self._backend.engine(host) as engine:
            for repo in REPOSITORIES:
                if everything or repo in self._places:
                    wrong += self._finish(engine, repo, everything) or self._compare(engine, repo, everything)
        self._touched.clear()
        self._places.clear()
        return wrong

    def _finish(self, engine: Engine, repo: str, everything: bool) -> list[str]:
        """Run fixes until there are none. Locks of a host that has died may be held by the server for some time yet:
        what they are on is busy, and no fix of it is offered."""
        deadline = time.monotonic() + _PATIENCE_S
        why = "there is no end of its fixes"
        while time.monotonic() < deadline:
            report = engine.inspect_repository(repo)
            todo = [fix for fix in report.fixes if not fix.waits_for and fix.risk is not Risk.LOSES_DATA]
            todo = [fix for fix in todo if everything or fix.type is FixType.MEND]
            busy = [image.id for image in report.images if image.busy]
            if not todo and not busy:
                return []
            if todo:
                try:
                    engine.run_fix_here(repo, todo[0])
                    continue
                except DiskwrightError as error:
                    why = str(error)
            else:
                why = f"still in progress: {', '.join(busy)}"
            time.sleep(_LOOK_AGAIN_S)
        return [f"{repo} cannot be mended: {why}"]

    def _compare(self, engine: Engine, repo: str, everything: bool) -> list[str]:
        report = engine.inspect_repository(repo)
        names = sorted(image.id for image in self._model.there(repo))

        def content(image: str) -> bytes:
            known = self._model.images.get((repo, image))
            calm = known is not None and known.maybe is None and image not in self._touched and image in names
            if known and calm and not everything and (names.index(image) + self._number) % _TURNS:
                return known.data  # reading all of them takes longer than all the rest
            self._counts["contents"] += 1
            return read(engine, repo, image)

        try:
            wrong = self._model.settle(repo, report.images, content, lambda image: engine.get_user_data(repo, image))
        except DiskwrightError as error:
            return [f"what is in {repo} cannot be read: {error}"]
        left = [f"{fix.rule} ({fix.why})" for fix in report.fixes if not fix.waits_for]
        if everything and left:
            wrong.append(f"all fixes of {repo} have run, and there are more: {', '.join(left)}")
        wrong += [f"{one.subject} of {repo}: {one.text}" for one in report.findings if one.kind == "unknown"]
        return wrong
