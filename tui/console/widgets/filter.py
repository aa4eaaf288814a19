"""The line in which a filter is typed. It works while one types; enter keeps it, esc clears it."""

from __future__ import annotations

from textual.widget import Widget
from textual.widgets import Input

_PLACEHOLDER = "words   type:mend   status:brk   host:b   pri:1   !not   /expression/"


class FilterLine(Input):
    """Shown while a filter is typed or set. ``table`` has the keys before and after.

    The focus changes at once and not by a message: whoever types fast has typed the next letter already.
    """

    def __init__(self, table: Widget, placeholder: str = _PLACEHOLDER) -> None:
        super().__init__(placeholder=placeholder, id="filter", select_on_focus=False)
        self.can_focus = False
        self._table = table

    def open(self) -> None:
        """Begin to type."""
        self.can_focus = True
        self.styles.display = "block"
        self.screen.set_focus(self)

    def clear_filter(self) -> None:
        """Remove the filter."""
        self.value = ""
        self.close()

    def close(self) -> None:
        """Give the keys back to the table; the line stays only while there is a filter."""
        self.styles.display = "block" if self.value else "none"
        if self.screen.focused is self:  # ``has_focus`` changes only with a message
            self.screen.set_focus(self._table)
        self.can_focus = False

    def take_key(self, key: str) -> bool:
        """Keep the filter (enter, arrows) or clear it (esc); False for other keys."""
        if key in ("enter", "down", "up"):
            self.close()
        elif key == "escape":
            self.clear_filter()
        else:
            return False
        return True
