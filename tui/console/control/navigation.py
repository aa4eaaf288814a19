"""Which repository, replay or view of it is looked at: changing that, and going to where it is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tui.console.control.scanning import rescan
from tui.console.shell import Shell, Where

if TYPE_CHECKING:
    from tui.training.replay import Replay


def go_home(shell: Shell) -> None:
    """Show Triage, or the ways to begin when there is nothing to look at."""
    site = shell.site
    shell.show(Where("triage" if site.current else "first_run"))
    if site.current and site.replay is None and not site.view.known:
        rescan(shell)


def look_at(shell: Shell, name: str) -> None:
    """Look at another repository."""
    site = shell.site
    site.current = name
    site.lens = False
    site.chosen = site.settled = True
    site.poll()
    shell.show(Where("triage"))
    shell.refresh_pages()
    rescan(shell)


def turn_lens(shell: Shell) -> None:
    """Show all pages as they will be after the plan of the queue, or as they are."""
    shell.site.lens = not shell.site.lens
    shell.refresh_pages()


def open_trace(shell: Shell, path: str, then: Callable[[], None] = lambda: None) -> None:
    """Read a trace, replay it, then call ``then``."""
    from tui.training.replay import open_trace as read

    def done(replay: Replay) -> None:
        shell.site.begin_replay(replay)
        shell.show(Where("timeline"))
        shell.refresh_pages()
        then()

    shell.do("trace", lambda: read(path), done, "The trace could not be opened")


def leave_replay(shell: Shell) -> None:
    """Go from a simulation back to its replay, from a replay back to what is real."""
    if shell.site.branch is not None:
        shell.site.end_branch()
        shell.show(Where("timeline"))
    else:
        shell.site.end_replay()
        go_home(shell)
    shell.refresh_pages()
