"""The same beside a machine behind libvirt, which ends a merge by itself and starts the machine as it is defined."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import BadRequest, Refused, ToolFailed
from engine.host import paths
from engine.triage.rules import M_CHAIN
from sim.explore.cases.driver import Driver
from sim.explore.cases.fixtures import images
from sim.explore.together import live
from sim.explore.together.live import LIBVIRT, MACHINE, MERGE, RESIZE, SNAPSHOT
from sim.hosts.machine import SimMachine
from tests.sim.live_kit import a_merge, is_found, start, wrong


@pytest.mark.parametrize(("verb", "prepare", "every", "first"), [
    (SNAPSHOT, images.a_raw_disk, 47, 5), (MERGE, images.a_removed_snapshot, 43, 32),
    (RESIZE, images.a_raw_disk, 17, 2),
])  # fmt: skip
def test_nothing_is_missed_whoever_dies(verb: str, prepare: Any, every: int, first: int):
    """Some of the steps; it is prepared anew before it is started anew, as the hook does."""
    assert not wrong(verb, prepare, every=every, first=first, monitor=LIBVIRT)


def test_a_machine_that_is_started_without_the_hook_may_miss_what_was_merged_last(monkeypatch: pytest.MonkeyPatch):
    """The window of which the documents tell: libvirt has changed the header, and what was moved is in the memory of
    the machine that is killed then."""

    def bare(run: Any, engine: Any) -> SimMachine:
        name, format = run._host.definitions.setdefault(LIBVIRT, ("disk", "qcow2"))
        return SimMachine(run._host, f"{run._entry.run}/{name}", format, monitor=LIBVIRT)

    monkeypatch.setattr(live.Run, "_started_by_libvirt", bare)
    lacks = "the machine is started on what lacks"
    assert is_found(lacks, MERGE, images.a_removed_snapshot, deaths=(MACHINE,), first=31, every=3, monitor=LIBVIRT)


def test_a_definition_that_leads_nowhere_is_found(monkeypatch: pytest.MonkeyPatch):
    """A planted bug: the domain is defined by a name that nobody makes."""
    monkeypatch.setattr(paths, "other", lambda given, path: f"{path}.nowhere")
    nowhere = "the machine cannot be started anew"
    assert is_found(nowhere, SNAPSHOT, images.a_disk, deaths=(MACHINE,), first=45, every=3, monitor=LIBVIRT)


def test_a_job_of_libvirt_is_ours_if_the_record_says_so(driver: Driver):
    """It tells not who began it: before the record does, it is somebody else's."""
    images.a_removed_snapshot(driver)
    disk = driver.named["disk"]
    machine = start(driver, disk, LIBVIRT)
    node = machine.nodes()[0]
    machine.pull(f"pull-{node.name}", node.name, machine.nodes()[1].backing)
    with pytest.raises(Refused, match="job under way"):
        driver.engine().run_fix_here("a", a_merge(driver))
    machine.cancel(f"pull-{node.name}")
    driver.engine().run_fix_here("a", a_merge(driver))
    assert len(machine.nodes()) == 1


def test_libvirt_merges_nothing_further_down(driver: Driver):
    """It is not offered; asked for all the same it is told, and nothing is done; at rest the same fix runs."""
    images.a_removed_one_further_down(driver)
    disk, engine = driver.named["disk"], driver.engine()
    merge = a_merge(driver)
    machine = start(driver, disk, LIBVIRT)
    deep = len(machine.nodes())
    assert M_CHAIN not in [fix.rule for fix in engine.check_storage_repository("a")]
    with pytest.raises(Refused, match="top layer alone"):
        engine.run_fix_here("a", merge)
    assert (len(machine.nodes()), machine.jobs(), len(engine.list_prepared())) == (deep, {}, 1)
    machine.stop()
    engine.teardown_image("a", disk)
    driver.fix("a", M_CHAIN)
    assert len(start(driver, disk, LIBVIRT).nodes()) == deep - 1


def test_a_definition_leads_to_the_disk_however_often_a_snapshot_is_made(driver: Driver):
    """By the other of its two names, from before the machine goes on elsewhere."""
    images.a_chain(driver)
    disk = driver.named["disk"]
    engine = driver.engine()
    host = driver.world.process_of(engine).host
    host.definitions[LIBVIRT] = ("disk", "qcow2")
    machine = start(driver, disk, LIBVIRT)
    names = []
    for _ in range(2):
        for _ in range(2):
            engine.create_snapshot("a", disk)
            names.append(host.definitions[LIBVIRT][0])
        shown = machine.read()
        machine.kill()
        (entry,) = engine.list_prepared()
        machine = SimMachine(host, f"{entry.run}/{names[-1]}", "qcow2", monitor=LIBVIRT)
        assert machine.read() == shown
    assert names == ["disk.2", "disk.2", "disk", "disk"]


def test_a_libvirt_of_another_host_and_a_domain_that_does_not_run_are_told(driver: Driver):
    """As by the real one."""
    images.a_disk(driver)
    disk = driver.named["disk"]
    driver.engine().prepare_image("a", disk)
    for monitor, error in (("libvirt:qemu+ssh://far/system/vm", BadRequest), (LIBVIRT, ToolFailed)):
        with pytest.raises(error):
            driver.engine().attach_monitor("a", disk, monitor)
