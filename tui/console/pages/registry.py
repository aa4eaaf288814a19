"""The pages by name; a module is imported when its page is first shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tui.console.acts import Act
from tui.console.control.anywhere import GLOBAL
from tui.console.pages.page import Page

TABS = ("triage", "images", "runs", "timeline")


def _first_run() -> type[Page]:
    from tui.console.pages.first_run import FirstRunPage

    return FirstRunPage


def _triage() -> type[Page]:
    from tui.console.pages.triage.page import TriagePage

    return TriagePage


def _images() -> type[Page]:
    from tui.console.pages.images.page import ImagesPage

    return ImagesPage


def _runs() -> type[Page]:
    from tui.console.pages.runs.page import RunsPage

    return RunsPage


def _timeline() -> type[Page]:
    from tui.console.pages.timeline.page import TimelinePage

    return TimelinePage


def _plan() -> type[Page]:
    from tui.console.pages.plan.page import PlanPage

    return PlanPage


def _why() -> type[Page]:
    from tui.console.pages.why.page import WhyPage

    return WhyPage


def _family() -> type[Page]:
    from tui.console.pages.family.page import FamilyPage

    return FamilyPage


def _space() -> type[Page]:
    from tui.console.pages.pictures.page import SpacePage

    return SpacePage


def _pace() -> type[Page]:
    from tui.console.pages.pictures.page import PacePage

    return PacePage


def _audit() -> type[Page]:
    from tui.console.pages.audit.page import AuditPage

    return AuditPage


def _machines() -> type[Page]:
    from tui.console.pages.machines.page import MachinesPage

    return MachinesPage


_Kind = Callable[[], type[Page]]
_STANDING: dict[str, _Kind] = {
    "first_run": _first_run, "triage": _triage, "images": _images, "runs": _runs, "timeline": _timeline
}  # fmt: skip
_ABOVE: dict[str, _Kind] = {
    "plan": _plan, "why": _why, "family": _family, "space": _space, "pace": _pace, "audit": _audit,
    "machines": _machines,
}  # fmt: skip
"""Pages that are opened above one of those."""
_ONCE = frozenset(("audit", "machines"))
"""Of those the ones that are about the host, and not about what was under the cursor."""


def page_acts() -> dict[str, Sequence[Act]]:
    """Return what can be done on each page but the ways to begin, the tabs first."""
    from tui.console.pages.why.record import RecordPage  # opened by the page of a reason, with a fact

    pages: list[type[Page]] = [*(_STANDING[name]() for name in TABS), *(kind() for kind in _ABOVE.values()), RecordPage]
    return {page.tab: page.ACTS for page in pages}


def act_names() -> set[str]:
    """The names of all acts that a key can be given to."""
    tables = (GLOBAL, _first_run().ACTS, *page_acts().values())
    return {act.name for acts in tables for act in acts}


def is_standing(name: str) -> bool:
    """Whether a page is made once and shown in place of what is open, and not opened above it."""
    return name in _STANDING


def is_open_once(name: str) -> bool:
    """Whether a page that is open already is shown again, and not opened a second time."""
    return name in _ONCE


def make_page(name: str) -> Page:
    """Make a new page."""
    return (_STANDING | _ABOVE)[name]()()
