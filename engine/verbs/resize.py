"""resize_disk: a disk becomes longer, with all its snapshots below it as they are.

(1) the room of its volume, where volumes have all their room at once; (2) the volume; (3) the record says the new size:
the seal. Surplus is never missing: before the seal the disk has its old size, and where (2) is done check says that its
volume is longer (O-GROWN), and offers to go on to the end. So does the same verb again.
"""

from __future__ import annotations

from engine.data.model import aligned, require_id
from engine.data.records import Record, VolumeRef
from engine.errors import BadRequest, ImageBusy, Refused
from engine.formats.base import Repository
from engine.gate import gate
from engine.gate.gate import Purpose
from engine.tags import chains, changes, leasing, lengths, seen, sessions
from engine.tags.context import Context
from engine.verbs.commit import require_fits


def grow(context: Context, repo_id: str, disk: str, size: int) -> None:
    """Make a disk ``size`` bytes long, durable on return. Success when it is that long already."""
    repository = context.repository(repo_id)
    require_id(disk, "image_id")
    require_fits(repository, size)
    try:
        with leasing.take(context.doors, repository, [disk]):
            _grow(context, repository, disk, size)
    except ImageBusy as error:
        error.next_step += "; or, if a machine has it open here, say how to speak to it: diskwright attach"
        raise
    finally:
        context.deactivate()


def _grow(context: Context, repository: Repository, disk: str, size: int) -> None:
    record = changes.read(repository, disk).record
    if not record.strong:
        raise context.not_visible(repository, record)
    volume = may_grow(record, size)
    links = chains.usable(repository, record, grown=True)
    require_no_shorter(repository, record, volume, size)
    if size > record.size:
        sessions.close(context.doors, repository, disk)
        gate.require(repository, disk, volume, Purpose.REWRITE)
        chains.unchanged(repository, links)
        lengths.grow(context, repository, disk, volume, size)
    changes.change(repository, disk, lambda now: _noted(repository, longer(context, now, record, volume, size)))


def _noted(repository: Repository, record: Record | None) -> Record | None:
    return seen.noted(repository, record) if record is not None else None


def longer(context: Context, now: Record, before: Record, volume: VolumeRef, size: int) -> Record | None:
    """Return the record of a disk whose volume is ``size`` bytes long, None when it says so already. Refused when it is
    not what it was ``before``."""
    # We may have been frozen, and have lost our lease: whoever had it then may have made the disk longer still.
    if now.volume != volume or now.operation is not None or not now.strong or now.size not in (before.size, size):
        raise Refused(f"image {now.id} was changed at the same moment", "Look at its status and try again")
    if now.size == size:
        return None
    # What was copied or hashed of it is void.
    return now._replace(
        size=size,
        write_epoch=now.write_epoch + 1,
        content=context.doors.ids.new_id(),
        last=context.committed("resize"),
    )


def require_no_shorter(repository: Repository, record: Record, volume: VolumeRef, size: int) -> None:
    """Raise Refused when the volume of the disk is longer than ``size`` already."""
    have = chains.grown_to(record, volume, repository.volumes.facts(volume.id, volume.format))
    if aligned(size) < have:
        raise Refused(
            f"the volume of image {record.id} is {have} bytes long already (O-GROWN), and no disk is made shorter",
            "Ask for at least that, or run its fix",
        )


def may_grow(record: Record, size: int) -> VolumeRef:
    """Return the volume of a disk that can be made ``size`` bytes long. BadRequest, Refused."""
    if not record.mutable:
        raise Refused(f"image {record.id} is a snapshot", "A snapshot does not change: base a longer disk on it")
    if not record.whole or record.volume is None:
        raise Refused(f"image {record.id} is not complete", "Run its mend fix first")
    if record.operation is not None:
        raise Refused(f"image {record.id} has an unfinished {record.operation.verb}", "Run its fix first")
    if size < record.size:
        raise BadRequest(
            f"image {record.id} is {record.size} bytes long, and no disk is made shorter than it is: nothing here "
            "knows which bytes its machine can do without",
            "Make its file system smaller in the machine, and copy that into a new disk",
        )
    return record.volume
