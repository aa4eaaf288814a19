"""Who changes the data of a tag has its lease: the simulator judges each effect, and finds each of these bugs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.fixes import run as fixes
from engine.formats.files.layout import lease_key
from engine.host import holding
from engine.tags import leasing
from engine.tags.attempt import Attempt
from sim.explore.cases.catalog import CASES
from sim.explore.search.explorer import Explorer


def problems(case: str) -> list[str]:
    """What is said of the case itself, and of the first fix after it."""
    tally = Explorer(CASES[case], "process", max_states=2, recover=False).run()
    return [problem for violation in tally.violations for problem in violation.problems]


@pytest.mark.parametrize("case", ["merge-down", "optimize-flat", "mend-copy", "machine", "snapshot", "clean-removed"])
def test_the_engine_has_the_leases_of_what_it_changes(case: str):
    """Verbs, fixes and the machine of a prepared disk."""
    assert problems(case) == []


@pytest.mark.parametrize("case", ["merge-down", "optimize-flat", "mend-copy", "clean-removed"])
def test_a_fix_without_its_lease_is_reported(case: str, monkeypatch: pytest.MonkeyPatch):
    """It takes none."""
    monkeypatch.setattr(fixes, "take_leases", lambda context, repository, fix: leasing.LeaseSet({}))
    assert any("I7" in problem for problem in problems(case))


@pytest.mark.parametrize("case", ["optimize-flat", "mend-copy"])
def test_a_lease_that_is_released_before_the_seal_is_reported(case: str, monkeypatch: pytest.MonkeyPatch):
    """All else is as it should be: nobody has come in between."""
    taken: list[leasing.LeaseSet] = []
    original, finish = fixes.take_leases, Attempt.finish

    def take(*arguments: Any) -> leasing.LeaseSet:
        taken.append(original(*arguments))
        return taken[-1]

    def early(attempt: Attempt, derive: Callable[[Any], Any]) -> Any:
        for leases in taken:
            leases.release()
        return finish(attempt, derive)

    monkeypatch.setattr(fixes, "take_leases", take)
    monkeypatch.setattr(Attempt, "finish", early)
    assert any("without its lease" in problem for problem in problems(case))


def test_a_holder_without_the_layers_below_is_reported(monkeypatch: pytest.MonkeyPatch):
    """It has the lease of the disk alone: what the disk stands on could be merged away under the machine."""
    original = holding.start

    def hold(context: Any, state: Any, entry: Any, leases: list[Any], *rest: Any) -> Any:
        own = [lease for lease in leases if lease.lock.place[2] == lease_key(entry.image)]
        return original(context, state, entry, own, *rest)

    monkeypatch.setattr(holding, "start", hold)
    assert any("a layer below" in problem for problem in problems("machine"))
