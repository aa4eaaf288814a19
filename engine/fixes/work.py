"""The one form of a fix between the check that found it and the executor that runs it, also across processes.

Plain data; what is done with it is in ``run``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from engine.data.model import Fix
from engine.errors import BadRequest, Irreversible


class Work(NamedTuple):
    """A fix to run, and what the scan that verified it has seen for its executor."""

    fix: Fix
    verified: bool = False
    """A scan has found it again under its leases, which were held ever since: whoever runs it needs no other scan
    unless a tag that it reads has changed."""
    lost: tuple[tuple[int, int], ...] = ()
    """Ranges of its target that a deep look has proven to be wrong."""
    has_dependants: bool = False
    """Other tags stand on its target."""

    def to_json(self) -> dict[str, Any]:
        """Return the work as JSON data; ``from_json`` of it is equal."""
        return self._asdict() | {"fix": self.fix.to_json()}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Work:
        """Rebuild work from a task's own note, or raise BadRequest when ``data`` is none."""
        try:
            lost = tuple((int(start), int(length)) for start, length in data["lost"])
            return Work(Fix.from_json(data["fix"]), bool(data["verified"]), lost, bool(data["has_dependants"]))
        except (TypeError, ValueError, KeyError) as error:
            raise BadRequest(f"this is no fix to run ({error!s:.120})", "Start the fix again") from None


def require_known(wanted: Sequence[Fix], irreversible: bool) -> None:
    """Irreversible, unless it was said that what cannot be undone may be done."""
    never = [] if irreversible else [fix for fix in wanted if fix.irreversible]
    if never:
        raise Irreversible(
            f"fix {never[0].id} ({never[0].rule}) cannot be undone: {never[0].why}",
            "Say that it may be done: --irreversible, or the option irreversible of the API",
        )
