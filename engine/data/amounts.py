"""Bytes as words, for sentences that people read; nothing here is read back. Where the exact number matters, as in
evidence about a damage, it is told as it is."""

from __future__ import annotations

_UNITS = "KMGTPE"


def human(count: int) -> str:
    """Return bytes for a sentence: 512 bytes, 1.5 KiB, 10.0 GiB."""
    return scaled(count, " bytes", " ", "iB")


def scaled(count: int, plain: str, gap: str, ending: str = "") -> str:
    """Return bytes in binary units with one decimal: ``gap`` stands before the unit and ``ending`` behind it,
    ``plain`` behind what is less than 1024."""
    if abs(count) < 1024:
        return f"{count}{plain}"
    value = float(count)
    for unit in _UNITS:
        value /= 1024
        if abs(value) < 999.95 or unit == _UNITS[-1]:
            return f"{value:.1f}{gap}{unit}{ending}"
    raise AssertionError("unreachable: the last unit takes everything")
