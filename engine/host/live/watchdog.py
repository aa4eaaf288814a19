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


def wait(doors: Doors, runner: ProcessIdentity, is_over: Callable[[], bool]) -> None:
    """Return when the runner is gone, at most a minute later; or when there is nothing to do any more, and it goes on
    with something else."""
    clock, processes = doors.clock, doors.processes
    since = running = clock.monotonic()
    while (state := processes.state(runner)) is not ProcessState.GONE:
        now = clock.monotonic()
        running = running if state is ProcessState.STOPPED else now
        if now > running + _STOPPED_S or now > since + _AT_MOST_S:
            if is_over():
                return
            processes.kill(runner)
        clock.sleep(_LOOK_AGAIN_S)


def settle(doors: Doors, arguments: list[str]) -> None:
    """Have the machine follow the record, as soon as both can be asked."""
    directory, repo_id, disk, fresh, old = arguments[1:6]
    state = HostState(doors, directory)
    context = Context(doors, state.connections(), state, lambda context, repository, image: None)
    deadline = doors.clock.monotonic() + _TRIES_S
    while True:
        try:
            entry = switches.find(state, disk, fresh, old)
            if entry is not None:
                mirroring.take_up(context, state, repo_id, entry, fresh, old)
                with contextlib.suppress(DiskwrightError):  # O-UNHELD tells of it
                    mirroring.hold_there(context, state, repo_id, disk, fresh)
            return
        except DiskwrightError:
            if doors.clock.monotonic() > deadline:
                raise
        finally:
            context.deactivate()
        doors.clock.sleep(_TRY_AGAIN_S)


def wait_frozen(doors: Doors, freezer: ProcessIdentity) -> None:
    """Return when a process has had a guest frozen for too long, or does not get on; at once when it is gone."""
    clock, processes = doors.clock, doors.processes
    since = running = clock.monotonic()
    while (state := processes.state(freezer)) is not ProcessState.GONE:
        now = clock.monotonic()
        running = running if state is ProcessState.STOPPED else now
        if now > running + _STOPPED_S or now > since + _FROZEN_AT_MOST_S:
            return
        clock.sleep(_LOOK_AGAIN_S)


def thaw(doors: Doors, arguments: list[str]) -> None:
    """Have the guest go on, as soon as its agent can be told; there is no note of it then."""
    _, directory, monitor = arguments[:3]
    freezer = ProcessIdentity(arguments[3], int(arguments[4]), int(arguments[5]))
    deadline = doors.clock.monotonic() + _TRIES_S
    while True:
        try:
            machines.thaw(doors, monitor)
            HostState(doors, directory).forget_frozen(monitor)
            return
        except DiskwrightError:
            if doors.clock.monotonic() > deadline:
                raise
        if doors.processes.state(freezer) is ProcessState.STOPPED:
            doors.processes.kill(freezer)
        doors.clock.sleep(_TRY_AGAIN_S)


def main(arguments: list[str]) -> None:
    """Wait, and do what is left to do."""
    if arguments[0] == machines.GUEST:
        doors = real_doors(arguments[1], arguments[2])
        wait_frozen(doors, ProcessIdentity(arguments[4], int(arguments[5]), int(arguments[6])))
        thaw(doors, arguments[1:])
        return
    doors = real_doors(arguments[0], arguments[1])
    state, (disk, fresh, old) = HostState(doors, arguments[1]), arguments[3:6]
    runner = ProcessIdentity(arguments[6], int(arguments[7]), int(arguments[8]))
    wait(doors, runner, lambda: switches.find(state, disk, fresh, old) is None)
    settle(doors, arguments)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except DiskwrightError as error:
        sys.exit(str(error))
