"""Progress lines: what a running attempt tells the world, and what a crash leaves of it.

A line is a small JSON object, written durably into the attempt's progress log, which has one
writer (the holder of the lease). The cursor in it is a lower bound of what is durable in the
volume being filled: data is flushed before the line that claims it is written.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from engine.data.decoding import operation_status
from engine.data.model import OperationStatus
from engine.data.records import canonical

MAX_LINE_BYTES = 400
_MAX_ERROR_CHARACTERS = 120
_MAX_PATH_CHARACTERS = 24


class Progress(NamedTuple):
    """One line."""

    status: OperationStatus
    cursor: int = 0
    volume: str = ""
    """The volume that the cursor is about: it means nothing for any other."""
    process: tuple[str, int, int] | None = None
    """(boot id, pid, start time) of the executor on ``status.host``."""


def encode(progress: Progress) -> bytes:
    """Return a progress line of at most MAX_LINE_BYTES: the error text is shortened until the line fits."""
    limit = _MAX_ERROR_CHARACTERS
    error = progress.status.last_error
    if len(error) > limit:
        error = _with_short_paths(error)
    while True:
        status = progress.status._replace(
            last_error=error[:limit],
            host=progress.status.host[:64],
            stage_name=progress.status.stage_name[:32],
        )
        line = canonical(
            {**status.to_json(), "cursor": progress.cursor, "volume": progress.volume, "process": progress.process}
        )
        if len(line) <= MAX_LINE_BYTES or limit == 0:
            return line
        limit //= 2


def _with_short_paths(text: str) -> str:
    """Return an error with the ends of its long paths: the reason stands behind them and must not be what is cut
    off."""
    words = text.split(" ")
    return " ".join(f"…{word[-_MAX_PATH_CHARACTERS:]}" if word.count("/") > 1 else word for word in words)


def decode(line: bytes | None) -> Progress | None:
    """Return the progress in ``line``, or None: a line that makes no sense is no progress."""
    if line is None:
        return None
    try:
        data = json.loads(line)
        status = operation_status(data)
        cursor = data["cursor"]
        process = data.get("process")
        if process is not None:
            boot, pid, started = process
            process = (str(boot), int(pid), int(started))
        volume = data.get("volume", "")
        if status is None or type(cursor) is not int or cursor < 0 or not isinstance(volume, str):
            return None
        return Progress(status, cursor, volume, process)
    except (ArithmeticError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
