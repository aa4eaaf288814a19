"""Runs as lines: the steps with a bar, what other hosts do, the log."""

from __future__ import annotations

from rich.cells import cell_len

from engine.triage import rules
from tui.console.draw.lines import Line, Span, fit, plain, wrap
from tui.console.draw.signs import Signs
from tui.console.site import Site
from tui.console.widgets.pane import Item, Paragraph
from tui.text.amounts import compact, duration
from tui.text.words import RunState
from tui.view.machines import noticed
from tui.view.snapshot import HostOperation, RepositoryView
from tui.work.runs import Run, RunStep

_ROLES = {
    RunState.RUNNING: "bold",
    RunState.STOPPING: "warning",
    RunState.STOPPED: "warning",
    RunState.DONE: "optimized",
    RunState.FAILED: "broken",
    RunState.REJECTED: "broken",
    RunState.OLD: "warning",
}


INDENT = " " * 5
_BADLY = (RunState.FAILED, RunState.REJECTED, RunState.STOPPED, RunState.WAITING)


def role_of(state: RunState) -> str:
    """The role of a run state."""
    return _ROLES.get(state, "quiet")


def title(site: Site) -> str:
    """How many runs there are here, and how much work of others is unfinished."""
    elsewhere = len(others(site))
    return f"Runs {len(site.live_runs())}" + (f", other unfinished work {elsewhere}" if elsewhere else "")


def brief(site: Site, signs: Signs) -> list[Item]:
    """What runs here, then what was last heard of other hosts: for the pane below the table."""
    lines: list[Item] = []
    for run in site.live_runs():
        step = run.current
        what = f" step {step.number}/{len(run.steps)} {step.what}" if step else f" {run.reason}"
        lines.append(Paragraph("", (Span(f"{run.state:<8}", role_of(run.state)), Span(f" {run.short}{what}"))))
        if step is not None:
            stage = f"{step.stage_name}  " if step.percent < 0 and step.stage_name else ""
            lines.append(Paragraph("", (Span(f"  {stage}"), *progress(step, signs, 12, site.now))))
    for operation in others(site):
        lines.append(Paragraph("", (Span(f"{operation.host}  "), Span(f"{operation.verb} {operation.name}"))))
        lines.append(Paragraph("", (Span("  "), *last_saved(operation, site.now))))
    if not lines:
        last = f"Last: {site.runs[0].short} {site.runs[0].state}" if site.runs else ""
        lines = [(Span("Nothing is running.", "quiet"),), (Span(last, "quiet"),)]
    return lines


def others(site: Site) -> list[HostOperation]:
    """Unfinished work that was last persisted by another host, or by this one and by no run: also what a command has
    begun here, and goes on."""
    steps = [step for run in site.live_runs() for step in run.steps if step is run.current]
    running = {image for step in steps for image in (step.target, *step.images)}
    tasks = {image for task in site.view.tasks for image in (task.image, *task.images)}
    return [
        item
        for item in site.view.operations
        if not item.finished
        and item.verb
        and item.image not in running
        and (item.host != site.host or not item.busy or item.image in tasks)
    ]


def last_saved(operation: HostOperation, now: float) -> Line:
    """Stage and percent as they were persisted, and how long ago that was."""
    stage = f"stage {operation.stage}/{operation.stages}" if operation.stages else "no stage"
    share = f"{operation.percent}%" if operation.percent >= 0 else "no % is given"
    age = duration(max(0.0, now - operation.when)) if operation.when else "?"
    spans = [Span(f"{stage}  {share}  saved {age} ago")]
    if operation.busy:
        spans.append(Span("  works now", "bold"))
    elif operation.old(now):
        spans.append(Span("  OLD", "warning"))
    return tuple(spans)


def progress(step: RunStep, signs: Signs, columns: int, now: float) -> Line:
    """Bar, percent, rate and what is left; without a known percent no bar and no number."""
    if step.percent < 0:
        return (Span("no % is given", "quiet"),)
    bar = Span(signs.gauge(step.percent / 100, columns), "bar")
    rate = f"  {compact(int(step.rate))}/s" if step.rate else ""
    left = f"  left {step.left.text}" if step.left.known else ""
    done = f"  {compact(step.bytes_done)} of {compact(step.bytes_total)}" if step.bytes_total else ""
    saved = f"  saved {duration(max(0.0, now - step.saved_at))} ago" if step.saved_at else ""
    old = Span("  OLD", "warning") if step.state is RunState.OLD else Span("")
    return (bar, Span(f" {step.percent:>3}%{done}{rate}{left}{saved}"), old)


def steps(run: Run, view: RepositoryView, signs: Signs, columns: int, now: float) -> list[list[Line]]:
    """The lines of every step of a run: the running one with its bar and what is to be known of its pace, one that
    ended badly with all of its reason."""
    found: list[list[Line]] = []
    name = max(12, min(columns - 54, max((cell_len(step.name) for step in run.steps), default=0)))
    for step in run.steps:
        lines = [_step(step, signs, name, now)]
        if step.state in (RunState.RUNNING, RunState.STOPPING, RunState.OLD):
            lines.append((Span(INDENT), *progress(step, signs, max(8, columns - 68), now)))
            for told in (Span(step.pace, "warning"), _machine(step, view)):
                if told.text:
                    lines += [(Span(INDENT), *text) for text in wrap(told, columns - len(INDENT))]
        elif step.state in _BADLY and cell_len(plain(lines[0])) > columns:
            lines = [_step(step, signs, name, now, outcome=False)]
            lines += [(Span(INDENT), *text) for text in wrap(Span(step.reason or step.error), columns - len(INDENT))]
        found.append(lines)
    return found


def _machine(step: RunStep, view: RepositoryView) -> Span:
    """Which machine does a step, and what its guest notices."""
    able = dict.fromkeys(step.images, True)
    row = view.machine_above(step.images[0]) if rules.by_machine(step.rule, step.images, able) else None
    if row is None:
        return Span("")
    who = f"{row.label} ({row.who or 'nobody has it open'}, {row.monitor})"
    return Span(f"The machine of {who} does it: its guest goes on and {noticed(step.rule)}.", "quiet")


def _step(step: RunStep, signs: Signs, name: int, now: float, outcome: bool = True) -> Line:
    text = _outcome(step) if outcome else ""
    took = duration(step.seconds(now)) if step.started else ""
    again = f"  attempt {step.attempts}" if step.attempts > 1 else ""
    return (
        Span(f" {step.state:<9}", role_of(step.state)),
        Span(f"{step.number:>3} {step.type:<8} "),
        *fit(Span(step.name), name, signs.ellipsis),
        Span(f" {took:>6}  "),
        Span(f"{text}{again}", "quiet" if step.state in (RunState.WAITING, RunState.DONE) else "text"),
    )


def _outcome(step: RunStep) -> str:
    if step.state is RunState.DONE and step.space:
        return step.space
    if step.state is RunState.RUNNING and step.stages:
        return f"stage {step.stage}/{step.stages} {step.stage_name}"
    return step.reason or step.error or ("waits for its turn" if step.state is RunState.WAITING else "")
