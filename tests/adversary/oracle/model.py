"""What must be in each repository: images, in which states they may be, and what was acknowledged.

Here is no effect: a round's outcomes come in, allowed states and contents come out.
"""

import copy
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import Enum
from itertools import permutations

from tests.adversary.oracle.contents import Content

PRESENT, REMOVED, ABSENT = "present", "removed", "absent"


class Said(Enum):
    """What is known of a command after it ended."""

    DONE = "done"  # exit code 0: it must have happened
    MAYBE = "maybe"  # killed, or failed on the way: before or after, nothing between
    NO = "refused"  # a refusal: it must not have happened


@dataclass(frozen=True)
class Change:
    """One remove, restore or clean of an image, with the time between which it can have happened."""

    verb: str
    said: Said
    began: float
    ended: float


@dataclass
class Image:
    """One image of one repository. `id` is "" until it was seen (its command was killed before it could tell)."""

    name: str
    kind: str  # disk or snapshot
    id: str
    contents: list[Content]  # moments, of which one must be shown whole
    states: set[str]
    family: str  # images that share layers
    source: str = ""  # an image (REPOSITORY/NAME) from which unfinished work has to read
    follows: str = ""  # the disk whose later moments a copy may show until it is finished
    hurt: str = ""  # what the adversary damaged: "record" or "volume"
    forgotten: bool = False  # the damaged record was the one that told a removal: whether there was one is not known
    grown_from: int = 0  # size before another tool changed it
    group: str = ""  # of snapshots that were asked for together: all of them are made, or none
    checked: bool = False  # its content was compared, and nothing has been done to it since

    @property
    def settled(self) -> bool:
        """Say whether exactly one moment is allowed."""
        return len(self.contents) == 1 and not self.follows

    def damaged(self, hurts: str) -> None:
        """Note damage. Who cannot read that an image was removed shows it as one that is there, broken, and mends it
        as one: rather a removal is undone than an image lost."""
        self.hurt = hurts
        self.forgotten = self.forgotten or (hurts == "record" and REMOVED in self.states)

    def may_be(self, state: str) -> bool:
        """Say whether it may be found in that state."""
        return (
            state in self.states
            or (bool(self.hurt) and state == ABSENT)
            or (self.forgotten and state in (PRESENT, REMOVED))
        )


def undecided(images: Iterable[Image]) -> dict[str, set[str]]:
    """Return the names of snapshots by groups of which nobody knows yet whether they were made."""
    found: dict[str, set[str]] = {}
    for image in images:
        if image.group and image.states == {PRESENT, ABSENT} and not image.hurt:
            found.setdefault(image.group, set()).add(image.name)
    return found


def halves(groups: dict[str, set[str]], there: Collection[str]) -> list[str]:
    """Return what to say of groups some of which are there now, and some are not."""
    parts = [
        (group, sorted(names.intersection(there)), sorted(names.difference(there))) for group, names in groups.items()
    ]
    return [
        f"of the group {group} there are {some}, and {others} are not"
        for group, some, others in parts
        if some and others
    ]


@dataclass
class Model:
    """All repositories, by name; images by the name that the story gave them."""

    repositories: dict[str, dict[str, Image]] = field(default_factory=dict)
    writes: int = 0

    def next_write(self) -> int:
        """Return the number of a new write."""
        self.writes += 1
        return self.writes

    def find(self, repository: str, name: str) -> Image | None:
        """Return an image that may be there, else None."""
        return self.repositories.get(repository, {}).get(name)

    def by_id(self, repository: str, image_id: str) -> Image | None:
        """Return the image with that id in that repository, else None."""
        return next((one for one in self.repositories[repository].values() if one.id == image_id), None)

    def add(self, repository: str, image: Image) -> None:
        """Add an image that a command has made, or may have made; one that was there under that id makes way."""
        for name, other in list(self.repositories[repository].items()):
            if image.id and other.id == image.id:
                del self.repositories[repository][name]
        self.repositories[repository][image.name] = image

    def wrote(self, repository: str, name: str, contents: list[Content]) -> None:
        """Note the moments that a disk may show now; copies of it that are not finished may show these instead."""
        self.repositories[repository][name].contents = contents
        for images in self.repositories.values():
            for other in images.values():
                if other.follows == f"{repository}/{name}":
                    other.contents += [one.copy() for one in contents]

    def source_is_there(self, image: Image) -> bool:
        """Say whether what unfinished work of `image` reads is certainly present and undamaged."""
        if not image.source:
            return True
        repository, _, name = image.source.partition("/")
        source = self.find(repository, name)
        return source is not None and source.states == {PRESENT} and not source.hurt and self.source_is_there(source)

    def saved(self, repository: str) -> dict[str, Image]:
        """Return a copy of one repository, for a backup."""
        return copy.deepcopy(self.repositories[repository])

    @staticmethod
    def saved_copy(saved: dict[str, Image]) -> dict[str, Image]:
        """Return a copy of a backup, which stays as it is."""
        return copy.deepcopy(saved)


def states_after(before: set[str], changes: list[Change], *, cleaned: bool) -> set[str]:
    """Return the states that an image may be in after changes that ran side by side, in any order that time allows."""
    after: set[str] = set()
    possible = [change for change in changes if change.said is not Said.NO]
    for order in permutations(possible):
        if not any(later.ended < earlier.began for at, earlier in enumerate(order) for later in order[at + 1 :]):
            after |= _play(before, order, cleaned=cleaned)
    return after or before


def _play(before: set[str], order: tuple[Change, ...], *, cleaned: bool) -> set[str]:
    states = _cleaned(before) if cleaned else set(before)
    for change in order:
        moved = {_STEP[change.verb, state] for state in states if state != ABSENT}
        if change.said is Said.MAYBE:
            moved |= states
        states = _cleaned(moved) if cleaned else moved
    return states


def _cleaned(states: set[str]) -> set[str]:
    return states | {ABSENT} if REMOVED in states else set(states)


_STEP = {
    ("remove", PRESENT): REMOVED,
    ("remove", REMOVED): REMOVED,
    ("restore", REMOVED): PRESENT,
    ("restore", PRESENT): PRESENT,
}
