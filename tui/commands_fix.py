"""plan, fix and stop: which fixes, in which order, what they did."""

from __future__ import annotations

import argparse
import json
from typing import NamedTuple

from engine.errors import Ambiguous, BadRequest, NotFound
from engine.model import Fix, FixCost, FixType, RepositoryReport, Risk
from tui.arguments import Parser, UsageError, add_deep, fix_file
from tui.commands_look import change, space
from tui.follow import INTERRUPTED, Event, Follower, exit_code, failures
from tui.printable import printable
from tui.render import Output, compact, human
from tui.session import Session

_MIN_PREFIX = 4
_SAME_AGAIN = 3
"""A rule that fires on the same target so often after it was run does not get further that way."""


def _add_selectors(parser: Parser) -> None:
    parser.mixed = True
    parser.add_argument("repo", metavar="REPO")
    parser.add_argument("ids", metavar="ID", nargs="*", help="fixes as check prints them; the first digits do")
    parser.add_argument("--type", action="append", choices=[str(item) for item in FixType], help="repeatable")
    parser.add_argument("--all", action="store_true", help="every fix that loses no data")
    parser.add_argument("--lose-data", action="store_true", help="with --all, --type, --file: also those that do")
    parser.add_argument(
        "--file",
        metavar="FILE",
        help="fixes as `check --json` printed them, here or on another host; -: standard input",
    )
    add_deep(parser)


def add_plan(parser: Parser) -> None:
    _add_selectors(parser)


def add_fix(parser: Parser) -> None:
    _add_selectors(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the plan and change nothing")
    parser.add_argument("--no-wait", action="store_true", help="start one round of fixes and return")


class Choice(NamedTuple):
    """Which fixes the operator means."""

    named: tuple[Fix, ...]
    """Named one by one; empty when they are chosen by kind."""
    types: frozenset[str]
    """Kinds of fixes; all when nothing else was said."""
    lose_data: bool

    @property
    def by_kind(self) -> bool:
        """Whether fixes that turn up later are meant too."""
        return not self.named

    def of(self, report: RepositoryReport) -> list[Fix]:
        """The chosen fixes of a check, in the order to run them in."""
        return list(self.named) if self.named else [fix for fix in report.fixes if str(fix.type) in self.types]

    def skipped(self, fix: Fix) -> str:
        """Why a chosen fix is not run now, "" when it is."""
        if fix.risk is Risk.LOSES_DATA and not self.lose_data:
            return f"it loses data: name it ({fix.id}) or give --lose-data"
        return f"it waits for {fix.waits_for}" if fix.waits_for else ""


def _chosen(arguments: argparse.Namespace, report: RepositoryReport, everything: bool) -> Choice:
    """What the selectors mean. ``everything``: no selector means all."""
    ways = [bool(arguments.ids), bool(arguments.all or arguments.type), arguments.file is not None]
    if sum(ways) > 1:
        raise UsageError("name fixes by id, by --all or --type, or by --file; not in two ways at once")
    if not any(ways) and not everything:
        raise UsageError("no fix was named", f"diskwright check {arguments.repo} lists them; --all means every one")
    if arguments.ids:
        return Choice(tuple(_named(report, arguments.ids)), frozenset(), True)
    if arguments.file is not None:
        fixes, single = _from_file(arguments.file)
        known = {fix.id: fix for fix in report.fixes}
        # What a stranger says a fix costs is not repeated; what it does is for the engine to verify.
        named = tuple(known.get(fix.id) or fix._replace(cost=FixCost()) for fix in fixes)
        return Choice(named, frozenset(), single or arguments.lose_data)
    types = frozenset(arguments.type) if arguments.type and not arguments.all else frozenset(map(str, FixType))
    return Choice((), types, arguments.lose_data)


def _named(report: RepositoryReport, texts: list[str]) -> list[Fix]:
    """The fixes with those ids or beginnings of ids, in the order of the check."""
    wanted = set()
    for text in texts:
        found = [fix.id for fix in report.fixes if len(text) >= _MIN_PREFIX and fix.id.startswith(text.lower())]
        if not found:
            raise NotFound(
                f"check offers no fix {text!r:.60} now",
                f"diskwright check lists them; give {_MIN_PREFIX} or more digits of an id",
            )
        if len(found) > 1:
            raise Ambiguous(f"{text} is the beginning of the fixes {', '.join(found[:8])}", "Give more digits")
        wanted.add(found[0])
    return [fix for fix in report.fixes if fix.id in wanted]


def _from_file(path: str) -> tuple[list[Fix], bool]:
    """The fixes in a file, and whether it is a single one (which names it)."""
    data = fix_file(path)
    if isinstance(data, dict) and "fixes" in data:
        data = data["fixes"]
    single = isinstance(data, dict)
    items = [data] if single else data
    if not isinstance(items, list) or not items:
        raise BadRequest("the file has no fix", "Give a fix, a list of fixes, or what check --json printed")
    return [Fix.from_json(item) for item in items], single


# -- plan


class Step(NamedTuple):
    """One fix of a plan with the free space around it, estimated."""

    fix: Fix
    lowest: int
    free_after: int


def _steps(fixes: list[Fix], free: int) -> list[Step]:
    steps = []
    for fix in fixes:
        lowest = free - fix.cost.peak_extra_bytes
        free = lowest + fix.cost.reclaimed_bytes
        steps.append(Step(fix, lowest, free))
    return steps


def run_plan(session: Session, arguments: argparse.Namespace) -> int:
    report = _check(session, arguments)
    return _print_plan(session.out, arguments, report, _chosen(arguments, report, everything=True))


def _check(session: Session, arguments: argparse.Namespace) -> RepositoryReport:
    return session.engine.inspect_repository(arguments.repo, {"deep": True} if arguments.deep else {})


def _print_plan(out: Output, arguments: argparse.Namespace, report: RepositoryReport, choice: Choice) -> int:
    fixes = choice.of(report)
    skipped = [(fix, why) for fix in fixes if (why := choice.skipped(fix))]
    steps = _steps([fix for fix in fixes if not choice.skipped(fix)], report.free_bytes)
    lowest = min([report.free_bytes, *(step.lowest for step in steps)])
    out.document(
        {
            "repository": arguments.repo,
            "free_bytes": report.free_bytes,
            "lowest_free_bytes": lowest,
            "free_bytes_after": steps[-1].free_after if steps else report.free_bytes,
            "steps": [
                {"fix": step.fix.to_json(), "lowest_free_bytes": step.lowest, "free_bytes_after": step.free_after}
                for step in steps
            ],
            "skipped": [{"fix": fix.to_json(), "why": why} for fix, why in skipped],
        }
    )
    if out.json_wanted:
        return 0
    ids = out.short([fix.id for fix in fixes])
    for number, step in enumerate(steps, start=1):
        _print_step(out, number, step, ids[step.fix.id])
    if steps:
        out.line(
            f"Free space: {human(report.free_bytes)} now, {human(max(lowest, 0))} at the lowest point, "
            f"{human(max(steps[-1].free_after, 0))} afterwards (estimates)."
        )
    for fix, why in skipped:
        out.line(f"skipped   {ids[fix.id]}  {fix.type} {printable(fix.rule)} {fix.target or '-'}: {printable(why)}")
        if not fix.cost.fits and steps and steps[-1].free_after > fix.cost.peak_extra_bytes:
            out.line("          It may fit after the steps above; fix --all looks again by itself.")
    if not fixes:
        out.line("Nothing to do.")
    elif steps:
        out.line(f"Next: diskwright fix {printable(arguments.repo)} {printable(_selection(arguments))}")
    return 0


def _selection(arguments: argparse.Namespace) -> str:
    """The selectors as they were given, for the command to type next."""
    words = [f"--type {kind}" for kind in arguments.type or ()] if not arguments.all else []
    words += arguments.ids
    words += [f"--file {arguments.file}"] if arguments.file is not None else []
    words = words or ["--all"]
    return " ".join(words + ["--lose-data"] * arguments.lose_data + ["--deep"] * arguments.deep)


def _print_step(out: Output, number: int, step: Step, shown: str) -> None:
    fix = step.fix
    out.line(f"{number:3d}. {shown}  {fix.type} {printable(fix.rule)}  {fix.target or '-'}")
    room = "" if step.lowest >= 0 else "  does not fit"
    state = change(out, fix, False)
    out.line(f"     {state}   space: {space(fix)}   free afterwards: {compact(step.free_after)}{room}   {fix.risk}")
    out.line(f"     {printable(fix.why)}")


# -- fix


class Outcome:
    """What became of the fixes that were run."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self.done: list[Event] = []
        self.stale: list[Event] = []
        self.failed: list[Event] = []
        self.left: list[tuple[Fix, str]] = []

    def note(self, event: Event) -> None:
        """Tell an event and keep it."""
        kind = event.get("event")
        what = f"{event.get('type', '')} {event.get('rule', '')} {event.get('image', '') or event.get('fix', '')}"
        if kind == "done":
            self.done.append(event)
            self._out.say(f"done      {printable(what)}")
        elif kind == "stale":
            self.stale.append(event)
            self._out.say(f"outdated  {printable(what)}: {printable(event.get('error', ''))}")
        elif kind == "failed":
            self._out.say(f"failed    {printable(what)}: {printable(event.get('error', ''))}")

    def report(self, repo_id: str) -> int:
        """Print the summary; the exit code is that of the first failure."""
        out = self._out
        out.document(
            {
                "repository": repo_id,
                "done": [event.get("fix") for event in self.done],
                "outdated": [event.get("fix") for event in self.stale],
                "failed": [{key: event.get(key) for key in ("fix", "code", "error")} for event in self.failed],
                "left": [{"fix": fix.id, "rule": fix.rule, "image": fix.target, "why": why} for fix, why in self.left],
            }
        )
        out.line(f"{len(self.done)} done, {len(self.failed)} failed, {len(self.left)} left.")
        for event in self.failed:
            out.line(f"failed  {printable(event.get('fix') or '-')}  {printable(event.get('error', ''))}")
        for fix, why in self.left:
            out.line(f"left    {fix.id}  {fix.type} {printable(fix.rule)} {fix.target or '-'}: {printable(why)}")
        return exit_code(self.failed[0].get("code")) if self.failed else 0


def run_fix(session: Session, arguments: argparse.Namespace) -> int:
    report = _check(session, arguments)
    choice = _chosen(arguments, report, everything=arguments.dry_run)
    if arguments.dry_run:
        return _print_plan(session.out, arguments, report, choice)
    if arguments.no_wait:
        return _start_only(session, arguments.repo, choice, report)
    outcome = Outcome(session.out)
    try:
        if choice.by_kind:
            _run_by_kind(session, arguments, choice, report, outcome)
        else:
            _run_named(session, arguments.repo, choice, outcome)
    except KeyboardInterrupt:
        session.out.document({"repository": arguments.repo, "detached": True})
        session.out.say("Detached; what was started goes on, the rest was not started. Look: diskwright tasks")
        return INTERRUPTED
    return outcome.report(arguments.repo)


def _start_only(session: Session, repo_id: str, choice: Choice, report: RepositoryReport) -> int:
    todo = [fix for fix in choice.of(report) if not choice.skipped(fix)]
    if not todo:
        session.out.document({"repository": repo_id, "started": [], "task": None})
        session.out.say("Nothing can be run now: diskwright plan tells why.")
        return 0
    engine = session.engine
    task = engine.fix_storage_repository(repo_id, todo[0]) if len(todo) == 1 else engine.run_fixes(repo_id, todo)
    session.out.document(
        {"repository": repo_id, "started": [fix.id for fix in todo], "task": {"id": task.id, "pid": task.process.pid}}
    )
    noun = "fix" if len(todo) == 1 else "fixes"
    session.out.say(f"Started {len(todo)} {noun} in process {task.process.pid}. Look: diskwright tasks")
    return 0


def _run_named(session: Session, repo_id: str, choice: Choice, outcome: Outcome) -> None:
    """Run the named fixes. One that is alone is verified before it is started, so its refusal is an error."""
    todo = []
    for fix in choice.named:
        why = choice.skipped(fix)
        loses = fix.risk is Risk.LOSES_DATA and not choice.lose_data
        if not why or (len(choice.named) == 1 and not loses):
            todo.append(fix)
            continue
        outcome.left.append((fix, why))
        if not loses:
            outcome.failed.append({"event": "failed", "fix": fix.id, "error": why, "code": "refused"})
    if len(todo) == 1:
        task = session.engine.fix_storage_repository(repo_id, todo[0])
    elif todo:
        task = session.engine.run_fixes(repo_id, todo)
    else:
        return
    events = Follower(session, task, outcome.note).run()
    outcome.failed += failures(events)


def _run_by_kind(
    session: Session, arguments: argparse.Namespace, choice: Choice, report: RepositoryReport, outcome: Outcome
) -> None:
    """Run what can be run, check again, and go on until nothing new turns up."""
    tried: set[str] = set()
    runs: dict[str, int] = {}
    given_up: dict[str, str] = {}
    while True:
        todo = []
        for fix in choice.of(report):
            again = _what(fix)
            if runs.get(again, 0) >= _SAME_AGAIN:
                given_up.setdefault(again, f"it came back {_SAME_AGAIN} times")
            if fix.id not in tried and again not in given_up and not choice.skipped(fix):
                todo.append(fix)
        if not todo:
            break
        what = {fix.id: _what(fix) for fix in todo}
        tried |= what.keys()
        for again in what.values():
            runs[again] = runs.get(again, 0) + 1
        events = Follower(session, session.engine.run_fixes(arguments.repo, todo), outcome.note).run()
        for event in failures(events):
            outcome.failed.append(event)
            given_up[what.get(str(event.get("fix")), "")] = f"it failed: {event.get('error', '')}"
        report = _check(session, arguments)
        if not any(event.get("event") == "end" for event in events) or _was_stopped(events):
            break
    outcome.left = [
        (fix, given_up.get(_what(fix)) or choice.skipped(fix) or "it was not run") for fix in choice.of(report)
    ]
    busy = sum(finding.kind == "busy" for finding in report.findings)
    if busy:
        session.out.say(f"{busy} images are worked on now; diskwright check tells by whom.")


def _was_stopped(events: list[Event]) -> bool:
    return any(event.get("code") == "stopped" for event in events)


def _what(fix: Fix) -> str:
    """What a fix does to what: the same after a failure, although its id is another then."""
    return json.dumps([fix.rule, fix.target, fix.plan], sort_keys=True)


# -- stop


def add_stop(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO")
    parser.add_argument("image", metavar="IMAGE", help="what runs on it stops; the work done is kept")


def run_stop(session: Session, arguments: argparse.Namespace) -> int:
    image = session.image(arguments.repo, arguments.image)
    session.engine.stop_task(arguments.repo, image)
    name = printable(arguments.repo)
    session.out.document({"repository": arguments.repo, "image": image, "stopped": True})
    session.out.say(f"Stopped; the work done is kept. Go on with: diskwright fix {name} --type mend")
    return 0
