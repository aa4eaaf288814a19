"""``diskwright sim explore --damage``: what cases leave is damaged, or cannot be read for a while; then fixes run."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from engine.errors import BadRequest
from sim.explore import generated
from sim.explore.cases.catalog import ALL, SHARED_BY_HOSTS
from sim.explore.search import damage, host_notes, large, unreadable
from sim.hosts.world import FORMAT

DAMAGED = ALL | SHARED_BY_HOSTS
"""The cases at whose end something can be damaged."""
_ON = ("files", "lvm")


class Job(NamedTuple):
    """One case, or the notes of a host."""

    case: str
    """"": the notes of a host."""
    most: int
    """States for each damage."""
    sample: int
    """So many damages; 0: all, and that each object cannot be read for a while."""
    seed: int
    seconds: float


class Tally(NamedTuple):
    """What is said of a job."""

    lines: tuple[str, ...]
    wrong: bool


def jobs_of(names: Sequence[str] | None, most: int, sample: int, seed: int, seconds: float) -> list[Job]:
    """The jobs for these cases; for all that are short and the notes of a host without names. The dearest come first:
    those on volume groups."""
    for name in names or ():
        if name not in DAMAGED:
            raise BadRequest(f"there is no case {name!r:.60}", "diskwright sim explore --damage 0 --list names them")
    chosen = names if names is not None else ["", *(name for name, case in DAMAGED.items() if not case.slow)]
    dear = sorted(chosen, key=lambda name: bool(name) and DAMAGED[name].format == FORMAT)
    return [Job(name, most, sample, seed, seconds) for name in dear]


def run(job: Job) -> Tally:
    """Do one job."""
    if not job.case:
        return _notes()
    case = DAMAGED[job.case]
    found = _of(job.case, lambda: damage.explore(case, job.most, job.sample, job.seed, job.seconds))
    if job.sample or job.case not in ALL:
        return found
    wrong = [f"{job.case:36}   VIOLATION {what} cannot be read: {why}" for what, why in unreadable.explore(case)]
    return Tally((*found.lines, *wrong), found.wrong or bool(wrong))


def run_all(jobs: Sequence[Job], processes: int) -> Iterator[Tally]:
    """All of them, in as many processes, in the order in which they end."""
    if processes == 1 or len(jobs) == 1:
        yield from map(run, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(min(processes, len(jobs))) as pool:
        yield from pool.imap_unordered(run, jobs)


def of_large(images: int, damages: int, seed: int) -> Tally:
    """Some objects by chance in a repository of so many images."""
    return _of(f"{images} images, --seed {seed}", lambda: large.explore(images, damages, seed))


def of_generated(
    names: Sequence[str], on: Collection[str], verbs: int, most: int, sample: int, seed: int
) -> Iterator[Tally]:
    """Damages at the end of each generated case."""
    for job in generated.jobs_of(names, on, verbs, 1e9, False, 0):
        for story in generated.cases_of(job):
            if story.start.on not in _ON:
                raise BadRequest(
                    f"nothing is damaged on {story.start.on}", f"Damages are of what is on {' or '.join(_ON)}"
                )
            yield _of(str(story), lambda story=story: damage.explore_story(story, most, sample, seed))  # type: ignore[misc]


def _of(name: str, search: Callable[[], damage.Tally]) -> Tally:
    started = time.monotonic()
    tally = search()
    harmful = [
        f"  VIOLATION {one.damage.kind} {one.damage.name} then {', '.join(one.path) or 'none'}: {one.problem}"
        for one in tally.harmful
    ]
    line = (
        f"{name:36} {tally.damages:4} damages {tally.states:6} states {time.monotonic() - started:7.1f} s  "
        f"{tally.closed} closed  {len(tally.harmful)} wrong"
    )
    return Tally((line, *harmful), bool(harmful))


def _notes() -> Tally:
    started = time.monotonic()
    todo = [(found, booted) for found in host_notes.objects() for booted in (False, True)]
    wrong = [one for found, booted in todo if (one := host_notes.explore(found, booted)) is not None]
    said = [
        f"  VIOLATION {one.damage.kind} {one.damage.name or 'all'} "
        f"{'after a boot' if one.booted else 'while machines run'}: {one.problem}"
        for one in wrong
    ]
    line = f"{'notes of a host':36} {len(todo):4} damages {time.monotonic() - started:7.1f} s  {len(wrong)} wrong"
    return Tally((line, *said), bool(wrong))
