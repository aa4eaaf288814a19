"""A repository is looked at once for a fix between the check that found it and its end, whatever processes it has."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from engine.api import Engine
from engine.data.model import Fix, FixType
from engine.errors import ImageBusy, Refused, StaleFix
from engine.fixes.work import Work
from engine.formats.base import Repository
from engine.survey import survey
from engine.tags.context import Context
from sim.hosts.world import World

MiB = 1 << 20


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The looks at repositories since it was cleared, by place."""
    found: list[str] = []
    look = survey.look

    def counted(context: Context, repository: Repository, *arguments: Any, **named: Any) -> object:
        found.append(repository.place)
        return look(context, repository, *arguments, **named)

    monkeypatch.setattr(survey, "look", counted)
    return found


@pytest.fixture
def engine() -> Engine:
    world = World()
    world.create("a", "b")
    return world.host("one")


def unfinished(engine: Engine) -> tuple[str, Fix]:
    """A copy in b that has not begun, and its fix."""
    snapshot = engine.create_snapshot("a", engine.create_virtual_disk("a", MiB))
    engine.copy_image("b", snapshot, options={"auto_fix": False})
    (fix,) = engine.check_storage_repository("b")
    return snapshot, fix


def test_a_fix_in_a_process_of_its_own_takes_one_scan(engine: Engine, scans: list[str]):
    """It is verified before its task is returned; the runner, which inherits the leases, does not scan again."""
    snapshot, fix = unfinished(engine)
    scans.clear()
    task = engine.fix_storage_repository("b", json.loads(json.dumps(fix.to_json())))
    assert len(scans) == 1
    engine.wait_for_task(task)
    assert len(scans) == 1
    assert engine.get_image_status("b", snapshot).status == "optimized"


def test_a_fix_here_takes_one_scan(engine: Engine, scans: list[str]):
    """The same without another process."""
    _, fix = unfinished(engine)
    scans.clear()
    engine.run_fix_here("b", fix)
    assert len(scans) == 1


def test_a_verb_that_goes_on_by_itself_takes_one_scan(engine: Engine, scans: list[str]):
    """The fix that makes a new image usable is found and verified by the same look."""
    snapshot = engine.create_snapshot("a", engine.create_virtual_disk("a", MiB))
    scans.clear()
    engine.copy_image("b", snapshot)
    (task,) = engine.list_tasks()
    engine.wait_for_task(task)
    assert len(scans) == 1
    scans.clear()
    engine.create_virtual_disk("a", MiB)
    assert len(scans) == 1 and not engine.list_tasks()


@pytest.mark.parametrize("change", [Engine.remove_image, lambda engine, *image: engine.set_user_data(*image, {"a": 1})])
def test_what_changes_before_the_runner_begins_is_seen(
    engine: Engine, scans: list[str], change: Callable[[Engine, str, str], None]
):
    """A tag that was changed meanwhile, which needs no lease, has the runner scan again; the fix is stale."""
    snapshot, fix = unfinished(engine)
    task = engine.fix_storage_repository("b", fix)
    change(engine, "b", snapshot)
    scans.clear()
    engine.wait_for_task(task)
    assert len(scans) == 1
    assert [event["event"] for event in engine.task_events(task)] == ["start", "stale", "end"]


def test_several_fixes_take_a_scan_each(engine: Engine, scans: list[str]):
    """Nothing has verified them before their process does, under the leases of each."""
    for _ in range(3):
        engine.remove_image("a", engine.create_virtual_disk("a", MiB))
    fixes = [fix for fix in engine.check_storage_repository("a") if fix.type is FixType.CLEAN]
    scans.clear()
    engine.wait_for_task(engine.run_fixes("a", fixes, {"irreversible": True}))
    assert len(scans) == len(fixes) == 3


def test_a_fix_whose_facts_have_changed_is_shown_and_runs(engine: Engine, scans: list[str]):
    """With ``accept``: the same rule with the same plan, computed from other facts, takes no second scan either."""
    snapshot, fix = unfinished(engine)
    engine.set_user_data("b", snapshot, {"name": "web"})
    with pytest.raises(StaleFix):
        engine.fix_storage_repository("b", fix)
    scans.clear()
    shown: list[Fix] = []
    engine.wait_for_task(engine.fix_storage_repository("b", fix, accept=shown.append))
    assert len(scans) == 1
    assert [one.id != fix.id and (one.rule, one.target) == (fix.rule, fix.target) for one in shown] == [True]
    assert engine.get_image_status("b", snapshot).status == "optimized"


def test_what_is_not_accepted_is_not_begun(engine: Engine):
    """``accept`` is asked under the leases and before anything is written; its error is the verb's."""
    snapshot, fix = unfinished(engine)

    def refuse(now: Fix) -> None:
        assert engine.context.repository("b").leases.held(snapshot)
        raise Refused("somebody else has changed it")

    with pytest.raises(Refused, match="somebody else"):
        engine.fix_storage_repository("b", fix, accept=refuse)
    assert not engine.list_tasks() and engine.check_storage_repository("b") == [fix]


def test_an_image_that_somebody_uses_is_busy_before_anything_is_scanned(engine: Engine, scans: list[str]):
    """Leases come first."""
    _, fix = unfinished(engine)
    task = engine.fix_storage_repository("b", fix)
    scans.clear()
    with pytest.raises(ImageBusy):
        engine.fix_storage_repository("b", fix)
    assert not scans
    engine.wait_for_task(task)


def test_work_is_the_same_after_its_way_to_the_runner(engine: Engine):
    """The note of a task carries what the scan has seen, and gives it back as it was."""
    _, fix = unfinished(engine)
    for work in (Work(fix), Work(fix, True, ((0, 4096), (8192, 1)), True)):
        assert Work.from_json(json.loads(json.dumps(work.to_json()))) == work
