"""A repository of files: everything that localfs and NFS have in common.

See ``files_layout`` for what is where. A format adds what its kind of storage can do.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable

from engine.data.model import ALIGNMENT_BYTES, MAX_IMAGE_BYTES, Constraints, VolumeFormat, aligned, require_id
from engine.data.records import Record, VolumeRef
from engine.doors import Doors
from engine.doors.files import Abilities, FileHandle, Kind, Stat
from engine.doors.images import Layer
from engine.doors.leases import Lease
from engine.errors import Damaged, StorageError, from_os_error
from engine.formats.base import Litter, Scan, TagEntry, VolumeFacts, backing_name, unverified
from engine.formats.files import layout
from engine.formats.files.litter import FOREIGN as FOREIGN_LITTER
from engine.formats.files.litter import OLD_GENERATION, LitterBox
from engine.formats.files.tags import Tags
from engine.formats.files.tree import Tree, doing, is_gone, kind_text
from engine.formats.files.unmanaged import Unmanaged
from engine.tools.local.threads import collector_off
from engine.tools.qemu.qcow2 import HEADER_READ_BYTES, Header, fresh_image, parse_header

MAX_DIGEST_BYTES = 256 * 1024 * 1024
"""Longest digest list read: enough for an image of 16 TiB."""

_FIRST_READ_BYTES = 4096
_NOTHING_SPECIAL = Abilities(direct_io=False, reflink=False, hole_punching=False, max_file_bytes=MAX_IMAGE_BYTES)


class FileStore(Unmanaged):
    """An open repository of files. Stateless but for caches: any number may be open at once."""

    type_name: str
    shared: bool
    """Several hosts may have it connected at once."""
    fencing: str
    read_errors_count: bool

    def __init__(self, doors: Doors, root: str, found: layout.Identity, threads: bool = True) -> None:
        """``threads``: a scan may use some when the storage is slow."""
        self._tree = Tree(doors, root)
        self._files = doors.files
        self._tags = Tags(self._tree, threads)
        self._litter = LitterBox(self._tree, self._tags)
        self._found = found
        self._abilities: Abilities | None = None

    def constraints(self) -> Constraints:
        """What ``abilities`` found, and what the format says."""
        can = self.abilities()
        return Constraints(
            needs_srm=False,
            alignment_bytes=ALIGNMENT_BYTES,
            max_image_bytes=min(MAX_IMAGE_BYTES, can.max_file_bytes),
            direct_io=can.direct_io,
            reflink=can.reflink,
            hole_punching=can.hole_punching,
            discard=can.hole_punching,
            write_zeroes=can.hole_punching,
            shared=self.shared,
            fencing=self.fencing,
        )

    def abilities(self) -> Abilities:
        """What the storage can do, tried out at the first call with a file in ``tmp``. Where that is impossible
        (full, or read-only) the answer is that it can do nothing special, and the next call tries again."""
        if self._abilities is None:
            path, lease = self._tree.claim_temporary("probe")
            try:
                self._abilities = self._files.probe(path)
            except OSError:
                return _NOTHING_SPECIAL
            finally:
                lease.release()
        return self._abilities

    @property
    def format(self) -> str:
        """Type and the version that is on disk."""
        return f"{self.type_name}-{self._found.version}"

    @property
    def identity(self) -> str:
        """From ``repository.json``."""
        return self._found.identity

    @property
    def place(self) -> str:
        """The directory."""
        return self._tree.root

    def space(self) -> tuple[int, int]:
        """Of the file system."""
        with doing("ask for the space of the repository"):
            space = self._files.space(self._tree.root)
        return space.total_bytes, space.free_bytes

    # -- tags

    def scan(self) -> Scan:
        """Volumes first, then tags, then the rest. Neither a damaged record nor a directory that cannot
        be listed stops it; StorageError when not even the directories can be named."""
        with collector_off():
            return self._scan()

    def _scan(self) -> Scan:
        volumes, litter, unlisted = self._litter.volumes()
        shards = self._tags.scan()
        unlisted += [(shard.name, shard.problem) for shard in shards if shard.problem]
        tags = {entry.id: entry for shard in shards for entry in shard.entries}
        for shard in shards:
            litter += self._litter.named(OLD_GENERATION, shard.older)
            litter += self._litter.named(FOREIGN_LITTER, shard.foreign)
        return Scan(volumes, tags, litter + self._litter.others(volumes, tags), tuple(unlisted))

    def scan_tags(self) -> dict[str, TagEntry]:
        """As ``scan``, without the rest."""
        with collector_off():
            shards = self._tags.scan()
        for shard in shards:
            if shard.problem:
                raise StorageError(f"some records are not known: {shard.problem}", "Check the storage and try again")
        return {entry.id: entry for shard in shards for entry in shard.entries}

    def read_tag(self, tag: str) -> TagEntry | None:
        """One listing and one read."""
        return self._tags.read(require_id(tag, "image"))

    def publish(self, record: Record, expected: int) -> int:
        """Two syncs: the record, and the directory that names it."""
        require_id(record.id, "image")
        return self._tags.publish(record, expected)

    def settle(self, tag: str) -> None:
        """Sync of the tag's directory."""
        self._tags.settle(require_id(tag, "tag"))

    def settle_all(self) -> None:
        """Sync of those directories in which a tag has two generations."""
        self._tags.settle_all()

    def purge_tag(self, tag: str, expected: int) -> None:
        """As ``publish``, of an empty file."""
        self._tags.purge(require_id(tag, "image"), expected)

    # -- volumes

    def volume_facts(self, volume: str, format: VolumeFormat, listing: object = None) -> VolumeFacts:
        """One ``stat`` of a raw volume; one open and 4 KiB of a qcow2."""
        path = self._volume_path(volume, format)
        try:
            return self._look(path, volume, format)
        except OSError as error:
            if is_gone(error):
                return self._absent(volume, format)
            if error.errno in (errno.ELOOP, errno.EINVAL, errno.ENXIO):
                return self._not_a_file(path, volume, format, error)
            return self._unreadable(volume, format, error)

    def _look(self, path: str, volume: str, format: VolumeFormat) -> VolumeFacts:
        if format is VolumeFormat.RAW:
            stat = self._files.stat(path)
            problem = "" if stat.kind is Kind.FILE else f"it is {kind_text(stat.kind)}, not a file"
            return VolumeFacts(volume, format, True, stat.size, stat.allocated, None, problem)
        with self._files.open(path) as handle:
            stat = handle.stat()
            header, problem = _header(handle, stat)
        return VolumeFacts(volume, format, True, stat.size, stat.allocated, header, problem)

    def _absent(self, volume: str, format: VolumeFormat) -> VolumeFacts:
        name = layout.volume_name(volume, format)
        try:
            listed = any(entry.name == name for entry in self._tree.list_shard(layout.volume_shard(volume)))
        except OSError as error:
            return self._unreadable(volume, format, error)
        if listed:  # on NFS it may just have come; nothing may be concluded
            return VolumeFacts(volume, format, True, problem="it is listed but not found", unreadable=True)
        return VolumeFacts(volume, format, False)

    def _not_a_file(self, path: str, volume: str, format: VolumeFormat, error: OSError) -> VolumeFacts:
        try:
            kind = self._files.stat(path).kind
        except OSError as second:
            return self._unreadable(volume, format, second)
        if kind is Kind.FILE:
            return self._unreadable(volume, format, error)
        return VolumeFacts(volume, format, True, problem=f"it is {kind_text(kind)}, not a file")

    @staticmethod
    def _unreadable(volume: str, format: VolumeFormat, error: OSError) -> VolumeFacts:
        return VolumeFacts(volume, format, True, problem=from_os_error(error, "read it").message, unreadable=True)

    def make_volume(
        self,
        volume: VolumeRef,
        size: int,
        backing_format: VolumeFormat | None,
        verify: Callable[[], None] = unverified,
        filled: bool = False,
    ) -> None:
        """Two syncs: the file, and the directory that names it. A file that grows shows zeros, ``filled`` or not."""
        assert volume.format is VolumeFormat.QCOW2 or not volume.parent, "a raw volume has no parent"
        path = self._volume_path(volume.id, volume.format)
        shard = layout.volume_shard(volume.id)
        with doing(f"make volume {volume.id}"):
            self._tree.ensure_shard(shard)
            with self._empty_file(path, verify) as handle:
                _write_empty(handle, volume, aligned(size), backing_format)
                handle.sync()
            self._files.sync_directory(self._tree.path(shard))

    def remove_volume(self, volume: str, format: VolumeFormat) -> None:
        """One unlink and one sync, the latter also when another had unlinked it before."""
        path = self._volume_path(volume, format)
        with doing(f"delete volume {volume}"):
            with contextlib.suppress(FileNotFoundError):
                self._files.unlink(path)
            self._sync_if_there(layout.volume_shard(volume))

    def quarantine_volume(self, volume: str, format: VolumeFormat) -> None:
        """It has both names for a moment and never none."""
        path = self._volume_path(volume, format)
        target = self._tree.path(f"lost/{layout.volume_name(volume, format)}")
        with doing(f"move volume {volume} to lost"):
            try:
                self._link_lost(path, target)
            except FileNotFoundError:
                self._files.stat(target)  # gone to there already, or an error
            self._files.sync_directory(self._tree.path("lost"))
            with contextlib.suppress(FileNotFoundError):
                self._files.unlink(path)
            self._sync_if_there(layout.volume_shard(volume))

    def _link_lost(self, path: str, target: str) -> None:
        try:
            self._files.link(path, target)
        except FileExistsError:
            ours, there = self._files.stat(path), self._files.stat(target)
            if (ours.inode, ours.device) != (there.inode, there.device):
                raise

    def layer(self, volume: VolumeRef) -> Layer:
        """The path, if it is a regular file now. StorageError or Damaged otherwise."""
        path = self._volume_path(volume.id, volume.format)
        with doing(f"open volume {volume.id}"):
            kind = self._files.stat(path).kind
        if kind is not Kind.FILE:
            raise Damaged(f"volume {path} is {kind_text(kind)}, not a file")
        return Layer(path, volume.format)

    # -- progress

    def start_progress(self, tag: str, epoch: int) -> None:
        """Really written zeros, so that a line can be written when the storage is full."""
        path = self._progress_path(tag, epoch)
        with doing(f"start the progress log of image {tag}"):
            with self._create_anew(path) as handle:
                handle.write_at(0, bytes(layout.PROGRESS_BYTES))
                handle.sync()
            self._files.sync_directory(self._tree.path("progress"))

    def write_progress(self, tag: str, epoch: int, sequence: int, line: bytes) -> None:
        """Overwrites the oldest slot; a torn write spoils that one only."""
        slot = layout.encode_slot(sequence, line)
        with (
            doing(f"write the progress of image {tag}"),
            self._files.open(self._progress_path(tag, epoch), writable=True) as handle,
        ):
            handle.write_at(layout.slot_of(sequence), slot)
            handle.sync()

    def read_progress(self, tag: str, epoch: int) -> bytes | None:
        """The intact slot with the highest sequence."""
        try:
            with self._files.open(self._progress_path(tag, epoch)) as handle:
                return layout.newest_line(handle.read_at(0, layout.PROGRESS_BYTES))
        except OSError as error:
            if is_gone(error):
                return None
            raise from_os_error(error, f"read the progress of image {tag}") from error

    def remove_progress(self, tag: str, epoch: int) -> None:
        """Not durable: if it comes back after a crash, ``check`` reports it."""
        with doing(f"remove the progress log of image {tag}"), contextlib.suppress(FileNotFoundError):
            self._files.unlink(self._progress_path(tag, epoch))

    # -- digests

    def write_digests(self, volume: str, data: bytes) -> None:
        """A temporary file renamed over the old list."""
        path = self._tree.path(layout.digests_path(require_id(volume, "volume")))
        with doing(f"write the digests of volume {volume}"):
            temporary = self._tree.write_temporary("digest", data)
            try:
                self._files.rename(temporary.path, path)
            except OSError:
                self._tree.discard(temporary)
                raise
            temporary.lease.release()
            self._files.sync_directory(self._tree.path("digests"))

    def read_digests(self, volume: str) -> bytes | None:
        """None also for a list that is too long to be one."""
        path = self._tree.path(layout.digests_path(require_id(volume, "volume")))
        try:
            return self._files.read_file(path, MAX_DIGEST_BYTES)
        except OSError as error:
            if is_gone(error):
                return None
            if error.errno == errno.EFBIG:
                return None
            raise from_os_error(error, f"read the digests of volume {volume}") from error

    def remove_digests(self, volume: str) -> None:
        """Not durable: if they come back after a crash, ``check`` reports them."""
        path = self._tree.path(layout.digests_path(require_id(volume, "volume")))
        with doing(f"remove the digests of volume {volume}"), contextlib.suppress(FileNotFoundError):
            self._files.unlink(path)

    # -- leases and litter

    def try_lease(self, tag: str, shared: bool = False) -> Lease | None:
        """One byte of the file ``locks``."""
        return self._tree.try_lease(require_id(tag, "image"), shared)

    def lease_held(self, tag: str) -> bool:
        """One byte of the file ``locks``."""
        return self._tree.lease_held(require_id(tag, "image"))

    def adopt_lease(self, tag: str, token: str) -> Lease:
        """An inherited descriptor."""
        require_id(tag, "image")
        return self._tree.adopt_lease(token)

    def remove_litter(self, items: Iterable[Litter]) -> int:
        """Names are parsed anew and each condition is looked at afresh."""
        return self._litter.remove(items)

    def close(self) -> None:
        """Nothing is kept open."""

    # -- helpers

    def _volume_path(self, volume: str, format: VolumeFormat) -> str:
        return self._tree.path(layout.volume_path(require_id(volume, "volume"), format))

    def _progress_path(self, tag: str, epoch: int) -> str:
        return self._tree.path(layout.progress_path(require_id(tag, "image"), epoch))

    def _create_anew(self, path: str) -> FileHandle:
        """A new inode under ``path``: who still writes to an older one does no harm."""
        try:
            return self._files.create(path)
        except FileExistsError:
            self._files.unlink(path)
            return self._files.create(path)

    def _empty_file(self, path: str, verify: Callable[[], None]) -> FileHandle:
        """What a volume is written into, see ``make_volume``."""
        verify()
        return self._create_anew(path)

    def _sync_if_there(self, directory: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.sync_directory(self._tree.path(directory))


def _header(handle: FileHandle, stat: Stat) -> tuple[Header | None, str]:
    """Header and problem. The first page nearly always has it all."""
    raw = handle.read_at(0, _FIRST_READ_BYTES)
    try:
        return parse_header(raw, stat.size), ""
    except Damaged as error:
        if len(raw) < _FIRST_READ_BYTES:
            return None, error.message
    try:
        return parse_header(handle.read_at(0, HEADER_READ_BYTES), stat.size), ""
    except Damaged as error:
        return None, error.message


def _write_empty(handle: FileHandle, volume: VolumeRef, size: int, backing_format: VolumeFormat | None) -> None:
    if volume.format is VolumeFormat.RAW:
        handle.truncate(size)
        return
    name = backing_name(volume.parent) if volume.parent else None
    image = fresh_image(size, name, str(backing_format) if name and backing_format else None)
    for offset, data in image.pieces:
        handle.write_at(offset, data)
    handle.truncate(image.length)
