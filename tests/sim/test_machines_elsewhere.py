"""Hosts share a volume group, and a machine goes on where its holder was killed: its lease is free. What keeps others
off its data is that its host says it has handed that out (``engine.formats.lvm.shared.notes``)."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from engine.api import Engine
from engine.data.model import WaitKind
from engine.doors.users import User
from engine.errors import ImageBusy, NotFound
from engine.formats.lvm.shared.guard import SharedGuard
from engine.gate import gate
from engine.tags import changes
from engine.triage import rules
from sim.disk.files import Fault
from sim.explore.cases.case import prepared
from sim.explore.cases.catalog import SHARED_BY_HOSTS
from sim.explore.cases.driver import Driver
from sim.explore.search.explorer import EFFECTS
from sim.explore.together.machines import Harmed, outlived
from sim.hosts.crash import Crashed
from sim.hosts.lease_areas import DEAD_S, RENEWED_S
from sim.hosts.machine import SimMachine
from sim.hosts.processes import SimProcess

AWAY = "away"
"""The host on which the machine runs."""


def harm(name: str) -> list[Harmed]:
    everything = list(outlived(SHARED_BY_HOSTS[f"shared:{name}"], 1000))
    assert everything, "no machine was started"
    return [one for one in everything if one is not None]


@pytest.mark.parametrize("name", ["remove", "optimize-format", pytest.param("merge-up", marks=pytest.mark.slow)])
def test_no_verb_and_no_fix_of_another_host_harms_a_machine(name: str, monkeypatch: pytest.MonkeyPatch):
    """Its disk is neither deleted, replaced nor sealed, nor what is below it. Without the question to the other hosts
    it is lost: LVM knows of what is open on its own host only."""
    assert not harm(name)
    monkeypatch.setattr(SharedGuard, "handed_out_elsewhere", lambda guard: {})
    assert any("that the machine has open was deleted" in problem for one in harm(name) for problem in one.problems)


@pytest.mark.slow
def test_a_layer_that_a_machine_reads_is_kept_too(monkeypatch: pytest.MonkeyPatch):
    """Its record does not tell that it is in use: asking for the disk alone is found."""
    real = SharedGuard.handed_out_elsewhere

    def disks(guard: SharedGuard) -> dict[str, tuple[User, ...]]:
        return {id: users for id, users in real(guard).items() if users[0].writes}

    monkeypatch.setattr(SharedGuard, "handed_out_elsewhere", disks)
    assert harm("merge-up")


# -- how that ends


class Scene(NamedTuple):
    """A disk with a machine on another host, whose holder was killed."""

    driver: Driver
    disk: str
    machine: SimMachine

    def engine(self, host: str = AWAY) -> Engine:
        """In a new process."""
        return self.driver.world.host(host)

    def waits(self) -> str:
        """Remove the disk and clean it away on the host that manages the group; return what that waits for. If it does,
        the disk is as it was."""
        one = self.engine("one")
        one.remove_image("a", self.disk)
        (fix,) = [fix for fix in one.check_storage_repository("a") if fix.rule == rules.C_REMOVED]
        if fix.wait is None:
            one.run_fix_here("a", fix)
            return ""
        assert (fix.wait.kind, fix.wait.subject) == (WaitKind.HOST, AWAY)
        with pytest.raises(ImageBusy, match=f"in use by host {AWAY}"):
            one.run_fix_here("a", fix)
        one.restore_image("a", self.disk)
        return fix.waits_for


def scene(before: Scene | None = None) -> Scene:
    """A new one, or the same once more when that has ended."""
    driver = before.driver if before is not None else prepared(SHARED_BY_HOSTS["shared:prepared"])
    world = driver.world
    ((_, disk),) = driver.model.images
    engine = world.host(AWAY)
    entry = engine.prepare_image("a", disk)
    machine = SimMachine(world.process_of(engine).host, entry.path, entry.format)
    engine.doors.processes.kill(entry.process)
    return Scene(driver, disk, machine)


def check(engine: Engine, disk: str) -> None:
    engine.check_storage_repository("a")


def tasks(engine: Engine, disk: str) -> None:
    engine.list_prepared()


def teardown(engine: Engine, disk: str) -> None:
    engine.teardown_image("a", disk)


ENDS = [check, tasks, teardown]


def test_the_refusal_and_the_check_name_the_host_and_what_to_do_there():
    """Whatever another host would do to the data; the disk is said to be in use there (O-UNHELD)."""
    found = scene()
    assert f"host {AWAY}" in found.waits()
    one = found.engine("one")
    (report,) = one.list_images("a")
    assert report.rule == rules.O_UNHELD and AWAY in report.reason
    repository = one.context.repository("a")
    volume = changes.read(repository, found.disk).record.volumes()[0]
    for act in (
        lambda: one.prepare_image("a", found.disk),
        lambda: one.prepare_image("a", found.disk, take_over=True),
        lambda: one.create_snapshot("a", found.disk),
        lambda: gate.delete(repository, found.disk, volume),
    ):
        with pytest.raises(ImageBusy, match=f"host {AWAY}.* Run diskwright check on {AWAY}"):
            act()


@pytest.mark.parametrize("end", ENDS)
def test_what_has_ended_is_not_waited_for(end: Callable[[Engine, str], None]):
    """Nothing is let go while the machine runs, whatever its host does; after that the same is enough."""
    found = scene()
    with contextlib.suppress(ImageBusy):
        end(found.engine(), found.disk)
    assert found.waits()
    found.machine.stop()
    assert found.waits()
    end(found.engine(), found.disk)
    assert not found.waits()


@pytest.mark.parametrize("end", ENDS)
def test_a_host_that_is_killed_while_it_ends_it_ends_it_the_next_time(end: Callable[[Engine, str], None]):
    """At whichever of its calls that change something. A check is enough then, whatever is left of its notes."""
    found, done = None, False
    for at in itertools.count(1):
        found = scene(found)
        found.machine.stop()
        other = found.engine("one").context.repository("a").activation
        assert other is not None and other.handed_out_elsewhere()
        engine, calls = found.engine(), itertools.count(1)

        def dies(process: SimProcess, call: str, what: str, at: int = at, calls: Iterator[int] = calls) -> Fault:
            if call in EFFECTS and next(calls) == at:
                process.kill()
            return Fault.NONE

        found.driver.world.process_of(engine).hook = dies
        with contextlib.suppress(Crashed):
            end(engine, found.disk)
            done = True
        check(found.engine(), found.disk)
        assert not other.handed_out_elsewhere(), at
        if done:
            assert at > 2 and not found.waits()
            return


def test_a_disk_is_torn_down_by_a_host_that_lost_its_own_note_of_it():
    """Others have it still. Refused while the machine runs; there is nothing to do the second time."""
    found = scene()
    engine = found.engine()
    for entry in engine.state.unheld():
        engine.state.forget_prepared(entry)
    with pytest.raises(ImageBusy, match=found.disk):
        teardown(engine, found.disk)
    found.machine.stop()
    teardown(engine, found.disk)
    with pytest.raises(NotFound):
        teardown(engine, found.disk)
    assert not found.waits()


def test_a_machine_that_gets_a_new_holder_is_torn_down_as_ever():
    """On its host."""
    found = scene()
    found.engine().prepare_image("a", found.disk, take_over=True)
    assert not found.engine("one").inspect_repository("a").fixes
    found.machine.stop()
    teardown(found.engine(), found.disk)
    assert not found.waits()


def test_a_host_that_dies_holds_nothing_up():
    """Once the others know that, its disk is put away where it may write to it still."""
    found = scene()
    world = found.driver.world
    world.machine(AWAY).lose_power()
    world.advance(DEAD_S + RENEWED_S)
    assert not found.waits()
