"""Scenarios that can be played on real machines, played on them; the simulator agrees with what came of them."""

from __future__ import annotations

from typing import Any

import pytest

from sim.lab.needs import missing_packages
from sim.scenario.play.play import play
from sim.scenario.report.outcome import PASSED
from tests.lab.ahead import IN_LAB, Ahead
from tests.sim.scenario_files import SCENARIOS

ON_BOTH = [name for name in IN_LAB if "sim" in SCENARIOS[name].backends]


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    if missing := missing_packages("lvm", "nfs", "file systems"):
        pytest.skip(f"the lab needs Debian packages: {' '.join(missing)}")


@pytest.mark.parametrize("name", IN_LAB)
def test_every_scenario_of_the_lab_passes(ahead: Ahead, name: str):
    """On other kernels, with real NFS and LVM, and machines that die."""
    verdict = ahead.verdict(name)
    assert verdict.result == PASSED, f"{verdict.path}:{verdict.line}: {verdict.message}"


@pytest.mark.parametrize("name", ON_BOTH)
def test_the_simulator_comes_to_the_same_outcome(ahead: Ahead, name: str):
    """Errors, interruptions, fixes, statuses and contents are those of real NFS and LVM. How many effects it took is
    not: real mounts and devices need some of their own."""
    simulated, real = play(SCENARIOS[name], "sim", compare=True).outcome, ahead.verdict(name).outcome
    assert simulated is not None and real is not None
    assert _steps(simulated) == _steps(real)
    assert simulated["repositories"] == real["repositories"]


def _steps(outcome: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: step[key] for key in step if key not in ("effects", "number")} for step in outcome["steps"]]


def test_what_needs_no_lab_is_not_played_there():
    """A scenario says where it can be played."""
    verdict = play(SCENARIOS["lessons/1_a_disk_and_its_snapshots"], "lab")
    assert "needs sim or local, this is lab" in verdict.message
