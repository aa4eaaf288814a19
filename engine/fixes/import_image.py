"""Finish an import: make the volume of the new disk, fill it from the file, seal it whole.

The file must be the one that the import began with, before its data is read and after it: else nothing is sealed.
"""

from __future__ import annotations

from engine.copying import image_file
from engine.data.model import VolumeFormat
from engine.data.records import Operation, Record
from engine.doors.images import Layer
from engine.errors import Refused
from engine.fixes import fill
from engine.formats.base import Repository
from engine.tags import target
from engine.tags.attempt import Attempt, unfinished
from engine.tags.context import Context


def resume(context: Context, repository: Repository, tag: str) -> None:
    """Finish the imported disk ``tag``, from wherever the last attempt got. The caller holds its lease."""
    with Attempt(context, repository, tag, "import", ("make volume", "copy data", "seal")) as attempt:
        _import(attempt, attempt.take_over())


def _import(attempt: Attempt, record: Record) -> None:
    operation = unfinished(record, "import")
    read = _source(attempt.context, operation)
    attempt.stage("make volume")
    filled = target.ready(attempt, record)
    attempt.stage("copy data")
    digest = fill.copy_all(attempt, read._replace(size=record.size), filled, operation.digest)
    _source(attempt.context, operation)  # changed while it was read: not sealed
    attempt.stage("seal")
    attempt.finish(lambda now: target.sealed(now)._replace(digest=digest, digest_write_epoch=now.write_epoch))


def _source(context: Context, operation: Operation) -> fill.Reading:
    """Return the imported file, if it is still the one that the import began with."""
    facts, header = image_file.inspect(context.doors.files, operation.path, operation.source_format)
    if (facts.size, facts.mtime_ns, facts.inode) != operation.path_facts:
        raise Refused(
            f"the file {operation.path!r:.200} is not the one that the import began with",
            "Put it back, or remove the image and import again",
        )
    layer = Layer(operation.path, VolumeFormat(operation.source_format))
    return fill.Reading([layer], header.size if header else facts.size, False)
