"""Looking at a repository from beside the screen: in a process of its own, which may hang with its storage.

A thread waits for that process, so a scan can be cancelled and given up however dead a mount is, and the
memory and the processor time of a large check are not the console's.

``python -m tui.work.scanner HOST STATE REPO deep|quick known|unknown`` is that process.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

from engine.api import Engine
from engine.assembly import real_doors
from engine.errors import DiskwrightError, StorageError
from tui.text.printable import printable
from tui.view import gather
from tui.view.snapshot import RepositoryView, lost, never_read

OPEN_PATIENCE_S = 30.0
"""Storage that has not let itself be opened in this time does not answer."""
SCAN_PATIENCE_S = 900.0
_LOOK_S = 0.1
_READ_BYTES = 1 << 18
_END_S = 1.0

_hanging: list[subprocess.Popen[bytes]] = []
"""Processes that could not be ended; they are waited for when they have."""


class Cancelled(Exception):
    """The scan was given up before it had found anything."""


class Cancel:
    """A request to give up, made by any thread."""

    def __init__(self) -> None:
        self.wanted = False

    def cancel(self) -> None:
        """Give up within a tenth of a second."""
        self.wanted = True


class RepositoryEntry(NamedTuple):
    """A connected repository, without looking at it."""

    name: str
    format: str
    place: str
    identity: str


def connected(engine: Engine) -> tuple[RepositoryEntry, ...]:
    """What is connected on this host, by name; the storage is not touched."""
    found = sorted(engine.list_repositories().items())
    return tuple(
        RepositoryEntry(
            printable(name),
            printable(item.format),
            printable(" ".join(f"{key}={value}" for key, value in item.parameters.items())),
            printable(item.identity),
        )
        for name, item in found
    )


class Scanner:
    """Scans repositories for one host."""

    def __init__(self, host: str, state: str, wall: Callable[[], float] = time.time) -> None:
        self._host = host
        self._state = state
        self._wall = wall

    def scan(
        self, repo_id: str, previous: RepositoryView | None = None, deep: bool = False, cancel: Cancel | None = None
    ) -> RepositoryView:
        """A fresh view, or ``previous`` with what went wrong. Blocks; call it in a thread.

        Cancelled when ``cancel`` asked for that; nothing else is raised."""
        before = previous or never_read(repo_id, self._host)
        known = before.constraints is not None
        words = [self._host, self._state, repo_id, "deep" if deep else "quick", "known" if known else "unknown"]
        try:
            with contextlib.closing(_lines_of(words, cancel or Cancel())) as lines:
                view = gather.from_lines(lines)
        except DiskwrightError as error:
            return lost(before, error.code, printable(error.message), printable(error.next_step), self._wall())
        return view._replace(constraints=before.constraints) if known else view


def _lines_of(words: list[str], cancel: Cancel) -> Generator[str, None, None]:
    """The lines that the process writes, as they come; DiskwrightError for what it failed with."""
    process = _start(words)
    try:
        opened = False
        for line in _read_lines(process, cancel):
            if not opened:
                opened = line == "opened"
                if opened:
                    continue
            if line.startswith('{"error"'):
                raise _error(line)
            yield line
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process. One that hangs in the kernel ends when that lets it; nobody waits for it."""
    process.kill()
    if process.stdout is not None:
        process.stdout.close()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        _hanging.append(process)
    _hanging[:] = [other for other in _hanging if other.poll() is None]


def _start(words: list[str]) -> subprocess.Popen[bytes]:
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "tui.work.scanner", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            cwd="/",
        )
    except OSError as error:
        raise StorageError(f"cannot start a process that looks at the storage: {error}", "Try again") from error


def _read_lines(process: subprocess.Popen[bytes], cancel: Cancel) -> Iterator[str]:
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    deadline, patience = time.monotonic() + OPEN_PATIENCE_S, OPEN_PATIENCE_S
    rest = b""
    while True:
        ready, _, _ = select.select([descriptor], [], [], _LOOK_S)
        if cancel.wanted:
            raise Cancelled
        if not ready:
            if time.monotonic() > deadline:
                raise StorageError(f"the storage did not answer for {patience:.0f} s", "Try again, or disconnect it")
            continue
        data = os.read(descriptor, _READ_BYTES)
        if not data:
            raise StorageError("the process that looks at the storage has ended before it was done", "Try again")
        *lines, rest = (rest + data).split(b"\n")
        deadline, patience = time.monotonic() + SCAN_PATIENCE_S, SCAN_PATIENCE_S
        yield from (line.decode() for line in lines)


def _error(line: str) -> DiskwrightError:
    data = json.loads(line)["error"]
    error = StorageError(str(data["message"]), str(data["next_step"]))
    error.code = str(data["code"])
    return error


def main(arguments: list[str]) -> int:
    """The process that scans: writes a view to standard output, or what went wrong."""
    host, state, repo_id, depth, known = arguments
    engine = Engine(real_doors(host, state), state)
    try:
        engine.context.repository(repo_id).space()
        _write("opened")
        had = gather.NOT_ASKED if known == "known" else None
        for line in gather.to_lines(gather.gather(engine, repo_id, depth == "deep", had)):
            _write(line)
    except DiskwrightError as error:
        told = {"code": error.code, "message": error.message, "next_step": error.next_step}
        _write(json.dumps({"error": told}))
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody waits any more
        return 1
    finally:
        engine.close()
    return 0


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
