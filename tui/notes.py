"""What the consoles of one host remember: files below ``console/`` in the host's state directory.

Replaced whole (write, sync, rename, sync of the directory) under a lock that all processes of the
host share, so nobody loses another's change and a crash leaves the old or the new one. Losing all
of it loses an operator's queue and notes, and nothing of any repository.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, TypeVar

from engine.api import Engine
from engine.doors import Doors
from engine.doors.processes import ProcessIdentity, ProcessState
from engine.errors import StorageError
from engine.host.state import HostState

FOLDER = "console"
_HEX = frozenset("0123456789abcdef")

_REMEMBERED = 500

T = TypeVar("T")
Data = TypeVar("Data", dict[str, Any], list[Any])


class Notes(HostState):
    """The notes of one host. Methods raise StorageError, and Conflict when the lock is not given for 10 s."""

    def __init__(self, doors: Doors, state_directory: str) -> None:
        super().__init__(doors, f"{state_directory}/{FOLDER}")
        self.doors = doors
        self.host_state_directory = state_directory
        self._remembered: dict[str, tuple[tuple[int, int], Any]] = {}

    def read(self, name: str, default: Data) -> Data:
        """A note; ``default`` when there is none, when it makes no sense, and when it is of another kind. StorageError
        when it cannot be read."""
        try:
            found = self._read(name, default)
        except RecursionError:  # nested by somebody who means harm
            return default
        return found if isinstance(found, type(default)) else default

    def glance(self, name: str, default: Data) -> Data:
        """The same for what is only shown: ``default`` also when it cannot be read."""
        with contextlib.suppress(StorageError):
            return self.read(name, default)
        return default

    def write(self, name: str, data: dict[str, Any] | list[Any]) -> None:
        """Replace a note; durable on return."""
        self._write(name, data)

    def write_quickly(self, name: str, data: dict[str, Any]) -> None:
        """Replace a note that is worth nothing after a crash: readers see the old or the new one, nothing is synced."""
        path = self.path(name)
        temporary = f"{path}.{self.doors.ids.new_id()}"
        with contextlib.suppress(OSError):
            with self.doors.files.create(temporary) as handle:
                handle.write_at(0, json.dumps(data).encode())
            self.doors.files.rename(temporary, path)

    def change(self, name: str, default: Data, derive: Callable[[Data], Data | None]) -> None:
        """Read a note, write what ``derive`` makes of it (None: leave it), while nobody else does so."""
        with self.alone(name):
            changed = derive(self.read(name, default))
            if changed is not None:
                self.write(name, changed)

    def mark(self, name: str) -> tuple[int, int]:
        """Another value after each change of a note; cheap. (0, 0) when there is none."""
        try:
            stat = self.doors.files.stat(f"{self.directory}/{name}")
        except OSError:
            return (0, 0)
        return (stat.mtime_ns, stat.inode)

    def remembered(self, name: str, understand: Callable[[dict[str, Any]], T]) -> T:
        """What ``understand`` makes of a note, of an empty one while it cannot be read; asked again only when the note
        has changed."""
        mark = self.mark(name)
        known = self._remembered.get(name)
        if known is None or known[0] != mark:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            try:
                known = self._remembered[name] = (mark, understand(self.read(name, {})))
            except StorageError:
                return understand({})
        found: T = known[1]
        return found

    def names(self, folder: str, ending: str) -> list[str]:
        """Names of the notes in a folder, sorted."""
        return self._names(folder, ending)

    def remove(self, name: str) -> None:
        """Forget a note; success when it is gone already."""
        self._remove(name)

    def path(self, name: str) -> str:
        """Where a note is."""
        return f"{self.directory}/{name}"

    def make_folder(self, name: str) -> None:
        """Make a folder for notes."""
        with contextlib.suppress(OSError):  # whoever writes there says what is wrong
            self._make_directories(name)

    def alive(self, process: ProcessIdentity) -> bool:
        """Whether a process of this host still lives."""
        return self.doors.processes.state(process) is not ProcessState.GONE


def notes_of(engine: Engine) -> Notes:
    """The notes of the host that an engine works for."""
    return Notes(engine.doors, engine.state.directory)


def folder_of(identity: str) -> str:
    """The folder for a repository: its identity, which came from a disk, as a name that is no path."""
    if identity and len(identity) <= 64 and set(identity) <= _HEX:
        return identity
    return blake2b(identity.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def process_of(data: object) -> ProcessIdentity | None:
    """A process identity from a note, None when it is none."""
    if not isinstance(data, list) or len(data) != 3:
        return None
    boot, pid, started = data
    good = isinstance(boot, str) and type(pid) is int and type(started) is int
    return ProcessIdentity(boot, pid, started) if good else None
