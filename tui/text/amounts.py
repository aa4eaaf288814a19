"""Sizes, durations and moments as words, for both faces. Nothing here is read back: what an operator types is
parsed where it is typed."""

from __future__ import annotations

_UNITS = "KMGTPE"


def compact(count: int) -> str:
    """Bytes in at most six characters, binary units: 512, 1.5K, 10.0G."""
    return _scaled(count, "", "")


def human(count: int) -> str:
    """Bytes for a sentence: 512 bytes, 1.5 KiB, 10.0 GiB."""
    return _scaled(count, " bytes", " ", "iB")


def _scaled(count: int, plain: str, gap: str, ending: str = "") -> str:
    if abs(count) < 1024:
        return f"{count}{plain}"
    value = float(count)
    for unit in _UNITS:
        value /= 1024
        if abs(value) < 999.95 or unit == _UNITS[-1]:
            return f"{value:.1f}{gap}{unit}{ending}"
    raise AssertionError("unreachable: the last unit takes everything")


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
