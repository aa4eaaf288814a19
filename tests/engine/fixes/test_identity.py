"""What a fix is: the same on every host, stale when what it read has changed, and done once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.data.model import Fix, Status
from engine.errors import BadRequest, Refused, StaleFix
from tests.crash.kit import SIZE
from tests.engine.fixes.kit import snapshot_in_both, status
from tests.engine.kit import NO_FIX


def test_the_same_check_twice_gives_the_same_fixes_and_another_host_agrees(engine, world):
    """Ids depend on what is on disk only."""
    engine.create_virtual_disk("a", SIZE, options=NO_FIX)
    removed = engine.create_virtual_disk("a", SIZE)
    engine.remove_image("a", removed)
    ids = [fix.id for fix in engine.check_storage_repository("a")]
    assert len(ids) == 2
    assert ids == [fix.id for fix in world.engine("host-b").check_storage_repository("a")]


def test_a_fix_is_refused_as_stale_when_what_it_read_has_changed(engine):
    """The message names the image; nothing was done."""
    disk = engine.create_virtual_disk("a", SIZE)
    engine.remove_image("a", disk)
    (fix,) = engine.check_storage_repository("a")
    engine.restore_image("a", disk)
    with pytest.raises(StaleFix, match=disk):
        engine.fix_storage_repository("a", fix)
    assert status(engine, "a", disk) == Status.OPTIMIZED


def test_a_new_dependant_makes_a_merge_stale(engine):
    """The set of dependants is part of what the rule looked at."""
    disk = engine.create_virtual_disk("a", SIZE)
    base = engine.create_snapshot("a", disk)
    engine.remove_image("a", base)
    (fix,) = engine.check_storage_repository("a")
    engine.restore_image("a", base)
    engine.create_virtual_disk("a", SIZE, base)
    engine.remove_image("a", base)
    with pytest.raises(StaleFix):
        engine.run_fix_here("a", fix)


def test_a_fix_of_another_repository_or_an_invented_one_is_refused(engine):
    """A Fix carries the identity of what it was computed from."""
    disk = engine.create_virtual_disk("a", SIZE, options=NO_FIX)
    (fix,) = engine.check_storage_repository("a")
    assert Fix.from_json(json.loads(json.dumps(fix.to_json()))) == fix
    with pytest.raises(Refused, match="another repository"):
        engine.fix_storage_repository("b", fix)
    with pytest.raises(StaleFix, match="X-NEW"):
        engine.fix_storage_repository("a", fix._replace(rule="X-NEW"))
    wrong: list[Any] = [{}, {"id": 1}, [], None, "fix", fix.to_json() | {"reads": 3}, fix.to_json() | {"type": "x"}]
    for bad in wrong:
        with pytest.raises(BadRequest):
            engine.fix_storage_repository("a", bad)
    assert status(engine, "a", disk) == Status.BROKEN


def test_running_a_fix_twice_does_it_once(engine):
    """The second run is told that it is out of date."""
    disk = engine.create_virtual_disk("a", SIZE)
    engine.remove_image("a", disk)
    (fix,) = engine.check_storage_repository("a")
    engine.run_fix_here("a", fix)
    with pytest.raises(StaleFix, match="gone"):
        engine.run_fix_here("a", fix)


def test_check_changes_nothing_on_disk(engine, world):
    """Not even times of modification, also when there is much to report."""
    snapshot_in_both(engine)
    engine.create_virtual_disk("a", SIZE, options=NO_FIX)

    def tree():
        return sorted((str(p), p.lstat().st_mtime_ns, p.lstat().st_size) for p in (world.root / "a").rglob("*"))

    before = tree()
    engine.inspect_repository("a")
    engine.inspect_repository("a", {"deep": True})
    assert tree() == before
