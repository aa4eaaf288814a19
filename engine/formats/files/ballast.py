"""The ballast: a file that occupies room, so that there is some for what frees room.

On a storage without one free byte nothing can be removed, for a removal is a record. The ballast is then made shorter,
step by step, and takes the room back when the removal is done. Nobody depends on it: whatever happens to the file,
``keep`` makes it what it should be, as far as there is room.
"""

from __future__ import annotations

import contextlib

from engine.formats.files import layout
from engine.formats.files.tree import Tree

BALLAST_BYTES = 1 << 20
_STEP_BYTES = BALLAST_BYTES // 4
"""More than a record and the blocks of its directory take on any file system."""
_SPARE = 8
"""So many times its own length must be free before it is made: a small storage is not for ballast."""
_BLOCK_BYTES = 4096


class Ballast:
    """The ballast of one repository."""

    def __init__(self, tree: Tree) -> None:
        self._path = tree.path(layout.BALLAST_FILE)
        self._root = tree.root
        self._files = tree.files

    def keep(self) -> None:
        """Make it as long as it should be, or as half of the free room allows. Never raises: it is there for another
        time, and what is being done now has succeeded."""
        with contextlib.suppress(OSError):
            try:
                length = self._files.stat(self._path).size
            except FileNotFoundError:
                if self._free() >= _SPARE * BALLAST_BYTES:
                    with contextlib.suppress(FileExistsError):
                        self._files.create(self._path).close()
                    self._fill(0, BALLAST_BYTES)
                return
            missing = BALLAST_BYTES - length
            if missing > 0:
                gained = min(missing, self._free() // 2 // _BLOCK_BYTES * _BLOCK_BYTES)
                self._fill(length, gained)

    def release(self) -> bool:
        """Give a part of its room to whoever needs some now; False when there is nothing left to give. The room can be
        used on return. OSError."""
        try:
            with self._files.open(self._path, writable=True) as handle:
                length = handle.stat().size
                if not length:
                    return False
                handle.truncate(max(0, length - _STEP_BYTES))
                handle.sync()  # blocks of a journaling file system are free when that is durable, not before
        except FileNotFoundError:
            return False
        return True

    def serves(self, path: str) -> bool:
        """Compare the file systems."""
        return self._files.stat(path).device == self._files.stat(self._root).device

    def _free(self) -> int:
        return self._files.space(self._root).free_bytes

    def _fill(self, offset: int, length: int) -> None:
        """Write zeros: where they would take no room (compression), the file system keeps a reserve of its own for
        deleting."""
        if length > 0:
            with self._files.open(self._path, writable=True) as handle:
                handle.write_at(offset, bytes(length))
                handle.sync()
