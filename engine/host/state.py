"""What this host remembers for itself: connections, tasks, prepared images, throughput.

None of it is needed to recover a repository: it can be deleted, and another host never reads
it. Files are replaced whole (write, sync, rename), so a crash leaves the old or the new one. What cannot be read or
understood is never overwritten, it is put aside under another name; and it holds up nothing but what it is about. A
note of one thing is sealed: a changed byte of a process's number would be that of another process.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, NamedTuple

from engine.doors import Doors
from engine.doors.files import Kind, make_directories
from engine.doors.processes import ProcessIdentity, ProcessState
from engine.errors import Conflict, Damaged, DiskwrightError, NotFound, StorageError, from_os_error
from engine.host.run_directories import Prepared, RunDirectories
from engine.tags.context import Connection
from engine.tags.imports import NamedFile

__all__ = ["EXPORT", "HostState", "Prepared", "Task", "sealed"]
_LIMIT = 4 * 1024 * 1024
EXPORT = "export"
"""The verb of what runs in the process that was asked for it, and is noted so that it can be told another rate."""
_LOCK = "lock"
_PATIENCE_S = 10.0
_LOOK_AGAIN_S = 0.01
_CONNECTIONS = "connections.json"
_ASIDE = ".not-understood-"
_SEAL = "seal"
_SEAL_DIGITS = 16
_LEFT = ""
"""In the file of connections, where no handle can stand: those that were given up, the oldest first."""
_KEPT_LEFT = 50
_KEPT_LOGS = 200
"""Logs of ended tasks that are kept for people; nothing else needs them."""


class Task(NamedTuple):
    """A process of this host that works on an image."""

    id: str
    process: ProcessIdentity
    repository: str
    """Identity of the storage."""
    repo_id: str
    image: str
    """"" when it works on several."""
    verb: str
    rule: str
    started: float
    log: str
    images: tuple[str, ...] = ()
    """Every image it changes or reads on behalf of others."""
    uses: tuple[str, ...] = ()
    """Identities of all the storage it needs."""
    rate: int = 0
    """Bytes per second that it may move; 0: as fast as it goes."""


def sealed(data: dict[str, Any]) -> dict[str, Any]:
    """Return a note with its seal, which tells whether it is as it was written."""
    return {**data, _SEAL: _seal(data)}


def _seal(data: dict[str, Any]) -> str:
    return sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:_SEAL_DIGITS]


def _known(fields: tuple[str, ...], data: dict[str, Any]) -> dict[str, Any]:
    """What this version knows of a note; a newer one may have written more."""
    return {name: data[name] for name in fields if name in data}


def _note(entry: Prepared) -> str:
    return f"prepared/{entry.repository}-{entry.run.rpartition('/')[2]}.json"


def _frozen_note(monitor: str) -> str:
    return f"frozen/{sha256(monitor.encode('utf-8', 'surrogateescape')).hexdigest()[:_SEAL_DIGITS]}.json"


def _import_note(repository: str, image: str) -> str:
    return f"imports/{repository}-{image}.json"


class HostState:
    """The host's files below one directory."""

    def __init__(self, doors: Doors, directory: str) -> None:
        self._doors = doors
        self.directory = directory
        self._runs = RunDirectories(doors, directory)

    # -- connections

    def connections(self) -> dict[str, Connection]:
        """Return what is connected, by handle. Damaged when the note of that cannot be understood."""
        data, problem = self._load(_CONNECTIONS)
        if problem or not isinstance(data, dict | None):
            raise Damaged(
                f"what this host noted of its connections ({self.directory}/{_CONNECTIONS}) cannot be understood: "
                f"{problem or 'it is no object'}",
                "Restore the note, or connect again what is needed with diskwright connect: the note is kept beside "
                "the new one, under another name",
            )
        found = {}
        for repo_id, noted in (data or {}).items():
            if repo_id == _LEFT:
                continue
            with contextlib.suppress(TypeError, KeyError, ValueError):
                found[repo_id] = Connection.from_json(repo_id, noted)
        return found

    def put_damaged_connections_aside(self) -> str:
        """Give the note of what is connected another name if it cannot be understood; return that, "" if it can."""
        with self.alone(_CONNECTIONS):
            try:
                self.connections()
            except Damaged:
                return self._put_aside(_CONNECTIONS)
        return ""

    def connected(self, repo_id: str) -> Connection | None:
        """Return what is connected under a handle now, None when nothing is."""
        return self.connections().get(repo_id)

    def note_anchors(self, connection: Connection) -> None:
        """Note what a repository stands on, if it is still connected as it was."""
        with self.alone(_CONNECTIONS):
            connections = self.connections()
            if connection.same(connections.get(connection.repo_id)):
                self.save_connections(connections | {connection.repo_id: connection})

    @contextlib.contextmanager
    def starting(self, connection: Connection) -> Iterator[None]:
        """Keep everybody on this host from disconnecting a repository while a process is started that uses it, until
        that is noted. NotFound when somebody has disconnected it."""
        with self.alone(_CONNECTIONS):
            if not connection.same(self.connected(connection.repo_id)):
                raise NotFound(f"{connection.repo_id} was disconnected at this moment", "Connect it again")
            yield

    def save_connections(self, connections: dict[str, Connection]) -> None:
        """Replace the list of connections."""
        left = {c.identity: c for c in (*self._left(), *self.connections().values())}
        connected = {c.identity for c in connections.values()}
        gone = [c for c in left.values() if c.identity not in connected][-_KEPT_LEFT:]
        data: dict[str, Any] = self._not_understood_connections()
        data |= {c.repo_id: c.to_json() for c in connections.values()}
        self._write(
            _CONNECTIONS, data | ({_LEFT: [{**c.to_json(), "handle": c.repo_id} for c in gone]} if gone else {})
        )

    def _not_understood_connections(self) -> dict[str, Any]:
        """Those of another version, as they are."""
        known = self.connections()
        return {key: data for key, data in self._read(_CONNECTIONS, {}).items() if key not in (_LEFT, *known)}

    def last_seen(self, identity: str) -> Connection | None:
        """Return how a repository was connected that is not connected now; None when this host remembers none."""
        return next((connection for connection in self._left() if connection.identity == identity), None)

    def _left(self) -> list[Connection]:
        found = []
        noted = self._read(_CONNECTIONS, {}).get(_LEFT)
        for data in noted if isinstance(noted, list) else ():
            with contextlib.suppress(TypeError, KeyError, ValueError):
                found.append(Connection.from_json(data["handle"], data))
        return found

    # -- tasks

    def tasks(self) -> list[Task]:
        """Return the tasks whose process is alive; remove the files of those that ended (their logs stay). StorageError
        when nothing tells which notes there are."""
        return [task for task in self._tasks() if task.verb != EXPORT]

    def exports(self) -> list[Task]:
        """Return the exports of this host that can be told another rate."""
        return [task for task in self._tasks() if task.verb == EXPORT]

    def _tasks(self) -> list[Task]:
        alive = []
        for name in self._require_names("tasks", ".json"):
            data = self._sealed(f"tasks/{name}")
            try:
                known = {"process": ProcessIdentity(*data["process"]), "images": tuple(data["images"])}
                task = Task(**_known(Task._fields, {**data, **known, "uses": tuple(data["uses"])}))
            except (TypeError, KeyError):
                continue
            if self._doors.processes.state(task.process) is ProcessState.GONE:
                self._remove(f"tasks/{name}")
                self._remove(f"tasks/{name.removesuffix('.json')}.spec")
            else:
                alive.append(task)
        return sorted(alive, key=lambda task: task.started)

    def save_task(self, task: Task) -> None:
        """Note a task that was just started, or that may move data at another rate."""
        self._write(f"tasks/{task.id}.json", sealed(task._asdict()))

    def forget_task(self, task: Task) -> None:
        """Remove the note of one whose process goes on to do something else; idempotent."""
        self._remove(f"tasks/{task.id}.json")

    def rate(self, task: str) -> int | None:
        """Return how many bytes per second a task may move; None when it is not noted (yet)."""
        with contextlib.suppress(DiskwrightError, TypeError, KeyError, ValueError):
            return max(0, int(self._sealed(f"tasks/{task}.json").get("rate", 0)))
        return None

    def save_spec(self, task: str, spec: dict[str, Any]) -> str:
        """Write what a runner is to do; returns the path. Of logs and specs only the newest 200 are kept."""
        self._write(f"tasks/{task}.spec", spec)
        for ending in (".log", ".spec"):
            self._thin_out("tasks", ending)
        return f"{self.directory}/tasks/{task}.spec"

    def task_log(self, task: str) -> str:
        """Return the path of the log of a task, in a directory that exists."""
        try:
            self._make_directories("tasks")
        except OSError as error:
            raise from_os_error(error, "make the directory for logs of tasks") from error
        return f"{self.directory}/tasks/{task}.log"

    # -- prepared images

    def prepared(self) -> list[Prepared]:
        """Return the images whose holder lives; remove what holders of an earlier boot left. StorageError when nothing
        tells which notes there are."""
        return [entry for entry, alive in self.entries() if alive]

    def unheld(self) -> list[Prepared]:
        """Return what was prepared since this host booted and has lost its holder. A machine may use it all the same,
        so it stays until it is forgotten."""
        return [entry for entry, alive in self.entries() if not alive]

    def monitored(self, repository: str) -> dict[str, str]:
        """Return the images of a repository that a machine of this host writes to and that can be spoken to, and how;
        none where nothing tells which notes there are."""
        found: list[tuple[Prepared, bool]] = []
        with contextlib.suppress(StorageError):
            found = self.entries()
        mine = (entry for entry, _ in found if entry.repository == repository)
        return {entry.image: entry.monitor for entry in mine if entry.writable and entry.monitor}

    def entries(self) -> list[tuple[Prepared, bool]]:
        """Return each prepared image of this boot, and whether its holder lives, for who wants both: between two looks
        one may get another holder, and would be in neither. StorageError when nothing tells which notes there are."""
        found = []
        for entry in self._noted():
            alive = self._doors.processes.state(entry.process) is not ProcessState.GONE
            if alive or self._of_this_boot(entry):
                found.append((entry, alive))
            else:
                with contextlib.suppress(DiskwrightError):
                    self.forget_prepared(entry)
        return found

    def _noted(self) -> list[Prepared]:
        return [entry for _, entry in self._notes() if entry is not None]

    def not_understood(self) -> list[str]:
        """Return the paths of notes about prepared images that this version cannot read. They are kept: a machine may
        use what they are about."""
        return [path for path, entry in self._notes() if entry is None]

    def _notes(self) -> list[tuple[str, Prepared | None]]:
        found: list[tuple[str, Prepared | None]] = []
        for name in self._require_names("prepared", ".json"):
            data, entry = self._sealed(f"prepared/{name}"), None
            with contextlib.suppress(TypeError, KeyError, ValueError, OverflowError):
                known = {**data, "process": ProcessIdentity(*data["process"])}
                known |= {field: tuple(map(str, data.get(field, ()))) for field in ("names", "switch")}
                known["since"] = float(data.get("since", 0))
                entry = Prepared(**_known(Prepared._fields, known))
            if entry is not None or self._is_there(f"prepared/{name}"):
                found.append((f"{self.directory}/prepared/{name}", entry))
        return found

    def _is_there(self, name: str) -> bool:
        """Whether a note is still there: another command may just have forgotten it."""
        try:
            self._doors.files.stat(f"{self.directory}/{name}")
        except FileNotFoundError:
            return False
        except OSError:
            return True  # for all that can be told
        return True

    def _of_this_boot(self, entry: Prepared) -> bool:
        return entry.process.boot_id == self._doors.processes.own().boot_id

    def prepared_note(self, entry: Prepared) -> str:
        """Return the path of the note about a prepared image."""
        return f"{self.directory}/{_note(entry)}"

    def save_prepared(self, entry: Prepared) -> None:
        """Note a prepared image."""
        data = entry._asdict()
        for field in ("monitor", "names", "since", "switch"):
            if not data[field]:
                del data[field]  # as older programs wrote it
        self._write(_note(entry), sealed(data))

    def forget_prepared(self, entry: Prepared) -> None:
        """Remove the run directory and the note, if they are still those of that holder; idempotent."""
        with self.alone(_note(entry)):
            if self._sealed(_note(entry)).get("process") != list(entry.process):
                return  # somebody has forgotten it, and prepared the image anew
            self._runs.unname(entry.run, entry.names)
            self._runs.remove(entry.run)
            self._remove(_note(entry))

    def make_run_directory(self, repository: str, name: str) -> str:
        """Make an empty run directory of that name and return its path. To be called alone (``starting``), because all
        is removed that no note knows and nobody uses, unless there are notes that cannot be understood."""
        kept = {entry.run for entry in self._noted() if self._of_this_boot(entry)}
        return self._runs.make(repository, name, kept if not self.not_understood() else None)

    def name_run_directory(self, run: str, connection: Connection, disk: str, name: str) -> tuple[str, ...]:
        """Have the run directory of a disk found by names that stay the same, and return them, its id first."""
        return self._runs.name(run, (connection.repo_id, connection.identity), disk, name)

    # -- guests whose file systems were frozen (``engine.verbs.live.quiesced``)

    def note_frozen(self, monitor: str) -> None:
        """Note that this process has the file systems of a guest frozen, which is spoken to by that monitor."""
        self._write(_frozen_note(monitor), sealed({"monitor": monitor, "process": self._doors.processes.own()}))

    def frozen(self) -> list[tuple[str, ProcessIdentity]]:
        """Return by which monitors guests are spoken to that were frozen, and by whom."""
        found = []
        for name in self._names("frozen", ".json"):
            with contextlib.suppress(TypeError, KeyError, ValueError):
                data = self._sealed(f"frozen/{name}")
                found.append((str(data["monitor"]), ProcessIdentity(*data["process"])))
        return found

    def forget_frozen(self, monitor: str) -> None:
        """Remove that note; idempotent."""
        self._remove(_frozen_note(monitor))

    # -- files that were named to be imported (``engine.tags.imports``)

    def named_file(self, repository: str, image: str) -> NamedFile | None:
        """Return the file that was named here for that image, None when none was."""
        data = self._sealed(_import_note(repository, image))
        try:
            return NamedFile(str(data["path"]), tuple(map(int, data["facts"])))
        except (KeyError, TypeError, ValueError):
            return None

    def name_file(self, repository: str, image: str, file: NamedFile) -> None:
        """Note a file; of these notes only the newest 200 are kept. Durable."""
        self._write(_import_note(repository, image), sealed(file._asdict()))
        self._thin_out("imports", ".json")

    def forget_file(self, repository: str, image: str) -> None:
        """Remove a note; idempotent."""
        self._remove(_import_note(repository, image))

    # -- throughput, for estimates

    def throughput(self, repository: str) -> float | None:
        """Return the bytes per second that copies reached here on that repository; None when that was never
        measured."""
        value = None
        with contextlib.suppress(StorageError):  # it is an estimate
            value = self._read("throughput.json", {}).get(repository)
        return value if isinstance(value, int | float) and value > 0 else None

    def note_throughput(self, repository: str, moved_bytes: int, seconds: float) -> None:
        """Average a finished run into the throughput of a repository; runs under a second or 16 MiB say nothing."""
        if seconds < 1 or moved_bytes < 16 << 20:
            return
        known = self._read("throughput.json", {})
        old = known.get(repository)
        rate = moved_bytes / seconds
        known[repository] = rate if not isinstance(old, int | float) else (old + rate) / 2
        self._write("throughput.json", known)

    # -- files

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Keep other commands of this host waiting while a note is read, changed and written back. Conflict after 10
        s."""
        path = f"{self.directory}/{_LOCK}"
        try:
            self._make_directories("")
            with contextlib.suppress(FileExistsError):
                self._doors.files.create(path).close()
            deadline = self._doors.clock.monotonic() + _PATIENCE_S
            while (lease := self._doors.leases.try_acquire(path, 0, shared=False)) is None:
                if self._doors.clock.monotonic() > deadline:
                    raise Conflict("another command of this host does not finish changing its notes", "Try again")
                self._doors.clock.sleep(_LOOK_AGAIN_S)
        except OSError as error:
            raise from_os_error(error, f"write this host's {name}") from error
        try:
            yield
        finally:
            lease.release()

    def _read(self, name: str, default: Any) -> Any:
        data, _ = self._load(name)
        return data if data is not None and (default is None or isinstance(data, type(default))) else default

    def _sealed(self, name: str) -> dict[str, Any]:
        """Return what a note says that has a seal, or is of a program that knew of none; {} when there is none, it
        cannot be read or understood, or it is not as it was written."""
        data: dict[str, Any] = {}
        with contextlib.suppress(StorageError):
            data = self._read(name, {})
        seal = data.pop(_SEAL, None)
        return data if seal is None or seal == _seal(data) else {}

    def _load(self, name: str) -> tuple[Any, str]:
        """Return what a note says, None where there is none; and why it cannot be understood, "" where it can."""
        try:
            return json.loads(self._doors.files.read_file(f"{self.directory}/{name}", _LIMIT)), ""
        except FileNotFoundError:
            return None, ""
        except OSError as error:
            raise from_os_error(error, f"read this host's {name}") from error
        except (ValueError, RecursionError) as error:
            return None, f"{error!s:.120}" or "it is no JSON"

    def _put_aside(self, name: str) -> str:
        path = f"{self.directory}/{name}"
        aside = f"{path}{_ASIDE}{self._doors.ids.new_id()}"
        try:
            self._doors.files.rename(path, aside)
            self._doors.files.sync_directory(path.rpartition("/")[0])
        except OSError as error:
            raise from_os_error(error, f"keep this host's {name}") from error
        return aside

    def _write(self, name: str, data: Any) -> None:
        path = f"{self.directory}/{name}"
        folder = path.rpartition("/")[0]
        temporary = f"{path}.{self._doors.ids.new_id()}"
        try:
            old, problem = self._load(name)
        except StorageError as error:
            old, problem = None, error.message
        if problem or not isinstance(old, type(data) | None) or (old and _SEAL in data and not self._sealed(name)):
            self._put_aside(name)
        try:
            self._make_directories(name.rpartition("/")[0])
            with self._doors.files.create(temporary) as handle:
                handle.write_at(0, json.dumps(data, indent=1).encode())
                handle.sync()
            self._doors.files.rename(temporary, path)
            self._doors.files.sync_directory(folder)
        except OSError as error:
            raise from_os_error(error, f"write this host's {name}") from error

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            self._doors.files.unlink(f"{self.directory}/{name}")

    def _names(self, folder: str, ending: str) -> list[str]:
        with contextlib.suppress(StorageError):
            return self._require_names(folder, ending)
        return []

    def _require_names(self, folder: str, ending: str) -> list[str]:
        try:
            entries = self._doors.files.list_directory(f"{self.directory}/{folder}")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise from_os_error(error, f"tell what is in this host's {folder}") from error
        return sorted(e.name for e in entries if e.kind is Kind.FILE and e.name.endswith(ending))

    def _thin_out(self, folder: str, ending: str) -> None:
        names = self._names(folder, ending)
        if len(names) <= _KEPT_LOGS:
            return
        alive = {task.id for task in self.tasks()}
        aged = []
        for name in names:
            with contextlib.suppress(OSError):
                aged.append((self._doors.files.stat(f"{self.directory}/{folder}/{name}").mtime_ns, name))
        for _, name in sorted(aged)[:-_KEPT_LOGS]:
            if name.removesuffix(ending) not in alive:
                self._remove(f"{folder}/{name}")

    def _make_directories(self, below: str) -> None:
        make_directories(self._doors.files, f"{self.directory}/{below}".rstrip("/"))
