"""``diskwright sim``: scenarios, exploration and fuzzing, each by a module that is imported when it is asked for."""

from __future__ import annotations

import argparse
from importlib import import_module

from tui.cli.arguments import Parser
from tui.cli.render import OutputClosed
from tui.cli.session import Handler, Session

MODULES = {"run": "sim.scenario.command", "explore": "sim.explore.command", "fuzz": "sim.explore.random.fuzz"}
"""Each has ``main(argv) -> int`` (writes to standard output, raises the engine's errors) and ``make_parser()``."""


def add_sim(parser: Parser) -> None:
    parser.add_argument("action", choices=tuple(MODULES), help="what to do")
    parser.add_argument("rest", metavar="...", nargs=argparse.REMAINDER, help="its arguments")


def help_of(action: str) -> str:
    """What one of them says of itself; "" when there is no such thing."""
    return str(import_module(MODULES[action]).make_parser().format_help()) if action in MODULES else ""


def run_sim(session: Session, arguments: argparse.Namespace) -> int:
    """The exit code is that of the module. ``--json`` counts wherever it stands."""
    words = [*arguments.rest]
    if arguments.json and "--json" not in words:
        words.insert(0, "--json")
    session.out.answered = session.out.json_wanted  # what is told from here on is told by the module
    try:
        code: int = import_module(MODULES[arguments.action]).main(words)
    except BrokenPipeError:
        raise OutputClosed from None
    except BaseException:
        session.out.answered = False
        raise
    return code


HANDLERS = {
    "sim": Handler(add_sim, run_sim, help_of),
}
