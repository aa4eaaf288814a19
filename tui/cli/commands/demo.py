"""``diskwright demo``: makes the demo or opens the one there is, and shows what is in it and what to type next.

How a demo is made, and which files are its own, is told in ``tui.training.demo``.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from typing import Any, NamedTuple

from engine.data.model import Fix, ImageReport, RepositoryReport
from engine.errors import Refused
from tui.cli.arguments import Parser
from tui.cli.commands.look import counts, report_json
from tui.cli.fixes import change
from tui.cli.render import Output, is_terminal
from tui.cli.session import Handler, Session, shown_status
from tui.text.amounts import compact
from tui.text.printable import printable
from tui.training.demo import DemoFolder, DemoState, connect, default_path, make
from tui.training.demo_build import ARCHIVE, FORMAT, MAIN, OFFSITE


def add_demo(parser: Parser) -> None:
    parser.add_argument("--fresh", action="store_true", help="delete an earlier demo and make it again")
    parser.add_argument("--path", metavar="DIR", help="where to make it (default: the data directory of the user)")


def run_demo(session: Session, arguments: argparse.Namespace) -> int:
    """Make the demo where there is none, connect it on this host, and show what is in it."""
    folder = DemoFolder(os.path.realpath(arguments.path or default_path()))
    created = _make_if_wanted(session, folder, arguments.fresh)
    _show(session, folder, created, arguments.state)
    return 0


def _make_if_wanted(session: Session, folder: DemoFolder, fresh: bool) -> bool:
    """Whether a demo was made now."""
    state = folder.look()
    if state is DemoState.FOREIGN:
        raise Refused(
            f"{printable(folder.root)} has files that no demo made", "Name an empty or a new directory with --path"
        )
    if state is DemoState.COMPLETE and not fresh and not _asked_for_again(session.out, folder):
        return False
    make(session.engine, session.host, folder, session.out.say)
    return True


def _asked_for_again(out: Output, folder: DemoFolder) -> bool:
    if out.json_wanted or not (is_terminal(sys.stdin) and out.terminal):
        return False
    sys.stderr.write(f"There is a demo in {printable(folder.root)}. Delete it and make it again? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


# -- showing


class Shown(NamedTuple):
    """What is told about the demo."""

    handle: str
    report: RepositoryReport
    names: dict[str, str]

    def name(self, image: str) -> str:
        """What an image is called."""
        return printable(self.names.get(image, "-"))

    def images(self) -> list[ImageReport]:
        """Images in the order in which they matter."""
        order = ("broken", "unknown", "degraded", "removed", "optimized")
        visible = [image for image in self.report.images if not image.hidden]
        return sorted(visible, key=lambda image: (order.index(shown_status(image)), self.name(image.id)))


def _show(session: Session, folder: DemoFolder, created: bool, state: str | None) -> None:
    handles = connect(session.engine, folder)
    report = session.engine.inspect_repository(handles[MAIN])
    shown = Shown(handles[MAIN], report, folder.names())
    commands = _commands(session, folder, shown, state)
    document: dict[str, Any] = {
        "path": folder.root,
        "created": created,
        "repositories": {handles[name]: folder.parameters(name) for name in (MAIN, OFFSITE)},
        "not_connected": {ARCHIVE: folder.parameters(ARCHIVE)},
        "names": shown.names,
        **report_json(handles[MAIN], report),
        "next": [command for command, _ in commands],
    }
    session.out.document(document)
    if session.out.json_wanted:
        return
    _show_images(session.out, shown)
    _show_fixes(session.out, shown)
    _show_commands(session.out, commands)


def _show_images(out: Output, shown: Shown) -> None:
    images = shown.images()
    ids = out.short([image.id for image in images])
    states = [shown_status(image) for image in images]
    out.line(f"{printable(shown.handle)}: {counts(shown.report)}")
    out.line()
    rows = [
        (
            ids[image.id],
            out.status(state, usable=False),
            shown.name(image.id),
            compact(image.size_bytes),
            compact(image.used_bytes),
            printable(image.reason),
        )
        for image, state in zip(images, states, strict=True)
    ]
    out.table(("ID", "STATUS", "NAME", "SIZE", "USED", "REASON"), rows, states, 1, frozenset({3, 4}))


def _show_fixes(out: Output, shown: Shown) -> None:
    out.line()
    ids = out.short([fix.id for fix in shown.report.fixes])
    if not ids:
        out.line("Nothing to fix.")
        return
    out.line("What check offers, in a safe order:")
    for fix in shown.report.fixes:
        told = fix.waits_for and fix.waits_for not in fix.why
        wait = f" It waits for {printable(fix.waits_for)}." if told else ""
        out.line(f"  {ids[fix.id]}  {_what(out, shown, fix)}")
        for line in _wrapped(f"{printable(fix.why)}.{wait}", out.columns - 6 if out.terminal else 0):
            out.line(f"      {line}")


def _what(out: Output, shown: Shown, fix: Fix) -> str:
    target = shown.name(fix.target) if fix.target else "the repository"
    state = change(out, fix, short=False)
    return f"{fix.type} {target}" + (f"   {out.paint(fix.status_before, state)}" if state != "-" else "")


def _wrapped(text: str, room: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, max(room, 20), break_long_words=False) if room else [text]


def _commands(session: Session, folder: DemoFolder, shown: Shown, state: str | None) -> list[tuple[str, str]]:
    """Commands to type next, each with what it does."""
    known = shlex.join(["--state", state]) if state else ""
    program = " ".join(filter(None, ("diskwright", known)))
    repo = shlex.quote(shown.handle)
    ids = session.out.short([image.id for image in shown.images()])
    found = []
    first = next((fix.target for fix in shown.report.fixes if fix.target in ids), "")
    if first:
        found.append((f"{program} why {repo} {ids[first]}", f"what happened to {shown.name(first)}"))
    found.append((f"{program} plan {repo} --all", "what the fixes would do, step by step"))
    found.append((f"{program} fix {repo} --all", "do it"))
    if any(fix.irreversible for fix in shown.report.fixes):
        words = f"{program} fix {repo} --all --irreversible"
        found.append((words, "also what cannot be undone: delete, merge, give up"))
    if any(fix.waits_for for fix in shown.report.fixes):
        path = shlex.quote(f"path={folder.parameters(ARCHIVE)['path']}")
        found.append((f"{program} connect {ARCHIVE} {FORMAT} {path}", "brings back what a fix waits for"))
    fresh = "" if folder.root == os.path.realpath(default_path()) else f" --path {shlex.quote(folder.root)}"
    found.append((f"{program} demo --fresh{fresh}", "begin again"))
    return found


def _show_commands(out: Output, commands: list[tuple[str, str]]) -> None:
    out.line()
    out.line("Next:")
    for command, what in commands:
        out.line(f"  {printable(command)}")
        out.line(f"      {what}")


HANDLERS = {
    "demo": Handler(add_demo, run_demo),
}
