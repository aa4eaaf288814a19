"""Numbers and times as the console writes them."""

from __future__ import annotations

import time

from tui.text.amounts import compact, duration


def signed(size_bytes: int) -> str:
    """Space that something takes (``+4.0G``) or frees (``-9.6G``)."""
    if size_bytes == 0:
        return "+0"
    return f"{'+' if size_bytes > 0 else '-'}{short(abs(size_bytes))}"


def short(size_bytes: int) -> str:
    """Bytes in at most five characters: from three digits on without a fraction."""
    text = compact(size_bytes)
    whole, dot, rest = text.partition(".")
    return f"{whole}{rest[1:]}" if dot and len(whole) >= 3 else text


def about(seconds: float | None) -> str:
    """An estimate: ``~2m``; "?" when there is none."""
    return "?" if seconds is None else f"~{duration(seconds)}"


def span(low_s: float | None, high_s: float | None) -> str:
    """A range of time: ``2-4m``, ``~20s``, "?" when there is no estimate."""
    if low_s is None or high_s is None:
        return "?"
    low, high = duration(low_s), duration(high_s)
    if low == high:
        return f"~{low}"
    return f"{low[:-1]}-{high}" if low[-1] == high[-1] and low[:-1].isdigit() else f"{low}-{high}"


def clock(when: float) -> str:
    """Time of day, "-" for never."""
    try:
        return time.strftime("%H:%M:%S", time.localtime(when)) if when > 0 else "-"
    except (OverflowError, ValueError, OSError):
        return "?"


def age(seconds: float) -> str:
    """How long ago."""
    return f"{duration(seconds)} ago" if seconds >= 1 else "now"


def share(part: int, whole: int) -> str:
    """A part of a whole as percent, "?" without a whole."""
    return f"{100 * part // whole}%" if whole > 0 else "?"
