"""The console in browsers, by textual-serve: each tab is a console of its own on the same repositories.

There is no login: whoever reaches the port is the operator. So it listens on this machine only unless
another address is named. Closing a tab ends its console; what runs goes on.
"""

from __future__ import annotations

import argparse
import shlex
import sys

from engine.errors import ToolMissing
from tui.session import Session

_LOCAL = ("localhost", "127.0.0.1", "::1")


def serve(session: Session, arguments: argparse.Namespace, host: str, port: int) -> int:
    """Serve until Ctrl-C. ToolMissing without textual-serve."""
    try:
        from textual_serve.server import Server
    except ImportError:
        raise ToolMissing("textual-serve is not installed", "pip install 'diskwright[browser]'") from None
    if host not in _LOCAL:
        session.out.say(f"diskwright: there is no login; whoever reaches {host}:{port} can change the repositories")
    server = Server(shlex.join(_command(arguments)), host=host, port=port, title="diskwright")
    server.serve()
    return 0


def _command(arguments: argparse.Namespace) -> list[str]:
    """The command of one tab: as this one, without serving."""
    words = [sys.executable, "-m", "tui.cli", "tui"]
    for name in ("host", "state", "theme", "trace"):
        value = getattr(arguments, name)
        if value:
            words += [f"--{name}", value]
    words += [f"--{name}" for name in ("readonly", "demo") if getattr(arguments, name)]
    return [*words, *([arguments.repo] if arguments.repo else [])]
