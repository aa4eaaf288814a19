"""What a repository of files need not do: files grow by themselves, are never active, and have no manager."""

from __future__ import annotations

from engine.data.model import VolumeFormat
from engine.data.records import VolumeRef
from engine.doors.leases import Lease
from engine.errors import Refused


class Unmanaged:
    """That part of ``Repository``; see there."""

    managed = False

    def listing(self) -> object:
        """Each file is looked at by itself."""
        return None

    def hold(self, volume: VolumeRef) -> Lease | None:
        """A file is always usable."""
        return None

    def deactivate(self, every: bool = False) -> None:
        """Nothing to undo."""

    def late_writer(self, volume: VolumeRef) -> str:
        """Whoever writes to a file has it locked, and writes nothing more when that lock is lost."""
        return ""

    def make_room(self, volume: VolumeRef, size: int) -> None:
        """A file grows when it is written."""

    def reduce(self, volume: VolumeRef) -> int:
        """A file ends where its data ends."""
        return 0

    def freeze(self, volume: VolumeRef) -> None:
        """A file is as long as its image."""

    def require_able_to_make(self, format: VolumeFormat, size: int) -> None:
        """Every host may."""

    def manager(self) -> str:
        """Nobody."""
        return ""

    def take_management(self, dead: str) -> None:
        """Refused."""
        raise Refused("a repository of files has no manager", "Every host that has it may do everything there")

    def release_management(self) -> None:
        """Refused."""
        self.take_management("")
