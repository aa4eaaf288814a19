"""What is told of an image that cannot be used: unknown, removed, deleted, hidden and away are different things."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from engine.doors.files import Entry
from engine.errors import NotFound, Refused, StorageError
from engine.triage.rules import C_REMOVED
from sim.disk.files import SimFiles
from sim.hosts.doors.spawning import SimProcesses
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


VERBS = {
    "status": lambda engine, image: engine.get_image_status("a", image),
    "copy": lambda engine, image: engine.copy_image("b", image),
    "copy onto": lambda engine, image: engine.copy_image("a", engine.create_virtual_disk("b", SIZE), image),
    "create on": lambda engine, image: engine.create_virtual_disk("b", SIZE, image),
    "remove": lambda engine, image: engine.remove_image("a", image),
    "restore": lambda engine, image: engine.restore_image("a", image),
    "snapshot": lambda engine, image: engine.create_snapshot("a", image),
    "snapshots": lambda engine, image: engine.create_snapshot_group("a", [image]),
    "user data": lambda engine, image: engine.get_user_data("a", image),
    "set user data": lambda engine, image: engine.set_user_data("a", image, {}),
    "strategy": lambda engine, image: engine.set_strategy("a", image, "space"),
    "digest": lambda engine, image: engine.record_digest("a", image),
    "export": lambda engine, image: engine.export_image("a", image, "/out.raw", "raw"),
    "prepare": lambda engine, image: engine.prepare_image("a", image),
    "teardown": lambda engine, image: engine.teardown_image("a", image),
    "stop": lambda engine, image: engine.stop_task("a", image),
    "rate": lambda engine, image: engine.limit_task("a", image, 1),
    "name file": lambda engine, image: engine.name_import_file("a", image, "/in.raw"),
}
NO_ERROR = {("remove", "removed"), ("remove", "deleted"), ("restore", "removed"), ("status", "removed")}
"""Done already, or just what is wanted."""


def test_every_verb_tells_the_same_of_an_image_that_is_none():
    """Removed, deleted, hidden and away have one message each, whatever is asked for, and each has a next step."""
    world = World()
    world.create("a", "b")
    engine = world.host("one")
    removed, deleted, base = (engine.create_virtual_disk("a", SIZE) for _ in range(3))
    engine.remove_image("a", deleted)
    (fix,) = [fix for fix in engine.check_storage_repository("a") if fix.rule == C_REMOVED]
    engine.run_fix_here("a", fix)
    engine.remove_image("a", removed)
    engine.copy_image("a", engine.create_virtual_disk("b", SIZE), base, options={"auto_fix": False})
    tags = engine.context.repository("a").tags.scan().values()
    (hidden,) = [tag.id for tag in tags if tag.record and not tag.record.strong and tag.record.removed is None]
    told = {
        "removed": (removed, NotFound, r"was removed from a\. It can"),
        "deleted": (deleted, NotFound, "was removed from (/srv/)?a, and its data is deleted"),
        "hidden": (hidden, NotFound, "is no image of a but hidden data"),
        "unknown": ("0" * 32, NotFound, "there is no image|in none of the connected|is not in the target"),
    }
    for state, (image, kind, words) in told.items():
        for name, verb in VERBS.items():
            if (name, state) not in NO_ERROR:
                with pytest.raises(kind, match=words) as error:
                    verb(engine, image)
                assert error.value.next_step, (state, name)
    engine.doors.files.rename(f"{REPOSITORIES}/a", f"{REPOSITORIES}/gone")
    for verb in VERBS.values():
        with pytest.raises(StorageError, match="there is no repository at /srv/a any more"):
            verb(engine, base)


@pytest.mark.parametrize("looks", ["check", "status", "fix"])
def test_storages_that_do_not_answer_are_waited_for_once_and_together(looks: str, monkeypatch: pytest.MonkeyPatch):
    """However many images are to be copied from them; each image says which one it waits for. For one image the others
    are looked through, together, when its own source is not there."""
    world = World()
    world.create("a", "b", "c")
    engine = world.host("one")
    disks = [engine.create_virtual_disk(repo, 65536) for repo in ("b", "b", "c")]
    *_, copy = [engine.copy_image("a", disk, options={"auto_fix": False}) for disk in disks]
    (fix, *_) = [fix for fix in engine.check_storage_repository("a") if fix.target == copy]
    asked: list[str] = []
    together: list[list[str]] = []
    list_directory, at_once = SimFiles.list_directory, SimProcesses.at_once

    def silent(files: SimFiles, path: str, having: str = "") -> list[Entry]:
        if path in (f"{REPOSITORIES}/b", f"{REPOSITORIES}/c"):
            asked.append(path[-1])
            raise OSError(errno.EIO, "it does not answer", path)
        return list_directory(files, path, having)

    def noted(processes: SimProcesses, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        together.append(list(items))
        return at_once(processes, work, items)

    monkeypatch.setattr(SimFiles, "list_directory", silent)
    monkeypatch.setattr(SimProcesses, "at_once", noted)
    engine = world.host("one", connect=False)  # its notes say what is connected
    if looks == "check":
        assert [image.rule for image in engine.inspect_repository("a").images] == ["B-COPY"] * 3
    elif looks == "status":
        assert "c, the repository that holds it" in engine.get_image_status("a", copy).reason
    else:
        with pytest.raises(Refused, match="c, the repository that holds it, is not there"):
            engine.run_fix_here("a", fix)
    assert sorted(asked) == ["b", "c"]
    assert [items for items in together if items and items != ["a"]] == {"check": [["b", "c"]]}.get(
        looks, [["c"], ["b"]]
    )


def test_a_storage_that_is_not_asked_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    """A copy whose source is there says so although another repository does not answer."""
    world = World()
    world.create("a", "b", "c")
    engine = world.host("one")
    engine.copy_image("a", engine.create_virtual_disk("b", 65536), options={"auto_fix": False})
    list_directory = SimFiles.list_directory

    def silent(files: SimFiles, path: str, having: str = "") -> list[Entry]:
        assert path != f"{REPOSITORIES}/c"
        return list_directory(files, path, having)

    monkeypatch.setattr(SimFiles, "list_directory", silent)
    (fix,) = world.host("one", connect=False).check_storage_repository("a")
    assert fix.rule == "B-COPY" and not fix.waits_for
