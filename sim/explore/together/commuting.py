"""Which changes of turn make no difference: a call that a process makes just before another one has its turn, and that
has nothing to do with what that one calls in it, may as well be made after it.

Nothing is guessed: who may be left out is read from the trace of a schedule that was played, the one with the change of
turn a call later. Both end in the same storage, but for the names of what is new.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from sim.hosts.processes import SimProcess
from sim.hosts.schedule import Uniform
from sim.hosts.tape import Tape
from sim.hosts.trace import Trace

_LOOKS = {
    "files.inode_generation",
    "files.list_directory",
    "files.read_file",
    "files.resolve",
    "files.space",
    "files.stat",
    "files.users",
    "handle.read_at",
    "handle.stat",
    "leases.held",
    "mounts.holding",
}
"""Calls that change nothing. What is not known to be one is taken for an effect."""
_MOVABLE = (_LOOKS - {"files.users", "leases.held"}) | {
    "files.create",
    "files.link",
    "files.make_directory",
    "files.rename",
    "files.sync_directory",
    "files.unlink",
    "handle.sync",
    "handle.truncate",
    "handle.write_at",
}
"""Calls on names and contents alone: they do not depend on who has what open or locked, which others let go of without
any call."""


_RENAMING = {"files.link", "files.rename"}


class _Call(NamedTuple):
    when: str
    process: str
    name: str
    paths: tuple[str, ...]


class Turns(Uniform):
    """As ``Uniform``; and it tells afterwards which other schedules are the same as this one."""

    def __init__(self, tape: Tape, trace: Trace) -> None:
        super().__init__(tape)
        self._recorded = tape
        self._trace = trace
        self._lines: dict[int, int] = {}
        """How many calls were made before each choice."""
        self._held: dict[int, frozenset[object]] = {}
        """What the process that ran had open and locked at each."""

    def pick(self, runnable: Sequence[SimProcess], current: SimProcess | None) -> SimProcess:
        choice = len(self._recorded.record)
        self._lines[choice] = len(self._trace.lines)
        if current is not None:
            self._held[choice] = frozenset(current.files.handles).union(current.host.world.locks.owned(current))
        return super().pick(runnable, current)

    def same(self) -> Iterator[tuple[int, ...]]:
        """Yield the beginnings of other tapes of which nothing new comes, if this is the first with its beginning:
        those in which its last change of turn comes earlier, by calls to which it does not matter."""
        values = self._recorded.values
        last = len(values) - 1
        if last < 1 or values[last] != 1:
            return
        calls = _calls(self._trace)
        before = calls[self._lines[last] - 1]
        turn = _turn(calls[self._lines[last] :], before)
        for position in range(last - 1, 0, -1):
            start, end = self._lines.get(position, 0), self._lines[position + 1]
            if values[position] or end - start != 1 or not _commutes(calls[start], before, turn):
                return
            held = self._held.get(position)
            if held is None or not held <= self._held.get(position + 1, frozenset()):
                return  # it let go of something as well, which is no call
            yield (*values[:position], 1)


def _turn(calls: Sequence[_Call], before: _Call) -> list[_Call]:
    """What others call until the process goes on that called ``before``."""
    found = []
    for call in calls:
        if call.process == before.process:
            break
        found.append(call)
    return found


def _commutes(call: _Call, last: _Call, turn: Collection[_Call]) -> bool:
    if call.process != last.process or call.name not in _MOVABLE:
        return False
    return all(
        other.when == call.when
        and other.paths
        and (_LOOKS.issuperset((call.name, other.name)) or not _related(call, other))
        for other in turn
    )


def _related(one: _Call, other: _Call) -> bool:
    return any(_within(a, b) or _within(b, a) for a in one.paths for b in other.paths)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _calls(trace: Trace) -> list[_Call]:
    """One for each line. Paths by which one file was known stand for each other."""
    known: dict[str, set[str]] = {}
    found: list[tuple[str, str, str, set[str]]] = []
    for line in trace.lines:
        _, when, process, call, *rest = [*line.split(), "", ""]
        paths = {word for word in rest if word.startswith("/")}
        if call in _RENAMING:
            paths = paths.union(*(known.get(path, ()) for path in paths))
            known.update(dict.fromkeys(paths, paths))
        found.append((when, process, call, paths))
    return [
        _Call(when, process, call, tuple(paths.union(*(known.get(path, ()) for path in paths))))
        for when, process, call, paths in found
    ]
