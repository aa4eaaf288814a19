"""The part of a repository by which files of others become volumes as they are; see ``base`` for the other parts."""

from __future__ import annotations

from typing import Protocol

from engine.data.records import VolumeRef
from engine.doors.files import Access
from engine.doors.users import User


class Adoption(Protocol):
    """Files of others on the same storage that become volumes as they are: none is without a name at any moment,
    whoever comes late. Refused where a name means another file."""

    def require_here(self, path: str) -> None:
        """Return if the file can get the name of a volume. Refused: it is elsewhere, or in the repository."""

    def users(self, path: str) -> list[User]:
        """Return who has the file open, with a lock on any host, or without one on this host."""

    def taken(self, volume: VolumeRef) -> bool:
        """Tell whether the volume is there and its file has no name of others any more."""

    def take(self, path: str, volume: VolumeRef) -> None:
        """Give the file the name of the volume too, durable; also when something has it."""

    def require_taken(self, path: str, inode: int, volume: VolumeRef) -> None:
        """Return if the volume is the file with that inode, which has one name of others. Refused."""

    def let_go(self, path: str, volume: VolumeRef) -> None:
        """Take the file at ``path`` that name, durable; success when it has it no more. ImageBusy while it is open."""

    def forget(self, volume: VolumeRef) -> None:
        """Leave nothing that ``let_go`` needs to take it back: the image counts."""

    def give_back(self, path: str, volume: VolumeRef, access: Access | None) -> None:
        """Have the file of the volume, if any, a name of others again, and be whose it was, where that is known;
        durable. Refused when ``path`` is not known."""
