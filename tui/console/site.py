"""What the console looks at: the repositories of this host, one of them at a time, or a trace.

Blocking calls are named so and belong in a job (``jobs.Jobs``); everything else is quick. Each blocking
call has an engine of its own, so one that hangs holds up no other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from tui.notes import Notes, notes_of
from tui.view import estimates, lens, live, machines
from tui.view import plan as plan_model
from tui.view.fixes import FixRow
from tui.view.machines import MachineRow
from tui.view.plan import Plan
from tui.view.snapshot import RepositoryView, never_read
from tui.work import away, run_notes
from tui.work import runs as runs_model
from tui.work.decisions import Decisions, DecisionStore
from tui.work.history import Entry, History
from tui.work.journal import Chronicle, Journal
from tui.work.scanner import Cancel, RepositoryEntry, Scanner, connected
from tui.work.triage import Marked, queued_rows

if TYPE_CHECKING:
    from tui.training.branch import Branch
    from tui.training.replay import Replay
    from tui.work.noted import NotedEngine


class Site:
    """The repositories connected on this host and what is known of them."""

    def __init__(
        self, host: str, state: str, clock: Callable[[], float], reserve_share: float = plan_model.DEFAULT_RESERVE_SHARE
    ) -> None:
        self.host = host
        self.state = state
        self.clock = clock
        self.readonly = False
        """Nothing may be changed, as the command line said."""
        self.reserve_share = reserve_share
        self.scanner = Scanner(host, state)
        with self.engine() as engine:
            self.notes: Notes = notes_of(engine)
        self.entries: tuple[RepositoryEntry, ...] = ()
        self.views: dict[str, RepositoryView] = {}
        self.current = ""
        self.settled = False
        """The operator chose what is looked at, or works on it: it stays until they choose another."""
        self.runs: tuple[runs_model.Run, ...] = ()
        self._run_marks: object = None
        self.stopping: set[str] = set()
        """Ids of the runs that were asked to stop here."""
        self.resuming: set[str] = set()
        """Ids of those that go on as soon as they have ended."""
        self.decisions = Decisions()
        self.replay: Replay | None = None
        self.step = 0
        self.chosen = False
        """In a replay: the operator chose the repository."""
        self.branch: Branch | None = None
        self.branch_views: dict[str, RepositoryView] = {}
        self.scan_times: dict[str, float] = {}
        """When a scan of a repository was last begun or has ended, by its name."""
        self.cancel: Cancel | None = None
        """To stop the scan that is under way."""
        self.lens = False
        """The pages show what will be after the plan."""
        self._plan: tuple[tuple[RepositoryView, tuple[str, ...]], Plan] | None = None
        self._lens_view: tuple[Plan, RepositoryView] | None = None
        self._stores: dict[str, DecisionStore] = {}
        self._journals: dict[str, Journal] = {}
        self._history = History(self.notes)
        self._chronicles: dict[tuple[str, str], Chronicle] = {}

    @contextlib.contextmanager
    def engine(self) -> Iterator[NotedEngine]:
        """Lend an engine of this host for one call."""
        from engine.assembly import real_doors
        from tui.work.noted import NotedEngine

        engine = NotedEngine(real_doors(self.host, self.state), self.state, "console")
        try:
            yield engine
        finally:
            engine.close()

    @property
    def now(self) -> float:
        """The time from which ages are counted; in a replay that of the step."""
        return self.view.scanned_at if self.replay is not None else self.clock()

    def why_locked(self) -> str:
        """Return why nothing can be changed, "" when it can."""
        if self.branch is not None:
            return "this is a simulation: r runs the fix under the cursor in it, ! kills it, esc goes back"
        if self.replay is not None:
            return "this is a replay, nothing in it can be changed"
        if self.lens:
            return "this is how it will be after the plan, L shows it as it is"
        return "the console was started with --readonly" if self.readonly else ""

    def why_no_lens(self) -> str:
        """Return why the pages cannot be shown as after the plan, "" when they can."""
        if self.replay is not None:
            return "a replay has no plan"
        return "" if self.lens else self.why_no_plan()

    def why_no_plan(self) -> str:
        """Return why there is no plan, "" when there is one."""
        if self.queued():
            return ""
        if self.decisions.queue:
            return "check offers none of the queued fixes now, NOW / AFTER tells what became of them"
        return "the plan is empty, space queues the fix under the cursor"

    def why_no_manager(self, view: RepositoryView) -> str:
        """Return why the manager of a repository cannot be changed here now, "" when it can."""
        if locked := self.why_locked():
            return locked
        return f"{view.name} needs no manager: every host may do everything there" if view.srm == "-" else ""

    # -- repositories

    def reload(self) -> bool:
        """Look which repositories are connected; return whether that changed. No storage is touched."""
        with self.engine() as engine:
            entries = connected(engine)
        changed = entries != self.entries
        self.entries = entries
        names = [entry.name for entry in entries]
        if self.current not in names:
            self.current = self.worst()
            changed = True
        return changed

    def worst(self) -> str:
        """Return the repository that needs somebody most, as far as is known; the first of those that need it alike,
        "" where there is none."""
        best = max(self.entries, key=lambda entry: self.view_of(entry).severity, default=None)
        return best.name if best is not None else ""

    def entry(self) -> RepositoryEntry | None:
        """Return the repository that is looked at, None for none."""
        return next((entry for entry in self.entries if entry.name == self.current), None)

    def view_of(self, entry: RepositoryEntry) -> RepositoryView:
        """Return what is known of a repository."""
        known = self.views.get(entry.name)
        if known is not None and known.identity in ("", entry.identity):
            return known
        facts = {"identity": entry.identity, "format": entry.format, "place": entry.place}
        return never_read(entry.name, self.host, facts)

    @property
    def view(self) -> RepositoryView:
        """What the pages show: the ``actual_view``, or through the lens what the plan makes of it."""
        return self._after_plan(self.actual_view) if self.lens and self.replay is None else self.actual_view

    @property
    def actual_view(self) -> RepositoryView:
        """The repository that is looked at, as it is known; in a replay as it was at that step."""
        if self.branch is not None:
            return self.branch_views[self.current]
        if self.replay is not None:
            return self.replay.view(self.step, self.current or None)
        entry = self.entry()
        return self.view_of(entry) if entry is not None else never_read("", self.host)

    def view_named(self, name: str) -> RepositoryView | None:
        """Return what is known of a repository by the name it has here, None for an unknown name."""
        if self.branch is not None:
            return self.branch_views.get(name)
        if self.replay is not None:
            return self.replay.view(self.step, name)
        return next((self.view_of(entry) for entry in self.entries if entry.name == name), None)

    def names(self) -> list[str]:
        """Return the names of the repositories that can be looked at."""
        return list(self.replay.repositories) if self.replay is not None else [entry.name for entry in self.entries]

    def scan(self, name: str, deep: bool = False) -> RepositoryView:
        """Scan a repository (blocks); return the view, which is not kept before ``accept``."""
        cancel = Cancel()
        if name == self.current:
            self.cancel = cancel
        view = self.scanner.scan(name, self.views.get(name), deep, cancel)
        return view._replace(fixes=estimates.measured(view.fixes, estimates.load(self.notes, view.identity)))

    def accept(self, view: RepositoryView) -> None:
        """Keep the view that a scan returned."""
        self.views[view.name] = view

    # -- machines

    def machines(self) -> tuple[MachineRow, ...]:
        """Return what this host has noted of what is prepared here (blocks); no storage is touched."""
        with self.engine() as engine:
            return machines.noted(engine)

    def machines_of(self, repo: str, rows: Sequence[MachineRow]) -> tuple[MachineRow, ...]:
        """Return these rows of a repository with what can be seen of them now (blocks)."""
        with self.engine() as engine:
            return live.at_work(engine, machines.seen(engine, repo, rows))

    # -- what belongs to the repository that is looked at

    @property
    def decision_store(self) -> DecisionStore | None:
        """The operator's decisions; None in a replay and without a repository."""
        entry = self.entry()
        if self.replay is not None or entry is None:
            return None
        if entry.identity not in self._stores:
            self._stores[entry.identity] = DecisionStore(self.notes, entry.identity)
        return self._stores[entry.identity]

    @property
    def journal(self) -> Journal | None:
        """What happened to the repository; None in a replay and without a repository."""
        entry = self.entry()
        if self.replay is not None or entry is None:
            return None
        if entry.identity not in self._journals:
            self._journals[entry.identity] = Journal(self.notes, entry.identity)
        return self._journals[entry.identity]

    @property
    def chronicle(self) -> Chronicle | None:
        """What happened to the repository, and what was done here; None in a replay and without a repository."""
        journal, entry = self.journal, self.entry()
        if journal is None or entry is None:
            return None
        key = (entry.identity, entry.name)
        if key not in self._chronicles:
            self._chronicles[key] = Chronicle(journal, self._history, entry.name)
        return self._chronicles[key]

    def settle(self) -> list[Entry]:
        """Note in the history what has ended of the work that went on by itself, and return it (blocks)."""
        return away.settle(self.notes) if self._history.going_on() else []

    def poll(self) -> bool:
        """Read what other consoles, commands and runners wrote; return whether anything is new. Reads notes of
        this host only, and only those that have changed."""
        store, entry = self.decision_store, self.entry()
        decisions = store.now() if store is not None else Decisions()
        changed = decisions != self.decisions
        self.decisions = decisions
        if store is None or entry is None:
            runs: tuple[runs_model.Run, ...] = ()
        else:
            marks = self._marks(entry.identity)
            if marks == self._run_marks and not self.live_runs():
                return changed
            self._run_marks = marks
            runs = runs_model.list_runs(self.notes, entry.identity)
        changed = changed or runs != self.runs
        self.runs = runs
        return changed

    def _marks(self, identity: str) -> object:
        folder = run_notes.folder(identity)
        names = self.notes.names(folder, ".json")
        return (identity, tuple((name, self.notes.mark(f"{folder}/{name}")) for name in names))

    def live_runs(self) -> Sequence[runs_model.Run]:
        """Return the runs that are not over."""
        return [run for run in self.runs if run.alive]

    def marked(self) -> Mapping[str, Marked]:
        """Return what runs say of fixes, by the key of the fix."""
        return runs_model.marked(self.runs)

    def log_of(self, run: runs_model.Run, since: int) -> tuple[runs_model.LogLine, ...]:
        """Read the lines of the log of a run after the first ``since`` (blocks)."""
        return runs_model.log(self.notes, run, None, since)

    # -- plans

    def queued(self) -> list[FixRow]:
        """Return the fixes of the queue that check offers now, in the order of the queue."""
        return queued_rows(self.actual_view, self.decisions)

    def plan_now(self) -> Plan | None:
        """Return the plan of the queue, None when it is empty; made anew only when queue or repository have changed."""
        chosen = self.queued()
        if not chosen:
            return None
        key = (self.actual_view, tuple(row.id for row in chosen))
        if self._plan is None or self._plan[0][0] is not key[0] or self._plan[0][1] != key[1]:
            self._plan = (key, self.make_plan(chosen))
        return self._plan[1]

    def _after_plan(self, view: RepositoryView) -> RepositoryView:
        plan = self.plan_now()
        if plan is None:
            return view
        if self._lens_view is None or self._lens_view[0] is not plan:
            self._lens_view = (plan, lens.after(view, plan))
        return self._lens_view[1]

    def make_plan(self, chosen: Sequence[FixRow]) -> Plan:
        """Make a plan for these fixes from what is known now."""
        view = self.actual_view
        times = estimates.load(self.notes, view.identity)
        return plan_model.make(view, chosen, times, self.clock(), self.reserve_share)

    # -- replay

    def begin_replay(self, replay: Replay) -> None:
        """Look at a trace from its first step on."""
        self.replay, self.step, self.lens = replay, 0, False
        self.chosen = False
        self.current = next(iter(replay.repositories), "")
        self.decisions, self.runs = Decisions(), ()

    def end_replay(self) -> None:
        """Go back to the repositories of this host."""
        self.end_branch()
        self.replay = None
        self.current = ""
        self.reload()
        self.poll()

    def go_to(self, step: int) -> None:
        """Go to another step of the replay. Unless the operator chose a repository, the one with the most broken
        images then is looked at: where it is depends on the step alone, so going back shows the same."""
        replay = self.replay
        if replay is None:
            return
        self.step = max(0, min(step, len(replay.steps) - 1))
        if not self.chosen and replay.repositories:
            self.current = max(replay.repositories, key=lambda name: replay.view(self.step, name).counts.broken)

    def begin_branch(self, branch: Branch, views: dict[str, RepositoryView]) -> None:
        """Look at a simulated world instead of the trace."""
        self.end_branch()
        self.branch, self.branch_views = branch, views

    def end_branch(self) -> None:
        """Give up the simulated world, if there is one."""
        if self.branch is not None:
            self.branch.close()
            self.branch = None
