"""What all widgets of the console share: the palette, the signs, and titles that are never markup."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from textual.content import Content
from textual.widget import Widget

from tui.console.draw.lines import Cell, plain
from tui.console.draw.palette import Palette
from tui.console.draw.signs import Signs

if TYPE_CHECKING:
    from tui.console.app import ConsoleApp


def console(widget: Widget) -> ConsoleApp:
    """The application a widget is part of."""
    return cast("ConsoleApp", widget.app)


def palette_of(widget: Widget) -> Palette:
    """The colours of now."""
    return console(widget).palette


def signs_of(widget: Widget) -> Signs:
    """How this terminal is written to."""
    return console(widget).signs


def set_title(widget: Widget, title: Cell, subtitle: Cell = "") -> None:
    """The words in a widget's frame."""
    widget.border_title = Content(plain(title))
    widget.border_subtitle = Content(plain(subtitle))
