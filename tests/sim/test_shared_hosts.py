"""What befalls simulated hosts that share leases: they lose the storage, their presence, or both; with a watchdog and
without one."""

from __future__ import annotations

import pytest

from engine.doors.shared_leases import HostState, LeaseArea
from engine.errors import Refused, StorageError
from sim.hosts.crash import Crashed
from sim.hosts.lease_areas import DEAD_S, FAILING_S, RENEWED_S
from sim.hosts.processes import SimProcess
from sim.hosts.world import SHARED, World

LEASES = "/dev/a/dw-leases"


class Hosts:
    """One and two take part in the lease area of a repository; a process of one holds a lease."""

    def __init__(self) -> None:
        self.world = World(format=SHARED)
        self.world.create("a")
        self.one, self.two = (self.world.process_of(self.world.host(name)) for name in ("one", "two"))
        (name,) = self.world.shared.areas
        self.area = LeaseArea(name, LEASES)
        self.numbers = {p: p.doors.shared_leases.joined(self.area) for p in (self.one, self.two)}
        assert self.may_take(self.one)

    def may_take(self, process: SimProcess) -> bool:
        return process.doors.shared_leases.try_acquire(self.area, 2, False) is not None

    def one_is(self) -> HostState:
        """To the other one."""
        return self.two.doors.shared_leases.host(self.area, self.numbers[self.one]).state

    def one_looks(self) -> object:
        return self.one.doors.volume_groups.report("a")


@pytest.fixture
def hosts() -> Hosts:
    return Hosts()


def test_who_is_apart_from_the_storage_for_a_while_keeps_what_it_has(hosts):
    """Nothing shared is in reach meanwhile, on devices or by LVM or in the lease area; what is its own is."""
    handle = hosts.one.doors.volume_groups.open_device(LEASES)
    hosts.world.machine("one").part(FAILING_S / 2)
    with pytest.raises(OSError, match="Input/output"):
        handle.read_at(0, 4096)
    for call in (hosts.one_looks, lambda: hosts.may_take(hosts.one)):
        with pytest.raises(StorageError, match="out of reach"):
            call()
    assert hosts.one.doors.files.list_directory("/state/one")
    hosts.world.advance(FAILING_S / 2)
    handle.read_at(0, 4096)
    assert not hosts.may_take(hosts.two)
    hosts.world.advance(DEAD_S)
    assert hosts.one_is() is HostState.LIVE and not hosts.may_take(hosts.two)


def test_what_is_released_while_the_storage_is_away_is_free_when_it_is_back(hosts):
    """The daemon says so then."""
    lease = hosts.one.doors.shared_leases.try_acquire(hosts.area, 3, False)
    assert lease is not None
    hosts.world.machine("one").part(FAILING_S / 2)
    lease.release()
    assert hosts.two.doors.shared_leases.try_acquire(hosts.area, 3, False) is None
    hosts.world.advance(FAILING_S / 2)
    assert hosts.two.doors.shared_leases.try_acquire(hosts.area, 3, False) is not None


def test_who_is_apart_for_too_long_has_no_process_left_that_held_a_lease(hosts):
    """They are killed in time; others get the lease when that is certain."""
    other = hosts.world.machine("one").process("without a lease")
    hosts.world.machine("one").part(DEAD_S)
    hosts.world.advance(FAILING_S)
    assert hosts.one.dead and not other.dead and not hosts.may_take(hosts.two)
    hosts.world.advance(DEAD_S)
    assert hosts.one_is() is HostState.DEAD and hosts.may_take(hosts.two)
    with pytest.raises(Refused, match="does not take part"):
        hosts.may_take(other)


@pytest.mark.parametrize("freezes", [True, False])
def test_a_watchdog_resets_a_host_that_has_lost_its_presence(hosts, freezes):
    """Nothing of it goes on; without one, who was frozen does, with the call that it was in the middle of."""
    hosts.world.watchdog = True
    machine, boots = hosts.world.machine("one"), hosts.world.machine("one").boots
    if freezes:
        machine.freeze()
    else:
        machine.part(10 * DEAD_S)
    hosts.world.advance(FAILING_S - 1)
    assert machine.boots == boots
    hosts.world.advance(1)
    assert hosts.one.dead and machine.boots == boots + 1
    machine.thaw()
    with pytest.raises(Crashed):
        hosts.one_looks()


def test_an_evicted_host_may_come_back_at_once_as_another_presence(hosts):
    """What held a lease there has ended; the lease is free when the old presence is proven gone."""
    before = hosts.two.doors.shared_leases.host(hosts.area, hosts.numbers[hosts.one])
    hosts.world.machine("one").evict()
    assert hosts.one.dead
    hosts.world.host("one")
    after = hosts.two.doors.shared_leases.host(hosts.area, before.number)
    assert after.generation == before.generation + 1
    hosts.world.advance(RENEWED_S)
    assert hosts.may_take(hosts.two)
