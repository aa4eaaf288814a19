"""The part of a repository by which files of others become volumes as they are; see ``base`` for the other parts."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from engine.data.records import VolumeRef
from engine.doors.files import Access, Stat
from engine.doors.users import User


class Source(Protocol):
    """Something of others that is open to be looked at: a part of ``engine.doors.files.FileHandle``."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Read up to ``length`` bytes; fewer only at the end."""

    def stat(self) -> Stat:
        """Return what tells it from another one, and from itself before it was written."""

    def held_path(self) -> str:
        """Return a path of the very thing, as long as it is open; "" where its own does."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Adoption(Protocol):
    """Files of others on the same storage that become volumes as they are: none is without a name at any moment,
    whoever comes late. Refused where a name means another file. A file may be a logical volume."""

    marked: str
    """What records have as the format of such a file, so that a program which does not know them understands none."""

    # -- looking; all raise plain OSError too

    def resolve(self, path: str) -> str:
        """Return the one path by which the file is known, without links. OSError where there is none."""

    def within(self, path: str) -> list[str] | None:
        """Return the files in a directory, or the logical volumes of others in a group; None for what is neither."""

    def meant(self, name: str, path: str) -> str:
        """Return which path a name in the file ``path`` means. Nothing is looked for."""

    def stat(self, path: str) -> Stat:
        """Return what ``Source.stat`` does."""

    def open(self, path: str) -> Source:
        """Open the file at a path for reading."""

    def open_volume(self, volume: VolumeRef, path: str) -> Source:
        """Open a volume for reading; ``path``: that of its layer."""

    # -- taking

    def require_here(self, path: str) -> None:
        """Return if the file can get the name of a volume. Refused: it is elsewhere, or in the repository."""

    def users(self, path: str) -> list[User]:
        """Return who has the file open, with a lock on any host, or without one on this host."""

    def taken(self, volume: VolumeRef) -> bool:
        """Tell whether the volume is there and its file has no name of others any more."""

    def take(self, path: str, volume: VolumeRef) -> None:
        """Give the file the name of the volume too; also when something has it. Durable, with ``let_go`` at the
        latest."""

    def require_taken(self, path: str, inode: int, volume: VolumeRef) -> None:
        """Return if the volume is the file with that inode, which has one name of others. Refused."""

    def let_go(self, path: str, volume: VolumeRef) -> None:
        """Take the file at ``path`` that name, durable; success when it has it no more. ImageBusy while it is open."""

    def forget(self, volume: VolumeRef) -> None:
        """Leave nothing that ``let_go`` needs to take it back: the image counts."""

    def give_back(self, path: str, volume: VolumeRef, access: Access | None) -> None:
        """Have the file of the volume, if any, a name of others again, and be whose it was, where that is known;
        durable. Refused when ``path`` is not known."""
