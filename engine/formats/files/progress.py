"""Progress logs as files: a ring of slots in one file for each attempt; ``layout`` says what a slot holds."""

from __future__ import annotations

import contextlib

from engine.data.model import require_id
from engine.errors import from_os_error, from_os_errors
from engine.formats.files import layout
from engine.formats.files.tree import Tree, is_gone


class ProgressLogs:
    """The progress logs of one repository."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._files = tree.files

    def start(self, tag: str, epoch: int) -> None:
        """Really write zeros, so that a line can be written when the storage is full."""
        path = self._path(tag, epoch)
        with self._tree.from_os_errors(f"start the progress log of image {tag}"):
            with self._tree.create_anew(path) as handle:
                handle.write_at(0, bytes(layout.PROGRESS_BYTES))
                handle.sync()
            self._files.sync_directory(self._tree.path("progress"))

    def write(self, tag: str, epoch: int, sequence: int, line: bytes) -> None:
        """Overwrite the oldest slot; a torn write spoils that one only."""
        slot = layout.encode_slot(sequence, line)
        with (
            from_os_errors(f"write the progress of image {tag}"),
            self._files.open(self._path(tag, epoch), writable=True) as handle,
        ):
            handle.write_at(layout.slot_of(sequence), slot)
            handle.sync()

    def read(self, tag: str, epoch: int) -> bytes | None:
        """Return the intact slot with the highest sequence."""
        try:
            with self._files.open(self._path(tag, epoch)) as handle:
                return layout.newest_line(handle.read_at(0, layout.PROGRESS_BYTES))
        except OSError as error:
            if is_gone(error):
                return None
            raise from_os_error(error, f"read the progress of image {tag}") from error

    def remove(self, tag: str, epoch: int) -> None:
        """Unlink the file, not durably: if it comes back after a crash, ``check`` reports it."""
        with from_os_errors(f"remove the progress log of image {tag}"), contextlib.suppress(FileNotFoundError):
            self._files.unlink(self._path(tag, epoch))

    def _path(self, tag: str, epoch: int) -> str:
        return self._tree.path(layout.progress_path(require_id(tag, "image"), epoch))
