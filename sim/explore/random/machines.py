"""Machines in a random run: they open what was prepared, write with and without flushes, stand still, die, and outlive
their holder.

What a machine did is witnessed, however its round ends: each of its writes counts, and what it has not flushed may be
old, new or a mixture from then on. No file that it has locked or writes to may lose its name, no logical volume that
it has open may be deleted, and what it writes to stays the data of an image, whether or not the storage would let
anybody delete it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from engine.api import Engine
from engine.data.model import Fix, VolumeFormat
from engine.doors.processes import ProcessIdentity
from engine.errors import StorageError
from sim.explore.cases.operations import Effect, Operation, rebuilds, want_otherwise
from sim.explore.oracle.in_use import given_up, has_as_data
from sim.explore.oracle.reference import Image, Key, Model
from sim.hosts.crash import Crashed
from sim.hosts.machine import UNSAFE, WRITEBACK, SimMachine
from sim.hosts.processes import SimProcess
from sim.hosts.world import World

BLOCK = 4096
FLUSH, KILL, STOP, FREEZE, THAW = "flush", "kill", "stop", "freeze", "thaw"


class Write(NamedTuple):
    """One block that a machine writes."""

    offset: int
    data: bytes


Doing = Write | str
"""A write, or one of the words above."""


class Running:
    """A machine with one disk, and what it has written and not flushed."""

    def __init__(
        self,
        disk: Key,
        size: int,
        machine: SimMachine,
        cache: str,
        holder: ProcessIdentity,
        offered: tuple[Fix, ...],
    ) -> None:
        """``offered``: rebuilds of its disk that were offered before it was started."""
        self.disk, self.size, self.machine, self.cache = disk, size, machine, cache
        self.holder, self.offered = holder, offered
        self.unflushed: list[Write] = []

    @property
    def alone(self) -> bool:
        """Whether who prepared its disk is dead."""
        return self.holder.pid not in self.machine.process.host.processes

    @property
    def host(self) -> str:
        """The name of its host."""
        return self.machine.process.host.name


class Machines:
    """All machines of a run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.running: list[Running] = []

    def on(self, host: str) -> list[Running]:
        """Those of a host."""
        return [one for one in self.running if one.host == host]

    def bury(self) -> None:
        """Forget those that are dead."""
        self.running = [one for one in self.running if not one.machine.process.dead]

    def harmed(self) -> Iterator[str]:
        """What has been done to machines that run."""
        for one in self.running:
            if one.machine.deleted_files():
                yield f"what the machine of {one.disk[0]}/{one.disk[1][:6]} has open was deleted"
            elif (path := one.machine.written_path()) and given_up(self._world.storage, one.disk[0], path):
                yield f"what the machine of {one.disk[0]}/{one.disk[1][:6]} has open is no image's data any more"

    # -- what they do

    def start(
        self,
        repo: str,
        disk: str,
        size: int,
        cache: str,
        holder_dies: bool,
        doing: Sequence[Doing],
        locking: bool = True,
        late: bool = False,
    ) -> Operation:
        """Prepare a disk and start a machine on it, which does something. What becomes of a qcow2 without its flushes
        nobody can tell: there all are passed on. ``late``: it comes when its holder is dead and a rebuild of the disk,
        which is wanted otherwise by then, was offered. Without ``locking`` it takes no lock on what it opens."""
        log = _Log()

        def run(engine: Engine) -> None:
            entry = engine.prepare_image(repo, disk)
            usual = cache if entry.format == VolumeFormat.RAW else WRITEBACK
            offered: tuple[Fix, ...] = ()
            if late:
                engine.doors.processes.kill(entry.process)
                want_otherwise(engine, repo, disk)
                offered = tuple(rebuilds(engine, repo, disk))
                if engine.context.repository(repo).leases.held(disk):
                    return
            # Nobody else has a turn from that answer until the machine has the disk open.
            process = self._world.process_of(engine)
            machine = SimMachine(process.host, entry.path, entry.format, usual, locking=locking)
            one = Running((repo, disk), size, machine, usual, entry.process, offered)
            if late and not has_as_data(self._world.storage, repo, disk, one.machine.written_path()):
                one.machine.kill()
                return
            self.running.append(one)
            if holder_dies:
                engine.doors.processes.kill(entry.process)
            _drive(one, process, doing, log)

        how = [
            cache,
            *["no locks"] * (not locking),
            *["its holder is killed"] * holder_dies,
            *["before it starts"] * late,
        ]
        told = f"machine of {repo}/{disk[:6]} ({', '.join(how)}): {_told(doing)}"
        return Operation(told, run, log.effect(repo, disk), witnessed=True)

    def let_go(self, one: Running, taken: bool) -> Operation:
        """Tear the disk of a machine down, which may be running, or give it a new holder."""
        repo, disk = one.disk

        def run(engine: Engine) -> None:
            if taken:
                one.holder = engine.prepare_image(repo, disk, take_over=True).process
            else:
                engine.teardown_image(repo, disk)

        return Operation(f"{'take over' if taken else 'teardown'} {repo}/{disk[:6]}", run, host=one.host)

    def drive(self, one: Running, doing: Sequence[Doing]) -> Operation:
        """Have a machine do something."""
        log = _Log()
        return Operation(
            f"machine of {one.disk[0]}/{one.disk[1][:6]}: {_told(doing)}",
            lambda engine: _drive(one, self._world.process_of(engine), doing, log),
            log.effect(*one.disk),
            witnessed=True,
        )


class _Log:
    """What a machine did in one operation."""

    def __init__(self) -> None:
        self.written: list[Write] = []
        self.flushed: list[Write] = []

    def effect(self, repo: str, disk: str) -> Effect:
        """What that does to the image."""

        def effect(model: Model, result: Any) -> Model | None:
            image = model.images.get((repo, disk))
            return model.made(repo, disk, after(image, self.written, self.flushed)) if image is not None else model

        return effect


def _told(doing: Sequence[Doing]) -> str:
    return ", ".join(what if isinstance(what, str) else f"write at {what.offset}" for what in doing)


def _drive(one: Running, process: SimProcess, doing: Sequence[Doing], log: _Log) -> None:
    """Do it in the turns of ``process``; when that dies, or a call fails, the machine dies too."""
    machine = one.machine
    if machine.process.dead:
        return
    machine.process.hook = lambda _, call, what: process.enter(call, what)
    try:
        for what in doing:
            _do(one, what, log)
    except (Crashed, StorageError):
        machine.kill()
        if process.dead:
            raise
    finally:
        machine.process.hook = None


def _do(one: Running, what: Doing, log: _Log) -> None:
    """Have it do that, where it can: one that stands still can only go on or be killed."""
    if what == KILL:
        one.machine.kill()
    elif what == THAW:
        one.machine.thaw()
    elif not one.machine.running:
        return
    elif isinstance(what, Write):
        log.written.append(what)
        one.unflushed.append(what)
        one.machine.write(what.offset, what.data)
    elif what == FLUSH:
        one.machine.flush()
        if one.cache != UNSAFE:
            log.flushed += one.unflushed
            one.unflushed.clear()
    elif what == FREEZE:
        one.machine.freeze()
    else:
        one.machine.stop()


def after(image: Image, written: Sequence[Write], flushed: Sequence[Write]) -> Image:
    """The image when a machine has written, and what it wrote until the last flush is durable. The last write to a
    place counts, and what was there before may be seen until it is flushed."""
    for write in written:
        image = image.written(write.offset, write.data)
    certain = {(write.offset, len(write.data)) for write in flushed}
    unsure = {(write.offset, len(write.data)) for write in written if write not in flushed}
    torn = {part for part in image.torn if part not in certain} | unsure
    return image._replace(torn=tuple(sorted(torn)))
