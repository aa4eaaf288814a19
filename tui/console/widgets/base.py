"""What all widgets of the console share: the palette, the signs, and titles that are never markup."""

from __future__ import annotations

from typing import cast

from textual.content import Content
from textual.widget import Widget

from tui.console.draw.lines import Cell, plain
from tui.console.draw.palette import Palette
from tui.console.draw.signs import Signs
from tui.console.shell import Shell


def shell_of(widget: Widget) -> Shell:
    """Return the application that a widget is part of, as far as it may be known."""
    return cast(Shell, widget.app)


def palette_of(widget: Widget) -> Palette:
    """Return the colours of now."""
    return shell_of(widget).palette


def signs_of(widget: Widget) -> Signs:
    """Return how this terminal is written to."""
    return shell_of(widget).signs


def set_title(widget: Widget, title: Cell, subtitle: Cell = "") -> None:
    """Write the words in a widget's frame."""
    widget.border_title = Content(plain(title))
    widget.border_subtitle = Content(plain(subtitle))
