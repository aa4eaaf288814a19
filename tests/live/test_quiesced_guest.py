"""A real Linux guest with qemu's guest agent: what its programs wrote into a file is in a quiesced snapshot."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.api import Engine
from engine.errors import ToolFailed
from engine.host.state import Prepared
from engine.verbs.live import snapshot
from sim.explore.cases.driver import MiB
from tests.crash.kit import World, content, settle
from tests.live.domain import Daemon, missing
from tests.live.linux import PARTS, Entry, LinuxGuest, OfLibvirt, OfQemu
from tui.cli.commands import prepare

AGENT = PARTS / "agent"
_NAME = "org.qemu.guest_agent.0"
_LOG = "log"
_PATIENCE_S = 120.0
_INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t sysfs sys /sys
mount -t proc proc /proc
for module in {" ".join((*OfQemu.modules, "virtio_console"))}; do insmod /$module.ko; done
mount -t ext4 /dev/vda /mnt || echo FAILED
while [ ! -e /dev/vport*p1 ]; do usleep 20000; done
/qemu-ga -m virtio-serial -p /dev/vport*p1 -t /run &
number=1
while :; do
    echo "$number" >> /mnt/{_LOG} || break
    echo "ACK $number 0"
    number=$((number + 1))
    usleep 20000
done
echo FAILED
sleep 1000
"""


class Agreeing(LinuxGuest):
    """It has a file system on its disk, appends to a file there without a sync, and runs the agent."""

    init = _INIT
    modules = (*OfQemu.modules, "virtio_console")

    def besides(self) -> list[Entry]:
        """The agent and its libraries."""
        found = [(name, 0o40755, b"") for name in ("mnt", "run", "lib", "lib/x86_64-linux-gnu", "lib64")]
        files = [path for path in sorted(AGENT.rglob("*")) if path.is_file()]
        return found + [(str(path.relative_to(AGENT)), 0o100755, path.read_bytes()) for path in files]


class AgreeingOfQemu(Agreeing, OfQemu):
    """With a socket for the agent."""

    devices = ("-chardev", "socket,id=agent,path={folder}/agent,server=on,wait=off", "-device", "virtio-serial",
               "-device", f"virtserialport,chardev=agent,name={_NAME}")  # fmt: skip


class AgreeingOfLibvirt(Agreeing, OfLibvirt):
    """With a channel for the agent."""

    elements = f"<channel type='unix'><target type='virtio' name='{_NAME}'/></channel>"


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (AGENT / "qemu-ga").exists(), reason="no guest agent was unpacked by the set-up"),
]


def killed_while_frozen(world: World, disk: str) -> None:
    """Take a quiesced snapshot in a process that is gone when the machine is to go on."""
    child = os.fork()
    if not child:
        try:
            dying: Any = lambda *given: os._exit(9)  # noqa: E731
            snapshot.switch = dying
            world.engine("host-a").create_snapshot("a", disk, None, {"quiesce": True})
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def live_through(folder: Path, monitor: str, start: Callable[[Prepared], LinuxGuest]) -> None:
    """A snapshot has every line that was written before it was asked for, in a file system that needs no repair: of a
    guest that never synced. When who takes one is killed while the guest is frozen, it writes on."""
    world = World(folder / "storage", "a").create()
    engine = world.engine("host-a")
    empty = folder / "empty.raw"
    with empty.open("wb") as file:
        file.truncate(16 * MiB)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", str(empty)], check=True)
    disk = engine.import_image("a", str(empty), "raw", options={"auto_fix": False})
    settle(engine, "a")
    guest = start(engine.prepare_image("a", disk, monitor=monitor))
    try:
        guest.wait_for(10)
        _when_it_answers(engine, monitor)
        guest.look()
        begun = guest.acknowledged
        made = engine.create_snapshot("a", disk, None, {"quiesce": True})
        guest.go_on()
        killed_while_frozen(world, disk)
        guest.go_on()
    finally:
        guest.kill()
        engine.teardown_image("a", disk)
    image = folder / "snapshot.raw"
    image.write_bytes(content(engine, "a", made, folder))
    subprocess.run(["e2fsck", "-fn", str(image)], check=True, capture_output=True)
    shown = subprocess.run(["debugfs", "-R", f"cat /{_LOG}", str(image)], check=True, capture_output=True, text=True)
    lines = shown.stdout.split()
    assert lines == [str(number + 1) for number in range(len(lines))]
    assert begun <= len(lines) <= guest.acknowledged


def _when_it_answers(engine: Engine, monitor: str) -> None:
    """It starts beside what writes. One that is asked before hears that later, and what it says then is for nobody."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(ToolFailed):
            assert not engine.doors.hypervisors.frozen(monitor)
            return
        time.sleep(0.1)
    raise AssertionError("the agent does not answer")


def test_a_guest_is_frozen_by_its_agent(tmp_path: Path):
    """Of a qemu with a monitor, and a socket of the agent."""

    def start(entry: Prepared) -> LinuxGuest:
        return AgreeingOfQemu(tmp_path, entry.path, entry.format)

    live_through(tmp_path, f"qmp:{tmp_path / 'guest.qmp'},agent={tmp_path / 'agent'}", start)


@pytest.mark.skipif(bool(missing()), reason="there is no libvirt or qemu here")
def test_the_guest_of_a_domain_is_frozen_through_libvirt(tmp_path: Path):
    """By the domain's own channel."""
    daemon = Daemon()
    try:
        live_through(
            tmp_path, f"libvirt:{daemon.uri}/linux",
            lambda entry: AgreeingOfLibvirt(tmp_path, daemon, "linux", prepare.HYPERVISORS["libvirt"](entry)),
        )  # fmt: skip
    finally:
        daemon.end()
