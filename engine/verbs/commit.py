"""What the verbs that make an image have in common: limits, the record of a new disk, a second look at the base."""

from __future__ import annotations

from typing import Any

from engine.data.amounts import human
from engine.data.model import Strategy, VolumeFormat, require_size
from engine.data.options import Options
from engine.data.records import Operation, Record
from engine.errors import BadRequest, DiskwrightError, NotFound, Refused
from engine.formats.base import Repository
from engine.tags import changes, target
from engine.tags.context import Context


def new_disk(context: Context, size: int, strategy: Strategy, operation: Operation, user_data: Any) -> Record:
    """Return the record of a virtual disk that ``operation`` is to make: with it published the disk is committed."""
    return Record(
        id=context.doors.ids.new_id(),
        strong=True,
        mutable=True,
        size=size,
        whole=False,
        volume=None,
        strategy=strategy,
        operation=operation,
        last=context.committed(operation.verb),
        user_data=user_data,
    )


def require_fits(repository: Repository, size: object) -> int:
    """Return ``size`` if one image of the repository can have it, else raise BadRequest, naming the limit there."""
    limit = repository.constraints().max_image_bytes
    if isinstance(size, int) and size > limit:
        raise BadRequest(
            f"size {size} is over the {limit} bytes ({human(limit)}) that {repository.place} can hold in one image"
        )
    return require_size(size)


def require_room(repository: Repository, format: VolumeFormat, size: int) -> None:
    """Return if a volume for an image of ``size`` bytes can be made here and now, as far as that is known before.
    Refused naming the manager, NoSpace."""
    if repository.extents is not None:
        repository.extents.require_room(format, size)


def require_base(repository: Repository, tag: str, base: str, asked: str, advice: str) -> None:
    """Return if ``base``, which ``tag`` was just based on, is still there; else take ``tag`` back and raise Refused.

    To be called after ``tag`` was published: who removes the base looks for dependants after that, so one of the two
    sees the other. ``asked``: the image that the user named, of which ``base`` may be a hidden freeze."""
    try:
        found = changes.read(repository, base).record
        gone = found.purging or bool(found.absorbed_by) or (base == asked and not found.strong)
    except NotFound:
        gone = True
    if gone:
        changes.change(repository, tag, lambda record: record._replace(strong=False, epoch=record.epoch + 1))
        raise Refused(f"the base {asked} was removed meanwhile", advice)


def ready_for_any_host(context: Context, repository: Repository, tag: str, options: Options) -> None:
    """Make the volume of the new image ``tag`` where the manager alone can and nobody fills it now: then any host can
    fill it. The caller holds its lease. What prevents that is no error of the verb, whose intent is on disk."""
    if repository.manager is None or options.auto_fix:
        return
    try:
        target.make_ahead(repository, tag)
    except DiskwrightError:
        return  # check says what is missing, and who can do it
    finally:
        context.deactivate()
