"""A verb or fix works on a disk whose machine runs, and somebody dies at each step of that: a snapshot is taken of it,
it is made longer, it is copied into another repository or exported, or what is below it is merged into it.

The machine writes and flushes before each effect of the verb, also to what it was made longer by. The process of the
verb dies before one of them, or the machine does, or the power is cut there; then what may follow is tried: the same
verb again, the machine restarted by its manager at the path that it knows, the machine stopped, and all fixes that are
offered. It is judged

* that in the end, and after each power cut, the disk shows all that the machine has flushed,
* that a snapshot which was seen once never shows anything else, and that it is of a moment while the verb ran,
* that a copy shows a moment while it was begun, and that one which was acknowledged can be finished,
* that the machine is never told that it cannot write, and no file that it has open is deleted,
* that the disk has its old length or the new one, and what its machine has seen of it in the end,
* that no holder is left that nobody knows of, and nothing hidden stays once all is fixed and the machine is gone.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, ClassVar

from engine.api import Engine
from engine.data.model import Fix, VolumeFormat, aligned
from engine.errors import DiskwrightError, StorageError
from engine.triage import rules
from sim.disk.content import Content
from sim.disk.files import Fault
from sim.explore.cases.driver import Driver, read
from sim.explore.cases.fixtures import images
from sim.explore.cases.fixtures.images import BLOCK, data
from sim.explore.cases.taking import offered, run_each_once
from sim.explore.oracle.reference import USABLE
from sim.explore.search.explorer import EFFECTS
from sim.explore.together import devices
from sim.explore.together.cuts import worlds_after
from sim.explore.together.wrong import Wrong, told
from sim.hosts.crash import Crashed
from sim.hosts.doors.hypervisor import CHANGES
from sim.hosts.machine import SimMachine
from sim.hosts.processes import HOLDER, SimProcess
from sim.hosts.world import FORMAT, LVM, World

MONITORS = QMP, LIBVIRT = "qmp:/run/machine", "libvirt:qemu:///system/machine"
"""Its own, or that of libvirt, which starts it anew as it is defined, prepared by the hook."""
_AT = 8 * BLOCK
_MOST_FIXES = 12
SNAPSHOT, RESIZE, MERGE, COPY, EXPORT = "snapshot", "resize", "merge", "copy", "export"
LONGER = images.SIZE + 4 * BLOCK + 100
VERB, MACHINE, POWER = "verb", "machine", "power"
DEATHS = (VERB, MACHINE, POWER)
AGAIN, RESTARTED, STOPPED = "again", "restarted", "stopped"
SEQUELS = (AGAIN, RESTARTED, STOPPED)
ALONE = "alone"
"""Of a machine behind libvirt that nobody asks: what it had begun is ended. It is restarted then."""
_LOCKED = 'Failed to get shared "write" lock'
"""So qemu says that somebody writes to an image."""
QUIET = "quiet"
"""Of a machine that writes nothing meanwhile: nothing of the verb is durable, or leaves qemu's caches, by what its
guest flushes. Killed, it is restarted."""


PREPARED: dict[str, tuple[Callable[[Driver], object], ...]] = {
    SNAPSHOT: (images.a_disk, images.a_raw_disk, images.a_chain),
    RESIZE: (images.a_raw_disk, images.a_disk, images.a_chain),
    COPY: (images.a_raw_disk, images.a_chain, images.a_removed_snapshot),
    EXPORT: (images.a_raw_disk, images.a_chain),
    MERGE: (
        images.a_removed_snapshot,
        images.a_removed_middle,
        images.a_removed_one_further_down,
        images.a_removed_one_at_the_bottom,
        images.a_disk,
        images.a_raw_disk,
    ),
}
"""What is there when each begins. Where nothing can be merged a snapshot is taken beside the machine, and removed."""


def runs(
    verb: str,
    prepare: Callable[[Driver], object],
    format: str = FORMAT,
    deaths: Sequence[str] = DEATHS,
    every: int = 1,
    first: int = 1,
    monitor: str = QMP,
    kind: type[Run] | None = None,
) -> Iterator[Wrong | None]:
    """What went wrong, None for nothing, in each run: one in which nobody dies, and each of these deaths before each
    (or every so manieth) effect from the ``first`` on, with each sequel. ``prepare`` makes the disk "disk" in "a"."""
    kind = kind or Run
    whole = kind(verb, prepare, format, monitor)
    yield whole.judged()
    if not whole.done:
        return
    for dies in deaths:
        for effect in range(first, whole.count + 1, every):
            for then in kind.sequels(verb, dies, monitor):
                yield kind(verb, prepare, format, monitor, dies, effect, then).judged()


class Run:
    """One of them."""

    options: ClassVar[dict[str, Any]] = {}
    """With which a snapshot is taken."""

    def __init__(
        self,
        verb: str,
        prepare: Callable[[Driver], object],
        format: str,
        monitor: str,
        dies: str = "",
        effect: int = 0,
        then: str = STOPPED,
    ) -> None:
        self._verb, self._monitor = verb, monitor
        self._dies, self._effect, self._then = dies, effect, then
        self._world = World(format=format)
        self._world.create("a", "b")
        driver = Driver(self._world)
        prepare(driver)
        self._disk = driver.named["disk"]
        self._content = driver.image("a", self._disk).content
        driver.named_hosts_end()
        self._world.storage.settle()
        engine = self._world.host("one")
        self._entry = engine.prepare_image("a", self._disk, monitor=monitor)
        self._host = self._world.process_of(engine).host
        self.count = 0
        self._machine = self._started()
        self._content = devices.fitted(engine, self._disk, self._machine, self._content)
        self._longer = devices.longer(self._world, self._machine, LONGER)
        self._writes = 0
        self._moments: list[Content] = []
        """What a snapshot, a copy or an export that is being made may show."""
        self._snapshots: dict[str, Content] = {}
        self._copied: tuple[str, int] | None = None
        """The copy that was acknowledged, and how many moments there were then."""
        self._sizes = {self._content.size}
        """What the record may say."""
        self._problems: list[str] = []
        self._what = ""
        self.done = False
        if verb == MERGE and not _merges(engine):
            engine.remove_image("a", engine.create_snapshot("a", self._disk))
        self._deep = len(self._machine.nodes())
        self._use()
        self._look()

    def _started(self) -> SimMachine:
        """Start it as its manager knows it; where that path is gone (the format is another now), as it is told anew."""
        engine = self._world.host("one")
        if self._monitor == LIBVIRT:
            return self._started_by_libvirt(engine)
        known = [self._entry, *engine.list_prepared(), *engine.list_unheld()]
        for number, entry in enumerate(known):
            try:
                return SimMachine(self._host, entry.path, entry.format, monitor=QMP)
            except StorageError:
                if number == len(known) - 1:
                    raise
        raise AssertionError("there is one at least")

    def _started_by_libvirt(self, engine: Engine) -> SimMachine:
        """Prepare it as the hook does, and start it as it is defined."""
        entry = self._entry
        try:
            if self.count:
                if engine.list_prepared() or engine.list_unheld():
                    engine.teardown_image("a", self._disk)
                entry = engine.prepare_image("a", self._disk, monitor=LIBVIRT)
        except DiskwrightError as error:
            raise StorageError(f"the hook keeps it from starting: {error}") from error
        name, format = self._host.definitions.setdefault(LIBVIRT, (entry.path.rpartition("/")[2], entry.format))
        return SimMachine(self._host, f"{entry.run}/{name}", format, monitor=LIBVIRT)

    @staticmethod
    def sequels(verb: str, dies: str, monitor: str) -> tuple[str, ...]:
        """What is tried after each death."""
        alone = (ALONE,) if (dies, verb, monitor) == (VERB, MERGE, LIBVIRT) else ()
        quiet = (QUIET,) if (dies, verb) in ((POWER, RESIZE), (POWER, MERGE), (MACHINE, MERGE)) else ()
        return ("", *quiet) if dies == POWER else (*SEQUELS, *quiet, *alone)

    # -- playing

    def judged(self) -> Wrong | None:
        """Play it and say what went wrong."""
        self._act(self._world.host("one"), hooked=True)
        if not self._dies:
            self._cut()
        if self._dies != POWER:
            self._look()
            self._go_on()
            self._end()
        found = tuple(dict.fromkeys(self._problems))
        return Wrong(self._dies, self._effect, self._what, self._then, found) if found else None

    def _act(self, engine: Engine, hooked: bool = False) -> None:
        if hooked:
            self._world.process_of(engine).hook = self
        try:
            self._do(engine)
        except Crashed:
            pass
        except DiskwrightError as error:
            if not self._dies:
                self._problems.append(f"the {self._verb} was not made: {error}")
        self._look()

    def _do(self, engine: Engine) -> None:
        verbs = {RESIZE: self._make_longer, MERGE: self._merge, COPY: self._copy, EXPORT: self._export}
        verbs.get(self._verb, self._take)(engine)

    def _make_longer(self, engine: Engine) -> None:
        self._sizes |= {self._longer, aligned(self._longer)}  # the fix takes what the volume has
        engine.resize_disk("a", self._disk, self._longer)
        self.done = True
        self._content = self._content.truncate(self._longer)
        self._sizes = {self._longer}
        if self._machine.running and self._machine.size != aligned(self._longer):
            self._problems.append("the disk is longer, and its machine does not know")

    def _merge(self, engine: Engine) -> None:
        for fix in _merges(engine)[:1]:
            engine.run_fix_here("a", fix)
        if not self._dies and len(self._machine.nodes()) == self._deep:
            self._problems.append("the machine merged nothing")
        self.done = True

    def _copy(self, engine: Engine) -> None:
        """Begin one and finish it."""
        self._moments = self._moments or [self._content]
        image = engine.copy_image("b", self._disk, options={"auto_fix": False})
        self._copied = image, len(self._moments)
        for fix in engine.check_storage_repository("b"):
            engine.run_fix_here("b", fix)
        self.done = True

    def _export(self, engine: Engine) -> None:
        """The file is of a moment meanwhile, also of one before another machine was started."""
        self._moments = self._moments or [self._content]
        path = f"/srv/out-{len(self._moments)}.raw"
        engine.export_image("a", self._disk, path, "raw")
        self.done = True
        with engine.doors.files.open(path, False) as handle:
            found = Content(0, ()).write(0, handle.read_at(0, handle.stat().size))
        if not any(found.same(moment) for moment in self._moments):
            self._problems.append("what was exported shows no moment meanwhile")

    def _judge_copies(self, world: World, settled: bool) -> None:
        """Each that is finished shows one moment while it was begun. ``settled``: each is finished."""
        engine = world.host("three")
        there = {image.id: image for image in engine.inspect_repository("b").images}
        if self._copied is not None and self._copied[0] not in there:
            self._problems.append("a copy was acknowledged and is gone")
        for image in there.values():
            if image.hidden or image.status not in USABLE:
                if settled:
                    self._problems.append(f"the copy {image.id} is not finished: {image.reason}")
                continue
            moments = self._moments
            if self._copied is not None and self._copied[0] == image.id:
                moments = moments[: self._copied[1]]
            found = _shown(engine, image.id, image.size_bytes, "b")
            if not image.mutable or not any(found.same(moment) for moment in moments):
                self._problems.append("a copy shows no moment while it was begun")

    def _take(self, engine: Engine) -> None:
        before = dict(self._snapshots)
        self._moments = [self._content]
        try:
            image = engine.create_snapshot("a", self._disk, {"name": "live"}, self.options)
            self.done = True
            self._look()
            if image not in self._snapshots:
                self._problems.append("a snapshot was acknowledged and cannot be seen")
        finally:
            self._look()
            for image, content in self._snapshots.items():
                if image not in before and not any(content.same(moment) for moment in self._moments):
                    self._problems.append("a snapshot shows no moment while it was taken")

    def __call__(self, process: SimProcess, call: str, what: str) -> Fault:
        """As a hook: before each effect the machine writes, and somebody dies."""
        if call in EFFECTS or call in CHANGES or call in ("processes.spawn", "processes.terminate"):
            self.count += 1
            if self._then != QUIET:
                self._use()
            if self.count == self._effect:
                self._what = f"{call} {what}"
                self._die(process)
        return Fault.NONE

    def _die(self, process: SimProcess) -> None:
        if self._dies == MACHINE:
            self._machine.kill()
        elif self._dies == POWER:
            self._cut()
            process.kill()
        elif self._dies == VERB:
            process.kill()

    def _use(self) -> None:
        if not self._machine.running or self._machine.stands_still:
            return
        self._writes += 1
        places = [_AT, _AT + self._writes % 8 * BLOCK]
        if self._machine.size > aligned(self._content.size):
            self._content = self._content.truncate(self._longer)
        if self._content.size == self._longer:
            places.append(self._longer // BLOCK * BLOCK - BLOCK)
        for at in places:
            try:
                self._machine.write(at, data(self._writes))
                self._machine.flush()
            except StorageError as error:
                self._problems.append(f"the machine could not write: {error}")
            self._content = self._content.write(at, data(self._writes))
            self._moments.append(self._content)
        if self._machine.deleted_files():
            self._problems.append("a file that the machine has open was deleted")
        self._problems += devices.problems(self._world, self._host, self._machine)

    def _go_on(self) -> None:
        self._use()
        if self._then == ALONE:
            libvirt = self._world.host("one").doors.hypervisors.connect(LIBVIRT)
            while libvirt.jobs():
                pass  # each look gets it on
        if self._then in (RESTARTED, QUIET, ALONE) or (self._dies == MACHINE and self._then == AGAIN):
            self._machine.kill()
            try:
                self._machine = self._started()
            except StorageError as error:
                if self._must_start():
                    self._problems.append(f"the machine cannot be started anew: {error}")
                return
            if not Content(0, ()).write(0, self._machine.read()).truncate(self._content.size).same(self._content):
                self._problems.append("the machine is started on what lacks something that it has flushed")
            self._use()
        if self._then == AGAIN:
            engine = self._world.host("one")
            if engine.list_unheld():
                with contextlib.suppress(DiskwrightError):
                    engine.prepare_image("a", self._disk, take_over=True)
            self._use()
            self.done = False
            self._act(self._world.host("one"))
            if not self.done and self._machine.running:
                self._problems.append("the same verb again does not go on")
            self._use()

    def _must_start(self) -> bool:
        """Whether its manager has to find the disk: not what nobody has prepared any more, and not after a snapshot
        that was interrupted, unless libvirt has the disk prepared and knows it by a name that it keeps."""
        snapshots = self._verb not in (RESIZE, MERGE)
        if self._monitor == LIBVIRT:
            return not snapshots or self._host.definitions[LIBVIRT][1] != VolumeFormat.RAW
        engine = self._world.host("one")
        return not snapshots and bool(engine.list_prepared() or engine.list_unheld())

    def _end(self) -> None:
        """All that can be fixed while the machine runs, then without it."""
        self._fix_all(self._world)
        self._use()
        self._look()
        if self._machine.running:
            self._machine.stop()
        engine = self._world.host("one")
        for _ in engine.list_prepared():
            engine.teardown_image("a", self._disk)
        if [process for process in self._host.processes.values() if process.name == HOLDER]:
            self._problems.append("a holder is left that nobody knows of")
        self._fix_all(self._world)
        self._judge(self._world, "in the end", settled=True)
        self._problems += devices.left(self._world, self._host)
        left = [image.id for image in self._world.host("three").inspect_repository("a").images if image.hidden]
        if left:
            self._problems.append(f"hidden data stays: {left}")
        self._look()

    def _cut(self) -> None:
        for world in worlds_after(self._world):
            self._judge(world, "after a power cut")
            seen = dict(self._snapshots)
            self._look(world)
            self._fix_all(world)
            self._judge(world, "after a power cut and all fixes", settled=True)
            self._look(world)
            self._snapshots = seen

    # -- judging

    def _fix_all(self, world: World) -> None:
        for repository in ("a", "b", "a") if self._verb == COPY else ("a",):
            self._fix_all_of(world, repository)

    def _fix_all_of(self, world: World, repository: str) -> None:
        engine = world.host("two")
        run_each_once(engine, lambda: offered(engine, repository), _MOST_FIXES)

    def _look(self, world: World | None = None) -> None:
        """Compare all snapshots with what they showed before."""
        engine = (world or self._world).host("three")
        there = set()
        for image in engine.inspect_repository("a").images:
            if image.mutable or image.removed or image.hidden or image.status not in USABLE:
                continue
            there.add(image.id)
            try:
                found = _shown(engine, image.id, image.size_bytes)
            except DiskwrightError as error:
                locked = _LOCKED in str(error) and any(node.writable for node in self._machine.nodes()[1:])
                if world is None and self._machine.running and locked:
                    continue  # by the machine, until what it merges into it has ended
                self._problems.append(f"the snapshot {image.id} cannot be read: {error}")
                continue
            if not self._snapshots.setdefault(image.id, found).same(found):
                self._problems.append(f"the snapshot {image.id} shows something else than before")
        for image_id in self._snapshots.keys() - there:
            self._problems.append(f"the snapshot {image_id} is gone")

    def _judge(self, world: World, when: str, settled: bool = False) -> None:
        """``settled``: all has been fixed, and the record says how long the disk is."""
        if self._verb == COPY:
            self._judge_copies(world, settled)
        try:
            report = world.host("three").get_image_status("a", self._disk)
            size = report.size_bytes
            if size not in self._sizes or (settled and size < self._content.size):
                self._problems.append(f"the disk has {size} bytes {when}, its machine {self._content.size}")
            if report.status not in USABLE:
                self._problems.append(f"the disk is {report.status} {when}")
            found = _shown(world.host("three"), self._disk, self._content.size)
        except DiskwrightError as error:
            self._problems.append(f"the disk cannot be read {when}: {error}")
            return
        if not found.same(self._content):
            self._problems.append(f"the disk does not show what its machine has flushed, {when}")


def _merges(engine: Engine) -> list[Fix]:
    return [fix for fix in engine.check_storage_repository("a") if fix.rule == rules.M_CHAIN]


def _shown(engine: Engine, image: str, size: int, repository: str = "a") -> Content:
    """What an image shows; the engine goes on using nothing."""
    try:
        return read(engine, repository, image, size)
    finally:
        engine.context.deactivate()


def all_of_it(format: str = FORMAT) -> Iterator[Wrong | None]:
    """Each verb and fix, with all that it may begin with."""
    cases = [(verb, prepare) for verb, prepared in PREPARED.items() for prepare in prepared]
    for (verb, prepare), monitor in product(cases, MONITORS):
        refused = monitor == LIBVIRT and prepare in (
            images.a_removed_one_further_down,
            images.a_removed_one_at_the_bottom,
        )
        refused = refused or (format == LVM and (verb, prepare) == (RESIZE, images.a_raw_disk))
        if not refused:
            yield from runs(verb, prepare, format, monitor=monitor)


if __name__ == "__main__":
    sys.exit(told(all_of_it(*sys.argv[1:])))
