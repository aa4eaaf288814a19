"""What is told of an image that cannot be used: unknown, removed, deleted, hidden and away are different things."""

from __future__ import annotations

import pytest

from engine.errors import NotFound, StorageError
from engine.triage.rules import C_REMOVED
from sim.hosts.world import REPOSITORIES, World

SIZE = 65536


def test_unknown_removed_deleted_and_away_are_told_apart():
    """Each with its own next step; a repository that cannot be asked is named before an image is called unknown."""
    world = World()
    world.create("a", "b")
    engine = world.host("one")
    disk, nobody = engine.create_virtual_disk("a", SIZE), "0" * 32
    with pytest.raises(NotFound, match="in none of the connected repositories"):
        engine.copy_image("b", nobody)
    engine.remove_image("a", disk)
    for act in (lambda: engine.copy_image("b", disk), lambda: engine.prepare_image("a", disk)):
        with pytest.raises(NotFound, match=f"image {disk} was removed from a") as error:
            act()
        assert f"diskwright restore a {disk}" in error.value.next_step
    engine.doors.files.rename(f"{REPOSITORIES}/a", f"{REPOSITORIES}/gone")
    for image in (disk, nobody):
        with pytest.raises(StorageError, match="in none of the repositories that are there, and a cannot be asked"):
            engine.copy_image("b", image)
    engine.doors.files.rename(f"{REPOSITORIES}/gone", f"{REPOSITORIES}/a")
    (fix,) = [fix for fix in engine.check_storage_repository("a") if fix.rule == C_REMOVED]
    engine.run_fix_here("a", fix)
    with pytest.raises(NotFound, match=f"image {disk} was removed from .*, and its data is deleted"):
        engine.prepare_image("a", disk)


def test_hidden_data_is_no_image():
    """A removed snapshot's neighbour may need it; the base that a copy froze has never been an image."""
    world = World()
    world.create("a", "b")
    engine = world.host("one")
    base, other = engine.create_virtual_disk("b", SIZE), engine.create_virtual_disk("a", SIZE)
    engine.copy_image("b", other, base, options={"auto_fix": False})
    tags = engine.context.repository("b").tags.scan()
    (frozen,) = [tag for tag, entry in tags.items() if entry.record is not None and not entry.record.strong]
    with pytest.raises(NotFound, match="is no image of b but hidden data"):
        engine.prepare_image("b", frozen)
