"""The mouse: what moves it does nothing but show where it is."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path

from textual import events
from textual.message import Message

import tui.console
from tests.console.kit import FixedSite, console, idle, running, sample_view


async def test_a_pointer_that_moves_over_everything_ends_nothing(tmp_path: Path) -> None:
    """From pane to header to tabs to the footer, in rows and columns: the console goes on."""
    async with running(console(FixedSite(tmp_path / "state", [sample_view()]))) as pilot:
        for offset in [(20, 9), (14, 1), (14, 0), (40, 12), (70, 18), (5, 23), (79, 0), (0, 23)]:
            await pilot.hover(offset=offset)
        await idle(pilot)
        assert pilot.app.is_running
        assert pilot.app.return_code is None


def test_no_message_is_taken_for_an_event_of_the_toolkit() -> None:
    """The toolkit finds a handler by a message's name: one of ours that is called like an event would be handled with
    each of these."""
    theirs = {handler(one) for one in classes(events)}
    ours = [
        one
        for found in pkgutil.walk_packages(tui.console.__path__, "tui.console.")
        for one in classes(importlib.import_module(found.name))
        if one.__module__.startswith("tui.")
    ]
    assert len(ours) > 5
    assert not [one for one in ours if handler(one) in theirs]


def classes(module: object) -> list[type[Message]]:
    """The messages that a module knows."""
    return [one for one in vars(module).values() if inspect.isclass(one) and issubclass(one, Message)]


def handler(one: type[Message]) -> str:
    """The name of the method that gets a message."""
    return str(getattr(one, "handler_name", ""))
