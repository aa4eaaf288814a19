"""What went wrong in a run beside a machine, and the commands that tell it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Wrong(NamedTuple):
    """A run in which something came to harm."""

    dies: str
    effect: int
    what: str
    """The call before which it was."""
    then: str
    problems: tuple[str, ...]


def told(played: Iterable[Wrong | None]) -> int:
    """Play all of them, print each that went wrong, and return an exit code: 1 if one has."""
    harmed = 0
    for run in played:
        if run is not None:
            harmed = 1
            print(run, flush=True)  # noqa: T201 - for commands
    return harmed
