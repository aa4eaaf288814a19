"""The history of this host: who did what, when, and what came of it; one for the command line and the console.

Lines of JSON in ``history.jsonl`` in the host's state directory, appended under the lock of the host's notes and
synced. A line that was cut off by a crash costs itself alone. Past a limit the file becomes ``history.1.jsonl``, in the
place of the one before. Who writes here: ``tui.work.noted`` for verbs, ``tui.work.away`` for work that has ended.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from engine.doors.files import FileHandle
from engine.errors import from_os_error
from tui.notes import Notes
from tui.text.printable import printable

GROUP = "create-snapshot-group"
"""The verb that has an entry for each of its disks."""
_FILE, _OLDER = "history.jsonl", "history.1.jsonl"
_LIMIT_BYTES = 1 << 20
"""Of each of the two files: some thousands of lines."""
_MOST_BYTES = 4 * _LIMIT_BYTES
_MAX_CHARACTERS = 300
_OPEN = "open.json"
_MAX_OPEN = 200


class Entry(NamedTuple):
    """One thing that was done, or that has ended. Texts are printable when they were read."""

    when: float
    user: str
    host: str
    face: str
    """command, console, or "run 90aa": the plan that did it."""
    verb: str
    """As the command is called; of work that has ended what people call it: copy, import, mend, merge, run…"""
    repo_id: str
    image: str = ""
    name: str = ""
    text: str = ""
    """What else there is to say, "" for nothing."""
    result: str = "done"
    """done, started (work goes on), failed, stopped, killed, outdated, interrupted."""
    error: str = ""
    code: str = ""
    seconds: float = 0.0
    task: str = ""
    """Id of the work: of a task, or of a run."""
    made: str = ""
    """Id of the snapshot that the verb made of the disk ``image``."""

    @property
    def what(self) -> str:
        """In a few words: "copy web-db"."""
        return f"{self.verb} {self.name or self.image[:8] or f'of {self.repo_id}'}"

    @property
    def outcome(self) -> str:
        """The result with what is to be said about it."""
        return f"{self.result}: {self.error}" if self.error else self.result


class Work(NamedTuple):
    """Something that was begun here and goes on by itself."""

    entry: Entry
    """That told of its beginning."""
    about: dict[str, Any]
    """How to find out what became of it."""


class History:
    """The history of the host that the notes belong to."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._files = notes.doors.files
        self._mark: object = None
        self._entries: tuple[Entry, ...] = ()

    def entries(self) -> tuple[Entry, ...]:
        """All that is kept, the oldest first. Two stats when nothing has changed."""
        mark = (self._stat(_OLDER), self._stat(_FILE))
        if mark != self._mark:
            lines = dict.fromkeys(line for name in (_OLDER, _FILE) for line in self._lines(name))
            self._entries = tuple(entry for line in lines if (entry := _entry(line)) is not None)
            self._mark = mark
        return self._entries

    def add(self, entry: Entry, work: dict[str, Any] | None = None) -> None:
        """Append what was done; with ``work``, something goes on under ``entry.task``. Durable on return. StorageError,
        Conflict."""
        with self._notes.alone(_FILE):
            if work is not None:
                going = [*self._notes.read(_OPEN, {}).items(), (entry.task, {"entry": entry._asdict(), "about": work})]
                self._notes.write(_OPEN, dict(going[-_MAX_OPEN:]))
            self._append([entry])

    def going_on(self) -> dict[str, Work]:
        """What was begun and is not known to have ended, by ids."""
        found = {}
        for id, data in self._notes.read(_OPEN, {}).items():
            entry = _entry(json.dumps(data.get("entry"))) if isinstance(data, dict) else None
            if entry is not None and isinstance(data.get("about"), dict):
                found[id] = Work(entry, data["about"])
        return found

    def ended(self, entries: dict[str, list[Entry]]) -> list[Entry]:
        """Append how work has ended, by its id; returns those that nobody had appended before. Durable on return."""
        with self._notes.alone(_FILE):
            going = self._notes.read(_OPEN, {})
            fresh = [entry for id, found in entries.items() if id in going for entry in found]
            self._append(fresh)  # a crash here has it appended twice, and the same line counts once
            self._notes.write(_OPEN, {id: data for id, data in going.items() if id not in entries})
        return fresh

    # -- the file

    def _path(self, name: str) -> str:
        return f"{self._notes.host_state_directory}/{name}"

    def _stat(self, name: str) -> object:
        try:
            return self._files.stat(self._path(name))
        except OSError:
            return None

    def _append(self, entries: list[Entry]) -> None:
        raw = "".join(json.dumps(_cut(entry)) + "\n" for entry in entries).encode()
        try:
            with self._handle() as handle:
                size = handle.stat().size
                torn = size > 0 and handle.read_at(size - 1, 1) != b"\n"
                handle.write_at(size, b"\n" * torn + raw)
                handle.sync()
            self._files.sync_directory(self._notes.host_state_directory)
        except OSError as error:
            raise from_os_error(error, "write the history of this host") from error

    def _handle(self) -> FileHandle:
        path = self._path(_FILE)
        try:
            handle = self._files.open(path, writable=True)
        except FileNotFoundError:
            return self._files.create(path)
        if handle.stat().size < _LIMIT_BYTES:
            return handle
        handle.close()
        self._files.rename(path, self._path(_OLDER))
        return self._files.create(path)

    def _lines(self, name: str) -> list[str]:
        try:
            raw = self._files.read_file(self._path(name), _MOST_BYTES)
        except OSError:
            return []
        return raw.decode("utf-8", "replace").splitlines()


def _cut(entry: Entry) -> dict[str, Any]:
    return {key: text[:_MAX_CHARACTERS] if isinstance(text, str) else text for key, text in entry._asdict().items()}


def _entry(line: str) -> Entry | None:
    """What a line tells, None when it makes no sense."""
    try:
        data = json.loads(line)
        known: dict[str, Any] = {name: printable(data[name]) for name in Entry._fields if name in data}
        known |= {name: float(data[name]) for name in ("when", "seconds") if name in data}
        return Entry(**known)
    except (ValueError, TypeError, RecursionError, OverflowError):
        return None


def user_name() -> str:
    """Who works here: the user, behind sudo too; the number where it has no name."""
    import pwd

    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    behind = os.environ.get("SUDO_USER", "")
    return f"{behind} as {name}" if behind and behind != name else name
