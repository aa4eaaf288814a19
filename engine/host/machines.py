"""The machine that has a disk open: finding it behind its monitor, and taking its leases from its holder.

What every verb beside a running machine needs; what each of them does stands in the module of its name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from engine.data.model import VolumeFormat, aligned, require_id
from engine.data.records import Record, VolumeRef
from engine.doors import Doors
from engine.doors.hypervisor import OURS, Monitor, Node
from engine.doors.processes import ProcessState
from engine.errors import DiskwrightError, ImageBusy, Refused, ToolFailed
from engine.formats.base import Repository, backing_name
from engine.gate import gate
from engine.gate.gate import Purpose
from engine.host import holding, paths, preparing
from engine.host.live import switches
from engine.host.state import HostState, Prepared
from engine.tags import chains, leasing
from engine.tags.context import Context

GUEST = "guest"
"""The first argument of a watchdog where that is about a guest that is frozen."""
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


def entry_of(context: Context, state: HostState, repository: Repository, disk: str) -> Prepared | None:
    """Return how a disk is prepared here for writing, or was until it lost its holder and is in use all the same; None
    when it is not. One that somebody has left between two volumes is brought to one of them first, if that can be."""
    entry = noted(state, repository, disk)
    if entry is None or not entry.switch:
        return entry
    switches.see_to(context.doors, state, repository.identity, disk)
    return noted(state, repository, disk)


def noted(state: HostState, repository: Repository, disk: str) -> Prepared | None:
    """Return the same as it is."""
    wanted = (repository.identity, disk, True)
    lost: Prepared | None = None
    for entry, held in state.entries():
        if (entry.repository, entry.image, entry.writable) == wanted:
            if held:
                return entry
            lost = lost or entry
    known = repository.tags.read(disk) if lost is not None else None
    if known is not None and known.record is not None and not gate.is_written(repository, known.record.volume):
        return None
    return lost


def attach(context: Context, state: HostState, repo_id: str, disk: str, monitor: str) -> Prepared:
    """Note how to speak to the machine that has a prepared disk open, after a look whether it is that one."""
    repository = context.repository(repo_id)
    record = context.visible(repo_id, require_id(disk, "image_id"))
    entry = entry_of(context, state, repository, disk)
    if entry is None:
        raise Refused(f"image {disk} is not prepared for writing on this host", "Prepare it first")
    entry = entry._replace(monitor=monitor)
    links = chains.load(repository, record)
    with contextlib.closing(context.doors.hypervisors.connect(monitor)) as asked:
        find(repository, asked, entry, links)
    let_go(context.doors, state)
    state.save_prepared(entry)
    return entry


def own_paths_of(repository: Repository, links: list[chains.Link]) -> list[str]:
    """Return the paths of the volumes of a disk and of the layer below it."""
    return [gate.open_layer(repository, link.tag, link.volume, Purpose.READ).path for link in links[:2]]


def prepared_paths(entry: Prepared) -> list[str]:
    """Return the paths by which a machine can have been given a disk, whatever its format was."""
    return [f"{run}/{name}" for run in (entry.run, *entry.names) for name in paths.EVERY]


def find(repository: Repository, monitor: Monitor, entry: Prepared, links: list[chains.Link]) -> Machine:
    """Return the machine behind a monitor, if it has the disk open as the records say. Refused when it is another one,
    or has a chain that no record tells of.

    A node that we have added is told by its name, any other by its path; which volume that path led to when it was
    opened, by the backing name in its header. What was added and not used has nothing
    below it, although its header names that."""
    if entry.switch:
        raise Refused(
            f"image {entry.image} is between two volumes: its watchdog has its machine go on as soon as it can",
            "Try again; look whether the machine runs, and whether somebody else speaks to it",
        )
    names = [node_name(link.volume) for link in links[:2]]
    prepared, own_paths = prepared_paths(entry), own_paths_of(repository, links)
    opened = [node for node in monitor.nodes() if node.name in names or node.path in prepared or node.path in own_paths]
    opened.sort(key=lambda node: node.name != names[0])  # what it has left may be open still, by a path of the disk
    layers = [node for node in opened if is_layer(node)] or opened
    volumes = [(node, _volume(node, links[:2], names, own_paths)) for node in layers if node.writable]
    if not volumes:
        raise Refused(
            f"the machine at {entry.monitor} does not have image {entry.image} open for writing",
            "Name the monitor of the machine that has: diskwright attach",
        )
    for node, index in volumes:
        if index == 0 and (node.name != names[0] or node.has_backing or not node.backing):
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
    headers = [backing_name(link.volume.parent) if link.volume.parent else "" for link in links]
    if pulls(links) and node.writable and node.backing in headers[:2]:
        return 0
    return headers.index(node.backing) if node.backing in headers else None


def is_layer(node: Node) -> bool:
    """Tell whether a node is a layer of a disk, and neither what is below that nor a filter."""
    return node.format in _FORMATS


def layer_of(machine: Machine, entry: Prepared, link: chains.Link, path: str) -> Node:
    """Return the node of a layer below a disk, whose volume is at ``path``, if the machine can write to it. Refused
    when it cannot be told, and for what it has opened by the name of the disk: it opens that anew to write to it, and
    the name leads to another volume since there is a snapshot above this one. (As tried, qemu 7.2 says that this is
    locked then, and reads the layer from that other file from there on.)"""
    links = [f"{run}/{backing_name(link.tag)}" for run in (entry.run, *entry.names)]
    layers = [node for node in machine.monitor.nodes() if is_layer(node)]
    found = [node for node in layers if node.name == node_name(link.volume) or node.path in (path, *links)]
    if len(found) != 1:
        raise Refused(
            f"the machine of image {entry.image} has image {link.tag} open by a name that leads elsewhere now, as what "
            "it was started with before a snapshot was taken of it",
            "Start the machine anew, or stop it and tear the disk down, and run the fix then",
        )
    return found[0]


def pulls(links: list[chains.Link]) -> bool:
    """Tell whether the layer below a disk is being merged up into it: its machine may have done that, and have written
    into the header what the disk stands on after it."""
    operation = links[0].record.operation
    return (
        len(links) > 1
        and links[0].record.merges(links[1].tag)
        and operation is not None
        and operation.direction == "up"
    )


def _unfinished(links: list[chains.Link]) -> bool:
    """Whether the layer below the disk is a snapshot that was begun, and never sealed."""
    return len(links) > 1 and gate.unsealed(links[1].record, links[0].volume)


def node_name(volume: VolumeRef) -> str:
    """Return the name that a node which we add has in its machine."""
    return name_of(volume.id)


def name_of(volume: str) -> str:
    """Return what is called after a volume in a machine: a node of ours, or a job that fills it."""
    return f"{OURS}{volume[:_NODE_DIGITS]}"


def require_idle(machine: Machine, disk: str, own: str = "") -> None:
    """Return when the machine has no job on block devices under way but ``own``, else raise Refused. A mirror of ours
    that has ended, and that whoever is dead did not forget, is forgotten: the record says how it ended."""
    found = {name: job for name, job in machine.monitor.jobs().items() if name != own}
    for name, job in [*found.items()]:
        if name.startswith(OURS) and job.kind == "mirror" and job.ended:
            machine.monitor.forget(name)
            del found[name]
    if jobs := [f"{job.kind} {name!r} ({job.status})" for name, job in found.items()]:
        raise Refused(
            f"the machine of image {disk} has a job under way: {', '.join(jobs)[:200]}",
            "Wait for it, or stop it there, and try again",
        )


def require_following(machine: Machine, disk: str) -> None:
    """Return when the machine writes to the volume of which the record of its disk tells, else raise Refused."""
    if machine.lags:
        raise Refused(
            f"the machine of image {disk} still writes below it: a snapshot was interrupted",
            "Make the snapshot again, which goes on from there",
        )


def require_as_long(machine: Machine, record: Record) -> None:
    """Return if the machine has no more of a disk than its record says, else raise Refused. A raw disk on LVM is a
    device that may be longer: its guest may use that, and a volume above it or in its place would take it away."""
    if machine.top.size > aligned(record.size):
        raise Refused(
            f"the machine of image {record.id} has {machine.top.size} bytes of it, and its record says {record.size}: "
            "what its guest has behind that would be gone",
            f"Make the disk as long as its machine has it first: diskwright resize, {machine.top.size} bytes",
        )


# -- its guest


def thaw(doors: Doors, monitor: str) -> int:
    """Have a guest go on whose file systems are frozen, or may be; return how many were until now. ToolFailed when that
    cannot be told."""
    try:
        return doors.hypervisors.thaw(monitor)
    except ToolFailed:
        if doors.hypervisors.frozen(monitor):
            raise
        return 0  # its time was up (Windows), or it has no such command


def let_go(doors: Doors, state: HostState) -> None:
    """Thaw guests that somebody of this host froze who is gone, as far as that works."""
    for monitor, process in state.frozen():
        if doors.processes.state(process) is ProcessState.GONE:
            with contextlib.suppress(DiskwrightError):
                thaw(doors, monitor)
                state.forget_frozen(monitor)


# -- leases


@contextlib.contextmanager
def held_anew(context: Context, state: HostState, entry: Prepared, repo_id: str) -> Iterator[None]:
    """Whatever the body raises, the machine has a holder after it, as far as that works."""
    try:
        yield
    except DiskwrightError:
        if entry.process not in [one.process for one in state.prepared()]:
            with contextlib.suppress(DiskwrightError):  # O-UNHELD tells of it
                preparing.prepare(context, state, repo_id, entry.image, True, take_over=True)
        raise


@contextlib.contextmanager
def handed_over(
    context: Context, repository: Repository, entry: Prepared, shared: list[str], alone: Sequence[str] = ()
) -> Iterator[leasing.LeaseSet]:
    """End the holder and yield the leases that it had, with those of ``shared``, and of ``alone`` for nobody else. Who
    asks for them in between gives them back soon: the data is in use. ImageBusy when somebody does not."""
    holding.end(context, entry)
    with _taken(context, repository, [entry.image, *alone], shared) as leases:
        yield leases


def give_back(
    context: Context, repository: Repository, leases: leasing.LeaseSet, alone: Sequence[str], shared: list[str]
) -> None:
    """Give up the leases of ``alone``, and have those of ``shared`` with others. The holder that had them too has
    ended. ImageBusy when somebody came in between."""
    for tag in alone:
        leases.leases.pop(tag).release()
    if shared:
        leases.leases |= _taken(context, repository, [], shared).leases


def _taken(context: Context, repository: Repository, alone: list[str], shared: list[str]) -> leasing.LeaseSet:
    clock = context.doors.clock
    deadline = clock.monotonic() + _PATIENCE_S
    while True:
        try:
            return leasing.take(context.doors, repository, alone, shared)
        except ImageBusy:
            if clock.monotonic() > deadline:
                raise
        clock.sleep(_LOOK_AGAIN_S)


def hold(
    context: Context,
    state: HostState,
    repository: Repository,
    entry: Prepared,
    links: list[chains.Link],
    leases: leasing.LeaseSet,
    merged: str = "",
) -> Prepared:
    """Start a holder that has these leases too, with locks on the chain ``links``; return its note, which is saved.
    ``merged``: the machine writes to that layer below too."""
    left = links[1].tag if _unfinished(links) else ""
    chains.layers(repository, links)  # active: its machine may be dead by now, and be started anew
    with contextlib.ExitStack() as stack:
        kept = [*leases.leases.values(), *holding.locks(stack, repository, links, True, True, merged, left)]
        return holding.start(context, state, entry, kept)
