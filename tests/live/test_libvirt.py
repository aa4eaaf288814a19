"""Domains of a real libvirt: what is done to their disks, and what libvirt knows of it afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import pytest

from engine.api import Engine
from engine.data.monitors import Libvirt
from engine.doors.hypervisor import Move
from engine.errors import BadRequest, DiskwrightError, Refused, ToolFailed, ToolMissing
from engine.host.state import Prepared
from engine.tools.hypervisor import libvirt
from engine.tools.hypervisor.libvirt import LibvirtMonitor
from engine.triage.rules import M_CHAIN
from sim.explore.cases.driver import MiB
from tests.crash.kit import World
from tests.live.domain import PATIENCE_S, PAUSED, Daemon, guest, missing
from tests.live.rounds import Rounds
from tests.live.test_linux import until_it_dies
from tui.cli.commands import prepare

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason="there is no libvirt or qemu here"),
]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    found = Daemon()
    yield found
    found.end()


class Running:
    """A disk, and a domain that has it open."""

    def __init__(self, daemon: Daemon, folder: Path, format: str, *also: str) -> None:
        self.daemon = daemon
        self.world = World(folder / "storage", "a", "b").create()
        self.engine: Engine = self.world.engine("host-a")
        strategy = "space" if format == "qcow2" else "performance"
        self.disk = self.engine.create_virtual_disk("a", MiB, options={"strategy": strategy})
        self.entry: Prepared = self.engine.prepare_image("a", self.disk, monitor=f"libvirt:{daemon.uri}/web")
        assert self.entry.format == format
        daemon.define("web", prepare.HYPERVISORS["libvirt"](self.entry), *also).createWithFlags(PAUSED)

    @property
    def domain(self) -> Any:
        return self.daemon.domain("web")

    def element(self, inactive: bool = False) -> Element:
        """The disk, as libvirt tells of it."""
        found = fromstring(self.domain.XMLDesc(2 if inactive else 0)).find("./devices/disk/target[@dev='vda']/..")
        assert found is not None
        return found

    def layers(self) -> list[str]:
        """The files of the layers, top first, as libvirt names them."""
        found: list[str] = []
        layer: Element | None = self.element()
        while layer is not None and (source := layer.find("source")) is not None:
            found.append(source.get("file", ""))
            layer = layer.find("backingStore")
        return found

    def volume(self) -> str:
        """The file of the disk, by its record."""
        found = [entry for entry in self.engine.list_prepared() if entry.image == self.disk]
        return os.path.realpath(found[0].path)

    def require_known(self, layers: int) -> None:
        """libvirt knows the running chain, and starts the disk by a path that leads to it."""
        assert len(self.layers()) == layers
        assert os.path.realpath(self.layers()[0]) == self.volume()
        defined = self.element(inactive=True)
        source, driver = defined.find("source"), defined.find("driver")
        assert source is not None and driver is not None
        assert source.get("file", "").rpartition("/")[0] == self.entry.given.rpartition("/")[0]
        assert os.path.realpath(source.get("file", "")) == self.volume()
        assert driver.get("type") == "qcow2"
        assert defined.find("backingStore") is None

    def take_over(self) -> None:
        """Give the domain a new holder where it has lost its own."""
        if self.engine.list_unheld():
            self.engine.prepare_image("a", self.disk, take_over=True)

    def merge(self, engine: Engine | None = None) -> None:
        """What was removed, into what is above it; and delete it, where the domain does not have it open."""
        Rounds._fix_all(engine or self.engine)

    def again(self) -> None:
        """Start the domain anew, as its definition says."""
        self.domain.destroy()
        self.domain.createWithFlags(PAUSED)

    def end(self) -> None:
        with contextlib.suppress(Exception):
            self.domain.destroy()
        with contextlib.suppress(Exception):
            self.domain.undefine()
        for entry in [*self.engine.list_prepared(), *self.engine.list_unheld()]:
            self.engine.teardown_image("a", entry.image)
        self.engine.close()


@pytest.fixture
def running(daemon: Daemon, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Running]:
    format = getattr(request, "param", "qcow2")
    other = tmp_path / "other"
    other.write_bytes(bytes(MiB))
    also = f"<disk type='file' device='disk'><source file='{other}'/><target dev='vdb' bus='virtio'/></disk>"
    found = Running(daemon, tmp_path, format, also)
    yield found
    found.end()


def test_two_disks_of_a_running_domain_are_frozen_at_one_moment(daemon: Daemon, tmp_path: Path):
    """By one snapshot of libvirt's, which leaves other disks alone and knows both chains; started anew, the domain has
    what it wrote, and goes on."""
    engine = World(tmp_path / "storage", "a").create().engine("host-a")
    disks = [engine.create_virtual_disk("a", MiB, options={"strategy": one}) for one in ("space", "performance")]
    entries = [engine.prepare_image("a", disk, monitor=f"libvirt:{daemon.uri}/two") for disk in disks]
    other = tmp_path / "other"
    other.write_bytes(bytes(MiB))
    elements = [prepare.HYPERVISORS["libvirt"](entry) for entry in entries]
    elements[1] = elements[1].replace("'vda'", "'vdb'")
    third = f"<disk type='file' device='disk'><source file='{other}'/><target dev='vdc' bus='virtio'/></disk>"
    domain = daemon.define("two", *elements, third)
    domain.createWithFlags(PAUSED)
    try:
        for number in range(2):
            guest(domain, f"write -P {number + 1} 0 64k", f"virtio-disk{number}")
        made = engine.create_snapshot_group("a", disks, {"name": "monday"})
        for number, disk in enumerate(disks):
            guest(domain, "write -P 9 0 64k", f"virtio-disk{number}")
            out = tmp_path / f"{number}.raw"
            engine.export_image("a", made[disk], str(out), "raw")
            assert {*out.read_bytes()[: 1 << 16]} == {number + 1}
        layers = [len(list(one.iter("source"))) for one in fromstring(domain.XMLDesc(0)).iterfind("./devices/disk")]
        assert layers == [2, 2, 1]
        domain.destroy()
        domain.createWithFlags(PAUSED)
        for number in range(2):
            guest(domain, "read -P 9 0 64k", f"virtio-disk{number}")
        assert engine.create_snapshot_group("a", disks).keys() == {*disks}
        domain.destroy()
    finally:
        with contextlib.suppress(Exception):
            domain.destroy()
        domain.undefine()
        for entry in [*engine.list_prepared(), *engine.list_unheld()]:
            engine.teardown_image("a", entry.image)
        engine.close()


def test_libvirt_knows_what_was_done_to_the_disk_of_a_running_domain(running: Running, tmp_path: Path):
    """Snapshots, an export, merges and a longer disk; meanwhile its daemon is restarted, and in the end the domain, by
    what its definition says. The other disk of the domain is left alone."""
    guest(running.domain, "write -P 1 0 64k")
    first = running.engine.create_snapshot("a", running.disk)
    running.require_known(2)
    running.daemon.restart()
    guest(running.domain, "write -P 2 64k 64k")
    second = running.engine.create_snapshot("a", running.disk)
    running.require_known(3)
    guest(running.domain, "write -P 3 128k 64k")
    running.engine.export_image("a", running.disk, str(tmp_path / "out.raw"), "raw")
    shown = (tmp_path / "out.raw").read_bytes()
    assert [shown[at << 16] for at in range(4)] == [1, 2, 3, 0]
    running.require_known(4)
    running.engine.resize_disk("a", running.disk, 2 * MiB)
    assert running.domain.blockInfo("vda")[0] == 2 * MiB
    running.engine.remove_image("a", second)
    running.merge()
    running.require_known(2)
    running.again()
    running.require_known(2)
    running.daemon.restart()
    running.engine.remove_image("a", first)
    running.merge()
    running.require_known(1)  # the definition names nothing below, although the disk was open by its path
    for number in range(3):
        guest(running.domain, f"read -P {number + 1} {number * 64}k 64k")
    assert running.domain.blockInfo("vda")[0] == 2 * MiB
    assert [job for job in running.domain.XMLDesc(0).split("<disk ") if "'vdb'" in job and "backingStore>" in job] == []


def test_what_was_interrupted_is_gone_on_with_and_libvirt_knows_it(running: Running):
    """The runner is gone before some effects of snapshots and of a merge, and the machine after; nothing that was
    written is missing."""
    guest(running.domain, "write -P 3 128k 64k")
    running.engine.remove_image("a", running.engine.create_snapshot("a", running.disk))
    for at in (10, 18, 26):
        assert until_it_dies(running.world, running.merge, at)
        running.take_over()
    running.merge()
    running.require_known(1)
    for number, at in enumerate((6, 14, 22)):
        assert until_it_dies(running.world, lambda engine: engine.create_snapshot("a", running.disk), at)
        guest(running.domain, f"write -P {number + 4} {number * 64}k 64k")
        running.take_over()
        running.engine.create_snapshot("a", running.disk)
        running.require_known(number + 2)
    running.daemon.kill_machine("web")
    running.domain.createWithFlags(PAUSED)
    for number in range(3):
        guest(running.domain, f"read -P {number + 4} {number * 64}k 64k")


@pytest.mark.parametrize("running", ["raw"], indirect=True)
def test_a_snapshot_is_gone_on_with_when_the_daemon_died_before_it_or_after_it(running: Running, monkeypatch):
    """libvirt's daemon, before it is told or before it has answered: the domain has the disk that its record says, and
    is started with that; what was raw is defined as qcow2."""
    call = LibvirtMonitor._call

    def dies(before: bool) -> Callable[..., Any]:
        def called(monitor: LibvirtMonitor, doing: str, asked: Callable[[], Any], *seconds: float) -> Any:
            if doing == "go on in the overlay":
                if not before:
                    call(monitor, doing, asked, *seconds)
                running.daemon.stop(signal.SIGKILL)
            return call(monitor, doing, asked, *seconds)

        return called

    for number, before in enumerate((True, False)):
        guest(running.domain, f"write -P {number + 1} {number * 64}k 64k")
        monkeypatch.setattr(LibvirtMonitor, "_call", dies(before))
        with pytest.raises(ToolFailed):
            running.engine.create_snapshot("a", running.disk)
        monkeypatch.undo()
        running.daemon.start()
        assert len(running.layers()) == (1 if before else 3)
        running.take_over()
        running.engine.create_snapshot("a", running.disk)
        running.require_known(2 if before else 4)
    running.daemon.kill_machine("web")
    running.domain.createWithFlags(PAUSED)
    for number in range(2):
        guest(running.domain, f"read -P {number + 1} {number * 64}k 64k")


def test_what_is_wrong_with_a_domain_is_told_and_nothing_is_done(running: Running, monkeypatch):
    """One that is not there, not running, of other disks, at work for somebody else, or whose daemon is gone or stands
    still."""
    engine, uri = running.engine, running.daemon.uri
    guest(running.domain, "write -P 1 0 512k")
    snapshot = engine.create_snapshot("a", running.disk)

    def refused(error: type[DiskwrightError], words: str, domain: str = "web") -> None:
        with pytest.raises(error, match=words):
            engine.attach_monitor("a", running.disk, f"libvirt:{uri}/{domain}")
        if domain == "web":
            with pytest.raises(error, match=words):
                engine.create_snapshot("a", running.disk)
        assert {image.id for image in engine.inspect_repository("a").images} == {running.disk, snapshot}

    refused(ToolFailed, "not found", "nobody")
    with pytest.raises(BadRequest, match="no monitor"):
        engine.attach_monitor("a", running.disk, "libvirt:qemu+ssh://far/system/web")
    running.daemon.define("empty").createWithFlags(PAUSED)
    try:
        refused(Refused, "does not have", "empty")
    finally:
        running.daemon.domain("empty").destroy()
    refused(ToolFailed, "does not run", "empty")
    running.daemon.domain("empty").undefine()
    running.domain.blockPull("vda", 1, 1 << 6)
    with pytest.raises(Refused, match="job under way: stream 'pull-vda-"):
        engine.create_snapshot("a", running.disk)
    engine.remove_image("a", snapshot)
    with pytest.raises(Refused, match="job under way: stream 'pull-vda-"):
        engine.run_fix_here("a", next(fix for fix in engine.check_storage_repository("a") if fix.rule == M_CHAIN))
    running.domain.blockJobAbort("vda")
    engine.restore_image("a", snapshot)
    assert running.daemon.process is not None
    asked = [LibvirtMonitor(Libvirt(running.daemon.uri, "web"))]
    with pytest.raises(Refused, match="another monitor"):
        asked[0].switch([Move(asked[0].nodes()[0].name, "dw-begun-by-another-monitor", "")])
    monkeypatch.setattr(libvirt, "_CONNECT_S", 0.5)
    running.daemon.process.send_signal(signal.SIGSTOP)
    refused(ToolFailed, "within")
    leaving = threading.Thread(target=lambda: asked.pop().close(), daemon=True)
    leaving.start()
    leaving.join(PATIENCE_S)
    assert not leaving.is_alive(), "who leaves waits for a daemon that stands still"
    running.daemon.process.send_signal(signal.SIGCONT)
    monkeypatch.undo()
    running.daemon.stop()
    refused(ToolFailed, "did not answer")
    running.daemon.start()
    guest(running.domain, "read -P 1 0 64k")  # it has found it again
    running.domain.destroy()
    refused(ToolFailed, "does not run")
    for name in ("libvirt", "libvirtmod"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(libvirt, "_DEBIAN", "/nowhere")
    refused(ToolMissing, "not installed")
