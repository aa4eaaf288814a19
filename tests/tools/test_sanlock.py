"""Leases between hosts: with sanlock's own daemons, two of them on this machine, and as the simulator has them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile

import pytest

from engine.doors.shared_leases import SLOT_BYTES, LeaseArea
from engine.errors import BadRequest, StorageError
from engine.tools.block.loop import LoopDevices
from engine.tools.sanlock.shared_leases import SanlockLeases
from tests.tools.sanlock_kit import Actor, Failed, SharingHost, wait_until
from tests.tools.sanlock_sim import sharing_hosts

SLOTS = 16
ONE, TWO = 1, 2


SANLOCK = pytest.param("sanlock", marks=pytest.mark.slow)
only_sanlock = pytest.mark.parametrize("hosts", [SANLOCK], indirect=True)
"""For what the simulator does not have."""


@pytest.fixture(scope="module", params=[SANLOCK, "simulator"])
def hosts(request, tmp_path_factory):
    """Two hosts that take part in one area with 16 slots."""
    if request.param == "simulator":
        yield joined(sharing_hosts(SLOTS))
    else:
        yield from real_hosts(tmp_path_factory)


@pytest.fixture
def until(hosts):
    """Look until it is so."""
    return hosts[0].until


def joined(made):
    """With an area, in which both take part."""
    first, second = (host.actor() for host in made)
    first("make_area")
    first("make_slots", 0, SLOTS)
    for actor, number in ((first, ONE), (second, TWO)):
        actor.begin("join", number)
    for actor in (first, second):
        actor.answer()
    return made


def real_hosts(tmp_path_factory):
    if os.geteuid() != 0 or shutil.which("sanlock") is None:
        pytest.skip("needs root and the package sanlock")
    directory = tmp_path_factory.mktemp("sanlock")
    made: list[SharingHost] = []
    with memory_disk(SLOTS + 1) as device:
        try:
            area = LeaseArea("area", device)
            made += [SharingHost(name, directory / name, area) for name in ("a", "b")]
            yield joined(made)
        finally:
            for host in made:
                host.end()


@contextlib.contextmanager
def memory_disk(slots, sector_bytes=512):
    """A device in memory where that can be: a disk that others keep busy is lost, with timeouts as short as here."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as place:
        loops, path = LoopDevices(), f"{place}/disk"
        loops.create_file(path, slots * SLOT_BYTES)
        try:
            yield loops.attach(path, sector_bytes).device
        finally:
            wait_until(lambda: detached(loops, path))


def detached(loops, path):
    try:
        loops.detach(path)
    except StorageError:
        return False
    return True


def left(actor, area):
    try:
        actor("leave", area=area)
    except Failed:
        return False
    return True


@pytest.fixture
def pair(hosts):
    """A process on each host; all processes are killed at the end, and what they held is free again."""
    for host in hosts:
        host.end_actors()
    yield tuple(host.actor() for host in hosts)
    for host in hosts:
        host.end_actors()


@pytest.fixture
def on_a(pair):
    return pair[0]


@pytest.fixture
def on_b(pair):
    return pair[1]


def test_an_exclusive_lease_is_held_by_one_process_of_all_hosts(hosts, on_a, on_b, until):
    """Neither another host nor another process of the same host gets it, shared or not, until it is released."""
    neighbour = hosts[0].actor()
    assert on_a("acquire", 0, False, "x") > 0
    for other in (on_b, neighbour, on_a):
        for shared in (False, True):
            assert other("acquire", 0, shared, "x") is None
    on_a("release", "x")
    until(lambda: on_b("acquire", 0, False, "x"))
    assert neighbour("acquire", 0, True, "x") is None


def test_a_released_lease_is_free_at_once_on_the_same_host(on_a):
    """The daemon takes its time to release it; the next one to try does not see that."""
    for _ in range(20):
        assert on_a("acquire", 1, False, "x") > 0
        on_a("release", "x")


def test_a_shared_lease_is_held_by_many_and_keeps_a_writer_out(hosts, on_a, on_b, until):
    """On the same host and on others."""
    neighbour = hosts[0].actor()
    for actor in (on_a, neighbour, on_b):
        assert actor("acquire", 2, True, "s") == 0
    assert on_a("acquire", 2, False, "x") is None
    assert on_b("acquire", 2, False, "x") is None
    assert sorted(number for number, _ in on_a("holders", 2)) == [ONE, TWO]
    for actor in (on_a, neighbour):
        actor("release", "s")
    assert on_a("acquire", 2, False, "x") is None
    on_b("release", "s")
    until(lambda: on_a("acquire", 2, False, "x"))


def test_slots_do_not_disturb_each_other(on_a, on_b):
    """A process may hold many, more than one call can name."""
    for key in range(SLOTS):
        assert (on_a if key % 2 else on_b)("acquire", key, False, f"x{key}")
    for key in range(SLOTS):
        assert (on_b if key % 2 else on_a)("acquire", key, False, "y") is None


def test_who_holds_it_is_told_without_taking_it(on_a, on_b, until):
    """From the disk, on any host."""
    assert on_b("holders", 3) == []
    on_a("acquire", 3, False, "x")
    assert on_b("holders", 3)[0][0] == ONE
    until(lambda: on_b("holders", 3) == on_a("holders", 3) == [[ONE, "live"]])  # once it was seen to renew
    assert on_b("holders", 4) == []
    on_a("release", "x")
    until(lambda: on_b("holders", 3) == [])


def test_the_version_grows_with_each_owner(on_a, on_b):
    """Whoever it is; it orders what successive owners wrote."""
    versions = []
    for actor in (on_a, on_b, on_b, on_a):
        while (version := actor("acquire", 5, False, "x")) is None:
            pass  # the host before is still releasing it
        versions.append(version)
        actor("release", "x")
    assert versions == sorted(set(versions))


def test_the_death_of_a_process_frees_its_lease(hosts, on_a, on_b, until):
    """Nobody has to clean up."""
    victim = hosts[0].actor()
    assert victim("acquire", 6, False, "x")
    assert on_b("acquire", 6, False, "x") is None
    victim.process.send_signal(signal.SIGSTOP)
    assert on_b("acquire", 6, False, "x") is None  # a stopped one keeps it
    victim.process.kill()
    until(lambda: on_b("acquire", 6, False, "x"), 10)


@pytest.mark.parametrize("shared", [False, True])
def test_a_spawned_process_takes_the_lease_over(on_a, on_b, shared, until):
    """The parent may release it, or be killed, before or after: the child holds it under its own name."""
    on_a("acquire", 7, shared, "x")
    child = on_a("spawn", "x")
    on_a("release", "x")
    assert on_b("acquire", 7, False, "y") is None  # the connection is inherited: nobody gets in between
    assert on_a("go")[0] == child
    assert on_b("acquire", 7, False, "y") is None
    on_a("end_child")
    until(lambda: on_b("acquire", 7, False, "y"), 10)


def test_a_child_holds_it_on_when_its_parent_is_killed(hosts, on_b, until):
    """Before it has adopted it, too."""
    parent = hosts[0].actor()
    parent("acquire", 8, False, "x")
    child = parent("spawn", "x")
    parent.process.kill()
    parent.process.wait()
    assert on_b("acquire", 8, False, "y") is None
    hosts[0].kill(child)
    until(lambda: on_b("acquire", 8, False, "y"), 10)


def test_a_lease_that_was_lost_before_it_was_adopted_is_not_adopted(hosts, on_a, on_b, until):
    """The child is told that it is superseded; the one who has it by then keeps it."""
    on_a("acquire", 9, False, "x")
    on_a("spawn", "x")
    on_a("drop", "x")
    assert on_b("acquire", 9, False, "y")
    code, message = on_a("go")
    assert code == "superseded"
    assert "held no more" in message
    until(lambda: on_a("holders", 9) == [[TWO, "live"]], 60)  # "unknown" until it was seen to renew


def test_taking_part_is_told_and_repeated_without_harm(on_a, on_b):
    """Joining again is success, with another number a conflict; a number that is in use as well."""
    assert (on_a("joined"), on_b("joined")) == (ONE, TWO)
    on_a("join", ONE)
    with pytest.raises(Failed, match="as number 1"):
        on_a("join", 3)
    seen = on_b("hosts")
    assert set(seen) == {"1", "2"}
    assert all(gone is False for _, _, gone in seen.values())


def test_an_area_in_use_is_not_left(on_a):
    """Processes would be killed."""
    on_a("acquire", 10, True, "s")
    with pytest.raises(Failed, match="holds a lease in area"):
        on_a("leave")
    assert on_a("joined") == ONE


def test_leaving_and_coming_back(hosts, on_a, on_b, until):
    """Whoever left is gone at once, and of a new generation when it comes back."""
    before = on_b("hosts")["2"][0]
    on_b("leave")
    on_b("leave")
    assert on_b("joined") == 0
    for verb, *arguments in (("acquire", 11, False, "x"), ("hosts",), ("host", ONE)):
        with pytest.raises(Failed, match="take part") as raised:
            on_b(verb, *arguments)
        assert raised.value.code == "refused"
    until(lambda: on_a("host", TWO)[2] == "free")
    until(lambda: "2" not in on_a("hosts"))
    assert on_a("host", 77)[1:] == [0, "free"]
    on_b("join", TWO)
    assert on_b("hosts")["2"][0] > before
    assert on_b("acquire", 11, False, "x")


@only_sanlock
def test_what_is_no_lease_is_an_error(on_a):
    """Slots that were never made, and areas on what is no device."""
    with memory_disk(4) as device:
        other = LeaseArea("area", device)
        with pytest.raises(Failed, match="is not this lease"):
            on_a("acquire", 0, False, "x", area=other)
        with pytest.raises(Failed, match="is not this lease"):
            on_a("holders", 0, area=other)
    with pytest.raises(Failed):
        on_a("holders", 0, area=LeaseArea("area", "/dev/nothing"))
    for name, where in (("", "/dev/x"), ("a:b", "/dev/x"), ("A" * 48, "/dev/x"), ("a", "relative")):
        with pytest.raises(BadRequest):
            SanlockLeases().try_acquire(LeaseArea(name, where), 0, False)
    for number in (0, 251):
        with pytest.raises(BadRequest):
            SanlockLeases().join(LeaseArea("a", "/dev/x"), number)


@only_sanlock
def test_sectors_of_4096_bytes_have_slots_of_the_same_size(on_a, until):
    """A slot is 1 MiB on every disk."""
    with memory_disk(4, 4096) as device:
        other = LeaseArea("other", device)
        on_a("make_area", area=other)
        on_a("make_slots", 0, 3, area=other)
        on_a("join", 250, area=other)
        try:
            assert on_a("acquire", 2, False, "x", area=other) == 1
            until(lambda: on_a("holders", 2, area=other) == [[250, "live"]])
            assert on_a("holders", 1, area=other) == []
            on_a("release", "x")
        finally:
            until(lambda: left(on_a, other))


def test_a_host_without_a_watchdog_is_told_about(on_a):
    """What cannot be promised is said when it matters."""
    assert [words for words in on_a("warnings") if "watchdog" in words]


def test_a_host_whose_presence_lapses_loses_its_processes(hosts, on_a, on_b, until):
    """Frozen too long: its process is killed before anything else happens when it goes on, and the other host
    sees it fail in the meantime and does not get the lease."""
    generation = on_b("hosts")["1"][0]
    assert on_a("acquire", 12, False, "x")
    hosts[0].signal(signal.SIGSTOP)
    try:
        until(lambda: on_b("hosts")["1"][1] == "failing")
        assert on_b("acquire", 12, False, "y") is None
        assert on_b("holders", 12) == [[ONE, "failing"]]
        assert on_a.process.poll() is None
    finally:
        hosts[0].signal(signal.SIGCONT)
    assert on_a.process.wait(60) == -signal.SIGKILL
    again = hosts[0].actor()
    until(lambda: again("joined") == 0)
    again("join", ONE)
    assert on_b("acquire", 12, False, "y")
    assert again("hosts")["1"][0] > generation


@only_sanlock
def test_without_a_daemon_the_error_says_what_to_start(hosts, tmp_path):
    """No traceback, and a warning at connect."""
    lonely = Actor(hosts[0].area, tmp_path)
    try:
        for verb, *arguments in (("acquire", 0, False, "x"), ("joined",), ("join", 3), ("hosts",)):
            with pytest.raises(Failed, match="sanlock's daemon runs"):
                lonely(verb, *arguments)
        assert lonely("warnings") == ["sanlock's daemon does not run on this host"]
    finally:
        lonely.end()
