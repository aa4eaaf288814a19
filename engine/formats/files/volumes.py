"""Volumes as files: each is one file of ``volumes``, which grows as it is written and is usable as it lies.

Looking, making, deleting and putting away; and taking files of others in. What is in a volume is written by the tools
that open it.
"""

from __future__ import annotations

import contextlib
import errno
import posixpath
from collections.abc import Callable, Iterator

from engine.data.model import ADOPTED, VolumeFormat, aligned, require_id
from engine.data.records import VolumeRef
from engine.data.seen import Stamp
from engine.doors.files import Access, FileHandle, Kind, Stat, Unlocked
from engine.doors.images import Layer
from engine.doors.leases import Lease
from engine.doors.users import User, describe_users
from engine.errors import Conflict, Damaged, ImageBusy, Refused, from_os_error, from_os_errors
from engine.formats.base import VolumeFacts, backing_name, unverified
from engine.formats.files import layout
from engine.formats.files.tree import Tree, is_gone, kind_text
from engine.tools.qemu.qcow2 import HEADER_READ_BYTES, Header, fresh_image, parse_alike

_FIRST_READ_BYTES = 1024
"""Nearly always the whole header."""


class Volumes:
    """The volumes of one repository."""

    def __init__(self, tree: Tree, local: bool = False) -> None:
        """``local``: this host's kernel is all that there is of the file system, so it sets the times and knows who has
        a file open. A server, or a program that is the file system, may round times or set them later."""
        self._tree = tree
        self._local = local
        self._files = tree.files

    def listing(self) -> object:
        """Return nothing: each file is looked at by itself."""
        return None

    def facts(
        self, volume: str, format: VolumeFormat, listing: object = None, at_rest: Stamp | None = None
    ) -> VolumeFacts:
        """Make one ``stat`` of a raw volume; of a qcow2 one open and a read of 1 KiB."""
        path = self._volume_path(volume, format)
        try:
            return self._look(path, volume, format, at_rest)
        except OSError as error:
            if is_gone(error):
                return self._absent(volume, format)
            if error.errno in (errno.ELOOP, errno.EINVAL, errno.ENXIO):
                return self._not_a_file(path, volume, format, error)
            return self._unreadable(volume, format, error)

    def _look(self, path: str, volume: str, format: VolumeFormat, at_rest: Stamp | None) -> VolumeFacts:
        if format is VolumeFormat.RAW:
            stat = self._files.stat(path)
            problem = "" if stat.kind is Kind.FILE else f"it is {kind_text(stat.kind)}, not a file"
            stamp = self._stamp(stat, at_rest)
            return VolumeFacts(volume, format, True, stat.size, stat.allocated, problem=problem, stamp=stamp)
        stat, start = self._files.look(path, _FIRST_READ_BYTES)
        header, name, problem = _parsed(start, stat.size)
        if problem and len(start) == _FIRST_READ_BYTES:
            stat, start = self._files.look(path, HEADER_READ_BYTES)
            header, name, problem = _parsed(start, stat.size)
        stamp = self._stamp(stat, at_rest)
        return VolumeFacts(volume, format, True, stat.size, stat.allocated, header, name, problem, stamp=stamp)

    def _stamp(self, stat: Stat, at_rest: Stamp | None = None) -> Stamp | None:
        if not self._local:
            return None
        stamp = Stamp(stat.inode, stat.mtime_ns, stat.size)
        return at_rest if stamp == at_rest else stamp

    def _absent(self, volume: str, format: VolumeFormat) -> VolumeFacts:
        name = layout.volume_name(volume, format)
        try:
            listed = any(entry.name == name for entry in self._tree.list_shard(layout.volume_shard(volume), name))
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

    def make(
        self,
        volume: VolumeRef,
        size: int,
        backing_format: VolumeFormat | None,
        verify: Callable[[], None] = unverified,
        filled: bool = False,
    ) -> None:
        """Make two syncs: of the file, and of the directory that names it. A file that grows shows zeros, ``filled`` or
        not."""
        assert volume.format is VolumeFormat.QCOW2 or not volume.parent, "a raw volume has no parent"
        path = self._volume_path(volume.id, volume.format)
        shard = layout.volume_shard(volume.id)
        with self._tree.from_os_errors(f"make volume {volume.id}"):
            self._tree.ensure_shard(shard)
            with self._empty_file(path, verify) as handle:
                _write_empty(handle, volume, aligned(size), backing_format)
                if self._tree.access is not None:
                    handle.give(self._tree.access)
                handle.sync()
            self._files.sync_directory(self._tree.path(shard))

    def remove(self, volume: str, format: VolumeFormat) -> None:
        """Make one unlink and one sync, the latter also when another host had unlinked the file before."""
        path = self._volume_path(volume, format)
        with from_os_errors(f"delete volume {volume}"):
            with contextlib.suppress(FileNotFoundError):
                self._files.unlink(path)
            self._sync_if_there(layout.volume_shard(volume))

    def quarantine(self, volume: str, format: VolumeFormat) -> None:
        """Link the file into ``lost``, then unlink it: it has both names for a moment and never none."""
        with self._tree.from_os_errors(f"move volume {volume} to lost"), _moving(self._tree, volume):
            self._move(layout.volume_path(require_id(volume, "volume"), format), _lost_path(volume, format))

    def put_back(self, volume: str, format: VolumeFormat) -> None:
        """Do the same the other way round."""
        require_id(volume, "volume")
        with self._tree.from_os_errors(f"put volume {volume} back"), _moving(self._tree, volume):
            self._tree.ensure_shard(layout.volume_shard(volume))
            self._move(_lost_path(volume, format), layout.volume_path(volume, format))

    def _move(self, source: str, target: str) -> None:
        """Give a file another name, durable before it loses the old one; success when that was done before."""
        path, other = self._tree.path(source), self._tree.path(target)
        try:
            self._files.link(path, other)
        except FileNotFoundError:
            self._files.stat(other)  # gone to there already, or an error
        except FileExistsError:
            ours, there = self._files.stat(path), self._files.stat(other)
            if (ours.inode, ours.device) != (there.inode, there.device):
                raise
        self._files.sync_directory(other.rpartition("/")[0])
        with contextlib.suppress(FileNotFoundError):
            self._files.unlink(path)
        self._sync_if_there(source.rpartition("/")[0])

    def layer(self, volume: VolumeRef) -> Layer:
        """Return the path, if it is of a regular file now."""
        path = self._volume_path(volume.id, volume.format)
        with from_os_errors(f"open volume {volume.id}"):
            kind = self._files.stat(path).kind
        if kind is not Kind.FILE:
            raise Damaged(f"volume {path} is {kind_text(kind)}, not a file")
        return Layer(path, volume.format)

    def stamp(self, volume: VolumeRef) -> Stamp | None:
        """Make one ``stat``."""
        try:
            return self._stamp(self._files.stat(self._volume_path(volume.id, volume.format)))
        except OSError as error:
            if is_gone(error):
                return None
            raise from_os_error(error, f"look at volume {volume.id}") from error

    def users(self, volume: VolumeRef) -> list[User]:
        """Ask for the locks of the file, and where the kernel of this host alone serves it for who writes without one;
        nobody where it is gone."""
        try:
            unlocked = Unlocked.WRITERS if self._local else Unlocked.NOBODY
            return self._files.users(self._volume_path(volume.id, volume.format), unlocked)
        except OSError as error:
            if is_gone(error):
                return []
            raise from_os_error(error, f"ask who uses volume {volume.id}") from error

    def guard(self, volume: VolumeRef, writable: bool) -> Lease:
        """Lock the file."""
        with from_os_errors(f"lock volume {volume.id}"):
            lease = self._tree.doors.leases.guard(self._volume_path(volume.id, volume.format), writable)
        if lease is None:
            raise ImageBusy(
                f"volume {volume.id} is locked by somebody else, although its lease is free",
                "Another host may have it prepared while the file of leases was replaced under it (a restore): tear "
                "it down there, then try again",
            )
        return lease

    def guarded(self, volume: VolumeRef) -> bool:
        """Ask for the lock of the file."""
        try:
            return self._tree.doors.leases.guarded(self._volume_path(volume.id, volume.format))
        except OSError as error:
            if is_gone(error):
                return False
            raise from_os_error(error, f"ask who has volume {volume.id}") from error

    def late_writer(self, volume: VolumeRef) -> str:
        """Return "": whoever writes to a file has it locked, and writes nothing more when that lock is lost."""
        return ""

    def _volume_path(self, volume: str, format: VolumeFormat) -> str:
        return self._tree.path(layout.volume_path(require_id(volume, "volume"), format))

    def _empty_file(self, path: str, verify: Callable[[], None]) -> FileHandle:
        """Return the file that a volume is written into, see ``make``."""
        verify()
        return self._tree.create_anew(path)

    def _sync_if_there(self, directory: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.sync_directory(self._tree.path(directory))


class Adoption:
    """Files of the same file system that become volumes.

    The old name goes last, by way of ``lost``: what was moved there can be looked at, and put back, when it is another
    file or in use. There it stays until the seal counts, so who wakes up late deletes no name: what is given back has
    two, and who cleans removes the volume's, or it stands in ``lost`` and can be put where it belongs."""

    marked = ADOPTED

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._files = tree.files

    def resolve(self, path: str) -> str:
        """Follow links."""
        return self._files.resolve(path)

    def within(self, path: str) -> list[str] | None:
        """List the directory, and none below it."""
        if self._files.stat(path).kind is not Kind.DIRECTORY:
            return None
        return [f"{path}/{entry.name}" for entry in self._files.list_directory(path) if entry.kind is Kind.FILE]

    def meant(self, name: str, path: str) -> str:
        """Take the name as one beside the file."""
        return posixpath.normpath(posixpath.join(posixpath.dirname(path), name))

    def stat(self, path: str) -> Stat:
        """Ask the file system."""
        return self._files.stat(path)

    def open(self, path: str) -> FileHandle:
        """Open the file."""
        return self._files.open(path)

    def open_volume(self, volume: VolumeRef, path: str) -> FileHandle:
        """Open the file of the volume."""
        return self._files.open(path)

    def require_here(self, path: str) -> None:
        """Compare devices and mounts: link(2) knows no way from one mount of a file system to another."""
        with from_os_errors(f"look at {path!r:.200}"):
            there, root = self._files.stat(path), self._files.resolve(self._tree.root)
            here = self._files.stat(root)
        if whose := self._repository_of(path):
            raise Refused(
                f"the file {path!r:.200} is a part of the repository at {whose!r:.200}",
                "Copy its image here: diskwright copy",
            )
        mounts = self._tree.doors.mounts
        if there.device != here.device or mounts.holding(path) != mounts.holding(root):
            raise _elsewhere(path, self._tree.root)

    def _repository_of(self, path: str) -> str:
        """Return the root of the repository that a file is a part of, connected here or not; "" for none. What stands
        beside its parts is not."""
        above, _, name = path.rpartition("/")
        while above:
            if name in layout.PARTS and self._found(f"{above}/{layout.IDENTITY_FILE}") is not None:
                return above
            above, _, name = above.rpartition("/")
        return ""

    def users(self, path: str) -> list[User]:
        """Ask for the locks of the file, and /proc."""
        with from_os_errors(f"ask who uses {path!r:.200}"):
            return self._files.users(path, Unlocked.EVERYBODY)

    def taken(self, volume: VolumeRef) -> bool:
        """Open the volume and look for it in ``lost``."""
        with from_os_errors(f"look at volume {volume.id}"):
            found = self._asked(volume)
            return found is not None and self._other_names(volume, found) == 0

    def take(self, path: str, volume: VolumeRef) -> None:
        """Make one link and one sync, the latter also when the link was there."""
        shard = layout.volume_shard(volume.id)
        with self._tree.from_os_errors(f"give {path!r:.200} the name of a volume"):
            self._tree.ensure_shard(shard)
            try:
                self._files.link(path, self._path(volume))
            except FileExistsError:
                pass  # of that file, or ``require_taken`` refuses
            except OSError as error:
                if error.errno == errno.EXDEV:
                    raise _elsewhere(path, self._tree.root) from None
                raise
            self._files.sync_directory(self._tree.path(shard))

    def require_taken(self, path: str, inode: int, volume: VolumeRef) -> None:
        """Open the volume."""
        with from_os_errors(f"look at volume {volume.id}"):
            found = self._asked(volume)
        if found is None or found.inode != inode:
            raise Refused(f"volume {volume.id} is another file than {path!r:.200}", _GIVE_UP)
        if (names := self._other_names(volume, found)) != 1:
            raise Refused(
                f"the file {path!r:.200} has {names} names: whoever knows another one could write to it",
                "Remove those that are not needed (find -samefile), or import it, which makes a copy",
            )

    def let_go(self, path: str, volume: VolumeRef) -> None:
        """Rename the file into ``lost``, look at it there, sync the directory in which it was."""
        with self._tree.from_os_errors(f"take over {path!r:.200}"), _moving(self._tree, volume.id):
            ours = self._files.stat(self._path(volume))
            if path and _same(self._found(path), ours):
                self._forget_lost(volume, ours)  # rename(2) does nothing where both are names of one file
                try:
                    self._files.rename(path, self._lost(volume))
                except FileNotFoundError:
                    pass
                else:
                    self._require_moved(path, self._lost(volume), ours)
            if path:
                with contextlib.suppress(FileNotFoundError):
                    self._files.sync_directory(path.rpartition("/")[0] or "/")
            now = self._asked(volume)
            if now is None or self._other_names(volume, now):
                raise Refused(f"the file {path!r:.200} has got another name meanwhile", _GIVE_UP)
            self._give(volume)

    def _require_moved(self, path: str, lost: str, ours: Stat) -> None:
        """Return if what was moved is ours, has the name of the volume, and is not open; else give it the name again
        that it had. Who comes late finds that the volume is gone."""
        with self._files.open(lost) as handle:  # on NFS what is opened is asked for, not remembered
            moved = handle.stat()
        users = self._files.users(lost, Unlocked.EVERYBODY) if _same(moved, ours) else []
        if _same(moved, ours) and moved.links > 1 and not users:
            return
        self._files.link(lost, path)  # is there another file by now, this one stays where it is and is shown
        self._files.sync_directory(path.rpartition("/")[0] or "/")
        self._files.unlink(lost)
        if users:
            raise ImageBusy(f"the file {path!r:.200} is in use by {describe_users(users)}", "Stop that, then try again")
        if _same(moved, ours):
            raise Conflict(f"the adoption of {path!r:.200} was given up meanwhile", "Check again")
        raise Refused(f"another file has got the name {path!r:.200}", _GIVE_UP)

    def forget(self, volume: VolumeRef) -> None:
        """Unlink it in ``lost``; what a crash leaves there, or brings back, is litter."""
        with self._tree.from_os_errors(f"take over volume {volume.id}"):
            self._forget_lost(volume, self._files.stat(self._path(volume)))

    def give_back(self, path: str, volume: VolumeRef, access: Access | None) -> None:
        """Make one link and one sync, the latter also when the link was there. Whose it was comes first: who finds the
        name again can use it; and should the adoption end after all, the file is given to the repository's once
        more."""
        with self._tree.from_os_errors(f"give volume {volume.id} the name {path!r:.200} again"):
            ours = self._asked(volume)
            if ours is None:
                return
            if path:
                self._hand_over(volume, ours, access)
                with contextlib.suppress(FileExistsError):
                    self._files.link(self._path(volume), path)
                now = self._asked(volume) or ours
                if not _same(self._files.stat(path), ours) or not self._other_names(volume, now):
                    raise Refused(
                        f"the name {path!r:.200}, which the adopted file had, is another file's by now",
                        "Move that one away, then try again; or restore the image, and let the adoption end",
                    )
                self._files.sync_directory(path.rpartition("/")[0] or "/")
            elif not self._other_names(volume, ours):
                raise Refused(
                    f"volume {volume.id} has no other name, and this host was not told which one it had",
                    "Clean where the adoption was begun; or restore the image, and let the adoption end",
                )

    def _forget_lost(self, volume: VolumeRef, ours: Stat) -> None:
        if _same(self._found(self._lost(volume)), ours):
            self._files.unlink(self._lost(volume))

    def _asked(self, volume: VolumeRef) -> Stat | None:
        """Return what the volume is now, None where it is gone, as a fresh listing tells. On NFS what is opened is
        asked for: a client tells of a name from memory for up to a minute, and even opens what that was."""
        try:
            with self._files.open(self._path(volume)) as handle:
                return handle.stat()
        except OSError as error:
            if not is_gone(error):
                raise
        name = layout.volume_name(volume.id, volume.format)
        with contextlib.suppress(FileNotFoundError):
            if any(entry.name == name for entry in self._tree.list_shard(layout.volume_shard(volume.id), name)):
                raise Conflict(f"volume {volume.id} is listed and not found: another host works on it", "Try again")
        return None

    def _other_names(self, volume: VolumeRef, ours: Stat) -> int:
        return ours.links - 1 - _same(self._found(self._lost(volume)), ours)

    def _give(self, volume: VolumeRef) -> None:
        if self._tree.access is not None:
            with self._files.open(self._path(volume), writable=True) as handle:
                handle.give(self._tree.access)
                handle.sync()

    def _hand_over(self, volume: VolumeRef, ours: Stat, access: Access | None) -> None:
        if access is None or access == Access(str(ours.owner), str(ours.group), ours.mode):
            return
        with self._files.open(self._path(volume)) as handle:
            handle.give(access)
            handle.sync()

    def _found(self, path: str) -> Stat | None:
        try:
            return self._files.stat(path)
        except OSError as error:
            if is_gone(error):
                return None
            raise

    def _path(self, volume: VolumeRef) -> str:
        return self._tree.path(layout.volume_path(require_id(volume.id, "volume"), volume.format))

    def _lost(self, volume: VolumeRef) -> str:
        return self._tree.path(_lost_path(volume.id, volume.format))


_GIVE_UP = "Remove the image and clean it away: its file keeps, or gets, the name that it had"


def _same(one: Stat | None, other: Stat) -> bool:
    return one is not None and (one.inode, one.device) == (other.inode, other.device)


def _elsewhere(path: str, root: str) -> Refused:
    return Refused(
        f"the file {path!r:.200} is not on the file system of {root}, as that is mounted",
        "Name it below the same mount; or import it, which copies its data",
    )


@contextlib.contextmanager
def _moving(tree: Tree, volume: str) -> Iterator[None]:
    """While a file has two names nobody takes one of them for a leftover."""
    lease = tree.leases.try_acquire(volume)
    if lease is None:
        raise Conflict(f"volume {volume} is being moved by somebody else", "Check again")
    try:
        yield
    finally:
        lease.release()


def _lost_path(volume: str, format: VolumeFormat) -> str:
    return f"lost/{layout.volume_name(volume, format)}"


def _parsed(start: bytes, length: int) -> tuple[Header | None, str | None, str]:
    """Return what the start of a file of ``length`` bytes has as header, which name of what is below, and what is wrong
    with it."""
    try:
        return *parse_alike(start, length), ""
    except Damaged as error:
        return None, None, error.message


def _write_empty(handle: FileHandle, volume: VolumeRef, size: int, backing_format: VolumeFormat | None) -> None:
    if volume.format is VolumeFormat.RAW:
        handle.truncate(size)
        return
    name = backing_name(volume.parent) if volume.parent else None
    image = fresh_image(size, name, str(backing_format) if name and backing_format else None)
    for offset, data in image.pieces:
        handle.write_at(offset, data)
    handle.truncate(image.length)
