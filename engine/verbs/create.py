"""create_virtual_disk and create_snapshot: what they commit, in which order.

**create_virtual_disk**: one published record that names everything (strong, forming) is the
seal. The base is looked at again after it, because it may have been removed meanwhile.

**create_snapshot** ("switch"): (1) weak tag S on the disk's volume, naming the overlay to come;
(2) the empty overlay above S; (3) the disk's record points to the overlay; (4) S becomes strong:
the seal. Whatever step is the last, the disk reads the same: after (1) or (2) S is hidden data
that nothing needs (clean), after (3) hidden data with one dependant (merge), after (4) done.
"""

from __future__ import annotations

from typing import Any

from engine.data.model import OperationStatus, Strategy, VolumeFormat, require_id, require_size
from engine.data.options import Options
from engine.data.records import Operation, Record, VolumeRef, check_user_data
from engine.errors import BadRequest, DiskwrightError, NotFound, Refused
from engine.fixes import mend
from engine.formats.base import Repository
from engine.tags import chains, changes, leasing
from engine.tags.context import Context
from engine.triage.health import wanted_format


def virtual_disk(context: Context, repo_id: str, size: int, base: str | None, user_data: Any, options: Options) -> str:
    """Commit a new disk and return its id. Its volume is not made here."""
    repository = context.repository(repo_id)
    require_fits(repository, require_size(size))
    user_data = check_user_data(user_data)
    strategy = options.strategy or Strategy.SPACE
    operation = _empty(context, strategy) if base is None else _on_base(context, repo_id, base, size, strategy, options)
    assert operation.attempt is not None
    repository.require_able_to_make(operation.attempt.format, size)
    record = Record(
        id=context.doors.ids.new_id(),
        strong=True,
        mutable=True,
        size=size,
        whole=False,
        volume=None,
        strategy=strategy,
        operation=operation,
        last=committed(context, "create_disk"),
        user_data=user_data,
    )
    with leasing.take(context.doors, repository, [record.id]):
        repository.publish(record, 0)
        if base is not None:
            _base_is_still_there(repository, record.id, operation)
        ready_for_any_host(context, repository, record.id, options)
    return record.id


def require_fits(repository: Repository, size: int) -> int:
    """Return ``size`` if one image of the repository can have it, else raise BadRequest naming the limit."""
    limit = repository.constraints().max_image_bytes
    if size > limit:
        raise BadRequest(f"size {size} is over the {limit} bytes that {repository.place} can hold in one image")
    return size


def ready_for_any_host(context: Context, repository: Repository, tag: str, options: Options) -> None:
    """Where the manager alone can make volumes, and nobody fills the new image now, make its volume: then any host can
    fill it. The caller holds its lease. What prevents it is no error of the verb, whose intent is on disk."""
    if not repository.managed or options.auto_fix:
        return
    try:
        mend.make_ahead(repository, tag)
    except DiskwrightError:
        return  # check says what is missing, and who can do it
    finally:
        context.deactivate()


def committed(context: Context, verb: str) -> OperationStatus:
    """The status of an operation whose intent was just committed."""
    return OperationStatus(verb, context.doors.ids.host_id, 0, 0, -1, "", context.doors.clock.wall(), "committed")


def _empty(context: Context, strategy: Strategy) -> Operation:
    return Operation("create_disk", VolumeRef(context.doors.ids.new_id(), wanted_format(strategy), ""))


def _on_base(context: Context, repo_id: str, base: str, size: int, strategy: Strategy, options: Options) -> Operation:
    require_id(base, "base_snapshot_id")
    found = context.find(base, options, prefer=repo_id)
    if found.record.mutable:
        raise Refused(f"image {base} is a virtual disk, not a snapshot", "Snapshot it and use the snapshot as base")
    if found.record.size > size:
        raise BadRequest(f"size {size} is smaller than the base's {found.record.size}", "Ask for at least that much")
    chains.usable(found.repository, found.record)
    found.repository.settle(base)
    fresh = context.doors.ids.new_id()
    if found.repo_id == repo_id:
        return Operation("create_disk", VolumeRef(fresh, VolumeFormat.QCOW2, base), base=base)
    elsewhere = Operation("create_disk", source=base, source_repository=found.repository.identity)
    if strategy is Strategy.PERFORMANCE:  # everything has to be copied anyway: flat at once
        return elsewhere._replace(attempt=VolumeRef(fresh, VolumeFormat.RAW, ""))
    return elsewhere._replace(attempt=VolumeRef(fresh, VolumeFormat.QCOW2, base), base=base)


def _base_is_still_there(repository: Repository, tag: str, operation: Operation) -> None:
    if operation.source or not operation.base:
        return  # looked at when the base is brought in
    try:
        base = changes.read(repository, operation.base).record
        gone = not base.strong or base.purging or bool(base.absorbed_by)
    except NotFound:
        gone = True
    if gone:
        changes.change(repository, tag, lambda record: record._replace(strong=False, epoch=record.epoch + 1))
        raise Refused(f"the base {operation.base} was removed meanwhile", "Restore it or choose another base")


def snapshot(context: Context, repo_id: str, disk: str, user_data: Any, options: Options) -> str:
    """Make a snapshot of a disk and return its id. No data is copied."""
    repository = context.repository(repo_id)
    require_id(disk, "base_virtual_disk_id")
    user_data = check_user_data(user_data)
    try:
        with leasing.take(context.doors, repository, [disk]):
            return switch(context, repository, disk, user_data, options.strategy, strong=True)
    finally:
        context.deactivate()


def switch(
    context: Context, repository: Repository, disk: str, user_data: Any, strategy: Strategy | None, strong: bool
) -> str:
    """Freeze the disk's present content under a new tag and let the disk go on above it.

    ``strong`` False: the new tag stays hidden (the base of a copy). The caller holds the disk's lease.
    """
    record = changes.read(repository, disk).record
    volume = _may_switch(record)
    links = chains.load(repository, record)
    if any(link.record.absorber for link in links[1:2]):
        raise Refused(f"image {disk} has an unfinished merge", "Run its merge fix first")
    repository.require_able_to_make(VolumeFormat.QCOW2, record.size)
    chains.require_no_late_writer(repository, disk, volume)
    repository.freeze(volume)
    frozen = context.doors.ids.new_id()
    overlay = VolumeRef(context.doors.ids.new_id(), VolumeFormat.QCOW2, frozen)
    hidden = Record(
        id=frozen,
        strong=False,
        mutable=False,
        size=record.size,
        whole=True,
        volume=volume,
        strategy=strategy or record.strategy,
        operation=Operation("create_snapshot", overlay, other=disk),
        digest=record.digest if record.digest_is_valid else "",
        lost=record.lost,
        last=committed(context, "create_snapshot"),
        user_data=user_data,
    )
    with leasing.take(context.doors, repository, [frozen]):
        repository.publish(hidden, 0)
        try:
            repository.make_volume(overlay, record.size, volume.format, lambda: _still_begun(repository, frozen))
            changes.change(repository, disk, lambda now: _moved(now, record, overlay))
        except DiskwrightError:
            _drop_unused(repository, frozen, disk, overlay)
            raise
        changes.change(repository, frozen, lambda now: _complete(now, strong))
    return frozen


def _still_begun(repository: Repository, frozen: str) -> None:
    if changes.read(repository, frozen).record.purging:
        raise Refused(f"the unfinished snapshot {frozen} is being cleaned away", "Make the snapshot again")


def _complete(now: Record, strong: bool) -> Record:
    if now.destroyed:
        raise Refused(f"the snapshot {now.id} was cleaned away", "Look at the disk's status, then make it again")
    # The disk stands on it: a deletion that was begun is void.
    return now._replace(strong=strong, operation=None, purging=False)


def _may_switch(record: Record) -> VolumeRef:
    if not record.strong:
        raise NotFound(f"there is no image {record.id}", "It was removed; restore it first")
    if not record.mutable:
        raise Refused(f"image {record.id} is a snapshot already", "Only virtual disks can be snapshotted")
    if not record.whole or record.volume is None:
        raise Refused(f"image {record.id} is not complete", "Run its mend fix first")
    if record.operation is not None and record.operation.verb == "merge":
        raise Refused(f"image {record.id} has an unfinished merge", "Run its merge fix first")
    return record.volume


def _moved(now: Record, before: Record, overlay: VolumeRef) -> Record:
    # The epoch too: whoever cleans away what we have begun raises it first (we were frozen, and have lost our leases).
    if (now.volume, now.epoch) != (before.volume, before.epoch) or not now.strong:
        raise Refused(f"image {now.id} was changed at the same moment", "Look at its status and try again")
    return now._replace(volume=overlay, prepared_by="")


def _drop_unused(repository: Repository, frozen: str, disk: str, overlay: VolumeRef) -> None:
    """The disk did not move: take back what was made, as far as that works. Else check offers it."""
    try:
        if changes.read(repository, disk).record.volume == overlay:
            return
        repository.remove_volume(overlay.id, overlay.format)
        repository.purge_tag(frozen, changes.read(repository, frozen).generation)
    except DiskwrightError:
        return
