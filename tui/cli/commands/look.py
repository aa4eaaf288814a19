"""Commands that only look: status, why, check. Lists are in ``listing`` and ``running``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from engine.data.amounts import human
from engine.data.model import Fix, ImageReport, RepositoryReport, Status
from engine.data.options import parse
from engine.errors import NotFound, Refused
from engine.triage import rules
from tui.cli import fixes
from tui.cli.arguments import IMAGE, Parser, add_deep, add_verb_options
from tui.cli.render import Output
from tui.cli.session import Handler, Session, image_json, kind, machine_json, running, shown_status
from tui.text.amounts import moment
from tui.text.printable import printable, quoted
from tui.text.statuses import COUNTED, LOOKS, State

if TYPE_CHECKING:
    from tui.view.machines import MachineRow
    from tui.view.snapshot import RepositoryView

CLEANABLE, DEGRADED, BROKEN = 10, 11, 12
"""Exit codes of ``check --exit-code``. An image that is unknown counts as broken: nobody can say that it is not."""


def add_status(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO")
    parser.add_argument("image", metavar="IMAGE", help=IMAGE)
    parser.add_argument(
        "--ask", action="store_true", help="ask its machine too what it has open and does; nobody else can meanwhile"
    )
    add_deep(parser)
    add_verb_options(parser, auto_fix=False)


def run_status(session: Session, arguments: argparse.Namespace) -> int:
    image = session.image(arguments.repo, arguments.image)
    report = session.engine.get_image_status(arguments.repo, image, session.options(arguments))
    task = session.task_on(arguments.repo, image)
    running = {"id": task.id, "pid": task.process.pid, "verb": task.verb} if task else None
    from tui.view import machines

    prepared = _prepared(session, arguments.repo, image)
    asked = _asked(session, prepared) if arguments.ask else None
    session.out.document(
        {
            "repository": arguments.repo,
            **image_json(report),
            "task": running,
            "prepared": [machine_json(row) for row in prepared],
            **({} if asked is None else {"asked": asked}),
        }
    )
    for line in status_lines(session.out, report):
        session.out.line(line)
    if task is not None:
        session.out.line(f"task      {printable(task.verb)} in process {task.process.pid} since {moment(task.started)}")
    for row in prepared:
        for label, text in machines.told(row):
            session.out.prose(f"{label.lower():<10}{text}", 10)
    for number, text in enumerate(asked or ()):
        session.out.prose(f"{'' if number else 'asked':<10}{text}", 10)
    return 0


def _prepared(session: Session, repo_id: str, image: str) -> list[MachineRow]:
    """How the image is prepared on this host."""
    from tui.view import live, machines

    engine = session.engine
    rows = [row for row in machines.noted(engine) if row.image == image and row.repository == printable(repo_id)]
    return list(live.at_work(engine, machines.seen(engine, repo_id, rows))) if rows else []


def _asked(session: Session, prepared: list[MachineRow]) -> list[str]:
    """What its machine says. Refused where it is not prepared, or nobody has told how to speak to its machine."""
    if not prepared:
        raise Refused("it is not prepared on this host, so it has no machine here", "Ask on the host that has it")
    row = next((row for row in prepared if row.monitor), None)
    if row is None:
        raise Refused("nobody has told how to speak to its machine", "diskwright attach REPO IMAGE MONITOR tells that")
    from tui.view import machines

    return machines.asked(session.engine, row)


def status_lines(out: Output, image: ImageReport) -> list[str]:
    """Everything about one image, a line for each thing."""
    state = shown_status(image)
    lines = [
        f"image     {image.id}" + (f"  {printable(image.name)}" if image.name else ""),
        f"status    {out.paint(state, out.status(state))}" + (f"  {running(image)}" if image.busy else ""),
        f"reason    {printable(image.reason)}",
        f"kind      {kind(image)}, {human(image.size_bytes)}, {human(image.used_bytes)} used, for {image.strategy}",
    ]
    operation = image.operation
    if operation is None:
        lines.append("last      no operation is recorded")
    else:
        stage = f"stage {operation.stage}/{operation.stages}" if operation.stages else "stage -"
        name = f" ({printable(operation.stage_name)})" if operation.stage_name else ""
        share = f"{operation.percent} %" if operation.percent >= 0 else "no percentage"
        who = f"{printable(operation.verb)} by {printable(operation.host)}"
        lines.append(f"last      {who}, {stage}{name}, {share}, {moment(operation.when)}")
        if operation.last_error:
            label = "stopped" if operation.stopped else "error"
            lines.append(f"{label:<9} {printable(operation.last_error)}")
    lines.append(f"busy      {printable(image.busy) or 'no'}")
    lines += [f"note      {printable(remark)}" for remark in image.remarks]
    lines += _lost_lines(image)
    return lines


def _lost_lines(image: ImageReport) -> list[str]:
    return [f"lost      {length} bytes at {start} read as zeros" for start, length in image.lost]


def add_why(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO|RULE", help="a connected repository; or a rule, such as B-COPY, alone")
    parser.add_argument("image", metavar="IMAGE", nargs="?", help=IMAGE)
    add_deep(parser)
    add_verb_options(parser, auto_fix=False)


def run_why(session: Session, arguments: argparse.Namespace) -> int:
    if arguments.image is None:
        return _explain_rule(session.out, arguments.repo)
    return _explain_image(session, arguments)


def _explain_rule(out: Output, code: str) -> int:
    from tui.text.rules import EVERY, as_data, lines

    rule = EVERY.get(code.upper())
    if rule is None:
        raise NotFound(f"there is no rule {code!r:.40}", "Name a rule as check shows it, or a repository and an image")
    out.document(as_data(rule))
    out.line(rule.code)
    for label, text in lines(rule):
        out.line(f"{label:<7} {text}")
    return 0


def _explain_image(session: Session, arguments: argparse.Namespace) -> int:
    import time

    from tui.notes import notes_of
    from tui.view import estimates
    from tui.view.facts import facts_of
    from tui.view.gather import about
    from tui.view.why import explain, prepared_action

    out, engine = session.out, session.engine
    image = session.image(arguments.repo, arguments.image)
    deep = parse("get_image_status", session.options(arguments)).deep
    found = about(engine, arguments.repo, image, deep)
    if found is None:
        engine.get_image_status(arguments.repo, image)  # tells what has become of it
        raise NotFound(f"image {image} went away just now", "Look again")
    report, view = found
    times = estimates.load(notes_of(engine), view.identity)
    view = view._replace(fixes=estimates.measured(view.fixes, times))
    facts = facts_of(engine, arguments.repo, image)
    told = explain(view, image, time.time(), facts)
    if told is None:
        raise NotFound(f"image {image} went away just now", "Look again")
    state = shown_status(report)
    offered = [row.fix() for row in told.fixes]
    elsewhere = {row.id: why for row in told.fixes if (why := view.runs_elsewhere(row))}
    prepared = view.machines_of(image)
    steps = _what_to_do(arguments.repo, report._replace(busy="") if prepared else report, offered, elsewhere)
    if report.busy and prepared and not offered:
        steps = [f"{prepared_action(prepared)}. diskwright status {quoted(arguments.repo)} {image}"]
    out.document(
        {
            "repository": arguments.repo,
            **image_json(report),
            "impact": next((line.text for line in told.lines if line.label == "Impact"), ""),
            "waiting_images": _waiting_for(view, image),
            "explanation": [line._asdict() for line in told.lines],
            "evidence": [fact._asdict() for fact in told.facts],
            "fixes": [fix.to_json() for fix in offered],
            "next_steps": steps,
        }
    )
    head, *lines = told.text()
    out.line(out.paint(state, head))
    for line in lines:
        out.prose(line, 7)
    for line in _lost_lines(report):
        out.line(line)
    for step in steps:
        out.prose(f"to do  {step}", 7)
    return 0


def _waiting_for(view: RepositoryView, image: str) -> list[str]:
    """Images that are as they are because of this one."""
    rows = (view.images[index] for index in view.images.not_optimized())
    return [row.id for row in rows if row.id != image and image in row.reason]


def _what_to_do(repo_id: str, image: ImageReport, offered: list[Fix], elsewhere: dict[str, str]) -> list[str]:
    name = quoted(repo_id)
    if image.busy:
        return [f"Wait: somebody works on it. diskwright status {name} {image.id}"]
    steps = [
        f"diskwright fix {name} {fix.id}{' --irreversible' if fix.irreversible else ''}"
        + (f" there: {printable(elsewhere[fix.id])}" if fix.id in elsewhere else "")
        for fix in offered
        if not fix.waits_for
    ]
    steps += [f"Provide what fix {fix.id} waits for: {printable(fix.waits_for)}" for fix in offered if fix.waits_for]
    if image.removed:
        steps.append(f"diskwright restore {name} {image.id}")
    if steps:
        return steps
    if image.status == "optimized":
        return ["Nothing."]
    if image.rule in (rules.B_BASE, rules.U_BASE):
        return [f"Mend the image that it needs: diskwright plan {name} --type mend"]
    if image.status == "unknown":
        return ["Make the storage readable, then look again."]
    return [
        f"No fix is known here. Connect a repository that has it, or remove it: diskwright remove {name} {image.id}"
    ]


def add_check(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO")
    parser.add_argument("--exit-code", action="store_true", help="tell by the exit code what is wrong, for scripts")
    add_deep(parser)
    add_verb_options(parser, auto_fix=False)


def run_check(session: Session, arguments: argparse.Namespace) -> int:
    out = session.out
    report = session.engine.inspect_repository(arguments.repo, session.options(arguments))
    out.document(report_json(arguments.repo, report))
    code = verdict(report) if arguments.exit_code else 0
    if out.json_wanted:
        return code
    name = printable(arguments.repo)
    out.prose(f"{name}: {counts(report)}. {human(report.free_bytes)} of {human(report.total_bytes)} free.")
    if report.fixes:
        out.line()
        fixes.table(out, report.fixes, fixes.names_of(report.images))
    if report.findings:
        out.line()
        for finding in report.findings:
            size = f" ({human(finding.size_bytes)})" if finding.size_bytes else ""
            out.prose(f"{finding.kind}: {printable(finding.subject)}: {printable(finding.text)}{size}")
    out.line()
    out.prose(_next(quoted(arguments.repo), report))
    return code


def verdict(report: RepositoryReport) -> int:
    """The exit code of ``check --exit-code``: that of the worst that there is."""
    states = {image.status for image in report.images if not image.hidden and not image.removed}
    if states & {Status.BROKEN, Status.UNKNOWN}:
        return BROKEN
    if Status.DEGRADED in states:
        return DEGRADED
    return CLEANABLE if _by_kind(report) else 0


def _by_kind(report: RepositoryReport) -> list[Fix]:
    """What is left to do; what is run by its id alone may wait for ever."""
    return [fix for fix in report.fixes if fix.rule not in rules.BY_ID_ONLY]


def _next(name: str, report: RepositoryReport) -> str:
    left = _by_kind(report)
    if any(not fix.waits_for and not fix.irreversible for fix in left):
        return f"Next: diskwright plan {name}, then diskwright fix {name} --all"
    if any(not fix.waits_for for fix in left):
        return f"Next: diskwright plan {name} --irreversible tells what is left to do, which cannot be undone"
    if left:
        return f"Next: diskwright plan {name} tells what each fix waits for"
    if any(image.status != "optimized" and not image.hidden for image in report.images):
        return f"Next: diskwright why {name} IMAGE"
    if report.fixes:
        fix = report.fixes[0]
        return f"Next, when every host has this version: diskwright fix {name} {fix.id} --irreversible"
    return "Nothing to do."


def report_json(repo_id: str, report: RepositoryReport) -> dict[str, Any]:
    """A check as JSON data; ``fix --file`` takes it on any host."""
    return {
        "repository": repo_id,
        "images": [image_json(image) for image in report.images if not image.hidden],
        "fixes": [fix.to_json() for fix in report.fixes],
        "names": fixes.names_of(report.images),
        "findings": [finding._asdict() for finding in report.findings],
        "total_bytes": report.total_bytes,
        "free_bytes": report.free_bytes,
    }


def counts(report: RepositoryReport) -> str:
    """How many images have which status."""
    shown = [shown_status(image) for image in report.images if not image.hidden]
    told = {
        state: f"{shown.count(state)} {state}" + (f" ({LOOKS[state].brief})" if LOOKS[state].brief else "")
        for state in COUNTED
        if state in shown
    }
    removed = told.pop(State.REMOVED, "")  # no image any more, and not one of the number
    number = len(shown) - shown.count("removed")
    noun = "image" if number == 1 else "images"
    return f"{number} {noun}" + (f": {', '.join(told.values())}" if told else "") + (f"; {removed}" if removed else "")


HANDLERS = {
    "status": Handler(add_status, run_status),
    "why": Handler(add_why, run_why),
    "check": Handler(add_check, run_check),
}
