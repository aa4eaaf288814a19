"""import_image: commit a new disk that is to be filled from an image file, whose state is noted in the record.

One published record is the seal. The data is moved by a fix (``engine.fixes.import_image``), which refuses a file that
is not the noted one any more, and checks all of it before it is an image. Here only what its beginning and its tables
tell is refused (what is compressed tells it as it is unpacked, and kept nowhere): that it is of another format, needs
other files, or was cut off.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Any

from engine.copying import image_file
from engine.copying.image_file import ImageFile
from engine.data.model import (
    MAX_IMAGE_BYTES,
    OVA,
    FileFormat,
    Packing,
    Strategy,
    VolumeFormat,
    is_import_format,
    packing_of,
    require_path,
)
from engine.data.options import Options
from engine.data.records import Operation, Record, VolumeRef, check_user_data
from engine.doors.files import FileHandle
from engine.errors import BadRequest, Refused, from_os_error
from engine.formats.base import Repository
from engine.tags import changes, leasing
from engine.tags.context import Context
from engine.tags.imports import NamedFile
from engine.triage.health import wanted_format
from engine.verbs import adopt
from engine.verbs.commit import new_disk, ready_for_any_host, require_fits, require_room

_NEVER_WRITTEN = (errno.EINVAL, errno.EROFS)
"""What fsync(2) says on a file system that can only be read, such as that of a CD: nothing is to be flushed there."""


def disk(context: Context, repo_id: str, path: str, format: str, user_data: Any, options: Options) -> str:
    """Commit the import of an image file as a new virtual disk and return its id."""
    repository = context.repository(repo_id)
    user_data = check_user_data(user_data)
    if not is_import_format(format):
        known = ", ".join((*VolumeFormat, *FileFormat, OVA, *(f"{VolumeFormat.RAW}.{packing}" for packing in Packing)))
        raise BadRequest(f"image format {format!r:.40} is unknown", f"State one of {known}; it is never guessed")
    with _looked_at(context, repository, path, format, repository.constraints().max_image_bytes) as file:
        if not file.size:
            raise BadRequest(f"{path!r:.200} has nothing in it", "Give a file that holds an image")
        size = require_fits(repository, file.size)
        data = image_file.data_bytes(context.doors.images, file)
    strategy = options.strategy or Strategy.SPACE
    require_room(repository, wanted_format(strategy), size)
    operation = Operation(
        "import",
        VolumeRef(context.doors.ids.new_id(), wanted_format(strategy), ""),
        path=file.path,
        path_facts=file.identity,
        source_format=format,
        data_bytes=data,
        digest=options.digest,
    )
    record = new_disk(context, size, strategy, operation, user_data)._replace(remarks=file.remarks)
    with leasing.take(context.doors, repository, [record.id]):
        context.imports.name_file(repository.identity, record.id, NamedFile(file.path, file.identity))
        repository.tags.publish(record, 0)
        ready_for_any_host(context, repository, record.id, options)
    return record.id


def name_file(context: Context, repo_id: str, image: str, path: str) -> None:
    """Note that this host may read ``path`` for the unfinished import ``image``, and have the record speak of it; or
    take it over, for an unfinished adoption."""
    repository = context.repository(repo_id)
    record = changes.read(repository, image).record
    if record.operation is not None and record.operation.verb == "adopt":
        adopt.name_file(context, repository, record, path)
        return
    record = context.visible(repo_id, image)
    operation = record.operation
    if operation is None or operation.verb != "import":
        raise Refused(
            f"image {image} is no unfinished import or adoption", "It needs no file: diskwright why tells what it needs"
        )
    most = 2 * record.size  # one that is longer is no candidate; the repository's own limit would have to be probed for
    with _looked_at(context, repository, path, operation.source_format, most) as file:
        data = image_file.data_bytes(context.doors.images, file)
    if file.size != record.size:
        raise Refused(
            f"the image in {path!r:.200} has {file.size} bytes, and the import began with one of {record.size}",
            "Give the file that it began with, or remove the image and import this one",
        )
    with leasing.take(context.doors, repository, [image]):
        context.imports.name_file(repository.identity, image, NamedFile(file.path, file.identity))
        changes.change(repository, image, lambda now: _from_file(context, now, file, data))


def _flush(handle: FileHandle, path: str) -> None:
    """Make a file to import durable: its size and time, by which the import knows it, may outlive a loss of power that
    its data does not."""
    try:
        handle.sync()
    except OSError as error:
        if error.errno not in _NEVER_WRITTEN:
            raise from_os_error(error, f"flush the file to import {path!r:.200}") from error


@contextlib.contextmanager
def _looked_at(context: Context, repository: Repository, path: str, format: str, most: int) -> Iterator[ImageFile]:
    """What is seen of a file, which is durable, held open meanwhile, and no image of more than ``most`` bytes, nor, as
    far as it has to be unpacked to know, of more data than the storage of the repository has room for when it is empty.
    Its path is without links, which may mean another file when the import goes on."""
    try:
        path = context.doors.files.resolve(require_path(path))
    except OSError as error:
        raise from_os_error(error, f"find the file to import {path!r:.200}") from error
    with image_file.open_file(context.doors.files, path) as handle:
        _flush(handle, path)
        room = repository.space()[0] if packing_of(format) else MAX_IMAGE_BYTES
        file = image_file.inspect(context.doors.images, handle, path, format, most=most, most_data=room)
        if file.ends_early:
            image_file.require_sound(context.doors.images, file)
        elif isinstance(file.format, FileFormat):
            image_file.require_all_data(context.doors.images, file)
        yield file


def _from_file(context: Context, record: Record, file: ImageFile, data_bytes: int) -> Record | None:
    """Return the record of an import from this file; None where it speaks of it already, or is no import any more."""
    operation = record.operation
    if operation is None or operation.verb != "import" or operation.attempt is None:
        return None
    if (operation.path, operation.path_facts) == (file.path, file.identity):
        return None
    if operation.path_facts == file.identity:  # the same file: what was read of it counts
        return record._replace(operation=operation._replace(path=file.path))
    fresh = operation.attempt._replace(id=context.doors.ids.new_id())
    begun = operation._replace(
        path=file.path, path_facts=file.identity, data_bytes=data_bytes, attempt=fresh, cursor=0, made=""
    )
    return record._replace(operation=begun, scrap=(*record.scrap, operation.attempt), remarks=file.remarks)
