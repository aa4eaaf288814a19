"""The pages by name; a module is imported when its page is first shown."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from tui.console.screens.page import GLOBAL, Page

_WHERE = {
    "first_run": "FirstRun",
    "triage": "Triage",
    "images": "Images",
    "runs": "Runs",
    "timeline": "Timeline",
}


def act_names() -> set[str]:
    """The names of all acts that a key can be given to."""
    names = {act.name for act in GLOBAL}
    for name, title in (*_WHERE.items(), ("plan", "Plan"), ("why", "Why"), ("record", "Record")):
        page = getattr(import_module(f"tui.console.screens.{name}"), f"{title}Page")
        names |= {act.name for act in page.ACTS}
    return names


def make_page(name: str) -> Page:
    """A new page."""
    module = import_module(f"tui.console.screens.{name}")
    return cast(Page, getattr(module, f"{_WHERE[name]}Page")())
