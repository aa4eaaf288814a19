"""Tags as files: one immutable file per generation, the highest generation is the truth.

``publish`` is link(temporary, "<tag>.<next>"), sync of the directory, and a second listing.
The link arbitrates between hosts; the second listing is needed because the name of a
generation becomes free again when it is superseded, so a slow writer's link can succeed late.
Such a writer sees a higher generation there and must report an unknown outcome.

The generation before stays until the next one comes: the newest may be damaged, or gone, and then much of what it
said is still known. Nobody reads it before that. It gets another name once the newest is durable, so it never counts
again: when no newer one is there, that one is gone.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable
from typing import NamedTuple

from engine.data.model import require_id
from engine.data.records import (
    MAX_RECORD_BYTES,
    Record,
    encode,
    is_tombstone,
    next_generation,
    tombstone_generation,
)
from engine.data.uses import named
from engine.doors.files import Kind
from engine.errors import Damaged, Refused, StorageError, from_os_error, from_os_errors
from engine.formats.base import TagEntry
from engine.formats.files import layout
from engine.formats.files.layout import Generations, newest_of, superseded
from engine.formats.files.parts import Said
from engine.formats.files.tree import Temporary, Tree, is_gone
from engine.formats.files.uses import Use, Uses, surplus
from engine.formats.outcomes import outcome_unknown, overtaken, require_room, understood
from engine.tools.local.threads import collector_off, map_files

_LOOKS = 4
"""How often a listed name that cannot be found is listed again."""


class ShardOfTags(NamedTuple):
    """What one of the 256 directories holds. Names are paths inside the repository."""

    entries: list[TagEntry]
    older: list[str]
    """Generations that nothing needs, of tags whose newest one is readable."""
    foreign: list[str]
    uses: list[Use]
    name: str = ""
    problem: str = ""
    """Why it could not be listed."""


class _ShardAsRead(NamedTuple):
    """The same before anything is understood: that is not for the threads that read."""

    shard: str
    newest: list[tuple[str, int, bytes | OSError]]
    files: dict[str, Generations]
    foreign: list[str]
    uses: list[Use]
    problem: str = ""


class Tags:
    """The tags of one repository."""

    def __init__(self, tree: Tree, threads: bool, before_writing: Callable[[], None], said: Said) -> None:
        """``before_writing`` is called once, before the first change. ``said``: whether uses are entered."""
        self._said = said
        self.uses = Uses(tree)
        self._tree = tree
        self._before_writing: Callable[[], None] | None = before_writing
        self._threads = threads
        self._newest_read: dict[str, tuple[int, Record]] = {}

    @property
    def knows_users(self) -> bool:
        """Who uses a tag or a volume is entered (``uses``) for all records."""
        return self._said.found.uses

    # -- reading

    def read(self, tag: str) -> TagEntry | None:
        """Make one listing and one read, more where another host is changing the tag."""
        require_id(tag, "image")
        newest, problem = 0, "the record is listed but not found"
        for look in range(_LOOKS):
            with from_os_errors(f"list the generations of image {tag}"):
                generations = self._generations(tag)
            newest = newest_of(generations)
            if newest not in generations:  # a listing may miss names that change meanwhile
                if not look:
                    continue
                return self._with_before(_gone(tag, newest)) if newest else None
            content = self._fetch(self._path(tag, newest), newest)
            entry = _entry(tag, newest, content)
            if entry is not None:
                self._remember(tag, newest, entry.record)
                gap = newest - 1 not in generations and not is_tombstone(newest - 1)
                return self._with_before(entry._replace(gap=gap and not entry.tombstone))
            if isinstance(content, OSError) and content.errno == errno.ESTALE:
                problem = from_os_error(content, "read the record").message
        return TagEntry(tag, newest, None, problem, unreadable=True)

    def users(self, subject: str) -> dict[str, TagEntry]:
        """Make one listing, and read each tag that is entered; without entries read all records."""
        if not self.knows_users:
            return self.scan()
        require_id(subject, "subject")
        with from_os_errors(f"list what uses {subject}"):
            users = {use.user for use in self.uses.of(subject)}
        found = [self.read(user) for user in sorted(users - {subject})]
        return {entry.id: entry for entry in found if entry is not None}

    def scan(self) -> dict[str, TagEntry]:
        """Read all records; see ``shards`` for how."""
        with collector_off():
            shards = self.shards()
        for shard in shards:
            if shard.problem:
                raise StorageError(f"some records are not known: {shard.problem}", "Check the storage and try again")
        found = {entry.id: entry for shard in shards for entry in shard.entries}
        for tag in self.names() - found.keys():
            entry = self.read(tag)
            if entry is not None:
                found[tag] = entry
        return found

    def names(self) -> set[str]:
        """All tags by a second listing: the first may miss one whose names change meanwhile."""
        found = set()
        with from_os_errors("list the tags"):
            for shard in self._tree.files.list_directory(self._tree.path("tags")):
                if shard.kind is Kind.DIRECTORY and layout.is_shard(shard.name):
                    for entry in self._tree.files.list_directory(self._tree.path(f"tags/{shard.name}")):
                        parsed = layout.parse_tag_name(entry.name, shard.name)
                        if parsed is not None and entry.kind is Kind.FILE:
                            found.add(parsed[0])
        return found

    def shards(self) -> list[ShardOfTags]:
        """Read all shards. A slow (cold) storage is read by several threads, a fast one by this one.

        A shard that cannot be listed says so. StorageError when they cannot even be named.
        """
        with from_os_errors("list the tags"):
            entries = self._tree.files.list_directory(self._tree.path("tags"))
        shards = sorted(e.name for e in entries if e.kind is Kind.DIRECTORY and layout.is_shard(e.name))
        strangers = [f"tags/{e.name}" for e in entries if e.kind is not Kind.DIRECTORY or not layout.is_shard(e.name)]
        top = ShardOfTags([], [], strangers, [])
        read: Iterable[_ShardAsRead] = map(self._read_shard, shards)
        if self._threads:
            now = self._tree.doors.clock.monotonic
            read = map_files(self._read_shard, shards, lambda shard: len(shard.newest), now)
        return [top, *map(self._understood, read)]

    def _read_shard(self, shard: str) -> _ShardAsRead:
        files: dict[str, Generations] = {}
        foreign: list[str] = []
        uses: list[Use] = []
        directory = self._tree.path(f"tags/{shard}")
        try:
            listed = self._tree.files.list_directory(directory)
        except OSError as error:
            return _ShardAsRead(shard, [], {}, [], [], from_os_error(error, f"list tags/{shard}").message)
        for name, kind, _ in listed:
            parsed = layout.parse_tag_name(name, shard) if kind is Kind.FILE else None
            if parsed is None:
                use = layout.parse_use_name(name, shard) if kind is Kind.FILE and self._said.found.enters else None
                if use is not None:
                    uses.append(Use(*use))
                else:
                    foreign.append(f"tags/{shard}/{name}")
                continue
            tag, generation, before = parsed
            generations = files.setdefault(tag, {})
            generations[generation] = (*generations.get(generation, ()), before)
        content = []
        for tag, generations in files.items():
            generation = newest_of(generations)
            content.append(
                (tag, generation, self._fetch(f"{directory}/{layout.tag_name(tag, generation)}", generation))
            )
        return _ShardAsRead(shard, content, files, foreign, uses)

    def _understood(self, read: _ShardAsRead) -> ShardOfTags:
        entries = []
        for tag, generation, content in read.newest:
            entry = _entry(tag, generation, content) or self.read(tag)
            if entry is not None:
                entries.append(self._with_before(entry))
        older = self._superseded(read.shard, entries, read.files)
        return ShardOfTags(entries, older, read.foreign, read.uses, f"tags/{read.shard}", read.problem)

    @staticmethod
    def _superseded(shard: str, entries: list[TagEntry], files: dict[str, Generations]) -> list[str]:
        # Below a newest generation that cannot be read the older ones are evidence, not litter.
        several = [entry for entry in entries if not entry.problem and len(files.get(entry.id, ())) > 1]
        return [
            f"tags/{shard}/{layout.tag_name(entry.id, generation, before)}"
            for entry in sorted(several)
            for generation in sorted(superseded(entry.generation, files[entry.id]))
            for before in sorted(files[entry.id][generation])
        ]

    def _with_before(self, entry: TagEntry) -> TagEntry:
        """The same with the generation before it, if it is damaged and that one is intact."""
        if not entry.damaged or is_tombstone(entry.generation - 1):
            return entry
        content: bytes | OSError = b""
        for before in (True, False):
            content = self._fetch(self._path(entry.id, entry.generation - 1, before), entry.generation - 1)
            if not isinstance(content, OSError):
                break
        if isinstance(content, OSError):
            return entry
        return entry._replace(before=understood(entry.id, entry.generation - 1, content).record)

    def _fetch(self, path: str, generation: int) -> bytes | OSError:
        if is_tombstone(generation):
            return b""  # its name says it; what is in it does not matter
        try:
            return self._tree.files.read_file(path, MAX_RECORD_BYTES)
        except OSError as error:
            return error

    def _generations(self, tag: str) -> Generations:
        return self._beside(tag, tag).get(tag, {})

    def _beside(self, tag: str, prefix: str = "") -> dict[str, Generations]:
        """The generations of all tags in the directory of a tag; or of those whose names begin with ``prefix``."""
        found: dict[str, Generations] = {}
        for name, kind, _ in self._tree.list_shard(layout.tag_shard(tag), prefix):
            if name.startswith(prefix) and kind is Kind.FILE:
                parsed = layout.parse_tag_name(name, tag[:2])
                if parsed is not None:
                    generations = found.setdefault(parsed[0], {})
                    generations[parsed[1]] = (*generations.get(parsed[1], ()), parsed[2])
        return found

    def superseded(self, newest: TagEntry) -> list[int]:
        """Return the generations of a tag that nothing needs any more, given its newest one."""
        with from_os_errors(f"list the generations of image {newest.id}"):
            return superseded(newest.generation, self._generations(newest.id))

    def _newest(self, tag: str) -> int:
        return newest_of(self._generations(tag))

    # -- changing

    def publish(self, record: Record, expected: int) -> int:
        """Make two syncs: of the record, and of the directory that names it."""
        require_id(record.id, "image")
        content = encode(record)
        if len(content) > MAX_RECORD_BYTES:
            raise Refused(f"the record of image {record.id} would be {len(content)} bytes, over {MAX_RECORD_BYTES}")
        require_room(record.id, expected)
        before = self._before(record.id, expected)
        generation = self._put(
            record.id, expected, next_generation, content, lambda found: self._enter(record, before, found)
        )
        if self._said.found.enters:
            self._remember(record.id, generation, record)
            below = [self._newest_read[one][1] for one in record.parents() if one in self._newest_read]
            self.uses.published(record, before, generation, below)
        return generation

    def _enter(self, record: Record, before: Record | None, generation: int) -> None:
        if self._said.found.enters:
            self.uses.enter(record, before, generation, self.knows_users)

    def _remember(self, tag: str, generation: int, record: Record | None) -> None:
        if self._said.found.enters and record is not None:
            self._newest_read[tag] = generation, record

    def _before(self, tag: str, generation: int) -> Record | None:
        """The record that a generation of a tag has; None when there is none, or it is not known."""
        if not self._said.found.enters or not generation or is_tombstone(generation):
            return None
        known = self._newest_read.get(tag)
        if known is not None and known[0] == generation:
            return known[1]
        for before in (False, True):
            entry = _entry(tag, generation, self._fetch(self._path(tag, generation, before), generation))
            if entry is not None:
                return entry.record
        return None

    def settle(self, tag: str) -> None:
        """Sync the directory of the tag."""
        require_id(tag, "tag")
        with from_os_errors(f"make the record of image {tag} durable"), contextlib.suppress(FileNotFoundError):
            self._tree.files.sync_directory(self._tree.path(layout.tag_shard(tag)))

    def settle_all(self) -> None:
        """Sync those directories in which a tag has two generations that could both count: its newest may have been
        seen by nobody but a host that died before it was durable. A tag that has one such name is settled."""
        with from_os_errors("make the records durable"):
            for shard in self._tree.files.list_directory(self._tree.path("tags")):
                if shard.kind is Kind.DIRECTORY and layout.is_shard(shard.name):
                    directory = self._tree.path(f"tags/{shard.name}")
                    parsed = [
                        layout.parse_tag_name(e.name, shard.name) for e in self._tree.files.list_directory(directory)
                    ]
                    tags = [found[0] for found in parsed if found is not None and not found[2]]
                    if len(set(tags)) < len(tags):
                        self._tree.files.sync_directory(directory)

    def purge(self, tag: str, expected: int) -> None:
        """Publish an empty file. Make one listing more, for those that were published before and can end now."""
        require_id(tag, "image")
        if is_tombstone(expected):
            self._require_newest(tag, expected)
            return
        require_room(tag, expected)
        before, others = self._before(tag, expected), layout.tombstones(self._neighbours(tag))
        generation = self._put(tag, expected, tombstone_generation, b"")
        if self._said.found.enters:
            self._newest_read.pop(tag, None)
            self.uses.purged(tag, before, generation)
        if self.knows_users:
            self._end_tombstones(others, tag, generation)

    def forget_use(self, use: Use) -> bool:
        """Remove a use that is surplus, so that no late writer can come to need it: the newest generation of its user
        is one that does not need it and is of the use's generation or later, published for that where it is not; of
        one for a follower the subject is a tombstone. False when it is no surplus now."""
        tag = use.user if use.generation else use.subject
        entry = self.read(tag)
        if not surplus(use, entry, entry):
            return False
        self.settle(tag)
        generation = entry.generation if entry is not None else 0
        before = self._before(use.user, generation - 1) if use.generation and generation else None
        if max(use.generation, 1) > generation or (before is not None and use.subject in named(before)):
            self._say_again(tag, entry)
        self._tree.files.unlink(self._tree.path(use.path))
        return True

    def _say_again(self, tag: str, entry: TagEntry | None) -> None:
        """Publish what a tag is as its next generation; of one that never was, a tombstone."""
        if entry is not None and entry.record is not None:
            self.publish(entry.record, entry.generation)
            return
        expected = entry.generation if entry is not None else 0
        require_room(tag, expected)
        self._put(tag, expected, tombstone_generation, b"")

    def _put(
        self,
        tag: str,
        expected: int,
        after: Callable[[int], int],
        content: bytes,
        enter: Callable[[int], None] = lambda generation: None,
    ) -> int:
        """Publish as the generation ``after`` the expected one, and return it; ``enter`` is called with it before.

        The file in ``tmp`` is there before it is looked whether uses are entered, and whether the expected generation
        is the newest. So whoever finds none there knows that nobody goes on from what was there before: after a purge
        (``_end_tombstones``), or when uses were begun (``entering``)."""
        if self._before_writing is not None:
            self._before_writing()
            self._before_writing = None
        doing = f"write a record of image {tag}"
        with self._tree.from_os_errors(doing):
            if not expected:  # else whoever published that has made the directory durable before
                self._tree.ensure_shard(layout.tag_shard(tag))
            temporary = self._tree.write_temporary(layout.RECORD, content)
        try:
            with from_os_errors(doing):
                self._said.again()
            self._require_newest(tag, expected)
            generation = after(expected or self._beginning(tag))
            with self._tree.from_os_errors(doing):
                enter(generation)
            self._link(temporary, tag, expected, generation)
            self._put_aside(tag, generation, self._sealed(tag, generation))
        finally:
            self._tree.discard(temporary)
        return generation

    def _beginning(self, tag: str) -> int:
        """Return what a tag without a generation goes on from: the highest incarnation beside it, which is not below
        its own. So no name of a generation comes back: who removes one late removes none that counts."""
        return layout.beginning(self._neighbours(tag)) if self._said.found.enters else 0

    def _neighbours(self, tag: str) -> dict[str, Generations]:
        with from_os_errors(f"list the generations of image {tag}"):
            return self._beside(tag)

    def _end_tombstones(self, before: list[tuple[int, str]], tag: str, generation: int) -> None:
        """Remove the tombstones that stood alone ``before`` their directory was synced for that of ``tag``, but never
        the highest, if no record is being written: then nobody can go on from a generation below one of them, and what
        they outdated does not come back after a loss of power. Litter if it fails."""
        kept = max([*before, *layout.tombstones({tag: {generation: (False,)}})], default=None)
        with contextlib.suppress(OSError):
            listed = self._tree.files.list_directory(self._tree.path("tmp"))
            if not any(layout.is_temporary(entry.name, layout.RECORD) for entry in listed):
                for one in [one for one in before if one != kept]:
                    self._tree.files.unlink(self._path(one[1], one[0]))

    def _require_newest(self, tag: str, expected: int) -> None:
        with from_os_errors(f"list the generations of image {tag}"):
            newest = self._newest(tag)
        if newest != expected:
            raise overtaken(tag)

    def _link(self, temporary: Temporary, tag: str, expected: int, generation: int) -> None:
        """Give the record its name; returns only when the name is ours."""
        try:
            self._tree.files.link(temporary.path, self._path(tag, generation))
        except OSError as error:
            self._judge_failed_link(error, temporary, tag, expected, generation)

    def _judge_failed_link(
        self, error: OSError, temporary: Temporary, tag: str, expected: int, generation: int
    ) -> None:
        """On NFS a link whose first reply was lost reports EEXIST, or EIO, for our own success."""
        path = self._path(tag, generation)
        try:
            newest = self._newest(tag)  # the fresh listing also makes the look at the name fresh
            found = self._tree.files.stat(path)
        except FileNotFoundError:
            if error.errno == errno.EEXIST:
                raise overtaken(tag) from None
            raise from_os_error(error, f"write a record of image {tag}") from error
        except OSError:
            raise outcome_unknown(tag, f"linking it failed ({error.strerror})") from error
        if (found.inode, found.device) == (temporary.inode, temporary.device):
            return
        if newest == expected:
            raise Damaged(f"something that is no record is in the way at {path}", "Move it elsewhere") from error
        raise overtaken(tag) from None

    def _put_aside(self, tag: str, newest: int, generations: Generations) -> None:
        """Remove the older generations that nothing needs, and give the one before a name that says so. Litter if it
        fails; the newest is durable already."""
        gone = superseded(newest, generations)
        # Not in the order of a directory, which each has its own.
        for generation, before in sorted((one, name) for one, names in generations.items() for name in names):
            with contextlib.suppress(OSError):
                if generation in gone:
                    self._tree.files.unlink(self._path(tag, generation, before))
                elif generation < newest and not before:
                    self._tree.files.rename(self._path(tag, generation), self._path(tag, generation, True))

    def _sealed(self, tag: str, generation: int) -> Generations:
        """Make the linked name durable and see that it is the newest; return all that are there."""
        try:
            self._tree.files.sync_directory(self._tree.path(layout.tag_shard(tag)))
            generations = self._generations(tag)
        except OSError as error:
            raise outcome_unknown(tag, f"making it durable failed ({error.strerror})") from error
        if newest_of(generations) != generation:
            raise outcome_unknown(tag, "somebody else changed it at the same time")
        return generations

    def _path(self, tag: str, generation: int, before: bool = False) -> str:
        return self._tree.path(f"{layout.tag_shard(tag)}/{layout.tag_name(tag, generation, before)}")


def _entry(tag: str, generation: int, content: bytes | OSError) -> TagEntry | None:
    """One generation; None when its name was gone."""
    if isinstance(content, OSError):
        return _unread(tag, generation, content)
    if is_tombstone(generation):
        return TagEntry(tag, generation, None)
    return understood(tag, generation, content)


def _gone(tag: str, generation: int) -> TagEntry:
    return TagEntry(tag, generation, None, "its newest generation is gone, and the one before it is there", gone=True)


def _unread(tag: str, generation: int, error: OSError) -> TagEntry | None:
    if is_gone(error):
        return None
    if error.errno == errno.EFBIG:
        return TagEntry(tag, generation, None, f"the record is longer than {MAX_RECORD_BYTES} bytes")
    return TagEntry(tag, generation, None, from_os_error(error, "read the record").message, unreadable=True)
