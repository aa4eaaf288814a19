"""What is shown when no repository is connected: the ways to begin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from textual.widget import Widget

from tui.console.acts import Act
from tui.console.control import demo
from tui.console.control.anywhere import begin_demo, choose_tour, choose_trace, connect
from tui.console.draw.lines import Line, Span
from tui.console.pages.frame import what_runs
from tui.console.pages.page import Page
from tui.console.widgets.pane import Pane

_WAYS = (
    ("d", "Create a demo repository with broken images", "seconds, 40 MB"),
    ("c", "Connect a repository (localfs, nfs, lvm)", ""),
    ("t", "Take the tour: 5 minutes, in a repository of its own", ""),
    ("o", "Open a simulation trace", ""),
    ("I", "Audit image files that are in no repository", "changes nothing"),
)


_NEED_A_REPOSITORY = frozenset(
    ("tab_triage", "tab_images", "tab_runs", "tab_timeline", "rescan", "rescan_again", "deep_rescan", "copy", "export",
     "manager", "repositories")
)  # fmt: skip


class FirstRunPage(Page):
    """The ways to begin, and what was connected before on this machine."""

    TABS = False
    tab = "first run"

    def body(self) -> Iterable[Widget]:
        pane = Pane("ways")
        pane.add_class("panel")
        yield pane

    def fill(self) -> None:
        self.query_one("#ways", Pane).show(self._lines())

    def why_not(self, act: Act) -> str:
        if act.name in _NEED_A_REPOSITORY:
            return "no repository is connected: d makes one to try, c connects one"
        return ""

    def _lines(self) -> list[Line]:
        ways = [(Span(f"   {key}", "key"), Span(f"   {what:<53}"), Span(costs, "quiet")) for key, what, costs in _WAYS]
        return [
            (),
            (Span("   No repository is connected.", "bold"),),
            (),
            *ways,
            (),
            (Span(f"   The demo is written to {demo.place()}."),),
            (Span("   Delete it at any time; nothing outside that folder changes."),),
            (Span("   It has 13 images in every state, and 2 removed ones that hold space."),),
            (Span("   What is broken in it was broken by real crashes."),),
            (),
            *((Span("   "), *line) for line in what_runs(self.shell)),
        ]

    ACTS: ClassVar[Sequence[Act]] = (
        Act("demo", "d", "Demo", "Create the demo repository and connect it.", begin_demo),
        Act("connect", "c", "Connect", "Connect a repository to this host.", connect),
        Act("tours", "t", "Tour", "Take a guided tour, in a repository of its own.", choose_tour),
        Act("open_trace", "o", "Open trace", "Open a simulation trace and replay it.", choose_trace),
    )  # fmt: skip
