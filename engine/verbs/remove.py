"""remove_image and restore_image: a changed record and nothing else.

Removal is arbitrated by the generation alone: it needs no lease, and an executor on that image
finds out at its next step. It destroys nothing; until a clean fix ran it can be undone.
"""

from __future__ import annotations

from engine.data.model import require_id
from engine.data.records import Record
from engine.errors import ImageBusy, Refused
from engine.gate import owners
from engine.tags import changes, leasing, seen
from engine.tags.attempt import with_cursor
from engine.tags.context import Context
from engine.tags.freeing import freeing


def remove(context: Context, repo_id: str, image: str) -> None:
    """Commit the removal; success when it was removed already. Refused while it is prepared for writing."""
    repository = context.repository(repo_id)
    require_id(image, "image_id")
    entry = repository.tags.read(image)
    if entry is not None and entry.tombstone:
        return

    def removed(record: Record) -> Record | None:
        if not record.strong:
            if record.removed is None:
                raise context.not_visible(repository, record)
            return None
        if record.prepared_by and repository.leases.held(image):
            raise ImageBusy(
                f"image {image} is in use: {leasing.holder(context.doors, repository, image)}",
                "Tear it down there first",
            )
        now = context.doors.clock.wall()
        return seen.in_next_epoch(with_cursor(repository, record))._replace(strong=False, removed=now)

    freeing(repository, lambda: changes.change(repository, image, removed))


def restore(context: Context, repo_id: str, image: str) -> None:
    """Undo a removal; success when the image is there. Refused once its deletion or merge has begun."""
    repository = context.repository(repo_id)
    require_id(image, "image_id")

    def restored(record: Record) -> Record | None:
        if record.strong:
            return None
        if record.removed is None:
            raise context.not_visible(repository, record)
        if record.purging:
            raise Refused(f"image {image} is being deleted", "It cannot come back; copy it from elsewhere")
        if record.absorber:
            raise Refused(
                f"image {image} was merged into {record.absorber}", "It cannot come back; copy it from elsewhere"
            )
        owners.require_nobody_elses(repository, record)  # its removal was allowed without asking
        return record._replace(strong=True, removed=None, absorbed_by="")

    changes.change(repository, image, restored)
