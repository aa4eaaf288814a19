"""``diskwright sim explore --generated``: cases that nobody wrote, every order of their fixes, each fix killed once."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from engine.errors import BadRequest
from sim.explore.cases.generated import STARTS, Generated, Start, from_text, generated
from sim.explore.search.convergence import Convergence, Wrong

MOST_EFFECTS = 12
"""So often a fix is killed at most; where it has more effects, before every n-th."""
_WRONG_AT_MOST = 5


class Job(NamedTuple):
    """All cases of a start; or one of them, by name."""

    start: Start
    verbs: int
    seconds: float = 1e9
    most_effects: int = MOST_EFFECTS
    case: str = ""
    cuts: int = 0
    """So many states of a power cut before each of these effects."""


class Tally(NamedTuple):
    """What came of it."""

    job: Job
    cases: int
    nodes: int
    seconds: float
    closed: bool
    rules: Counter[str]
    wrong: tuple[Wrong, ...]
    """The first few."""


def converge(job: Job) -> Tally:
    """Walk through the cases of a job until all are done, the time is over, or enough is wrong."""
    started = time.perf_counter()
    walk = Convergence(most_effects=job.most_effects, cuts=job.cuts)
    wrong: list[Wrong] = []
    cases, closed = 0, True
    for case in cases_of(job):
        cases += 1
        for found in walk.walk(case):
            if found is not None:
                wrong.append(found)
            closed = time.perf_counter() - started < job.seconds and len(wrong) < _WRONG_AT_MOST
            if not closed:
                break
        if not closed:
            break
    return Tally(job, cases, walk.nodes, time.perf_counter() - started, closed, walk.rules, tuple(wrong))


def cases_of(job: Job) -> Iterator[Generated]:
    """Return the cases of a job."""
    if not job.case:
        yield from generated(job.start, job.verbs)
        return
    try:
        yield from_text(job.case)
    except ValueError as error:
        raise BadRequest(f"there is no such generated case: {error}", "Give its name as it was printed") from None


def jobs_of(names: Sequence[str], on: Collection[str], verbs: int, seconds: float, every: bool, cuts: int) -> list[Job]:
    """The jobs for the cases of these names, or for all ``on`` something. ``every``: fixes are killed before each
    effect."""
    most = 1_000_000 if every or names else MOST_EFFECTS
    if names:
        return [Job(STARTS[0], 0, seconds, most, name, cuts) for name in names]
    return [Job(start, verbs, seconds, most, cuts=cuts) for start in STARTS if start.on in on]


def converge_all(jobs: Sequence[Job], processes: int) -> Iterator[Tally]:
    """All of them, in as many processes, in the order in which they end."""
    if processes == 1 or len(jobs) == 1:
        yield from map(converge, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(min(processes, len(jobs))) as pool:
        yield from pool.imap_unordered(converge, jobs)


def lines_of(tally: Tally) -> Iterator[str]:
    """What people are told of a job."""
    name = tally.job.case or f"{tally.job.start}, up to {tally.job.verbs} verbs"
    end = "closed" if tally.closed else "bound reached"
    done = f"{tally.cases:5} cases {tally.nodes:7} states {tally.seconds:7.1f} s"
    yield f"{name:36} {done}  {end}  {len(tally.wrong)} wrong"
    for wrong in tally.wrong:
        yield f"  VIOLATION {wrong.problems[0]}"
        yield f"    {wrong.case}"
        for run in wrong.path:
            yield f"    fix {run}"
        cut = f" --cuts {tally.job.cuts}" if tally.job.cuts else ""
        yield f"  diskwright sim explore --generated{cut} --case '{wrong.case}'"
