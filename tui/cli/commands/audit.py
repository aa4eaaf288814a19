"""audit: what is in directories and volume groups that are no repositories, and what nobody refers to."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from engine.data.amounts import human
from engine.data.model import Status
from tui.cli.arguments import Parser, add_deep
from tui.cli.commands.look import BROKEN, CLEANABLE, DEGRADED
from tui.cli.render import Output, is_terminal
from tui.cli.session import Handler, Session
from tui.text.printable import printable, typed

if TYPE_CHECKING:
    from engine.audit.model import AuditReport, Finding

_SHOWN = 20
_PROGRESS_S = 0.2


def add_audit(parser: Parser) -> None:
    parser.add_argument(
        "paths", metavar="PATH", nargs="+",
        help="a directory of images, with all that is below it; a volume group: vg:NAME, or /dev/NAME",
    )  # fmt: skip
    parser.add_argument(
        "--vms", metavar="PATH", action="append", default=[],
        help="a directory with definitions of machines: libvirt's XML, OVF, /etc/pve (repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--complete", action="store_true", help="nothing else refers to these images: what nobody needs is an orphan"
    )
    parser.add_argument("--all", action="store_true", help=f"show all files of a rule, not {_SHOWN}")
    parser.add_argument("--exit-code", action="store_true", help="tell by the exit code what is wrong, as check does")
    add_deep(parser)


def run_audit(session: Session, arguments: argparse.Namespace) -> int:
    from tui import audits

    wanted = audits.Request(tuple(arguments.paths), tuple(arguments.vms), arguments.complete, arguments.deep)
    with _progress() as progress:
        report = audits.run(wanted, session.host, progress)
    out = session.out
    out.document(_json(report))
    if not out.json_wanted:
        _print(out, report, arguments.all)
    return _verdict(report) if arguments.exit_code else 0


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    """Tell on a terminal what is done, a few times in a second."""
    wanted = is_terminal(sys.stderr)
    last = 0.0

    def tell(what: str, done: int, of: int) -> None:
        nonlocal last
        now = time.monotonic()
        if wanted and now - last >= _PROGRESS_S:
            last = now
            share = f"{done} of {of}" if of else str(done)
            sys.stderr.write(f"\r{what}: {share}\x1b[K")
            sys.stderr.flush()

    try:
        yield tell
    finally:
        if last:
            sys.stderr.write("\r\x1b[K")


def _json(report: AuditReport) -> dict[str, Any]:
    return {
        "places": [{"path": path, "layout": layout} for path, layout in report.places],
        "images": [image._asdict() for image in report.images],
        "findings": [
            {**found._asdict(), "evidence": [{"what": what, "says": says} for what, says in found.evidence]}
            for found in report.findings
        ],
        "others": report.others,
        "unsure": report.unsure,
    }


def _verdict(report: AuditReport) -> int:
    from engine.audit.rules import A_ORPHAN, A_REMNANT

    states = {found.status for found in report.findings}
    if states & {Status.BROKEN, Status.UNKNOWN}:
        return BROKEN
    if Status.DEGRADED in states:
        return DEGRADED
    return CLEANABLE if any(found.rule in (A_ORPHAN, A_REMNANT) for found in report.findings) else 0


def _print(out: Output, report: AuditReport, every: bool) -> None:
    from tui.audits import counts

    for path, layout in report.places:
        out.line(f"{printable(path)}: {layout}")
    out.prose(counts(report))
    for rule, group in groupby(report.findings, lambda found: found.rule):
        _print_rule(out, rule, list(group), every)
    out.line()
    if report.unsure:
        out.prose(f"No image is called an orphan: {printable(report.unsure[0])}.")
        if len(report.unsure) > 1:
            out.prose(f"There are {len(report.unsure) - 1} more reasons for that; --json has them.")
    if report.findings:
        out.line(f"Next: diskwright why {report.findings[0].rule} tells more of a rule")
    else:
        out.line("Nothing was found.")


def _print_rule(out: Output, rule: str, found: Sequence[Finding], every: bool) -> None:
    from tui.text.rules import EVERY

    held = sum(one.size_bytes for one in found)
    noun = "file" if len(found) == 1 else "files"
    state = str(found[0].status)
    out.line()
    head = f"{out.status(state)}  {rule}: {len(found)} {noun}" + (f", {human(held)}" if held else "")
    out.line(out.paint(state, head))
    shown = found if every else found[:_SHOWN]
    if any(one.command for one in shown):
        out.prose(f"  {EVERY[rule].stuck}", indent=2)
    for one in shown:
        size = f" ({human(one.size_bytes)})" if one.size_bytes else ""
        out.line(f"  {printable(one.path)}: {printable(one.reason)}{size}")
        if one.command:
            out.line(f"    there: {typed(one.command)}")
    if len(shown) < len(found):
        out.line(f"  and {len(found) - len(shown)} more: --all")


HANDLERS = {
    "audit": Handler(add_audit, run_audit),
}
