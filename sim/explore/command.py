"""``diskwright sim explore``: every case, crashed everywhere.

Exit codes: 0 nothing found, 1 a violation, 2 a wrong request.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import secrets
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from engine.errors import BadRequest, from_os_error
from sim.arguments import Parser
from sim.disk.profiles import PROFILES
from sim.explore import damaged, generated
from sim.explore.cases.catalog import CASES, EXPLORED
from sim.explore.cases.generated import ON
from sim.explore.search.explorer import Explorer, Tally, Violation
from sim.explore.search.violation import Account, Replay, from_text, to_text
from sim.explore.share import Share, shares
from sim.explore.together.races import PASSINGS, RACES, Passed, WrongSchedule, run_passed, run_race

COMMAND = "diskwright sim explore"
_WRONG_AT_MOST = 3
_OF_LARGE = 40
_MODES = ("--list", "--replay", "--damage", "--races", "--generated")
"""What is done instead of exploring the written cases: the first of these that is given."""
_SAYS_SOMETHING = {
    "--list": "--damage",
    "--replay": "--json",
    "": "--case --profile --max-states --seconds --within --shallow --jobs --json",
    "--damage": "--case --max-states --seconds --seed --jobs",
    "--damage --images": "--images --seed",
    "--damage --generated": "--generated --case --max-states --seed --on --verbs",
    "--races": "--profile --jobs --json",
    "--generated": "--case --seconds --each-effect --cuts --on --verbs --jobs --json",
}
"""Which options say something, by what is done."""
_MOST_ORDERS = 400
"""States for each damage, so many orders of fixes as lead to them."""


class Exploration(NamedTuple):
    """One exploration."""

    case: str
    profile: str
    max_states: int
    seconds: float
    recover: bool = True
    share: Share = Share()


def explore(job: Exploration) -> Tally:
    """Explore one case under one profile; shrink the violations."""
    seconds = min(job.seconds, job.share.seconds)
    tally = Explorer(EXPLORED[job.case], job.profile, job.max_states, seconds, recover=job.recover).run()
    shrunk = {to_text(small): small for small in map(_shrink, tally.violations[:3])}
    found = sorted(shrunk.values(), key=lambda violation: violation.weight)
    # What did not survive is told by the replay: it is no plain data.
    plain = tuple(one._replace(path=tuple(step._replace(lost=tuple) for step in one.path)) for one in found)
    return tally._replace(violations=plain or ())


def _shrink(violation: Violation) -> Violation:
    return Replay(violation).shrunk() if violation.path else violation


class RaceJob(NamedTuple):
    """Two hosts at once."""

    race: str
    swapped: bool
    profile: str
    switches: int
    """At most so many changes of turn; 0: the first is passed once by the other, which may die."""


class RaceTally(NamedTuple):
    """What came of it."""

    job: RaceJob
    schedules: int
    seconds: float
    wrong: tuple[tuple[str, tuple[str, ...]], ...]
    """(where, problems) of the first few."""


def run_races(job: RaceJob) -> RaceTally:
    """All schedules of a race."""
    started, count = time.perf_counter(), 0
    wrong: list[tuple[str, tuple[str, ...]]] = []
    found: Iterator[WrongSchedule | Passed | None]
    if job.switches:
        found = run_race(RACES[job.race], job.swapped, job.switches, job.profile)
    else:
        found = run_passed(PASSINGS[job.race], job.swapped)
    for one in found:
        count += 1
        if one is not None and len(wrong) < _WRONG_AT_MOST:
            where = f"tape {one.tape}" if isinstance(one, WrongSchedule) else f"call {one.call}, death {one.effect}"
            wrong.append((where, one.problems))
    return RaceTally(job, count, time.perf_counter() - started, tuple(wrong))


def _races(switches: int, profile: str) -> list[RaceJob]:
    both = [(name, swapped) for name in RACES for swapped in (False, True)]
    passed = [*both, *((name, False) for name in PASSINGS if name not in RACES)]
    schedules = [RaceJob(*pair, profile, switches) for pair in both]
    return schedules + ([RaceJob(*pair, profile, 0) for pair in passed] if profile == "posix" else [])


def explore_all(jobs: Sequence[Exploration], processes: int) -> Iterator[Tally]:
    """All of them, in as many processes, in the order in which they end."""
    if processes == 1 or len(jobs) == 1:
        yield from map(explore, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(min(processes, len(jobs))) as pool:
        yield from pool.imap_unordered(explore, jobs)


def races_all(jobs: Sequence[RaceJob], processes: int) -> Iterator[RaceTally]:
    """The same for races."""
    if processes == 1:
        yield from map(run_races, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(run_races, jobs)


def main(argv: Sequence[str]) -> int:
    """Entry point of the command."""
    parser = make_parser()
    try:
        options = parser.parse_args(argv)
    except SystemExit as done:  # --help
        return int(done.code or 0)
    _require_counting(parser, options)
    if options.list:
        for case in (EXPLORED if options.damage is None else damaged.DAMAGED).values():
            print(case.name)  # noqa: T201 - this is a command
        return 0
    if options.replay:
        return _replay(options.replay, options.json)
    if options.damage is not None:
        return _explore_damage(options)
    if options.races:
        return _explore_races(options)
    if options.generated:
        return _explore_generated(options)
    tallies = []
    for tally in explore_all(_jobs(options), _processes(options)):
        tallies.append(tally)
        if not options.json:
            _say(*_lines(tally))
    if options.json:
        _say(json.dumps([_plain(tally) for tally in tallies], indent=1))
    else:
        _say(_sum(tallies))
    return 1 if any(tally.violations for tally in tallies) else 0


def _processes(options: argparse.Namespace) -> int:
    return int(options.jobs or os.cpu_count() or 1)


def _require_counting(parser: Parser, options: argparse.Namespace) -> None:
    """Return if every option that was given says something beside the others, else raise BadRequest."""
    flags = {f"--{name.replace('_', '-')}": name for name in vars(options)}
    given = [flag for flag, name in flags.items() if getattr(options, name) != parser.get_default(name)]
    mode = next((mode for mode in _MODES if mode in given), "")
    kind = next((kind for kind in _SAYS_SOMETHING if kind.startswith(f"{mode} ") and kind.split()[1] in given), mode)
    for flag in given:
        if flag not in (mode, *_SAYS_SOMETHING[kind].split()):
            only = dict.fromkeys(
                one.split()[0] for one, says in _SAYS_SOMETHING.items() if one and flag in says.split()
            )
            how = f"nothing with {kind}" if kind else f"something only with {' or '.join(only)}"
            raise BadRequest(f"{flag} says {how}", f"See {COMMAND} --help")


def _explore_damage(options: argparse.Namespace) -> int:
    most = min(options.max_states, _MOST_ORDERS)
    found: Iterable[damaged.Tally]
    if options.images:
        seed = options.seed if options.seed is not None else secrets.randbelow(1 << 31)
        found = [damaged.of_large(options.images, options.damage or _OF_LARGE, seed)]
    elif options.generated:
        found = damaged.of_generated(
            options.case or (), options.on or ["files"], options.verbs, most, options.damage, options.seed or 0
        )
    else:
        jobs = damaged.jobs_of(options.case, most, options.damage, options.seed or 0, options.seconds)
        found = damaged.run_all(jobs, _processes(options))
    wrong = False
    for tally in found:
        _say(*tally.lines)
        wrong |= tally.wrong
    return int(wrong)


def _explore_races(options: argparse.Namespace) -> int:
    tallies = []
    for tally in races_all(_races(options.races, options.profile or "posix"), _processes(options)):
        tallies.append(tally)
        if not options.json:
            _say(*_race_lines(tally))
    if options.json:
        _say(json.dumps([{**tally.job._asdict(), **tally._asdict(), "job": None} for tally in tallies], indent=1))
    else:
        schedules, seconds = sum(tally.schedules for tally in tallies), sum(tally.seconds for tally in tallies)
        wrong = sum(bool(tally.wrong) for tally in tallies)
        _say(f"{len(tallies)} races: {schedules} schedules in {seconds:.1f} s of one core; {wrong} with violations")
    return 1 if any(tally.wrong for tally in tallies) else 0


def _explore_generated(options: argparse.Namespace) -> int:
    tallies = []
    jobs = generated.jobs_of(
        options.case or (), options.on or ["files"], options.verbs, options.seconds, options.each_effect, options.cuts
    )
    for tally in generated.converge_all(jobs, _processes(options)):
        tallies.append(tally)
        if not options.json:
            _say(*generated.lines_of(tally))
    if options.json:
        _say(json.dumps([tally._asdict() for tally in tallies], indent=1))
    else:
        cases, states = sum(tally.cases for tally in tallies), sum(tally.nodes for tally in tallies)
        wrong = sum(len(tally.wrong) for tally in tallies)
        seconds = sum(tally.seconds for tally in tallies)
        _say(f"{cases} generated cases: {states} states in {seconds:.1f} s of one core; {wrong} violations")
    return 1 if any(tally.wrong for tally in tallies) else 0


def _race_lines(tally: RaceTally) -> Iterator[str]:
    job = tally.job
    how = f"{job.switches} changes of turn" if job.switches else "passed by one that may die"
    name = f"{job.race}{' swapped' if job.swapped else ''}"
    yield f"{name:36} {how:28} {tally.schedules:7} schedules {tally.seconds:7.1f} s  {len(tally.wrong)} wrong"
    for where, problems in tally.wrong:
        yield f"  VIOLATION at {where}: {problems[0]}"


def make_parser() -> Parser:
    """What the command understands."""
    parser = Parser(
        COMMAND,
        "Crash every verb and every fix at every effect, in every legal state of the storage, and recovery\n"
        "from each of them in its turn, until no new state appears.",
        "exit codes: 0 nothing found, 1 a violation, 2 wrong usage",
    )
    parser.add_argument("--case", action="append", metavar="NAME", help="only this case (may be repeated)")
    parser.add_argument(
        "--profile",
        choices=sorted(PROFILES),
        help="only this kind of storage (default: all but nfs, whose states are among those of posix; of races: posix)",
    )
    parser.add_argument("--max-states", type=int, default=1_000_000, metavar="N", help="a bound for each case")
    parser.add_argument("--seconds", type=float, default=1e9, metavar="S", help="a bound for each case")
    parser.add_argument(
        "--within", type=float, default=1e9, metavar="S",
        help="a bound for all together: a case that needs more has what others leave",
    )  # fmt: skip
    parser.add_argument("--shallow", action="store_true", help="check recovery, but do not crash it")
    parser.add_argument(
        "--races", type=int, default=0, metavar="N",
        help="instead: two hosts at once, all schedules with up to N changes of turn",
    )  # fmt: skip
    parser.add_argument(
        "--generated", action="store_true",
        help="instead: all sequences of verbs over small chains, every order of their fixes, each fix killed",
    )  # fmt: skip
    parser.add_argument(
        "--verbs", type=int, default=2, metavar="N", help="of generated cases: up to so many (default: 2)"
    )
    parser.add_argument(
        "--each-effect", action="store_true",
        help=f"of generated cases: kill fixes before each effect, not before {generated.MOST_EFFECTS} of them",
    )  # fmt: skip
    parser.add_argument(
        "--on",
        action="append",
        choices=tuple(ON),
        help="of generated cases: what the repositories are on (default: files; may be repeated)",
    )
    parser.add_argument(
        "--cuts", type=int, default=0, metavar="N",
        help="of generated cases: the last verb is killed too, and the power fails wherever anything is killed; up to "
        "N of the states that it may leave",
    )  # fmt: skip
    parser.add_argument(
        "--damage", type=int, default=None, metavar="N",
        help="instead: N objects of each end of a case are damaged, one at a time (0: every one), and the fixes run in "
        "every order; and the notes of a host. With 0 each is also unreadable for a while. With --generated: the end "
        "of a generated case",
    )  # fmt: skip
    parser.add_argument(
        "--images", type=int, default=0, metavar="N",
        help=f"of damages: by chance in a repository of so many images, {_OF_LARGE} of them where --damage is 0",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, metavar="N", help="of what is done by chance")
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="processes (default: all processors)")
    parser.add_argument(
        "--replay", metavar="VIOLATION", help="one as it was printed, or a file with it: run it and tell all about it"
    )
    parser.add_argument("--json", action="store_true", help="results as JSON")
    parser.add_argument(
        "--list",
        action="store_true",
        help="names of the cases; with --damage: of those in which something can be damaged",
    )
    return parser


def _jobs(options: argparse.Namespace) -> list[Exploration]:
    names = options.case or list(CASES)
    for name in names:
        if name not in EXPLORED:
            raise BadRequest(f"there is no case {name!r:.60}", f"{COMMAND} --list names them")
    profiles = [options.profile] if options.profile else ["posix", "journal", "process"]
    todo = [(name, profile) for name in names for profile in profiles]
    return [
        Exploration(name, profile, options.max_states, options.seconds, not options.shallow, share)
        for (name, profile), share in zip(todo, shares(options.within, len(todo), _processes(options)), strict=True)
    ]


def _lines(tally: Tally) -> Iterator[str]:
    end = "closed" if tally.closed else f"bound reached, {tally.left} states left"
    if tally.uncut:
        end += f", {tally.uncut} points of killed runs not cut"
    rate = tally.states / tally.seconds if tally.seconds else 0
    yield (
        f"{tally.case:36} {tally.profile:8} {tally.effects:4} effects  "
        f"{tally.storages:7} storages {tally.states:6} states "
        f"{rate:5.0f}/s  pending {tally.max_pending}  depth {tally.depth}  {end}  {len(tally.violations)} violations"
    )
    for violation in tally.violations:
        yield from _violation_lines(violation)


def _violation_lines(violation: Violation) -> Iterator[str]:
    for problem in violation.problems[:4]:
        yield f"  VIOLATION {problem}"
    if violation.path:
        account = Replay(violation).account()
        yield from _account_lines(account)
    yield f"  {COMMAND} --replay '{to_text(violation)}'"


def _account_lines(account: Account) -> Iterator[str]:
    for ending in account.endings:
        where = f"effect {ending.effect} of {ending.effects}, before {ending.next or 'nothing more'}"
        yield f"    {ending.run}: {ending.how} at {where}"
        if ending.line:
            yield f"      which is {ending.line}"
        for loss in ending.lost:
            yield f"      lost: {loss.what}"
            if loss.line:
                yield f"            done at {loss.line}"
        for text in ending.kept[:12] if ending.lost else ():
            yield f"      kept: {text:.160}"


def _replay(printed: str, as_json: bool) -> int:
    text = printed
    if not printed.lstrip().startswith("{"):
        try:
            with open(printed, encoding="utf-8") as stream:
                text = stream.read()
        except OSError as error:
            raise from_os_error(error, f"read {printed!r:.200}") from None
    try:
        replay = Replay(from_text(text))
    except ValueError as error:
        raise BadRequest(f"this is no violation: {error}", f"{COMMAND} prints one with each violation") from None
    account = replay.account()
    if as_json:
        _say(json.dumps({"problems": account.problems, "endings": [one._asdict() for one in account.endings]}))
    else:
        _say(*_account_lines(account))
        _say(*[f"  VIOLATION {problem}" for problem in account.problems] or ["  nothing is wrong"])
    return 1 if account.problems else 0


def _plain(tally: Tally) -> dict[str, Any]:
    data = tally._asdict()
    data["rules"] = dict(tally.rules)
    data["violations"] = [
        {"problems": violation.problems, "replay": json.loads(to_text(violation))} for violation in tally.violations
    ]
    return data


def _sum(tallies: Iterable[Tally]) -> str:
    done = list(tallies)
    states, seconds = sum(tally.states for tally in done), sum(tally.seconds for tally in done)
    storages = sum(tally.storages for tally in done)
    found = sum(len(tally.violations) for tally in done)
    closed = sum(tally.closed for tally in done)
    return (
        f"{len(done)} explorations, {closed} closed: {sum(tally.cuts for tally in done)} power cuts, "
        f"{storages} different storages, {states} states in {seconds:.1f} s of one core "
        f"({storages / max(seconds, 1e-9):.0f} storages/s, {states / max(seconds, 1e-9):.0f} states/s); "
        f"{found} violations"
    )


def _say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)  # noqa: T201 - this is a command


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
