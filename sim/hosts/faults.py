"""Faults at door calls: which may happen where, and how often.

One choice per call while the budget lasts; 0 is none. A failed call does nothing (EIO, ENOSPC, ESTALE, EACCES, a
command of LVM that fails) or carries its fault out itself (a short write; a sync that fails and loses what it should
have written; a link that is made and reported as impossible). Others befall the caller: it is killed, or frozen for a
while; the power of everything is cut; the wall clock of its host jumps. Or its host: it stands still, loses its power,
is apart from the storage for a while, or is evicted (its daemon ends, so it is present no more where hosts share).
"""

from __future__ import annotations

import errno
from typing import NamedTuple, Protocol

from engine.errors import ToolFailed
from sim.disk.files import Fault
from sim.disk.nodes import fail
from sim.hosts.processes import SimProcess
from sim.hosts.tape import Tape

ERRORS = frozenset({"eio", "enospc", "estale", "eacces"})
"""Errors by which a call may fail in random runs; a scenario may name any other of ``errno``."""
PARTIAL = {"short": Fault.SHORT, "sync": Fault.SYNC_FAILS, "reply": Fault.REPLY_LOST}
"""What a call may do by half."""
_NEED_ROOM = frozenset(
    "files.create files.link files.rename files.make_directory files.symlink files.clone handle.write_at".split()
)
_NAMED = frozenset(
    "files.list_directory files.stat files.read_file files.open files.create files.link files.rename files.unlink "
    "files.make_directory files.remove_directory files.symlink".split()
)
KINDS = ("eio", "enospc", "estale", "eacces", "short", "sync", "reply", "kill", "freeze", "clock", "power")
GROUP_KINDS = tuple("eio short sync kill freeze clock power tool".split())
"""What may go wrong on a volume group."""
SHARED_KINDS = tuple("eio sync kill freeze clock power tool stall off apart evicted".split())
"""What may go wrong where hosts share a volume group."""
FREEZES_S = (0.01, 5.0, 600.0)
APART_S = (10.0, 100.0, 600.0)
CLOCK_JUMPS_S = (-3600.0, 60.0, 86400.0)


class Faults(NamedTuple):
    """What may go wrong in a run."""

    kinds: tuple[str, ...] = ()
    rarity: int = 200
    """A random run has one in so many calls."""
    budget: int = 3
    """And no more than so many."""


class Powers(Protocol):
    """What a fault may do to the world."""

    def power_cut(self) -> None: ...

    def jump_clock(self, host: str, seconds: float) -> None: ...

    @property
    def now(self) -> float: ...


class FaultSource:
    """Draws faults from the tape and carries them out."""

    def __init__(self, faults: Faults, tape: Tape, world: Powers) -> None:
        unknown = set(faults.kinds) - {*KINDS, *SHARED_KINDS}
        assert not unknown, f"unknown faults: {unknown}"
        self._faults = faults
        self._tape = tape
        self._world = world
        self._left = faults.budget
        self._options: dict[str, list[str]] = {}
        self.happened: list[str] = []

    def strike(self, process: SimProcess, call: str, what: str) -> Fault:
        """What happens to this call. Raises OSError, or Crashed after a death."""
        if self._left <= 0:
            return Fault.NONE
        options = self._options.get(call)
        if options is None:
            options = self._options[call] = [kind for kind in self._faults.kinds if possible(kind, call)]
        chosen = self._tape.choose(len(options) + 1, f"fault at {call}", self._faults.rarity)
        if not chosen:
            return Fault.NONE
        self._left -= 1
        kind = options[chosen - 1]
        self.happened.append(f"{kind} at {process!r} {call} {what}")
        return self._carry_out(kind, process, call, what)

    def _carry_out(self, kind: str, process: SimProcess, call: str, what: str) -> Fault:
        if kind in ERRORS or kind in PARTIAL:
            return fail_call(kind, what)
        if kind == "tool":
            raise ToolFailed(f"a command of LVM fails at {what}")
        if kind == "kill":
            process.kill()
        if kind == "power":
            self._world.power_cut()
            process.kill()
        if kind in _OF_HOSTS:
            self._befall_host(kind, process, call, what)
        if kind == "freeze":
            seconds = FREEZES_S[self._tape.choose(len(FREEZES_S), "how long frozen")]
            process.frozen_until = self._world.now + seconds
        if kind == "clock":
            seconds = CLOCK_JUMPS_S[self._tape.choose(len(CLOCK_JUMPS_S), "how far the clock jumps")]
            self._world.jump_clock(process.host.name, seconds)
        return Fault.NONE

    def _befall_host(self, kind: str, process: SimProcess, call: str, what: str) -> None:
        host = process.host
        if kind == "stall":
            host.freeze(FREEZES_S[self._tape.choose(len(FREEZES_S), "how long it stands still")])
        if kind == "off":
            host.lose_power()
            process.kill()
        if kind == "apart":
            host.part(APART_S[self._tape.choose(len(APART_S), "how long apart")])
            host.require_storage(call, what)
        if kind == "evicted":
            host.evict()
            if process.dead:
                process.kill()


_OF_HOSTS = frozenset({"stall", "off", "apart", "evicted"})


def fail_call(kind: str, what: str) -> Fault:
    """Fail a call: raise the error of that name of ``errno``, in whatever case, or return what of ``PARTIAL`` it
    does."""
    if kind in PARTIAL:
        return PARTIAL[kind]
    raise fail(getattr(errno, kind.upper()), what)


def possible(kind: str, call: str) -> bool:
    """Whether a call can have a fault. In random runs errors come where they make sense; named in capitals, as
    scenarios do, they come at any call about files."""
    door = call.partition(".")[0]
    if kind in ("kill", "freeze", "clock", "power") or kind in _OF_HOSTS:
        return True
    if kind == "tool":
        return door == "volume_groups" and call != "volume_groups.open_device"
    if kind == "enospc":
        return call in _NEED_ROOM
    if kind == "short":
        return call == "handle.write_at"
    if kind == "reply":
        return call == "files.link"
    if kind == "sync":
        return call in ("handle.sync", "files.sync_directory")
    if kind == "eacces":
        return call in _NAMED
    return door in ("files", "handle")
