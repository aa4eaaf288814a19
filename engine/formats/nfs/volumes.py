"""Volumes on NFS: what another host may still have open is never replaced, and no remembered size is believed."""

from __future__ import annotations

from collections.abc import Callable

from engine.data.model import VolumeFormat
from engine.data.seen import Stamp
from engine.doors.files import FileHandle
from engine.errors import ImageBusy
from engine.formats.base import VolumeFacts
from engine.formats.files.volumes import Volumes


class NfsVolumes(Volumes):
    """The volumes of one repository."""

    def _look(self, path: str, volume: str, format: VolumeFormat, at_rest: Stamp | None) -> VolumeFacts:
        """Look as files do, but open a raw volume: that makes the client ask for the size, which it may remember
        otherwise."""
        if format is VolumeFormat.QCOW2:
            return super()._look(path, volume, format, at_rest)
        with self._files.open(path) as handle:
            stat = handle.stat()
        return VolumeFacts(volume, format, True, stat.size, stat.allocated)

    def _empty_file(self, path: str, verify: Callable[[], None]) -> FileHandle:
        """Create the file; empty and never unlink one that is there: it may be another host's by now, and finished."""
        try:
            handle, fresh = self._files.create(path), True
        except FileExistsError:
            handle, fresh = self._files.open(path, writable=True), False
        try:
            if not handle.lock():
                raise ImageBusy(f"somebody uses {path.rpartition('/')[2]} already", "Look at the image, then try again")
            verify()
            if not fresh:
                handle.truncate(0)
        except BaseException:
            handle.close()
            raise
        return handle
