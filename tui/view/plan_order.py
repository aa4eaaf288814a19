"""The order in which queued fixes can safely run, and why it is another than the queue's."""

from __future__ import annotations

from typing import NamedTuple

from tui.view.fixes import FixRow

_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth".split()


class Ordered(NamedTuple):
    """Fixes in the order to run them in."""

    rows: tuple[FixRow, ...]
    moved: tuple[str, ...]
    """A sentence for each that does not stand where it was queued."""
    stuck: FixRow | None
    """The first one for which there is no room whatever the order, None when all fit."""
    missing_bytes: int
    """How much room that one lacks."""


def in_order(queued: list[FixRow], free_bytes: int, reserve_bytes: int) -> Ordered:
    """The queue's order, changed only where a fix depends on a later one, or needs the room that a later one frees.

    A fix that takes room never leaves less than the reserve free. One for which there is no room
    stays in its place, with all after it."""
    left = list(queued)
    done: list[FixRow] = []
    because: dict[str, str] = {}
    stuck: FixRow | None = None
    missing = 0
    while left:
        wanted = _first_ready(left)
        if stuck is None and not _fits(wanted, free_bytes, reserve_bytes):
            helper = _helper(left, wanted, free_bytes, reserve_bytes)
            if helper is None:
                stuck, missing = wanted, reserve_bytes + wanted.peak_bytes - free_bytes
            else:
                because[helper.key] = wanted.key
                wanted = helper
        left.remove(wanted)
        done.append(wanted)
        free_bytes -= wanted.space_bytes
    return Ordered(tuple(done), tuple(_moved(queued, done, because)), stuck, missing)


def fits(row: FixRow, free_bytes: int, reserve_bytes: int) -> bool:
    """Whether a fix can run with so much room and leave the reserve; one that takes none always can."""
    return _fits(row, free_bytes, reserve_bytes)


def _fits(row: FixRow, free_bytes: int, reserve_bytes: int) -> bool:
    return row.peak_bytes <= 0 or free_bytes - row.peak_bytes >= reserve_bytes


def _first_ready(left: list[FixRow]) -> FixRow:
    """The first whose dependencies are done; the first at all when they run in a circle."""
    ids = {row.id for row in left}
    return next((row for row in left if not ids & set(row.depends_on)), left[0])


def _helper(left: list[FixRow], wanted: FixRow, free_bytes: int, reserve_bytes: int) -> FixRow | None:
    """One that frees room and can run now."""
    ids = {row.id for row in left}
    for row in left:
        ready = row is not wanted and row.space_bytes < 0 and not ids & set(row.depends_on)
        if ready and _fits(row, free_bytes, reserve_bytes):
            return row
    return None


def _moved(queued: list[FixRow], done: list[FixRow], because: dict[str, str]) -> list[str]:
    places = {row.key: number for number, row in enumerate(done, 1)}
    moved = []
    for was, row in enumerate(queued, 1):
        now = places[row.key]
        if now >= was:
            continue
        for_whom = because.get(row.key)
        if for_whom is not None:
            why = f"It frees the space that step {places[for_whom]} needs"
        else:
            why = _depended(row, done, places)
        if why:
            moved.append((now, f"Step {now} was {ordinal(was)}. {why}."))
    return [text for _, text in sorted(moved)]


def _depended(row: FixRow, done: list[FixRow], places: dict[str, int]) -> str:
    after = [places[other.key] for other in done if row.id in other.depends_on]
    return f"Step {after[0]} depends on it" if after else ""


def ordinal(number: int) -> str:
    """First, second, …, tenth, 11th."""
    return _ORDINALS[number - 1] if number <= len(_ORDINALS) else f"{number}th"
