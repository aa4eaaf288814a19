"""Two hosts at once: every schedule with one change of turn, every place at which one passes the other and dies, and
what a third host finds afterwards."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from sim.explore.cases.case import prepared
from sim.explore.together import commuting
from sim.explore.together.races import ENTERINGS, PASSINGS, RACES, play, run_passed, run_race
from sim.hosts.tape import explore

QUICK = ("user-data", "snapshots", "copies", "restore-and-clean", "snapshot-and-remove")
TWICE = ("user-data", "snapshots", "restore-and-clean")
BOTH_WAYS = [(name, swapped) for name in RACES for swapped in (False, True)]
DEAR = "snapshot-groups"
"""To be passed at each place costs it more than all others: ``make explore`` does that."""
ONE_WAY = "merge-and-repoint"
"""Its other operation is none of the engine's: it may be passed only where it says so."""


def wrong(found: Iterable[object]) -> list[object]:
    everything = list(found)
    assert len(everything) > 10, "a race has many schedules"
    return [one for one in everything if one is not None]


@pytest.mark.parametrize(("name", "swapped"), [pair for pair in BOTH_WAYS if pair[0] in QUICK])
def test_no_schedule_of_two_verbs_loses_anything(name: str, swapped: bool):
    """Whatever was acknowledged is there, in one order or the other, and everything can be fixed."""
    assert not wrong(run_race(RACES[name], swapped))


@pytest.mark.slow
@pytest.mark.parametrize("name", TWICE)
def test_two_changes_of_turn_lose_nothing_either(name: str):
    """The first host goes on in the middle of the second one's operation."""
    assert not wrong(run_race(RACES[name], False, switches=2))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "swapped"), [pair for pair in BOTH_WAYS if pair[0] not in QUICK])
def test_no_schedule_of_a_verb_and_a_fix_loses_anything(name: str, swapped: bool):
    """Nothing is cleaned or merged away under somebody who bases something on it."""
    assert not wrong(run_race(RACES[name], swapped))


@pytest.mark.parametrize(("name", "swapped"), [pair for pair in BOTH_WAYS if pair[0] in QUICK])
def test_what_another_host_left_half_done_is_not_built_upon(name: str, swapped: bool):
    """It is passed by one that dies with a record seen and not durable; then the power goes."""
    assert not wrong(run_passed(RACES[name], swapped))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "swapped"), [pair for pair in BOTH_WAYS if pair[0] not in (*QUICK, DEAR)] + [(ONE_WAY, False)]
)
def test_what_another_host_left_half_done_is_not_built_upon_by_fixes(name: str, swapped: bool):
    """A merge found so that it made a disk unusable whose base it had marked a moment too early."""
    assert not wrong(run_passed(PASSINGS[name], swapped))


@pytest.mark.parametrize("profile", ["posix", "nfs"])
def test_nobody_is_missed_while_a_repository_is_given_uses(profile: str):
    """Who has it open from before publishes with what it needs entered, or not at all."""
    assert not wrong(run_race(ENTERINGS["enter-uses-and-snapshot"], True, profile=profile))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["enter-uses-and-base", "enter-uses-twice"])
def test_what_a_dead_host_has_entered_is_not_believed_before_it_is_durable(name: str):
    """One that saw the names, and did not sync them, found them lost with the power when they were believed."""
    assert not wrong(run_passed(ENTERINGS[name]))


def test_schedules_that_are_left_out_lead_nowhere_else(monkeypatch: pytest.MonkeyPatch):
    """All are played once, without one that comes to the same; what they end in is the same, and that would be missed
    if calls that have to do with each other were taken for others."""
    race = RACES["user-data"]

    def ends(needless: set[tuple[int, ...]], leave_out: bool) -> tuple[int, set[bytes]]:
        driver, seen, played = prepared(race.case, "posix"), set[bytes](), 0
        for tape in explore(changes=1, needless=needless if leave_out else ()):
            played += 1
            assert not play(driver, race, True, tape, seen, needless)
        return played, seen

    all_of_them, found = ends(set(), leave_out=False)
    some, found_by_these = ends(set(), leave_out=True)
    assert some < all_of_them * 4 / 5 and found_by_these == found
    monkeypatch.setattr(commuting, "_related", lambda one, other: False)
    assert ends(set(), leave_out=True)[1] < found
