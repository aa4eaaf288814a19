"""create_snapshot_group of disks of one running machine, and of such as nobody uses: one moment, one seal.

As ``engine.verbs.group`` says; each disk of the machine as ``snapshot`` beside this says, but that all of them have
moved by their records before the machine goes on, which it does with all of them at once. What a machine did not follow
when a snapshot was interrupted it follows first: what was begun then stays hidden, and is merged.

Disks of several machines are refused: no moment is the same for both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from engine.data import monitors
from engine.data.options import Options
from engine.data.records import Record, check_user_data
from engine.errors import Refused
from engine.formats.base import Repository
from engine.host import machines
from engine.host.state import HostState, Prepared
from engine.tags import leasing, seen
from engine.tags.context import Context
from engine.verbs import group
from engine.verbs import snapshot as at_rest
from engine.verbs.live import snapshot
from engine.verbs.live.quiesced import Guest
from engine.verbs.live.snapshot import Part
from engine.verbs.snapshot import Begun


def snapshots_of(
    context: Context, state: HostState, repo_id: str, disks: Sequence[str], user_data: Any, options: Options
) -> dict[str, str]:
    """Make snapshots of disks at one moment and return their ids by disk: while their machine runs, where that can be
    spoken to."""
    disks = group.require_disks(context, repo_id, disks)
    entries = _entries(context, state, repo_id, disks)
    if not entries:
        return group.snapshots(context, repo_id, disks, user_data, options)
    wanted = check_user_data(user_data)
    for disk in entries:
        snapshot.require_not_shared(context.repository(repo_id), disk)
    _require_one_machine(entries)
    try:
        _catch_up(context, state, repo_id, entries)
        entries = _entries(context, state, repo_id, disks)  # with a holder that was given to one anew
        if not entries:
            return group.snapshots(context, repo_id, disks, user_data, options)
        told = _require_one_machine(entries)
        guest = Guest(context, state, told if options.quiesce else "")
        with contextlib.closing(context.doors.hypervisors.connect(told)) as monitor:
            repository = context.repository(repo_id)
            parts = {disk: snapshot.found(repository, monitor, entry) for disk, entry in entries.items()}
            return _take(context, state, repo_id, disks, parts, guest, wanted, options)
    finally:
        context.deactivate()


def _entries(context: Context, state: HostState, repo_id: str, disks: Sequence[str]) -> dict[str, Prepared]:
    """Return how those disks are prepared whose machine can be spoken to."""
    repository = context.repository(repo_id)
    found = {disk: machines.entry_of(context, state, repository, disk) for disk in disks}
    return {disk: entry for disk, entry in found.items() if entry is not None and entry.monitor}


def _require_one_machine(entries: Mapping[str, Prepared]) -> str:
    """Return the monitor of the machine that has all of these disks, with its agent if any tells of that. Refused."""
    first, *others = sorted(entries.values(), key=lambda entry: not monitors.has_agent(entry.monitor))
    for other in others:
        if not monitors.same(other.monitor, first.monitor):
            raise Refused(
                f"images {first.image} and {other.image} are in use by two machines, {first.monitor} and "
                f"{other.monitor}: there is no moment at which both stand still",
                "Make a group of the disks of each machine, or name one monitor for both if it is one: attach",
            )
    return first.monitor


def _catch_up(context: Context, state: HostState, repo_id: str, entries: Mapping[str, Prepared]) -> None:
    """Have the machine follow the records of disks of which a snapshot was begun when somebody died."""
    repository = context.repository(repo_id)
    with contextlib.closing(context.doors.hypervisors.connect(next(iter(entries.values())).monitor)) as monitor:
        late = [entry for entry in entries.values() if snapshot.found(repository, monitor, entry).machine.lags]
    for entry in late:
        snapshot.freeze(context, state, entry, repo_id, None, lambda frozen: None, quiesce=False)


def _take(
    context: Context,
    state: HostState,
    repo_id: str,
    disks: Sequence[str],
    parts: Mapping[str, Part],
    guest: Guest,
    user_data: Any,
    options: Options,
) -> dict[str, str]:
    repository = context.repository(repo_id)
    for disk, part in parts.items():
        machines.require_following(part.machine, disk)
    rest = [disk for disk in disks if disk not in parts]
    with contextlib.ExitStack() as stack:
        if rest:  # else the machines of all are known already
            stack.enter_context(at_rest.alone(context, repository, rest))
        begun, leases = dict[str, Begun](), dict[str, leasing.LeaseSet]()
        for disk in disks:
            if disk in parts:
                now, frozen = parts[disk].links[0].record, context.doors.ids.new_id()
                begun[disk] = at_rest.begin(context, now, frozen, user_data, options.strategy)
            else:
                begun[disk] = at_rest.plan(context, repository, disk, user_data, options.strategy)
        for disk in sorted(parts):
            held = snapshot.held(context, state, repo_id, parts[disk], begun[disk].record.id)
            leases[disk] = stack.enter_context(held)
        stack.enter_context(leasing.take(context.doors, repository, [begun[disk].record.id for disk in rest]))
        stack.enter_context(guest)
        steps = _Beside(context, state, repository, parts, leases, guest)
        return group.together(repository, [begun[disk] for disk in disks], steps)


class _Beside(group.Steps):
    """What is done to each disk of a group, some of which a machine has open."""

    def __init__(
        self,
        context: Context,
        state: HostState,
        repository: Repository,
        parts: Mapping[str, Part],
        leases: Mapping[str, leasing.LeaseSet],
        guest: Guest,
    ) -> None:
        super().__init__(context, repository)
        self._state, self._parts, self._leases, self._guest = state, parts, leases, guest

    def make(self, one: Begun) -> None:
        """Make the overlay; the machine opens it."""
        super().make(one)
        if one.disk.id in self._parts:
            snapshot.open_overlay(self._repository, self._parts[one.disk.id], one)

    def freeze(self) -> None:
        """Have its guest stand still."""
        self._guest.freeze()

    def move(self, one: Begun) -> None:
        """Let the disk's record point to it."""
        if one.disk.id in self._parts:
            snapshot.move(self._repository, one)
        else:
            super().move(one)

    def drop(self, one: Begun) -> None:
        """Have its guest go on; take back what was made, and the machine closes it."""
        self._guest.thaw()
        if one.disk.id in self._parts:
            snapshot.drop_unused(self._repository, self._parts[one.disk.id], one)
        else:
            super().drop(one)

    def switch(self) -> None:
        """Have the machine go on in all overlays at one moment."""
        both = [(part, self._leases[disk]) for disk, part in self._parts.items()]
        snapshot.switch(self._context, self._state, self._repository, both, self._guest)

    def noted(self, record: Record) -> Record:
        """Return the record with what its volume looks like, now that the machine has left it."""
        return seen.noted(self._repository, record)
