"""When a command, all of its session, or the processes that go on working are killed."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.adversary.doors import processes


@dataclass(frozen=True)
class Kill:
    """When to kill: `ms` after the start, at the n-th change of `names` in a repository, or at `written` bytes there.

    `whom` is "command" (that process alone), "group" (all that it started in its session) or "runners".
    """

    whom: str
    ms: int = 0
    names: int = 0
    written: int = 0

    @staticmethod
    def of(action: dict[str, Any]) -> "Kill | None":
        """Return the kill that an action of a story asks for, if it does."""
        return Kill(**action["kill"]) if action.get("kill") else None


class Process(Protocol):
    """A process that was started."""

    pid: int

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""


class Killer:
    """Watches for its moment in a thread of its own, and strikes once."""

    def __init__(self, kill: Kill, process: Process, mark: str, watch: Path | None, slow: float) -> None:
        self._kill, self._process, self._mark, self._watch, self._slow = kill, process, mark, watch, slow
        self._struck = False
        self._victims: list[int] = []
        self._over = threading.Event()
        self._before = _names(watch) if watch else frozenset()
        self._used = _used(watch) if watch else 0
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def finish(self) -> bool:
        """Return whether it struck. Work that goes on after the command may still be struck for a second."""
        if self._kill.whom != "runners":
            self._over.set()
        self._thread.join()
        return self._struck

    def _wait(self) -> None:
        deadline = time.monotonic() + 20.0 * self._slow
        began = time.monotonic()
        ended = 0.0
        due = self._due()
        while not self._over.is_set() and time.monotonic() < deadline:
            looked = time.monotonic()
            if self._kill.whom == "runners" and not self._victims:
                self._victims = processes.runners(self._mark)  # known before the moment, lest it is missed
            if due(time.monotonic() - began):
                self._strike()
                return
            if self._process.poll() is not None:
                ended = ended or time.monotonic()
                if time.monotonic() - ended > 1.0 * self._slow:
                    return
            processes.pause(max(0.0005, time.monotonic() - looked))  # on slow storage a look costs more than this

    def _due(self) -> Callable[[float], bool]:
        kill = self._kill
        if self._watch and kill.names:
            return lambda _spent: len(_names(self._watch) ^ self._before) >= kill.names
        if self._watch and kill.written:
            return lambda _spent: _used(self._watch) - self._used >= kill.written
        ms = kill.ms or kill.names * 60 or kill.written // 100_000  # what cannot be watched is struck at some time
        return lambda spent: spent * 1000 >= ms * self._slow

    def _strike(self) -> None:
        if self._kill.whom == "runners":
            for pid in [*self._victims, *processes.runners(self._mark)]:
                processes.kill(pid)
                self._struck = True
            return
        if self._process.poll() is None:
            self._struck = True
            if self._kill.whom == "group":
                for pid in _session(self._process.pid, self._mark):
                    processes.kill(pid)
            processes.kill(self._process.pid)


def _session(leader: int, mark: str) -> list[int]:
    found = []
    for pid in processes.marked(mark):
        try:
            if os.getsid(pid) == leader:
                found.append(pid)
        except OSError:
            continue
    return found


def _names(root: Path | None) -> frozenset[str]:
    """Return all names of files of a repository but the volumes'; they change when it commits."""
    found = []
    for directory in ("tags", "progress", "digests"):
        for parent, _, files in os.walk(root / directory if root else directory):
            found += [f"{parent}/{name}" for name in files]
    return frozenset(found)


def _used(root: Path | None) -> int:
    total = 0
    for parent, _, files in os.walk(root / "volumes" if root else "volumes"):
        for name in files:
            try:
                total += os.stat(f"{parent}/{name}").st_blocks * 512
            except OSError:
                continue
    return total
