"""For whom hidden data is kept that would be merged or cleaned away otherwise. Plain data; whether that one still needs
it is looked up in the survey.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from engine.data.model import is_id


class Kept(NamedTuple):
    """An unfinished copy that has hidden data as its source."""

    repository: str
    """Identity of the storage in which the copy is."""
    copy: str


def from_json(data: Any) -> Kept | None:
    """Return what is in a field of a record. ValueError or TypeError when that is not what it must be."""
    if data is None:
        return None
    repository, copy = data
    if not (is_id(repository) and is_id(copy)):
        raise ValueError("kept")
    return Kept(repository, copy)
