"""The watchdog: a process that lets no guest wait for somebody who is dead.

``python -m engine.host.live.watchdog HOST STATE REPO IMAGE FRESH OLD BOOT PID STARTED``. While a runner
(BOOT PID STARTED) changes the volume of a running disk from OLD to FRESH (``engine.host.mirroring``) it waits for its
end, in a session of its own, and has no lease. Then it does what the disk's record says: the machine goes on in FRESH,
or in OLD; unless no preparation tells of that switch any more. The runner ends it with SIGTERM when there is nothing to
do any more. One that was stopped by a signal, or does not get on, is killed: its guest waits.

``… guest HOST STATE MONITOR BOOT PID STARTED``: while a process has the file systems of a guest frozen
(``engine.verbs.live.quiesced``). When that is gone, stands still, or takes too long, the guest is thawed; nobody is
killed for that, unless it stands still and keeps the agent to itself.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

from engine.assembly import real_doors
from engine.doors import Doors
from engine.doors.processes import ProcessIdentity, ProcessState
from engine.errors import DiskwrightError
from engine.host import machines, mirroring
from engine.host.live import switches
from engine.host.state import HostState
from engine.tags.context import Context

_LOOK_AGAIN_S = 0.05
_STOPPED_S = 3.0
_AT_MOST_S = 60.0
_FROZEN_AT_MOST_S = 40.0
"""With what it may take until it is frozen. (Windows thaws by itself after 10 s.)"""
_TRY_AGAIN_S = 0.5
_TRIES_S = 3600.0
"""So long somebody else may speak to the machine, or the storage be away: its guest waits as long."""


def wait(doors: Doors, process: ProcessIdentity, at_most_s: float, is_left_alone: Callable[[], bool]) -> None:
    """Return when a process is gone. One that stands still, or takes longer than that, is killed, unless it is to be
    left alone: then return, too."""
    clock, processes = doors.clock, doors.processes
    since = running = clock.monotonic()
    while (state := processes.state(process)) is not ProcessState.GONE:
        now = clock.monotonic()
        running = running if state is ProcessState.STOPPED else now
        if now > running + _STOPPED_S or now > since + at_most_s:
            if is_left_alone():
                return
            processes.kill(process)
        clock.sleep(_LOOK_AGAIN_S)


def settle(doors: Doors, arguments: list[str]) -> None:
    """Have the machine follow the record, as soon as both can be asked."""
    directory, repo_id, disk, fresh, old = arguments[1:6]
    state = HostState(doors, directory)

    def follow() -> None:
        context = Context(doors, state.connections(), state, lambda context, repository, image: None)
        try:
            entry = switches.find(state, disk, fresh, old)
            if entry is not None:
                mirroring.take_up(context, state, repo_id, entry, fresh, old)
                with contextlib.suppress(DiskwrightError):  # O-UNHELD tells of it
                    mirroring.hold_there(context, state, repo_id, disk, fresh)
        finally:
            context.deactivate()

    _do(doors, follow)


def thaw(doors: Doors, arguments: list[str]) -> None:
    """Have the guest go on, as soon as its agent can be told; there is no note of it then."""
    _, directory, monitor = arguments[:3]
    freezer = ProcessIdentity(arguments[3], int(arguments[4]), int(arguments[5]))

    def go_on() -> None:
        try:
            machines.thaw(doors, monitor)
            HostState(doors, directory).forget_frozen(monitor)
        except DiskwrightError:
            if doors.processes.state(freezer) is ProcessState.STOPPED:
                doors.processes.kill(freezer)  # it keeps the agent to itself
            raise

    _do(doors, go_on)


def _do(doors: Doors, what: Callable[[], None]) -> None:
    """Try until it works. What it raises after an hour of that is raised."""
    deadline = doors.clock.monotonic() + _TRIES_S
    while True:
        try:
            what()
            return
        except DiskwrightError:
            if doors.clock.monotonic() > deadline:
                raise
        doors.clock.sleep(_TRY_AGAIN_S)


def _is_over(state: HostState, disk: str, fresh: str, old: str) -> bool:
    """Tell whether a switch is over; False when that cannot be told."""
    with contextlib.suppress(DiskwrightError):
        return switches.find(state, disk, fresh, old) is None
    return False


def main(arguments: list[str]) -> None:
    """Wait, and do what is left to do."""
    is_guest = arguments[0] == machines.GUEST
    arguments = arguments[1:] if is_guest else arguments
    doors = real_doors(arguments[0], arguments[1])
    process = ProcessIdentity(arguments[-3], int(arguments[-2]), int(arguments[-1]))
    if is_guest:
        wait(doors, process, _FROZEN_AT_MOST_S, lambda: True)
        thaw(doors, arguments)
    else:
        state, (disk, fresh, old) = HostState(doors, arguments[1]), arguments[3:6]
        wait(doors, process, _AT_MOST_S, lambda: _is_over(state, disk, fresh, old))
        settle(doors, arguments)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except DiskwrightError as error:
        sys.exit(str(error))
