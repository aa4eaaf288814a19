"""Keys of a screen: what can be done, what cannot just now and why, and the line that tells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import events
from textual.screen import Screen

from tui.console.acts import Act, KeyMap, shown_key
from tui.console.lines import Span, plain
from tui.console.widgets.bar import Bar, Button
from tui.printable import width

if TYPE_CHECKING:
    from tui.console.app import ConsoleApp

GAP = "  "


class Acting(Screen[Any]):
    """A screen whose keys are acts. ``ACTS`` are its own; the last of the footer are always shown."""

    ACTS: ClassVar[Sequence[Act]] = ()
    ALWAYS: ClassVar[Sequence[str]] = ()
    """Acts at the end of the footer, which are never left out."""

    _key_map: KeyMap | None = None

    @property
    def console(self) -> ConsoleApp:
        """The application."""
        return cast("ConsoleApp", self.app)

    @property
    def keys(self) -> KeyMap:
        """Which key does what here."""
        if self._key_map is None:
            self._key_map = KeyMap(self.all_acts(), self.console.key_changes)
        return self._key_map

    def all_acts(self) -> Sequence[Act]:
        """Every act that has a key here, the screen's own first."""
        return self.ACTS

    # -- doing

    def why_not(self, act: Act) -> str:
        """Why an act is not possible now, one sentence; "" when it is."""
        del act
        return ""

    def reason(self, act: Act) -> str:
        """As ``why_not``, with the reasons that hold for every screen."""
        if act.changes and (locked := self.console.why_locked()):
            return locked
        return self.why_not(act)

    def press(self, act: Act) -> None:
        """Do an act, or tell why it is not possible now."""
        if why := self.reason(act):
            self.console.tell(f"{act.label}: {why}", "warning")
            return
        method = getattr(self, f"act_{act.name}", None) or getattr(self.console, f"act_{act.name}")
        try:
            method()
        except Exception as error:  # noqa: BLE001 - told in a dialog; no key may end the console
            self.console.failed(act.label, error)

    def on_key(self, event: events.Key) -> None:
        """Find what the key does here."""
        act = self.keys.find(event.key)
        if act is None:
            return
        event.stop()
        event.prevent_default()
        self.press(act)

    def on_bar_pressed(self, message: Bar.Pressed) -> None:
        """A button of a bar is as its key."""
        message.stop()
        act = self.keys.named(message.act)
        if act is not None:
            self.press(act)

    # -- telling

    def fill_footer(self) -> None:
        """Write the footer: as many acts as fit, then those that are always there."""
        bar = self.query_one("#footer", Bar)
        shown = [act for act in self.keys.acts if act.footer and act.key]
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

    def _button(self, act: Act) -> Button:
        off = bool(self.reason(act))
        key = Span(shown_key(act.key), "off" if off else "key")
        return Button((key, Span(f" {act.label}", "off" if off else "text"), Span(GAP)), act.name)
