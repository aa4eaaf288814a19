"""When repositories are scanned, and what becomes of what a scan saw. The scan is a process (``tui.work.scanner``)."""

from __future__ import annotations

from functools import partial

from engine.errors import DiskwrightError
from tui.console.control import news
from tui.console.draw.lines import plain
from tui.console.shell import Shell
from tui.console.widgets import headers
from tui.view.snapshot import RepositoryView
from tui.work.scanner import Cancelled

QUIET_RESCAN_S = 30.0
WATCHED_RESCAN_S = 2.0
"""While a plan is shown, changes of others are seen within about this time."""
LIVE_RESCAN_S = 6.0
"""While something runs, or another process or host works on an image: each scan is a process, and the bar of a run does
not come from scans."""
RESCAN_SHARE = 20
"""A scan that takes long is repeated less often: at most this share of the time is spent scanning."""
RETRY_LOST_S = 30.0
OTHERS_RESCAN_S = 300.0
"""Repositories that are not looked at are scanned as often, one after the other."""
PATIENCE_S = 3.0
"""What has not answered for so long does not keep others from being looked at."""
_OTHERS = "scan of another repository"


def rescan(shell: Shell, asked: bool = False, deep: bool = False) -> None:
    """Scan the repository that is looked at, beside everything else; ``deep``: read the data too.

    While such a scan is under way nothing is begun, and that is told to whoever ``asked``."""
    site, name = shell.site, shell.site.current
    if not name or site.replay is not None:
        return
    site.scan_times[name] = site.clock()
    started = shell.jobs.start(f"scan {name}", lambda: site.scan(name, deep), partial(_scanned, shell, name))
    if not started and asked:
        shell.tell("A scan is under way.")


def scan_if_due(shell: Shell, watched: bool) -> None:
    """Scan what was not scanned for long; ``watched``: changes of others are to be seen soon."""
    if _is_due(shell, watched):
        rescan(shell)
    scan_another(shell)


def scan_another(shell: Shell) -> None:
    """Scan a repository that is not looked at and was not for long: the list tells of all of them."""
    site = shell.site
    if site.replay is not None or shell.jobs.busy(_OTHERS) or _first_look(shell):
        return
    due = site.clock() - OTHERS_RESCAN_S
    names = [entry.name for entry in site.entries if entry.name != site.current]
    name = next((name for name in names if site.scan_times.get(name, 0.0) <= due), "")
    if name:
        site.scan_times[name] = site.clock()
        shell.jobs.start(_OTHERS, lambda: site.scan(name), partial(_scanned, shell, name))


def _first_look(shell: Shell) -> bool:
    """Whether the repository that is looked at is being read for the first time: that goes first, unless it hangs."""
    site = shell.site
    waited = site.clock() - site.scan_times.get(site.current, 0.0)
    return not site.actual_view.known and not site.actual_view.problem and waited < PATIENCE_S


def next_try_s(shell: Shell) -> float:
    """Return in how many seconds a repository that could not be read is scanned again."""
    site = shell.site
    return RETRY_LOST_S - (site.clock() - site.scan_times.get(site.current, 0.0))


def _is_due(shell: Shell, watched: bool) -> bool:
    site = shell.site
    if not site.current or site.replay is not None:
        return False
    if watched:
        pause = WATCHED_RESCAN_S
    else:
        working = bool(site.live_runs()) or any(item.busy for item in site.view.operations)
        usual = LIVE_RESCAN_S if working else QUIET_RESCAN_S
        pause = max(usual, RESCAN_SHARE * site.view.took_s)
    if site.view.problem:
        pause = RETRY_LOST_S
    return site.clock() - site.scan_times.get(site.current, 0.0) >= pause


def _scanned(shell: Shell, name: str, view: RepositoryView | None, error: BaseException | None) -> None:
    site = shell.site
    site.scan_times[name] = site.clock()
    if isinstance(error, Cancelled):
        return
    if error is not None or view is None:
        shell.failed("The repository could not be scanned", error or AssertionError("a scan returned nothing"))
        return
    old = site.views.get(view.name)
    site.accept(view._replace(fixes=shell.config.prioritised(view.fixes)))
    journal = site.journal
    if journal is not None and view.name == site.current:
        shell.jobs.start("journal", lambda: journal.note_scan(old, view), partial(_noted, shell))
    _look_at_worst(shell)
    if view.name == site.current:
        news.settle(shell)
    shell.refresh_pages()
    scan_another(shell)


def _look_at_worst(shell: Shell) -> None:
    """Look at the repository that needs somebody most, until the operator does something."""
    site = shell.site
    name = site.worst()
    if site.settled or site.replay is not None or name == site.current:
        return
    site.current = name
    site.poll()
    why = headers.in_brief(site.actual_view, shell.signs)
    shell.tell(f"{name} is shown first: {plain(why)}. 0 lists all repositories.")


def _noted(shell: Shell, told: bool | None, error: BaseException | None) -> None:
    """Show what the scan added to the timeline: the page was drawn before that was written."""
    if told:
        shell.refresh_pages()
    if error is not None and not isinstance(error, DiskwrightError):
        shell.failed("The timeline could not be written", error)
