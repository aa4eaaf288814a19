"""The pages by name; a module is imported when its page is first shown."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from tui.console.pages.page import GLOBAL, Page

_WHERE = {
    "first_run": ("first_run", "FirstRunPage"),
    "triage": ("triage.page", "TriagePage"),
    "images": ("images.page", "ImagesPage"),
    "runs": ("runs.page", "RunsPage"),
    "timeline": ("timeline.page", "TimelinePage"),
}
_ABOVE = {"plan": ("plan.page", "PlanPage"), "why": ("why.page", "WhyPage"), "record": ("why.record", "RecordPage")}
"""Pages that are opened on top of one of those."""


def act_names() -> set[str]:
    """The names of all acts that a key can be given to."""
    names = {act.name for act in GLOBAL}
    for module, title in (*_WHERE.values(), *_ABOVE.values()):
        names |= {act.name for act in _page(module, title).ACTS}
    return names


def make_page(name: str) -> Page:
    """A new page."""
    return _page(*_WHERE[name])()


def _page(module: str, title: str) -> type[Page]:
    return cast(type[Page], getattr(import_module(f"tui.console.pages.{module}"), title))
