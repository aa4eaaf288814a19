"""Random runs in which one host has an older program than the others, who bring all in order in the end.

It is judged at each effect of the older program: it publishes nothing over a record that it does not understand, and
neither deletes nor moves that record, or a volume that it alone names.
"""

from __future__ import annotations

import itertools
import re

from engine.errors import DiskwrightError
from sim.disk.files import Fault
from sim.explore.cases import operations
from sim.explore.cases.operations import Operation, outcomes, summaries
from sim.explore.cases.taking import offered, run_each_once
from sim.explore.oracle.newest import TAG
from sim.explore.oracle.reference import Model
from sim.explore.random.acts import ON_FILES
from sim.explore.random.rounds import HOSTS, RESCUER, ROUNDS, RandomRun
from sim.explore.search.explorer import EFFECTS
from sim.explore.together.versions import unfinished
from sim.hosts.crash import Crashed
from sim.hosts.processes import SimProcess
from sim.hosts.tape import Tape
from sim.hosts.versions import NewerWords
from sim.hosts.world import REPOSITORIES, Job, on_server

_VOLUME = re.compile(rf"{REPOSITORIES}/[^/]+/volumes/")
_MOST_FIXES = 6
_MOST_EFFECTS = 40


class VersionsRun(RandomRun):
    """One run."""

    acts = tuple(act for act in ON_FILES if act != "truncate")
    """Nothing is told by a snapshot of a disk that was cut: nobody here knows what it should show."""

    def __init__(self, tape: Tape, rounds: int = ROUNDS) -> None:
        super().__init__(tape, rounds)
        self._harm: list[str] = []
        self._older = HOSTS[tape.choose(len(HOSTS), "older")]
        for host in (*HOSTS, RESCUER):
            if host != self._older:
                self.world.machine(host).words = NewerWords()
        self.world.machine(self._older).watcher = self._watch
        self.told.append(f"{self._older} has an older program")

    def _round(self, number: int) -> list[str]:
        problems = super()._round(number)
        if not problems and self._tape.choose(4, "something is left undone"):
            self._leave_undone(1 + self._tape.choose(_MOST_EFFECTS, "killed before"))
            self._older_fixes()
            self.world.storage.settle()
            problems = self.look()
        return [*self._harm, *problems]

    def _leave_undone(self, dies: int) -> None:
        """Have the newer program do something, and kill it before that effect."""
        operation, job = self._begun(self.models[0]), Job()
        effects = itertools.count(1)

        def hook(process: SimProcess, call: str, what: str) -> Fault:
            if call in EFFECTS and what.startswith(REPOSITORIES) and next(effects) == dies:
                process.kill()
            return Fault.NONE

        self.world.hook = hook
        engine = self.world.host(RESCUER)
        try:
            job.result = operation.run(engine)
            job.done = True
        except DiskwrightError as error:
            job.error, job.done = error, True
        except Crashed:
            pass
        self.world.hook = None
        self.world.bury(RESCUER)
        self.told += [f"{RESCUER}: {line}" for line in summaries([operation], [job])]
        self.models = outcomes(self.models, [operation], [job])

    def _begun(self, model: Model) -> Operation:
        images = sorted(key for key, image in model.images.items() if not image.removed)
        if not images or self._tape.choose(2, "a fix"):
            return self._any_fix()
        repo, image = images[self._tape.choose(len(images), "image")]
        known = model.images[repo, image]
        return operations.snapshot(repo, image) if known.mutable else self._work(repo, image, False, known.size)

    def _older_fixes(self) -> None:
        """Whoever has the older program finds what the newer one has left undone, and does all that he is offered."""
        engine = self.world.host(self._older)
        done = run_each_once(engine, lambda: offered(engine, losing=False), _MOST_FIXES)
        self.told += [f"{self._older} runs {fix.rule} of {fix.target[:6]}" for _, fix in done]
        self.world.process_of(engine).end()

    def _watch(self, process: SimProcess, call: str, what: str) -> None:
        path, _, target = on_server(what).partition(" ")
        if call == "files.link" and (match := TAG.match(target)):
            for one in unfinished(self.world.storage):
                if match.groups()[:2] == (one.root, one.tag) and target > one.path:
                    self._harm.append(f"{process} writes over {one.path}, which it does not understand")
        elif call in ("files.unlink", "files.rename") and (TAG.match(path) or _VOLUME.match(path)):
            for one in unfinished(self.world.storage):
                if path in (one.path, *one.volumes):
                    self._harm.append(f"{process} takes {path} away, which is of {one.path}")
