"""The console in browsers: each tab is a console of its own on the same repositories.

There is no login. Whoever knows the address acts as the operator who started the server, so the address ends
in a secret that is made anew at each start, and the server listens on this machine only unless another address
is named. What a stranger's page in the same browser can do is said in ``tui.console.web.guard``. Closing a tab
ends its console, and the end of the server ends them all; what runs goes on.
"""

from __future__ import annotations

import argparse
import shlex
import sys

from engine.errors import Refused, ToolMissing
from tui.cli.session import Session

_LOCAL = ("localhost", "127.0.0.1", "::1")


def serve(session: Session, arguments: argparse.Namespace, host: str, port: int) -> int:
    """Serve until Ctrl-C or SIGTERM; the address is told once it can be opened. ToolMissing without textual-serve,
    Refused when the address cannot be had."""
    try:
        from tui.console.web.server import ConsoleServer
    except ImportError:
        raise ToolMissing("textual-serve is not installed", "pip install 'diskwright[browser]'") from None
    if host not in _LOCAL:
        session.out.say(f"diskwright: {host} is not this machine alone, and nothing is encrypted on the way")
    server = ConsoleServer(shlex.join(_command(arguments)), host, port)

    def tell() -> None:
        session.out.document({"url": server.url})
        session.out.line(f"Open {server.url}")
        session.out.flush()
        session.out.say("Whoever has this address can do what you can. Ctrl-C ends it; what runs goes on.")

    try:
        server.run(tell)
    except OSError as error:
        reason = error.strerror or str(error)
        raise Refused(f"cannot listen on {host}:{port}: {reason}", "Name another one: --serve [HOST:]PORT") from error
    return 0


def _command(arguments: argparse.Namespace) -> list[str]:
    """The command of one tab: as this one, without serving."""
    words = [sys.executable, "-m", "tui.cli.main", "tui"]
    for name in ("host", "state", "theme", "trace"):
        value = getattr(arguments, name)
        if value:
            words += [f"--{name}", value]
    words += [f"--{name}" for name in ("readonly", "demo") if getattr(arguments, name)]
    return [*words, *([arguments.repo] if arguments.repo else [])]
