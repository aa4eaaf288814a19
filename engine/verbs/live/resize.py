"""resize_disk of a disk whose machine runs: the machine makes it longer, then its record says so.

(1) The holder hands over its leases, and a new one has them at once. (2) The room, where volumes have all of it at
once; a raw one stays in the room that its machine sees, and has what that has written there. (3) *The machine makes the
volume longer*, which its guest sees. (4) The volume is looked at, and made durable. (5) The record says the new size:
the seal.

The guest may write behind the old end from (3) on. Until (5) the volume is longer than its record says (O-GROWN): what
is there is not lost, and nothing is built on the disk. The same verb again goes on there, beside a machine or without.
"""

from __future__ import annotations

import contextlib

from engine.data.model import VolumeFormat, aligned, require_id
from engine.data.records import Record, VolumeRef
from engine.errors import Refused, ToolFailed
from engine.formats.base import Repository
from engine.gate import gate
from engine.gate.gate import Purpose
from engine.host import machines
from engine.host.machines import Machine
from engine.host.state import HostState, Prepared
from engine.tags import chains, changes, lengths
from engine.tags.context import Context
from engine.verbs import resize
from engine.verbs.commit import require_fits


def grow(context: Context, state: HostState, repo_id: str, disk: str, size: int) -> None:
    """Make a disk ``size`` bytes long, durable on return: while its machine runs, where that can be spoken to."""
    repository = context.repository(repo_id)
    entry = machines.entry_of(context, state, repository, require_id(disk, "image_id"))
    if entry is None or not entry.monitor:
        resize.grow(context, repo_id, disk, size)
        return
    require_fits(repository, size)
    try:
        _grow(context, state, entry, repo_id, size)
    finally:
        context.deactivate()


def _grow(context: Context, state: HostState, entry: Prepared, repo_id: str, size: int) -> None:
    """Refused or ToolFailed before anything is done when the monitor is gone or of another machine, or when the machine
    has jobs under way."""
    repository, disk = context.repository(repo_id), entry.image
    record = changes.read(repository, disk).record
    if not record.strong:
        raise context.not_visible(repository, record)
    volume = resize.may_grow(record, size)
    links = chains.usable(repository, record, grown=True)
    resize.require_no_shorter(repository, record, volume, size)
    with contextlib.closing(context.doors.hypervisors.connect(entry.monitor)) as monitor:
        machine = machines.find(repository, monitor, entry, links)
        machines.require_idle(machine, disk)
        machines.require_following(machine, disk)
        if repository.extents is not None and volume.format is VolumeFormat.RAW and aligned(size) > machine.top.size:
            raise Refused(  # one that is started anew meanwhile sees the whole device, before it is cleared
                f"image {disk} is a raw volume on LVM, and its machine would see in a longer one what others have left",
                "Make a snapshot of it first, beside which the disk goes on as qcow2; or stop the machine",
            )
        if (machine.top.size, record.size) != (aligned(size), size):
            below = [link.tag for link in links[1:]]
            with (
                machines.held_anew(context, state, entry, repo_id),
                machines.handed_over(context, repository, entry, below) as leases,
            ):
                chains.unchanged(repository, links)
                machines.hold(context, state, repository, entry, links, leases)
                _make_longer(context, repository, machine, disk, volume, size)
                _record(context, repository, record, volume, size)
                return
    _record(context, repository, record, volume, size)


def _record(context: Context, repository: Repository, record: Record, volume: VolumeRef, size: int) -> None:
    changes.change(repository, record.id, lambda now: resize.longer(context, now, record, volume, size))


def _make_longer(
    context: Context, repository: Repository, machine: Machine, disk: str, volume: VolumeRef, size: int
) -> None:
    if repository.extents is not None:
        repository.extents.make_room(volume, size, kept=machine.top.size)
    if machine.top.size < aligned(size):  # a raw device may be longer
        machine.monitor.grow(machine.top.name, aligned(size))
    have = lengths.of(repository.volumes.facts(volume.id, volume.format))
    if have != aligned(size):
        raise ToolFailed(
            f"the machine of image {disk} says that it has made it longer, and its volume is {have} bytes long",
            "Look what that machine is; diskwright check tells what can be done",
        )
    gate.settle(context.doors, gate.open_layer(repository, disk, volume, Purpose.READ))
