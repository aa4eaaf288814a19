"""create_snapshot of a disk whose machine runs: it goes on above the snapshot, whatever step is the last.

(1) The holder hands over what it has: it ends, and its leases are taken here. The machine's own locks keep its data.
(2) Weak tag S on the disk's volume, naming the overlay to come; the empty overlay above S; the machine opens it, and
does not use it yet. (3) The disk's record points to the overlay. (4) A new holder gets the leases, and locks the volume
below: who opens that for writing from here on is refused. (5) *The machine goes on in the overlay.* Its guest is frozen
from before (3) to here, if that is asked for (``quiesced``). (6) The prepared path leads to the overlay. (7) The frozen
volume is made durable, and S becomes strong: the seal.

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
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from engine.data.kept import Kept
from engine.data.model import Strategy, VolumeFormat, require_id
from engine.data.options import Options
from engine.data.records import Record, check_user_data
from engine.doors.hypervisor import Monitor, Move
from engine.doors.images import Layer
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
from engine.verbs.live.quiesced import Guest
from engine.verbs.snapshot import Begun


class _Wanted(NamedTuple):
    """What is to be sealed."""

    strong: bool
    user_data: Any = None
    strategy: Strategy | None = None
    kept: Kept | None = None
    quiesce: bool = False

    def of(self, now: Record) -> Record:
        """Return the record that says so."""
        strategy = self.strategy or now.strategy
        return now._replace(user_data=self.user_data, strategy=strategy, kept=self.kept)


def snapshot_of(context: Context, state: HostState, repo_id: str, disk: str, user_data: Any, options: Options) -> str:
    """Make a snapshot of a disk and return its id: while its machine runs, where that can be spoken to."""
    require_id(disk, "base_virtual_disk_id")
    entry = machines.entry_of(context, state, context.repository(repo_id), disk)
    if entry is None or not entry.monitor:
        return snapshot.snapshot(context, repo_id, disk, user_data, options)
    wanted = _Wanted(True, check_user_data(user_data), options.strategy, quiesce=options.quiesce)
    return _take(context, state, entry, repo_id, wanted, lambda frozen: None)


def freeze(
    context: Context,
    state: HostState,
    entry: Prepared,
    repo_id: str,
    kept: Kept | None,
    then: Callable[[str], None],
    quiesce: bool,
) -> None:
    """Do the same for one who reads what the disk contains now: nobody sees the snapshot, which is hidden data above
    which the disk goes on. ``then`` is called with its tag while the leases keep it, and may raise: it stays hidden
    data with one dependant (merge), as it is after a crash. ``kept``: whoever looks at it later leaves it to that copy
    until that is finished."""
    _take(context, state, entry, repo_id, _Wanted(False, kept=kept, quiesce=quiesce), then)


def _take(
    context: Context, state: HostState, entry: Prepared, repo_id: str, wanted: _Wanted, then: Callable[[str], None]
) -> str:
    """Make a snapshot of the disk that ``entry`` is about, which its machine goes on using; return its id.

    Refused or ToolFailed before anything is done when the monitor is gone, of another machine, or too old, or when the
    machine has jobs under way."""
    repository = context.repository(repo_id)
    require_not_shared(repository, entry.image)
    try:
        guest = Guest(context, state, entry.monitor if wanted.quiesce else "")
        with contextlib.closing(context.doors.hypervisors.connect(entry.monitor)) as monitor:
            part = found(repository, monitor, entry)
            frozen = part.links[1].tag if part.machine.lags else context.doors.ids.new_id()
            with held(context, state, repo_id, part, frozen) as leases, guest:
                if part.machine.lags:
                    guest.freeze()
                else:
                    _begin(context, repository, part, frozen, wanted, guest)
                switch(context, state, repository, [(part, leases)], guest)
                changes.change(repository, frozen, lambda now: _sealed(repository, now, wanted))
                then(frozen)
            return frozen
    finally:
        context.deactivate()


class Part(NamedTuple):
    """A disk and its machine, before anything is done."""

    entry: Prepared
    links: list[chains.Link]
    machine: Machine


def require_not_shared(repository: Repository, disk: str) -> None:
    """Return if others could use the snapshot of a disk that has a holder. Refused."""
    if leasing.hosts_share(repository):
        raise Refused(
            f"image {disk} is in use, and hosts share {repository.place}: what a holder has there is its alone, and "
            "others could not use the snapshot",
            "Stop the machine and tear the disk down, then make the snapshot",
        )


def found(repository: Repository, monitor: Monitor, entry: Prepared) -> Part:
    """Return the disk of which a snapshot can be taken beside that machine; see ``_take``."""
    links = _usable(repository, entry.image)
    machine = machines.find(repository, monitor, entry, links)
    machines.require_idle(machine, entry.image)
    if not machine.lags:
        machines.require_as_long(machine, links[0].record)
        require_room(repository, VolumeFormat.QCOW2, links[0].record.size)
    return Part(entry, links, machine)


@contextlib.contextmanager
def held(context: Context, state: HostState, repo_id: str, part: Part, frozen: str) -> Iterator[leasing.LeaseSet]:
    """Take over from the holder, with the lease of the snapshot, and see that the disk is as it was found."""
    repository = context.repository(repo_id)
    shared = [*(link.tag for link in part.links[1:]), frozen]
    with (
        machines.held_anew(context, state, part.entry, repo_id),
        machines.handed_over(context, repository, part.entry, shared) as leases,
    ):
        chains.unchanged(repository, part.links)
        yield leases


def _usable(repository: Repository, disk: str) -> list[chains.Link]:
    record = changes.read(repository, disk).record
    volume = snapshot.may_switch(record)
    links = chains.usable(repository, record)
    chains.as_recorded(repository, record, volume)
    snapshot.require_no_merge_below(links)
    return links


# -- the steps


def _begin(context: Context, repository: Repository, part: Part, frozen: str, wanted: _Wanted, guest: Guest) -> None:
    """Do all up to the disk's record."""
    begun = snapshot.begin(context, part.links[0].record, frozen, wanted.user_data, wanted.strategy)
    repository.tags.publish(begun.record, 0)
    try:
        snapshot.make_overlay(repository, begun)
        open_overlay(repository, part, begun)
        guest.freeze()
        move(repository, begun)
    except DiskwrightError:
        guest.thaw()
        drop_unused(repository, part, begun)
        raise


def open_overlay(repository: Repository, part: Part, begun: Begun) -> None:
    """Have the machine open it."""
    layer = gate.lend_overlay(repository, begun.disk.id, begun.overlay)
    part.machine.monitor.add_overlay(machines.node_name(begun.overlay), layer, part.machine.top.name)


def move(repository: Repository, begun: Begun) -> None:
    """Let the disk's record point to the overlay."""
    changes.change(repository, begun.disk.id, lambda now: snapshot.moved(now, begun.disk, begun.overlay))


def drop_unused(repository: Repository, part: Part, begun: Begun) -> None:
    """As ``snapshot.drop_unused``; the machine closes what it has opened."""
    with contextlib.suppress(DiskwrightError):
        part.machine.monitor.close_node(machines.node_name(begun.overlay))
    snapshot.drop_unused(repository, begun)


class _Turn(NamedTuple):
    """A disk whose machine is about to follow its record."""

    entry: Prepared
    links: list[chains.Link]
    layers: list[Layer]


def switch(
    context: Context,
    state: HostState,
    repository: Repository,
    parts: Sequence[tuple[Part, leasing.LeaseSet]],
    guest: Guest,
) -> None:
    """Give the machine a holder for each of these disks, let it follow their records at one moment, which is the last
    for which its guest stands still, and make durable what it has left. ToolFailed when it did not stand still."""
    turns = [_turn(context, state, repository, part, leases) for part, leases in parts]
    moves = [
        Move(
            part.machine.top.name,
            machines.node_name(turn.links[0].volume),
            paths.other(turn.entry.given, part.machine.top.path),
        )
        for turn, (part, _) in zip(turns, parts, strict=True)
    ]
    try:
        parts[0][0].machine.monitor.switch(moves)
    except DiskwrightError:
        for turn in turns:
            if not gate.users(repository, turn.links[0].volume):  # it is dead, and will be started anew
                _follow(context, state, turn)
        raise
    guest.thaw()
    for turn in turns:
        _follow(context, state, turn)
    guest.require_frozen()
    for turn in turns:
        gate.seal(context.doors, repository, turn.links[1].tag, turn.links[1].volume)


def _turn(context: Context, state: HostState, repository: Repository, part: Part, leases: leasing.LeaseSet) -> _Turn:
    links = chains.load(repository, changes.read(repository, part.entry.image).record)
    layers = chains.layers(repository, links)
    if part.machine.lags:  # a holder that took it over since has led the path to where the machine was to be
        paths.renew(context, part.entry.run, links[1:], layers[1:])
    paths.extend(context, part.entry.run, links, layers)
    if part.machine.lags and not part.machine.added:
        layer = gate.lend_overlay(repository, part.entry.image, links[0].volume)
        part.machine.monitor.add_overlay(machines.node_name(links[0].volume), layer, part.machine.top.name)
    return _Turn(machines.hold(context, state, repository, part.entry, links, leases), links, layers)


def _follow(context: Context, state: HostState, turn: _Turn) -> None:
    """Lead the path to where the machine is now."""
    paths.renew(context, turn.entry.run, turn.links, turn.layers)
    path, format = paths.of(turn.entry.run, turn.links), str(turn.links[0].volume.format)
    state.save_prepared(turn.entry._replace(path=path, format=format))


def _sealed(repository: Repository, now: Record, wanted: _Wanted) -> Record:
    """Also of one that was begun for something else, and is gone on with."""
    return wanted.of(seen.noted(repository, snapshot.complete(now, wanted.strong)))
