"""The demo repository from the console: made by a process of its own, or opened if it is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import tui
from engine.errors import StorageError
from tui.console.control.navigation import look_at
from tui.console.dialogs.choose import Choice, Choose
from tui.console.draw.lines import Span
from tui.console.shell import Shell
from tui.text.printable import printable
from tui.training.demo import DemoFolder, DemoState, default_path

_HINT = "w tells why, space queues, p shows what will happen"


def begin(shell: Shell) -> None:
    """Make the demo; where there is one, ask whether to open it or to make it again."""
    folder = DemoFolder(os.path.realpath(default_path()))
    if locked := shell.site.why_locked():
        shell.tell(f"Demo: {locked}.", "warning")
    elif folder.look() is DemoState.COMPLETE:
        choices = [
            Choice("o", Span("o", "key"), f"Open the demo that is in {folder.root}"),
            Choice("n", Span("n", "key"), "Delete it and make it again"),
        ]
        dialog = Choose("There is a demo already", lambda: choices, left=3, search=False, hot=True)

        def chosen(key: str | None) -> None:
            if key:
                make(shell, fresh=key == "n")

        shell.open(dialog, chosen)
    else:
        make(shell, fresh=False)


def place() -> str:
    """Return where a demo would be made, as a shell takes it."""
    return printable(default_path().replace(os.path.expanduser("~"), "~", 1))


def make(shell: Shell, fresh: bool, root: str = "", then: Callable[[], None] = lambda: None) -> None:
    """Make the demo, or open the one there is unless ``fresh``, beside the console; look at it, then call ``then``.
    ``root``: the directory that it is made in, when that is not the operator's demo."""
    host, state = shell.site.host, shell.site.state

    def done(repo: str) -> None:
        shell.site.reload()
        look_at(shell, repo)
        shell.tell(_HINT)
        then()

    message = "Making the demo: every crash in it is a real one. This takes some seconds."
    shell.do("demo", lambda: _build(host, state, fresh, root), done, "The demo could not be made", message)


def _build(host: str, state: str, fresh: bool, root: str) -> str:
    """Run ``diskwright demo``; return the name of the main repository on this host."""
    words = ["demo", "--json", "--host", host, "--state", os.path.dirname(state), *(["--fresh"] if fresh else [])]
    words += ["--path", root] if root else []
    package = os.path.dirname(tui.__path__[0])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tui.cli.main", *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    document = _document(done.stdout)
    if "error" in document:
        found = document["error"]
        raise StorageError(str(found.get("message", "")), str(found.get("next_step", "")))
    if done.returncode or "repository" not in document:
        raise StorageError(f"the demo ended with {done.returncode}: {done.stderr[-300:]}", "Try diskwright demo")
    return str(document["repository"])


def _document(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
