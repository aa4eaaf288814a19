"""Entering who needs whom (``uses``) for records that are there: what is missing; and in a repository that was made
before there were uses, all.

Such a repository goes through three states, told by what ``repository.json`` and its copy say that a program must know:

* nothing: nobody enters uses, and nobody believes them. Programs that know none work here.
* ``uses-begun``: whoever publishes a record enters all that it needs, and nobody believes what is entered.
* ``uses``: all is entered, and believed.

A writer has a file in ``tmp`` before he looks which state it is. So once the second state is durable in both files, and
each such file that was there is gone, no record comes any more that is not entered; what was published until then is
listed, and entered for it. A crash leaves the second state, in which everything works as before, and the fix goes on.

Programs that know no uses refuse the repository from then on; one that has it open is told that ``repository.json`` is
another file. The copy counts, so it comes first on the way to the second state, and last on the way to the third.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from engine.errors import ImageBusy, Refused, StorageError, from_os_errors
from engine.formats.base import TagEntry
from engine.formats.files import layout
from engine.formats.files.parts import Parts, Said
from engine.formats.files.tags import ShardOfTags, Tags
from engine.formats.files.tree import Tree
from engine.formats.files.uses import Use, everything, missing


def missing_uses(tags: Tags, shards: list[ShardOfTags]) -> Iterator[Use]:
    """Return what records of a scan need although nothing says so. Each is looked at again: the scan may have come
    to the record after it was published, and to what it needs before. Nothing is said of what cannot be listed or
    read."""
    for use in missing(_entries(shards), _entered(shards)):
        with contextlib.suppress(OSError, StorageError):
            entered = {(one.subject, one.user) for one in tags.uses.of(use.subject)}
            entry = tags.read(use.user) if (use.subject, use.user) not in entered else None
            if entry is not None:
                again = missing({use.user: entry}, entered)
                yield from [one for one in again if one.subject == use.subject]


def enter(tree: Tree, tags: Tags, said: Said, parts: Parts) -> None:
    """Enter what records need although nothing says so, or what all need. Durable; what is entered meanwhile does no
    harm. ImageBusy while a record is being written that may need something else, or somebody else does the same;
    Refused while a record cannot be understood or read."""
    if said.found.uses:
        with from_os_errors("enter who needs what"):
            tags.uses.enter_missing(list(missing_uses(tags, tags.shards())))
        return
    lease = tree.leases.try_acquire(said.found.identity)
    if lease is None:
        raise ImageBusy("somebody works on the names that say who needs whom", "Wait for it, and check again")
    try:
        with tree.from_os_errors("enter who needs what"):
            _through_the_states(tree, tags, said, parts)
    finally:
        lease.release()


def _through_the_states(tree: Tree, tags: Tags, said: Said, parts: Parts) -> None:
    if said.again().uses:
        return  # another host was faster
    begun = layout.encode_later(said.found, complete=False)
    parts.say(begun, layout.COPY_FILE, layout.IDENTITY_FILE)
    said.again()
    _end_writers(tree)
    _enter_all(tags)
    if said.again().text != begun:
        raise ImageBusy("somebody else has changed what the repository says of itself", "Check again")
    parts.say(layout.encode_later(said.found, complete=True), layout.IDENTITY_FILE, layout.COPY_FILE)
    said.again()


def _end_writers(tree: Tree) -> None:
    """Return when no record is published any more whose writer has not seen that it must be entered. Files of dead
    writers are removed, durably: a host that was taken for dead cannot give them a name any more."""
    for entry in tree.files.list_directory(tree.path("tmp")):
        if layout.is_temporary(entry.name, layout.RECORD):
            lease = tree.leases.try_acquire(entry.name)
            if lease is None:
                raise ImageBusy("somebody writes a record at this moment", "Try again")
            try:
                with contextlib.suppress(FileNotFoundError):
                    tree.files.unlink(tree.path(f"tmp/{entry.name}"))
            finally:
                lease.release()
    tree.files.sync_directory(tree.path("tmp"))


def _enter_all(tags: Tags) -> None:
    """Enter what all records need. Durable, and so are the records: else an older one, whose needs were not seen, could
    come back."""
    shards = tags.shards()
    found = _entries(shards)
    for tag in tags.names() - found.keys():
        entry = tags.read(tag)
        if entry is not None:
            found[tag] = entry
    bad = [f"tags/{shard.name} cannot be listed" for shard in shards if shard.problem]
    bad += [f"the record of image {tag} cannot be understood" for tag, entry in found.items() if entry.problem]
    if bad:
        raise Refused(f"it is not known what all images need: {bad[0]}", "Repair it, or give it up, first")
    tags.uses.enter_missing(everything(found))  # seen or not: who entered it may have died before it was durable
    tags.settle_all()


def _entries(shards: list[ShardOfTags]) -> dict[str, TagEntry]:
    return {entry.id: entry for shard in shards for entry in shard.entries}


def _entered(shards: list[ShardOfTags]) -> set[tuple[str, str]]:
    return {(use.subject, use.user) for shard in shards for use in shard.uses}
