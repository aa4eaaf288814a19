"""Scenarios that need real machines, played on them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sim.lab.needs import missing_packages
from sim.scenario import lab_world, parse
from sim.scenario.outcome import PASSED
from sim.scenario.play import play
from tests.contracts.source import ROOT

SCENARIOS = {path.stem: parse.load(str(path)) for path in sorted((ROOT / "scenarios").glob("*.yaml"))}
IN_LAB = sorted(name for name, scenario in SCENARIOS.items() if "lab" in scenario.backends)


@pytest.fixture(scope="module", autouse=True)
def machines() -> Iterator[None]:
    """They stay for all scenarios of this file."""
    if missing := missing_packages("lvm", "nfs", "file systems"):
        pytest.skip(f"the lab needs Debian packages: {' '.join(missing)}")
    yield
    lab_world.close()


@pytest.mark.parametrize("name", IN_LAB)
def test_every_scenario_of_the_lab_passes(name: str):
    """On other kernels, with real NFS and LVM, and machines that die."""
    verdict = play(SCENARIOS[name], "lab")
    assert verdict.result == PASSED, f"{verdict.path}:{verdict.line}: {verdict.message}"


def test_what_needs_no_lab_is_not_played_there():
    """A scenario says where it can be played."""
    verdict = play(SCENARIOS["lesson_1_a_disk_and_its_snapshots"], "lab")
    assert "needs sim or local, this is lab" in verdict.message
