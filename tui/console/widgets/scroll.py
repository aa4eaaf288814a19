"""Scroll bars of plain characters: they are seen without colours, and copied text shows what they are."""

from __future__ import annotations

from rich.color import Color
from rich.segment import Segment, Segments
from rich.style import Style
from textual.scroll_view import ScrollView
from textual.scrollbar import ScrollBarRender

from tui.console.widgets.base import signs_of

_GRAB, _UP, _DOWN = ({"@mouse.down": name} for name in ("grab", "scroll_up", "scroll_down"))


class Bars(ScrollBarRender):
    """One column, one glyph for the part that is seen."""

    GLYPH = "┃"

    @classmethod
    def render_bar(
        cls,
        size: int = 25,
        virtual_size: float = 50,
        window_size: float = 20,
        position: float = 0,
        thickness: int = 1,
        vertical: bool = True,
        back_color: Color = Color.parse("default"),  # noqa: B008 - Textual's own signature
        bar_color: Color = Color.parse("default"),  # noqa: B008 - as above
    ) -> Segments:
        """The bar as segments; what can be clicked has its meta."""
        del thickness
        room = Style(bgcolor=back_color)
        if not (window_size and size and virtual_size > window_size):
            return Segments([Segment(" ", room)] * size, new_lines=vertical)
        length = max(1, round(size * window_size / virtual_size))
        start = round((size - length) * position / (virtual_size - window_size))
        start = max(0, min(start, size - length))
        thumb = Segment(cls.GLYPH, Style(color=bar_color, bgcolor=back_color, meta=_GRAB))
        up, down = (Segment(" ", room + Style(meta=meta)) for meta in (_UP, _DOWN))
        return Segments([up] * start + [thumb] * length + [down] * (size - start - length), new_lines=vertical)


class AsciiBars(Bars):
    """Bars for terminals that have ASCII only."""

    GLYPH = "#"


def use_plain_bars(view: ScrollView) -> None:
    """Give a view the bars that its terminal can show."""
    bars = Bars if signs_of(view).unicode else AsciiBars
    view.vertical_scrollbar.renderer = bars  # type: ignore[misc]
