"""The file door: the only way to the files of a repository and of the host's state.

Every call raises plain ``OSError`` with errno and file name; the caller knows what it was
doing and says so (``errors.from_os_error``). No call but ``resolve`` follows a symbolic link in its last
component. Nothing is durable before ``FileHandle.sync`` (content and size of that file) and
``sync_directory`` (names in that directory). There is deliberately no ``exists``.
"""

from __future__ import annotations

import contextlib
from enum import StrEnum
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from engine.doors.users import User


class Kind(StrEnum):
    """What a name is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"
    DEVICE = "device"
    """A block device, which only ``Files.open_source`` opens."""


class Unlocked(StrEnum):
    """Whom ``Files.users`` tells of besides those who lock what they open, as qemu's tools do: of this host only."""

    NOBODY = "nobody"
    WRITERS = "writers"
    """Asked of the kernel, at the cost of two calls; for file systems of this host, a server does not tell."""
    EVERYBODY = "everybody"
    """At the cost of a look at each process."""


class Entry(NamedTuple):
    """A name in a directory."""

    name: str
    kind: Kind
    inode: int


class Stat(NamedTuple):
    """What the file system says of a name, without following a link."""

    kind: Kind
    size: int
    allocated: int
    inode: int
    links: int
    mtime_ns: int
    device: int
    ctime_ns: int = 0
    """Of the last change of content or attributes, which nobody can set back; 0 where it is not known."""
    owner: int = 0
    group: int = 0
    mode: int = 0
    """Permission bits."""


class Access(NamedTuple):
    """Whose a file is, and who may do what with it."""

    owner: str
    """Name or number of a user, "" to leave it."""
    group: str
    """The same of a group."""
    mode: int
    """Permission bits."""


class Space(NamedTuple):
    """Room in a file system."""

    total_bytes: int
    free_bytes: int


class RunPlace(NamedTuple):
    """Where this host keeps what must not outlive a boot."""

    path: str
    """A directory of the host's; "" where this user has none."""
    cleared: bool
    """The directory is in memory, so a boot leaves nothing of it."""


class Abilities(NamedTuple):
    """What a file system can do, as tried out with files of our own."""

    direct_io: bool
    """Files open with O_DIRECT."""
    reflink: bool
    """Files can share blocks."""
    hole_punching: bool
    """A range can be given back; it reads as zeros."""
    max_file_bytes: int
    """Longest (sparse) file, a multiple of 4096."""


class FileHandle(Protocol):
    """An open regular file."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to ``length`` bytes; fewer only at the end of the file."""

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of ``data``; a short write is continued or raises."""

    def truncate(self, size: int) -> None:
        """Set the size; growth reads as zeros."""

    def lock(self) -> bool:
        """Lock the file for writing through this handle until it is closed; False when somebody has it locked, also
        for reading it as an image. On NFS it is a fence: once the server has given the lock to another, every
        write through this handle fails with EIO, and one through a handle without a lock would not."""

    def give(self, access: Access) -> None:
        """Set owner, group and mode. EINVAL when this host does not know a name, EPERM when it may not."""

    def sync(self) -> None:
        """Make content and size durable. After an error the content is unknown: never retry."""

    def stat(self) -> Stat:
        """Return what the file system says of the open file."""

    def held_path(self) -> str:
        """Return a path by which processes of this user open this very file as long as the handle is open, whatever
        its name means by then."""

    def close(self) -> None:
        """Close; idempotent."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Files(Protocol):
    """A host's view of its file systems."""

    def run_place(self) -> RunPlace:
        """Return the directory for what must not outlive a boot: /run for root, else XDG_RUNTIME_DIR. Makes
        nothing."""

    def privileged(self) -> bool:
        """Tell whether this process may do what owners and modes of files forbid: it is root's."""

    def list_directory(self, path: str, having: str = "") -> list[Entry]:
        """Open the directory and list it, on NFS as the server has it now; only names that contain ``having``. Order is
        arbitrary."""

    def stat(self, path: str) -> Stat:
        """Return what the file system says of a name, without following a link."""

    def read_file(self, path: str, limit: int) -> bytes:
        """Read the whole content of a regular file; EFBIG when longer than ``limit``, ELOOP on a link, EINVAL on
        anything that is no regular file. Never blocks on a FIFO."""

    def look(self, path: str, length: int) -> tuple[Stat, bytes]:
        """Open a regular file; return what it is, as ``FileHandle.stat``, and its first ``length`` bytes. The same
        refusals as ``read_file``."""

    def open(self, path: str, writable: bool = False) -> FileHandle:
        """Open an existing regular file; the same refusals as ``read_file``."""

    def open_source(self, path: str) -> FileHandle:
        """Open a regular file, or a block device, to read an image from it. Of a device ``stat`` tells the bytes that
        it has, its number as inode, and no time: nothing says when it was written. EBUSY while something of this host
        has claimed it (mounted it, or uses it for another device), which nothing can as long as it is open; EINVAL on
        anything else."""

    def users(self, path: str, unlocked: Unlocked = Unlocked.NOBODY) -> list[User]:
        """Return who has a regular file open as an image, asked of the file itself: qemu's tools lock bytes of what
        they open. ``unlocked``: and whom else. Other processes of this host are named, somebody else has pid 0, a
        device too. Empty: nobody. The same refusals as ``read_file``."""

    def create(self, path: str) -> FileHandle:
        """Create a new file for writing, EEXIST when the name is taken (exclusive)."""

    def link(self, source: str, target: str) -> None:
        """Give a file a second name; EEXIST when taken. Atomic."""

    def rename(self, source: str, target: str) -> None:
        """Rename within one file system, replacing the target. Atomic."""

    def unlink(self, path: str) -> None:
        """Remove a name."""

    def make_directory(self, path: str) -> None:
        """Create a directory, EEXIST when the name is taken."""

    def let_pass(self, path: str) -> None:
        """Let every user of the host through a directory, to whatever he knows the name of and may use."""

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""

    def resolve(self, path: str) -> str:
        """Return the path that is meant when symbolic links are followed, of the last component too, which need not be
        there. For what users name; nothing inside a repository is a link."""

    def symlink(self, target: str, path: str) -> None:
        """Create a symbolic link (host-local run directories only)."""

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""

    def space(self, path: str) -> Space:
        """Return the total and the available bytes of the file system that holds ``path``."""

    def clone(self, source: FileHandle, target: FileHandle) -> bool:
        """Share all blocks of ``source`` with ``target`` (reflink); False when not supported."""

    def inode_generation(self, path: str) -> int | None:
        """Return what tells a file from earlier ones that had its inode number, None where the file system does not
        say. A file that was removed and copied back often has its number again."""

    def probe(self, path: str) -> Abilities:
        """Try out the file system with a file of our own, made as ``path`` and removed again.
        EEXIST when the name is taken. Nothing is made durable."""


def make_directories(files: Files, path: str) -> None:
    """Make a directory and those above it that are missing; nothing when it is there. Not durable. OSError."""
    with contextlib.suppress(FileExistsError):
        try:
            files.make_directory(path)
        except FileNotFoundError:
            make_directories(files, path.rpartition("/")[0])
            files.make_directory(path)


def replace_link(files: Files, target: str, path: str) -> None:
    """Have a symbolic link lead elsewhere, at once; a crash may leave ``path~new``. Not durable. OSError."""
    new = f"{path}~new"
    with contextlib.suppress(FileNotFoundError):
        files.unlink(new)
    files.symlink(target, new)
    files.rename(new, path)
