"""What can be done in Triage."""

from __future__ import annotations

from tui.console.acts import Act
from tui.console.pages.filtered import FIND_ACTS

TRIAGE_ACTS: tuple[Act, ...] = (
    Act("queue", "space", "Queue", "Put the fix into the plan, or take it out.", "select choose", changes=True),
    Act("plan", "p", "Plan", "Show what the queued fixes will do, step by step.", "preview dry run space"),
    Act("run", "r", "Run", "Run the plan; it is shown first.", "start fix repair", changes=True),
    Act("why", "w", "Why", "Tell why it is so, on a full page with its facts.", "explain reason facts"),
    Act("filter", "slash", "Filter", "Show only what matches: type: status: host: pri: !not.", "search find"),
    Act("stop", "s", "Stop", "Stop what runs at its next save; the work is kept.", "cancel halt", changes=True),
    Act("queue_kind", "a", "All", "Queue all fixes of this type.", "make space clean everything", changes=True),
    Act("range", "V", "Range", "Begin a range here, or end it.", "select several"),
    Act("earlier", "K", "Up", "Move the queued fix towards the start of the plan.", "order", changes=True),
    Act("later", "J", "Down", "Move the queued fix towards the end of the plan.", "order", changes=True),
    Act("priority", "P", "Priority", "Set the priority yourself, P1 to P4.", "urgent", changes=True),
    Act("snooze", "H", "Snooze", "Hide the fix, or bring it back.", "hide", changes=True),
    Act("snoozed", "S", "Snoozed", "Show also what is snoozed, or hide it again.", "hidden"),
    Act("undo", "z", "Undo", "Undo the last change of queue, priority or snoozing.", "back", changes=True),
    Act("redo", "Z", "Redo", "Redo what was undone.", "", changes=True),
    Act("sort", "o", "Sort", "Sort by the next: priority, space, time, image, type.", "order"),
    Act("reverse", "O", "Reverse", "Turn the order round.", "sort"),
    Act("open", "enter", "Why", "Tell why it is so, on a full page with its facts.", footer=False),
    *FIND_ACTS,
    Act("only_mend", "", "Mend fixes", "Show only what makes broken images usable.", "repair broken"),
    Act("only_clean", "", "Clean fixes", "Show only what frees space.", "make space free room delete removed"),
    Act("only_merge", "", "Merge fixes", "Show only what joins snapshots.", "chain space"),
    Act("only_optimize", "", "Optimize fixes", "Show only what makes usable images better.", "performance"),
    Act("drill", "exclamation_mark", "Drill", "Crash drill: kill a fix of the demo at a random write.", "crash",
        changes=True, footer=False),
    Act("power_cut", "", "Power cut", "In a simulation: everything dies, what was not durable is lost.", "crash"),
)  # fmt: skip
