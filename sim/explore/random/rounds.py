"""One random run: rounds in which hosts act at once under faults, and what may be found after each of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from engine.api import Engine
from engine.errors import DiskwrightError
from engine.triage import rules
from sim.explore.cases import operations
from sim.explore.cases.case import before_uses
from sim.explore.cases.driver import FILES, Driver, KiB, read
from sim.explore.cases.fixtures.images import a_chain, a_disk, a_raw_chain, nothing
from sim.explore.cases.operations import Operation, outcomes, summaries
from sim.explore.oracle.invariants import observe
from sim.explore.oracle.recovery import recover
from sim.explore.oracle.reference import USABLE, Key, Model, settled
from sim.explore.random.acts import BESIDE_A_GROUP, ON_A_SERVER, ON_FILES, Acts
from sim.explore.random.machines import BLOCK, FLUSH, FREEZE, KILL, STOP, THAW, Doing, Machines, Write
from sim.explore.random.operator import Meanwhile, Operator
from sim.hosts.faults import GROUP_KINDS, KINDS, Faults
from sim.hosts.machine import CACHES
from sim.hosts.processes import HOLDER
from sim.hosts.tape import Tape
from sim.hosts.world import FORMAT, LVM, NFS, Job, World

HOSTS = ("one", "two", "three")
RESCUER = "rescuer"
REPOSITORIES = ("a", "b")
ROUNDS = 6
SIZES = (64 * KiB, 256 * KiB - 300, 256 * KiB)
_MOST_IMAGES = 9
_MOST_MODELS = 64
_NO_WRITES = (FLUSH, FLUSH, FLUSH, KILL, STOP, FREEZE, THAW, THAW)
_MACHINE_BLOCKS = 8
"""Of a disk machines write to no more than the first few, so that they come upon each other's writes."""


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
    profile = "posix"
    """What a power cut may leave."""
    kinds: tuple[str, ...] = KINDS
    """Faults that may happen."""
    pace = 300
    """About so many calls has a round."""
    outside = True
    """Machines run."""
    operators: type[Operator] = Operator
    sizes: tuple[int, ...] = SIZES
    """Of disks."""
    acts: tuple[str, ...] = ON_FILES
    """What an operator does with other tools."""

    def __init__(self, tape: Tape, rounds: int = ROUNDS) -> None:
        self._tape = tape
        self._rounds = rounds
        self.told: list[str] = []
        self.world = World(tape, self.profile, format=self.format)
        self.world.storage.make_directory(FILES)
        self.world.create(*REPOSITORIES)
        if self.format in (FORMAT, NFS) and tape.choose(4, "made by an older version") == 1:
            before_uses(self.world, REPOSITORIES)
            self.told.append("the repositories are those of an older version")
        for host in (*HOSTS, RESCUER):
            self.world.host(host).close()
        self.machines = Machines(self.world)
        hosts = (self.world.only_host,) if self.world.only_host else (*HOSTS, RESCUER)
        self.operator = Acts(tape, self.operators(self.world, hosts), hosts, REPOSITORIES, self._make_peace)
        self.world.storage.settle()
        self.world.trace.lines.clear()
        self.models: tuple[Model, ...] = (Model(),)
        if self.outside:
            self._begin()

    def _begin(self) -> None:
        """Something may be there."""
        driver = Driver(self.world, host=HOSTS[0])
        starts = (nothing, a_chain, a_raw_chain, lambda driver: a_disk(driver, strategy="performance"))
        starts[self._tape.choose(len(starts), "there")](driver)
        driver.close()
        self.models = driver.models

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
        """Before everything is brought in order: no machine runs any more."""
        for host in list(self.world.hosts):
            self.world.bury(host)

    def _round(self, number: int) -> list[str]:
        world, tape = self.world, self._tape
        meanwhile = self._by_operator(number) if self.acts else Meanwhile("")
        self.models = meanwhile.at_once(self.models)
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
        problems = list(self.machines.harmed())
        if faults is None:
            errors = [(one.name, job.error) for one, job in zip(doing, jobs, strict=True) if job.done]
            problems += filter(None, (meanwhile.judge(*said) for said in errors))
        self._end()
        self._seals_count()
        if tape.choose(4 if self.machines.running else 2, "power cut") == 1:
            world.power_cut()
            self.told.append(world.trace.lines[-1])
        self._write_back()
        self.machines.bury()
        problems += meanwhile.after()
        self.models = meanwhile.in_the_end(self.models)
        return problems + self.look()

    def _write_back(self) -> None:
        """Time passes: names and records are durable by now. Contents of volumes may be still in caches; not those on
        devices, where records lie beside the data."""
        storage = self.world.storage
        late = {inode for path, inode, _ in storage.walk() if "/volumes/" in path} if self.outside else set()
        storage.settle(late if self._tape.choose(2, "caches are full") else ())

    def _start(self, doing: list[Operation]) -> list[Job]:
        """Each by another host, unless it says by which."""
        hosts = [operation.host or host for host, operation in zip(HOSTS, doing, strict=False)]
        return [self.world.start(host, operation.run) for host, operation in zip(hosts, doing, strict=True)]

    def _end(self) -> None:
        """Nobody runs any more, but machines, and who prepared their disks unless he dies."""
        for host in list(self.world.hosts):
            if not self.machines.on(host) or not self._tape.choose(5, "runs on"):
                self.world.bury(host)
                continue
            holders = HOLDER if self._tape.choose(2, "holder lives") else ""
            machines = [one.machine.process for one in self.machines.on(host)]
            for process in list(self.world.machine(host).processes.values()):
                if process not in machines and process.name != holders:
                    process.end(killed=True)
        self.machines.bury()

    @contextlib.contextmanager
    def _rescuer(self) -> Iterator[Engine]:
        """A process that looks, and ends."""
        yield self.world.host(RESCUER)
        self.world.bury(RESCUER)

    def look(self) -> list[str]:
        """Compare all with the models, and keep those that it fits; what is wrong."""
        with self._rescuer() as engine:
            found = observe(self.world, engine, self.models)
        self.models = found.models[:_MOST_MODELS]
        if not found.problems:
            self.models = tuple(self._named(_without_purged(model, found.there)) for model in self.models)
            self._seals_count()
        return list(found.problems)

    def _seals_count(self) -> None:
        """What a snapshot shows that somebody was told of, it shows for ever; a size that was adopted is the size."""
        unsure = {
            key for model in self.models for key, image in model.images.items()
            if image.grown is not None or (image.torn and not image.mutable)
        }  # fmt: skip
        if not unsure:
            return
        with self._rescuer() as engine:
            for repo, image in sorted(unsure):
                with contextlib.suppress(DiskwrightError):
                    self._settle(engine, repo, image)

    def _settle(self, engine: Engine, repo: str, image: str) -> None:
        report = next((one for one in engine.list_images(repo) if one.id == image), None)
        if report is None:
            return
        shown = None
        if not report.mutable and not report.removed and report.status in USABLE:
            shown = read(engine, repo, image, report.size_bytes)
        self.models = tuple(settled(model, repo, image, report.size_bytes, shown) for model in self.models)

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
        if tape.choose(2, "from under a machine") and (found := self._from_under(model)):
            return found
        if self.outside and images and not tape.choose(2, "a verb"):
            return self._of_machine(model) or self._any_fix()
        if not images or (len(images) < _MOST_IMAGES and not tape.choose(6, "a new disk")):
            return operations.create(self._repository(), self._size(), **self._strategy())
        used = [one.disk for one in self.machines.running if one.disk in model.images]
        if used and tape.choose(3, "what a machine uses"):
            images = used
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

    def _from_under(self, model: Model) -> Operation | None:
        """What would delete or replace the data of a disk whose machine has lost its holder. One fix of all that are
        offered rarely is that one while the machine runs; and a rebuild is not offered then, but may have been."""
        alone = [one for one in self.machines.running if one.alone and one.disk in model.images]
        if not alone:
            return None
        one = alone[self._tape.choose(len(alone), "machine without a holder")]
        repo, image = one.disk
        if one.offered and self._tape.choose(4, "remove or replace"):
            return operations.offered_before(repo, one.offered[self._tape.choose(len(one.offered), "offered before")])
        return operations.both(operations.remove(repo, image), operations.rule(repo, rules.C_REMOVED, image))

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

    def _of_machine(self, model: Model) -> Operation | None:
        tape, running = self._tape, self.machines.running
        what = tape.choose(6, "of a machine") if running else 0
        if what > 1:
            one = running[tape.choose(len(running), "machine")]
            return self.machines.drive(one, self._doings(one.size))
        if what == 1:
            return self.machines.let_go(
                running[tape.choose(len(running), "machine")], bool(tape.choose(2, "new holder"))
            )
        disks = sorted(key for key, image in model.images.items() if image.mutable and not image.removed)
        if not disks:
            return None
        repo, disk = disks[tape.choose(len(disks), "disk")]
        size, cache = model.images[repo, disk].size, CACHES[tape.choose(2, "cache")]
        holder_dies, doing = bool(tape.choose(2, "holder dies")), self._doings(size)
        late = holder_dies and bool(tape.choose(3, "before it starts"))
        locking = self.format != FORMAT or bool(tape.choose(4, "locks"))  # elsewhere nobody but its host would know
        return self.machines.start(repo, disk, size, cache, holder_dies, doing, locking, late)

    def _doings(self, size: int) -> list[Doing]:
        return [self._doing(size) for _ in range(1 + self._tape.choose(4, "does"))]

    def _doing(self, size: int) -> Doing:
        tape = self._tape
        what = tape.choose(24, "machine does")
        if what < len(_NO_WRITES):
            return _NO_WRITES[what]
        block = tape.choose(min(size // BLOCK, _MACHINE_BLOCKS), "where")
        return Write(block * BLOCK, bytes([1 + tape.choose(255, "what")]) * BLOCK)

    def _by_operator(self, number: int) -> Meanwhile:
        """What an operator does before a round."""
        done = self.operator.choose(self.acts, self.models) if number else None
        self.machines.bury()
        if done is None:
            return Meanwhile("")
        self.told.append(f"round {number}: {done.told}")
        return done

    def _any_fix(self) -> Operation:
        return operations.fix(self._repository(), self._tape.choose(8, "fix"))

    def _repository(self) -> str:
        return REPOSITORIES[self._tape.choose(len(REPOSITORIES), "repository")]

    def _size(self) -> int:
        return self.sizes[self._tape.choose(len(self.sizes), "size")]

    def _strategy(self) -> dict[str, Any]:
        return {"strategy": ("space", "performance")[self._tape.choose(2, "strategy")]}


def _without_purged(model: Model, there: frozenset[Key]) -> Model:
    """Forget removed images whose data is gone: one that is copied in again is a new one."""
    images = {key: image for key, image in model.images.items() if not image.removed or key in there}
    return model._replace(images=images)


class RemoteRun(RandomRun):
    """One run on a server: hosts see each other's names late, and what is closed is flushed."""

    format = NFS
    profile = "nfs"
    acts: tuple[str, ...] = ON_A_SERVER


class VolumeGroupRun(RandomRun):
    """One run of a host with a volume group: its processes run at once."""

    format = LVM
    kinds = GROUP_KINDS
    pace = 1000
    acts: tuple[str, ...] = BESIDE_A_GROUP

    @contextlib.contextmanager
    def _rescuer(self) -> Iterator[Engine]:
        """Another process of the host, which goes on."""
        engine = self.world.host(RESCUER)
        yield engine
        self.world.process_of(engine).end()
