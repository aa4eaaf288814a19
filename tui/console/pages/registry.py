"""The pages by name; a module is imported when its page is first shown."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import cast

from tui.console.acts import Act
from tui.console.control.anywhere import GLOBAL
from tui.console.pages.page import Page

TABS = ("triage", "images", "runs", "timeline")
_STANDING = {
    "first_run": ("first_run", "FirstRunPage"),
    "triage": ("triage.page", "TriagePage"),
    "images": ("images.page", "ImagesPage"),
    "runs": ("runs.page", "RunsPage"),
    "timeline": ("timeline.page", "TimelinePage"),
}
_ABOVE = {"plan": ("plan.page", "PlanPage"), "why": ("why.page", "WhyPage")}
"""Pages that are opened above one of those."""

_RECORD = ("why.record", "RecordPage")
"""Opened by the page of a reason, with a fact."""


def act_names() -> set[str]:
    """The names of all acts that a key can be given to."""
    names = {act.name for act in GLOBAL}
    for module, title in (*_STANDING.values(), *_ABOVE.values(), _RECORD):
        names |= {act.name for act in _page(module, title).ACTS}
    return names


def is_standing(name: str) -> bool:
    """Whether a page is made once and shown in place of what is open, and not opened above it."""
    return name in _STANDING


def tab_acts() -> dict[str, Sequence[Act]]:
    """Return what can be done on each tab."""
    return {name: _page(*_STANDING[name]).ACTS for name in TABS}


def make_page(name: str) -> Page:
    """Make a new page."""
    return _page(*(_STANDING | _ABOVE)[name])()


def _page(module: str, title: str) -> type[Page]:
    return cast(type[Page], getattr(import_module(f"tui.console.pages.{module}"), title))
