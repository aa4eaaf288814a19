"""revert_disk: a disk contains again what a snapshot contains, at no cost; what it contained is kept.

(1) a snapshot of what it contains now, as create_snapshot makes one; (2) the record of the disk names the overlay to
come as its attempt, so it depends on the snapshot to return to, which is looked at once more; (3) the overlay above
that; (4) the record of the disk points to it: the seal; (5) the snapshot of (1) is removed, so it can be restored until
a clean fix ran; so it is when (2) to (4) are refused. Whatever step is the last, nothing is lost: before (4) the disk
is as it was, and there is a snapshot more; after it there may be one that nobody has removed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from engine.data.model import VolumeFormat, require_id
from engine.data.records import Operation, Record, VolumeRef, check_user_data
from engine.errors import Conflict, DiskwrightError, NotFound, OutcomeUnknown, Refused
from engine.formats.base import Repository
from engine.gate import gate
from engine.tags import chains, changes, leasing, target
from engine.tags.context import Context
from engine.verbs import remove, snapshot
from engine.verbs.commit import require_room


def revert(context: Context, repo_id: str, disk: str, to: str, user_data: Any) -> str:
    """Have ``disk`` contain what the snapshot ``to`` does, with its size; return the id of the removed snapshot that
    has what it contained, whose user data is ``user_data``. Durable on return. OutcomeUnknown when the disk was
    reverted, and that snapshot could not be removed."""
    repository = context.repository(repo_id)
    require_id(disk, "image_id")
    require_id(to, "snapshot_id")
    user_data = check_user_data(user_data)
    try:
        with leasing.take(context.doors, repository, [disk], [to]):  # so nobody gives up the data of ``to``
            base = _may_return_to(context, repo_id, to)
            links = chains.usable(repository, base)
            before = changes.read(repository, disk).record
            _require_idle(before)
            require_room(repository, VolumeFormat.QCOW2, base.size)
            kept = snapshot.switch(context, repository, disk, user_data, None, strong=True)
            overlay = VolumeRef(context.doors.ids.new_id(), VolumeFormat.QCOW2, to)
            try:
                named = _name(repository, before, kept, overlay)
                _require_as_it_was(repository, base)
                _move(context, repository, named, base, links[0].volume.format)
            except (Refused, NotFound, Conflict):  # nothing was done then, so nothing is left to see
                _take_back(repository, disk, overlay)
                with contextlib.suppress(DiskwrightError):
                    remove.remove(context, repo_id, kept)
                raise
    finally:
        context.deactivate()
    try:
        remove.remove(context, repo_id, kept)
    except DiskwrightError as error:  # whatever it is: the disk was reverted, so nothing was refused
        raise OutcomeUnknown(
            f"image {disk} contains what snapshot {to} does; what it contained is kept as snapshot {kept}, which could "
            f"not be removed: {error.message}",
            f"diskwright remove {repo_id} {kept}, if you do not want it",
        ) from error
    return kept


def _may_return_to(context: Context, repo_id: str, to: str) -> Record:
    base = context.visible(repo_id, to)
    if base.mutable:
        raise Refused(f"image {to} is a virtual disk, not a snapshot", "Name the snapshot to return to")
    if base.purging or base.absorber:
        raise Refused(f"snapshot {to} is being deleted or merged", "Look at its status and try again")
    return base


def _require_idle(record: Record) -> None:
    if record.operation is not None and record.operation.verb != "revert":  # one that was interrupted begins again
        raise Refused(f"image {record.id} has an unfinished {record.operation.verb}", "Run its fix first")


def _name(repository: Repository, before: Record, kept: str, overlay: VolumeRef) -> Record:
    """Publish the overlay to come as the attempt of the disk, which was ``before`` until it was frozen as ``kept``;
    return its record."""

    def named(now: Record) -> Record:
        _require_idle(now)
        frozen = now.volume is not None and now.volume.parent == kept
        if not frozen or (now.epoch, now.write_epoch) != (before.epoch, before.write_epoch) or not now.strong:
            raise _changed(now.id)
        return now._replace(operation=Operation("revert", overlay), scrap=(*now.scrap, *target.attempt_of(now)))

    return changes.change(repository, before.id, named)


def _changed(disk: str) -> Refused:
    return Refused(f"image {disk} was changed at the same moment", "Look at its status and try again")


def _require_as_it_was(repository: Repository, base: Record) -> None:
    """Return if ``base``, which a disk was just published to depend on, is what it was. Refused, NotFound.

    Who deletes the base or merges it looks for dependants after having announced it: one of the two sees the other."""
    now = changes.read(repository, base.id).record
    if (now.volume, now.strong, now.whole) != (base.volume, True, True) or now.purging or now.absorbed_by:
        raise Refused(
            f"snapshot {base.id} was removed or changed meanwhile, so the disk contains what it did",
            "Look at the snapshot's status, restore it or choose another one, and try again",
        )


def _take_back(repository: Repository, disk: str, overlay: VolumeRef) -> None:
    """Delete the overlay that the disk was not moved to, as far as that works. What stays is offered by check."""

    def without(now: Record) -> Record | None:
        return now._replace(operation=None) if overlay in target.attempt_of(now) else None

    with contextlib.suppress(DiskwrightError):
        if changes.read(repository, disk).record.volume == overlay:
            return
        gate.delete(repository, disk, overlay)
        changes.change(repository, disk, without)


def _move(context: Context, repository: Repository, named: Record, base: Record, format: VolumeFormat) -> None:
    """Point the disk to a fresh overlay above ``base``, which its record names. The caller holds both leases."""
    assert named.operation is not None and named.operation.attempt is not None
    overlay = named.operation.attempt

    def as_named(now: Record) -> Record:
        # We may have been frozen, and have lost our leases: whoever gives the attempt up takes it out of the record
        # before anything is deleted, and whoever prepares the disk raises its write epoch.
        same = (now.volume, now.epoch, now.write_epoch, now.operation)
        if same != (named.volume, named.epoch, named.write_epoch, named.operation) or not now.strong:
            raise _changed(now.id)
        return now

    def moved(now: Record) -> Record:
        assert now.volume is not None
        return as_named(now)._replace(
            volume=overlay,
            operation=None,
            size=base.size,
            scrap=(*now.scrap, now.volume),
            lost=(),
            digest="",
            write_epoch=now.write_epoch + 1,
            content=context.doors.ids.new_id(),
            last=context.committed("revert"),
        )

    gate.make(repository, overlay, base.size, format, lambda: _verify(repository, named.id, as_named))
    changes.change(repository, named.id, moved)


def _verify(repository: Repository, disk: str, as_named: Callable[[Record], Record]) -> None:
    as_named(changes.read(repository, disk).record)
