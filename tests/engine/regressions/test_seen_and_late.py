"""What is seen is not what is durable, and what was looked at may have changed before the leases were there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.data.model import Status
from engine.errors import Conflict, DiskwrightError, NotFound, Refused
from engine.formats.files.localfs import LocalRepository
from engine.formats.files.tags import Tags
from engine.tags import leasing
from engine.tools.local.files import RealFiles
from tests.crash.kit import MiB, content
from tests.engine.kit import (
    FAST,
    NO_FIX,
    copied,
    fixes,
    once,
    record,
    rot,
    run,
    snapshotted,
    state_of,
    volume_of,
)

# -- what is seen is not what is durable


def syncs(monkeypatch: pytest.MonkeyPatch, world: Any, tag: str) -> list[str]:
    """What happens from now on: syncs of the directory of ``tag``, and names that are deleted."""
    seen: list[str] = []
    originals = {"sync_directory": RealFiles.sync_directory, "unlink": RealFiles.unlink}
    shard = str(world.root / "a" / "tags" / tag[:2])

    def sync(files: RealFiles, path: str) -> None:
        seen.extend(["sync"] if path == shard else [])
        originals["sync_directory"](files, path)

    def unlink(files: RealFiles, path: str) -> None:
        seen.append("unlink")
        originals["unlink"](files, path)

    monkeypatch.setattr(RealFiles, "sync_directory", sync)
    monkeypatch.setattr(RealFiles, "unlink", unlink)
    return seen


def dies_unsynced(killer: Any, seen: Callable[[], bool], act: Callable[[Any], Any]) -> None:
    """A host that acts and dies when what it did is ``seen`` and not yet synced."""
    original = RealFiles.sync_directory

    def sync(files: RealFiles, path: str) -> None:
        if seen():
            killer.world.effects.crash()
        original(files, path)

    killer.instead(RealFiles, "sync_directory", sync, act)
    assert seen()


def test_a_removal_that_is_merely_seen_is_made_durable_before_it_is_acknowledged(engine, world, killer, monkeypatch):
    """Whoever removed it first may have died between the name and its sync."""
    disk = engine.create_virtual_disk("a", MiB)
    dies_unsynced(killer, lambda: not record(engine, "a", disk).strong, lambda host: host.remove_image("a", disk))
    seen = syncs(monkeypatch, world, disk)
    engine.remove_image("a", disk)
    assert seen == ["sync"]


def test_an_old_representation_goes_only_when_its_successor_is_durable(engine, world, killer, monkeypatch):
    """The replacing record is seen, but its writer died before the sync."""
    disk = engine.create_virtual_disk("a", 4 * MiB)
    engine.set_strategy("a", disk, "performance")
    dies_unsynced(killer, lambda: bool(record(engine, "a", disk).scrap), lambda host: run(host, "a", "O-FORMAT"))
    seen = syncs(monkeypatch, world, disk)
    run(engine, "a", "C-SCRAP")
    assert seen[0] == "sync"


def test_a_base_goes_only_when_it_is_durable_that_nothing_needs_it(engine, world, killer, monkeypatch):
    """The record that no longer names the base is another tag's, in another directory."""
    disk, snapshot = snapshotted(engine, above="write -P 9 0 64k")
    while disk[:2] == snapshot[:2]:
        disk, snapshot = snapshotted(engine, above="write -P 9 0 64k")
    engine.remove_image("a", snapshot)
    dies_unsynced(
        killer, lambda: not record(engine, "a", disk).parents(), lambda host: run(host, "a", "M-CHAIN", snapshot)
    )
    before: list[bool] = []
    seen = syncs(monkeypatch, world, disk)
    original = Tags.purge

    def purge(store: Tags, tag: str, expected: int) -> None:
        before.append("sync" in seen)
        original(store, tag, expected)

    monkeypatch.setattr(Tags, "purge", purge)
    run(engine, "a", "C-REMOVED", snapshot)
    assert before == [True]


# -- paused between looking and taking the leases


def merged_away(engine: Any, snapshot: str) -> Any:
    def act() -> None:
        engine.remove_image("a", snapshot)
        run(engine, "a", "M-CHAIN", snapshot)

    return act


def test_an_export_that_was_paused_before_its_leases_does_not_read_another_image(engine, world, monkeypatch, tmp_path):
    """The snapshot was removed and merged into the disk meanwhile: its volume is the disk's now."""
    _, snapshot = snapshotted(engine, above="write -P 9 0 64k")
    monkeypatch.setattr(leasing, "take", once(merged_away(world.engine("host-b"), snapshot), leasing.take))
    with pytest.raises(NotFound):
        content(engine, "a", snapshot, tmp_path)
    assert not list(tmp_path.glob("*.out"))


@pytest.mark.parametrize("what", ["flat", "replica"])
def test_a_copy_that_was_paused_before_its_leases_does_not_read_another_image(engine, world, monkeypatch, what):
    """A flat disk from elsewhere, and a mend from a replica."""
    _, snapshot = snapshotted(engine, above="write -P 9 0 64k")
    if what == "flat":
        target = engine.create_virtual_disk("b", 8 * MiB, snapshot, options={**NO_FIX, **FAST})
    else:
        target = copied(engine, "b", snapshot, digest=False)
        volume_of(world, engine, "b", target).unlink()
    away = merged_away(world.engine("host-b"), snapshot)
    original, source = leasing.take, engine.context.repository("a")
    todo = [away]

    def late(doors: Any, repository: Any, *arguments: Any, **named: Any) -> Any:
        while repository is source and todo:
            todo.pop()()
        return original(doors, repository, *arguments, **named)

    monkeypatch.setattr(leasing, "take", late)
    (fix,) = fixes(engine, "b", target=target)
    with pytest.raises((Refused, Conflict)):
        engine.run_fix_here("b", fix)
    assert not todo
    assert state_of(engine, "b", target) == Status.BROKEN


def test_a_replica_is_proven_by_reading_it_also_where_blocks_can_be_shared(engine, world, monkeypatch, tmp_path):
    """A digest that only stands in the replica's record proves nothing about its blocks."""
    _, snapshot = snapshotted(engine, 2 * MiB, above="")
    copied(engine, "b", snapshot)
    rot(volume_of(world, engine, "b", snapshot))
    volume_of(world, engine, "a", snapshot).unlink()
    can = engine.context.repository("a").constraints()
    monkeypatch.setattr(LocalRepository, "constraints", lambda self: can._replace(reflink=True, direct_io=False))

    def clone(self: RealFiles, source: Any, target: Any) -> bool:
        target.write_at(0, source.read_at(0, source.stat().size))
        return True

    monkeypatch.setattr(RealFiles, "clone", clone)
    with pytest.raises(DiskwrightError, match="digest says"):
        run(engine, "a", "B-REPLICA")
    assert state_of(engine, "a", snapshot) == Status.BROKEN
