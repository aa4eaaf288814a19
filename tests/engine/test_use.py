"""A prepared image in use: what protects it lives as long as its user, whoever dies, and no longer than a boot."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.data.model import Status
from engine.doors.files import RunPlace
from engine.doors.processes import ProcessState
from engine.errors import Conflict, ImageBusy, Moved, NotFound, Refused, StaleFix
from engine.host.state import HostState
from engine.tags import changes
from engine.triage import rules
from sim.hosts.world import World as SimWorld
from tests.engine.test_gate import fixes_of, machine, volume_of

MEBI = 1 << 20


def end_holder(engine, prepared) -> None:
    """The holder dies as in an accident."""
    engine.doors.processes.kill(prepared.process)
    while engine.doors.processes.state(prepared.process) is not ProcessState.GONE:
        engine.doors.clock.sleep(0.001)


def write_into(path: str) -> subprocess.CompletedProcess[str]:
    """A tool that knows no lease writes."""
    words = ["qemu-io", "-f", "qcow2", "-c", "write 0 4k", path]
    return subprocess.run(words, capture_output=True, text=True, check=False)


# -- where the path is


def test_paths_do_not_outlive_a_boot(engine, monkeypatch, tmp_path):
    """Links stand in the run directory of this host, in memory; elsewhere the path names the boot."""
    disk = engine.create_virtual_disk("a", MEBI)
    boot = engine.doors.processes.own().boot_id
    for cleared in (True, False):
        place = RunPlace(str(tmp_path / "run"), cleared)
        with monkeypatch.context() as patch:
            patch.setattr(type(engine.doors.files), "run_place", lambda self, place=place: place)
            path = engine.prepare_image("a", disk).path
            assert path.startswith(f"{tmp_path}/run/diskwright/run/")
            assert (boot in path) is not cleared
            engine.teardown_image("a", disk)
    assert list((tmp_path / "run/diskwright/run").iterdir()) == []


def in_memory(monkeypatch, engine, tmp_path: Path, cleared: bool = True) -> Path:
    place = RunPlace(str(tmp_path / "run"), cleared)
    monkeypatch.setattr(type(engine.doors.files), "run_place", lambda self: place)
    return tmp_path / "run/diskwright/disks"


def test_a_disk_is_found_by_its_id_and_by_a_name_as_long_as_it_is_prepared(engine, monkeypatch, tmp_path):
    """Each time by the same, with the layers below it; a holder that is put beside its machine keeps them."""
    disks = in_memory(monkeypatch, engine, tmp_path)
    disk = engine.create_virtual_disk("a", MEBI)
    base = engine.create_snapshot("a", disk)
    for _ in range(2):
        prepared = engine.prepare_image("a", disk, name="web-1.example")
        assert prepared.given == f"{disks}/a/web-1.example/disk"
        for name in (disk, "web-1.example"):
            assert os.path.samefile(disks / "a" / name / "disk", volume_of(None, engine, disk))
            assert os.path.samefile(disks / "a" / name / f"t-{base}", volume_of(None, engine, base))
        engine.teardown_image("a", disk, prepared.given)
        assert not disks.exists() or not any(disks.iterdir())
    prepared = engine.prepare_image("a", disk, name="web")
    with machine(prepared.given):
        end_holder(engine, prepared)
        assert engine.prepare_image("a", disk, take_over=True).given == prepared.given
    engine.teardown_image("a", disk)
    assert engine.prepare_image("a", base, writable=False).names == ()
    engine.teardown_image("a", base)


@pytest.mark.parametrize(
    "name", ["", "..", ".web", "a/b", "/etc", "a\nb", "\0", "é", "web disk", "w" * 101, "0" * 32, "~new"]
)
def test_a_name_that_is_not_harmless_is_no_path(name: str, engine, monkeypatch, tmp_path):
    """Nor one that could be an id; the id is one."""
    disks = in_memory(monkeypatch, engine, tmp_path)
    disk = engine.create_virtual_disk("a", MEBI)
    assert engine.prepare_image("a", disk, name=name).names == (f"{disks}/a/{disk}",)
    engine.teardown_image("a", disk)


def test_a_name_leads_to_no_other_disk_while_one_has_it(engine, monkeypatch, tmp_path):
    """It was renamed meanwhile, say; what leads nowhere any more is free."""
    disks = in_memory(monkeypatch, engine, tmp_path)
    first, second = (engine.create_virtual_disk("a", MEBI) for _ in range(2))
    (disks / "a").mkdir(parents=True)
    for name in ("web", first):
        (disks / "a" / name).symlink_to("/nowhere")
    assert engine.prepare_image("a", first, name="web").given == f"{disks}/a/web/disk"
    assert engine.prepare_image("a", second, name="web").given == f"{disks}/a/{second}/disk"
    engine.teardown_image("a", second)
    assert os.path.samefile(disks / "a/web/disk", volume_of(None, engine, first))
    engine.teardown_image("a", first)


@pytest.mark.parametrize(
    "freeze",
    [
        lambda engine, disk, snapshot: engine.create_snapshot("a", disk),
        lambda engine, disk, snapshot: engine.revert_disk("a", disk, snapshot),
        lambda engine, disk, snapshot: engine.copy_image(
            "a", engine.create_virtual_disk("a", MEBI), disk, options={"auto_fix": False}
        ),
    ],
    ids=["snapshot", "revert", "base of a copy"],
)
def test_a_path_that_nobody_tore_down_leads_to_no_frozen_data(engine, freeze: Callable[..., object]):
    """Holder and machine have died. A machine that starts by that path would write into what a snapshot is by now."""
    disk = engine.create_virtual_disk("a", MEBI)
    snapshot = engine.create_snapshot("a", disk)
    other = engine.create_virtual_disk("a", MEBI, snapshot)
    prepared, used = engine.prepare_image("a", disk), engine.prepare_image("a", other)
    with machine(used.given):
        for each in (prepared, used):
            end_holder(engine, each)
        freeze(engine, disk, snapshot)
        assert not os.path.lexists(prepared.given) and os.path.exists(used.given)
    engine.teardown_image("a", other)


def test_where_a_boot_clears_nothing_no_name_is_left_to_find(engine, monkeypatch, tmp_path):
    """A machine that starts by itself would have the disk without a lease."""
    disks = in_memory(monkeypatch, engine, tmp_path, cleared=False)
    disk = engine.create_virtual_disk("a", MEBI)
    prepared = engine.prepare_image("a", disk, name="web")
    assert prepared.given == prepared.path and not disks.exists()
    engine.teardown_image("a", disk)


def test_without_a_run_directory_the_state_directory_names_the_boot(engine, monkeypatch):
    """A user without one prepares all the same, and what an older boot left is swept."""
    monkeypatch.setattr(type(engine.doors.files), "run_place", lambda self: RunPlace("", False))
    disk = engine.create_virtual_disk("a", MEBI)
    old = Path(engine.state.directory, "run", "an-older-boot", "repository", disk)
    old.mkdir(parents=True)
    (old / "disk").symlink_to("/nowhere")
    path = engine.prepare_image("a", disk).path
    assert path.startswith(f"{engine.state.directory}/run/{engine.doors.processes.own().boot_id}/")
    assert not old.parent.parent.exists()
    engine.teardown_image("a", disk)


def test_what_an_older_boot_prepared_is_not_believed(engine):
    """Its note and its links go; the image can be prepared."""
    disk = engine.create_virtual_disk("a", MEBI)
    prepared = engine.prepare_image("a", disk)
    engine.doors.processes.kill(prepared.process)
    older = prepared._replace(process=prepared.process._replace(boot_id="older"))
    engine.state.save_prepared(older)
    assert engine.list_prepared() == []
    assert not os.path.lexists(prepared.path)
    with pytest.raises(NotFound):
        engine.teardown_image("a", disk)


def test_a_teardown_removes_nothing_but_links(engine):
    """A note without a seal may name another directory than it was written with; what is no link is not ours."""
    disk = engine.create_virtual_disk("a", MEBI)
    prepared = engine.prepare_image("a", disk)
    beside = Path(prepared.run, "of-somebody")
    beside.write_text("kept")
    engine.teardown_image("a", disk)
    assert beside.read_text() == "kept" and not os.path.lexists(prepared.path)
    beside.unlink()


def test_the_path_of_a_machine_stays_whose_note_is_gone(engine):
    """Found so: the next prepare removed it, and the machine would not have found its layers again."""
    disk, other = (engine.create_virtual_disk("a", MEBI) for _ in range(2))
    prepared = engine.prepare_image("a", disk)
    os.remove(engine.state.prepared_note(prepared))
    end_holder(engine, prepared)
    with machine(volume_of(None, engine, disk)):
        engine.prepare_image("a", other)
        assert os.path.exists(prepared.path)
        engine.teardown_image("a", other)
    engine.prepare_image("a", other)
    assert not os.path.lexists(prepared.path)
    engine.teardown_image("a", other)


# -- several readers


def test_each_reader_has_a_path_of_its_own(engine):
    """Several prepare one snapshot for reading; the teardown of one leaves the others, and says which are there."""
    disk = engine.create_virtual_disk("a", MEBI)
    snapshot = engine.create_snapshot("a", disk)
    first, second = (engine.prepare_image("a", snapshot, writable=False) for _ in range(2))
    assert first.path != second.path
    with pytest.raises(Conflict, match="prepared 2 times") as told:
        engine.teardown_image("a", snapshot)
    assert first.path in told.value.next_step and second.path in told.value.next_step
    engine.teardown_image("a", snapshot, first.path)
    assert not os.path.lexists(first.path) and os.path.exists(second.path)
    assert engine.list_prepared() == [second]
    engine.teardown_image("a", snapshot)
    assert engine.list_prepared() == []


# -- teardown asks the data


def test_teardown_waits_for_the_machine(engine):
    """While a machine has it open teardown is refused and names it; nothing has changed then."""
    disk = engine.create_virtual_disk("a", MEBI)
    prepared = engine.prepare_image("a", disk)
    with machine(volume_of(None, engine, disk)) as process, pytest.raises(ImageBusy) as told:
        engine.teardown_image("a", disk)
    assert f"process {process.pid} (qemu-io" in told.value.message
    assert "process" not in told.value.message.replace(f"process {process.pid}", ""), "the holder is no user"
    assert engine.list_prepared() == [prepared]
    engine.teardown_image("a", disk)


# -- the holder locks the data


def test_qemu_cannot_write_below_a_prepared_disk(engine):
    """Tools that know no lease are kept away from every layer below, by qemu's own locks; also for reading only."""
    disk = engine.create_virtual_disk("a", MEBI)
    snapshot = engine.create_snapshot("a", disk)
    base = volume_of(None, engine, snapshot)
    for image, writable in ((disk, True), (snapshot, False)):
        engine.prepare_image("a", image, writable)
        done = write_into(base)
        assert 'Failed to get "write" lock' in done.stderr
        engine.teardown_image("a", image)
    assert not write_into(base).returncode


def test_a_machine_can_use_what_is_prepared(engine):
    """The locks of the holder are in nobody's way who uses the path."""
    engine.create_snapshot("a", disk := engine.create_virtual_disk("a", MEBI))
    path = engine.prepare_image("a", disk).path
    assert not write_into(path).returncode
    engine.teardown_image("a", disk)


def test_another_file_of_leases_is_no_way_to_a_second_writer(engine, world):
    """The file of leases is replaced while a disk is prepared: the data itself says that it is taken."""
    disk = engine.create_virtual_disk("a", MEBI)
    engine.prepare_image("a", disk)
    replace_leases(engine)
    with pytest.raises(ImageBusy, match="locked by somebody else"):
        world.engine("host-b").prepare_image("a", disk)
    with pytest.raises(Moved):
        engine.teardown_image("a", disk)
    world.engine("host-b").prepare_image("a", disk)
    world.engine("host-b").teardown_image("a", disk)


def replace_leases(engine) -> None:
    """The file of leases is replaced under who has some, as by a restore."""
    locks = Path(engine.context.repository("a").place) / "locks"
    shutil.copy(locks, f"{locks}.restored")
    os.replace(f"{locks}.restored", locks)


def test_what_is_handed_out_is_not_sealed_under_another_file_of_leases(engine, world):
    """No machine has the disk open yet, and its lease is free: the data tells that it is handed out for writing."""
    disk = engine.create_virtual_disk("a", MEBI)
    engine.prepare_image("a", disk)
    replace_leases(engine)
    other = world.engine("host-b")
    for refused in (
        lambda: other.create_snapshot("a", disk),
        lambda: other.prepare_image("a", disk, writable=False),
    ):
        with pytest.raises(ImageBusy, match="prepared for writing by somebody who does not have its lease"):
            refused()
    other.remove_image("a", disk)
    (fix,) = fixes_of(other, "a", rules.C_REMOVED)
    with pytest.raises(ImageBusy, match="prepared for writing"):
        other.run_fix_here("a", fix)
    with pytest.raises(Moved):
        engine.teardown_image("a", disk)
    (fix,) = fixes_of(other, "a", rules.C_REMOVED)
    other.run_fix_here("a", fix)


def test_a_reader_stops_no_seal(engine, world):
    """Whoever has it prepared for reading keeps others from writing; what is sealed does not change for him."""
    disk = engine.create_virtual_disk("a", MEBI)
    engine.prepare_image("a", disk, writable=False)
    replace_leases(engine)
    world.engine("host-b").create_snapshot("a", disk)
    with pytest.raises(Moved):
        engine.teardown_image("a", disk)


# -- the holder dies


def test_a_machine_outlives_its_holder_and_gets_a_new_one(engine):
    """Until then it is protected and named; the new holder stands at the same path."""
    disk = engine.create_virtual_disk("a", MEBI)
    prepared = engine.prepare_image("a", disk)
    with machine(volume_of(None, engine, disk)) as process:
        end_holder(engine, prepared)
        assert engine.list_prepared() == []
        assert os.path.exists(prepared.path), "the machine may open it again"
        for refused in (
            lambda: engine.prepare_image("a", disk),
            lambda: engine.prepare_image("a", disk, writable=False),
            lambda: engine.teardown_image("a", disk),
            lambda: engine.create_snapshot("a", disk),
        ):
            with pytest.raises(ImageBusy, match=f"process {process.pid}"):
                refused()
        status = engine.get_image_status("a", disk)
        assert (status.status, status.rule) == (Status.DEGRADED, rules.O_UNHELD)
        assert f"process {process.pid} (qemu-io" in status.reason and "without a holder" in status.reason
        (image,) = engine.inspect_repository("a").images
        assert image.rule == rules.O_UNHELD
        assert engine.list_unheld() == [prepared]
        with pytest.raises(Refused, match="prepared here"):
            engine.disconnect_storage_repository("a")
        again = engine.prepare_image("a", disk, take_over=True)
        assert again.path == prepared.path and os.path.exists(again.path)
        assert again.process != prepared.process
        assert engine.list_prepared() == [again]
    engine.teardown_image("a", disk)
    engine.create_snapshot("a", disk)


@pytest.mark.parametrize("here", [True, False])
def test_check_offers_a_holder_for_a_machine_that_has_none(engine, here):
    """The fix, here or in a process of its own, is what prepare --take-over does; after it the image is in order."""
    disk = engine.create_virtual_disk("a", MEBI)
    prepared = engine.prepare_image("a", disk)
    with machine(volume_of(None, engine, disk)):
        end_holder(engine, prepared)
        (fix,) = engine.check_storage_repository("a")
        assert (fix.rule, fix.target, fix.wait, fix.irreversible) == (rules.O_UNHELD, disk, None, False)
        if here:
            engine.run_fix_here("a", fix)
        else:
            engine.wait_for_task(engine.fix_storage_repository("a", fix))
        (again,) = engine.list_prepared()
        assert (again.path, again.writable) == (prepared.path, True)
        assert engine.check_storage_repository("a") == []
        assert engine.get_image_status("a", disk).status == Status.OPTIMIZED
    with pytest.raises((StaleFix, ImageBusy)):
        engine.run_fix_here("a", fix)
    engine.teardown_image("a", disk)


def test_a_reader_is_taken_over_at_its_own_path(engine):
    """Also one of several."""
    snapshot = engine.create_snapshot("a", engine.create_virtual_disk("a", MEBI))
    first, second = (engine.prepare_image("a", snapshot, writable=False) for _ in range(2))
    with machine(volume_of(None, engine, snapshot), "-r"):
        end_holder(engine, first)
        assert engine.prepare_image("a", snapshot, writable=False, take_over=True).path == first.path
    for path in (first.path, second.path):
        engine.teardown_image("a", snapshot, path)


def test_nothing_is_taken_over_that_nobody_uses(engine):
    """Then an ordinary prepare is what is wanted."""
    disk = engine.create_virtual_disk("a", MEBI)
    with pytest.raises(Refused, match="no machine uses"):
        engine.prepare_image("a", disk, take_over=True)
    engine.teardown_image("a", engine.prepare_image("a", disk).image)


def test_a_merge_below_a_machine_without_a_holder_is_refused(engine):
    """The layers below are its data too."""
    disk = engine.create_virtual_disk("a", MEBI)
    snapshot = engine.create_snapshot("a", disk)
    prepared = engine.prepare_image("a", disk)
    with machine(volume_of(None, engine, disk)):
        end_holder(engine, prepared)
        engine.remove_image("a", snapshot)
        for fix in fixes_of(engine, "a", "M-CHAIN"):
            with pytest.raises(ImageBusy):
                engine.run_fix_here("a", fix)


# -- simulated


def test_a_simulated_holder_locks_the_data_too():
    """What holders do is tried in the simulator: the machine outlives its holder there as well."""
    world = SimWorld()
    world.create("a")
    engine = world.host("one")
    disk = engine.create_virtual_disk("a", MEBI)
    prepared = engine.prepare_image("a", disk)
    assert prepared.path.startswith("/run/")
    other = world.host("one")
    repository = engine.context.repository("a")
    volume = changes.read(repository, disk).record.volume
    assert volume is not None
    layer = repository.volumes.layer(volume)
    with contextlib.closing(other.doors.images.open_session([layer], True, False)) as session:
        engine.doors.processes.kill(prepared.process)
        session.write(0, b"x" * 4096)
        for refused in (lambda: engine.create_snapshot("a", disk), lambda: engine.teardown_image("a", disk)):
            with pytest.raises(ImageBusy):
                refused()
        assert engine.prepare_image("a", disk, take_over=True).path == prepared.path
    engine.teardown_image("a", disk)
    engine.create_snapshot("a", disk)


def test_a_boot_leaves_no_path():
    """After a boot of the simulated host nothing is prepared, and no link is there."""
    world = SimWorld()
    world.create("a")
    engine = world.host("one")
    disk = engine.create_virtual_disk("a", MEBI)
    path = engine.prepare_image("a", disk).path
    world.machine("one").crash()
    again = world.host("one")
    with pytest.raises(FileNotFoundError):
        again.doors.files.stat(path)
    assert again.list_prepared() == []
    assert HostState(again.doors, again.state.directory).unheld() == []
