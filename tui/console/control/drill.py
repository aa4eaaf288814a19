"""The crash drill from the console: a fix of the demo is killed at a random write, and what is left is shown."""

from __future__ import annotations

import random

from tui.console.control.scanning import rescan
from tui.console.dialogs.notice import Notice
from tui.console.shell import Shell
from tui.training.drill import DrillResult, crash_drill
from tui.training.drill import is_demo as belongs_to_demo
from tui.view.fixes import FixRow


def is_demo(shell: Shell) -> bool:
    """Whether the repository that is looked at belongs to the demo."""
    site = shell.site
    if site.replay is not None or not site.current:
        return False
    with site.engine() as engine:
        return belongs_to_demo(engine, site.current)


def begin(shell: Shell, row: FixRow) -> None:
    """Kill the fix at a random write, then show what is left and how it goes on."""
    site, repo = shell.site, shell.site.current
    seed = random.randrange(1 << 32)

    def call() -> DrillResult:
        with site.engine() as engine:
            return crash_drill(engine, repo, row, seed)

    def done(result: DrillResult) -> None:
        shell.open(Notice("Crash drill", [*result.lines, f"(seed {seed})"]))
        rescan(shell)

    shell.do("drill", call, done, "The drill could not begin", "The drill begins: a fix will be killed.")
