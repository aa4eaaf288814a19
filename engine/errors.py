"""Every error the engine raises on purpose, with a stable code and the command's exit code.

::

    DiskwrightError
    ├── BadRequest        2  the request itself is wrong; nothing was touched
    ├── NotFound          3  no such repository, image, fix, task or file
    ├── Conflict          4  somebody holds it, or it is there already; try again later
    │   ├── ImageBusy
    │   └── Ambiguous
    ├── Refused           5  allowed by nobody in this state; the message says what to do first
    │   ├── NoLocks          the file of leases is missing, so nobody gets one
    │   ├── Moved            what stands there is not what was connected
    │   ├── StaleFix
    │   ├── NotUnderstood    valid, and written by another version
    │   └── Irreversible     it cannot be undone, and nobody said that it may be done
    ├── StorageError      6  the storage or a tool failed; what was done is kept, retry works
    │   ├── NoSpace
    │   ├── ToolMissing
    │   └── ToolFailed
    │       └── ReadFailed
    ├── Damaged           7  what is on disk cannot be understood; nothing was overwritten
    ├── Overtaken         8  another host changed the record first; nothing of ours is visible
    │   ├── OutcomeUnknown   our change may or may not count; look at the status
    │   └── Superseded       the operation we execute was cancelled or taken over
    └── Stopped           9  an operator stopped the operation; what was done is kept

User errors explain, operating errors (6) can be retried, programmer errors are assertions.
A message is one sentence that names the thing; ``next_step`` is one sentence that says what to do.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator


class DiskwrightError(Exception):
    """Base of all errors raised on purpose; ``code`` is stable across versions."""

    code = "error"
    exit_code = 1

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.lost_writes = False
        """A flush failed: what was written before may be lost, though it is still read and later flushes succeed."""

    def __str__(self) -> str:
        return f"{self.message}. {self.next_step}." if self.next_step else f"{self.message}."


class BadRequest(DiskwrightError):
    """The request cannot be right whatever the storage holds; nothing was touched."""

    code = "bad-request"
    exit_code = 2


class NotFound(DiskwrightError):
    """The named repository, image, fix, task or file does not exist."""

    code = "not-found"
    exit_code = 3


class Conflict(DiskwrightError):
    """Somebody else holds the thing, or it exists already."""

    code = "conflict"
    exit_code = 4


class ImageBusy(Conflict):
    """The lease of an image is held; the message names the holder as far as it is known."""

    code = "image-busy"


class Ambiguous(Conflict):
    """One id is in several connected repositories and nothing says which one is meant."""

    code = "ambiguous"


class Refused(DiskwrightError):
    """The state of the image forbids the request; the message says what would allow it."""

    code = "refused"
    exit_code = 5


class Moved(Refused):
    """What stands where a repository was connected is not what was connected: nobody has said which one is meant."""

    code = "moved"


class NoLocks(Refused):
    """The file that leases are locks of is missing. Nobody gets one; who has one of the file before cannot be seen."""


class StaleFix(Refused):
    """What the fix was computed from has changed; check again."""

    code = "stale-fix"


class NotUnderstood(Refused):
    """What is on disk is as it was written, by a version that knows more than this one. It is kept."""

    code = "not-understood"


class Irreversible(Refused):
    """What the fix does cannot be undone, and the request does not say that this is known."""

    code = "irreversible"


class StorageError(DiskwrightError):
    """The storage or a tool failed. What is on disk stays as it is and a retry is safe."""

    code = "storage-error"
    exit_code = 6


class NoSpace(StorageError):
    """The storage is full (ENOSPC or EDQUOT)."""

    code = "no-space"


class ToolMissing(StorageError):
    """A program the engine needs is not installed or too old."""

    code = "tool-missing"


class ToolFailed(StorageError):
    """A program the engine ran failed; the message carries its own words."""

    code = "tool-failed"


class ReadFailed(ToolFailed):
    """The tool works, and told us that a range of an image cannot be read."""

    code = "read-failed"

    def __init__(self, message: str, next_step: str = "", start: int = 0, length: int = 0, reason: str = "") -> None:
        """``start``, ``length``: the range in the image, of length 0 when it is not known. ``reason``: with the
        name of the errno."""
        super().__init__(message, next_step)
        self.start, self.length, self.reason = start, length, reason


class Damaged(DiskwrightError):
    """Bytes on disk that cannot be understood by this version. Nothing was overwritten."""

    code = "damaged"
    exit_code = 7


class Overtaken(DiskwrightError):
    """A newer generation exists; our change never became visible, so a retry is safe."""

    code = "overtaken"
    exit_code = 8


class OutcomeUnknown(Overtaken):
    """Our generation was linked but is not the highest: it may or may not count. Or a part of what was asked for does:
    the message says which."""

    code = "outcome-unknown"


class Superseded(Overtaken):
    """The operation being executed was cancelled or claimed by another executor."""

    code = "superseded"


class Stopped(DiskwrightError):
    """An operator asked the executor to stop; everything recorded so far is kept."""

    code = "stopped"
    exit_code = 9


MAKE_ROOM = "Free space there and try again; where it is a repository, diskwright check lists what can be cleaned"
"""The next step where a storage is full. A clean works on a repository without one free byte."""


ROOT_SQUASH = "the server denies it to root of this host (root_squash)"
"""What an OSError says where a server denies root what it owns."""


def from_os_error(error: OSError, doing: str) -> StorageError:
    """Return the operating error that says what failed while doing what.

    ``doing`` completes "cannot …", e.g. "read the record of image 3f…".
    """
    reason = error.strerror or str(error)
    name = errno.errorcode.get(error.errno or 0, "")
    where = f" ({error.filename})" if isinstance(error.filename, str) else ""
    message = f"cannot {doing}: {reason}{f' [{name}]' if name else ''}{where}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(message, MAKE_ROOM)
    if error.errno == errno.EROFS:
        return StorageError(message, "Mount it for writing; what is there can be checked and exported meanwhile")
    if error.errno in (errno.EACCES, errno.EPERM):
        if reason == ROOT_SQUASH:
            return StorageError(message, "Have the server export it to this host with no_root_squash, then try again")
        return StorageError(message, "Check who owns the storage, and whether this user may use it")
    if error.errno == errno.ESTALE:
        return StorageError(message, "Check what the server exports; if it is another file system now, connect anew")
    if error.errno in (errno.EIO, errno.ETIMEDOUT):
        step = "Check the storage (on NFS: the server, and whether this host was cut off from it) and try again"
        return StorageError(message, step)
    return StorageError(message, "Check the storage and try again")


@contextlib.contextmanager
def from_os_errors(doing: str) -> Iterator[None]:
    """Raise an OSError of the body as ``from_os_error`` has it: "cannot ``doing``: …"."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, doing) from error
