"""Snapshots of several disks at one moment, at rest and beside a machine: whoever dies at any step, all or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.data.records import Record
from engine.errors import ImageBusy, Refused
from engine.tags import leasing
from engine.verbs import group
from engine.verbs.live import group as beside
from engine.verbs.live import snapshot
from sim.explore.cases.catalog import CASES
from sim.explore.cases.driver import Driver
from sim.explore.cases.fixtures import images
from sim.explore.random.fuzz import fuzz
from sim.explore.search.explorer import Explorer
from sim.explore.together.groups import runs
from sim.explore.together.live import LIBVIRT, MACHINE, POWER, VERB
from sim.explore.together.wrong import Wrong
from sim.hosts.machine import SimMachine
from sim.hosts.world import LVM, NFS, SHARED, World
from tests.sim.live_kit import start


def wrong(**named: Any) -> list[Wrong]:
    played = list(runs(**named))
    assert len(played) > 1, "nobody died"
    return [run for run in played if run is not None]


@pytest.mark.parametrize(
    ("death", "first", "every", "used"), [(VERB, 21, 53, 2), (MACHINE, 33, 67, 2), (POWER, 74, 41, 1)]
)
def test_all_or_none_whoever_dies(death: str, first: int, every: int, used: int):
    """Some of the steps; of two disks of the machine, or of one beside another that nobody uses."""
    assert not wrong(deaths=(death,), every=every, first=first, used=used)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "monitor"), [(NFS, "qmp:/run/machine"), ("localfs-1.0", LIBVIRT), (LVM, "qmp:/run/machine")]
)
def test_all_or_none_at_any_step(format: str, monitor: str):
    """More of them, on a server, behind libvirt, on LVM. All of them: ``make live``."""
    assert not wrong(format=format, monitor=monitor, every=37, first=12)


def strong_early(monkeypatch: pytest.MonkeyPatch) -> None:
    original = group._of_group

    def early(record: Record, members: tuple[str, ...]) -> Record:
        return record._replace(strong=True, operation=None) if record.id != members[0] else original(record, members)

    monkeypatch.setattr(group, "_of_group", early)


def sealed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    seal = group._seal

    switch = beside._Beside.switch

    def early(repository: Any, first: Record, generation: int, steps: Any) -> None:
        seal(repository, first, generation, steps)
        if isinstance(steps, beside._Beside):
            switch(steps)

    monkeypatch.setattr(beside._Beside, "switch", lambda steps: None)
    monkeypatch.setattr(group, "_seal", early)


def one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    switch = snapshot.switch

    def apart(context: Any, state: Any, repository: Any, parts: Any, guest: Any) -> None:
        for part in parts:
            switch(context, state, repository, [part], guest)

    monkeypatch.setattr(snapshot, "switch", apart)


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (strong_early, "some snapshots are seen and some are not"),
        (sealed_first, "shows something else than before"),
        (one_after_the_other, "shows no moment"),
    ],
)
def test_planted_bugs_are_found(plant: Callable[[Any], None], found: str, monkeypatch: pytest.MonkeyPatch):
    """One strong before the seal; the seal before the machine has switched; a machine that switches twice."""
    plant(monkeypatch)
    problems = (
        problem for run in runs(deaths=(VERB,), first=86, every=200) if run is not None for problem in run.problems
    )
    assert any(found in problem for problem in problems)


@pytest.mark.slow
def test_one_that_counts_early_is_found_at_rest(monkeypatch: pytest.MonkeyPatch):
    """By the crashes of the case alone."""
    strong_early(monkeypatch)
    assert Explorer(CASES["snapshot-group"], "process", max_violations=1, recover=False).run().violations


@pytest.mark.parametrize(("world", "seeds"), [("groups", range(1, 6)), ("groups-nfs", range(1, 3))])
def test_a_seed_with_groups_ends_in_order(world: str, seeds: range):
    """Nobody finds some of their snapshots, whatever else goes on; and groups are made."""
    played = [fuzz(seed, world=world) for seed in seeds]
    assert not [problem for run in played for problem in run.problems]
    assert [line for run in played for line in run.told if "snapshots" in line and "done" in line]


def test_one_that_counts_early_is_found_by_chance(monkeypatch: pytest.MonkeyPatch):
    """Within seconds."""
    strong_early(monkeypatch)
    assert any("was never made" in problem for seed in range(30, 90) for problem in fuzz(seed, world="groups").problems)


def test_what_has_no_moment_in_common_is_refused(monkeypatch: pytest.MonkeyPatch):
    """Disks of two machines, and of a shared group any that a machine has; nothing is done."""
    for format, words in (("localfs-1.0", "two machines"), (SHARED, "hosts share")):
        world = World(format=format)
        world.create("a")
        if format == SHARED:
            world.host("one").take_srm("a")
        driver = Driver(world)
        images.two_disks(driver)
        first, second = images.both(driver)
        start(driver, first)
        if format != SHARED:
            start(driver, second, "qmp:/run/other")
        before = driver.engine().context.repository("a").tags.scan()
        with pytest.raises(Refused, match=words):
            driver.engine().create_snapshot_group("a", [first, second])
        assert driver.engine().context.repository("a").tags.scan() == before


def test_who_is_busy_beside_its_machine_is_not_told_to_name_that(monkeypatch: pytest.MonkeyPatch):
    """It was named already."""
    world = World()
    world.create("a")
    driver = Driver(world)
    images.two_disks(driver)
    first, _ = images.both(driver)
    start(driver, first)

    def busy(*arguments: Any) -> None:
        raise ImageBusy("it is in use", "Wait for it")

    with monkeypatch.context() as patch:
        patch.setattr(leasing, "take", busy)
        with pytest.raises(ImageBusy) as error:
            driver.engine().create_snapshot_group("a", [first])
    assert error.value.next_step == "Wait for it"


def test_a_monitor_of_another_machine_is_refused():
    """What that has open tells it; nothing is done."""
    world = World()
    world.create("a")
    driver = Driver(world)
    images.two_disks(driver)
    first, second = images.both(driver)
    start(driver, first)
    entry = driver.engine().prepare_image("a", second, monitor="qmp:/run/vm")
    SimMachine(world.process_of(driver.engine()).host, entry.path, entry.format)
    with pytest.raises(Refused, match="does not have image"):
        driver.engine().create_snapshot_group("a", [first, second])
    assert not [image for image in driver.engine().inspect_repository("a").images if image.hidden]
