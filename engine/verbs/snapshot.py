"""create_snapshot: freeze what a disk contains, and let the disk go on above it ("switch").

(1) weak tag S on the disk's volume, naming the overlay to come;
(2) the empty overlay above S; (3) the disk's record points to the overlay; (4) S becomes strong:
the seal. Whatever step is the last, the disk reads the same: after (1) or (2) S is hidden data
that nothing needs (clean), after (3) hidden data with one dependant (merge), after (4) done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from engine.data.model import Strategy, VolumeFormat, require_id
from engine.data.options import Options
from engine.data.records import Operation, Record, VolumeRef, check_user_data
from engine.errors import DiskwrightError, ImageBusy, Refused
from engine.formats.base import Repository
from engine.gate import gate
from engine.tags import chains, changes, leasing, seen, sessions
from engine.tags.context import Context
from engine.verbs.commit import require_room


def snapshot(context: Context, repo_id: str, disk: str, user_data: Any, options: Options) -> str:
    """Make a snapshot of a disk and return its id. No data is copied."""
    repository = context.repository(repo_id)
    require_id(disk, "base_virtual_disk_id")
    user_data = check_user_data(user_data)
    with alone(context, repository, [disk]):
        return switch(context, repository, disk, user_data, options.strategy, strong=True)


@contextlib.contextmanager
def alone(context: Context, repository: Repository, disks: Iterable[str]) -> Iterator[None]:
    """Hold the leases of disks that nobody uses; ImageBusy tells of one in use how it can be frozen all the same."""
    try:
        with leasing.take(context.doors, repository, disks):
            yield
    except ImageBusy as error:
        if not leasing.hosts_share(repository):  # else no snapshot is taken beside a machine
            error.next_step += "; or, if a machine has it open here, say how to speak to it: diskwright attach"
        raise
    finally:
        context.deactivate()


def switch(
    context: Context, repository: Repository, disk: str, user_data: Any, strategy: Strategy | None, strong: bool
) -> str:
    """Freeze what the disk contains now under a new tag, let the disk go on above it, and return the tag.

    ``strong`` False: the new tag stays hidden (the base of a copy). The caller holds the disk's lease."""
    begun = plan(context, repository, disk, user_data, strategy)
    with leasing.take(context.doors, repository, [begun.record.id]):
        repository.tags.publish(begun.record, 0)
        try:
            make_overlay(repository, begun)
            move(context, repository, begun)
        except DiskwrightError:
            drop_unused(repository, begun)
            raise
        changes.change(repository, begun.record.id, lambda now: complete(now, strong))
    return begun.record.id


class Begun(NamedTuple):
    """A snapshot that is about to be made."""

    disk: Record
    """As it is before."""
    overlay: VolumeRef
    """On which it goes on."""
    record: Record
    """What the snapshot begins with."""


def plan(context: Context, repository: Repository, disk: str, user_data: Any, strategy: Strategy | None) -> Begun:
    """Let what the disk contains be what it is now, and return how it becomes a snapshot. The caller holds the disk's
    lease."""
    record = changes.read(repository, disk).record
    if not record.strong:
        raise context.not_visible(repository, record)
    volume = may_switch(record)
    links = chains.load(repository, record)
    chains.sealable(repository, record, volume)
    require_no_merge_below(links)
    require_room(repository, VolumeFormat.QCOW2, record.size)
    gate.seal(context.doors, repository, disk, volume)
    # Named alike: a repository of files has what is known of both in one directory, and syncs it once.
    frozen = volume.id[:2] + context.doors.ids.new_id()[2:]
    made = begin(context, record, frozen, user_data, strategy)
    return made._replace(record=seen.noted(repository, made.record))


def begin(context: Context, disk: Record, frozen: str, user_data: Any, strategy: Strategy | None) -> Begun:
    """Return how what a disk contains becomes the snapshot ``frozen``. Nothing is done."""
    overlay = VolumeRef(context.doors.ids.new_id(), VolumeFormat.QCOW2, frozen)
    hidden = frozen_record(disk, frozen, overlay, strategy or disk.strategy, user_data)
    return Begun(disk, overlay, hidden._replace(last=context.committed("create_snapshot")))


def make_overlay(repository: Repository, begun: Begun) -> None:
    """Make the volume on which the disk goes on, which the snapshot's record names."""
    below, tag = begun.record.volume, begun.record.id
    assert below is not None
    gate.make(repository, begun.overlay, begun.disk.size, below.format, lambda: require_begun(repository, tag))


def move(context: Context, repository: Repository, begun: Begun) -> None:
    """Let the disk go on above its snapshot."""
    changes.change(repository, begun.disk.id, lambda now: _moved(context, repository, now, begun.disk, begun.overlay))


def frozen_record(disk: Record, frozen: str, overlay: VolumeRef, strategy: Strategy, user_data: Any) -> Record:
    """Return the record that a snapshot begins with: hidden, on the volume that the disk has now, naming the overlay to
    come."""
    return Record(
        id=frozen,
        strong=False,
        mutable=False,
        size=disk.size,
        whole=True,
        volume=disk.volume,
        strategy=strategy,
        operation=Operation("create_snapshot", overlay, other=disk.id),
        digest=disk.digest if disk.digest_is_valid else "",
        lost=disk.lost,
        user_data=user_data,
    )


def require_begun(repository: Repository, frozen: str) -> None:
    """Raise Refused when what a snapshot has begun is being cleaned away."""
    if changes.read(repository, frozen).record.purging:
        raise Refused(f"the unfinished snapshot {frozen} is being cleaned away", "Make the snapshot again")


def complete(now: Record, strong: bool) -> Record:
    """Return the record of a snapshot whose disk has moved; ``strong``: the seal."""
    if now.destroyed:
        raise Refused(f"the snapshot {now.id} was cleaned away", "Look at the disk's status, then make it again")
    # The disk stands on it: a deletion that was begun is void.
    return now._replace(strong=strong, operation=None, purging=False)


def may_switch(record: Record) -> VolumeRef:
    """Return the volume of a disk that can be frozen, or raise Refused."""
    if not record.mutable:
        raise Refused(f"image {record.id} is a snapshot already", "Only virtual disks can be snapshotted")
    if not record.whole or record.volume is None:
        raise Refused(f"image {record.id} is not complete", "Run its mend fix first")
    if record.operation is not None and record.operation.verb == "merge":
        raise Refused(f"image {record.id} has an unfinished merge", "Run its merge fix first")
    return record.volume


def require_no_merge_below(links: Sequence[chains.Link]) -> None:
    """Raise Refused while what a disk stands on has a part in a merge that is not finished."""
    if any(link.record.absorber for link in links[1:2]):
        raise Refused(f"image {links[0].tag} has an unfinished merge", "Run its merge fix first")


def _moved(context: Context, repository: Repository, now: Record, before: Record, overlay: VolumeRef) -> Record:
    return seen.noted(repository, sessions.closed(context.doors, moved(now, before, overlay)))


def moved(now: Record, before: Record, overlay: VolumeRef) -> Record:
    """Return the record of the disk on its overlay. Refused when it is not what it was ``before``."""
    # We may have been frozen, and have lost our leases: whoever cleans away what we have begun raises the epoch first,
    # and whoever uses the disk or makes it longer the write epoch.
    same = (now.volume, now.epoch, now.write_epoch) == (before.volume, before.epoch, before.write_epoch)
    if not same or not now.strong:
        raise Refused(f"image {now.id} was changed at the same moment", "Look at its status and try again")
    return now._replace(volume=overlay)


def drop_unused(repository: Repository, begun: Begun) -> None:
    """Take back what was made, as far as that works, if the disk did not move. What stays is offered by check."""
    disk, frozen = begun.disk.id, begun.record.id
    try:
        if changes.read(repository, disk).record.volume == begun.overlay:
            return
        gate.delete(repository, disk, begun.overlay)
        repository.tags.purge(frozen, changes.read(repository, frozen).generation)
    except DiskwrightError:
        return
