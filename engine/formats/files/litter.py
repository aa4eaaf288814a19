"""Leftovers in a repository of files: finding them in a scan, removing them after a fresh look.

A scan takes no lock, so what it names may be merely in progress. Removal therefore decides
again for each item, under the item's lease where it has one, and never by age.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Set

from engine.data.model import VolumeFormat
from engine.doors.files import Entry, Kind
from engine.errors import DiskwrightError, OutcomeUnknown, Overtaken, from_os_error, from_os_errors
from engine.formats.base import Litter, TagEntry, attempt_is_over
from engine.formats.files import layout
from engine.formats.files.tags import Tags
from engine.formats.files.tree import Tree
from engine.formats.files.uses import Use, surplus

TEMPORARY = "temporary"
OLD_GENERATION = "old-generation"
PROGRESS = "progress"
DIGEST = "digest"
LOST = "lost"
USE = "use"
FOREIGN = "foreign"


class LitterBox:
    """The leftovers of one repository."""

    def __init__(self, tree: Tree, tags: Tags) -> None:
        self._tree = tree
        self._tags = tags

    # -- finding

    def named(self, kind: str, names: Iterable[str]) -> list[Litter]:
        """Litter of one kind from paths inside the repository."""
        return [Litter(kind, _shown(name), self._size(name)) for name in names]

    def uses(self, uses: Iterable[Use], tags: dict[str, TagEntry], unlisted: Set[str]) -> list[Litter]:
        """Those that nothing needs. ``unlisted``: directories in which their tags may be all the same."""
        found = []
        for use in uses:
            if not surplus(use, tags.get(use.user), tags.get(use.subject)):
                continue
            if not {layout.tag_shard(use.user), layout.tag_shard(use.subject)} & unlisted:
                found.append(Litter(USE, use.path, 0, self._held(use.user) or self._held(use.subject)))
        return found

    def volumes(self) -> tuple[dict[str, VolumeFormat], list[Litter], list[tuple[str, str]]]:
        """All volumes by id, what else is there, and the directories that cannot be listed with the reason."""
        found: dict[str, VolumeFormat] = {}
        foreign: list[str] = []
        unlisted: list[tuple[str, str]] = []
        try:
            shards = self._tree.files.list_directory(self._tree.path("volumes"))
        except OSError as error:
            return {}, [], [("volumes", from_os_error(error, "list volumes").message)]
        for shard in shards:
            directory = f"volumes/{shard.name}"
            if shard.kind is not Kind.DIRECTORY or not layout.is_shard(shard.name):
                foreign.append(directory)
                continue
            try:
                listed = self._tree.files.list_directory(self._tree.path(directory))
            except OSError as error:
                unlisted.append((directory, from_os_error(error, f"list {directory}").message))
                continue
            for name, kind, _ in listed:
                parsed = layout.parse_volume_name(name, shard.name) if kind is Kind.FILE else None
                if parsed is None or found.setdefault(*parsed) is not parsed[1]:
                    foreign.append(f"{directory}/{name}")
        return found, self.named(FOREIGN, sorted(foreign)), unlisted

    def others(
        self, volumes: dict[str, VolumeFormat], tags: dict[str, TagEntry]
    ) -> tuple[list[Litter], list[tuple[str, str]]]:
        """Litter of the flat directories, and those of them that cannot be listed with the reason: they hold nothing
        that an image needs to be judged. Volumes and tags were listed before."""
        named = {ref.id for entry in tags.values() if entry.record for ref in entry.record.volumes()}
        kinds: dict[str, Callable[[str], str]] = {
            "progress": lambda name: self._progress_kind(name, tags),
            "digests": lambda name: self._digest_kind(name, volumes.keys() | named),
            "tmp": lambda name: TEMPORARY if layout.is_temporary(name) else FOREIGN,
            "lost": self._lost_kind,
        }
        found: list[Litter] = []
        unread: list[tuple[str, str]] = []
        for directory, kind_of in kinds.items():
            try:
                entries = self._tree.files.list_directory(self._tree.path(directory))
            except FileNotFoundError:
                continue  # told as missing
            except OSError as error:
                unread.append((directory, from_os_error(error, f"list {directory}").message))
                continue
            found += self._among(directory, entries, kind_of)
        return found, unread

    def _among(self, directory: str, entries: list[Entry], kind_of: Callable[[str], str]) -> Iterator[Litter]:
        """Litter of one directory; ``kind_of`` answers "" for what is in use."""
        for entry in sorted(entries):
            kind = kind_of(entry.name) if entry.kind is Kind.FILE else FOREIGN
            if kind:
                name = f"{directory}/{entry.name}"
                yield Litter(kind, _shown(name), self._size(name), self._busy(kind, entry))

    def _progress_kind(self, name: str, tags: dict[str, TagEntry]) -> str:
        parsed = layout.parse_progress_name(name)
        if parsed is None:
            return FOREIGN
        if attempt_is_over(tags.get(parsed[0]), parsed[1]) and self._over_now(*parsed):
            return PROGRESS
        return ""

    def _over_now(self, tag: str, epoch: int) -> bool:
        try:
            return attempt_is_over(self._tags.read(tag), epoch)
        except DiskwrightError:
            return False  # nothing may be concluded from what cannot be read

    def _digest_kind(self, name: str, needed: Set[str]) -> str:
        if layout.parse_volume_name(f"{name}.{VolumeFormat.RAW}") is None:
            return FOREIGN
        return DIGEST if name not in needed and self._volume_is_gone(name) else ""

    def _volume_is_gone(self, volume: str) -> bool:
        try:
            listed = {entry.name for entry in self._tree.list_shard(layout.volume_shard(volume))}
        except OSError:
            return False
        return not any(layout.volume_name(volume, format) in listed for format in VolumeFormat)

    def _lost_kind(self, name: str) -> str:
        if layout.parse_volume_name(name) is None:
            return FOREIGN
        return TEMPORARY if self._links(f"lost/{name}") > 1 else LOST

    def _links(self, name: str) -> int:
        """More than one: it was on its way to quarantine or back, and has its other name."""
        with contextlib.suppress(OSError):
            return self._tree.files.stat(self._tree.path(name)).links
        return 0

    def _held(self, tag: str) -> bool:
        try:
            return self._tree.leases.held(tag)
        except DiskwrightError:
            return True  # not known to be free

    def _busy(self, kind: str, entry: Entry) -> bool:
        try:
            if kind == TEMPORARY:
                lost = layout.parse_volume_name(entry.name)
                return self._tree.leases.held(lost[0] if lost else entry.name)
            if kind == PROGRESS:
                return self._tree.leases.held(entry.name[:32])
        except DiskwrightError:
            return True  # not known to be free
        return False

    def _size(self, name: str) -> int:
        with contextlib.suppress(OSError):
            return self._tree.files.stat(self._tree.path(name)).allocated
        return 0

    # -- removing

    def remove(self, items: Iterable[Litter]) -> int:
        """Remove each after a fresh look. Names are parsed again: they may come from another host."""
        removers = {
            TEMPORARY: self._remove_temporary,
            OLD_GENERATION: self._remove_old_generation,
            PROGRESS: self._remove_progress,
            DIGEST: self._remove_digest,
            LOST: self._remove_lost,
            USE: self._remove_use,
        }
        freed = 0
        touched = set()
        for item in items:
            remover = removers.get(item.kind)
            if remover is None:
                continue
            directory, _, name = item.name.rpartition("/")
            with from_os_errors(f"remove {item.name}"):
                gained = remover(directory, name)
            if gained is not None:
                freed += gained
                touched.add(directory)
        with from_os_errors("make a removal durable"):
            for directory in sorted(touched):
                self._tree.files.sync_directory(self._tree.path(directory))
        return freed

    def _unlink(self, directory: str, name: str) -> int | None:
        """Bytes given back, None when there is no such regular file."""
        path = self._tree.path(f"{directory}/{name}")
        try:
            stat = self._tree.files.stat(path)
            if stat.kind is not Kind.FILE:
                return None
            self._tree.files.unlink(path)
        except FileNotFoundError:
            return None
        return stat.allocated if stat.links == 1 else 0

    def _remove_temporary(self, directory: str, name: str) -> int | None:
        if directory == "lost":
            return self._remove_second_name(name)
        if directory != "tmp" or not layout.is_temporary(name):
            return None
        lease = self._tree.leases.try_acquire(name)
        if lease is None:
            return None
        try:
            # A second name means that it was linked before its writer died: that one counts, this one never does.
            return self._unlink(directory, name)
        finally:
            lease.release()

    def _remove_second_name(self, name: str) -> int | None:
        volume = layout.parse_volume_name(name)
        lease = self._tree.leases.try_acquire(volume[0]) if volume is not None else None
        if volume is None or lease is None:
            return None
        try:
            if self._links(f"lost/{name}") < 2:
                return None
            with contextlib.suppress(FileNotFoundError):
                self._tree.files.sync_directory(self._tree.path(layout.volume_shard(volume[0])))
            return self._unlink("lost", name)
        finally:
            lease.release()

    def _remove_old_generation(self, directory: str, name: str) -> int | None:
        parsed = layout.parse_tag_name(name, directory[-2:])
        if parsed is None or directory != layout.tag_shard(parsed[0]):
            return None
        newest = self._tags.read(parsed[0])
        if newest is None or newest.problem or parsed[1] not in self._tags.superseded(newest):
            return None
        # The newest may be seen and not yet be durable; it must be before what it replaces goes.
        self._tree.files.sync_directory(self._tree.path(directory))
        return self._unlink(directory, name)

    def _remove_use(self, directory: str, name: str) -> int | None:
        parsed = layout.parse_use_name(name, directory[-2:])
        if parsed is None or directory != layout.tag_shard(parsed[0]):
            return None
        use = Use(*parsed)
        lease = self._tree.leases.try_acquire(use.user if use.generation else use.subject)
        if lease is None:
            return None  # somebody may be about to need it
        try:
            with contextlib.suppress(FileNotFoundError, Overtaken, OutcomeUnknown):  # somebody does it, or needs it
                return 0 if self._tags.forget_use(use) else None
            return None
        finally:
            lease.release()

    def _remove_progress(self, directory: str, name: str) -> int | None:
        parsed = layout.parse_progress_name(name)
        if directory != "progress" or parsed is None:
            return None
        lease = self._tree.leases.try_acquire(parsed[0])
        if lease is None:
            return None  # somebody may be about to claim that epoch
        try:
            return self._unlink(directory, name) if self._over_now(*parsed) else None
        finally:
            lease.release()

    def _remove_digest(self, directory: str, name: str) -> int | None:
        is_digest = directory == "digests" and self._digest_kind(name, set()) == DIGEST
        return self._unlink(directory, name) if is_digest else None

    def _remove_lost(self, directory: str, name: str) -> int | None:
        return self._unlink(directory, name) if directory == "lost" and layout.parse_volume_name(name) else None


def _shown(name: str) -> str:
    # Strangers' names need not be UTF-8; ours are, so nothing that may be removed changes its name here.
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
