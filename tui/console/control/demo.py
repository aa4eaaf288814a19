"""The demo repository from the console: made by a process of its own, or opened if it is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tui
from engine.errors import DiskwrightError, StorageError
from tui.console.dialogs.choose import Choice, Choose
from tui.console.draw.lines import Span
from tui.training.demo import DemoFolder, DemoState, default_path

if TYPE_CHECKING:
    from tui.console.app import ConsoleApp

_HINT = "w tells why, space queues, p shows what will happen"


def begin(app: ConsoleApp) -> None:
    """Make the demo; where there is one, ask whether to open it or to make it again."""
    folder = DemoFolder(os.path.realpath(default_path()))
    if locked := app.why_locked():
        app.tell(f"Demo: {locked}.", "warning")
    elif folder.look() is DemoState.COMPLETE:
        choices = [
            Choice("o", Span("o", "key"), f"Open the demo that is in {folder.root}"),
            Choice("n", Span("n", "key"), "Delete it and make it again"),
        ]
        dialog = Choose("There is a demo already", lambda: choices, left=3, search=False, hot=True)

        def chosen(key: str | None) -> None:
            if key:
                make(app, fresh=key == "n")

        app.push_screen(dialog, chosen)
    else:
        make(app, fresh=False)


def make(app: ConsoleApp, fresh: bool, then: Callable[[], None] = lambda: None) -> None:
    """Make or open it beside the console, then look at it."""
    host, state = app.site.host, app.site.state

    def done(repo: str) -> None:
        app.site.reload()
        app.look_at(repo)
        app.tell(_HINT)
        then()

    told = "Making the demo: every crash in it is a real one. This takes some seconds."
    app.do("demo", lambda: _build(host, state, fresh), done, "The demo could not be made", told)


def _build(host: str, state: str, fresh: bool) -> str:
    """Run ``diskwright demo``; returns the handle of its main repository."""
    words = ["demo", "--json", "--host", host, "--state", os.path.dirname(state), *(["--fresh"] if fresh else [])]
    root = os.path.dirname(tui.__path__[0])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tui.cli.main", *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    document = _document(done.stdout)
    if "error" in document:
        told = document["error"]
        error: DiskwrightError = StorageError(str(told.get("message", "")), str(told.get("next_step", "")))
        raise error
    if done.returncode or "repository" not in document:
        raise StorageError(f"the demo ended with {done.returncode}: {done.stderr[-300:]}", "Try diskwright demo")
    return str(document["repository"])


def _document(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
