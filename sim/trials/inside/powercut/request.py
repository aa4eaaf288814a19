"""What the outside wants of a run of power cuts, what comes of it, and which states are looked at. The outside is
``sim.trials.powercut``.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from typing import NamedTuple

from sim.trials.inside import logwrites
from sim.trials.inside.logwrites import State
from sim.trials.inside.recorder import Recording

_MOST_WRONG = 5
_TOLD_EVERY = 20


class Asked(NamedTuple):
    """What the outside wants."""

    kind: str
    on: str
    """ext4, xfs or lvm."""
    log_disk: str
    room_disk: str
    most_states: int
    seed: int
    profile: str
    """micro: the rules of the simulation that must allow everything that is found."""
    careless: bool
    """verbs: nothing is synced, so something must be found."""

    @property
    def most_wrong(self) -> int:
        """A run ends when so much was wrong. One thing is enough where some must be found."""
        return 1 if self.careless or self.profile == "process" else _MOST_WRONG


class Result(NamedTuple):
    """What came of it."""

    states: int
    wrong: list[str]
    repaired: int = 0
    """So many times LVM could not read a group before its own tools had put back the last state."""


def chosen(asked: Asked, recording: Recording, first: int, last: int, each: int = 2) -> Iterator[State]:
    """States of cuts between two entries, at most as many as were asked for, in order. ``each``: so many of them before
    each flush keep some of the writes."""
    chance = random.Random(asked.seed)
    found = [state for state in logwrites.states(recording.entries, first, chance, each) if state.position < last]
    if len(found) > asked.most_states:
        picked = sorted(chance.sample(range(len(found)), asked.most_states))
        found = [found[index] for index in picked]
    for number, state in enumerate(found):
        if number % _TOLD_EVERY == 0:
            sys.stderr.write(f"progress: {number} of {len(found)} states were looked at\n")
            sys.stderr.flush()
        yield state
