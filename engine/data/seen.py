"""What a volume looked like when its content was last known to be at rest, and whether somebody has written to it.

Plain data. The storage tells it of each file without reading it; where it cannot tell (``Volumes.stamp``) nothing is
noted and nothing concluded. A stamp counts only for the state of the record that it was noted for: whatever of us
writes to a volume has raised ``epoch`` or ``write_epoch`` before.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

_SECOND_NS = 10**9
_NUMBERS = operator.itemgetter("epoch", "write_epoch", "inode", "mtime_ns", "length")
_INTEGER = frozenset({int})


class Stamp(NamedTuple):
    """What changes when a file is written to, whoever does it."""

    inode: int
    mtime_ns: int
    """Time of the last write, as the file system noted it."""
    length: int

    @property
    def when(self) -> str:
        """The time of the last write, for people."""
        import datetime  # takes as long as the start of many a module, and is rarely needed

        try:
            return f"{datetime.datetime.fromtimestamp(self.mtime_ns // _SECOND_NS, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
        except (ValueError, OverflowError, OSError):
            return f"{self.mtime_ns // _SECOND_NS} s after 1970"

    def rewritten(self, now: Stamp) -> bool:
        """Tell whether the file that had this stamp was written to before it got the stamp ``now``. Another file in its
        place is a copy of it and tells nothing; one whose times a tool put back in whole seconds is as it was."""
        if now.inode != self.inode:
            return False
        same = now.mtime_ns in (self.mtime_ns, self.mtime_ns - self.mtime_ns % _SECOND_NS)
        return not same or now.length != self.length


class Seen(NamedTuple):
    """The stamp of a volume, as its record has it."""

    volume: str
    epoch: int
    write_epoch: int
    stamp: Stamp

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {"volume": self.volume, "epoch": self.epoch, "write_epoch": self.write_epoch, **self.stamp._asdict()}


def from_json(data: Any) -> Seen | None:
    """Return what is in a field of a record. ValueError, KeyError or TypeError when that is not what it must be."""
    if data is None:
        return None
    volume, numbers = data["volume"], _NUMBERS(data)
    if type(volume) is not str or not _INTEGER.issuperset(map(type, numbers)):
        raise ValueError("seen")
    return Seen(volume, numbers[0], numbers[1], Stamp._make(numbers[2:]))
