"""What has ended of the work that went on by itself: noted in the history of this host, and told once."""

from __future__ import annotations

from collections.abc import Sequence

from tui.console.shell import Shell
from tui.text.printable import printable
from tui.work import away
from tui.work.history import Entry

_TOLD = 3


def settle(shell: Shell, at_start: bool = False) -> None:
    """Look what has ended, beside everything else. ``at_start``: nobody was here when it did.

    Runs that end under the eyes of the operator are told by the console as they end."""
    site = shell.site

    def done(value: Sequence[Entry] | None, error: BaseException | None) -> None:
        if error is not None:  # the history is a help, and no work waits for it
            return
        alone = [entry for entry in value or () if not entry.face.startswith("run ")]
        if at_start:
            told = away.news(alone)
        else:
            ended = [entry for entry in alone if not entry.verb.startswith("run ")]
            told = [printable(f"{entry.what} ended: {entry.outcome.rstrip('.')}.") for entry in ended[-_TOLD:]]
        for text in told:
            shell.tell(f"{text[:1].upper()}{text[1:]}")

    shell.jobs.start("history", site.settle, done)
