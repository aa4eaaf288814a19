"""Keys of a screen: what can be done, what cannot just now and why, and the line that tells it.

What an act does is said once, by its sentence in the table ``ACTS`` at the end of each screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from rich.cells import cell_len as width
from textual import events
from textual.screen import Screen
from textual.widgets import Input

from tui.console.acts import Act, KeyMap, shown_key
from tui.console.draw.lines import Span, plain
from tui.console.shell import Shell
from tui.console.widgets.bar import Bar, Button
from tui.console.widgets.base import shell_of
from tui.console.widgets.pane import Pane
from tui.console.widgets.table import Table

GAP = "  "


class ActScreen(Screen[Any]):
    """A screen whose keys are acts. ``ACTS`` are its own; the last of the footer are always shown."""

    ACTS: ClassVar[Sequence[Act]] = ()
    ALWAYS: ClassVar[Sequence[str]] = ()
    """Acts at the end of the footer, which are never left out."""

    _key_map: KeyMap | None = None
    _ready = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._ahead: list[events.Key] = []
        """Keys that were typed before the screen was there."""

    @property
    def shell(self) -> Shell:
        """The application, as far as it may be known here."""
        return shell_of(self)

    @property
    def keys(self) -> KeyMap:
        """Which key does what here."""
        if self._key_map is None:
            self._key_map = KeyMap(self.all_acts(), self.shell.config.keys)
        return self._key_map

    def all_acts(self) -> Sequence[Act]:
        """Every act that has a key here, the screen's own first."""
        return self.ACTS

    # -- acts

    def why_not(self, act: Act) -> str:
        """Why an act is not possible now, one sentence; "" when it is."""
        del act
        return ""

    def reason(self, act: Act) -> str:
        """Return why an act is not possible now, "" when it is: ``why_not`` and what holds for every screen."""
        if act.changes and (locked := self.shell.site.why_locked()):
            return locked
        if act.name == "lens" and (none := self.shell.site.why_no_lens()):
            return none
        return self.why_not(act)

    def press(self, act: Act) -> None:
        """Do an act, or tell why it is not possible now."""
        if why := self.reason(act):
            self.shell.tell(f"{act.label}: {why}", "warning")
            return
        try:
            act.do(self)
        except Exception as error:  # noqa: BLE001 - told in a dialog; no key may end the console
            self.shell.failed(act.label, error)

    # -- keys

    def take_key(self, event: events.Key) -> bool:
        """Do what a key does here; False when it means nothing here.

        The application calls this for each key in the order in which they were typed, and everything that
        decides what the next key means (focus, fields, screens) has changed on return."""
        if not self._ready:
            self._ahead.append(event)
            return True
        focused = self.focused
        if isinstance(focused, Input):
            return self.take_field_key(focused, event)
        if isinstance(focused, Table | Pane) and focused.take_key(event.key):
            return True
        return self._take_tab(event.key) or self.take_act_key(event.key)

    def take_field_key(self, field: Input, event: events.Key) -> bool:
        """Do what a key does while a field is typed into; False when it means nothing there."""
        if event.is_printable and event.character:
            field.insert_text_at_cursor(event.character)
            return True
        if event.key == "backspace":
            field.action_delete_left()
            return True
        return self._take_tab(event.key) or self.take_act_key(event.key)

    def take_act_key(self, key: str) -> bool:
        """Do the act of a key."""
        act = self.keys.find(key)
        if act is not None:
            self.press(act)
        return act is not None

    def _take_tab(self, key: str) -> bool:
        if key == "tab":
            self.focus_next()
        elif key == "shift+tab":
            self.focus_previous()
        return key in ("tab", "shift+tab")

    def become_ready(self) -> None:
        """Everything is there: do what was typed ahead."""
        self._ready = True
        ahead, self._ahead = self._ahead, []
        for event in ahead:
            self.shell.keyboard.take(event)

    def on_bar_pressed(self, message: Bar.Pressed) -> None:
        """A button of a bar is as its key."""
        message.stop()
        act = self.keys.named(message.act)
        if act is not None:
            self.press(act)

    # -- messages and footer

    def show_message(self) -> None:
        """Write the message that stands now, or that there is none."""

    def fill_footer(self) -> None:
        """Write the footer: as many acts as fit, then those that are always there."""
        bar = self.query_one("#footer", Bar)
        shown = [act for act in self.keys.acts if act.key and self.in_footer(act)]
        last = sorted((act for act in shown if act.name in self.ALWAYS), key=lambda act: self.ALWAYS.index(act.name))
        first = [act for act in shown if act.name not in self.ALWAYS]
        room = (bar.size.width or self.size.width) - 1 - sum(width(plain(self._button(act).text)) for act in last)
        buttons = [Button((Span(" "),))]
        for act in first:
            button = self._button(act)
            room -= width(plain(button.text))
            if room < 0:
                break
            buttons.append(button)
        bar.show([*buttons, *(self._button(act) for act in last)])

    def in_footer(self, act: Act) -> bool:
        """Whether an act is worth a place in the footer now."""
        return act.footer

    def _button(self, act: Act) -> Button:
        off = bool(self.reason(act))
        key = Span(shown_key(act.key), "off" if off else "key")
        return Button((key, Span(f" {act.label}", "off" if off else "text"), Span(GAP)), act.name)
