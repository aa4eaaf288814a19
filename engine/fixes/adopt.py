"""Finish an adoption: the file gets the name of the volume beside its own, is checked, loses its own, and is sealed.

Nothing is copied and nothing in the file is changed. It has a name at every moment: until the last but one step its
old one, from the first one on that of the volume, which the record has. So any host goes on, and who gives the image
up gives the file back (``engine.fixes.clean``). Only a file that was named on this host is touched, whatever a record
says.
"""

from __future__ import annotations

import contextlib

from engine.copying import image_file
from engine.data.records import Operation, Record, VolumeRef
from engine.doors.files import Stat
from engine.errors import DiskwrightError, Refused, from_os_errors
from engine.formats.adoption import Source
from engine.formats.base import Repository
from engine.gate import gate
from engine.gate.gate import Purpose
from engine.tags import chains, changes, imports, target
from engine.tags.attempt import Attempt, unfinished
from engine.tags.context import Context


def resume(context: Context, repository: Repository, tag: str) -> None:
    """Finish the adopted image ``tag``, from wherever the last attempt got. The caller holds its lease."""
    with Attempt(context, repository, tag, "adopt", ("take in", "check", "take over")) as attempt:
        _adopt(attempt, attempt.take_over())


def _adopt(attempt: Attempt, record: Record) -> None:
    operation = unfinished(record, "adopt")
    repository, notes = attempt.repository, attempt.context.imports
    volume = target.attempt_of(record)[0]
    if volume.parent:
        chains.load(repository, changes.read(repository, volume.parent).record)
    path = operation.path if imports.is_named(notes, repository.identity, record) else ""
    if not gate.adoption(repository).taken(volume):
        named = imports.require_named(notes, repository.identity, attempt.tag, operation)
        with from_os_errors(f"look at the file to adopt {path!r:.200}"):
            _require_same(path, gate.adoption(repository).stat(path), named.facts)
        attempt.stage("take in")
        gate.take_in(repository, attempt.tag, volume, path, image_file.inode_of(named.facts), attempt.check)
    attempt.stage("check")
    _require_sound(attempt, record, operation, volume)
    attempt.stage("take over")
    gate.let_go(repository, attempt.tag, volume, path)
    attempt.finish(target.sealed)
    with contextlib.suppress(DiskwrightError):  # only litter
        gate.adoption(repository).forget(volume)
    notes.forget_file(repository.identity, attempt.tag)


def _require_same(path: str, found: Stat, facts: tuple[int, ...]) -> None:
    """Return if a file is as it was when its adoption began."""
    if image_file.identity_of(found) != image_file.known_by(facts):
        raise Refused(
            f"the file {path!r:.200} is not the one that the adoption began with, or was written to since",
            "Remove the image and clean it away, which leaves the file where it is; then adopt again",
        )


def _require_sound(attempt: Attempt, record: Record, operation: Operation, volume: VolumeRef) -> None:
    """Return if the volume is durable, can be used as it is, and has not changed since its adoption began, nor while
    all of its tables were read."""
    repository, doors = attempt.repository, attempt.context.doors
    layer = gate.open_layer(repository, attempt.tag, volume, Purpose.REPLACE)
    gate.settle(doors, layer)
    with (
        from_os_errors(f"read volume {volume.id}"),
        gate.adoption(repository).open_volume(volume, layer.path) as handle,
    ):
        before = handle.stat()
        _require_same(operation.path, before, operation.path_facts)
        _require_fit(attempt, handle, layer.path, volume)
        after = handle.stat()
    if (image_file.identity_of(before), before.ctime_ns) != (image_file.identity_of(after), after.ctime_ns):
        raise Refused(f"volume {volume.id} was changed while it was checked", "Run the fix again when nobody writes")
    facts = repository.volumes.facts(volume.id, volume.format)
    if problem := facts.problem or chains.contradiction(record, volume, facts):
        raise Refused(f"the adopted file is not what the adoption began with: {problem}", _GIVE_UP)


def _require_fit(attempt: Attempt, handle: Source, path: str, volume: VolumeRef) -> None:
    file = image_file.as_volume(handle, path, volume.format)
    if file.header is not None and (file.header.backing_name is not None) != bool(volume.parent):
        raise Refused(f"{path} stands on another file than when its adoption began", _GIVE_UP)
    image_file.require_sound(attempt.context.doors.images, file)


_GIVE_UP = "Remove the image and clean it away: its file keeps, or gets, the name that it had"
