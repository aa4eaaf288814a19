"""A running disk gets another volume: with a real qemu-storage-daemon, whose guest goes on whoever dies."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from engine.api import Engine
from engine.host import mirroring
from engine.host.live import switches
from engine.triage import rules
from tests.crash.kit import World
from tests.doors.children import wait_ended
from tests.live.machine import Guest, Machine, numbers, state_after

_BLOCKS, _SIZE = 4, 1 << 20


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world", "a").create()


def rebuild(engine: Engine) -> None:
    for fix in engine.check_storage_repository("a"):
        if fix.rule in rules.BESIDE:
            engine.run_fix_here("a", fix)


def begun(world: World, folder: Path) -> tuple[Engine, str, Machine, Guest]:
    """A raw disk that shall be qcow2, its machine, and what writes there."""
    engine = world.engine("host-a")
    disk = engine.create_virtual_disk("a", _SIZE, options={"strategy": "performance"})
    engine.set_strategy("a", disk, "space")
    entry = engine.prepare_image("a", disk, monitor=f"qmp:{folder / 'qmp'}")
    machine = Machine(folder, entry.path, entry.format)
    guest = Guest(machine, _BLOCKS, 1)
    guest.wait_for(_BLOCKS)
    return engine, disk, machine, guest


def judge(engine: Engine, disk: str, guest: Guest, folder: Path) -> None:
    engine.teardown_image("a", disk)
    engine.export_image("a", disk, str(folder / "out"), "raw")
    shown = numbers((folder / "out").read_bytes()[: _BLOCKS * 4096])
    assert shown in [state_after(number, _BLOCKS) for number in range(guest.acknowledged, guest.issued + 1)]


def wait_for_watchdog(disk: str) -> None:
    """Until there is none of a disk any more."""
    deadline = time.monotonic() + 60
    while any(_is_watchdog(path, disk) for path in Path("/proc").glob("[0-9]*/cmdline")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_watchdog(path: Path, disk: str) -> bool:
    try:
        words = path.read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return False
    return switches.WATCHDOG in words and disk in words


def test_a_disk_gets_another_volume_while_its_guest_writes(world: World, tmp_path: Path):
    """Nothing is missed, nothing of the old volume is left, and the path leads to the new one."""
    engine, disk, machine, guest = begun(world, tmp_path)
    try:
        rebuild(engine)
        guest.wait_for(guest.acknowledged + 3)
        (entry,) = engine.list_prepared()
        assert (entry.format, entry.path.rpartition("/")[2]) == ("qcow2", "disk")
        assert not engine.check_storage_repository("a")
    finally:
        machine.kill()
        guest.end()
    judge(engine, disk, guest, tmp_path)


def test_the_layers_that_a_disk_has_left_can_be_deleted_beside_its_machine(world: World, tmp_path: Path):
    """Those of which snapshots were taken while it ran, and what it was started with."""
    engine, disk, machine, guest = begun(world, tmp_path)
    try:
        snapshots = [engine.create_snapshot("a", disk) for _ in range(2)]
        engine.set_strategy("a", disk, "performance")
        rebuild(engine)
        guest.wait_for(guest.acknowledged + 3)
        for snapshot in snapshots:
            engine.remove_image("a", snapshot)
        while found := engine.check_storage_repository("a"):
            engine.run_fix_here("a", found[0])
    finally:
        machine.kill()
        guest.end()
    judge(engine, disk, guest, tmp_path)


@pytest.mark.parametrize(("published", "watched"), [(False, True), (True, True), (True, False)])
def test_a_guest_goes_on_whose_runner_is_killed_in_the_switch(
    published: bool, watched: bool, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The watchdog has the machine go on in what the record says; where that is killed as well, the one that a look at
    the repository starts."""
    engine, disk, machine, guest = begun(world, tmp_path)
    name = "settle" if published else "_publish"

    def dies(*arguments: Any) -> None:
        if not published:
            machine.ask("job-complete", id=next(job["id"] for job in machine.ask("query-jobs")))
            while machine.ask("query-jobs")[0]["status"] != "pending":
                pass
        if not watched:
            switch = switches.of(engine.list_prepared()[0])
            assert switch is not None
            os.kill(switch.watchdog.pid, signal.SIGKILL)
            wait_ended(switch.watchdog.pid)
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        try:
            monkeypatch.setattr(mirroring, name, dies)
            rebuild(world.engine("host-a"))
        finally:
            os._exit(1)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        if not watched:
            engine.check_storage_repository("a")
        guest.look()
        wanted = guest.acknowledged + 3
        guest.wait_for(wanted)
        assert guest.acknowledged >= wanted
        wait_for_watchdog(disk)
        assert [entry.format for entry in engine.list_prepared()] == ["qcow2" if published else "raw"]
    finally:
        machine.kill()
        guest.end()
    judge(engine, disk, guest, tmp_path)
