"""Looking again and again, until Ctrl-C: a screen that is drawn anew on a terminal, what has changed elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tui.cli.arguments import Parser
from tui.cli.render import Output
from tui.text.amounts import moment

_INTERVAL_S = 1.0
_SHARE = 4
"""Looking takes at most one part in so many of the time, and one more."""
_CLEAR = "\x1b[H\x1b[2J\x1b[3J"

T = TypeVar("T")


def add_watch(parser: Parser) -> None:
    parser.add_argument(
        "--watch",
        action="store_true",
        help="go on looking until Ctrl-C, which is no failure (exit code 0); with --json a line for each change",
    )


def shown(
    out: Output, wanted: bool, look: Callable[[], T], document: Callable[[T], dict[str, Any]], show: Callable[[T], None]
) -> None:
    """Look and show what was found; ``wanted``: again and again, until Ctrl-C, which is no failure."""
    if not wanted:
        found = look()
        out.document(document(found))
        if not out.json_wanted:
            show(found)
        return
    before: dict[str, Any] | None = None
    try:
        while True:
            started = time.monotonic()
            found = look()
            now = document(found)
            if out.terminal or now != before:
                _once(out, now, lambda: show(found))  # noqa: B023 - called at once
            before = now
            time.sleep(max(_INTERVAL_S, _SHARE * (time.monotonic() - started)))
    except KeyboardInterrupt:
        if out.terminal:
            out.line()  # after the ^C of the terminal


def _once(out: Output, now: dict[str, Any], show: Callable[[], None]) -> None:
    if out.json_wanted:
        out.event(json.dumps(now))
    else:
        out.line(f"{_CLEAR if out.terminal else ''}{moment(time.time())}, until Ctrl-C")
        show()
        out.line()
    out.flush()
