"""import_image: commit a new disk that is to be filled from an image file, whose state is noted in the record.

One published record is the seal. The data is moved by a fix (``engine.fixes.import_image``), which refuses a file that
is not the noted one any more, and checks all of it before it is an image. Here only what a few reads tell is refused:
that it is of another format, needs other files, or was cut off.
"""

from __future__ import annotations

from typing import Any

from engine.copying import image_file
from engine.data.model import Strategy, VolumeFormat, require_path, require_size
from engine.data.options import Options
from engine.data.records import Operation, VolumeRef, check_user_data
from engine.errors import BadRequest, from_os_error
from engine.tags import leasing
from engine.tags.context import Context
from engine.triage.health import wanted_format
from engine.verbs.commit import new_disk, ready_for_any_host, require_fits, require_room


def disk(context: Context, repo_id: str, path: str, format: str, user_data: Any, options: Options) -> str:
    """Commit the import of an image file as a new virtual disk and return its id."""
    repository = context.repository(repo_id)
    user_data = check_user_data(user_data)
    if format not in list(VolumeFormat):
        raise BadRequest(f"image format {format!r:.40} is unknown", "State raw or qcow2; it is never guessed")
    try:
        path = context.doors.files.resolve(require_path(path))  # a link may mean another file when the import goes on
    except OSError as error:
        raise from_os_error(error, f"find the file to import {path!r:.200}") from error
    with image_file.open_file(context.doors.files, path) as handle:
        file = image_file.inspect(handle, path, format)
    if file.ends_early:
        image_file.require_sound(context.doors.images, file)
    size = require_fits(repository, require_size(file.size))
    strategy = options.strategy or Strategy.SPACE
    require_room(repository, wanted_format(strategy), size)
    operation = Operation(
        "import",
        VolumeRef(context.doors.ids.new_id(), wanted_format(strategy), ""),
        path=path,
        path_facts=file.identity,
        source_format=format,
        data_bytes=image_file.data_bytes(context.doors.images, file),
        digest=options.digest,
    )
    record = new_disk(context, size, strategy, operation, user_data)._replace(remarks=file.remarks)
    with leasing.take(context.doors, repository, [record.id]):
        repository.tags.publish(record, 0)
        ready_for_any_host(context, repository, record.id, options)
    return record.id
