"""An operator with LVM's tools beside an engine, in random runs."""

from __future__ import annotations

from engine.data.model import Status
from sim.explore.cases.driver import Driver
from sim.explore.random.fuzz import fuzz
from sim.explore.random.group_operator import OperatedGroupRun
from sim.hosts.tape import Tape


def test_random_runs_beside_an_operator_of_lvm_end_well():
    """He takes extents, cuts volumes, has them read only, rolls the array back, and imports a clone in their place."""
    assert not [problem for seed in range(1, 5) for problem in fuzz(seed, world="lvm-operated").problems]


def test_a_raw_disk_whose_last_extent_was_taken_away_is_broken():
    """It is not called sound, and nothing else is harmed."""
    run = OperatedGroupRun(Tape())
    driver = Driver(run.world, run.models)
    disk = driver.create("a", run.sizes[-1], strategy="performance")
    driver.close()
    done = run.operator.do("truncate", "a", driver.models)
    assert done is not None and disk[:6] in done.told
    run.models = done.at_once(driver.models)
    assert not run.look()
    assert [image.status for image in run.world.host("one").list_images("a")] == [Status.BROKEN]
