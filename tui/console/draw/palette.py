"""Colours: four palettes, each a set of roles. What a thing is decides its role, the palette its colour.

Never red against green. Every pair that is used has a contrast of 4.5 or more (WCAG 2.1, 1.4.3), which
a test computes; the words and signs carry the meaning without any colour.
"""

from __future__ import annotations

from typing import NamedTuple

from rich.style import Style
from textual.theme import Theme


class Paint(NamedTuple):
    """Colour and attributes of one role; colour "" is that of plain text."""

    colour: str = ""
    bold: bool = False
    dim: bool = False
    italic: bool = False
    reverse: bool = False


class Palette(NamedTuple):
    """A look. ``roles`` are foregrounds; they stand on ``background``, ``cursor`` and ``mark``."""

    name: str
    title: str
    dark: bool
    background: str
    text: str
    border: str
    border_focus: str
    cursor: str
    """Background of the row under the cursor."""
    mark: str
    """Background of the rows of a range."""
    roles: dict[str, Paint]
    native: bool = False
    """The terminal's own sixteen colours are used, so what is seen is the terminal's choice."""

    def style(self, role: str, ground: str = "") -> Style:
        """How text of ``role`` is drawn on ``ground``: "", "cursor" or "mark"."""
        paint = self.roles.get(role) or _PLAIN
        back = {"cursor": self.cursor, "mark": self.mark}.get(ground, self.background)
        return Style(
            color=rich_name(paint.colour or self.text),
            bgcolor=rich_name(back),
            bold=paint.bold,
            dim=paint.dim,
            italic=paint.italic,
            reverse=paint.reverse,
        )

    def theme(self) -> Theme:
        """The same for Textual's own widgets (inputs, scroll bars)."""
        accent = self.roles["key"].colour or self.text
        return Theme(
            name=self.name,
            primary=accent,
            secondary=accent,
            accent=accent,
            warning=self.roles["degraded"].colour or self.text,
            error=self.roles["broken"].colour or self.text,
            success=self.roles["optimized"].colour or self.text,
            foreground=self.text,
            background=self.background,
            surface=self.background,
            panel=self.background,
            dark=self.dark,
            ansi=self.native,
            variables={
                "dw-background": self.background,
                "dw-text": self.text,
                "dw-border": self.border,
                "dw-focus": self.border_focus,
                "dw-title": self.roles["title"].colour or self.text,
                "dw-cursor": self.cursor,
                "scrollbar": self.border,
                "scrollbar-hover": self.border_focus,
                "scrollbar-active": self.border_focus,
                "scrollbar-background": self.background,
                "scrollbar-background-hover": self.background,
                "scrollbar-background-active": self.background,
                "scrollbar-corner-color": self.background,
                **(_NATIVE if self.native else {}),
            },
        )


_PLAIN = Paint()
_NATIVE = {
    "ansi-background": "ansi_default",
    "ansi-foreground": "ansi_default",
    "border-blurred": "ansi_default",
    "block-cursor-foreground": "ansi_black",
    "block-cursor-background": "ansi_white",
    "input-cursor-background": "ansi_white",
    "input-cursor-foreground": "ansi_black",
    "input-cursor-text-style": "none",
    "input-selection-background": "ansi_bright_blue",
    "input-selection-foreground": "ansi_black",
    "screen-selection-background": "ansi_bright_blue",
    "screen-selection-foreground": "ansi_black",
}
"""What Textual wants to know of a theme in the terminal's own colours."""


def rich_name(colour: str) -> str:
    """A colour as Rich names it; Textual says ``ansi_bright_blue`` where Rich says ``bright_blue``."""
    if colour == "ansi_default":
        return "default"
    return colour.removeprefix("ansi_") if colour.startswith("ansi_") else colour


def _roles(broken: str, degraded: str, optimized: str, quiet: str, key: str) -> dict[str, Paint]:
    return {
        "text": Paint(),
        "bold": Paint(bold=True),
        "quiet": Paint(quiet),
        "title": Paint(key, bold=True),
        "head": Paint(quiet, bold=True),
        "key": Paint(key, bold=True),
        "off": Paint(quiet, italic=True),
        "broken": Paint(broken, bold=True),
        "degraded": Paint(degraded),
        "optimized": Paint(optimized),
        "removed": Paint(quiet),
        "unknown": Paint("", italic=True),
        "warning": Paint(degraded, bold=True),
        "danger": Paint(broken, bold=True, reverse=True),
        "bar": Paint(optimized),
        "mark": Paint(key, bold=True),
    }


DARK = Palette(
    "dw-dark", "dark", True, "#101418", "#E6EDF3", "#5B6875", "#56B4E9", "#22354A", "#33294A",
    _roles("#FF7F50", "#E69F00", "#56B4E9", "#9AA5B1", "#7FD1FF"),
)  # fmt: skip
LIGHT = Palette(
    "dw-light", "light", False, "#FBFBF8", "#1A1D21", "#7A8490", "#005A9E", "#D5E6F5", "#EBDDF5",
    _roles("#A83200", "#6E4A00", "#00508C", "#4C545D", "#00457A"),
)  # fmt: skip
CONTRAST = Palette(
    "dw-contrast", "high contrast", True, "#000000", "#FFFFFF", "#FFFFFF", "#FFD75F", "#00366B", "#5A0F5A",
    _roles("#FFA07A", "#FFC233", "#87D7FF", "#D7DCE2", "#FFD75F"),
)  # fmt: skip
TERMINAL = Palette(
    "dw-terminal", "terminal colours", True,
    "ansi_default", "ansi_default", "ansi_default", "ansi_bright_cyan", "ansi_default", "ansi_default",
    _roles("ansi_bright_red", "ansi_bright_yellow", "ansi_bright_cyan", "ansi_default", "ansi_bright_cyan"),
    native=True,
)  # fmt: skip

MONO = Palette(
    "dw-mono", "no colours", True,
    "ansi_default", "ansi_default", "ansi_default", "ansi_default", "ansi_default", "ansi_default",
    {
        **_roles("", "", "", "", ""),
        "broken": Paint(bold=True, reverse=True),
        "degraded": Paint(bold=True),
        "removed": Paint(dim=True),
        "off": Paint(dim=True),
    },
    native=True,
)  # fmt: skip
"""Under NO_COLOR: attributes only, and what is broken stands out most."""

PALETTES = {palette.title.split()[0]: palette for palette in (DARK, LIGHT, CONTRAST, TERMINAL)}
"""By the word of ``--theme``: dark, light, high, terminal."""


def next_name(name: str) -> str:
    """The palette after ``name``, around."""
    names = list(PALETTES)
    return names[(names.index(name) + 1) % len(names)] if name in names else names[0]


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two ``#rrggbb`` colours by WCAG 2.1, from 1 to 21."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
