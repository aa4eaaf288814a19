"""Leases as locks: each tag and each temporary file has one byte of the file ``locks``.

While the file is missing nobody gets a lease. Who got one before has it still, and cannot be seen; it shows in the data
that he has open.
"""

from __future__ import annotations

from engine.data.model import require_id
from engine.doors.files import Files
from engine.doors.leases import Lease
from engine.doors.leases import Leases as Locks
from engine.errors import NoLocks, from_os_error, from_os_errors
from engine.formats.files.layout import LOCKS_FILE, lease_key


class Leases:
    """The leases of one repository. StorageError when the file cannot be opened."""

    def __init__(self, locks: Locks, files: Files, root: str) -> None:
        """``root``: the directory of the repository."""
        self._locks = locks
        self._files = files
        self._root = root
        self._path = f"{root}/{LOCKS_FILE}"

    def try_acquire(self, name: str, shared: bool = False) -> Lease | None:
        """Lock the byte of a tag, or of the name of a temporary file. NoLocks when there is no file, StorageError when
        there is no repository."""
        try:
            return self._locks.try_acquire(self._path, _key(name), shared)
        except FileNotFoundError:
            with from_os_errors("take a lease"):
                self._files.stat(self._root)  # all of it may be away, which no fix mends
            raise NoLocks(
                f"the lock file {self._path} is missing, so nobody can take a lease",
                "Run the fix B-LOCKS that diskwright check offers, which makes it again when nobody uses the data",
            ) from None
        except OSError as error:
            raise from_os_error(error, "take a lease") from error

    def held(self, name: str) -> bool:
        """Ask for the byte of a tag, or of the name of a temporary file; nobody is known to where there is no file."""
        try:
            return self._locks.held(self._path, _key(name))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise from_os_error(error, "ask who holds a lease") from error

    def adopt(self, tag: str, token: str) -> Lease:
        """Take over the descriptor that this process inherited."""
        require_id(tag, "image")
        try:
            return self._locks.adopt(token)
        except OSError as error:
            raise from_os_error(error, "take over a lease") from error


def _key(name: str) -> int:
    return lease_key(require_id(name.partition("-")[0], "image"))
