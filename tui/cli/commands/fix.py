"""fix, stop and rate: run fixes, and what they did."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from engine.data.amounts import human
from engine.data.model import Fix, RepositoryReport
from engine.errors import Irreversible, NotFound, Refused
from engine.triage import rules
from tui.cli.arguments import Parser, UsageError, add_rate, parse_rate
from tui.cli.confirm import confirmed
from tui.cli.fixes import Names, called, names_in, names_of
from tui.cli.follow import INTERRUPTED, Event, Follower, exit_code, failures
from tui.cli.render import Output
from tui.cli.selection import Choice, add_selectors, chosen
from tui.cli.session import Handler, Session, absolute
from tui.text.printable import printable, quoted

if TYPE_CHECKING:
    from engine.host.state import Task

_SAME_AGAIN = 3
"""A rule that fires on the same target so often after it was run does not get further that way."""
_NOT_BEGUN = "it was not begun: the process ended before its turn"


# -- fix


class Outcome:
    """What became of the fixes that were run."""

    def __init__(self, out: Output, names: Names) -> None:
        self._out = out
        self._names = names
        self.done: list[Event] = []
        self.stale: list[Event] = []
        self.failed: list[Event] = []
        self.left: list[tuple[Fix, str]] = []
        self.forbidden = 0
        """So many were chosen, cannot be undone, and nobody said that they may be done."""

    def note(self, event: Event) -> None:
        """Tell an event and keep it."""
        kind = event.get("event")
        what = f"{event.get('type', '')} {event.get('rule', '')} {called(self._names, str(event.get('image') or ''))}"
        if kind == "done":
            self.done.append(event)
            self._out.say(f"done      {printable(what)}")
        elif kind == "stale":
            self.stale.append(event)
            self._out.say(f"outdated  {printable(what)}: {printable(event.get('error', ''))}")
        elif kind == "failed":
            self._out.say(f"failed    {printable(what)}: {printable(event.get('error', ''))}")

    def report(self, repo_id: str) -> int:
        """Print the summary; the exit code is that of the first failure, then that of what nobody allowed."""
        out = self._out
        out.document(
            {
                "repository": repo_id,
                "done": [event.get("fix") for event in self.done],
                "outdated": [event.get("fix") for event in self.stale],
                "failed": [
                    {key: event.get(key) for key in ("fix", "image", "code", "error")}
                    | {"name": self._names.get(str(event.get("image")), "")}
                    for event in self.failed
                ],
                "left": [
                    {
                        "fix": fix.id,
                        "rule": fix.rule,
                        "image": fix.target,
                        "name": self._names.get(fix.target, ""),
                        "why": why,
                    }
                    for fix, why in self.left
                ],
            }
        )
        out.line(f"{len(self.done)} done, {len(self.failed)} failed, {len(self.left)} left.")
        for event in self.failed:
            which = called(self._names, str(event["image"])) + ": " if event.get("image") else ""
            out.prose(f"failed  {printable(event.get('fix') or '-')}  {which}{printable(event.get('error', ''))}", 8)
        for fix, why in self.left:
            what = f"{fix.type} {printable(fix.rule)} {called(self._names, fix.target)}"
            out.prose(f"left    {fix.id}  {what}: {printable(why)}", 8)
        if self.failed:
            return exit_code(self.failed[0].get("code"))
        return Irreversible.exit_code if self.forbidden else 0


def add_fix(parser: Parser) -> None:
    add_selectors(parser)
    parser.add_argument("--plan", metavar="ID", help="exactly the steps of a plan that was shown here")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and change nothing")
    parser.add_argument("--path", metavar="FILE", help="the file of an import or adoption that was not begun here")
    parser.add_argument("--no-wait", action="store_true", help="start one round of fixes and return")
    add_rate(parser)


def run_fix(session: Session, arguments: argparse.Namespace) -> int:
    if arguments.plan is not None:
        return _run_plan(session, arguments)
    if arguments.dry_run:
        return _dry_run(session, arguments)
    report = _check(session, arguments)
    choice = chosen(arguments, report.fixes, everything=False)._replace(rate=parse_rate(arguments.rate))
    if arguments.path is not None:
        choice, report = _with_file(session, arguments, choice)
    choice = _allowed(session, arguments, choice, report)
    if arguments.no_wait:
        return _start_only(session, arguments.repo, choice, report)
    outcome = Outcome(session.out, names_of(report.images))
    try:
        if choice.by_kind:
            _run_by_kind(session, arguments, choice, report, outcome)
            outcome.forbidden = 0 if choice.every else sum(choice.forbids(fix) for fix, _ in outcome.left)
        else:
            _run_named(session, arguments.repo, choice, outcome)
            outcome.forbidden = sum(map(choice.forbids, choice.named))
    except KeyboardInterrupt:
        session.out.document({"repository": arguments.repo, "detached": True})
        session.out.say("Detached; what was started goes on, the rest was not started. Look: diskwright tasks")
        return INTERRUPTED
    return outcome.report(arguments.repo)


_OF_FILES = (rules.B_IMPORT, rules.B_ADOPT, rules.C_REMOVED)
"""Rules whose fixes may need a file of this host that the operator has named."""


def _with_file(session: Session, arguments: argparse.Namespace, choice: Choice) -> tuple[Choice, RepositoryReport]:
    """Name the file of an import or adoption on this host; the choice is then the same fix as it is with that."""
    if len(choice.named) != 1 or choice.named[0].rule not in _OF_FILES:
        raise UsageError("--path names the file of one image", f"Give the ID of one fix {', '.join(_OF_FILES)} with it")
    rule, image = choice.named[0].rule, choice.named[0].target
    session.engine.name_import_file(arguments.repo, image, absolute(arguments.path))
    report = _check(session, arguments)
    named = tuple(fix for fix in report.fixes if (fix.rule, fix.target) == (rule, image))
    if not named:
        raise NotFound(f"check offers no fix for the file of image {image} any more", "Look: diskwright why")
    return choice._replace(named=named), report


def _allowed(session: Session, arguments: argparse.Namespace, choice: Choice, report: RepositoryReport) -> Choice:
    """The choice, with what cannot be undone if the operator types that it may be done. ``--all`` never means that."""
    never = [fix for fix in choice.of(report.fixes) if choice.forbids(fix) and not fix.waits_for]
    if not never or choice.every:
        return choice
    if confirmed(session.out, arguments.repo, never, names_of(report.images)):
        return choice._replace(irreversible=True)
    if len(choice.named) == 1:
        raise Irreversible(
            f"fix {never[0].id} ({never[0].rule}) cannot be undone: {never[0].why}", "Give --irreversible to run it"
        )
    return choice


def _dry_run(session: Session, arguments: argparse.Namespace) -> int:
    from tui.cli.commands.plan import run_plan

    return run_plan(session, arguments)


def _run_plan(session: Session, arguments: argparse.Namespace) -> int:
    """Run what was planned, if it still is what would be done."""
    from tui.cli import follow_run
    from tui.notes import notes_of
    from tui.view.gather import gather
    from tui.view.plan import validity
    from tui.work import plans

    others = (arguments.ids, arguments.type, arguments.all, arguments.file is not None, arguments.dry_run)
    if any(others):
        raise UsageError("a plan says itself what is run", "Give --plan ID and nothing else")
    if arguments.rate is not None:
        raise UsageError("a plan has no rate", "Run it, and tell what runs then: diskwright rate REPO IMAGE RATE")
    notes = notes_of(session.engine)
    identity = session.engine.context.repository(arguments.repo).identity
    plan = plans.load(notes, identity, arguments.plan)
    view = gather(session.engine, arguments.repo, any(step.row.deep for step in plan.steps))
    holds = validity(plan, view)
    if not holds.valid:
        name = quoted(arguments.repo)
        raise Refused(f"plan {plan.short} is out of date: {holds.reason}", f"Plan again: diskwright plan {name}")
    never = [fix for step in plan.steps if (fix := step.row.fix()).irreversible]
    names = names_in(step.row for step in plan.steps)
    if never and not (arguments.irreversible or confirmed(session.out, arguments.repo, never, names)):
        raise Irreversible(f"plan {plan.short}: {plan.never[0].rstrip('.')}", "Give --irreversible to run it")
    return follow_run.run_plan(session, notes, plan._replace(repo_id=arguments.repo), not arguments.no_wait)


def _check(session: Session, arguments: argparse.Namespace) -> RepositoryReport:
    return session.engine.inspect_repository(arguments.repo, {"deep": True} if arguments.deep else {})


def _start_only(session: Session, repo_id: str, choice: Choice, report: RepositoryReport) -> int:
    todo = [fix for fix in choice.of(report.fixes) if not choice.skipped(fix)]
    forbidden = any(map(choice.forbids, choice.of(report.fixes)))
    code = Irreversible.exit_code if forbidden and not choice.every else 0
    if not todo:
        session.out.document({"repository": repo_id, "started": [], "task": None})
        session.out.say("Nothing can be run now: diskwright plan tells why.")
        return code
    task = _start(session, repo_id, choice, todo)
    session.out.document(
        {"repository": repo_id, "started": [fix.id for fix in todo], "task": {"id": task.id, "pid": task.process.pid}}
    )
    noun = "fix" if len(todo) == 1 else "fixes"
    session.out.say(f"Started {len(todo)} {noun} in process {task.process.pid}. Look: diskwright tasks")
    return code


def _start(session: Session, repo_id: str, choice: Choice, todo: list[Fix]) -> Task:
    """One fix is verified before its process starts; of several each is when its turn comes."""
    if len(todo) == 1:
        return session.engine.fix_storage_repository(repo_id, todo[0], _options(choice))
    return _several(session, repo_id, choice, todo)


def _several(session: Session, repo_id: str, choice: Choice, todo: list[Fix]) -> Task:
    return session.engine.run_fixes(repo_id, todo, _options(choice))


def _options(choice: Choice) -> dict[str, object]:
    return {"irreversible": choice.irreversible, "rate": choice.rate}


def _run_named(session: Session, repo_id: str, choice: Choice, outcome: Outcome) -> None:
    """Run the named fixes. One that is alone is verified before it is started, so its refusal is an error."""
    todo = []
    for fix in choice.named:
        why = choice.skipped(fix)
        if not why or len(choice.named) == 1:
            todo.append(fix)
            continue
        outcome.left.append((fix, why))
        if not choice.forbids(fix):
            outcome.failed.append({"event": "failed", "fix": fix.id, "error": why, "code": "refused"})
    if todo:
        events = Follower(session, _start(session, repo_id, choice, todo), outcome.note).run()
        outcome.failed += failures(events)
        begun = {event.get("fix") for event in events}
        outcome.left += [(fix, _NOT_BEGUN) for fix in todo if fix.id not in begun]


def _run_by_kind(
    session: Session, arguments: argparse.Namespace, choice: Choice, report: RepositoryReport, outcome: Outcome
) -> None:
    """Run what can be run, check again, and go on until nothing new turns up."""
    tried: set[str] = set()
    runs: dict[str, int] = {}
    given_up: dict[str, str] = {}
    while True:
        todo = []
        for fix in choice.of(report.fixes):
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
        events = Follower(session, _several(session, arguments.repo, choice, todo), outcome.note).run()
        for event in failures(events):
            outcome.failed.append(event)
            given_up[what.get(str(event.get("fix")), "")] = f"it failed: {event.get('error', '')}"
        report = _check(session, arguments)
        if not any(event.get("event") == "end" for event in events) or _was_stopped(events):
            break
    outcome.left = [
        (fix, given_up.get(_what(fix)) or choice.skipped(fix) or "it was not run") for fix in choice.of(report.fixes)
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
    name = quoted(arguments.repo)
    session.out.document({"repository": arguments.repo, "image": image, "stopped": True})
    session.out.say(f"Stopped; what was saved is kept. The fix that goes on with it: diskwright check {name}")
    return 0


def add_limit(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO")
    parser.add_argument("image", metavar="IMAGE", help="what runs on it goes on at that rate")
    parser.add_argument("rate", metavar="RATE", help="so much in a second at most, as 50M; off for no limit")


def run_limit(session: Session, arguments: argparse.Namespace) -> int:
    image, rate = session.image(arguments.repo, arguments.image), parse_rate(arguments.rate)
    session.engine.limit_task(arguments.repo, image, rate)
    session.out.document({"repository": arguments.repo, "image": image, "rate": rate})
    session.out.say(f"It moves {human(rate)} in a second at most." if rate else "It moves as fast as it goes.")
    return 0


HANDLERS = {
    "fix": Handler(add_fix, run_fix),
    "stop": Handler(add_stop, run_stop),
    "rate": Handler(add_limit, run_limit),
}
