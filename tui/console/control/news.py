"""What has ended of the work that went on by itself: noted in the history of this host, and told once."""

from __future__ import annotations

from collections.abc import Sequence

from tui.console.shell import Shell
from tui.text.printable import printable
from tui.work import away
from tui.work.history import Entry

_TOLD = 3


def settle(shell: Shell, at_start: bool = False) -> None:
    """Look what has ended, beside everything else. ``at_start``: nobody was here when it did, and what goes on is told.

    Runs that end under the eyes of the operator are told by the console as they end."""
    site = shell.site

    def look() -> tuple[Sequence[Entry], Sequence[str]]:
        return site.settle(), away.going_on(site.notes) if at_start else ()

    def done(value: tuple[Sequence[Entry], Sequence[str]] | None, error: BaseException | None) -> None:
        if error is not None or value is None:  # the history is a help, and no work waits for it
            return
        ended_now, goes_on = value
        alone = [entry for entry in ended_now if not entry.face.startswith("run ")]
        if at_start:
            told = [*away.news(alone), *goes_on]
        else:
            ended = [entry for entry in alone if not entry.verb.startswith("run ")]
            told = [printable(f"{entry.what} ended: {entry.outcome.rstrip('.')}.") for entry in ended[-_TOLD:]]
        for text in told:
            shell.tell(f"{text[:1].upper()}{text[1:]}")

    shell.jobs.start("history", look, done)
