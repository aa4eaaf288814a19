"""Make missing parts of a repository again: what holds nothing, or is known otherwise. No image is touched."""

from __future__ import annotations

from engine.errors import StaleFix, StorageError
from engine.formats.base import Repository, Scan
from engine.tags.context import Context
from engine.triage.view import unseen


def make(context: Context, repository: Repository, name: str) -> None:
    """Make one part again. StaleFix when it is there."""
    _scan(repository, name)
    _make(context, repository, name)


def make_locks(context: Context, repository: Repository, name: str) -> None:
    """Make the lock file again. ImageBusy while anybody has a volume open, also on another host: he has a lease of the
    file before, which the new one does not show. Whoever else has one finds out at his next step, because his host
    noted which file it was. StorageError while some of the data cannot be seen: nothing tells then who has it."""
    scan = _scan(repository, name)
    assert repository.parts is not None, "it is missing"
    _require_seen(repository, scan)
    repository.parts.require_unlocked(scan.volumes)
    _make(context, repository, name)


def _require_seen(repository: Repository, scan: Scan) -> None:
    hidden = unseen(scan)
    if hidden:
        raise StorageError(
            f"the data in {repository.place}/{hidden} cannot be seen, so who uses it cannot be asked",
            "Mount or repair what belongs there and try again. If it is lost for certain and no host uses any of it, "
            f"make an empty file locks in {repository.place} by hand, and connect the repository with --accept-moved",
        )


def _scan(repository: Repository, name: str) -> Scan:
    scan = repository.scan()
    if name not in [part.name for part in scan.missing]:
        raise StaleFix(f"{name!r:.80} of the repository is there again", "Check again")
    return scan


def _make(context: Context, repository: Repository, name: str) -> None:
    assert repository.parts is not None, "it is missing"
    context.expect_anew(repository, name)
    repository.parts.make(name)
