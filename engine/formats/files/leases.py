"""Leases as locks: each tag and each temporary file has one byte of the file ``locks``."""

from __future__ import annotations

from engine.data.model import require_id
from engine.doors.leases import Lease
from engine.doors.leases import Leases as Locks
from engine.errors import Damaged, from_os_error
from engine.formats.files.layout import lease_key


class Leases:
    """The leases of one repository. Damaged when the file ``locks`` is not there, StorageError."""

    def __init__(self, locks: Locks, path: str) -> None:
        """``path``: of the file."""
        self._locks = locks
        self._path = path

    def try_acquire(self, name: str, shared: bool = False) -> Lease | None:
        """Lock the byte of a tag, or of the name of a temporary file."""
        try:
            return self._locks.try_acquire(self._path, _key(name), shared)
        except FileNotFoundError:
            raise self.missing() from None
        except OSError as error:
            raise from_os_error(error, "take a lease") from error

    def held(self, name: str) -> bool:
        """Ask for the byte of a tag, or of the name of a temporary file."""
        try:
            return self._locks.held(self._path, _key(name))
        except FileNotFoundError:
            raise self.missing() from None
        except OSError as error:
            raise from_os_error(error, "ask who holds a lease") from error

    def adopt(self, tag: str, token: str) -> Lease:
        """Take over the descriptor that this process inherited."""
        require_id(tag, "image")
        try:
            return self._locks.adopt(token)
        except OSError as error:
            raise from_os_error(error, "take over a lease") from error

    def missing(self) -> Damaged:
        """Return the error for a lost lock file. It is never made anew, for others may hold locks of the old one."""
        return Damaged(
            f"the lock file {self._path} is missing", "Disconnect the repository on every host, then create it empty"
        )


def _key(name: str) -> int:
    return lease_key(require_id(name.partition("-")[0], "image"))
