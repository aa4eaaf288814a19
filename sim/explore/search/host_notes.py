"""Any one note of a host is damaged while machines and a task of it run, or after it has booted: nothing but what the
note is about is held up, no machine comes to harm, and in the end everything is as it should be.

An object is a file or a directory of the host's notes (``sim.explore.decay.notes``). The host goes on, and another one
looks: every image that can be used is, and reads as before; the fixes that are offered run; other disks are prepared
and torn down. Then the machines are stopped, and an operator does what the messages say: connects again, tears down,
ends a holder of which there is no note, moves a note away that cannot be read. Until then it is there as it was. At
the end all is clean, and the repositories can be disconnected.
"""

from __future__ import annotations

import contextlib
import errno
from typing import NamedTuple

from engine.api import Engine
from engine.errors import Conflict, Damaged, DiskwrightError, Moved, NotFound, NotUnderstood, Refused
from engine.host.state import Prepared, Task
from sim.disk.files import Fault
from sim.disk.nodes import FileNode, fail
from sim.explore.cases.driver import FILES, Driver
from sim.explore.cases.fixtures.images import BLOCK, SIZE, a_chain, data, disk, snap
from sim.explore.decay.notes import damages, inflict
from sim.explore.decay.objects import Damage
from sim.explore.oracle.invariants import Observation, observe
from sim.explore.oracle.recovery import MOST_FIXES
from sim.hosts.doors.spawning import append
from sim.hosts.machine import SimMachine
from sim.hosts.processes import SimProcess
from sim.hosts.world import FORMAT, REPOSITORIES, World

HOST, OTHER = "one", "two"
_REPOSITORIES = ("a", "b")
_FILE = f"{FILES}/disk.raw"
_TASK = "0a" * 16
_READS = ("files.list_directory", "files.read_file", "files.open")


class HarmfulNote(NamedTuple):
    """A damaged note after which something was wrong."""

    damage: Damage
    booted: bool
    problem: str


def objects() -> list[Damage]:
    """Return every damage of what the host has noted."""
    return damages(_Scene().host)


def explore(damage: Damage, booted: bool) -> HarmfulNote | None:
    """Say what is wrong first after one damage; ``booted``: the host has lost its power before."""
    try:
        _Scene().play(damage, booted)
    except _WrongError as wrong:
        return HarmfulNote(damage, booted, str(wrong))
    return None


class _WrongError(Exception):
    """Something that must hold does not."""


class _Scene:
    """A host in the middle of its work: two machines, one of which has lost its holder, a snapshot that is prepared for
    reading, a task, and an import and a copy that have not begun."""

    def __init__(self) -> None:
        self.world = World(least_ids=True)
        self.world.storage.make_directory(FILES)
        self.world.create(*_REPOSITORIES)
        self._driver = Driver(self.world, host=HOST)
        self.host = self.world.machine(HOST)
        a_chain(self._driver)
        self._second = self._driver.create("a", SIZE)
        self._spare = self._driver.create("a", SIZE)
        self._driver.give_file(_FILE, data(7, SIZE))
        self._driver.import_raw("a", _FILE, auto_fix=False)
        self._driver.copy(("a", snap(self._driver)), "b", auto_fix=False)
        engine = self._driver.engine()
        engine.state.note_throughput(engine.list_repositories()["a"].identity, 1 << 30, 2.0)
        self._prepared: list[tuple[str, Prepared]] = []
        self._machines: list[tuple[str, SimMachine]] = []
        for image, held in ((disk(self._driver), True), (self._second, False)):
            entry = engine.prepare_image("a", image)
            self._prepared.append((image, entry))
            self._machines.append((image, SimMachine(self.host, entry.path, entry.format)))
            if not held:
                engine.doors.processes.kill(entry.process)
        snapshot = snap(self._driver)
        self._prepared.append((snapshot, engine.prepare_image("a", snapshot, writable=False)))
        self._task = self._begin_task(engine)
        self._written = 0
        self._run()

    def _begin_task(self, engine: Engine) -> SimProcess:
        """A process of several fixes that has just ended one."""
        process = self.host.process("engine.host.runner")
        state, identity = engine.state, engine.list_repositories()["a"].identity
        state.save_spec(_TASK, {})
        log = state.task_log(_TASK)
        append(self.host.state_storage, log, b'{"event": "start", "images": []}\n')
        task = Task(_TASK, process.identity, identity, "a", "", "2 fixes", "", 0.0, log, (self._spare,), (identity,))
        state.save_task(task)
        return process

    def _run(self) -> None:
        """Let the machines write and flush."""
        self._written += 1
        for image, machine in self._machines:
            try:
                machine.write(self._written * BLOCK, data(self._written))
                machine.flush()
            except (DiskwrightError, OSError) as error:
                raise _WrongError(f"the machine of {image} is told that it cannot write: {error}") from error
            content = self._driver.image("a", image).content.write(self._written * BLOCK, data(self._written))
            self._driver.models = (self._driver.model.changed("a", image, content=content),)
            if machine.deleted_files():
                raise _WrongError(f"a file of {image} is deleted that its machine has open")

    # -- the play

    def play(self, damage: Damage, booted: bool) -> None:
        if booted:
            self.world.power_cut()
            self._machines = []
        links = self._links()
        self._damage, self._content = damage, inflict(self.host, damage)
        self._path = f"{self.host.state_directory}/{damage.name}".rstrip("/")
        self._unreadable = self._inode()
        self.world.hook = self._blind if damage.kind == "unreadable" else None
        self._look(OTHER)
        if self._connected():
            self._fix()
            self._use_others()
        self._run()
        self._require_kept()
        if not links <= self._links():
            raise _WrongError(f"the path of a machine is gone: {sorted(links - self._links())[0]}")
        self._stop()
        self.world.hook = None
        self._end()

    def _blind(self, process: SimProcess, call: str, what: str) -> Fault:
        """Nothing can be done in a folder that cannot be read; another file of the same name can be read."""
        path = what.partition(" ")[0]
        inside = call.startswith("files.") and path.startswith(f"{self._path}/")
        same = call in _READS and path == self._path and self._inode() == self._unreadable
        if process.host is self.host and (inside or same):
            raise fail(errno.EIO, path)
        return Fault.NONE

    def _inode(self) -> int:
        return next((inode for path, inode, _ in self.host.state_storage.walk() if path == self._path), 0)

    def _links(self) -> set[str]:
        """The links by which machines that run find their layers."""
        runs = [entry.run for image, entry in self._prepared if image in dict(self._machines)]
        return {path for path, _, _ in self.host.run_storage.walk() if path.startswith(tuple(f"{r}/" for r in runs))}

    def _look(self, host: str) -> tuple[Engine, Observation]:
        engine = self.world.host(host, connect=host != HOST)
        found = observe(self.world, engine, self._driver.models)
        if found.problems:
            raise _WrongError(f"seen by {host}: {found.problems[0]}")
        return engine, found

    def _fix(self) -> Observation:
        """Run what is offered and loses nothing, one after the other; return what is seen then."""
        for _ in range(MOST_FIXES):
            engine, found = self._look(HOST)
            if not found.fixes:
                return found
            repo, fix = found.fixes[0]
            try:
                engine.run_fix_here(repo, fix)
            except DiskwrightError as error:
                if self._is_told(error):
                    return found
                raise _WrongError(f"the fix {fix.rule} of {fix.target} fails: {error}") from error
            self._run()
        raise _WrongError("the fixes come to no end")

    def _use_others(self) -> None:
        """What another note is about can be used; where a folder cannot be read that is told, and nothing is done."""
        engine = self.world.host(HOST, connect=False)
        try:
            engine.prepare_image("a", self._spare)
            engine.teardown_image("a", self._spare)
            engine.list_prepared()
            with contextlib.suppress(NotFound):  # its log says that it has ended that
                engine.stop_task("a", self._spare)
        except DiskwrightError as error:
            if not self._is_told(error):
                raise _WrongError(f"another disk cannot be used: {error}") from error

    def _is_told(self, error: DiskwrightError) -> bool:
        """Whether an error says of a folder that it cannot be read."""
        folder = self._damage.kind == "unreadable" and "." not in self._damage.name
        return folder and (self._damage.name or "this host") in error.message

    def _require_kept(self) -> None:
        """A note that cannot be read is there as it was, in its place or aside; but an import's, whose file an operator
        has named anew and which is done. Of a connection the storage says what is wrong."""
        if self._damage.kind not in ("flip", "cut", "digit") or not self._damage.name.endswith(".json"):
            return
        if self._damage.name.startswith("imports/") or self._damage == Damage("connections.json", "digit"):
            return
        for path, _, node in self.host.state_storage.walk():
            same = isinstance(node, FileNode) and node.content.read(0, node.content.size) == self._content
            if same and path.startswith(self._path):
                return
        raise _WrongError("what cannot be read was not kept")

    # -- what an operator does

    def _connected(self) -> bool:
        """Connect what is not connected, as the messages say; whether that can be done while machines run."""
        for _ in range(2 * len(_REPOSITORIES)):
            engine, error = self.world.host(HOST, connect=False), None
            for repo in _REPOSITORIES:
                try:
                    engine.inspect_repository(repo)
                except DiskwrightError as found:
                    error = found
                    break
            if error is None:
                return True
            if self._damage.name not in ("", "connections.json"):
                raise _WrongError(f"{repo} cannot be checked: {error}")
            place = {"path": f"{REPOSITORIES}/{repo}"}
            try:
                engine.connect_storage_repository(repo, FORMAT, place, accept_moved=isinstance(error, Moved))
            except Conflict:  # it is called another repository
                engine.disconnect_storage_repository(repo)
                engine.connect_storage_repository(repo, FORMAT, place)
            except Refused:
                return False
            except DiskwrightError as told:
                if self._damage.kind == "unreadable" and "connections" in told.message:
                    return False
                raise _WrongError(f"{repo} cannot be connected: {told}") from told
        raise _WrongError("the repositories cannot be connected again")

    def _stop(self) -> None:
        """Stop the machines, end the task, tear down what is prepared."""
        for _, machine in self._machines:
            machine.stop()
        self._machines = []
        self._task.end()
        if self._damage.kind == "unreadable":  # it can be read again
            self.world.hook = None
        for image, entry in self._prepared:
            engine = self.world.host(HOST, connect=False)
            try:
                engine.teardown_image("a", image)
            except NotFound as error:
                if self.host.find(entry.process) and "engine.host.holder" not in (error.next_step or ""):
                    raise _WrongError(f"nothing tells of the holder of {image}: {error} {error.next_step}") from error
                engine.doors.processes.kill(entry.process)
            except NotUnderstood as error:
                if self._path not in error.message or "engine.host.holder" not in (error.next_step or ""):
                    raise _WrongError(f"nothing tells what is to be done: {error} {error.next_step}") from error
                engine.doors.processes.kill(entry.process)
                self._move_away()
            except DiskwrightError as error:
                if not isinstance(error, Moved | Damaged) or self._damage.name != "connections.json":
                    raise _WrongError(f"image {image} cannot be torn down: {error}") from error
                engine.doors.processes.kill(entry.process)

    def _move_away(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.host.process("operator").files.unlink(self._path)

    def _end(self) -> None:
        """All is fixed, everything can be freed, and the repositories can be left."""
        if not self._connected():
            raise _WrongError("what nobody uses cannot be connected again")
        left = self._fix().others
        if left:
            raise _WrongError(f"{left[0][1].rule} of {left[0][1].target} waits for {left[0][1].waits_for}")
        self._look(OTHER)
        engine = self.world.host(HOST, connect=False)
        for repo in _REPOSITORIES:
            try:
                engine.disconnect_storage_repository(repo)
            except Refused as error:
                if self._path not in error.message or "move the note away" not in (error.next_step or ""):
                    raise _WrongError(f"{repo} cannot be left: {error}") from error
                self._move_away()
                engine.disconnect_storage_repository(repo)
