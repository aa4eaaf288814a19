"""create_snapshot_group: freeze what several disks contain at one moment; after any crash all of it or nothing.

(1) Weak tags S1, S2, … as for a snapshot of each, which name each other; (2) the empty overlays above them; (3) each
disk's record points to its overlay, and machines go on there; (4) S1 becomes strong: *the seal of all*, since each of
the others counts as soon as S1 says so (``engine.formats.groups``). (5) Each gets a record that says so by itself, S1
last. Before (4) each is what a snapshot that was begun alone is, and whoever cleans or merges one of them away makes it
certain first that the others never count. After it what is left of (5) is done when one of them is changed next.

The disks stand still from before (1) until after (4), or their machine switches all at once: so it is one moment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from engine.data.model import GROUP, MAX_GROUP, require_id
from engine.data.options import Options
from engine.data.records import Record, check_user_data
from engine.errors import BadRequest, DiskwrightError, NotFound, OutcomeUnknown, Overtaken, Refused
from engine.formats.base import Repository
from engine.tags import changes, leasing
from engine.tags.context import Context
from engine.verbs import snapshot
from engine.verbs.snapshot import Begun


class Steps:
    """What is done to each disk of a group; to such as nobody uses."""

    def __init__(self, context: Context, repository: Repository) -> None:
        self._context, self._repository = context, repository

    def make(self, one: Begun) -> None:
        """Make the overlay."""
        snapshot.make_overlay(self._repository, one)

    def freeze(self) -> None:
        """Have the guests of machines stand still, if that is asked for."""

    def move(self, one: Begun) -> None:
        """Let the disk's record point to it."""
        snapshot.move(self._context, self._repository, one)

    def drop(self, one: Begun) -> None:
        """Take back what was made for a disk that did not move."""
        snapshot.drop_unused(self._repository, one)

    def switch(self) -> None:
        """Have all machines go on in the overlays, and make durable what they have left."""

    def noted(self, record: Record) -> Record:
        """Return the record of a snapshot with what its volume looks like when it counts."""
        return record


def snapshots(context: Context, repo_id: str, disks: Sequence[str], user_data: Any, options: Options) -> dict[str, str]:
    """Make snapshots of disks that nobody uses, and return their ids by disk."""
    repository = context.repository(repo_id)
    user_data = check_user_data(user_data)
    with snapshot.alone(context, repository, disks):
        begun = [snapshot.plan(context, repository, disk, user_data, options.strategy) for disk in disks]
        with leasing.take(context.doors, repository, [one.record.id for one in begun]):
            return together(repository, begun, Steps(context, repository))


def require_disks(context: Context, repo_id: str, disks: Sequence[str]) -> list[str]:
    """Return the disks of which a group is asked for, if they can be one as far as that can be told without looking at
    each. BadRequest, Refused naming one that is in another repository."""
    if isinstance(disks, str) or not disks or len(disks) > MAX_GROUP:
        raise BadRequest(f"a group is of 1 to {MAX_GROUP} disks", "Name each disk once")
    for disk in disks:
        require_id(disk, "base_virtual_disk_ids")
        if list(disks).count(disk) > 1:
            raise BadRequest(f"image {disk} was named twice", "Name each disk once")
    repository = context.repository(repo_id)
    for disk in disks:
        try:
            changes.read(repository, disk)
        except NotFound:
            where = _elsewhere(context, disk)
            if not where:
                raise
            raise Refused(
                f"image {disk} is in {where}, not in {repo_id}: what says that all of a group count is one record, so "
                "its disks are in one repository",
                "Make a group of those in each, or copy the disk",
            ) from None
    return list(disks)


def _elsewhere(context: Context, disk: str) -> str:
    with contextlib.suppress(DiskwrightError):
        return context.find(disk, Options()).repo_id
    return ""


def together(repository: Repository, begun: Sequence[Begun], steps: Steps) -> dict[str, str]:
    """Make the snapshots of a group, and return their ids by disk. The caller holds the leases of the disks and of the
    snapshots. What is left behind after an error is offered by check."""
    members = tuple(one.record.id for one in begun)
    records = [_of_group(one.record, members) for one in begun]
    try:
        first, *_ = [repository.tags.publish(record, 0) for record in records]
        for one in begun:
            steps.make(one)
        steps.freeze()
        for one in begun:
            steps.move(one)
    except DiskwrightError:
        for one in begun:
            steps.drop(one)
        raise
    steps.switch()
    _seal(repository, records[0], first, steps)
    with contextlib.suppress(DiskwrightError):  # they count
        _make_own(repository, members, steps)
    return {one.disk.id: one.record.id for one in begun}


def _of_group(record: Record, members: tuple[str, ...]) -> Record:
    assert record.operation is not None
    return record._replace(operation=record.operation._replace(verb=GROUP, pinned=members))


def _seal(repository: Repository, first: Record, generation: int, steps: Steps) -> None:
    """Have all of the group count, unless somebody has begun to clean one of them away: that changes the first one."""
    try:
        repository.tags.publish(steps.noted(first)._replace(strong=True), generation)
    except OutcomeUnknown:
        raise
    except Overtaken as error:
        raise Refused(
            f"the unfinished snapshot {first.id} of image {first.operation and first.operation.other} was changed at "
            "the same moment",
            "Look at the status of the disks, then make the snapshots again",
        ) from error


def _make_own(repository: Repository, members: tuple[str, ...], steps: Steps) -> None:
    """Give each of a sealed group a record of its own; that of the first one needs those of all others."""
    for tag in (*members[1:], members[0]):
        found = changes.read(repository, tag)
        repository.tags.publish(steps.noted(found.record), found.generation)
