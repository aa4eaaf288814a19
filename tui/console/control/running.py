"""Starting, stopping, resuming and taking over runs, and giving up unfinished work. Runs are processes of their own."""

from __future__ import annotations

from collections.abc import Sequence

from engine.data.model import FixType
from engine.errors import Conflict, DiskwrightError
from tui.console.control.decisions import decide
from tui.console.control.scanning import rescan
from tui.console.dialogs.confirm import Ask, Confirm, word_of
from tui.console.dialogs.notice import Notice
from tui.console.draw.lines import Cell, Span
from tui.console.shell import Shell, Where
from tui.text.words import RunState
from tui.view import live
from tui.view.command_lines import line as command_line
from tui.view.fixes import FixRow
from tui.view.plan import Plan
from tui.view.snapshot import HostOperation
from tui.work import runs as runs_model
from tui.work.runs import Run


def start_plan(shell: Shell, plan: Plan, irreversible: bool) -> None:
    """Start a run of the plan and show it; its fixes leave the queue. ``irreversible``: the operator typed that
    what cannot be undone may be done."""
    site, store = shell.site, shell.site.decision_store

    def call() -> str:
        with site.engine() as engine:
            started = runs_model.start(engine, site.notes, plan, irreversible)
        if store is not None:
            store.unqueue([step.row.key for step in plan.steps])
        return started

    def done(run_id: str) -> None:
        site.lens = False
        shell.tell(f"Run {plan.short} was started. You can quit: it goes on.")
        site.poll()
        shell.show(Where("runs", run=run_id))

    command = command_line("run", repo=plan.repo_id, plan=plan.short, irreversible=irreversible)
    shell.session_log.add(site.clock(), command)
    shell.do("start", call, done, "The plan was not started")


def stop_runs(shell: Shell) -> None:
    """Stop every run of this host on this repository."""
    for run in shell.site.live_runs():
        stop_run(shell, run)


def stop_run(shell: Shell, run: Run) -> None:
    """Ask a run to stop at its next save, and to stay stopped."""
    site = shell.site
    site.resuming.discard(run.id)
    site.stopping.add(run.id)

    def call() -> None:
        try:
            with site.engine() as engine:
                runs_model.stop(engine, site.notes, run.repository, run.id)
        except DiskwrightError:
            site.stopping.discard(run.id)
            raise

    shell.do(
        f"stop {run.id}", call, lambda value: shell.tell(f"Run {run.short} stops at its next save; all is kept."),
        "The run was not stopped",
    )  # fmt: skip


def resume_run(shell: Shell, run: Run) -> None:
    """Go on with what a run has not done; where it is about to end, as soon as it has, unless it is stopped again."""
    site = shell.site
    site.resuming.add(run.id)

    def call() -> bool:
        try:
            with site.engine() as engine:
                runs_model.resume(engine, site.notes, run.repository, run.id, lambda: run.id in site.resuming)
        except Conflict:
            if run.id in site.resuming:
                raise
            return False
        finally:
            site.resuming.discard(run.id)
        return True

    def done(goes_on: bool) -> None:
        shell.tell(f"Run {run.short} goes on." if goes_on else f"Run {run.short} stays stopped; all is kept.")

    stops = run.state is RunState.STOPPING or run.id in site.stopping
    ends = "stops at its next save" if stops else "is about to end"
    message = f"Run {run.short} {ends} and goes on after that; s lets it stop." if run.alive else ""
    site.stopping.discard(run.id)
    shell.do(f"resume {run.id}", call, done, "The run was not resumed", message)


# -- work of others


def discard(shell: Shell, image: str, name: str) -> None:
    """Ask for the name, then give up the unfinished work on an image."""
    site, repo = shell.site, shell.site.current

    def call() -> str:
        with site.engine() as engine:
            return runs_model.discard(engine, repo, image)

    def done(text: str) -> None:
        shell.tell(text)
        rescan(shell)

    def answered(yes: bool | None) -> None:
        if yes:
            shell.session_log.add(site.clock(), f"diskwright remove {repo} {image}")
            shell.do("discard", call, done, "Nothing was given up")

    lines: list[Cell] = [
        f"This gives up the unfinished work on {name} in {repo} and removes the image.",
        "It can be restored until a clean fix has run; s stops work and keeps it.",
    ]
    shell.open(Confirm("Discard the result", lines, word_of(name, image), "discard it"), answered)


def take_over(shell: Shell, operation: HostOperation) -> None:
    """Show what tells whether its host is gone, then go on with the work here if it is confirmed."""
    site, repo = shell.site, shell.site.current

    def call() -> live.Evidence:
        with site.engine() as engine:
            return live.evidence(engine, repo, operation.image)

    shell.do(
        "evidence", call, lambda evidence: _ask_take_over(shell, operation, evidence), "The evidence cannot be read"
    )


def _ask_take_over(shell: Shell, operation: HostOperation, evidence: live.Evidence) -> None:
    name = operation.name or operation.image[:8]
    offered = (row for row in shell.site.view.fixes_of(operation.image) if row.target == operation.image)
    fixes = [row for row in offered if row.can_run and row.type != FixType.CLEAN]  # going on deletes nothing
    lines: list[Cell] = [*evidence.lines]
    if not evidence.allowed:
        shell.open(Notice(f"{name} cannot be taken over", lines))
    elif not fixes:
        lines.append("Check offers no fix for it that can run here: w in Images tells why.")
        shell.open(Notice(f"{name} cannot be taken over", lines))
    else:
        lines += ["", Span(f"a again: plan {fixes[0].what} on this host and show it first.", "bold")]
        shell.open(Ask(f"Take {name} over", lines, "a", "Take over"), lambda yes: _took(shell, yes, fixes))


def _took(shell: Shell, yes: bool | None, fixes: Sequence[FixRow]) -> None:
    if yes:
        shell.show(Where("triage"))
        decide(shell, lambda store: store.queue(fixes[:1]), lambda: shell.show(Where("plan")))
