"""What the verbs that make an image have in common: limits, the status of a commit, a second look at the base."""

from __future__ import annotations

from engine.data.model import OperationStatus
from engine.data.options import Options
from engine.errors import BadRequest, DiskwrightError, NotFound, Refused
from engine.formats.base import Repository
from engine.tags import changes, target
from engine.tags.context import Context


def committed(context: Context, verb: str) -> OperationStatus:
    """The status of an operation whose intent was just committed."""
    return OperationStatus(verb, context.doors.ids.host_id, 0, 0, -1, "", context.doors.clock.wall(), "committed")


def require_fits(repository: Repository, size: int) -> int:
    """Return ``size`` if one image of the repository can have it, else raise BadRequest naming the limit."""
    limit = repository.constraints().max_image_bytes
    if size > limit:
        raise BadRequest(f"size {size} is over the {limit} bytes that {repository.place} can hold in one image")
    return size


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
    """Where the manager alone can make volumes, and nobody fills the new image now, make its volume: then any host can
    fill it. The caller holds its lease. What prevents it is no error of the verb, whose intent is on disk."""
    if not repository.managed or options.auto_fix:
        return
    try:
        target.make_ahead(repository, tag)
    except DiskwrightError:
        return  # check says what is missing, and who can do it
    finally:
        context.deactivate()
