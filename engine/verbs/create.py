"""create_virtual_disk: what it commits, in which order.

One published record that names everything (strong, forming) is the seal. The base is looked at again after it, because
it may have been removed meanwhile. Its volume is made by a fix (``engine.fixes.create``).
"""

from __future__ import annotations

from typing import Any

from engine.data.model import Strategy, VolumeFormat, require_id
from engine.data.options import Options
from engine.data.records import Operation, VolumeRef, check_user_data
from engine.errors import BadRequest, Refused
from engine.tags import chains, leasing
from engine.tags.context import Context
from engine.triage.health import wanted_format
from engine.verbs.commit import new_disk, ready_for_any_host, require_base, require_fits, require_room


def virtual_disk(context: Context, repo_id: str, size: int, base: str | None, user_data: Any, options: Options) -> str:
    """Commit a new disk and return its id. Its volume is not made here."""
    repository = context.repository(repo_id)
    require_fits(repository, size)
    user_data = check_user_data(user_data)
    strategy = options.strategy or Strategy.SPACE
    operation = _empty(context, strategy) if base is None else _on_base(context, repo_id, base, size, strategy, options)
    assert operation.attempt is not None
    require_room(repository, operation.attempt.format, size)
    record = new_disk(context, size, strategy, operation, user_data)
    with leasing.take(context.doors, repository, [record.id]):
        repository.tags.publish(record, 0)
        if operation.base and not operation.source:  # a base elsewhere is looked at when it is brought here
            require_base(repository, record.id, operation.base, operation.base, "Restore it or choose another base")
        ready_for_any_host(context, repository, record.id, options)
    return record.id


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
    found.repository.tags.settle(base)
    fresh = context.doors.ids.new_id()
    if found.repo_id == repo_id:
        return Operation("create_disk", VolumeRef(fresh, VolumeFormat.QCOW2, base), base=base)
    elsewhere = Operation("create_disk", source=base, source_repository=found.repository.identity)
    if strategy is Strategy.PERFORMANCE:  # everything has to be copied anyway: flat at once
        return elsewhere._replace(attempt=VolumeRef(fresh, VolumeFormat.RAW, ""))
    return elsewhere._replace(attempt=VolumeRef(fresh, VolumeFormat.QCOW2, base), base=base)
