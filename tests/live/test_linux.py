"""A real Linux guest lives through what is done to its disk, and through the death of who does it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.api import Engine
from engine.host.state import Prepared
from sim.explore.cases.driver import MiB
from sim.hosts.crash import Crashed
from tests.crash.kit import World, content, settle
from tests.doors.children import wait_ended
from tests.live.domain import Daemon, missing
from tests.live.linux import PARTS, LinuxGuest, OfLibvirt, OfQemu, shows
from tests.live.rounds import Merges
from tui.cli.commands import prepare

Starting = Callable[[Prepared], LinuxGuest]
Killing = Callable[[LinuxGuest], None]
SECTOR = 512
QUICK = {"strategy": "space"}


def until_it_dies(world: World, verb: Callable[[Engine], object], at: int) -> bool:
    """Run a verb in a process that is gone before its effect number ``at``; return whether it got so far."""
    child = os.fork()
    if not child:
        try:
            verb(world.engine("host-a", crash_at=at))
        except Crashed:
            os._exit(9)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PARTS.exists(), reason="no kernel for a guest was unpacked by the set-up"),
]


def live_through_all(folder: Path, monitor: str, start: Starting, kill_what_is_below: Killing) -> None:
    """Snapshot, copy, merge and resize, with a runner killed in each but the last, a holder, and what a machine needs
    to run. In the end the machine is killed: no write that its guest acknowledged is missing, and what was sealed shows
    a moment."""
    world = World(folder / "storage", "a", "b").create()
    engine = world.engine("host-a")
    disk = engine.create_virtual_disk("a", 64 * MiB, options=QUICK)
    guest = start(engine.prepare_image("a", disk, monitor=monitor))
    try:
        guest.wait_for(20)
        holder = engine.list_prepared()[0].process.pid
        os.kill(holder, signal.SIGKILL)
        wait_ended(holder)
        engine.prepare_image("a", disk, take_over=True)
        guest.go_on()
        begun = guest.acknowledged
        assert until_it_dies(world, lambda engine: engine.create_snapshot("a", disk), 12)
        guest.go_on()
        snapshot = engine.create_snapshot("a", disk)
        guest.look()
        sealed = guest.acknowledged
        guest.go_on()
        engine.copy_image("b", disk, options={"auto_fix": False})
        assert until_it_dies(world, lambda engine: settle(engine, "b"), 12)
        settle(engine, "b")
        guest.go_on()
        removed = engine.create_snapshot("a", disk)
        guest.go_on()
        engine.remove_image("a", removed)
        assert until_it_dies(world, Merges.merge, 20)
        kill_what_is_below(guest)
        guest.go_on()
        if engine.list_unheld():
            engine.prepare_image("a", disk, take_over=True)
        Merges.merge(engine)
        guest.go_on()
        engine.resize_disk("a", disk, 96 * MiB)
        guest.wait_for(guest.acknowledged + 1, sectors=96 * MiB // SECTOR)
    finally:
        guest.kill()
    engine.teardown_image("a", disk)
    settle(engine, "a")
    assert engine.get_image_status("a", disk).size_bytes == 96 * MiB
    assert shows(content(engine, "a", disk, folder)) in (guest.acknowledged, guest.acknowledged + 1)
    assert begun <= shows(content(engine, "a", snapshot, folder)) <= sealed + 1
    (copy,) = engine.list_images("b")
    assert sealed <= shows(content(engine, "b", copy.id, folder)) < guest.acknowledged
    assert removed not in {image.id for image in engine.list_images("a")}


def test_a_linux_guest_writes_on_through_all_that_is_done_to_its_disk(tmp_path: Path):
    """Of a qemu with a monitor; the guest never stops."""

    def start(entry: Prepared) -> LinuxGuest:
        return OfQemu(tmp_path, entry.path, entry.format)

    live_through_all(tmp_path, f"qmp:{tmp_path / 'guest.qmp'}", start, lambda guest: None)


@pytest.mark.skipif(bool(missing()), reason="there is no libvirt or qemu here")
def test_a_linux_guest_of_a_domain_goes_on_whatever_dies_below_it(tmp_path: Path):
    """libvirt's daemon and the domain's qemu are killed with a merge half done; the domain is started again as its
    definition says, and its guest goes on where it was."""
    daemon = Daemon()

    def start(entry: Prepared) -> LinuxGuest:
        return OfLibvirt(tmp_path, daemon, "linux", prepare.HYPERVISORS["libvirt"](entry))

    def kill(guest: LinuxGuest) -> None:
        daemon.stop(signal.SIGKILL)
        daemon.start()
        guest.go_on()
        guest.kill()
        guest.boot()

    try:
        live_through_all(tmp_path, f"libvirt:{daemon.uri}/linux", start, kill)
    finally:
        daemon.end()
