"""Progress logs on NFS, where a client may remember for a while that a log is not there."""

from __future__ import annotations

from engine.errors import from_os_errors
from engine.formats.files import layout
from engine.formats.files.progress import ProgressLogs


class NfsProgressLogs(ProgressLogs):
    """The progress logs of one repository."""

    def read(self, tag: str, epoch: int) -> bytes | None:
        """Read again after a fresh listing where the client remembers that there is no log."""
        line = super().read(tag, epoch)
        if line is not None:
            return line
        with from_os_errors(f"read the progress of image {tag}"):
            listed = {entry.name for entry in self._files.list_directory(self._tree.path("progress"))}
        name = layout.progress_path(tag, epoch).rpartition("/")[2]
        return super().read(tag, epoch) if name in listed else None
