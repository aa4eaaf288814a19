"""The directory tree of a repository of files: paths, temporary files, shards.

What the parts of a repository of files share. Calls raise plain ``OSError`` unless they say
otherwise; ``from_os_errors`` turns it into an error that says what was being done.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import NamedTuple

from engine.doors import Doors
from engine.doors.files import Access, Entry, FileHandle, Kind
from engine.doors.leases import Lease
from engine.errors import Refused, StorageError, from_os_error
from engine.formats.files import layout
from engine.formats.files.leases import Leases

_NAME_ATTEMPTS = 8


def is_gone(error: OSError) -> bool:
    """Return whether a name that was there is not any more: ESTALE is what an NFS client says of a file that it knows
    and that another host has just removed (measured). A fresh listing tells for certain."""
    return error.errno in (errno.ENOENT, errno.ESTALE)


class Temporary(NamedTuple):
    """A complete and synced file in ``tmp``, protected from cleaning by its lease."""

    path: str
    inode: int
    device: int
    lease: Lease


class Tree:
    """One repository's directory on one host."""

    def __init__(self, doors: Doors, root: str, access: Access | None = None) -> None:
        """``access``: whose volumes are, where that is stated."""
        self.access = access
        self.doors = doors
        self.files = doors.files
        self.root = root
        self.leases = Leases(doors.leases, doors.files, root)
        self._durable_shards: set[str] = set()

    def path(self, name: str) -> str:
        """Return the absolute path of a name inside the repository."""
        return f"{self.root}/{name}"

    @contextlib.contextmanager
    def from_os_errors(self, doing: str) -> Iterator[None]:
        """Raise an OSError of the body as ``engine.errors.from_os_errors`` does; Refused where it is a directory of the
        repository that is missing, and that a fix makes again."""
        try:
            yield
        except FileNotFoundError as error:
            self._durable_shards.clear()  # it may be one of them
            name = self._missing()
            if name:
                raise Refused(
                    f"cannot {doing}: the directory {self.path(name)} is missing",
                    "Run the fix B-PART that diskwright check offers, which makes it again",
                ) from None
            raise from_os_error(error, doing) from error
        except OSError as error:
            raise from_os_error(error, doing) from error

    def _missing(self) -> str:
        """Return a directory that is missing and can be made again; "" for none, and where all of it is away."""
        try:
            names = {entry.name for entry in self.files.list_directory(self.root)}
        except OSError:
            return ""
        return next((name for name in layout.DIRECTORIES if name not in (*names, layout.TAGS)), "")

    def list_shard(self, shard: str, having: str = "") -> list[Entry]:
        """Return a fresh listing of ``tags/ab`` or ``volumes/ab``, of the names that contain ``having``; nothing when
        it was never made."""
        try:
            return self.files.list_directory(self.path(shard), having)
        except FileNotFoundError:
            # Another host may have just made it: the listing of its parent is the arbiter.
            parent, _, name = shard.partition("/")
            if all(entry.name != name for entry in self.files.list_directory(self.path(parent))):
                return []
            return self.files.list_directory(self.path(shard), having)

    def ensure_shard(self, shard: str) -> None:
        """Make the shard if need be; its name is durable on return, whoever made it."""
        if shard in self._durable_shards:
            return
        with contextlib.suppress(FileExistsError):
            self.files.make_directory(self.path(shard))
        if self.access is not None and shard.startswith("volumes/"):
            self.files.let_pass(self.path(shard))
        self.files.sync_directory(self.path(shard.partition("/")[0]))
        self._durable_shards.add(shard)

    def create_anew(self, path: str) -> FileHandle:
        """Create a new inode under an absolute path: who still writes to an older one does no harm."""
        try:
            return self.files.create(path)
        except FileExistsError:
            self.files.unlink(path)
            return self.files.create(path)

    # -- temporary files

    def claim_temporary(self, purpose: str) -> tuple[str, Lease]:
        """Take the lease of a fresh name in ``tmp``; return the path and the lease. Nothing is made yet."""
        for _ in range(_NAME_ATTEMPTS):
            name = f"{self.doors.ids.new_id()}-{purpose}"
            lease = self.leases.try_acquire(name)
            if lease is not None:
                return self.path(f"tmp/{name}"), lease
        raise StorageError("cannot find a free name for a temporary file", "Try again")

    def write_temporary(self, purpose: str, content: bytes) -> Temporary:
        """Make a synced file in ``tmp`` with ``content``; on an error it is removed again, as far as possible."""
        path, lease = self.claim_temporary(purpose)
        try:
            with self.files.create(path) as handle:
                handle.write_at(0, content)
                handle.sync()
                stat = handle.stat()
        except BaseException:
            self._remove_quietly(path)
            lease.release()
            raise
        return Temporary(path, stat.inode, stat.device, lease)

    def discard(self, temporary: Temporary) -> None:
        """Remove the name and release its lease. Best effort: ``check`` reports what stays."""
        self._remove_quietly(temporary.path)
        temporary.lease.release()

    def _remove_quietly(self, path: str) -> None:
        with contextlib.suppress(OSError):
            self.files.unlink(path)


def kind_text(kind: Kind) -> str:
    """Say for people what a name is."""
    return {Kind.DIRECTORY: "a directory", Kind.SYMLINK: "a symbolic link", Kind.FILE: "a file"}.get(
        kind, "a special file"
    )
