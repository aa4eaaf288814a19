"""What can be done on a screen: one table feeds keys, footer, help, palette and mouse.

A key that can act only reversibly is lower case; what cannot be undone is upper case and asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple


class Act(NamedTuple):
    """One thing an operator can do."""

    name: str
    """What the operator's settings give another key by."""
    key: str
    """As Textual names it ("space", "R", "slash"); "" for what only the palette has."""
    label: str
    """One or two words for the footer."""
    sentence: str
    """What it does, for help and palette."""
    do: Callable[[Any], object]
    """Does it, given the screen whose key it is."""
    words: str = ""
    """Other words to find it by."""
    changes: bool = False
    """The act changes a repository, or what this host has queued or runs."""
    footer: bool = True
    """The act is shown at the bottom, if there is room."""


_SHOWN = {
    "slash": "/", "question_mark": "?", "colon": ":", "plus": "+", "underscore": "_", "escape": "esc",
    "left_square_bracket": "[", "right_square_bracket": "]", "left_curly_bracket": "{",
    "right_curly_bracket": "}", "comma": ",", "full_stop": ".", "exclamation_mark": "!", "ctrl+p": "ctrl+p",
}  # fmt: skip


def shown_key(key: str) -> str:
    """Return a key as the operator sees it."""
    return _SHOWN.get(key, key)


class KeyMap:
    """Which key does what on one screen, with the operator's changes."""

    def __init__(self, acts: Iterable[Act], changes: Mapping[str, Sequence[str]]) -> None:
        self.acts = tuple(act._replace(key=changes.get(act.name, [act.key])[0]) for act in acts)
        self._by_key = {act.key: act for act in reversed(self.acts) if act.key}
        for act in self.acts:
            self._by_key |= dict.fromkeys(changes.get(act.name, ()), act)

    def find(self, key: str) -> Act | None:
        """Return the act of a key, None when the key has none here."""
        return self._by_key.get(key)

    def named(self, name: str) -> Act | None:
        """Return the act of that name, None when there is none here."""
        return next((act for act in self.acts if act.name == name), None)
