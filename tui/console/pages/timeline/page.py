"""What happened: the journal of the repository, or in a replay the steps of the trace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.containers import Vertical
from textual.timer import Timer
from textual.widget import Widget

from tui.console.acts import Act
from tui.console.control import branching
from tui.console.control.navigation import leave_replay
from tui.console.dialogs.ask_step import AskStep
from tui.console.dialogs.notice import Notice
from tui.console.draw.lines import Line, Span, line
from tui.console.pages.page import CopyItem, Page
from tui.console.pages.timeline import rows
from tui.console.shell import Where
from tui.console.widgets.bar import Button
from tui.console.widgets.base import set_title
from tui.console.widgets.pane import Pane
from tui.console.widgets.scrub import Scrub
from tui.console.widgets.table import Table
from tui.work.journal import Event

if TYPE_CHECKING:
    from tui.training.replay import Replay

SPEEDS = (1, 2, 5, 10, 50)
"""Steps per second."""
_REPAINTS = 4
_MOST_DIFFERENCES = 14

_REPLAY_ONLY = frozenset(
    ("step_back", "step_on", "crash_back", "crash_on", "play", "slower", "faster", "go_to", "branch", "mark", "compare")
)


class TimelinePage(Page):
    """Events or steps, what is known of the one under the cursor, and in a replay the line of all steps."""

    tab = "timeline"

    def __init__(self) -> None:
        super().__init__()
        self.image = ""
        """Only the events of this image are shown, "" for all."""
        self.speed = 1
        self.marked = -1
        self._playing: Timer | None = None
        self._events: tuple[Event, ...] = ()
        self._at_end = True

    def body(self) -> Iterable[Widget]:
        """Steps, what changed, the repository then, and the line of all steps."""
        table = Table(rows.COLUMNS, name="events")
        changed, then = Pane("changed", label_columns=8), Pane("then")
        for widget in (table, changed, then):
            widget.add_class("panel")
        then.can_focus = False
        yield Vertical(table, changed, then, id="timeline-body")
        yield Scrub()

    @property
    def replay(self) -> Replay | None:
        """The trace, None for the journal."""
        return self.shell.site.replay

    @property
    def table_widget(self) -> Table:
        return self.query_one("#events", Table)

    def arrive(self, where: Where) -> None:
        """Show what happened to one image."""
        super().arrive(where)
        self.image = where.image or self.image

    # -- drawing

    def fill(self) -> None:
        replay = self.replay
        self.set_class(replay is not None, "-replay")
        table = self.table_widget
        table.passed_on = frozenset(("g",)) if replay is not None else frozenset()
        table.columns = rows.STEP_COLUMNS if replay is not None else rows.COLUMNS
        if replay is not None:
            self._fill_replay(replay)
        else:
            self._fill_journal()

    def _fill_replay(self, replay: Replay) -> None:
        site, table = self.shell.site, self.table_widget
        if not isinstance(table.rows, rows.StepRows) or table.rows.replay is not replay:
            table.show(rows.StepRows(replay))
        table.centre(site.step)
        set_title(table, "Steps")
        changed, then = self.query_one("#changed", Pane), self.query_one("#then", Pane)
        set_title(changed, f"Changed at step {site.step + 1}")
        changed.show(rows.changed(replay, site.step))
        set_title(then, f"Repository {site.current} at step {site.step + 1}")
        then.show([rows.repository(site.view, self.shell.signs)])
        self.query_one(Scrub).show(len(replay.steps), site.step, replay.crashes, self.marked)

    def status(self) -> Button:
        return Button((Span(f" {rows.crashes(self.replay)}", "quiet"),) if self.replay is not None else ())

    def _fill_journal(self) -> None:
        known, table = self.shell.site.chronicle, self.table_widget
        events = () if known is None else known.lane(self.image) if self.image else known.events()
        at_end = table.cursor >= len(self._events) - 1
        self._events = events
        table.show(rows.EventRows(events), self._nothing())
        if at_end:
            table.go(len(events) - 1)
        name = self.shell.site.view.images.label(self.image) if self.image else ""
        set_title(table, f"What happened to {name}   a shows all" if self.image else f"Timeline {len(events)} events")
        self._fill_event()

    def _fill_event(self) -> None:
        pane = self.query_one("#changed", Pane)
        event = self.event()
        set_title(pane, f"Lane of {event.name}" if event is not None and event.name else "Event")
        known = self.shell.site.chronicle
        lane = known.lane(event.image) if known is not None and event is not None and event.image else ()
        pane.show(rows.lane(event, lane, self.shell.signs))

    def _nothing(self) -> list[Line]:
        return [(), line("Nothing was noted yet. Scans and runs write here, also those of other consoles.")]

    def event(self) -> Event | None:
        """The event under the cursor."""
        cursor = self.table_widget.cursor
        return self._events[cursor] if self.replay is None and 0 <= cursor < len(self._events) else None

    def set_up(self) -> None:
        self.set_focus(self.table_widget)

    def table_moved(self, table: Table) -> None:
        """Show the event, or in a replay go to the step, under the cursor."""
        if self.replay is None:
            self._fill_event()
        elif self.table_widget.cursor != self.shell.site.step:
            self._go(self.table_widget.cursor)

    def on_scrub_picked(self, message: Scrub.Picked) -> None:
        """A click on the line of all steps."""
        message.stop()
        self._go(message.step)

    # -- acts

    def in_footer(self, act: Act) -> bool:
        """Stepping is for replays."""
        return act.footer and (self.replay is not None or act.name not in _REPLAY_ONLY)

    def why_not(self, act: Act) -> str:
        replay = self.replay
        if act.name in _REPLAY_ONLY:
            return self._why_not_replay(act, replay)
        if act.name == "space" and replay is not None:
            return "a trace is not seen over days: its steps show the space then"
        if act.name == "whole" and not self.image:
            return "all events are shown"
        if act.name == "why" and not (self.event() and self.event_image()):
            return "no image is under the cursor"
        return ""

    def _why_not_replay(self, act: Act, replay: Replay | None) -> str:
        if replay is None:
            return "only in a replay: open a trace (: and then trace)"
        if self.shell.site.branch is not None:
            return "this is a simulation, esc goes back to the replay"
        step = self.shell.site.step
        if act.name == "crash_back" and replay.previous_crash(step) is None:
            return "there is no crash before this step"
        if act.name == "crash_on" and replay.next_crash(step) is None:
            return "there is no crash after this step"
        if act.name == "step_back" and step == 0:
            return "this is the first step"
        if act.name == "step_on" and step >= len(replay.steps) - 1:
            return "this is the last step"
        if act.name == "compare" and self.marked < 0:
            return "mark a step first: m"
        return ""

    def event_image(self) -> str:
        """The image of the event under the cursor, "" for none that is still there."""
        event = self.event()
        image = event.image if event is not None else ""
        return image if image and self.shell.site.view.image(image) is not None else ""

    def _go(self, step: int) -> None:
        """Another step; while a simulation goes on from one, that one stays."""
        if self.replay is not None:
            if self.shell.site.branch is None:
                self.shell.site.go_to(step)
            self.fill_all()

    def act_step_back(self) -> None:
        self._go(self.shell.site.step - 1)

    def act_step_on(self) -> None:
        self._go(self.shell.site.step + 1)

    def act_crash_back(self) -> None:
        assert self.replay is not None
        found = self.replay.previous_crash(self.shell.site.step)
        if found is not None:
            self._go(found)

    def act_crash_on(self) -> None:
        assert self.replay is not None
        found = self.replay.next_crash(self.shell.site.step)
        if found is not None:
            self._go(found)

    def act_play(self) -> None:
        if self._playing is not None:
            self._hold()
            self.shell.tell("Held.")
        else:
            self._begin_to_play()
            self.shell.tell(f"Playing, {self._pace()}. space holds.")

    def _pace(self) -> str:
        return f"{self.speed} step{'' if self.speed == 1 else 's'} a second"

    def _begin_to_play(self) -> None:
        self._playing = self.set_interval(1 / min(self.speed, _REPAINTS), self._play_on)

    def _hold(self) -> None:
        if self._playing is not None:
            self._playing.stop()
            self._playing = None

    def _play_on(self) -> None:
        replay = self.replay
        if replay is None or self.shell.site.step >= len(replay.steps) - 1:
            self._hold()
            return
        self._go(self.shell.site.step + max(1, self.speed // _REPAINTS))

    def act_slower(self) -> None:
        self._change_speed(-1)

    def act_faster(self) -> None:
        self._change_speed(1)

    def _change_speed(self, by: int) -> None:
        index = max(0, min(SPEEDS.index(self.speed) + by, len(SPEEDS) - 1))
        self.speed = SPEEDS[index]
        if self._playing is not None:
            self._hold()
            self._begin_to_play()
        self.shell.tell(f"{self._pace()[:1].upper()}{self._pace()[1:]}.")

    def act_go_to(self) -> None:
        assert self.replay is not None

        def answered(step: int | None) -> None:
            if step is not None:
                self._go(step - 1)

        self.shell.open(AskStep(len(self.replay.steps)), answered)

    def act_branch(self) -> None:
        self._hold()
        branching.begin(self.shell)

    def act_mark(self) -> None:
        self.marked = self.shell.site.step
        self.shell.tell(f"Step {self.marked + 1} is marked; d compares with it.")
        self.fill_all()

    def act_compare(self) -> None:
        from tui.training.replay import differences

        site, replay = self.shell.site, self.replay
        assert replay is not None
        found = differences(replay.view(self.marked, site.current), site.view)[:_MOST_DIFFERENCES]
        title = f"Step {self.marked + 1} compared with step {site.step + 1}"
        self.shell.open(Notice(title, found or ["Nothing differs."]))

    def act_whole(self) -> None:
        self.image = ""
        self.fill_all()

    def act_why(self) -> None:
        self.shell.show(Where("why", image=self.event_image()))

    def act_space(self) -> None:
        self.shell.show(Where("space"))

    def act_back(self) -> None:
        """Show all images; in a replay leave it."""
        if self.replay is not None:
            self._hold()
            leave_replay(self.shell)
        elif self.image:
            self.act_whole()
        else:
            self.nothing_to_close()

    # -- taking out

    def copies(self) -> list[CopyItem]:
        event = self.event()
        if event is None:
            return []
        return [("i", "id of the image", event.image), ("r", "row", rows.event_text(event))]

    def table(self) -> tuple[Sequence[str], list[Sequence[str]]]:
        return rows.export(self.replay, self._events)

    ACTS: ClassVar[Sequence[Act]] = (
        Act("step_back", "left_square_bracket", "Step", "One step back.", act_step_back, "previous replay",
            footer=False),
        Act("step_on", "right_square_bracket", "Step", "One step on.", act_step_on, "next replay"),
        Act("crash_back", "left_curly_bracket", "Crash", "Back to the crash before this step.", act_crash_back,
            footer=False),
        Act("crash_on", "right_curly_bracket", "Crash", "On to the next crash.", act_crash_on, "kill power cut"),
        Act("play", "space", "Play", "Play the steps one after the other, or hold.", act_play, "pause run"),
        Act("slower", "comma", "Slower", "Play more slowly.", act_slower, "speed", footer=False),
        Act("faster", "full_stop", "Faster", "Play faster.", act_faster, "speed", footer=False),
        Act("go_to", "g", "Go to", "Go to a step by its number.", act_go_to, "jump"),
        Act("branch", "b", "Branch", "Begin a live simulation from this step.", act_branch, "what if"),
        Act("mark", "m", "Mark", "Remember this step.", act_mark, "bookmark", footer=False),
        Act("compare", "d", "Compare", "Show what differs from the marked step.", act_compare, "diff", footer=False),
        Act("space", "s", "Space", "Draw the free space of the repository over time.", act_space, "picture free chart"),
        Act("whole", "a", "All", "Show the events of all images again.", act_whole, "lane filter"),
        Act("why", "w", "Why", "Tell why the image of this event is as it is.", act_why, "explain"),
    )  # fmt: skip
