"""Whether hidden data is still the source of the copy that it is kept for. That copy may be in another repository."""

from __future__ import annotations

from collections.abc import Iterable

from engine.data.kept import Kept
from engine.errors import DiskwrightError
from engine.formats.base import Scan
from engine.tags.context import Context
from engine.triage.view import Keeper


def keepers(context: Context, scan: Scan) -> dict[str, Keeper]:
    """Return who needs hidden data, or may need it, by tag. A copy that is not there any more, or that is finished,
    needs nothing: whoever begins one has the lease of its source until the copy is committed."""
    found = {}
    for tag, entry in scan.tags.items():
        record = entry.record
        if record is not None and record.kept is not None and not record.strong:
            keeper = _keeper(context, tag, record.kept)
            if keeper is not None:
                found[tag] = keeper
    return found


def settled(context: Context, scan: Scan, tags: Iterable[str]) -> bool:
    """Make durable what is seen of the copies that the data of ``tags`` is kept for: whoever finished one may have died
    before it was. Return whether there is any, so that who needs the data has to be asked again before it goes. The
    caller holds the leases of ``tags``."""
    records = [entry.record for tag in tags if (entry := scan.tags.get(tag)) is not None]
    kept = [record.kept for record in records if record is not None and record.kept is not None]
    copies = [(there, one.copy) for one in kept if (there := context.by_identity(one.repository)) is not None]
    for repository, copy in copies:
        repository.tags.settle(copy)
    return bool(copies)


def _keeper(context: Context, tag: str, kept: Kept) -> Keeper | None:
    repository = context.by_identity(kept.repository)
    if repository is None:
        return Keeper(kept.copy, f"whether it is finished is not known: {context.why_away(kept.repository)}", False)
    try:
        entry = repository.tags.read(kept.copy)
        scan = repository.scan() if entry is None else None  # rarely: whoever began it has died before it was committed
    except DiskwrightError as error:
        return Keeper(kept.copy, f"whether it is finished is not known: {error.message}", False)
    if scan is not None and (scan.unlisted or any(part.held for part in scan.missing)):
        return Keeper(kept.copy, "whether it is finished is not known: its repository cannot be listed whole", False)
    if entry is None or entry.tombstone:
        return None
    if entry.record is None:
        return Keeper(kept.copy, f"whether it is finished is not known: {entry.problem}", False)
    operation = entry.record.operation
    if entry.record.whole or operation is None or operation.source != tag:
        return None
    return Keeper(kept.copy, f"it is not finished (in {repository.place})", True)
