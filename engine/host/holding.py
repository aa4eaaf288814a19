"""Holders: processes that keep the leases and locks of a prepared image; how one is started, and how it is ended."""

from __future__ import annotations

import contextlib

from engine.doors.leases import Lease
from engine.doors.processes import ProcessState
from engine.doors.shared_leases import TOKEN_PREFIX
from engine.errors import DiskwrightError, StorageError, from_os_error
from engine.formats.base import Repository
from engine.gate import gate
from engine.host.state import HostState, Prepared
from engine.tags import chains
from engine.tags.context import Context

_WAIT_S = 10.0


def locks(
    stack: contextlib.ExitStack,
    repository: Repository,
    links: list[chains.Link],
    writable: bool,
    taken_over: bool,
    merged: str = "",
    left: str = "",
) -> list[Lease]:
    """Return the leases that keep the volumes as the machine needs them as long as the holder lives; ``stack`` gives
    them up in this process. ``merged``: the tag of a layer below that the machine writes to as well; ``left``: of the
    one that it is about to write to no more."""
    found = []
    for link in links:
        alone = writable and (link is links[0] or link.tag == merged)
        for lease in gate.hold(repository, link.tag, link.volume, alone, taken_over, link.tag == left):
            stack.callback(lease.release)
            found.append(lease)
    return found


def start(context: Context, state: HostState, entry: Prepared, leases: list[Lease]) -> Prepared:
    """Hand the leases to a holder, which ends by itself when we die before the note that names it is saved. Return the
    note."""
    tokens = [lease.token for lease in leases if lease.token.startswith(TOKEN_PREFIX)]
    arguments = [entry.image, state.prepared_note(entry), *map(str, context.doors.processes.own()), *tokens]
    try:
        log = state.task_log(f"holder-{entry.image}")
        process = context.doors.processes.spawn("engine.host.holder", arguments, leases, log)
    except OSError as error:
        raise from_os_error(error, f"start the holder of image {entry.image}") from error
    entry = entry._replace(process=process)
    try:
        state.save_prepared(entry)
    except DiskwrightError:
        context.doors.processes.kill(process)  # nobody would ever find it again
        raise
    return entry


def end(context: Context, entry: Prepared) -> None:
    """End a holder; return when it is gone. Its note stays. StorageError when it does not end."""
    context.doors.processes.terminate(entry.process)
    deadline = context.doors.clock.monotonic() + _WAIT_S
    while context.doors.processes.state(entry.process) is not ProcessState.GONE:
        now = context.doors.clock.monotonic()
        if now > deadline + _WAIT_S:
            raise StorageError(
                f"the holder of image {entry.image}, process {entry.process.pid}, does not end", "Try again"
            )
        if now > deadline:
            context.doors.processes.kill(entry.process)
        context.doors.clock.sleep(0.005)
