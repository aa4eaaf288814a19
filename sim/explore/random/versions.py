"""Random runs in which one host has an older program than the others, who bring all in order in the end.

Where one host alone may change anything it is the program of that host which is another one in some rounds. It is
judged at each effect of the older program: it publishes nothing over a record that it does not understand, and neither
deletes nor moves that record, or a volume that it alone names.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator

from engine.api import Engine
from engine.errors import DiskwrightError
from engine.formats.lvm.metadata import layout
from sim.disk.files import Fault
from sim.explore.cases import operations
from sim.explore.cases.operations import Operation, outcomes, summaries
from sim.explore.cases.taking import offered, run_each_once
from sim.explore.oracle.newest import TAG
from sim.explore.oracle.reference import Model
from sim.explore.random.rounds import HOSTS, RESCUER, ROUNDS, RandomRun, RemoteRun, VolumeGroupRun
from sim.explore.random.shared import SharedRun
from sim.explore.search.explorer import EFFECTS
from sim.explore.together.versions import unfinished
from sim.hosts.crash import Crashed
from sim.hosts.processes import SimProcess
from sim.hosts.tape import Tape
from sim.hosts.versions import NewerWords, OlderWords
from sim.hosts.world import REPOSITORIES, Job, on_server
from sim.lvm.volume_groups import DEVICE_ROOT
from sim.lvm.words import GroupsInWords

_VOLUME = re.compile(rf"{REPOSITORIES}/[^/]+/volumes/")
_TAKES_AWAY = ("files.unlink", "files.rename", "volume_groups.remove", "volume_groups.rename")
_MOST_FIXES = 6
_MOST_EFFECTS = 40


class VersionsRun(RandomRun):
    """One run."""

    acts = tuple(act for act in RandomRun.acts if act != "truncate")
    """Nothing is told by a snapshot of a disk that was cut: nobody here knows what it should show."""

    def __init__(self, tape: Tape, rounds: int = ROUNDS) -> None:
        super().__init__(tape, rounds)
        self._harm: list[str] = []
        self._older = HOSTS[tape.choose(len(HOSTS), "older")]
        for host in (*HOSTS, RESCUER):
            self._install(host, older=host == self._older)
        self.told.append(f"{self._older} has an older program")

    def _install(self, host: str, older: bool) -> None:
        """Give a host that program: what begins there from now on is of it."""
        machine = self.world.machine(host)
        machine.words = OlderWords() if older else NewerWords()
        machine.watcher = self._watch

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
            if call in EFFECTS and on_server(what).startswith((REPOSITORIES, DEVICE_ROOT)) and next(effects) == dies:
                process.kill()
            return Fault.NONE

        engine = self._engine(RESCUER)
        self.world.hook = self.world.process_of(engine).hook = hook
        try:
            job.result = operation.run(engine)
            job.done = True
        except DiskwrightError as error:
            job.error, job.done = error, True
        except Crashed:
            pass
        self.world.hook = None
        self._bury(RESCUER)
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
        engine = self._engine(self._older)
        done = run_each_once(engine, lambda: offered(engine, losing=False), _MOST_FIXES)
        self.told += [f"{self._older} runs {fix.rule} of {fix.target[:6]}" for _, fix in done]
        self.world.process_of(engine).end()

    def _engine(self, host: str) -> Engine:
        """Return an engine of a host with its program; it may change anything."""
        return self.world.host(host)

    def _bury(self, host: str) -> None:
        """End what a killed process of that host has left running."""
        self.world.bury(host)

    def _watch(self, process: SimProcess, call: str, what: str) -> None:
        if not isinstance(process.files.words, OlderWords):
            return
        path, _, target = on_server(what).partition(" ")
        if call == "files.link" and (match := TAG.match(target)):
            self._written(match[1], match[2], target)
        elif call == "handle.write_at" and path.endswith(f"/{layout.META}"):
            assert isinstance(process.groups, GroupsInWords)
            for tag in process.groups.writing:
                self._written(f"{REPOSITORIES}/{path.removeprefix(DEVICE_ROOT).partition('/')[0]}", tag, "~")
        elif call in _TAKES_AWAY and (TAG.match(path) or _VOLUME.match(path) or path.startswith(DEVICE_ROOT)):
            for one in unfinished(self.world.storage):
                if path == one.path or any(path in (volume, _device(volume)) for volume in one.volumes):
                    self._harm.append(f"{process} takes {path} away, which is of {one.path}")

    def _written(self, root: str, tag: str, target: str) -> None:
        for one in unfinished(self.world.storage):
            if (root, tag) == (one.root, one.tag) and target > one.path:
                self._harm.append(f"an older program writes over {one.path}, which it does not understand")


class RemoteVersionsRun(VersionsRun, RemoteRun):
    """One run on a server."""

    acts = tuple(act for act in RemoteRun.acts if act != "truncate")


class GroupVersionsRun(VersionsRun, VolumeGroupRun):
    """One run of a host with a volume group, which has now the one and now the other program."""

    acts = VolumeGroupRun.acts

    def _start(self, doing: list[Operation]) -> list[Job]:
        self._install(HOSTS[0], older=bool(self._tape.choose(2, "older program")))
        return super()._start(doing)

    @contextlib.contextmanager
    def _rescuer(self) -> Iterator[Engine]:
        self._install(RESCUER, older=False)
        with super()._rescuer() as engine:
            yield engine

    def _engine(self, host: str) -> Engine:
        self._install(host, older=host == self._older)
        self._before = set(self.world.machine(host).processes)
        return super()._engine(host)

    def _bury(self, host: str) -> None:
        """Those that were there before are of others: machines run on."""
        for pid, process in list(self.world.machine(host).processes.items()):
            if pid not in self._before:
                process.end(killed=True)


class SharedVersionsRun(VersionsRun, SharedRun):
    """One run of hosts that share a volume group."""

    acts = ()

    def _engine(self, host: str) -> Engine:
        return self._manager(host)


def _device(volume: str) -> str:
    """The device that a volume is, which would have this path on files."""
    group = volume.removeprefix(f"{REPOSITORIES}/").partition("/")[0]
    name = volume.rpartition("/")[2].partition(".")[0]
    return f"{DEVICE_ROOT}{group}/{layout.volume_name(name)}"
