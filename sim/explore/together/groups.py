"""Snapshots of both disks of a running machine at one moment, and somebody dies at each step of that.

As in ``live`` the machine writes to both disks and flushes before each effect, and who dies is the process of the verb,
the machine, or the power; then what may follow is tried. It is judged

* that all snapshots of a group are seen, or none, and what they show together both disks showed at one moment,
* that one which was seen never shows anything else, and never goes,
* that each disk shows all that the machine has flushed, in the end and after each power cut,
* that the machine is never told that it cannot write, and no file that it has open is deleted,
* that no holder is left that nobody knows of, and nothing hidden stays once all is fixed and the machine is gone.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence

from engine.api import Engine
from engine.errors import DiskwrightError, StorageError
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
from sim.explore.together.guests import SimGuest
from sim.explore.together.live import AGAIN, DEATHS, MACHINE, MONITORS, POWER, QMP, RESTARTED, SEQUELS, VERB
from sim.explore.together.wrong import Wrong, told
from sim.hosts.crash import Crashed
from sim.hosts.doors.hypervisor import CHANGES
from sim.hosts.machine import SimMachine
from sim.hosts.processes import HOLDER, SimProcess
from sim.hosts.world import FORMAT, World

_AT = 8 * BLOCK
_MOST_FIXES = 16

Moment = dict[str, Content]
"""What each disk shows."""


def runs(
    format: str = FORMAT,
    deaths: Sequence[str] = DEATHS,
    every: int = 1,
    first: int = 1,
    monitor: str = QMP,
    used: int = 2,
) -> Iterator[Wrong | None]:
    """What went wrong, None for nothing, in each run: one in which nobody dies, and each of these deaths before each
    (or every so manieth) effect from the ``first`` on, with each sequel. ``used``: so many of the two disks the machine
    has; who has the group has the other."""
    whole = _Run(format, monitor, used)
    yield whole.judged()
    if not whole.done:
        return
    for dies in deaths:
        for effect in range(first, whole.count + 1, every):
            for then in ("",) if dies == POWER else SEQUELS:
                yield _Run(format, monitor, used, dies, effect, then).judged()


class _Run:
    """One of them."""

    def __init__(
        self, format: str, monitor: str, used: int, dies: str = "", effect: int = 0, then: str = "stopped"
    ) -> None:
        self._monitor, self._dies, self._effect, self._then = monitor, dies, effect, then
        self._world = World(format=format)
        self._world.create("a")
        driver = Driver(self._world)
        images.two_disks(driver)
        self._disks = images.both(driver)
        self._used = self._disks[:used]
        self._shown = {disk: driver.image("a", disk).content for disk in self._disks}
        driver.named_hosts_end()
        self._world.storage.settle()
        engine = self._world.host("one")
        self._entries = {disk: engine.prepare_image("a", disk, monitor=monitor) for disk in self._used}
        self._host = self._world.process_of(engine).host
        self.count = self._writes = 0
        self._started = 0
        self._machine = self._start()
        for disk, drive in zip(self._used, self._machine.disks, strict=True):
            self._shown[disk] = devices.fitted(engine, disk, drive, self._shown[disk])
        self._moments: dict[str, list[Moment]] = {}
        """Of each group that was asked for, by name: what it may show."""
        self._asked = ""
        """That which is being made."""
        self._snapshots: dict[str, Content] = {}
        self._problems: list[str] = []
        self._what = ""
        self.done = False
        self._use()
        self._look(self._world)

    def _start(self) -> SimGuest:
        """Start it as its manager knows it, each disk as it is prepared where its name has changed."""
        engine = self._world.host("one")
        known = [*self._entries.values(), *engine.list_prepared(), *engine.list_unheld()]
        found: list[SimMachine] = []
        self._started += 1
        for disk in self._used:
            entries = [entry for entry in known if entry.image == disk]
            for number, entry in enumerate(entries):
                name = f"#{self._started}-{len(found)}-"
                try:
                    found.append(SimMachine(self._host, entry.path, entry.format, nodes=name))
                    break
                except StorageError:
                    if number == len(entries) - 1:
                        for one in found:
                            one.kill()
                        raise
        return SimGuest(self._host, found, self._monitor)

    # -- playing

    def judged(self) -> Wrong | None:
        """Play it and say what went wrong."""
        self._act("first", hooked=True)
        if not self._dies:
            self._cut()
        if self._dies != POWER:
            self._look(self._world)
            self._go_on()
            self._end()
        found = tuple(dict.fromkeys(self._problems))
        return Wrong(self._dies, self._effect, self._what, self._then, found) if found else None

    def _act(self, name: str, hooked: bool = False) -> None:
        engine = self._world.host("one")
        if hooked:
            self._world.process_of(engine).hook = self
        self._asked, self._moments[name] = name, [dict(self._shown)]
        try:
            made = engine.create_snapshot_group("a", self._disks, {"name": name})
            self.done = True
            self._look(self._world)
            if set(made.values()) - self._snapshots.keys():
                self._problems.append("a group was acknowledged and cannot be seen")
        except Crashed:
            pass
        except DiskwrightError as error:
            if not self._dies:
                self._problems.append(f"the group was not made: {error}")
        self._asked = ""
        self._look(self._world)

    def __call__(self, process: SimProcess, call: str, what: str) -> Fault:
        """As a hook: before each effect the machine writes, and somebody dies."""
        if call in EFFECTS or call in CHANGES or call in ("processes.spawn", "processes.terminate"):
            self.count += 1
            self._use()
            if self.count == self._effect:
                self._what = f"{call} {what}"
                if self._dies == MACHINE:
                    self._machine.kill()
                elif self._dies == POWER:
                    self._cut()
                    process.kill()
                elif self._dies == VERB:
                    process.kill()
        return Fault.NONE

    def _use(self) -> None:
        """Write the same number to each disk; all are flushed then."""
        if not self._machine.running:
            return
        self._writes += 1
        for disk, drive in zip(self._used, self._machine.disks, strict=True):
            for at in (_AT, _AT + self._writes % 8 * BLOCK):
                try:
                    drive.write(at, data(self._writes))
                    drive.flush()
                except StorageError as error:
                    self._problems.append(f"the machine could not write: {error}")
                self._shown[disk] = self._shown[disk].write(at, data(self._writes))
            if drive.deleted_files():
                self._problems.append("a file that the machine has open was deleted")
            self._problems += devices.problems(self._world, self._host, drive)
        if self._asked:
            self._moments[self._asked].append(dict(self._shown))

    def _go_on(self) -> None:
        self._use()
        if self._then == RESTARTED or (self._dies == MACHINE and self._then == AGAIN):
            self._machine.kill()
            try:
                self._machine = self._start()
            except StorageError:
                return  # the name that it knows is gone, or keeps it from what it does not see
            for disk, drive in zip(self._used, self._machine.disks, strict=True):
                shown = self._shown[disk]
                if not Content(0, ()).write(0, drive.read()).truncate(shown.size).same(shown):
                    self._problems.append("the machine is started on what lacks something that it has flushed")
            self._use()
        if self._then == AGAIN:
            engine = self._world.host("one")
            for entry in engine.list_unheld():
                with contextlib.suppress(DiskwrightError):
                    engine.prepare_image("a", entry.image, take_over=True)
            self._use()
            self.done = False
            self._act("again")
            if not self.done and self._machine.running:
                self._problems.append("the same verb again does not go on")
            self._use()

    def _end(self) -> None:
        """All that can be fixed while the machine runs, then without it."""
        _fix_all(self._world)
        self._use()
        self._look(self._world)
        if self._machine.running:
            self._machine.stop()
        engine = self._world.host("one")
        for entry in engine.list_prepared():
            engine.teardown_image("a", entry.image)
        if [process for process in self._host.processes.values() if process.name == HOLDER]:
            self._problems.append("a holder is left that nobody knows of")
        _fix_all(self._world)
        self._judge(self._world, "in the end")
        self._problems += devices.left(self._world, self._host)
        left = [image.id for image in self._world.host("three").inspect_repository("a").images if image.hidden]
        if left:
            self._problems.append(f"hidden data stays: {left}")
        self._look(self._world)

    def _cut(self) -> None:
        for world in worlds_after(self._world):
            seen = dict(self._snapshots)
            self._judge(world, "after a power cut")
            self._look(world)
            _fix_all(world)
            self._judge(world, "after a power cut and all fixes")
            self._look(world)
            self._snapshots = seen

    # -- judging

    def _look(self, world: World) -> None:
        """See all snapshots; compare them with what they showed before."""
        engine = world.host("three")
        groups: dict[str, dict[str, Content]] = {}
        there = set()
        for image in engine.inspect_repository("a").images:
            if image.mutable or image.removed or image.hidden:
                continue
            there.add(image.id)
            if image.status not in USABLE:
                self._problems.append(f"the snapshot {image.id} is {image.status}")
                continue
            try:
                found = _shown(engine, image.id, image.size_bytes)
            except DiskwrightError as error:
                self._problems.append(f"the snapshot {image.id} cannot be read: {error}")
                continue
            if not self._snapshots.setdefault(image.id, found).same(found):
                self._problems.append(f"the snapshot {image.id} shows something else than before")
            if image.name in self._moments:
                of = next(disk for disk, shown in self._shown.items() if shown.size == found.size)
                groups.setdefault(image.name, {})[of] = found
        for gone in self._snapshots.keys() - there:
            self._problems.append(f"the snapshot {gone} is gone")
        for name, shown in groups.items():
            if shown.keys() != self._shown.keys():
                self._problems.append(f"of the group {name} some snapshots are seen and some are not")
            elif not any(all(shown[disk].same(moment[disk]) for disk in shown) for moment in self._moments[name]):
                self._problems.append(f"the group {name} shows no moment while it was taken")

    def _judge(self, world: World, when: str) -> None:
        engine = world.host("three")
        for disk, content in self._shown.items():
            try:
                report = engine.get_image_status("a", disk)
                if report.status not in USABLE:
                    self._problems.append(f"a disk is {report.status} {when}")
                if not _shown(engine, disk, content.size).same(content):
                    self._problems.append(f"a disk does not show what its machine has flushed, {when}")
            except DiskwrightError as error:
                self._problems.append(f"a disk cannot be read {when}: {error}")


def _fix_all(world: World) -> None:
    engine = world.host("two")
    run_each_once(engine, lambda: offered(engine, "a"), _MOST_FIXES)


def _shown(engine: Engine, image: str, size: int) -> Content:
    """What an image shows; the engine goes on using nothing."""
    try:
        return read(engine, "a", image, size)
    finally:
        engine.context.deactivate()


if __name__ == "__main__":
    sys.exit(told(run for monitor in MONITORS for used in (1, 2) for run in runs(monitor=monitor, used=used)))
