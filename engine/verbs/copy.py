"""copy_image: one published record that says what is to be copied is the seal.

A snapshot keeps its id in the target, a disk's copy gets a new one. With a base, the copy is an
overlay on it that holds only the difference; a base that is a disk is frozen under a hidden tag
first, so that it can go on changing. A disk whose machine runs is copied as a hidden snapshot of it (``live.copy``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.data.kept import Kept
from engine.data.model import Strategy, VolumeFormat, require_id
from engine.data.options import Options
from engine.data.records import Operation, Record, VolumeRef, check_user_data
from engine.errors import Conflict, ImageBusy, NotFound, OutcomeUnknown, Overtaken, Refused
from engine.formats.base import Repository
from engine.tags import chains, changes, leasing, sources
from engine.tags.context import Context, Found
from engine.verbs.commit import ready_for_any_host, require_base, require_fits, require_room
from engine.verbs.snapshot import switch

Freeze = Callable[[Kept, Callable[[sources.Source], None]], None]
"""Freezes a disk in use for a copy, and has that committed."""


def image(
    context: Context,
    repo_id: str,
    image_id: str,
    base: str | None,
    user_data: Any,
    options: Options,
    beside: Callable[[Found], Freeze | None],
) -> str:
    """Commit a copy of an image into ``repo_id`` and return the id it has there. ``beside`` is asked about a disk that
    is in use: None where its machine cannot be spoken to."""
    repository = context.repository(repo_id)
    require_id(image_id, "image_id")
    user_data = check_user_data(user_data)
    if base is not None:
        require_id(base, "base_image_id")
    entry = repository.tags.read(image_id)
    if entry is not None and not entry.tombstone:
        here = changes.readable(entry, image_id, repository.place).record
        if not here.mutable and options.hint(image_id) in (None, repo_id):
            return _already_here(context, repository, here, user_data, options)
    found = context.find(image_id, options)
    source = sources.locate(context, _operation_of(found))
    if not source.record.mutable and found.repo_id != repo_id:
        here_entry = repository.tags.read(image_id)
        if here_entry is not None and not here_entry.tombstone:
            here = changes.readable(here_entry, image_id, repository.place).record
            _same_snapshot(here, source.record)
            return _already_here(context, repository, here, user_data, options)
    if source.record.mutable:
        try:
            source = source._replace(record=_at_rest(context, found))
        except ImageBusy:
            freeze = beside(found)
            if freeze is None:
                raise
            copy = Kept(repository.identity, context.doors.ids.new_id())
            parent = _parent(context, repository, source.record, base, options)  # else it is frozen for nothing

            def commit(frozen: sources.Source) -> None:
                _commit(context, repository, frozen, parent, base, user_data, options, disk=copy.copy)

            freeze(copy, commit)
            return copy.copy
    parent = _parent(context, repository, source.record, base, options)
    return _commit(context, repository, source, parent, base, user_data, options)


def _operation_of(found: Found) -> Operation:
    record = found.record
    if not record.whole:
        raise Refused(f"image {record.id} in {found.repo_id} is not complete", "Run its mend fix first")
    return Operation(
        "copy",
        source=record.id,
        source_repository=found.repository.identity,
        source_write_epoch=record.write_epoch,
        source_content=record.content,
    )


def _same_snapshot(here: Record, source: Record) -> None:
    different = here.size != source.size or (here.digest and source.digest and here.digest != source.digest)
    if different:
        raise Conflict(
            f"the target has a snapshot {here.id} with other content",
            "One of the two is damaged: check both repositories with --deep",
        )


def _already_here(context: Context, repository: Repository, here: Record, user_data: Any, options: Options) -> str:
    """Return the id of the snapshot, which the target has: intact, unfinished, or removed and still there."""
    if here.operation is not None and here.operation.verb == "create_snapshot":
        raise NotFound(f"there is no image {here.id}", "A snapshot that was never finished left this; clean it")
    for _, other in context.reachable(options.participating_repositories):
        if other.identity != repository.identity:
            entry = other.tags.read(here.id)
            if entry is not None and entry.record is not None and entry.record.whole and not entry.record.mutable:
                _same_snapshot(here, entry.record)
    if not here.strong:

        def back(record: Record) -> Record | None:
            if record.purging or record.absorber:
                raise Refused(f"snapshot {here.id} is being deleted here", "Run its clean fix, then copy again")
            if record.strong:
                return None
            kept = record.user_data if record.removed else user_data  # a base that was hidden never had any
            return record._replace(strong=True, removed=None, absorbed_by="", user_data=kept)

        changes.change(repository, here.id, back)
    else:
        repository.tags.settle(here.id)  # seen is not durable yet: whoever began this copy may have died in between
    return here.id


def _at_rest(context: Context, found: Found) -> Record:
    """Return the record of a disk that nobody has prepared, after its last session was closed."""
    lease = found.repository.leases.try_acquire(found.record.id, shared=True)
    if lease is None:
        raise ImageBusy(
            f"disk {found.record.id} is in use: {leasing.holder(context.doors, found.repository, found.record.id)}",
            "Stop the machine that uses it and tear it down, or, if it has it open here, say how to speak to it "
            "(diskwright attach); or copy a snapshot of it",
        )
    lease.release()
    return sources.close_session(context, found.repository, found.record)


def _parent(context: Context, repository: Repository, source: Record, base: str | None, options: Options) -> str:
    """Return the tag that the copy is to stand on, "" for none, where there is room for it."""
    require_fits(repository, source.size)
    raw = base is None and options.strategy is Strategy.PERFORMANCE
    require_room(repository, VolumeFormat.RAW if raw else VolumeFormat.QCOW2, source.size)
    return "" if base is None else _base(context, repository, base, source.size, options)


def _commit(
    context: Context,
    repository: Repository,
    source: sources.Source,
    parent: str,
    base: str | None,
    user_data: Any,
    options: Options,
    disk: str = "",
) -> str:
    """``disk``: the id of the copy, of a snapshot that stands for its disk."""
    record = source.record
    tag = disk or (context.doors.ids.new_id() if record.mutable else record.id)
    copy = sources.copy_record(context, source, tag, options.strategy or Strategy.SPACE, digest=options.digest)
    copy = copy._replace(mutable=copy.mutable or bool(disk), user_data=user_data, last=context.committed("copy"))
    if parent:
        assert copy.operation is not None
        overlay = VolumeRef(context.doors.ids.new_id(), VolumeFormat.QCOW2, parent)
        copy = copy._replace(operation=copy.operation._replace(attempt=overlay, base=parent))
    entry = repository.tags.read(tag)
    with leasing.take(context.doors, repository, [tag]):
        try:
            repository.tags.publish(copy, entry.generation if entry else 0)
        except OutcomeUnknown:
            raise  # perhaps nobody has it
        except Overtaken:
            if copy.mutable or not _is_there(repository, tag):
                raise
            repository.tags.settle(tag)
            return tag  # another host began the very same copy: one image, same id
        if copy.operation is not None and copy.operation.base:
            require_base(repository, tag, copy.operation.base, base or "", "Restore it or copy without a base")
        ready_for_any_host(context, repository, tag, options)
    return tag


def _is_there(repository: Repository, tag: str) -> bool:
    entry = repository.tags.read(tag)
    return entry is not None and not entry.tombstone


def _base(context: Context, repository: Repository, base: str, size: int, options: Options) -> str:
    """Return the tag to build on: the base itself, or a hidden freeze of it; "" to copy all bits after all."""
    entry = repository.tags.read(base)
    if entry is None:
        raise NotFound(f"the base {base} is not in the target repository", "Copy it there first")
    record = changes.readable(entry, base, repository.place).record
    if not record.strong:
        raise context.not_visible(repository, record)
    if not record.whole:
        raise Refused(f"the base {base} is not complete", "Run its mend fix first")
    if record.size > size:
        if options.full:
            return ""
        raise Refused(
            f"the base {base} has {record.size} bytes, more than the {size} of the image",
            "Copy without a base, or with the option full",
        )
    chains.usable(repository, record)
    repository.tags.settle(base)
    if not record.mutable:
        return base
    try:
        with leasing.take(context.doors, repository, [base]):
            return switch(context, repository, base, None, None, strong=False)
    except ImageBusy:
        if options.full:
            return ""
        raise
    finally:
        context.deactivate()
