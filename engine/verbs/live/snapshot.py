"""create_snapshot of a disk whose machine runs: it goes on above the snapshot, whatever step is the last.

(1) The holder hands over what it has: it ends, and its leases are taken here. The machine's own locks keep its data.
(2) Weak tag S on the disk's volume, naming the overlay to come; the empty overlay above S; the machine opens it, and
does not use it yet. (3) The disk's record points to the overlay. (4) A new holder gets the leases, and locks the volume
below: who opens that for writing from here on is refused. (5) *The machine goes on in the overlay.* (6) The prepared
path leads to the overlay. (7) The frozen volume is made durable, and S becomes strong: the seal.

An empty overlay reads as what is below it, so a machine that still writes below until (5) writes into what the disk
shows: nothing that it wrote is missed. S is weak until the machine has said that it writes there no more: nobody may
copy, merge or build on what still changes (``gate.users`` counts who writes below such an overlay as a user of the
disk). The path follows the machine and does not lead it, because qemu opens by name what it makes read-only in (5). A
machine that is restarted between (5) and (6) by a path that leads below is refused by the lock of (4).

After (1) a machine may have no holder (O-UNHELD); after (3) it may lag behind its record, and the same verb again goes
on from there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

from engine.data.kept import Kept
from engine.data.model import Strategy, VolumeFormat, aligned, require_id
from engine.data.options import Options
from engine.data.records import Record, VolumeRef, check_user_data
from engine.errors import DiskwrightError, Refused
from engine.formats.base import Repository
from engine.gate import gate
from engine.host import machines, paths
from engine.host.machines import Machine
from engine.host.state import HostState, Prepared
from engine.tags import chains, changes, leasing, seen
from engine.tags.context import Context
from engine.verbs import snapshot
from engine.verbs.commit import require_room


class _Wanted(NamedTuple):
    """What is to be sealed."""

    strong: bool
    user_data: Any = None
    strategy: Strategy | None = None
    kept: Kept | None = None

    def of(self, now: Record) -> Record:
        """Return the record that says so."""
        strategy = self.strategy or now.strategy
        return now._replace(user_data=self.user_data, strategy=strategy, kept=self.kept)


def snapshot_of(context: Context, state: HostState, repo_id: str, disk: str, user_data: Any, options: Options) -> str:
    """Make a snapshot of a disk and return its id: while its machine runs, where that can be spoken to."""
    require_id(disk, "base_virtual_disk_id")
    entry = machines.entry_of(state, context.repository(repo_id), disk)
    if entry is None or not entry.monitor:
        return snapshot.snapshot(context, repo_id, disk, user_data, options)
    wanted = _Wanted(True, check_user_data(user_data), options.strategy)
    return _take(context, state, entry, repo_id, wanted, lambda frozen: None)


def freeze(
    context: Context, state: HostState, entry: Prepared, repo_id: str, kept: Kept | None, then: Callable[[str], None]
) -> None:
    """Do the same for one who reads what the disk contains now: nobody sees the snapshot, which is hidden data above
    which the disk goes on. ``then`` is called with its tag while the leases keep it, and may raise: it stays hidden
    data with one dependant (merge), as it is after a crash. ``kept``: whoever looks at it later leaves it to that copy
    until that is finished."""
    _take(context, state, entry, repo_id, _Wanted(False, kept=kept), then)


def _take(
    context: Context, state: HostState, entry: Prepared, repo_id: str, wanted: _Wanted, then: Callable[[str], None]
) -> str:
    """Make a snapshot of the disk that ``entry`` is about, which its machine goes on using; return its id.

    Refused or ToolFailed before anything is done when the monitor is gone, of another machine, or too old, or when the
    machine has jobs under way."""
    repository, disk = context.repository(repo_id), entry.image
    if machines.hosts_share(repository):
        raise Refused(
            f"image {disk} is in use, and hosts share {repository.place}: what a holder has there is its alone, and "
            "others could not use the snapshot",
            "Stop the machine and tear the disk down, then make the snapshot",
        )
    try:
        with contextlib.closing(context.doors.hypervisors.connect(entry.monitor)) as monitor:
            links = _usable(repository, disk)
            machine = machines.find(monitor, entry, links, machines.own_paths_of(repository, links))
            machines.require_idle(machine, disk)
            if not machine.lags:
                _require_as_long(machine, links[0].record)
                require_room(repository, VolumeFormat.QCOW2, links[0].record.size)
            frozen = links[1].tag if machine.lags else context.doors.ids.new_id()
            below = [link.tag for link in links[1:]]
            with (
                machines.held_anew(context, state, entry, repo_id),
                machines.handed_over(context, repository, entry, [*below, frozen]) as leases,
            ):
                chains.unchanged(repository, links)
                if not machine.lags:
                    _begin(context, repository, machine, links, frozen, wanted)
                _switch(context, state, repository, entry, machine, leases)
                changes.change(repository, frozen, lambda now: _sealed(repository, now, wanted))
                then(frozen)
            return frozen
    finally:
        context.deactivate()


def _require_as_long(machine: Machine, record: Record) -> None:
    """A raw disk on LVM is a device that may be longer than its record says: its guest may use that, and an overlay
    would take it away."""
    if machine.top.size > aligned(record.size):
        raise Refused(
            f"the machine of image {record.id} has {machine.top.size} bytes of it, and its record says {record.size}: "
            "what its guest has behind that would be gone",
            f"Make the disk as long as its machine has it first: diskwright resize, {machine.top.size} bytes",
        )


def _usable(repository: Repository, disk: str) -> list[chains.Link]:
    record = changes.read(repository, disk).record
    volume = snapshot.may_switch(record)
    links = chains.usable(repository, record)
    chains.as_recorded(repository, record, volume)
    if any(link.record.absorber for link in links[1:2]):
        raise Refused(f"image {disk} has an unfinished merge", "Run its merge fix first")
    return links


# -- the steps


def _begin(
    context: Context,
    repository: Repository,
    machine: Machine,
    links: list[chains.Link],
    frozen: str,
    wanted: _Wanted,
) -> None:
    """Do all up to the disk's record."""
    record, volume = links[0].record, links[0].volume
    overlay = VolumeRef(context.doors.ids.new_id(), VolumeFormat.QCOW2, frozen)
    strategy = wanted.strategy or record.strategy
    hidden = snapshot.frozen_record(record, volume, frozen, overlay, strategy, wanted.user_data)
    repository.tags.publish(hidden._replace(last=context.committed("create_snapshot")), 0)
    try:
        gate.make(repository, overlay, record.size, volume.format, lambda: snapshot.require_begun(repository, frozen))
        machine.monitor.add_overlay(
            machines.node_name(overlay), gate.lend_overlay(repository, record.id, overlay), machine.top.name
        )
        changes.change(repository, record.id, lambda now: snapshot.moved(now, record, overlay))
    except DiskwrightError:
        with contextlib.suppress(DiskwrightError):
            machine.monitor.close_node(machines.node_name(overlay))
        snapshot.drop_unused(repository, frozen, record.id, overlay)
        raise


def _switch(
    context: Context,
    state: HostState,
    repository: Repository,
    entry: Prepared,
    machine: Machine,
    leases: leasing.LeaseSet,
) -> None:
    """Give the machine a holder, let it follow the disk's record, and make durable what it has left."""
    links = chains.load(repository, changes.read(repository, entry.image).record)
    top, below = links[0].volume, links[1]
    layers = chains.layers(repository, links)
    if machine.lags:  # a holder that took it over since has led the path to where the machine was to be
        paths.renew(context, entry.run, links[1:], layers[1:])
    paths.extend(context, entry.run, links, layers)
    if machine.lags and not machine.added:
        layer = gate.lend_overlay(repository, entry.image, top)
        machine.monitor.add_overlay(machines.node_name(top), layer, machine.top.name)
    entry = machines.hold(context, state, repository, entry, links, leases)

    def follow() -> None:
        paths.renew(context, entry.run, links, layers)
        state.save_prepared(entry._replace(path=paths.of(entry.run, links), format=str(top.format)))

    try:
        machine.monitor.switch(machine.top.name, machines.node_name(top), paths.other(entry.given, machine.top.path))
    except DiskwrightError:
        if not gate.users(repository, top):  # it is dead, and will be started anew
            follow()
        raise
    follow()
    gate.seal(context.doors, repository, below.tag, below.volume)


def _sealed(repository: Repository, now: Record, wanted: _Wanted) -> Record:
    """Also of one that was begun for something else, and is gone on with."""
    return wanted.of(seen.noted(repository, snapshot.complete(now, wanted.strong)))
