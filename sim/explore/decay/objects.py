"""One object of a repository, what befalls it, and which images need it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from engine.data.records import Record
from sim.disk.storage import SimStorage
from sim.hosts.world import REPOSITORIES, World

REPOSITORY = "a"
ROOT = f"{REPOSITORIES}/{REPOSITORY}/"
"""Where the repository is that is damaged."""


class Damage(NamedTuple):
    """One object, and what happens to it."""

    name: str
    """Path in the repository; of a group a volume, or a page of ``dw-meta`` with the tag that it is about."""
    kind: str
    """"flip", "cut", "gone"; of a directory "empty" or "tree" (gone with what is in it); of a volume of a group
    "untagged"."""


class Objects(Protocol):
    """The objects of one kind of repository: a module beside this one."""

    ESSENTIAL: tuple[Damage, ...]
    """After one of these nobody gets in, and is told what is missing."""

    def damages(self, storage: SimStorage) -> list[Damage]:
        """Return every damage of the repository."""

    def touched(self, records: dict[str, Record], damage: Damage) -> set[str]:
        """Return the tags whose record or data it is."""

    def inflict(self, world: World, damage: Damage) -> None:
        """Damage the object."""


def naming(records: dict[str, Record], volume: str) -> set[str]:
    """Return the tags that name a volume whose id begins so."""
    return {tag for tag, record in records.items() if any(one.id.startswith(volume) for one in record.volumes())}
