"""Deciding, starting, stopping, resuming and taking over: what changes something, from any page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from tui.console.dialogs.confirm import Ask, Confirm
from tui.console.dialogs.message import Message
from tui.console.draw.lines import Cell, Span
from tui.view import live
from tui.view.command_lines import line as command_line
from tui.view.fixes import FixRow
from tui.view.plan import Plan
from tui.view.snapshot import HostOperation
from tui.work import plans
from tui.work import runs as runs_model
from tui.work.decisions import DecisionStore
from tui.work.runs import Run

if TYPE_CHECKING:
    from tui.console.app import ConsoleApp


_ENDING_S = 10.0
"""A run that is to go on and has not quite ended yet is waited for so long."""


class RunActs:
    """Methods of the application."""

    @property
    def _app(self) -> ConsoleApp:
        return cast("ConsoleApp", self)

    # -- decisions

    def decide(self, change: Callable[[DecisionStore], object], done: Callable[[], None] = lambda: None) -> None:
        """Change what the operator decided; on disk before it is shown. A text that ``change`` returns is told."""
        app = self._app
        store = app.site.decision_store
        if store is None:
            return

        def finish(value: object, error: BaseException | None) -> None:
            if error is not None:
                app.failed("That could not be saved", error)
            elif isinstance(value, str):
                app.tell(value)
            app.site.poll()
            app.refresh_pages()
            done()

        app.jobs.in_turn(lambda: change(store), finish)

    # -- plans and runs

    def save_plan(self, plan: Plan) -> None:
        """Keep the plan, so that a command can run the same."""
        app = self._app
        notes = app.site.notes

        def finish(value: object, error: BaseException | None) -> None:
            del value
            if error is not None:
                app.failed("The plan could not be saved", error)

        if plan.steps:
            app.jobs.in_turn(lambda: plans.save(notes, plan), finish)

    def start_plan(self, plan: Plan, irreversible: bool) -> None:
        """Start a run of the plan and show it; its fixes leave the queue. ``irreversible``: the operator typed that
        what cannot be undone may be done."""
        app = self._app
        site, store = app.site, app.site.decision_store

        def call() -> str:
            with site.engine() as engine:
                started = runs_model.start(engine, site.notes, plan, irreversible)
            if store is not None:
                store.unqueue([step.row.key for step in plan.steps])
            return started

        def done(run_id: str) -> None:
            site.lens = False
            app.tell(f"Run {plan.short} was started. You can quit: it goes on.")
            site.poll()
            app.show_run(run_id)

        app.note(command_line("run", repo=plan.repo_id, plan=plan.short, irreversible=irreversible))
        app.do("start", call, done, "The plan was not started")

    def stop_runs(self) -> None:
        """Stop every run of this host on this repository."""
        for run in self._app.site.live_runs():
            self.stop_run(run)

    def stop_run(self, run: Run) -> None:
        """Ask a run to stop at its next save."""
        app = self._app
        site = app.site

        def call() -> None:
            with site.engine() as engine:
                runs_model.stop(engine, site.notes, run.repository, run.id)

        app.do(
            f"stop {run.id}", call, lambda value: app.tell(f"Run {run.short} stops at its next save; all is kept."),
            "The run was not stopped",
        )  # fmt: skip

    def resume_run(self, run: Run) -> None:
        """Go on with what a run has not done."""
        app = self._app
        site = app.site

        def call() -> None:
            with site.engine() as engine:
                runs_model.resume(engine, site.notes, run.repository, run.id, _ENDING_S)

        told = f"Run {run.short} is about to end; it goes on after that." if run.ending else ""
        app.do(
            f"resume {run.id}", call, lambda value: app.tell(f"Run {run.short} goes on."), "The run was not resumed",
            told,
        )  # fmt: skip

    # -- work of others

    def discard(self, image: str, name: str) -> None:
        """Ask for the name, then give up the unfinished work on an image."""
        app = self._app
        site, repo = app.site, app.site.current

        def call() -> str:
            with site.engine() as engine:
                return runs_model.discard(engine, repo, image)

        def done(text: str) -> None:
            app.tell(text)
            app.rescan(told=False)

        def answered(yes: bool | None) -> None:
            if yes:
                app.note(f"diskwright remove {repo} {image}")
                app.do("discard", call, done, "Nothing was given up")

        told: list[Cell] = [
            f"This gives up the unfinished work on {name} in {repo} and removes the image.",
            "It can be restored until a clean fix has run; s stops work and keeps it.",
        ]
        app.push_screen(Confirm("Discard the result", told, name, "discard it"), answered)

    def take_over(self, operation: HostOperation) -> None:
        """Show what tells whether its host is gone, then go on with the work here if it is confirmed."""
        app = self._app
        site, repo = app.site, app.site.current

        def call() -> live.Evidence:
            with site.engine() as engine:
                return live.evidence(engine, repo, operation.image)

        app.do(
            "evidence", call, lambda evidence: self._ask_take_over(operation, evidence), "The evidence cannot be read"
        )

    def _ask_take_over(self, operation: HostOperation, evidence: live.Evidence) -> None:
        app = self._app
        name = operation.name or operation.image[:8]
        fixes = [
            row for row in app.site.view.fixes_of(operation.image) if row.target == operation.image and row.can_run
        ]
        told: list[Cell] = [*evidence.lines]
        if not evidence.allowed:
            app.push_screen(Message(f"{name} cannot be taken over", told))
        elif not fixes:
            told.append("Check offers no fix for it that can run here: w in Images tells why.")
            app.push_screen(Message(f"{name} cannot be taken over", told))
        else:
            told += ["", Span(f"a again: plan {fixes[0].what} on this host and show it first.", "bold")]
            app.push_screen(Ask(f"Take {name} over", told, "a", "Take over"), lambda yes: self._took(yes, fixes))

    def _took(self, yes: bool | None, fixes: Sequence[FixRow]) -> None:
        app = self._app
        if yes:
            app.show_page("triage")
            self.decide(lambda store: store.queue(fixes[:1]), app.show_plan)

    # -- drill

    def is_demo(self) -> bool:
        """Whether the repository that is looked at belongs to the demo."""
        from tui.training.drill import is_demo

        app = self._app
        if app.site.replay is not None or not app.site.current:
            return False
        with app.site.engine() as engine:
            return is_demo(engine, app.site.current)

    def crash_drill(self, row: FixRow) -> None:
        """Kill a fix at a random write, then show what is left and how it goes on."""
        import random

        from tui.training.drill import DrillResult, crash_drill

        app = self._app
        site, repo = app.site, app.site.current
        seed = random.randrange(1 << 32)

        def call() -> DrillResult:
            with site.engine() as engine:
                return crash_drill(engine, repo, row, seed)

        def done(result: DrillResult) -> None:
            app.push_screen(Message("Crash drill", [*result.lines, f"(seed {seed})"]))
            app.rescan(told=False)

        app.do("drill", call, done, "The drill could not begin", "The drill begins: a fix will be killed.")
