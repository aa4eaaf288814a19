"""Digest lists as files: one for each volume, beside the volumes, so every host that has the repository sees it."""

from __future__ import annotations

import contextlib
import errno

from engine.data.model import require_id
from engine.errors import from_os_error, from_os_errors
from engine.formats.files import layout
from engine.formats.files.tree import Tree, is_gone

MAX_DIGEST_BYTES = 256 * 1024 * 1024
"""Longest digest list read: enough for an image of 16 TiB."""


class DigestLists:
    """The digest lists of one repository."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._files = tree.files

    def write(self, volume: str, data: bytes) -> None:
        """Rename a temporary file over the old list. Durable."""
        path = self._path(volume)
        with self._tree.from_os_errors(f"write the digests of volume {volume}"):
            temporary = self._tree.write_temporary("digest", data)
            try:
                self._files.rename(temporary.path, path)
            except BaseException:
                self._tree.discard(temporary)
                raise
            temporary.lease.release()
            self._files.sync_directory(self._tree.path("digests"))

    def read(self, volume: str) -> bytes | None:
        """Return None also for a list that is too long to be one."""
        path = self._path(volume)
        try:
            return self._files.read_file(path, MAX_DIGEST_BYTES)
        except OSError as error:
            if is_gone(error):
                return None
            if error.errno == errno.EFBIG:
                return None
            raise from_os_error(error, f"read the digests of volume {volume}") from error

    def remove(self, volume: str) -> None:
        """Unlink the file, not durably: if it comes back after a crash, ``check`` reports it."""
        path = self._path(volume)
        with from_os_errors(f"remove the digests of volume {volume}"), contextlib.suppress(FileNotFoundError):
            self._files.unlink(path)

    def _path(self, volume: str) -> str:
        return self._tree.path(layout.digests_path(require_id(volume, "volume")))
