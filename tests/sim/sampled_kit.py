"""A sample of the crashes of a case: what a test run has time for, of each case from its beginning to its end."""

from __future__ import annotations

from sim.explore.cases.case import Case
from sim.explore.search.explorer import Explorer, Tally

_EFFECTS = 6
_STATES = 40


def sampled(case: Case, recover: bool = False) -> Tally:
    """Crash some of its effects, and check and fix what a few of the power cuts leave. Equal each time, whatever else
    the machine does."""
    return Explorer(case, "posix", max_states=_STATES, recover=recover, sample=_EFFECTS).run()
