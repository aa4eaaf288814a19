"""What this host remembers for itself: connections, tasks, prepared images, throughput.

None of it is needed to recover a repository: it can be deleted, and another host never reads
it. Files are replaced whole (write, sync, rename), so a crash leaves the old or the new one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from engine.doors import Doors
from engine.doors.files import Kind
from engine.doors.processes import ProcessIdentity, ProcessState
from engine.errors import Conflict, DiskwrightError, NotFound, from_os_error
from engine.tags.context import Connection

_LIMIT = 4 * 1024 * 1024
_LOCK = "lock"
_PATIENCE_S = 10.0
_LOOK_AGAIN_S = 0.01
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


class Prepared(NamedTuple):
    """An image that is prepared on this host."""

    repository: str
    image: str
    process: ProcessIdentity
    path: str
    format: str
    writable: bool


def _connection_data(connection: Connection, handle: str = "") -> dict[str, Any]:
    data = {"format": connection.format, "parameters": connection.parameters, "identity": connection.identity}
    anchors = {"anchors": connection.anchors} if connection.anchors else {}
    return data | anchors | ({"handle": handle} if handle else {})


def _connection(handle: str, data: dict[str, Any]) -> Connection:
    anchors = data.get("anchors", {})
    return Connection(handle, data["format"], dict(data["parameters"]), data["identity"], dict(anchors))


class HostState:
    """The host's files below one directory."""

    def __init__(self, doors: Doors, directory: str) -> None:
        self._doors = doors
        self.directory = directory

    # -- connections

    def connections(self) -> dict[str, Connection]:
        """Return what is connected, by handle."""
        found = {}
        for repo_id, data in self._read("connections.json", {}).items():
            if repo_id == _LEFT:
                continue
            with contextlib.suppress(TypeError, KeyError, ValueError):
                found[repo_id] = _connection(repo_id, data)
        return found

    def connected(self, repo_id: str) -> Connection | None:
        """Return what is connected under a handle now, None when nothing is."""
        return self.connections().get(repo_id)

    def note_anchors(self, connection: Connection) -> None:
        """Note what a repository stands on, if it is still connected as it was."""
        with self.alone("connections.json"):
            connections = self.connections()
            if connection.same(connections.get(connection.repo_id)):
                self.save_connections(connections | {connection.repo_id: connection})

    @contextlib.contextmanager
    def starting(self, connection: Connection) -> Iterator[None]:
        """Keep everybody on this host from disconnecting a repository while a process is started that uses it, until
        that is noted. NotFound when somebody has disconnected it."""
        with self.alone("connections.json"):
            if not connection.same(self.connected(connection.repo_id)):
                raise NotFound(f"{connection.repo_id} was disconnected at this moment", "Connect it again")
            yield

    def save_connections(self, connections: dict[str, Connection]) -> None:
        """Replace the list of connections."""
        left = {c.identity: c for c in (*self._left(), *self.connections().values())}
        connected = {c.identity for c in connections.values()}
        gone = [c for c in left.values() if c.identity not in connected][-_KEPT_LEFT:]
        data: dict[str, Any] = {c.repo_id: _connection_data(c) for c in connections.values()}
        self._write(
            "connections.json", data | ({_LEFT: [_connection_data(c, c.repo_id) for c in gone]} if gone else {})
        )

    def last_seen(self, identity: str) -> Connection | None:
        """Return how a repository was connected that is not connected now; None when this host remembers none."""
        return next((connection for connection in self._left() if connection.identity == identity), None)

    def _left(self) -> list[Connection]:
        found = []
        for data in self._read("connections.json", {}).get(_LEFT, ()):
            with contextlib.suppress(TypeError, KeyError, ValueError):
                found.append(_connection(data["handle"], data))
        return found

    # -- tasks

    def tasks(self) -> list[Task]:
        """Return the tasks whose process is alive; remove the files of others (their logs stay)."""
        alive = []
        for name in self._names("tasks", ".json"):
            data = self._read(f"tasks/{name}", None)
            try:
                known = {"process": ProcessIdentity(*data["process"]), "images": tuple(data["images"])}
                task = Task(**{**data, **known, "uses": tuple(data["uses"])})
            except (TypeError, KeyError):
                task = None
            if task is None or self._doors.processes.state(task.process) is ProcessState.GONE:
                self._remove(f"tasks/{name}")
                self._remove(f"tasks/{name.removesuffix('.json')}.spec")
            else:
                alive.append(task)
        return sorted(alive, key=lambda task: task.started)

    def save_task(self, task: Task) -> None:
        """Note a task that was just started."""
        self._write(f"tasks/{task.id}.json", task._asdict())

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
        """Return the images whose holder lives; remove what dead holders left."""
        alive = []
        for name in self._names("prepared", ".json"):
            data = self._read(f"prepared/{name}", None)
            try:
                entry = Prepared(**{**data, "process": ProcessIdentity(*data["process"])})
            except (TypeError, KeyError):
                self._remove(f"prepared/{name}")
                continue
            if self._doors.processes.state(entry.process) is ProcessState.GONE:
                with contextlib.suppress(DiskwrightError):
                    self.forget_prepared(entry)
            else:
                alive.append(entry)
        return alive

    def prepared_note(self, entry: Prepared) -> str:
        """Return the path of the note about a prepared image."""
        return f"{self.directory}/prepared/{entry.repository}-{entry.image}.json"

    def save_prepared(self, entry: Prepared) -> None:
        """Note a prepared image."""
        self._write(f"prepared/{entry.repository}-{entry.image}.json", entry._asdict())

    def forget_prepared(self, entry: Prepared) -> None:
        """Remove the run directory and the note, if they are still those of that holder; idempotent."""
        name = f"prepared/{entry.repository}-{entry.image}.json"
        run = self.run_directory(entry.repository, entry.image)
        with self.alone(name):
            data = self._read(name, {})
            if data.get("process") != list(entry.process):
                return  # somebody has forgotten it, and prepared the image anew
            with contextlib.suppress(OSError):
                for link in self._doors.files.list_directory(run):
                    self._doors.files.unlink(f"{run}/{link.name}")
                self._doors.files.remove_directory(run)
            self._remove(name)

    def run_directory(self, repository: str, image: str) -> str:
        """Return where the links to a prepared image stand."""
        return f"{self.directory}/run/{repository}/{image}"

    def make_run_directory(self, repository: str, image: str) -> str:
        """Make an empty run directory and return its path."""
        self._make_directories(f"run/{repository}/{image}")
        run = self.run_directory(repository, image)
        for link in self._doors.files.list_directory(run):
            self._doors.files.unlink(f"{run}/{link.name}")
        return run

    # -- throughput, for estimates

    def throughput(self, repository: str) -> float | None:
        """Return the bytes per second that copies reached here on that repository; None when that was never
        measured."""
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
        try:
            data = json.loads(self._doors.files.read_file(f"{self.directory}/{name}", _LIMIT))
        except FileNotFoundError:
            return default
        except OSError as error:
            raise from_os_error(error, f"read this host's {name}") from error
        except ValueError:
            return default  # only notes of this host: losing one costs a reconnect
        return data if default is None or isinstance(data, type(default)) else default

    def _write(self, name: str, data: Any) -> None:
        path = f"{self.directory}/{name}"
        folder = path.rpartition("/")[0]
        temporary = f"{path}.{self._doors.ids.new_id()}"
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
        try:
            entries = self._doors.files.list_directory(f"{self.directory}/{folder}")
        except OSError:
            return []
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
        parts = self.directory.split("/") + [part for part in below.split("/") if part]
        for count in range(2, len(parts) + 1):
            with contextlib.suppress(FileExistsError):
                self._doors.files.make_directory("/".join(parts[:count]))
