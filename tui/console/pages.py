"""The pages by name; a module is imported when its page is first shown."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from tui.console.screens.page import Page

_WHERE = {
    "first_run": "FirstRun",
    "triage": "Triage",
    "images": "Images",
    "runs": "Runs",
    "timeline": "Timeline",
}


def make_page(name: str) -> Page:
    """A new page."""
    module = import_module(f"tui.console.screens.{name}")
    return cast(Page, getattr(module, f"{_WHERE[name]}Page")())
