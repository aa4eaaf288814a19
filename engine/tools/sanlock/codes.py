"""What sanlock's calls return when they fail, and what that means."""

from __future__ import annotations

import errno

from engine.errors import DiskwrightError, Refused, StorageError

HELD_HERE = -errno.EEXIST
"""A process of this host holds the lease."""
IN_TRANSIT = -errno.EAGAIN
"""The lease is being released on this host, or other hosts share it."""
IN_USE = (HELD_HERE, IN_TRANSIT, -errno.EBUSY, -243, -244, -245, -246, -247)
"""These codes, and SANLK_ACQUIRE_IDLIVE, _OWNED, _OTHER, _SHRETRY and _OWNED_RETRY of other hosts."""
VERSION_DIFFERS = -240
HOST_NUMBER_IN_USE = -262
STILL_USED = -errno.EBUSY
JOINED_ALREADY = (-errno.EEXIST, -errno.EINPROGRESS)
NOT_THERE = -errno.ENOENT

_NOT_JOINED = (-errno.ENOSPC, -241)
_NO_DAEMON = (-errno.ECONNREFUSED, -errno.ENOENT, -errno.EPIPE, -errno.ECONNRESET, -errno.ENOTCONN)
_NOTHING_THERE = (-errno.EINVAL, *range(-229, -222))
"""SANLK_LEADER_*: what stands on the disk is no lease, or another one. Reading who owns one says EINVAL."""


class SanlockError(Exception):
    """A call that failed: a negative errno, or one of sanlock's own codes below -200."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words


def failure(error: SanlockError, doing: str) -> DiskwrightError:
    """Return the error for a code of sanlock; ``doing`` completes "cannot …"."""
    message = f"cannot {doing}: {error.words} [{error.code}]"
    if error.code in _NOT_JOINED:
        return Refused(f"cannot {doing}: this host does not take part", "Connect the repository on this host")
    if error.code in _NO_DAEMON:
        return StorageError(message, "See that sanlock's daemon runs on this host (systemctl enable --now sanlock)")
    if error.code in _NOTHING_THERE:
        return StorageError(
            message,
            "What stands there on the disk is not this lease. If it was overwritten, put back what was there: "
            "docs/lvm.md tells how, under When dw-leases is gone",
        )
    return StorageError(message, "See what sanlock says (sanlock client log_dump), and try again")
