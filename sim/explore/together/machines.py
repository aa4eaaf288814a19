"""A machine outlives the process that held its image, and every verb and every fix meets it.

For each disk of a case that can be prepared: another host prepares it, the holder is killed, and a machine opens it by
the path that it was given. Then the case is done, and all fixes are tried, those that were offered before the machine
came and those that are offered then, also such that lose data. Before each effect of all
this the machine writes and flushes; in further runs the process of the case dies at some effect. It is judged

* that no volume that the machine writes to, or has locked, ever loses its name,
* that its guest sees what it has written, and all else as it was, until it is stopped,
* that the machine is never told that it cannot write,
* that a snapshot which was seen once never shows anything else,
* that in the end the disk shows all that the machine has flushed, and nothing else has changed.

Whether a verb or fix is refused or done is not judged: either may be right.

Or the machine comes late (``came_late``): it is started anew by the path that it had, when a fix was verified and
started, and before its process does anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from engine.errors import DiskwrightError, StorageError
from engine.host.state import Task
from sim.disk.content import Content
from sim.disk.files import Fault
from sim.explore.cases.case import Case, prepared
from sim.explore.cases.driver import read
from sim.explore.cases.fixtures.images import BLOCK, data
from sim.explore.cases.taking import offered, run_each_once
from sim.explore.oracle.reference import USABLE, Key
from sim.explore.search.explorer import EFFECTS
from sim.hosts.crash import Crashed
from sim.hosts.machine import SimMachine
from sim.hosts.processes import SimProcess

_OUTSIDER = "outsider"
_AT = 8 * BLOCK
"""Where the machine writes."""
_MOST_FIXES = 24
BY_HAND = frozenset({"accept-written", "clean-unnamed-just-now"})
"""Cases that are not for this: they write to a disk that nobody uses, or give it another volume, by hand."""


class Harmed(NamedTuple):
    """A run in which a machine or a snapshot came to harm."""

    case: str
    disk: Key
    dies: int
    """The effect before which the process of the case died, 0: it did not; of a late machine, the how manieth fix."""
    problems: tuple[str, ...]


def outlived(case: Case, every: int = 9, locking: bool = True) -> Iterator[Harmed | None]:
    """What went wrong, None for nothing, in each run: the process of the case lives, or dies before every so manieth
    effect. Without ``locking`` the machine takes no lock on what it opens."""
    for disk in _disks(case):
        whole = _Run(case, disk, locking=locking)
        if not whole.started:
            continue
        yield whole.judged()
        for dies in range(1, whole.effects + 1, every):
            yield _Run(case, disk, dies, locking=locking).judged()


def came_late(case: Case) -> Iterator[Harmed | None]:
    """What went wrong, None for nothing, with each disk and each fix of what there is before the case."""
    for disk in _disks(case):
        number = 0
        while (run := _Run(case, disk, late=number)).started:
            yield run.judged_late()
            number += 1


def _disks(case: Case) -> list[Key]:
    model = prepared(case).models[0]
    return sorted(key for key, image in model.images.items() if image.mutable and image.size >= _AT + BLOCK)


class _Run:
    """One of them."""

    def __init__(self, case: Case, disk: Key, dies: int = 0, late: int = -1, locking: bool = True) -> None:
        """``late``: the how manieth fix is started before the machine."""
        self._case, self._disk, self._dies, self._late = case, disk, dies, late
        self._locking = locking
        self._task: Task | None = None
        self._driver = prepared(case)
        self._world = self._driver.world
        self._problems: list[str] = []
        self._snapshots: dict[Key, Content] = {}
        self._writes = 0
        self.effects = 0
        """Of the case itself."""
        self._count = 0
        self.started = self._start()

    def _start(self) -> bool:
        """Whether there is a machine now, whose holder is dead."""
        repo, image = self._disk
        engine = self._world.host(_OUTSIDER)
        try:
            entry = engine.prepare_image(repo, image)
        except DiskwrightError:
            return False
        self._content = read(engine, repo, image, self._driver.image(repo, image).size)
        engine.doors.processes.kill(entry.process)
        self._taken = offered(self._world.host("two"), deep=self._late >= 0)
        if self._late >= len(self._taken):
            return False
        if self._late >= 0:
            repo, fix = self._taken.pop(self._late)
            with contextlib.suppress(DiskwrightError):
                self._task = self._world.host("two").fix_storage_repository(repo, fix, {"irreversible": True})
        host = self._world.process_of(engine).host
        self._machine = SimMachine(host, entry.path, entry.format, locking=self._locking)
        self._use()
        return True

    def judged(self) -> Harmed | None:
        """Play it and say what went wrong."""
        self._world.hook = self
        with contextlib.suppress(DiskwrightError, AssertionError, Crashed):  # a fix may not be offered now
            self._case.operation(self._driver)
        self.effects, self._dies = self._count, 0
        self._look()
        self._use()
        self._fix_all()
        self._use()
        self._look()
        self._world.hook = None
        self._judge_guest()
        self._machine.stop()
        self._judge_disk()
        found = tuple(dict.fromkeys(self._problems))
        return Harmed(self._case.name, self._disk, self.effects, found) if found else None

    def judged_late(self) -> Harmed | None:
        """Let the task run beside the machine, try all other fixes, and say what went wrong."""
        self._look()
        if self._task is not None:
            self._world.host("two").wait_for_task(self._task)
        self._use()
        self._look()
        self._fix_all()
        self._use()
        self._look()
        self._judge_guest()
        self._machine.stop()
        self._judge_disk()
        found = tuple(dict.fromkeys(self._problems))
        return Harmed(self._case.name, self._disk, self._late, found) if found else None

    def __call__(self, process: SimProcess, call: str, what: str) -> Fault:
        """As a hook: before each effect on the shared storage the machine writes, and the process may die."""
        if call in EFFECTS and process.files.storage_of(what.partition(" ")[0]) is self._world.storage:
            self._count += 1
            self._use()
            if self._count == self._dies:
                process.kill()
        return Fault.NONE

    def _use(self) -> None:
        self._writes += 1
        try:
            self._machine.write(_AT, data(self._writes))
            self._machine.flush()
        except StorageError as error:
            self._problems.append(f"the machine could not write: {error}")
        if self._machine.deleted_files():
            self._problems.append(f"before effect {self._count}: a file that the machine has open was deleted")

    def _fix_all(self) -> None:
        engine = self._world.host("two")
        if self._world.sharing:
            with contextlib.suppress(DiskwrightError):  # it may be that one already, or a host that died
                for repo in engine.list_repositories():
                    self._world.host("one").release_srm(repo)
            self._world.manage("two")
        for repo, fix in self._taken:
            with contextlib.suppress(DiskwrightError):
                engine.run_fix_here(repo, fix)
        run_each_once(engine, lambda: offered(engine), _MOST_FIXES)

    def _look(self) -> None:
        """Compare all snapshots with what they showed before."""
        engine = self._world.host("three")
        for repo in engine.list_repositories():
            for image in engine.inspect_repository(repo).images:
                if image.mutable or image.removed or image.hidden or image.status not in USABLE:
                    continue
                try:
                    found = read(engine, repo, image.id, image.size_bytes)
                except DiskwrightError as error:
                    self._problems.append(f"the snapshot {repo}/{image.id} cannot be read: {error}")
                    continue
                if not self._snapshots.setdefault((repo, image.id), found).same(found):
                    self._problems.append(f"the snapshot {repo}/{image.id} shows something else than before")

    def _judge_guest(self) -> None:
        """Also of what it only reads, which may have been merged and deleted if it locks nothing."""
        wanted = self._content.write(_AT, data(self._writes))
        try:
            found = Content(0, ()).write(0, self._machine.read()).truncate(wanted.size)
        except StorageError as error:
            self._problems.append(f"the machine could not read: {error}")
            return
        if not found.same(wanted):
            self._problems.append("the machine sees something else than it has written and seen before")

    def _judge_disk(self) -> None:
        repo, image = self._disk
        wanted = self._content.write(_AT, data(self._writes))
        try:
            found = read(self._world.host("three"), repo, image, wanted.size)
        except DiskwrightError as error:
            self._problems.append(f"the disk that the machine used cannot be read: {error}")
            return
        if not found.same(wanted):
            self._problems.append("the disk does not show what the machine has flushed, or something else has changed")
