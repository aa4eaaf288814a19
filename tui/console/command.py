"""``diskwright tui``: the console. Textual is imported only when it is really shown."""

from __future__ import annotations

import argparse
import gc
import os
import sys

from tui.cli.arguments import Parser, UsageError
from tui.cli.render import is_terminal
from tui.cli.session import Handler, Session
from tui.text.printable import printable

_THEMES = ("dark", "light", "high", "terminal")
_SERVE_DEFAULT = "localhost:8420"


def add_tui(parser: Parser) -> None:
    parser.add_argument("repo", metavar="REPO", nargs="?", default="", help="the repository to look at first")
    parser.add_argument("--readonly", action="store_true", help="look, and change nothing")
    parser.add_argument("--theme", choices=_THEMES, default="", help="colours, for this time")
    parser.add_argument("--no-mouse", action="store_true", help="leave the mouse to the terminal")
    parser.add_argument("--trace", metavar="FILE", default="", help="replay a simulation trace")
    parser.add_argument("--demo", action="store_true", help="make the demo repository, or open the one there is")
    parser.add_argument(
        "--serve", metavar="[HOST:]PORT", nargs="?", const=_SERVE_DEFAULT, default="",
        help="show it in browsers, at an address that ends in a secret; default: localhost:8420",
    )  # fmt: skip


def run_tui(session: Session, arguments: argparse.Namespace) -> int:
    """Show the console; without a terminal, the same as a table."""
    if arguments.serve:
        return _serve(session, arguments)
    if session.out.json_wanted or not _can_show(session):
        return _plain(session, arguments)
    return _show(session, arguments)


def _show(session: Session, arguments: argparse.Namespace) -> int:
    """Nothing that is imported becomes garbage: to look for it among thousands of classes is a tenth of the start."""
    gc.disable()
    try:
        from tui.console.start import start

        gc.freeze()
    finally:
        gc.enable()
    return start(session, arguments)


def _can_show(session: Session) -> bool:
    """Textual writes escapes and waits for ever where there is no terminal to answer."""
    if os.environ.get("TEXTUAL_DRIVER"):
        return True
    return session.out.terminal and is_terminal(sys.stdin) and os.environ.get("TERM", "") not in ("", "dumb")


def _plain(session: Session, arguments: argparse.Namespace) -> int:
    """What the first page would say, as a table of the repositories or of the fixes of one."""
    from tui.cli.commands.look import run_check
    from tui.cli.commands.repositories import run_repos

    if not session.out.json_wanted:
        session.out.say("diskwright: no terminal that the console could be shown on; this is the same as a table")
    if arguments.repo:
        return run_check(session, _of_check(arguments, arguments.repo))
    code = run_repos(session, arguments)
    if not session.out.json_wanted:
        for name in sorted(session.engine.list_repositories()):
            session.out.line()
            session.out.line(f"Fixes of {printable(name)}:")
            _check(session, arguments, name)
    return code


def _of_check(arguments: argparse.Namespace, name: str) -> argparse.Namespace:
    """What ``check NAME`` would have been given."""
    return argparse.Namespace(**{**vars(arguments), "repo": name, "deep": False, "option": None, "exit_code": False})


def _check(session: Session, arguments: argparse.Namespace, name: str) -> None:
    from engine.errors import DiskwrightError
    from tui.cli.commands.look import run_check

    try:
        run_check(session, _of_check(arguments, name))
    except DiskwrightError as error:
        session.out.line(printable(f"{error.message}. {error.next_step}"))


def _serve(session: Session, arguments: argparse.Namespace) -> int:
    host, colon, port = arguments.serve.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"--serve takes [HOST:]PORT, not {arguments.serve!r:.60}")
    from tui.console.web.serve import serve

    return serve(session, arguments, host if colon else "localhost", int(port))


HANDLERS = {
    "tui": Handler(add_tui, run_tui),
}
