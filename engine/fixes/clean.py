"""Clean: delete what no image needs, under its lease, after a second look.

The order for a tag is: publish ``purging``; look for dependants once more; publish that it is ``destroyed`` (no way
back from here: its volumes are scrap); delete the volumes, then the small files, then replace the record by a
tombstone. A crash leaves one of these records, and the same fix goes on where it was.

Two steps, because on a shared storage whoever executes this may freeze anywhere, lose its lease and go on late. Until
the second step nothing is deleted and others may take the deletion back; the second step counts only on top of the
very generation that the look at the dependants was made under. After it no record will ever name these volumes
again, so an unlink may come as late as it likes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container

from engine.copying import image_file
from engine.data.model import VolumeFormat, is_id
from engine.data.records import Record
from engine.errors import Conflict, NotFound, Refused, StaleFix
from engine.fixes.dependants import around, named_elsewhere, of, settle, standing_on
from engine.formats.base import Litter, Repository, TagEntry
from engine.gate import gate
from engine.gate.gate import Purpose
from engine.tags import changes, imports
from engine.tags.attempt import with_cursor
from engine.tags.context import Context
from engine.triage.view import strong_above


def tag(context: Context, repository: Repository, target: str) -> None:
    """Delete a weak tag that nothing depends on, with its volumes. A file whose adoption has not ended is given back
    before. The caller holds its lease."""

    def purging(record: Record) -> Record | None:
        if record.strong:
            raise StaleFix(f"image {target} is in use again", "Check again")
        return None if record.purging else record._replace(purging=True, epoch=record.epoch + 1)

    before = changes.read(repository, target).record
    begun = before.purging
    if begun and before.strong:  # its snapshot was sealed meanwhile
        changes.change(repository, target, _taken_back)
        return
    _require_unused(repository, target, before)
    changes.change(repository, target, purging)
    found = changes.read(repository, target)
    if not found.record.purging:
        raise StaleFix(f"the deletion of image {target} was taken back", "Check again")
    _stop_snapshot(repository, found.record)
    # Whoever bases something on this tag publishes first and looks at us afterwards; we
    # published first and look at them now: at least one of the two sees the other.
    tags = repository.tags.users(target)
    dependants = of(tags, found.record)
    if found.record.destroyed:
        _only_unfinished(tags, dependants, target)
    elif dependants:
        changes.change(repository, target, _taken_back)
        if begun:
            return  # taking an interrupted deletion back is what was left to do
        raise StaleFix(f"image {dependants[0]} depends on {target} now", "Check again")
    _give_back(context, repository, found.record)
    delete(repository, target, found)
    context.imports.forget_file(repository.identity, target)


def _give_back(context: Context, repository: Repository, record: Record) -> None:
    """Have the file that this purging tag was to adopt a name of its owner's: what is deleted then is another one."""
    operation = record.operation
    if operation is not None and operation.verb == "adopt" and operation.attempt is not None:
        named = imports.is_named(context.imports, repository.identity, record)
        path, facts = (operation.path, operation.path_facts) if named else ("", ())
        gate.give_back(repository, operation.attempt, path, image_file.access_in(facts))


def _require_unused(repository: Repository, target: str, record: Record, spared: Container[str] = ()) -> None:
    """Return if nobody has the volumes open that are to be deleted; before the deletion counts, so that an image that a
    machine uses can be restored. ImageBusy naming who has one open."""
    for volume in record.volumes() if not record.destroyed else ():
        if volume.id not in spared:
            gate.require(repository, target, volume, Purpose.DELETE)


def _taken_back(record: Record) -> Record | None:
    return None if record.destroyed else record._replace(purging=False)


def _stop_snapshot(repository: Repository, record: Record) -> None:
    """Change the disk that this unfinished snapshot is of: whoever began it may be frozen before it moves the disk onto
    it, and must find out."""
    operation = record.operation
    if operation is None or operation.verb != "create_snapshot":
        return

    def passed(disk: Record) -> Record | None:
        return with_cursor(repository, disk)._replace(epoch=disk.epoch + 1) if disk.volume == record.volume else None

    with contextlib.suppress(NotFound):
        changes.change(repository, operation.other, passed)


def _only_unfinished(tags: dict[str, TagEntry], dependants: list[str], target: str) -> None:
    """Return if all dependants are unfinished: they came after the point of no return, have not used the data, and will
    fetch the base anew. Else raise Refused."""
    for tag in dependants:
        record = tags[tag].record
        if record is None or record.whole:
            raise Refused(f"image {tag} needs image {target}, whose data was given up", "Keep what is left of it")


def destroyed(record: Record, shared: Container[str] = ()) -> Record:
    """Return the record of a purging tag that has no data any more: its volumes are scrap, but for those in ``shared``,
    which are others' alone from here on: what tells whose they are is not in the record any more."""
    scrap = tuple(dict.fromkeys(volume for volume in record.volumes() if volume.id not in shared))
    return record._replace(purging=True, volume=None, operation=None, scrap=scrap, evidence=())


def delete(repository: Repository, target: str, found: changes.Tag) -> None:
    """Delete the volumes that only this purging tag names, its small files, and its record. Overtaken when the tag
    was changed since ``found`` was read: then nothing is deleted, or what was deleted is nobody's."""
    record, generation = found.record, found.generation
    assert record.purging
    others = around(repository, record)
    shared = named_elsewhere(others, target)
    settle(repository, target, others)
    if not record.destroyed:
        _require_unused(repository, target, record, shared)
        record = destroyed(record, shared)
        generation = repository.tags.publish(record, generation)
    for volume in record.scrap:
        if volume.id not in shared:
            gate.delete(repository, target, volume)
    repository.progress.remove(target, record.epoch)
    repository.progress.remove(target, record.epoch - 1)
    repository.tags.purge(target, generation)


def leftovers(repository: Repository, target: str, kind: str) -> None:
    """Delete what a whole image keeps besides its volume: scrap, evidence, or a given-up attempt.

    The record stops naming a volume only after it is gone."""
    record = changes.read(repository, target).record
    if kind == "attempt":
        if record.operation is None or not record.whole:
            raise StaleFix(f"image {target} has no attempt to give up", "Check again")
        attempt, target_volume = record.operation.attempt, record.operation.target

        def given_up(record: Record) -> Record:
            if record.operation is None or record.operation.target != target_volume:
                raise StaleFix(f"image {target} has another attempt now", "Check again")
            scrap = (*record.scrap, attempt) if attempt is not None and attempt != record.volume else record.scrap
            return record._replace(operation=None, scrap=scrap, epoch=record.epoch + 1)

        record = changes.change(repository, target, given_up)
        kind = "scrap"
    gone = record.scrap if kind == "scrap" else record.evidence
    others = around(repository, record)
    shared = named_elsewhere(others, target)
    settle(repository, target, others)
    for volume in gone:
        if volume.id not in shared and volume != record.volume:
            gate.delete(repository, target, volume)

    def forgotten(record: Record) -> Record:
        if kind == "scrap":
            return record._replace(scrap=tuple(volume for volume in record.scrap if volume not in gone))
        return record._replace(evidence=tuple(volume for volume in record.evidence if volume not in gone))

    changes.change(repository, target, forgotten)


def litter(repository: Repository, kinds: tuple[str, ...]) -> int:
    """Delete small leftovers that are there now; each is looked at afresh by the format. Returns bytes freed."""
    return repository.litter.remove(item for item in repository.scan().litter if item.kind in kinds)


def lost(repository: Repository, name: str) -> int:
    """Delete one quarantined volume for good. StaleFix when it is not in quarantine, Conflict while somebody has it
    open or may still write to it."""
    items = _quarantined(repository, name)
    if not items:
        raise StaleFix(f"{name!r:.100} is not in quarantine any more", "Check again")
    freed = repository.litter.remove(items)
    if not freed and _quarantined(repository, name):
        raise Conflict(
            f"{name!r:.100} is in use, or a silent host may still write to it: it stays in quarantine",
            "Stop what has it open, then run this again",
        )
    return freed


def _quarantined(repository: Repository, name: str) -> list[Litter]:
    return [item for item in repository.scan().litter if item.kind == "lost" and item.name == name]


def unnamed(repository: Repository, volume: str, format: str) -> None:
    """Move a volume that no record names into quarantine, after looking once more."""
    if not is_id(volume) or format not in list(VolumeFormat):
        raise StaleFix("this fix names no volume", "Check again")
    if volume in named_elsewhere(repository.tags.scan(), ""):
        raise StaleFix(f"volume {volume} is named by a record now", "Check again")
    repository.tags.settle_all()
    gate.put_away(repository, volume, VolumeFormat(format))


def damaged_record(repository: Repository, target: str) -> None:
    """Give a damaged record up: a tombstone replaces it, its volumes become unnamed (none is deleted)."""
    entry = repository.tags.read(target)
    if entry is None or entry.tombstone:
        return
    if not entry.damaged:
        raise StaleFix(f"the record of {target} can be read, or cannot be judged, now", "Check again")
    tags = repository.tags.scan()
    above = strong_above(target, lambda tag: standing_on(tags, tag), lambda tag: tags[tag].record)
    if above:
        raise Refused(f"image {above} depends on {target}", "Remove it first, or mend the record")
    repository.tags.purge(target, entry.generation)
