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
from collections.abc import Iterator
from typing import Any, NamedTuple

from engine.data.model import VolumeFormat, require_id
from engine.data.options import Options
from engine.data.records import Record, VolumeRef, check_user_data
from engine.doors.hypervisor import Monitor, Node
from engine.errors import DiskwrightError, ImageBusy, Refused
from engine.formats.base import Repository, backing_name
from engine.gate import gate
from engine.gate.gate import Purpose
from engine.host import holding, paths, preparing
from engine.host.state import HostState, Prepared
from engine.tags import chains, changes, leasing, seen
from engine.tags.context import Context
from engine.verbs import snapshot
from engine.verbs.commit import require_room

_PATIENCE_S = 5.0
_LOOK_AGAIN_S = 0.02
_NODE_DIGITS = 28
"""A node's name has up to 31 characters."""
_FORMATS = frozenset(map(str, VolumeFormat))


class Machine(NamedTuple):
    """A machine that has a disk open, as it was found."""

    monitor: Monitor
    top: Node
    """What it writes to."""
    lags: bool
    """That is not the volume that the disk's record names, but the one below: a snapshot was interrupted."""
    added: bool
    """It has the volume that the record names open already, and does not use it."""


def snapshot_of(context: Context, state: HostState, repo_id: str, disk: str, user_data: Any, options: Options) -> str:
    """Make a snapshot of a disk and return its id: while its machine runs, where that can be spoken to."""
    require_id(disk, "base_virtual_disk_id")
    entry = _entry_of(state, context.repository(repo_id), disk)
    if entry is None or not entry.monitor:
        return snapshot.snapshot(context, repo_id, disk, user_data, options)
    return _take(context, state, entry, repo_id, user_data, options)


def _entry_of(state: HostState, repository: Repository, disk: str) -> Prepared | None:
    """Return how a disk is prepared here for writing, or was until it lost its holder; None when it is not."""
    entries = (*state.prepared(), *state.unheld())
    mine = (entry for entry in entries if (entry.repository, entry.image) == (repository.identity, disk))
    return next((entry for entry in mine if entry.writable), None)


def attach(context: Context, state: HostState, repo_id: str, disk: str, monitor: str) -> Prepared:
    """Note how to speak to the machine that has a prepared disk open, after a look whether it is that one."""
    repository = context.repository(repo_id)
    record = context.visible(repo_id, require_id(disk, "image_id"))
    entry = _entry_of(state, repository, disk)
    if entry is None:
        raise Refused(f"image {disk} is not prepared for writing on this host", "Prepare it first")
    entry = entry._replace(monitor=monitor)
    links = chains.load(repository, record)
    with contextlib.closing(context.doors.hypervisors.connect(monitor)) as asked:
        find(asked, entry, links, _paths(repository, links))
    state.save_prepared(entry)
    return entry


def _take(context: Context, state: HostState, entry: Prepared, repo_id: str, user_data: Any, options: Options) -> str:
    """Make a snapshot of the disk that ``entry`` is about, which its machine goes on using; return its id.

    Refused or ToolFailed before anything is done when the monitor is gone, of another machine, or too old, or when the
    machine has jobs under way."""
    repository, disk = context.repository(repo_id), entry.image
    user_data = check_user_data(user_data)
    if repository.activation is not None:
        raise Refused(
            f"image {disk} is in use, and no locks on LVM would keep its machine from the volume that it has left",
            "Stop the machine and tear the disk down, then make the snapshot",
        )
    try:
        with contextlib.closing(context.doors.hypervisors.connect(entry.monitor)) as monitor:
            links = _usable(repository, disk)
            machine = find(monitor, entry, links, _paths(repository, links))
            if jobs := monitor.jobs():
                raise Refused(
                    f"the machine of image {disk} has a job under way: {', '.join(jobs)[:200]}",
                    "Wait for it, or stop it there, and try again",
                )
            if not machine.lags:
                require_room(repository, VolumeFormat.QCOW2, links[0].record.size)
            frozen = links[1].tag if machine.lags else context.doors.ids.new_id()
            below = [link.tag for link in links[1:]]
            with (
                _held_anew(context, state, entry, repo_id),
                _handed_over(context, repository, entry, [*below, frozen]) as leases,
            ):
                chains.unchanged(repository, links)
                if not machine.lags:
                    _begin(context, repository, machine, links, frozen, options, user_data)
                _switch(context, state, repository, entry, machine, leases)
                changes.change(
                    repository, frozen, lambda now: _sealed(repository, now, machine.lags, options, user_data)
                )
            return frozen
    finally:
        context.deactivate()


def _usable(repository: Repository, disk: str) -> list[chains.Link]:
    record = changes.read(repository, disk).record
    volume = snapshot.may_switch(record)
    links = chains.usable(repository, record)
    chains.as_recorded(repository, record, volume)
    if any(link.record.absorber for link in links[1:2]):
        raise Refused(f"image {disk} has an unfinished merge", "Run its merge fix first")
    return links


def _paths(repository: Repository, links: list[chains.Link]) -> list[str]:
    return [gate.open_layer(repository, link.tag, link.volume, Purpose.READ).path for link in links[:2]]


# -- the machine


def find(monitor: Monitor, entry: Prepared, links: list[chains.Link], own_paths: list[str]) -> Machine:
    """Return the machine behind a monitor, if it has the disk open as the records say. Refused when it is another one,
    or has a chain that no record tells of. ``own_paths``: of the volumes of ``links[0]`` and of the one below it.

    A node that we have added is told by its name, any other by its path; which volume that path led to when it was
    opened, by the backing name in its header. What was added and not used has nothing below it."""
    names = [_node_name(link.volume) for link in links[:2]]
    prepared = [f"{entry.run}/{name}" for name in paths.NAMES.values()]
    opened = [node for node in monitor.nodes() if node.name in names or node.path in prepared or node.path in own_paths]
    layers = [node for node in opened if node.format in _FORMATS] or opened
    volumes = [(node, _volume(node, links[:2], names, own_paths)) for node in layers if node.writable]
    if not volumes:
        raise Refused(
            f"the machine at {entry.monitor} does not have image {entry.image} open for writing",
            "Name the monitor of the machine that has: diskwright attach",
        )
    for node, index in volumes:
        if index == 0 and (node.name != names[0] or node.has_backing):
            return Machine(monitor, node, False, True)
    if _unfinished(links):
        for node, index in volumes:
            if index == 1:
                return Machine(monitor, node, True, any(other.name == names[0] for other in opened))
    raise Refused(
        f"the machine at {entry.monitor} has image {entry.image} open with layers that no record tells of",
        "Stop the machine, tear the disk down, and check the repository",
    )


def _volume(node: Node, links: list[chains.Link], names: list[str], own_paths: list[str]) -> int | None:
    """Return which of the links a node is, None for neither."""
    if node.name in names:
        return names.index(node.name)
    if node.path in own_paths:
        return own_paths.index(node.path)
    for index, link in enumerate(links):
        if node.backing == (backing_name(link.volume.parent) if link.volume.parent else ""):
            return index
    return None


def _unfinished(links: list[chains.Link]) -> bool:
    """Whether the layer below the disk is a snapshot that was begun, and never sealed."""
    return len(links) > 1 and gate.unsealed(links[1].record, links[0].volume)


def _node_name(volume: VolumeRef) -> str:
    return f"dw-{volume.id[:_NODE_DIGITS]}"


# -- leases


@contextlib.contextmanager
def _held_anew(context: Context, state: HostState, entry: Prepared, repo_id: str) -> Iterator[None]:
    """Whatever the body raises, the machine has a holder after it, as far as that works."""
    try:
        yield
    except DiskwrightError:
        if entry.process not in [one.process for one in state.prepared()]:
            with contextlib.suppress(DiskwrightError):  # O-UNHELD tells of it
                preparing.prepare(context, state, repo_id, entry.image, True, take_over=True)
        raise


@contextlib.contextmanager
def _handed_over(
    context: Context, repository: Repository, entry: Prepared, shared: list[str]
) -> Iterator[leasing.LeaseSet]:
    """End the holder and yield the leases that it had, with those of ``shared``. Who asks for them in between gives
    them back soon: the data is in use. ImageBusy when somebody does not."""
    holding.end(context, entry)
    clock = context.doors.clock
    deadline = clock.monotonic() + _PATIENCE_S
    leases = None
    while leases is None:
        try:
            leases = leasing.take(context.doors, repository, [entry.image], shared)
        except ImageBusy:
            if clock.monotonic() > deadline:
                raise
            clock.sleep(_LOOK_AGAIN_S)
    with leases:
        yield leases


# -- the steps


def _begin(
    context: Context, repository: Repository, machine: Machine, links: list[chains.Link], frozen: str,
    options: Options, user_data: Any,
) -> None:  # fmt: skip
    """Do all up to the disk's record."""
    record, volume = links[0].record, links[0].volume
    overlay = VolumeRef(context.doors.ids.new_id(), VolumeFormat.QCOW2, frozen)
    strategy = options.strategy or record.strategy
    hidden = snapshot.frozen_record(record, volume, frozen, overlay, strategy, user_data)
    repository.tags.publish(hidden._replace(last=context.committed("create_snapshot")), 0)
    try:
        gate.make(repository, overlay, record.size, volume.format, lambda: snapshot.require_begun(repository, frozen))
        machine.monitor.add_overlay(
            _node_name(overlay), gate.open_layer(repository, record.id, overlay, Purpose.READ), machine.top.name
        )
        changes.change(repository, record.id, lambda now: snapshot.moved(now, record, overlay))
    except DiskwrightError:
        with contextlib.suppress(DiskwrightError):
            machine.monitor.remove_overlay(_node_name(overlay))
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
        machine.monitor.add_overlay(_node_name(top), layers[0], machine.top.name)
    with contextlib.ExitStack() as stack:
        kept = [*leases.leases.values(), *holding.locks(stack, repository, links, True, True)]
        entry = holding.start(context, state, entry, kept)
    try:
        machine.monitor.switch(machine.top.name, _node_name(top))
    except DiskwrightError:
        if not gate.users(repository, top):  # it is dead, and will be started anew
            paths.renew(context, entry.run, links, layers)
        raise
    paths.renew(context, entry.run, links, layers)
    state.save_prepared(entry._replace(path=paths.of(entry.run, links), format=str(top.format)))
    gate.seal(context.doors, repository, below.tag, below.volume)


def _sealed(repository: Repository, now: Record, lagged: bool, options: Options, user_data: Any) -> Record:
    sealed = seen.noted(repository, snapshot.complete(now, strong=True))
    if not lagged:
        return sealed
    return sealed._replace(user_data=user_data, strategy=options.strategy or sealed.strategy)
