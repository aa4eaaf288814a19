"""Switches: a running disk is about to go on in another volume, and its guest may wait for somebody who sees to that.

The note of the disk's preparation tells of it before the machine is told anything, and until it is over. So whoever is
to end it for a dead runner, the watchdog, acts for that preparation alone, and not for one that came after it; and when
the watchdog is dead as well, whoever comes next finds that there is something to end, and starts another.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from engine.doors import Doors
from engine.doors.processes import ProcessIdentity, ProcessState
from engine.errors import DiskwrightError, from_os_error
from engine.host.state import HostState, Prepared

WATCHDOG = "engine.host.live.watchdog"
_PATIENCE_S = 5.0
_LOOK_AGAIN_S = 0.02


class Switch(NamedTuple):
    """Between which volumes a disk is, and who sees to it."""

    fresh: str
    old: str
    runner: ProcessIdentity
    watchdog: ProcessIdentity


def of(entry: Prepared) -> Switch | None:
    """Return the switch of which a note tells, None for none (or what no version of this program has written)."""
    with contextlib.suppress(TypeError, ValueError):
        fresh, old, *words = entry.switch
        return Switch(fresh, old, _process(*words[:3]), _process(*words[3:]))
    return None


def _process(boot_id: str, pid: str, started: str) -> ProcessIdentity:
    return ProcessIdentity(boot_id, int(pid), int(started))


def find(state: HostState, disk: str, fresh: str, old: str) -> Prepared | None:
    """Return how a disk is prepared that is between these volumes, None when that is over."""
    return next((one for one, _ in state.entries() if (one.image, *one.switch[:2]) == (disk, fresh, old)), None)


def noted(state: HostState, entry: Prepared) -> Prepared | None:
    """Return the note of a disk that is between two volumes as it is now; None when that is over."""
    return find(state, entry.image, *entry.switch[:2])


def over(state: HostState, entry: Prepared, path: str, format: str) -> None:
    """Note that it is, and where the disk is found; not of a preparation that came after this one."""
    with state.alone("switches"):
        now = noted(state, entry)
        if now is not None:
            state.save_prepared(now._replace(path=path, format=format, switch=()))


def begin(doors: Doors, state: HostState, repo_id: str, entry: Prepared, fresh: str, old: str) -> Prepared:
    """Start a watchdog for this process, and note that. Return the note; nothing is left after an error."""
    return _begin(doors, state, repo_id, entry, Switch(fresh, old, *2 * (doors.processes.own(),)))


def _begin(doors: Doors, state: HostState, repo_id: str, entry: Prepared, switch: Switch) -> Prepared:
    processes = doors.processes
    words = [switch.fresh, switch.old, *map(str, switch.runner)]
    arguments = [doors.ids.host_id, state.directory, repo_id, entry.image, *words]
    try:
        watchdog = processes.spawn(WATCHDOG, arguments, [], state.task_log(f"watchdog-{entry.image}"))
    except OSError as error:
        raise from_os_error(error, f"start the watchdog of image {entry.image}") from error
    entry = entry._replace(switch=(*words, *map(str, watchdog)))
    try:
        state.save_prepared(entry)
    except DiskwrightError:
        processes.kill(watchdog)
        raise
    return entry


def see_to(doors: Doors, state: HostState, identity: str, disk: str = "", patience_s: float = _PATIENCE_S) -> None:
    """Have somebody end each switch of a disk, or of all disks, of a repository; return when it is over, or after some
    time. What cannot be done is left to whoever comes next."""
    clock, processes = doors.clock, doors.processes
    deadline = clock.monotonic() + patience_s
    for entry, _ in state.entries():
        switch = of(entry) if entry.repository == identity and disk in ("", entry.image) else None
        if switch is None or switch.runner == processes.own():
            continue
        if processes.state(switch.watchdog) is ProcessState.GONE:
            _another(doors, state, entry, switch)
        while (now := noted(state, entry)) is not None and clock.monotonic() < deadline:
            watched = of(now)
            if watched is None or processes.state(watched.watchdog) is ProcessState.GONE:
                break
            clock.sleep(_LOOK_AGAIN_S)


def _another(doors: Doors, state: HostState, entry: Prepared, switch: Switch) -> None:
    with contextlib.suppress(DiskwrightError), state.alone("switches"):
        repo_id = next((name for name, one in state.connections().items() if one.identity == entry.repository), "")
        now = noted(state, entry)
        if repo_id and now is not None and now.switch == entry.switch:
            _begin(doors, state, repo_id, now, switch)
