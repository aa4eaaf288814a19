"""Programs of two versions on one storage: what a newer one writes otherwise is put into and taken out of the files of
its hosts, so that the same engine runs as both.

The newer one has words of its own for what is unfinished, and a field that the older one does not know. It goes on with
what an older one has begun in the words of that. The older one is this program as it is: what it must do with such
words is what this one must do with those of its successors.
"""

from __future__ import annotations

import json
from typing import Any

from engine.data.records import MAGIC, canonical, framed

FIELD = "of_a_newer_program"
"""A field that each record of the newer program has, and that an older one keeps."""
_LATER = "-as-a-newer-program-does-it"
_OPERATION = "operation"


class NewerWords:
    """How the newer program of one host reads and writes; what is no record it leaves as it is."""

    def __init__(self) -> None:
        self._of_older: dict[str, str] = {}
        """What an older program has begun, by tag."""

    def written(self, raw: bytes) -> bytes:
        """Return what is written instead of a record of ours."""
        data = _parsed(raw)
        if data is None:
            return raw
        operation = data[_OPERATION]
        if operation is None:
            self._of_older.pop(data["id"], None)
        elif self._of_older.get(data["id"]) != operation["verb"]:
            operation["verb"] += _LATER
        return framed(canonical({**data, FIELD: True}))

    def read(self, raw: bytes) -> bytes:
        """Return the record of ours that something written means."""
        data = _parsed(raw)
        if data is None:
            return raw
        operation = data[_OPERATION]
        self._of_older.pop(data["id"], None)
        if operation is not None and not operation["verb"].endswith(_LATER):
            self._of_older[data["id"]] = operation["verb"]
        return in_our_words(raw)


class OlderWords:
    """How the older program reads and writes, which is this one."""

    def written(self, raw: bytes) -> bytes:
        """Return what is written."""
        return raw

    def read(self, raw: bytes) -> bytes:
        """Return what is read."""
        return raw


def in_our_words(raw: bytes) -> bytes:
    """Return a record, whichever program wrote it, as this one would have written it."""
    data = _parsed(raw)
    if data is None or FIELD not in data:
        return raw
    del data[FIELD]
    if data[_OPERATION] is not None:
        data[_OPERATION]["verb"] = data[_OPERATION]["verb"].removesuffix(_LATER)
    return framed(canonical(data))


def _parsed(raw: bytes) -> dict[str, Any] | None:
    """What a record says; None for what is none."""
    body = raw.partition(b"\n")[2][:-1]
    if not raw.startswith(MAGIC.encode()) or raw != framed(body):
        return None
    data: dict[str, Any] = json.loads(body)
    return data
