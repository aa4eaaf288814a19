"""What stands around the body of every page, from what the shell knows: header, tabs, problem, mode, least summary."""

from __future__ import annotations

from collections.abc import Sequence

from tui.console.control.scanning import next_try_s
from tui.console.draw.lines import Line, Span
from tui.console.shell import Shell
from tui.console.widgets import headers
from tui.console.widgets.bar import Button


def header(shell: Shell, columns: int) -> tuple[list[Button], Line]:
    """Return the first line of a page."""
    site = shell.site
    asleep = site.decisions.hidden
    snoozed = sum(row.key in asleep for row in site.view.fixes) if asleep else 0
    hidden = f"{snoozed} snoozed" if snoozed else ""
    return headers.header(site.view, shell.signs, columns, site.now, hidden, mode(shell))


def tabs(shell: Shell, tab: str, columns: int) -> tuple[list[Button], Line]:
    """Return the second line of a page."""
    site = shell.site
    return headers.tabs(site.view, tab, len(site.live_runs()), columns, site.now)


def problem(shell: Shell) -> list[Button]:
    """Return why the repository could not be read and when it is tried again; nothing when it could."""
    return headers.problem(shell.site.view, next_try_s(shell))


def others(shell: Shell, columns: int) -> list[Button]:
    """Return what the other repositories of this host have; nothing in a replay, which has its own."""
    site = shell.site
    if site.replay is not None:
        return []
    views = [site.view_of(entry) for entry in site.entries if entry.name != site.current]
    return headers.others(views, shell.signs, columns)


def mode(shell: Shell) -> Sequence[Span]:
    """Return words for the mode in which nothing, or nothing real, can be changed."""
    site = shell.site
    if site.branch is not None:
        return (Span(" SIMULATED ", "danger"), Span(f" from step {site.step + 1}"))
    if site.replay is not None:
        step = f"step {site.step + 1} of {len(site.replay.steps)}"
        return (Span(" REPLAY ", "danger"), Span(f" {step}  READ ONLY"))
    if site.lens:
        plan = site.plan_now()
        return (Span(" AFTER PLAN ", "danger"), Span(f" {plan.short if plan is not None else '(empty)'}"))
    return (Span(" READ ONLY ", "danger"),) if site.readonly else ()


def summary(shell: Shell) -> list[Line]:
    """Return the least there is to say, for a terminal that is too small."""
    view = shell.site.view
    if not view.name:
        return [(Span("No repository is connected."),)]
    return [(Span(view.name, "title"),), shell.signs.counts(headers.counts_of(view)), *what_runs(shell)]


def what_runs(shell: Shell) -> list[Line]:
    """Return a line for each run that is not over."""
    found: list[Line] = []
    for run in shell.site.live_runs():
        step = run.current
        at = f"step {step.number} of {len(run.steps)}: {step.what}" if step is not None else ""
        found.append((Span(f"Run {run.short} "), Span(str(run.state), "bold"), Span(f" {at}")))
    if shell.jobs.busy("demo"):
        found.append((Span("The demo is being made: every crash in it is a real one.", "bold"),))
    return found or [(Span("Nothing is running.", "quiet"),)]
