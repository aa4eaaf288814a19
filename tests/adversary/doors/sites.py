"""Sites: where worlds are, who their hosts are, what can happen to these, and what storage there is.

A site is the seam for other kinds of storage. What one cannot do is not drawn there: `lacks` are plots, `more` are
verbs that it has beyond the usual ones. `guests` has those in a lab.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from tests.adversary.doors import places
from tests.adversary.doors.hands import Hands
from tests.adversary.doors.places import Place
from tests.adversary.doors.quick import Quick
from tests.adversary.oracle.findings import CannotTry


class Site(Protocol):
    """Hosts and storage."""

    most_images: int
    """In a repository; each costs an export in each round."""
    rounds: int
    """Of a story without a plot."""
    sparing: bool
    """Commands are slow: begin with images, and look after a round only where something was done."""
    lacks: frozenset[str]
    """Plots that cannot be played."""
    more: Mapping[str, int]
    """Verbs that only this site has, with their weights."""

    def hosts(self) -> list[tuple[str, Hands, str]]:
        """Return name, hands and directory of notes of the hosts of a world."""

    def place(self, directory: Path, kind: str) -> Place:
        """Make storage of a kind for a repository."""

    def kill(self, host: str) -> None:
        """Let a host die, and boot it again; its hands are others then."""

    def sleep(self, host: str) -> None:
        """Let time stop for a host until its locks are lost."""


class Here:
    """This machine: two hosts by name, with files."""

    most_images, rounds, sparing = 7, 7, False
    lacks: frozenset[str] = frozenset(("host_dies", "host_sleeps"))
    more: Mapping[str, int] = {}

    def __init__(self, command: str, quick: Quick | None = None) -> None:
        """With `quick` commands are started in forks, at half the cost."""
        self._hands = Hands(command, quick=quick)

    def hosts(self) -> list[tuple[str, Hands, str]]:
        """Return two names."""
        return [("anna", self._hands, "state"), ("bert", self._hands, "state")]

    def place(self, directory: Path, kind: str) -> Place:
        """Make a directory or a small file system."""
        return places.make_place(self._hands, directory, kind)

    def kill(self, host: str) -> None:
        """Refuse."""
        raise CannotTry(f"{host} is this machine")

    sleep = kill
