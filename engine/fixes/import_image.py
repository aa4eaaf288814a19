"""Finish an import: make the volume of the new disk, fill it from the file, seal it whole.

Only a file that was named on this host is read, whatever the record says. It must be the one that the import began
with, before its data is read and after it, by its name and on one descriptor that is open meanwhile; and what it holds
must be sound. Else nothing is sealed.
"""

from __future__ import annotations

from engine.copying import image_file
from engine.copying.image_file import ImageFile
from engine.data.records import Record
from engine.doors.files import FileHandle, Kind, Stat
from engine.errors import Refused, from_os_error
from engine.fixes import fill
from engine.formats.base import Repository
from engine.tags import imports, target
from engine.tags.attempt import Attempt, unfinished
from engine.tags.context import Context
from engine.tags.imports import NamedFile


def resume(context: Context, repository: Repository, tag: str) -> None:
    """Finish the imported disk ``tag``, from wherever the last attempt got. The caller holds its lease."""
    with Attempt(context, repository, tag, "import", ("make volume", "copy data", "seal")) as attempt:
        _import(attempt, attempt.take_over())


def _import(attempt: Attempt, record: Record) -> None:
    operation = unfinished(record, "import")
    doors, notes, identity = attempt.context.doors, attempt.context.imports, attempt.repository.identity
    named = imports.require_named(notes, identity, attempt.tag, operation)
    with image_file.open_file(doors.files, named.path) as handle:
        _require_same(attempt.context, named, handle)
        most = attempt.repository.constraints().max_image_bytes
        file = image_file.inspect(doors.images, handle, named.path, operation.source_format, record.size, most)
        image_file.require_sound(doors.images, file)
        if file.is_device and attempt.cursor:
            record = target.from_the_start(attempt, "what the device held then is not known", lambda now: now)
        attempt.stage("make volume")
        filling = fill.ready(attempt, record, operation.digest)
        attempt.stage("copy data")
        digest = fill.copy_all(attempt, _reading(file, record.size, handle), filling)
        _require_unchanged(attempt.context, named, handle, file.facts)
    attempt.stage("seal")
    attempt.finish(lambda now: target.sealed(now)._replace(digest=digest, digest_write_epoch=now.write_epoch))
    notes.forget_file(identity, attempt.tag)


def _reading(file: ImageFile, size: int, handle: FileHandle) -> fill.Reading:
    return fill.Reading([file.layer], size, direct=False, ours=False, handle=handle)


def _require_unchanged(context: Context, named: NamedFile, handle: FileHandle, before: Stat) -> None:
    """Return if the file did not change while it was read. Else what was read of it is not gone on with either, should
    the old file come back."""
    try:
        if _require_same(context, named, handle).ctime_ns != before.ctime_ns:
            raise Refused(
                f"the file {named.path!r:.200} was changed while it was read",
                "Run the fix again when nobody writes to it, nor changes its links or rights",
            )
    except Refused as error:
        error.lost_writes = True
        raise


def _require_same(context: Context, named: NamedFile, handle: FileHandle) -> Stat:
    """Return what is seen of the open file, if it and the one that has its name now are as the import began with."""
    try:
        found = [handle.stat()]
        if found[0].kind is not Kind.DEVICE:
            found.append(context.doors.files.stat(named.path))
    except OSError as error:
        raise from_os_error(error, f"look at the file to import {named.path!r:.200}") from error
    if any(image_file.identity_of(facts) != named.facts for facts in found):
        raise Refused(
            f"the file {named.path!r:.200} is not the one that the import began with",
            "Put it back, or remove the image and import again",
        )
    return found[0]
