"""The chain below an image: which volumes, in which order, make up its content."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from engine import changes
from engine.doors.images import Layer
from engine.errors import Damaged, Refused
from engine.formats.base import Repository
from engine.records import Record, VolumeRef

MAX_DEPTH = 400
"""A chain deeper than this is taken for damage (qemu itself gets slow long before)."""


class Link(NamedTuple):
    """One layer: a tag and the volume that it points to."""

    record: Record
    volume: VolumeRef

    @property
    def tag(self) -> str:
        """The tag's id."""
        return self.record.id


def walk(record: Record, look_up: Callable[[str], Record]) -> list[Link]:
    """The chain from ``record`` down to its root.

    Raises Damaged for a loop or an endless chain, Refused when a layer is not whole, and
    whatever ``look_up`` raises for a missing parent.
    """
    links: list[Link] = []
    seen: set[str] = set()
    while True:
        if record.id in seen or len(links) > MAX_DEPTH:
            raise Damaged(f"the chain of image {links[0].tag} runs in a circle at {record.id}")
        seen.add(record.id)
        if not record.whole or record.volume is None:
            raise Refused(f"image {record.id} is not complete", "Run its mend fix first")
        links.append(Link(record, record.volume))
        if not record.volume.parent:
            return links
        record = look_up(record.volume.parent)


def load(repository: Repository, record: Record) -> list[Link]:
    """The chain of ``record`` in its repository, read afresh."""

    def look_up(tag: str) -> Record:
        return changes.read(repository, tag).record

    return walk(record, look_up)


def layers(repository: Repository, links: list[Link]) -> list[Layer]:
    """The chain as a tool opens it, top first."""
    return [repository.layer(link.volume) for link in links]
