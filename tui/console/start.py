"""Starting the console on a terminal, and what is said when it has ended."""

from __future__ import annotations

import argparse
import locale
import os
import sys
import time

from engine.errors import NotFound
from tui.cli.session import Session
from tui.console.app import ConsoleApp, Options
from tui.console.draw.palette import PALETTES
from tui.console.pages.registry import act_names
from tui.console.site import Site
from tui.console.terminal.driver import TerminalDriver
from tui.text.printable import printable
from tui.work import config


def start(session: Session, arguments: argparse.Namespace) -> int:
    """Run the console until it is left; the terminal is as before then. NotFound when the repository that is asked
    for is not connected: the console would look for it without end."""
    size = _size_of_tab()
    for name in ("COLUMNS", "LINES"):  # an exported size would count for more than the window, whatever becomes of it
        os.environ.pop(name, None)
    path = config.default_path()
    known = act_names() if os.path.exists(path) else ()
    settings = config.load(path, known, tuple(PALETTES))
    site = Site(session.host, session.state, time.time, settings.reserve_share)
    site.reload()
    if arguments.repo and arguments.repo not in site.names():
        raise NotFound(
            f"repository {printable(arguments.repo)} is not connected", "diskwright repos lists those that are"
        )
    app = ConsoleApp(site, settings, options(session, arguments))
    if not os.environ.get("TEXTUAL_DRIVER"):
        app.driver_class = TerminalDriver
    app.run(mouse=not arguments.no_mouse, size=size)
    if app.last_words:
        session.out.say(app.last_words)
    return app.return_code or 0


def options(session: Session, arguments: argparse.Namespace) -> Options:
    """What the command line and the terminal say."""
    return Options(
        readonly=arguments.readonly,
        theme=arguments.theme,
        unicode=session.out.unicode and _utf8(),
        trace=arguments.trace,
        repository=arguments.repo,
        demo=arguments.demo,
    )


def _size_of_tab() -> tuple[int, int] | None:
    """The size at which a browser's tab was opened, which its server tells in the environment; None on a terminal."""
    if not os.environ.get("TEXTUAL_DRIVER"):
        return None
    try:
        return int(os.environ["COLUMNS"]), int(os.environ["ROWS"])
    except (KeyError, ValueError):
        return None


def _utf8() -> bool:
    """Whether what is written to the terminal is read as UTF-8: Python's own mode may hide what it expects."""
    if os.environ.get("TEXTUAL_DRIVER"):
        return True
    name = os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or ""
    if name in ("C", "POSIX"):
        return False
    encoding = (name.partition(".")[2] or locale.getpreferredencoding(False)).lower().replace("-", "")
    return encoding.startswith("utf8") or (not name and sys.stdout.encoding.lower().replace("-", "") == "utf8")
