"""From any one damaged object offered fixes lead to a clean repository, and what is undamaged stays readable."""

from __future__ import annotations

import random
import re

import pytest

from engine.data.model import ImageReport, WaitKind
from engine.data.records import Record
from engine.formats.base import VolumeFacts
from engine.formats.files.volumes import Volumes
from engine.gate import owners
from engine.triage import judge, recover
from engine.triage.health import Judge
from engine.triage.offers import cleaning, mending, optimizing
from engine.triage.view import Graph
from sim.explore.cases.case import prepared
from sim.explore.cases.catalog import ALL, CASES, SHARED_BY_HOSTS
from sim.explore.cases.generated import STARTS, from_text, generated
from sim.explore.decay.files import damages, inflict
from sim.explore.decay.objects import Damage
from sim.explore.search import host_notes, large, unreadable
from sim.explore.search.damage import explore, explore_story
from tests.sim.mutants_kit import patched, without_if

QUICK = ("snapshot", "remove", "remove-below", "clean-scrap", "merge-begun", "mend-copy")
BOUND = 60


@pytest.fixture(autouse=True)
def settled_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is told at a glance to be settled, nothing would have been offered or told."""
    glance = Judge.is_settled

    def checked(judged: Judge, record: Record | None, report: ImageReport) -> bool:
        settled = glance(judged, record, report)
        if settled:
            assert record is not None
            tag, graph = record.id, judged.graph
            offers = [*cleaning.of_tag(graph, tag, True), *mending.mend(judged, tag)]
            offers += [*optimizing.reduce(judged, tag, report), *optimizing.accept_written(judged, tag, report)]
            assert not [*offers, *optimizing.optimize(judged, tag, report), *judge._of_others(graph, record)]
        return settled

    monkeypatch.setattr(Judge, "is_settled", checked)


@pytest.mark.parametrize("name", QUICK)
def test_one_damaged_object_harms_nothing_else_and_can_be_settled(name: str):
    """Every object of the end of some cases, in every order of fixes."""
    tally = explore(CASES[name], BOUND)
    assert tally.damages > 10 and tally.states >= tally.damages
    assert not tally.harmful


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if name not in QUICK and not case.slow])
def test_a_sample_of_damages_of_every_case(name: str):
    """As the quick ones, a few objects of each."""
    assert not explore(CASES[name], BOUND, sample=6).harmful


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lvm:snapshot", "lvm:merge-begun", "lvm:clean-scrap"])
def test_one_damaged_object_on_lvm(name: str):
    """A volume that is gone or has no tags, a bit of a page of metadata."""
    tally = explore(ALL[name], BOUND)
    assert tally.damages > 5 and not tally.harmful


@pytest.mark.slow
def test_damages_of_a_volume_group_that_hosts_share():
    """Also the pages that name its hosts. Without its leases nobody gets in."""
    tally = explore(SHARED_BY_HOSTS["shared:prepared"], BOUND)
    assert tally.damages > 10 and not tally.harmful


@pytest.mark.parametrize(
    "name", ["snapshot", "remove-below", "mend-copy", "clean-scrap", "lvm:mend-copy", "lvm:merge-begun"]
)
def test_nothing_is_concluded_from_what_cannot_be_read(name: str):
    """Any one file, directory or volume, for a while: others are as before, and after the fixes that ran meanwhile all
    is."""
    assert not list(unreadable.explore(ALL[name]))


def test_a_volume_that_cannot_be_read_and_is_taken_for_gone_is_reported(monkeypatch):
    """The search above is not content with anything."""
    gone = staticmethod(lambda volume, format, error: VolumeFacts(volume, format, False))
    monkeypatch.setattr(Volumes, "_unreadable", gone)
    assert any("called broken" in problem for _, problem in unreadable.explore(CASES["snapshot"]))


def test_every_kind_of_object_is_damaged():
    """Both generations of records, volumes, and directories of what is derived."""
    driver = prepared(CASES["mend-copy"])
    driver.close()
    found = damages(driver.world.storage)
    assert {one.kind for one in found} >= {"flip", "cut", "gone"}
    assert {one.name.partition("/")[0] for one in found} >= {"tags", "volumes"}


def test_a_volume_that_is_put_away_without_a_second_look_is_found():
    """An operator has put the record back that names it."""
    with patched("engine.fixes.clean", "unnamed", without_if("named_elsewhere")) as hits:
        found = explore(CASES["snapshot"], 1).harmful
    assert hits
    assert [one for one in found if one.path == ("put back", "C-UNNAMED")]


@pytest.mark.parametrize("kind", ["flip", "digit", "gone", "unreadable"])
def test_a_damaged_note_of_what_is_prepared_harms_no_machine(kind: str):
    """It is kept and named, and holds up nothing else; what is to be done is said, and the end is clean."""
    damages = [one for one in host_notes.objects() if one.name.startswith("prepared/") and one.kind == kind]
    assert damages and not [wrong for one in damages if (wrong := host_notes.explore(one, False)) is not None]


@pytest.mark.slow
@pytest.mark.parametrize("booted", [False, True])
def test_any_damaged_note_of_a_host_harms_nothing(booted: bool):
    """Also those of connections, tasks, imports and speed, and the folders of all of them; of these a sample."""
    damages = [one for one in host_notes.objects() if not one.name.startswith("prepared/")]
    folders = [one for one in damages if one.kind == "unreadable" and "." not in one.name]
    chosen = [*folders, *random.Random(1).sample(damages, 10)]
    assert not [wrong for one in chosen if (wrong := host_notes.explore(one, booted)) is not None]


def test_a_disk_that_cannot_be_made_waits_for_the_record_that_is_gone():
    """Found so: where the base stands on it, and is there, the fix was offered and could only fail."""
    story = from_text("3 heavy layers, create s2")
    world, engine = story.driver.world, story.driver.engine("rescuer")
    inflict(world, Damage(f"tags/{story.driver.named['s1'][:2]}", "tree"))
    (part,) = (fix for fix in engine.check_storage_repository("a") if fix.rule == "B-PART")
    engine.run_fix_here("a", part)
    (create,) = (fix for fix in engine.check_storage_repository("a") if fix.rule == "B-CREATE")
    assert create.wait is not None
    assert (create.wait.kind, create.wait.subject) == (WaitKind.BASE, story.driver.named["s1"])


def test_a_disk_is_made_after_the_mend_of_the_record_below_its_base():
    """Found so: it was offered as if it did not depend on that, and failed."""
    story = from_text("3 light layers, create s2")
    world, engine = story.driver.world, story.driver.engine("rescuer")
    tag = story.driver.named["s1"]
    (record,) = (
        one for one in damages(world.storage) if one.kind == "flip" and re.search(f"{tag}.[0-9a-f]+$", one.name)
    )
    inflict(world, record)
    fixes = {fix.rule: fix for fix in engine.check_storage_repository("a")}
    assert fixes["B-RECORD"].id in fixes["B-CREATE"].depends_on


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_damages_at_the_end_of_generated_cases(number: int):
    """Of one verb, a few objects of each."""
    for story in generated(STARTS[number], 1):
        assert not explore_story(story, BOUND, sample=2).harmful


def test_damages_of_a_larger_repository():
    """By chance, and the same for the same seed."""
    assert not large.explore(images=24, damages=6, seed=1).harmful


def test_a_disk_that_forgets_where_it_went_is_found(monkeypatch):
    """With a record given back a volume that is a snapshot's by now, and nobody who asks whose it is before it is
    written, the search finds that the snapshot changes."""
    monkeypatch.setattr(owners, "require_own", lambda repository, entry: None)
    monkeypatch.setattr(recover, "_foreign_namers", lambda graph, old, volume: False)
    monkeypatch.setattr(Graph, "new_owner", lambda graph, disk: "")
    assert [one for one in explore(CASES["snapshot"], BOUND).harmful if "reads otherwise" in one.problem]
