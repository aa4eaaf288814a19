"""revert_disk: a disk contains again what a snapshot contains, at no cost; what it contained is kept.

(1) a snapshot of what it contains now, as create_snapshot makes one; (2) the record of the disk names the overlay to
come, as scrap; (3) the overlay above the snapshot to return to; (4) the record of the disk points to it: the seal; (5)
the snapshot of (1) is removed, so it can be restored until a clean fix ran. Whatever step is the last, nothing is lost:
before (4) the disk is as it was, and there is a snapshot more; after it there may be one that nobody has removed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.data.model import VolumeFormat, require_id
from engine.data.records import Record, VolumeRef, check_user_data
from engine.errors import Refused
from engine.formats.base import Repository
from engine.gate import gate
from engine.tags import chains, changes, leasing
from engine.tags.context import Context
from engine.verbs import remove, snapshot
from engine.verbs.commit import require_room


def revert(context: Context, repo_id: str, disk: str, to: str, user_data: Any) -> str:
    """Have ``disk`` contain what the snapshot ``to`` does, with its size; return the id of the removed snapshot that
    has what it contained, whose user data is ``user_data``. Durable on return."""
    repository = context.repository(repo_id)
    require_id(disk, "image_id")
    require_id(to, "snapshot_id")
    user_data = check_user_data(user_data)
    try:
        with leasing.take(context.doors, repository, [disk], [to]):  # so nobody gives up the data of ``to``
            base = _may_return_to(context, repo_id, to)
            links = chains.usable(repository, base)
            _require_idle(changes.read(repository, disk).record)
            require_room(repository, VolumeFormat.QCOW2, base.size)
            kept = snapshot.switch(context, repository, disk, user_data, None, strong=True)
            _move(context, repository, disk, base, links[0].volume.format)
    finally:
        context.deactivate()
    remove.remove(context, repo_id, kept)
    return kept


def _may_return_to(context: Context, repo_id: str, to: str) -> Record:
    base = context.visible(repo_id, to)
    if base.mutable:
        raise Refused(f"image {to} is a virtual disk, not a snapshot", "Name the snapshot to return to")
    if base.purging or base.absorber:
        raise Refused(f"snapshot {to} is being deleted or merged", "Look at its status and try again")
    return base


def _require_idle(record: Record) -> None:
    if record.operation is not None:
        raise Refused(f"image {record.id} has an unfinished {record.operation.verb}", "Run its fix first")


def _move(context: Context, repository: Repository, disk: str, base: Record, format: VolumeFormat) -> None:
    """Point the disk to a fresh overlay above ``base``. The caller holds both leases."""
    overlay = VolumeRef(context.doors.ids.new_id(), VolumeFormat.QCOW2, base.id)
    named = changes.change(repository, disk, lambda now: now._replace(scrap=(*now.scrap, overlay)))

    def as_named(now: Record) -> Record:
        # The epoch too: whoever takes our leases while we are frozen raises it first.
        if (now.volume, now.epoch) != (named.volume, named.epoch) or overlay not in now.scrap or not now.strong:
            raise Refused(f"image {disk} was changed at the same moment", "Look at its status and try again")
        return now

    def moved(now: Record) -> Record:
        assert now.volume is not None
        return as_named(now)._replace(
            volume=overlay,
            size=base.size,
            scrap=(*(volume for volume in now.scrap if volume != overlay), now.volume),
            lost=(),
            digest="",
            write_epoch=now.write_epoch + 1,
            content=context.doors.ids.new_id(),
            last=context.committed("revert"),
        )

    gate.make(repository, overlay, base.size, format, lambda: _verify(repository, disk, as_named))
    changes.change(repository, disk, moved)


def _verify(repository: Repository, disk: str, as_named: Callable[[Record], Record]) -> None:
    as_named(changes.read(repository, disk).record)
