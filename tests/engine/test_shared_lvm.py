"""Several hosts on one volume group: what each may do, and what becomes of a host that dies or freezes."""

from __future__ import annotations

import contextlib

import pytest

from engine.api import Engine
from engine.data.model import Fix, Status
from engine.errors import Conflict, DiskwrightError, ImageBusy, Refused
from engine.fixes import repair
from engine.formats.lvm.metadata.pages import PAGE_BYTES
from sim.disk.files import Fault
from sim.explore.cases.case import slow_tool
from sim.explore.cases.driver import Driver, MiB, read
from sim.explore.cases.fixtures import lvm
from sim.explore.decay import lvm as decay
from sim.explore.decay.objects import Damage
from sim.hosts.crash import Crashed
from sim.hosts.lease_areas import DEAD_S, FAILING_S
from sim.hosts.processes import SimProcess
from sim.hosts.world import SHARED, World
from sim.lvm.lvm_view import disks
from tests.engine.test_srm import attempt_of, volume_of

SIZE = 6 * MiB


@pytest.fixture
def world() -> World:
    """Repositories a and b, which the hosts one, two and three share; one manages them."""
    world = World(format=SHARED, images=slow_tool)
    world.create("a", "b")
    world.manage("one")
    world.host("two")
    world.host("three")
    return world


@pytest.fixture
def driver(world: World) -> Driver:
    return Driver(world)


def the_fix(engine: Engine, repo: str, rule: str) -> Fix:
    """The first one of that rule that check offers."""
    return next(fix for fix in engine.check_storage_repository(repo) if fix.rule == rule)


def a_snapshot(driver: Driver) -> str:
    """Of a disk with some data, in a."""
    disk = driver.create("a", SIZE)
    for offset in range(0, SIZE, 2 * MiB):
        driver.write("a", disk, offset, bytes([offset // MiB + 1]) * 4096)
    return driver.snapshot("a", disk)


def a_copy_to_be_filled(driver: Driver) -> str:
    """Committed on the manager, with its volume made."""
    snapshot = a_snapshot(driver)
    driver.copy(("a", snapshot), "b", auto_fix=False)
    return snapshot


def dies_after(world: World, engine: Engine, lines: int, host_too: bool) -> None:
    """The process of an engine dies before it writes that progress line, alone or with its host."""
    process, left = world.process_of(engine), lines
    repository = engine.context.repository("b")
    write = repository.progress.write

    def dying(tag: str, epoch: int, sequence: int, line: bytes) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            if host_too:
                process.host.lose_power()
            process.kill()
        write(tag, epoch, sequence, line)

    repository.progress.write = dying  # type: ignore[method-assign]


def begun_by_two(world: World, driver: Driver, host_too: bool = False) -> str:
    """A copy that a process of host two has filled up to some cursor when it died."""
    snapshot = a_copy_to_be_filled(driver)
    two = driver.engine("two")
    fix = the_fix(two, "b", "B-COPY")
    dies_after(world, two, 3, host_too)
    with pytest.raises(Crashed):
        two.run_fix_here("b", fix)
    return snapshot


def test_records_change_on_every_host_and_volumes_on_the_manager_alone(driver):
    """What another host must not do is refused naming the manager, and nothing is done."""
    disk, kept = driver.create("a", SIZE, user_data={"by": 1}), driver.create("a", SIZE)
    two = driver.engine("two")
    two.set_user_data("a", disk, {"by": 2})
    assert driver.engine("three").get_user_data("a", disk) == {"by": 2}
    two.remove_image("a", disk)
    removed = the_fix(two, "a", "C-REMOVED")
    assert removed.needs_srm
    for refused in (
        lambda: two.run_fix_here("a", removed),
        lambda: two.fix_storage_repository("a", removed),
        lambda: two.create_virtual_disk("a", SIZE),
        lambda: two.create_snapshot("a", kept),
        lambda: two.copy_image("a", kept),
    ):
        with pytest.raises(Refused, match="one"):
            refused()
    driver.engine("three").restore_image("a", disk)
    assert driver.engine().get_image_status("a", disk).status is Status.OPTIMIZED
    assert len(driver.engine().list_images("a")) == 2


def test_the_format_itself_refuses_what_the_manager_alone_may_do(world, driver):
    """Also where a fix was computed before the role changed hands."""
    disk = driver.create("a", SIZE)
    driver.remove("a", disk)
    engine = driver.engine()
    volume = volume_of(engine, "a", disk)
    engine.release_srm("a")
    world.host("two").take_srm("a")
    repository = driver.engine().context.repository("a")
    with pytest.raises(Refused, match="two"):
        repository.volumes.remove(volume.id, volume.format)
    with pytest.raises(Refused, match="two"):
        repository.volumes.make(volume._replace(id="ab" * 16), SIZE, None)
    assert repository.volumes.facts(volume.id, volume.format).present


def test_any_host_fills_a_copy_that_the_manager_has_committed(driver):
    """In a runner, which holds the lease in its own name; the volume that it fills is the one that was made."""
    snapshot = a_copy_to_be_filled(driver)
    two = driver.engine("two")
    made = attempt_of(two, "b", snapshot)
    fix = the_fix(two, "b", "B-COPY")
    assert not fix.needs_srm
    two.wait_for_task(two.fix_storage_repository("b", fix))
    assert volume_of(driver.engine("three"), "b", snapshot) == made
    assert read(driver.engine(), "b", snapshot, SIZE).digest == driver.image("a", snapshot).content.digest


def test_a_copy_goes_on_on_another_host_where_a_killed_process_left_it(driver):
    """Its host lives, so its processes that had the lease are gone: the same volume, from the cursor on."""
    snapshot = begun_by_two(driver.world, driver)
    three = driver.engine("three")
    made, fix = attempt_of(three, "b", snapshot), the_fix(three, "b", "B-COPY")
    assert not fix.needs_srm and "it goes on at" in fix.why
    three.run_fix_here("b", fix)
    assert volume_of(three, "b", snapshot) == made
    assert read(three, "b", snapshot, SIZE).digest == driver.image("a", snapshot).content.digest


def test_what_a_dead_host_was_filling_is_made_anew_by_the_manager(driver):
    """Nobody gets its lease before it is proven dead, and what it wrote last may still arrive: so the fix needs the
    manager, begins at 0 in another volume, and says why. When that host is back, its volume goes."""
    world = driver.world
    snapshot = begun_by_two(world, driver, host_too=True)
    three = driver.engine("three")
    before = attempt_of(three, "b", snapshot)
    assert not three.check_storage_repository("b"), "somebody has its lease"
    world.advance(DEAD_S + 1)
    fix = the_fix(three, "b", "B-COPY")
    assert fix.needs_srm
    with pytest.raises(Refused, match="one"):
        three.run_fix_here("b", fix)
    one = driver.engine()
    one.run_fix_here("b", the_fix(one, "b", "B-COPY"))
    assert volume_of(one, "b", snapshot) != before
    assert read(three, "b", snapshot, SIZE).digest == driver.image("a", snapshot).content.digest
    group = one.doors.volume_groups.report("b")
    assert any(before.id in name for name in group.volumes), "its space is kept"
    world.host("two")
    for fix in one.check_storage_repository("b"):
        one.run_fix_here("b", fix)
    assert not any(before.id in name for name in one.doors.volume_groups.report("b").volumes)


def test_the_role_of_a_dead_manager_is_taken_when_it_is_proven_dead(driver):
    """Not before; and when that host comes back it is the manager no more."""
    world, two = driver.world, driver.engine("two")
    disk = driver.create("a", SIZE)
    driver.remove("a", disk)
    world.machine("one").lose_power()
    for seconds in (0.0, FAILING_S):
        world.advance(seconds)
        with pytest.raises(Refused, match="one"):
            two.take_srm("a")
    world.advance(DEAD_S)
    two.take_srm("a")
    two.run_fix_here("a", the_fix(two, "a", "C-REMOVED"))
    one = world.host("one")
    assert one.get_srm("a") == "two"
    with pytest.raises(Refused, match="two"):
        one.create_virtual_disk("a", SIZE)


def test_a_manager_that_boots_is_the_manager_again(driver):
    """When it opens the repository, if nobody took the role meanwhile."""
    driver.world.machine("one").lose_power()
    one = driver.world.host("one")
    assert one.get_srm("a") == "one"
    one.create_virtual_disk("a", SIZE)


def test_an_image_in_use_on_another_host_is_busy(driver):
    """Prepared there: by the lease that its holder has, until that ends or the host is proven dead."""
    world, one, two = driver.world, driver.engine(), driver.engine("two")
    disk = driver.create("a", SIZE)
    two.prepare_image("a", disk)
    world.bury("three")
    for _ in range(2):
        with pytest.raises(ImageBusy, match="prepare by host two"):
            one.create_snapshot("a", disk)
        for process in list(world.machine("two").processes.values()):
            if process.name != "engine.host.holder":
                process.end(killed=True)
    world.machine("two").lose_power()
    with pytest.raises(ImageBusy):
        one.create_snapshot("a", disk)
    world.advance(DEAD_S + 1)
    before = one.check_storage_repository("a")
    for late in (lambda: one.create_snapshot("a", disk), lambda: one.prepare_image("a", disk)):
        with pytest.raises(Conflict, match=r"host two .* may still arrive"):
            late()
    assert one.check_storage_repository("a") == before
    one.prepare_image("a", disk, writable=False)
    one.teardown_image("a", disk)
    with pytest.raises(Refused, match="no host 'tow'"):
        one.take_srm("a", "tow")
    one.take_srm("a", "two")  # the operator says that it will never go on
    one.prepare_image("a", disk)
    one.teardown_image("a", disk)
    one.create_snapshot("a", disk)


def damage_the_page_of(world: World, host: str) -> int:
    """Flip a bit of the page of the roster that names a host in a; return its number."""
    (disk,) = (disk for disk in disks(world.storage) if disk.root.endswith("/a"))
    assert disk.header is not None
    for number in range(1, disk.header.geometry.hosts + 1):
        offset = disk.header.geometry.roster_offset(number)
        if f'"host":"{host}"'.encode() in disk.volumes["dw-meta"].read(offset, PAGE_BYTES):
            decay.inflict(world, Damage(f"{offset // PAGE_BYTES} ", "flip"))
            return number
    raise AssertionError(f"no page names {host}")


def test_a_dead_host_whose_page_is_damaged_is_named_by_its_number(driver):
    """Found so: the refusal told a name that could not be said to be dead, so what it had used waited for ever, and its
    number was nobody's any more."""
    world, one, two = driver.world, driver.engine(), driver.engine("two")
    disk = driver.create("a", SIZE)
    two.prepare_image("a", disk)
    world.machine("two").lose_power()
    world.advance(DEAD_S + 1)
    number = damage_the_page_of(world, "two")
    with pytest.raises(Conflict, match=f"host number-{number} ") as told:
        one.prepare_image("a", disk)
    assert told.value.next_step and told.value.next_step.endswith(f"--dead number-{number}")
    world.host("four")
    with pytest.raises(Refused, match=r"no number left .* \(damaged\)") as full:
        world.host("two")
    assert full.value.next_step and f"--dead number-{number}" in full.value.next_step
    one.take_srm("a", f"number-{number}")
    one.prepare_image("a", disk)
    assert world.host("two").list_images("a")


def test_leaks_are_not_repaired_where_a_host_may_still_write(driver):
    """Offered, and waiting for that host."""
    lvm.leaked_clusters(driver)
    disk, two = driver.named["disk"], driver.engine("two")
    two.prepare_image("a", disk)
    driver.world.machine("two").lose_power()
    driver.world.advance(DEAD_S + 1)
    one = driver.engine()
    (fix,) = (fix for fix in one.check_storage_repository("a", {"deep": True}) if fix.rule == "O-LEAKS")
    assert "may still write" in fix.waits_for
    with pytest.raises(Conflict, match=r"host two .* may still arrive"):
        repair.leaks(one.context, one.context.repository("a"), disk)
    driver.world.host("two")
    driver.fix("a", "O-LEAKS", deep=True)


def test_two_processes_never_hold_the_lease_of_a_new_image_at_once(driver):
    """Before it has a record, too: the slot that it will get is reserved."""
    one = driver.engine()
    first, second = (engine.context.repository("a") for engine in (one, driver.engine("two")))
    lease = first.leases.try_acquire("ab" * 16)
    assert lease is not None
    assert first.leases.try_acquire("ab" * 16) is None
    other = second.leases.try_acquire("cd" * 16)
    assert other is not None
    other.release()
    lease.release()


@pytest.mark.parametrize("call", (1, 5, 9, 17, 25, 33, 41, 53))
def test_a_host_that_froze_while_it_filled_a_copy_harms_nobody_when_it_goes_on(driver, call):
    """The manager has made the copy meanwhile. What was under way arrives, and its process is killed before more."""
    world, one, two = driver.world, driver.engine(), driver.engine("two")
    snapshot = a_copy_to_be_filled(driver)
    fix, calls = the_fix(two, "b", "B-COPY"), 0

    def hook(process: SimProcess, name: str, what: str) -> Fault:
        nonlocal calls
        if name in ("handle.write_at", "handle.sync", "shared_leases.try_acquire"):
            calls += 1
            if calls == call:
                world.machine("two").freeze()
                world.advance(DEAD_S + 1)
                done_by_the_manager()
                world.machine("two").thaw()
        return Fault.NONE

    def done_by_the_manager() -> None:
        for offered in one.check_storage_repository("b"):
            if not offered.waits_for:
                one.run_fix_here("b", offered)

    world.process_of(two).hook = hook
    with contextlib.suppress(Crashed, DiskwrightError):
        two.run_fix_here("b", fix)
    assert one.get_image_status("b", snapshot, {"deep": True}).status is Status.OPTIMIZED
    assert read(one, "b", snapshot, SIZE).digest == driver.image("a", snapshot).content.digest
    world.host("two")
    for offered in one.check_storage_repository("b"):
        assert not offered.waits_for
        one.run_fix_here("b", offered)
    assert read(one, "b", snapshot, SIZE).digest == driver.image("a", snapshot).content.digest
    assert not one.check_storage_repository("b")
