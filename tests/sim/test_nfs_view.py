"""What one NFS client believes of names that others change: the model, and races of hosts that believe it."""

from __future__ import annotations

import pytest

from sim.disk.files import SimFiles
from sim.disk.profiles import NFS
from sim.explore.search.cuts import cuts
from sim.explore.together.races import RACES, run_race
from sim.hosts.world import World

ROOT = "/srv"


class Two:
    """Two hosts at one server, and its time."""

    def __init__(self) -> None:
        self.world = World(profile="nfs")
        self.a, self.b = self._files("a"), self._files("b")

    def _files(self, host: str) -> SimFiles:
        return self.world.machine(host).process("test").files

    def put(self, files: SimFiles, path: str, data: bytes) -> None:
        """A whole file."""
        with files.create(path) as handle:
            handle.write_at(0, data)


def test_a_name_that_was_not_there_is_seen_late():
    """Looking is wrong for 30 s; listing the directory, opening to create and linking are right at once."""
    two = Two()
    for name in ("x", "y", "z"):
        with pytest.raises(FileNotFoundError):
            two.b.stat(f"{ROOT}/{name}")
        two.put(two.a, f"{ROOT}/{name}", b"new")
        with pytest.raises(FileNotFoundError):
            two.b.read_file(f"{ROOT}/{name}", 9)
    with pytest.raises(FileExistsError):
        two.b.create(f"{ROOT}/x")
    with pytest.raises(FileExistsError):
        two.b.link(f"{ROOT}/x", f"{ROOT}/y")
    assert two.b.read_file(f"{ROOT}/x", 9) == b"new"
    two.world.advance(31)
    assert two.b.read_file(f"{ROOT}/z", 9) == b"new"


def test_a_listing_asks_the_server():
    """What was believed of the names in it is forgotten."""
    two = Two()
    with pytest.raises(FileNotFoundError):
        two.b.stat(f"{ROOT}/x")
    two.put(two.a, f"{ROOT}/x", b"new")
    assert [entry.name for entry in two.b.list_directory(ROOT)] == ["x"]
    assert two.b.stat(f"{ROOT}/x").size == 3


def test_a_replaced_name_means_the_old_file_for_a_while():
    """As long as the old one is there; when the server says that it is not, the name is looked up anew."""
    two = Two()
    two.put(two.a, f"{ROOT}/x", b"old")
    two.a.link(f"{ROOT}/x", f"{ROOT}/kept")
    assert two.b.read_file(f"{ROOT}/x", 9) == b"old"
    two.put(two.a, f"{ROOT}/t", b"new")
    two.a.rename(f"{ROOT}/t", f"{ROOT}/x")
    assert two.b.read_file(f"{ROOT}/x", 9) == b"old"
    two.a.unlink(f"{ROOT}/kept")
    assert two.b.read_file(f"{ROOT}/x", 9) == b"new"


def test_attributes_are_some_seconds_old_until_the_file_is_opened():
    """``stat`` alone does not ask."""
    two = Two()
    two.put(two.a, f"{ROOT}/x", b"old")
    assert two.b.stat(f"{ROOT}/x").size == 3
    with two.a.open(f"{ROOT}/x", True) as handle:
        handle.write_at(3, b"more")
    assert two.b.stat(f"{ROOT}/x").size == 3
    with two.b.open(f"{ROOT}/x") as handle:
        assert handle.stat().size == 7
    assert two.b.stat(f"{ROOT}/x").size == 7


def test_a_directory_that_was_not_there_hides_what_is_in_it():
    """Until its own name is asked for."""
    two = Two()
    with pytest.raises(FileNotFoundError):
        two.b.list_directory(f"{ROOT}/d")
    two.a.make_directory(f"{ROOT}/d")
    two.put(two.a, f"{ROOT}/d/x", b"new")
    for look in (lambda: two.b.list_directory(f"{ROOT}/d"), lambda: two.b.stat(f"{ROOT}/d/x")):
        with pytest.raises(FileNotFoundError):
            look()
    two.b.list_directory(ROOT)
    assert two.b.stat(f"{ROOT}/d/x").size == 3


def test_a_power_cut_of_a_client_loses_no_name_and_nothing_that_was_closed():
    """Closing flushes; what was written since the open is lost or not."""
    two = Two()
    two.put(two.a, f"{ROOT}/closed", b"c")
    with two.a.create(f"{ROOT}/open") as handle:
        handle.write_at(0, b"o")
        states = [cut.build() for cut in cuts(two.world.storage, NFS)]
    found = {tuple(state.file(f"{ROOT}/{name}")[1].content.size for name in ("closed", "open")) for state in states}
    assert found == {(1, 1), (1, 0)}


QUICK = ("user-data", "snapshots", "copies", "restore-and-clean", "snapshot-and-remove")


@pytest.mark.parametrize("name", QUICK)
def test_hosts_that_see_late_lose_nothing(name: str):
    """Every schedule with one change of turn, both ways; time stands still, so nothing becomes true by waiting."""
    for swapped in (False, True):
        assert not [found for found in run_race(RACES[name], swapped, profile="nfs") if found is not None]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clean-and-base", "same-mend"])
def test_hosts_that_see_late_lose_nothing_by_fixes(name: str):
    """The same for cleaning and mending."""
    for swapped in (False, True):
        assert not [found for found in run_race(RACES[name], swapped, profile="nfs") if found is not None]
