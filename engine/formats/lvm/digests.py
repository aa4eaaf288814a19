"""Digest lists of volumes, kept by the host that made them until it boots.

They are derived from the data: another host, or this one later, reads the data again where it
needs them. So nothing here is durable, and none of it takes room in the volume group.
"""

from __future__ import annotations

import contextlib
import errno

from engine.data.model import is_id, require_id
from engine.doors.files import Kind, make_directories
from engine.errors import from_os_error, from_os_errors
from engine.formats.files.digests import MAX_DIGEST_BYTES
from engine.formats.lvm.group import Group


class HostDigests:
    """The lists of one repository on this host."""

    def __init__(self, group: Group) -> None:
        self._files = group.doors.files
        self._doors = group.doors
        self._directory = group.run_path("digests")

    def write(self, volume: str, data: bytes) -> None:
        """Rename a new file over the old one. Durable until this host boots."""
        require_id(volume, "volume")
        with from_os_errors(f"write the digests of volume {volume}"):
            make_directories(self._doors.files, self._directory)
            temporary = self._path(f"{volume}.{self._doors.ids.new_id()}")
            try:
                with self._files.create(temporary) as handle:
                    handle.write_at(0, data)
                self._files.rename(temporary, self._path(volume))
            except OSError:
                with contextlib.suppress(OSError):
                    self._files.unlink(temporary)
                raise

    def read(self, volume: str) -> bytes | None:
        """Return None also for a list that is too long to be one, or that another host made."""
        require_id(volume, "volume")
        try:
            return self._files.read_file(self._path(volume), MAX_DIGEST_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.EFBIG:
                return None
            raise from_os_error(error, f"read the digests of volume {volume}") from error

    def remove(self, volume: str) -> int:
        """Remove the list of this host; return the bytes freed, 0 when there is none."""
        require_id(volume, "volume")
        with from_os_errors(f"remove the digests of volume {volume}"), contextlib.suppress(FileNotFoundError):
            size = self._files.stat(self._path(volume)).allocated
            self._files.unlink(self._path(volume))
            return size
        return 0

    def all(self) -> list[tuple[str, int]]:
        """Return (volume, bytes) of every list. Plain OSError."""
        try:
            entries = self._files.list_directory(self._directory)
        except FileNotFoundError:
            return []
        found = []
        for entry in sorted(entries):
            if is_id(entry.name) and entry.kind is Kind.FILE:
                with contextlib.suppress(FileNotFoundError):
                    found.append((entry.name, self._files.stat(self._path(entry.name)).allocated))
        return found

    def forget(self) -> None:
        """Remove all of them, as far as that works."""
        with contextlib.suppress(OSError):
            for entry in self._files.list_directory(self._directory):
                self._files.unlink(self._path(entry.name))
            self._files.remove_directory(self._directory)

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}"
