"""A newer and an older program on one repository: neither harms what the other has left, and who would is found."""

from __future__ import annotations

import pytest

from engine.data import decoding
from sim.explore.cases.catalog import CASES, ON_LVM, SHARED_BY_HOSTS
from sim.explore.random.fuzz import fuzz
from sim.explore.together.versions import mixed
from sim.hosts.world import NFS

ELSEWHERE = {
    "nfs": CASES["snapshot"]._replace(format=NFS),
    "lvm": ON_LVM["lvm:snapshot"],
    "lvm-shared": SHARED_BY_HOSTS["shared:snapshot"],
}
STORAGES = [name if name != "lvm-shared" else pytest.param(name, marks=pytest.mark.slow) for name in ELSEWHERE]
FEW = ("snapshot", "merge-down", "optimize-flat", "copy-other-base", "revert", "import")


class Everything(frozenset[str]):
    """As in a program that takes each operation for one that it knows."""

    def __contains__(self, verb: object) -> bool:
        return True


@pytest.mark.parametrize("name", FEW)
def test_an_older_program_leaves_alone_what_a_newer_one_has_left_undone(name: str):
    """Wherever that one was killed; and it is met, so the older program is tried."""
    runs = list(mixed(CASES[name], 5))
    assert not [run for run in runs if run.problems]
    assert any(run.unknown for run in runs)


@pytest.mark.parametrize("on", STORAGES)
def test_so_it_does_on_other_storage(on: str):
    """On a server, and in the metadata area of a volume group, of one host and of several."""
    runs = list(mixed(ELSEWHERE[on], 6))
    assert not [run for run in runs if run.problems]
    assert any(run.unknown for run in runs)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_an_older_program_leaves_every_case_alone(part: int):
    """The others, killed before fewer effects."""
    names = [name for name in CASES if name not in FEW][part::2]
    assert not [(name, run) for name in names for run in mixed(CASES[name], 31) if run.problems]


def test_random_runs_of_two_versions_end_well():
    """One host has the older program, the others the newer one; all act at once, and die."""
    runs = [fuzz(seed, world="versions") for seed in range(1, 6)]
    assert not [run for run in runs if run.problems]
    assert any("has an older program" in run.told[0] or "has an older program" in run.told[1] for run in runs)


@pytest.mark.parametrize("on", STORAGES)
def test_random_runs_of_two_versions_end_well_on_other_storage(on: str):
    """So on a server and on volume groups."""
    assert not fuzz(1, world=f"versions-{on}").problems


def test_a_program_that_takes_unknown_operations_for_its_own_is_found(monkeypatch: pytest.MonkeyPatch):
    """By a case and by the fuzzer, on a server too: it made an image that was acknowledged unreadable."""
    monkeypatch.setattr(decoding, "VERBS", Everything())
    assert any("no fix mends it" in problem for run in mixed(CASES["snapshot"], 3) for problem in run.problems)
    assert any(fuzz(seed, world="versions").problems for seed in range(7, 12))
    assert any(fuzz(seed, world="versions-nfs").problems for seed in range(6, 13))


@pytest.mark.parametrize("on", STORAGES)
def test_such_a_program_is_found_on_other_storage(on: str, monkeypatch: pytest.MonkeyPatch):
    """What it takes for its own it reads on a server and in the metadata area, too."""
    monkeypatch.setattr(decoding, "VERBS", Everything())
    assert any(run.problems for run in mixed(ELSEWHERE[on], 3))
