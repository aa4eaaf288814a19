"""Opening, sealing, deleting and putting away volumes, each for a stated purpose.

A lease says who of us may do what; it does not say who uses the data. A machine outlives the process that had the lease
for it, and tools of others know no lease. So the data itself is asked: who has the volume open now? Whom a purpose
cannot bear is named, and nothing is done. The caller holds the leases; the gate asks after they were taken, so nobody
of us comes in between, and a machine that is told of the volume needs one.

Errors: ``ImageBusy`` naming who uses the data, ``Refused`` for a disk whose data a snapshot has by now (``owners``),
``Conflict`` while what a silent host wrote may still arrive, ``StorageError`` when it cannot be asked, and those of
``engine.formats.base.Volumes``.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from engine.data.model import VolumeFormat
from engine.data.records import Record, VolumeRef
from engine.doors import Doors
from engine.doors.files import Access
from engine.doors.images import Layer
from engine.doors.leases import Lease
from engine.doors.users import User, describe_users
from engine.errors import Conflict, DiskwrightError, ImageBusy, Refused, from_os_error
from engine.formats.adoption import Adoption
from engine.formats.base import Repository, unverified
from engine.gate import owners


class Purpose(StrEnum):
    """What a volume is wanted for."""

    READ = "read"
    """As a layer of an image, while its lease keeps it as it is."""
    FILL = "fill"
    """The volume of an attempt, which no image has as its data; a session's own lock keeps others out."""
    REWRITE = "rewrite"
    """A volume that an image has as its data: a merge into it, its header, its leaks, holes for its zeros."""
    SEAL = "seal"
    """The data does not change from here on."""
    REPLACE = "replace"
    """Another volume takes its place, and it is deleted."""
    HAND_OUT = "hand out"
    """To a machine, for writing."""
    LEND = "lend"
    """To a machine, for reading."""
    DELETE = "delete"
    PUT_AWAY = "put away"


class Rule(NamedTuple):
    """What must hold before a volume is used for a purpose."""

    readers: bool
    """Others may read it meanwhile."""
    writers: bool
    """Others may write to it meanwhile."""
    handed_out: bool
    """Somebody may have it handed out for writing, although its lease is free: the file of leases was replaced under a
    holder. What only reads below a machine, or keeps it from changing, is no such lock."""
    late: bool
    """A host that is silent may have writes under way that still arrive."""
    sealed: bool
    """It may be the data of a snapshot, although the record of a disk has it too."""
    wanted: bool
    """The disk whose snapshot it is may have an older record, which has it too."""


RULES = {
    Purpose.READ: Rule(readers=True, writers=True, handed_out=True, late=True, sealed=True, wanted=True),
    Purpose.FILL: Rule(readers=True, writers=True, handed_out=True, late=True, sealed=True, wanted=True),
    Purpose.REWRITE: Rule(readers=False, writers=False, handed_out=False, late=False, sealed=False, wanted=False),
    Purpose.REPLACE: Rule(readers=False, writers=False, handed_out=False, late=True, sealed=True, wanted=False),
    Purpose.SEAL: Rule(readers=True, writers=False, handed_out=False, late=False, sealed=False, wanted=True),
    Purpose.HAND_OUT: Rule(readers=True, writers=False, handed_out=True, late=False, sealed=False, wanted=True),
    Purpose.LEND: Rule(readers=True, writers=False, handed_out=False, late=True, sealed=True, wanted=True),
    Purpose.DELETE: Rule(readers=False, writers=False, handed_out=False, late=True, sealed=True, wanted=True),
    Purpose.PUT_AWAY: Rule(readers=False, writers=False, handed_out=False, late=True, sealed=True, wanted=True),
}


def require(repository: Repository, tag: str, volume: VolumeRef, purpose: Purpose) -> None:
    """Return if the volume of ``tag`` can be used for the purpose now, as far as the data itself tells. The caller
    holds the lease."""
    rule = RULES[purpose]
    if not rule.sealed:
        owners.require_own(repository, repository.tags.read(tag))
    if not rule.wanted:
        owners.require_unwanted(repository, repository.tags.read(tag), volume)
    if not rule.late:
        _nothing_under_way(repository, tag, volume)
    if not rule.handed_out and repository.volumes.guarded(volume):
        raise ImageBusy(
            f"image {tag} is prepared for writing by somebody who does not have its lease",
            "The file of leases was replaced under them (a restore): tear it down where it is prepared, then try again",
        )
    if rule.readers and rule.writers:
        return
    in_the_way = [user for user in users(repository, volume) if user.writes or not rule.readers]
    if in_the_way:
        raise in_use(tag, in_the_way)


def users(repository: Repository, volume: VolumeRef) -> list[User]:
    """Return who has the data open now; see ``engine.formats.base.Volumes.users``.

    Also who writes below it, where a snapshot was begun and its machine never told: what it writes there shows here."""
    found = repository.volumes.users(volume)
    entry = repository.tags.read(volume.parent) if volume.parent else None
    if entry is not None and entry.record is not None and unsealed(entry.record, volume):
        assert entry.record.volume is not None
        found = [*found, *(user for user in repository.volumes.users(entry.record.volume) if user.writes)]
    return found


def is_written(repository: Repository, volume: VolumeRef | None) -> bool:
    """Tell whether somebody has the data open for writing now. For whoever only looks: True where that cannot be
    asked."""
    try:
        return volume is not None and any(user.writes for user in users(repository, volume))
    except DiskwrightError:
        return True


def unsealed(below: Record, overlay: VolumeRef) -> bool:
    """Tell whether ``below`` is a snapshot that was begun with that overlay above it, and was not sealed."""
    operation = below.operation
    if below.strong or below.volume is None or operation is None or operation.verb != "create_snapshot":
        return False
    return operation.attempt is not None and operation.attempt.id == overlay.id


def in_use(tag: str, by: list[User], also: str = "") -> ImageBusy:
    """Return the error that names who uses the data of ``tag``; ``also`` ends its next step."""
    if all(not user.known for user in by) and (host := next((user.host for user in by), "")):
        return ImageBusy(
            f"whether host {host} uses the data of image {tag} is not known: its notes of what it has handed out are "
            "damaged",
            f"Run diskwright check on {host}: that notes anew what is active there. If that host has died the others "
            f"know it after some minutes: try again then{also}",
        )
    if host := next((user.host for user in by if user.host), ""):
        return ImageBusy(
            f"the data of image {tag} is in use by {describe_users(by)}, and its holder there has ended",
            f"Run diskwright check on {host}: that ends what nobody uses any more. A machine that runs there has to be "
            "stopped, or needs a new holder (prepare --take-over). If that host has died the others know it after some "
            f"minutes: try again then{also}",
        )
    return ImageBusy(
        f"the data of image {tag} is in use by {describe_users(by)}",
        f"Stop the machine or tool that has it open, then try again{also}",
    )


def hold(
    repository: Repository, tag: str, volume: VolumeRef, writable: bool, taken_over: bool = False, left: bool = False
) -> list[Lease]:
    """Keep the data of ``tag`` as a machine needs it that it is handed out to, as long as these are held, here or by a
    process that inherited them: active where it has to be, and locked in itself where it can be.

    ``taken_over``: that machine has it open already. ``left``: it is about to go on elsewhere, and nobody opens this
    one for writing from here on."""
    held: list[Lease] = []
    with contextlib.ExitStack() as undo:
        if repository.activation is not None:
            held.append(repository.activation.hold(volume, writable))
            undo.callback(held[-1].release)
            if left:
                held.append(repository.activation.shut(volume))
                undo.callback(held[-1].release)
        guard = repository.volumes.guard(volume, writable)
        if guard is not None:
            held.append(guard)
            undo.callback(guard.release)
        if not taken_over:
            require(repository, tag, volume, Purpose.HAND_OUT if writable else Purpose.LEND)
        undo.pop_all()
    return held


def lend_overlay(repository: Repository, tag: str, volume: VolumeRef) -> Layer:
    """Return the overlay of ``tag`` as its machine, which runs, is about to open it: a device is the machine's by
    then."""
    layer = open_layer(repository, tag, volume, Purpose.READ)
    if repository.activation is not None:
        repository.activation.hold(volume, True).release()  # it stays active as long as it was opened here
    return layer


def late_writer(repository: Repository, volume: VolumeRef) -> str:
    """Return the host whose writes to the volume may still arrive, "" for none."""
    return repository.volumes.late_writer(volume)


def _nothing_under_way(repository: Repository, tag: str, volume: VolumeRef) -> None:
    host = late_writer(repository, volume)
    if host:
        raise Conflict(
            f"host {host} used image {tag} and is not proven to have stopped: what it was writing may still arrive",
            "Try again when it is back, or was restarted; or, when it is certainly dead, say so on the manager: "
            f"diskwright srm take REPO --dead {host}",
        )


def open_layer(repository: Repository, tag: str, volume: VolumeRef, purpose: Purpose) -> Layer:
    """Return the volume of ``tag`` as a tool opens it; it is active from then on where volumes have to be."""
    require(repository, tag, volume, purpose)
    return repository.volumes.layer(volume)


def seal(doors: Doors, repository: Repository, tag: str, volume: VolumeRef) -> None:
    """Let the data of ``tag`` be what it is now: nobody writes, nothing shows behind the end of the image, and all of
    it is durable on return, also what a machine wrote that never flushed."""
    require(repository, tag, volume, Purpose.SEAL)
    if repository.extents is not None:
        repository.extents.freeze(volume, functools.partial(settle, doors))
    else:
        settle(doors, repository.volumes.layer(volume))


def settle(doors: Doors, layer: Layer) -> None:
    """Make durable what is seen in a volume: whoever wrote it may have died before a flush, and a tool that then finds
    nothing to change flushes nothing."""
    try:
        opened = doors.volume_groups.open_device if layer.device else doors.files.open
        with opened(layer.path, writable=True) as handle:
            handle.sync()
    except OSError as error:
        raise from_os_error(error, f"flush {layer.path}") from error


def make(
    repository: Repository,
    volume: VolumeRef,
    size: int,
    backing_format: VolumeFormat | None,
    verify: Callable[[], None] = unverified,
    filled: bool = False,
) -> None:
    """Create an empty volume that its record names already; see ``engine.formats.base.Volumes.make``."""
    repository.volumes.make(volume, size, backing_format, verify, filled)


def adoption(repository: Repository) -> Adoption:
    """Return how files become volumes of the repository as they are. Refused where they cannot."""
    if repository.adoption is None:
        raise Refused(
            f"nothing becomes a volume of {repository.place} as it is: several hosts share that, and another may use "
            "what this one takes",
            "Import it, which copies its data",
        )
    return repository.adoption


def take_in(
    repository: Repository, tag: str, volume: VolumeRef, path: str, inode: int, verify: Callable[[], None]
) -> None:
    """Give a file that nobody uses the name of the volume of ``tag`` too. ``verify`` raises unless the record still
    says that this is the caller's to do; what nobody names is not left then."""
    adoption(repository).take(path, volume)
    try:
        verify()
    except DiskwrightError:
        entry = repository.tags.read(tag)
        if entry is None or entry.tombstone or (entry.record is not None and volume not in entry.record.volumes()):
            repository.volumes.remove(volume.id, volume.format)
        raise
    adoption(repository).require_taken(path, inode, volume)
    require(repository, tag, volume, Purpose.REPLACE)


def let_go(repository: Repository, tag: str, volume: VolumeRef, path: str) -> None:
    """Take the file of the volume of ``tag`` the name that it had, if nobody uses it; see ``Adoption.let_go``."""
    require(repository, tag, volume, Purpose.REPLACE)
    adoption(repository).let_go(path, volume)


def give_back(repository: Repository, volume: VolumeRef, path: str, access: Access | None) -> None:
    """Have the file of a volume that is about to be deleted a name of others; see ``Adoption.give_back``."""
    adoption(repository).give_back(path, volume, access)


def delete(repository: Repository, tag: str, volume: VolumeRef) -> None:
    """Delete a volume that no image needs, and its digest list; durable on return, success when it is gone."""
    require(repository, tag, volume, Purpose.DELETE)
    repository.digests.remove(volume.id)
    repository.volumes.remove(volume.id, volume.format)


def put_away(repository: Repository, volume: str, format: VolumeFormat) -> None:
    """Move a volume that no record names into quarantine; durable on return."""
    require(repository, "that nobody knows", VolumeRef(volume, format, ""), Purpose.PUT_AWAY)
    repository.volumes.quarantine(volume, format)


def put_back(repository: Repository, tag: str, volume: VolumeRef) -> None:
    """Move the volume of ``tag`` out of quarantine; durable on return. The caller holds the lease."""
    repository.volumes.put_back(volume.id, volume.format)
