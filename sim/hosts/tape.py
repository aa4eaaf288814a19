"""The choice tape: everything that is left to chance in a run comes from one list of small numbers.

``choose(n, label)`` answers 0 … n-1. 0 always means the dull thing: the same process goes on, no
fault. So a shorter tape, or one with more zeros, is a simpler run, and ``[0, 0, 0, 1]`` reads "three
steps, then something". What comes after the end of a recorded tape is 0. A tape is backed by a
seed, by a recorded list, or by an exploration that goes through all of them; each keeps a record
from which the run can be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from random import Random
from typing import NamedTuple


class Choice(NamedTuple):
    """One decision that was taken."""

    value: int
    options: int
    label: str


class Tape:
    """Answers from ``recorded`` first, then from ``source``, then 0.

    ``source`` gets (options, label, rarity) and answers 0 … options-1."""

    def __init__(self, recorded: Sequence[int] = (), source: Callable[[int, str, int], int] | None = None) -> None:
        self.record: list[Choice] = []
        self._recorded = recorded
        self._source = source

    @classmethod
    def seeded(cls, seed: int) -> Tape:
        """Random, the same for the same seed."""
        random = Random(seed)

        def draw(options: int, label: str, rarity: int) -> int:
            if rarity > 1 and random.randrange(rarity):
                return 0
            return random.randrange(options) if rarity <= 1 else 1 + random.randrange(options - 1)

        return cls((), draw)

    def choose(self, options: int, label: str, rarity: int = 0) -> int:
        """Choose one of so many options. ``rarity`` n > 1: a random tape answers anything but 0 only once in n times.

        With one option nothing is asked and nothing recorded."""
        if options <= 1:
            return 0
        position = len(self.record)
        if position < len(self._recorded):
            value = self._recorded[position] % options
        elif self._source is not None:
            value = self._source(options, label, rarity)
        else:
            value = 0
        self.record.append(Choice(value, options, label))
        return value

    @property
    def values(self) -> list[int]:
        """What to give to ``Tape`` to repeat the run, zeros at the end left out."""
        values = [choice.value for choice in self.record]
        while values and not values[-1]:
            values.pop()
        return values


def explore(
    limit_depth: int | None = None, changes: int | None = None, needless: Container[tuple[int, ...]] = ()
) -> Iterator[Tape]:
    """All tapes, depth first: run each to its end before asking for the next.

    ``limit_depth``: only the first so many choices vary. ``changes``: at most so many are not 0.
    ``needless``: beginnings of which none is wanted; it may grow meanwhile."""
    prefix: list[int] | None = []
    while prefix is not None:
        tape = Tape(prefix)
        yield tape
        prefix = _following(tape.record, limit_depth, changes, needless)


def _following(
    record: Sequence[Choice], limit_depth: int | None, changes: int | None, needless: Container[tuple[int, ...]]
) -> list[int] | None:
    """The next prefix in order, None after the last."""
    end = len(record) if limit_depth is None else min(limit_depth, len(record))
    for position in range(end - 1, -1, -1):
        choice = record[position]
        before = [one.value for one in record[:position]]
        if choice.value + 1 >= choice.options:
            continue
        if changes is not None and sum(map(bool, before)) >= changes:
            continue
        if (*before, choice.value + 1) in needless:
            continue
        return [*before, choice.value + 1]
    return None
