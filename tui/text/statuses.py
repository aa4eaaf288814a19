"""The one table of statuses: word, code, sign, meaning and colour role of each, for the command line and the console.

What a role's colour is, each face says for itself. Why an image has a status is told by ``tui.view.why``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """What an image is shown as, and what a fix makes of it."""

    BROKEN = "broken"
    DEGRADED = "degraded"
    OPTIMIZED = "optimized"
    REMOVED = "removed"
    """Removed and still holding space: not an image status, never counted as one."""
    UNKNOWN = "unknown"
    HIDDEN = "hidden"
    """Only in ``now`` and ``after`` of fixes: data that no image shows."""
    GONE = "gone"
    """Only in ``after`` of fixes."""
    NONE = ""
    """Only in ``now`` and ``after`` of fixes that change no status."""


class Look(NamedTuple):
    """How a status is shown: sign, word and colour say the same."""

    sign: str
    """"" for none."""
    ascii: str
    """The sign where the terminal has no Unicode."""
    code: str
    """The word where room is short."""
    role: str
    """What it is coloured as."""
    meaning: str = ""
    """What an image with this status can do."""
    brief: str = ""
    """What stands in brackets behind the word, so that it is not misunderstood."""
    impact: str = ""
    """What an image with this status keeps from being done."""

    def signed(self, word: str, unicode: bool) -> str:
        """Return a word for the status with its sign before it."""
        return f"{self.sign if unicode else self.ascii} {word}".strip()


LOOKS: dict[str, Look] = {
    State.BROKEN: Look(
        "✖", "x", "BRK", "broken", "cannot be used now",
        impact="It can neither be prepared nor be the source of a copy",
    ),
    State.DEGRADED: Look(
        "◐", "~", "DEG", "degraded", "usable, can be made better", "usable",
        "None that hurts: it is usable, and could be represented better",
    ),
    State.UNKNOWN: Look(
        "?", "?", "UNK", "unknown", "could not be read just now, nothing is concluded",
        impact="Nothing of it is deleted or overwritten while it cannot be read",
    ),
    State.OPTIMIZED: Look("●", "+", "OPT", "optimized", "usable, nothing to do", impact="None"),
    State.REMOVED: Look(
        "○", "o", "DEL", "removed", "removed, still uses space until it is cleaned", "holding space",
        "It holds space until a clean fix runs; until then it can be restored",
    ),
    State.HIDDEN: Look("·", ".", "HID", "quiet"),
    State.GONE: Look("", "", "gone", "quiet"),
    State.NONE: Look("", "", "-", "quiet"),
}  # fmt: skip
"""By status, in the order in which they are counted."""

SHOWN = (State.BROKEN, State.DEGRADED, State.OPTIMIZED, State.REMOVED, State.UNKNOWN)
"""What an image can be shown as. Notes of views name a status by its place here."""

COUNTED = tuple(state for state in LOOKS if state in SHOWN)
"""The same in the order in which they are counted."""

ATTENTION = (State.BROKEN, State.UNKNOWN, State.DEGRADED, State.REMOVED, State.OPTIMIZED)
"""The same in the order of a list of images, what needs somebody first."""


def role_of(status: str) -> str:
    """Return the colour role of a status; that of an unknown one for what is none."""
    return LOOKS[status].role if status in LOOKS else State.UNKNOWN.value


def code_of(status: str) -> str:
    """Return the short word for a status."""
    return LOOKS[status].code
