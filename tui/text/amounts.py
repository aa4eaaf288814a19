"""Sizes, durations and moments as words for tables, for both faces. Nothing here is read back: what an operator types
is parsed where it is typed. Sizes in sentences: ``engine.data.amounts``."""

from __future__ import annotations

from engine.data.amounts import scaled


def compact(count: int) -> str:
    """Bytes in at most six characters, binary units: 512, 1.5K, 10.0G."""
    return scaled(count, "", "")


def difference(before: int, after: int) -> str:
    """What two amounts differ by where they look alike: " (+3.4M)", else ""."""
    if before == after or compact(before) != compact(after):
        return ""
    return f" ({'+' if after > before else '-'}{compact(abs(after - before))})"


def duration(seconds: float) -> str:
    """A time span: 20s, 2m, 3h05m."""
    whole = max(1, round(seconds))
    if whole < 100:
        return f"{whole}s"
    minutes = round(whole / 60)
    return f"{minutes}m" if minutes < 100 else f"{minutes // 60}h{minutes % 60:02d}m"


def moment(when: float) -> str:
    """Local time, or "unknown" for a number that is none."""
    import time

    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    except (OverflowError, ValueError, OSError):
        return "unknown"
