"""completion: what a shell reads so that it completes ``diskwright``."""

from __future__ import annotations

import argparse

from tui.cli.arguments import Parser
from tui.cli.completion import SHELLS, script
from tui.cli.session import Handler, Session


def add_completion(parser: Parser) -> None:
    parser.add_argument("shell", choices=SHELLS)


def run_completion(session: Session, arguments: argparse.Namespace) -> int:
    text = script(arguments.shell)
    session.out.document({"shell": arguments.shell, "script": text})
    session.out.line(text.rstrip("\n"))
    return 0


HANDLERS = {
    "completion": Handler(add_completion, run_completion),
}
