"""Mend a damaged record: publish again what is proven of it, as the next generation.

No volume is touched. The damaged generation stays on the storage until the next change of the record.
"""

from __future__ import annotations

from engine.data.model import OperationStatus, VolumeFormat
from engine.data.records import Record
from engine.errors import DiskwrightError, Refused, StaleFix
from engine.formats.base import Repository
from engine.gate import gate
from engine.gate.gate import Purpose
from engine.survey import survey
from engine.tags import chains, changes, sources
from engine.tags.context import Context
from engine.triage.recover import HEADER, Recovery, above, recovery
from engine.triage.view import Graph, Replica


def mend_record(context: Context, repository: Repository, target: str) -> None:
    """Give the damaged record of ``target`` a successor, from what is there now. The caller holds the lease.

    StaleFix when nothing proves itself any more; Overtaken when somebody else has changed the record; Refused when a
    volume that would be named is damaged itself."""
    graph = Graph(survey.look(context, repository, only=target, mine=True))
    entry = graph.entry(target)
    if entry is not None and entry.record is not None:
        record, told = above(graph, entry.record), "from the overlay"
    else:
        found = recovery(graph, target)
        record = _record(context, found, target) if found is not None and not found.unsure else None
        told = f"from the {found.witness}" if found is not None else ""
        if record is not None and found is not None and found.witness == HEADER:
            _require_sound(context, repository, record)
    if entry is None or record is None:
        raise StaleFix(f"the record of image {target} cannot be mended from what is there now", "Check again")
    repository.tags.settle_all()  # what the deduction rests on must not fall back after a loss of power
    now = context.doors.clock.wall()
    last = OperationStatus("mend record", context.doors.ids.host_id, 1, 1, 100, "", now, told)
    repository.tags.publish(record._replace(last=last), entry.generation)


def _record(context: Context, found: Recovery, target: str) -> Record:
    if found.record is not None:
        return found.record
    assert found.replica is not None
    return _copy(context, found.replica, target)


def _copy(context: Context, replica: Replica, target: str) -> Record:
    """Return the record of a copy of the replica that has yet to be made."""
    repository = context.by_identity(replica.repository)
    if repository is None:
        raise StaleFix(f"{replica.repo_id} is not there any more", "Check again")
    original = changes.read(repository, target).record
    source = sources.Source(repository, original, chains.usable(repository, original))
    return sources.copy_record(context, source, target, original.strategy)._replace(user_data=original.user_data)


def _require_sound(context: Context, repository: Repository, record: Record) -> None:
    """Return if the data is in order in itself: nothing but its header speaks for it."""
    assert record.volume is not None
    if record.volume.format is not VolumeFormat.QCOW2:
        return
    try:
        layer = gate.open_layer(repository, record.id, record.volume, Purpose.READ)
        report = context.doors.images.check(layer)
    except DiskwrightError as error:
        raise Refused(
            f"whether volume {record.volume.id} is what image {record.id} had is not known: {error.message}",
            "Restore the record from a backup",
        ) from error
    if report.corruptions:
        raise Refused(
            f"volume {record.volume.id}, which image {record.id} may have had, has {report.corruptions} corruptions",
            "Restore the record from a backup, or give it up when nothing stands on it",
        )
