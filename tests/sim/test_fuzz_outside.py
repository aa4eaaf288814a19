"""Machines and an operator in random runs: they come up, they are judged, and what they are there for is found."""

from __future__ import annotations

import contextlib

import pytest

from engine.errors import DiskwrightError
from engine.formats.files import layout
from engine.gate import gate
from engine.gate.gate import Purpose
from engine.tags import anchors
from sim.disk.content import Content
from sim.explore.cases.case import prepared
from sim.explore.cases.catalog import CASES
from sim.explore.cases.driver import Driver
from sim.explore.oracle.invariants import observe
from sim.explore.oracle.recovery import recover
from sim.explore.oracle.reference import Image, Model, settled
from sim.explore.random import newer
from sim.explore.random.fuzz import WORLDS, fuzz
from sim.explore.random.machines import FLUSH, FREEZE, KILL, STOP, THAW, Doing, Machines, Write, after
from sim.explore.random.operator import Operator
from sim.hosts.machine import WRITEBACK
from sim.hosts.tape import Tape
from sim.hosts.world import World

OLD, NEW = Write(0, b"o" * 4096), Write(0, b"n" * 4096)
DISK = Image(8192, Content(8192, ()), True, {})


MUTANTS = (
    ("nfs", Purpose.DELETE, 11),
    ("nfs", Purpose.REPLACE, 86),
    ("lvm", Purpose.DELETE, 3),
    ("lvm", Purpose.REPLACE, 81),
)
EVERYWHERE = (
    "is away", "is called", "boots", "long by another tool", "stands in the place of", "is backed up",
    "was at its backup", " may ", "is cut to",
)  # fmt: skip
ON_A_GROUP = (*EVERYWHERE, "extents are left")
ON_FILES = (*EVERYWHERE, "bytes are left", "by a newer program")
COMES_UP = {"files": ON_FILES, "nfs": (*ON_FILES, "the server takes"), "lvm-operated": ON_A_GROUP}


@pytest.mark.parametrize("world", COMES_UP)
def test_all_that_an_operator_does_comes_up_and_ends(world: str):
    """Each act of a world, alone and twice: it is done, nothing is harmed when it has ended, and in the end all
    is as the model says."""
    run = next(run for seed in range(1, 20) if (run := WORLDS[world](Tape.seeded(seed))).models[0].images)
    driver = Driver(run.world, run.models)
    for _ in range(3):
        driver.create("a", run.sizes[-1])
    driver.close()
    run.models, told = driver.models, []
    for name in run.acts * 2:
        done = run.operator.do(name, "a", run.models)
        if done is not None:
            told.append(done.told)
            run.models = done.at_once(run.models)
            assert not done.after(), done.told
            run.models = done.in_the_end(run.models)
            assert not run.look(), done.told
    assert not [what for what in COMES_UP[world] if not any(what in line for line in told)]
    for host in list(run.world.hosts):
        run.world.bury(host)
    assert not recover(run.world, run.models)


def test_nobody_touches_what_a_newer_program_wrote():
    """Neither a verb nor any fix, also one that gives data up: of its record, of its volumes, and of what is below it.
    When the newer program is gone all is as before."""
    driver = prepared(CASES["remove-below"])
    operator = Operator(driver.world, ("one", "two"))
    for repo, image in driver.model.images:
        done = operator.record_of_a_newer_program(repo, image)
        assert done is not None
        engine = driver.world.host("two")
        with contextlib.suppress(DiskwrightError):
            engine.remove_image(repo, image)
        with contextlib.suppress(DiskwrightError):
            engine.set_user_data(repo, image, {"n": 1})
        with contextlib.suppress(DiskwrightError):
            engine.prepare_image(repo, image)
        for fix in engine.check_storage_repository(repo):
            with contextlib.suppress(DiskwrightError):
                engine.run_fix_here(repo, fix)
        driver.world.bury("two")
        assert not done.after()
        assert not observe(driver.world, driver.world.host("two"), driver.models).problems


def test_a_repository_of_a_newer_program_that_is_used_is_found(monkeypatch: pytest.MonkeyPatch):
    """As by a program that does not look at what a repository needs."""
    driver = prepared(CASES["user-data"])
    operator = Operator(driver.world, ("one", "two"))

    def harm() -> list[str]:
        done = operator.upgrade("a")
        with contextlib.suppress(DiskwrightError):
            driver.world.host("two").create_virtual_disk("a", DISK.size)
        return done.after()

    assert not harm()
    monkeypatch.setattr(layout, "_KNOWN_NEEDS", layout._KNOWN_NEEDS | {newer.NEEDS})
    monkeypatch.setattr(anchors, "differences", lambda known, now: [])
    assert harm() == ["the repository a of a newer program was changed"]


def test_a_machine_that_stands_still_does_nothing_until_it_goes_on():
    """It can only be killed."""
    world = World()
    world.create("a")
    engine = world.host("one")
    disk = engine.create_virtual_disk("a", 65536, None, None, {"strategy": "performance"})
    machines = Machines(world)

    def doing(*what: Doing) -> Model:
        one = machines.running[0] if machines.running else None
        operation = machines.drive(one, what) if one else machines.start("a", disk, 65536, WRITEBACK, False, what)
        operation.run(engine)
        return operation.effect(Model().made("a", disk, DISK), None) or Model()

    assert doing(OLD, FLUSH, FREEZE, NEW).images["a", disk].content.read(0, 4096) == OLD.data
    assert doing(NEW, FLUSH).images["a", disk] == DISK
    assert doing(THAW, NEW, FLUSH).images["a", disk].content.read(0, 4096) == NEW.data
    doing(FREEZE, STOP, KILL)
    assert machines.running[0].machine.process.dead


def test_what_a_machine_has_not_flushed_may_be_old_or_new_until_it_is():
    """The last write counts; a flush that another write came after leaves only that one open."""
    assert after(DISK, [OLD], []).torn == ((0, 4096),)
    flushed = after(after(DISK, [OLD], []), [], [OLD])
    assert not flushed.torn
    assert flushed.content.read(0, 4096) == OLD.data
    assert after(flushed, [NEW], []).torn == ((0, 4096),)
    assert not after(flushed, [NEW], [NEW]).torn
    assert after(DISK, [OLD, NEW], [OLD]).torn == ((0, 4096),)


def test_a_snapshot_shows_for_ever_what_it_showed_once():
    """Before it was looked at either would do; what shows something else beside that is no surprise that is kept."""
    sealed = after(DISK, [OLD], [])._replace(mutable=False)
    model = Model().made("a", "s", sealed)
    shown = sealed.content.write(0, NEW.data)
    assert settled(model, "a", "s", 8192, shown).images["a", "s"] == sealed._replace(content=shown, torn=())
    elsewhere = sealed.content.write(4096, NEW.data)
    assert settled(model, "a", "s", 8192, elsewhere) == model


def found(most: int, world: str = "files") -> bool:
    return any(fuzz(seed, world=world).problems for seed in range(1, most))


@pytest.mark.slow
@pytest.mark.parametrize("world", ["files", "lvm"])
def test_a_seal_that_does_not_ask_the_data_is_found(world: str, monkeypatch: pytest.MonkeyPatch):
    """A machine without a holder goes on writing into what a snapshot has."""
    bears = gate.RULES[Purpose.SEAL]._replace(readers=True, writers=True)
    monkeypatch.setitem(gate.RULES, Purpose.SEAL, bears)
    assert found(400, world)


@pytest.mark.slow
def test_a_repository_in_the_place_of_another_that_is_used_unasked_is_found(monkeypatch: pytest.MonkeyPatch):
    """A clone, or an older copy."""
    monkeypatch.setattr(anchors, "differences", lambda known, now: [])
    assert found(150)


@pytest.mark.parametrize(("world", "purpose", "seed"), MUTANTS)
def test_data_that_is_taken_from_under_a_machine_is_found(
    world: str, purpose: Purpose, seed: int, monkeypatch: pytest.MonkeyPatch
):
    """Also where the storage would let nobody delete it, by what the records say. The seed is the first that finds it
    from 1 on, within a minute; where none does any more, look for another one: ``diskwright sim fuzz --world``."""
    assert not fuzz(seed, world=world).problems
    monkeypatch.setitem(gate.RULES, purpose, gate.RULES[purpose]._replace(readers=True, writers=True))
    assert any("machine of" in problem for problem in fuzz(seed, world=world).problems)
