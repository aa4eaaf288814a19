"""A libvirt for tests: a daemon of its own, which sees nothing of the machine's libvirt, and domains that boot nothing.

It runs in a mount namespace in which the directories that it cannot be told otherwise are those of the test.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from engine.errors import ToolMissing
from engine.tools.hypervisor import libvirt
from tests.doors.children import wait_ended

LIVE = PAUSED = 1
"""Flags of libvirt's. A domain that is started paused runs no guest, and its disks work."""
PROGRAMS = ("libvirtd", "qemu-system-x86_64", "unshare", "nsenter")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
PATIENCE_S = 60.0
_PLACES = {"etc": "/etc/libvirt", "lib": "/var/lib/libvirt", "run": "/run/libvirt", "cache": "/var/cache/libvirt",
           "log": "/var/log/libvirt"}  # fmt: skip
_DAEMON = """
unix_sock_dir = "{folder}/sock"
auth_unix_rw = "none"
auth_unix_ro = "none"
"""
_QEMU = """
security_driver = "none"
stdio_handler = "file"
cgroup_controllers = [ ]
namespaces = []
remember_owner = 0
user = "root"
group = "root"
"""
_DOMAIN = """
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>{memory}</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type>{boot}</os>
  <features><acpi/></features>
  <devices>
    <emulator>{emulator}</emulator>
    {devices}
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
"""


def binding() -> ModuleType:
    return libvirt.binding()[0]


def missing() -> list[str]:
    """Return what is not here."""
    found = [program for program in PROGRAMS if shutil.which(program, path=_PATH) is None]
    try:
        binding()
    except ToolMissing as error:
        found.append(str(error))
    return found


class Daemon:
    """One libvirtd, whose domains outlive it as long as the test runs."""

    def __init__(self, memory: bool = False) -> None:
        """``memory``: it has a /run of its own, which a boot would clear, so that disks have paths that stay."""
        self.folder = Path(tempfile.mkdtemp(prefix="dw-libvirt-", dir="/tmp"))  # a socket's path is short
        for name in (*_PLACES, "sock", "etc/hooks"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "etc/libvirtd.conf").write_text(_DAEMON.format(folder=self.folder))
        (self.folder / "etc/qemu.conf").write_text(_QEMU)
        self.process: subprocess.Popen[bytes] | None = None
        self.connection: Any = None
        binds = [f"mkdir -p {there} && mount --bind {self.folder}/{name} {there}" for name, there in _PLACES.items()]
        script = " && ".join([*(["mount -t tmpfs none /run"] if memory else []), *binds, "echo ready && exec cat"])
        namespaces = ["--mount"] if os.getuid() == 0 else ["--mount", "--map-root-user"]
        self._keeper = subprocess.Popen(
            ["unshare", *namespaces, "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            assert self._keeper.stdout is not None
            assert self._keeper.stdout.readline() == b"ready\n", "there is no mount namespace"
            self.start()
        except BaseException:
            self.end()
            raise

    def inside(self, *words: str) -> list[str]:
        """A command that sees what the daemon sees."""
        user = [] if os.getuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "-t", str(self._keeper.pid), "--mount", *user, *words]

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.folder}/sock/libvirt-sock"

    def start(self) -> None:
        """Start it, and wait until it answers. It may be about to find its domains again: what is asked of one waits
        for that, its end does not."""
        words = self.inside("libvirtd", "-f", "/etc/libvirt/libvirtd.conf", "-p", "/run/libvirt/test.pid")
        with (self.folder / "log/daemon").open("ab") as log:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "PATH": _PATH}
            )
        deadline = time.monotonic() + PATIENCE_S
        binding().registerErrorHandler(lambda context, error: None, None)
        while self.connection is None:
            try:
                self.connection = binding().open(self.uri)
            except binding().libvirtError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    said = (self.folder / "log/daemon").read_text(errors="replace")
                    raise AssertionError(f"libvirtd does not start: {said}") from error
                time.sleep(0.02)

    def stop(self, by: int = signal.SIGTERM) -> None:
        """End it; its domains go on."""
        if self.connection is not None:
            with contextlib.suppress(binding().libvirtError):
                self.connection.close()
            self.connection = None
        if self.process is not None:
            self.process.send_signal(by)
            self.process.wait()
            self.process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def define(self, name: str, *devices: str, boot: str = "", memory: int = 16) -> Any:
        """Define a domain, with so many MiB; ``boot``: the elements of what it boots."""
        words = {"emulator": shutil.which("qemu-system-x86_64", path=_PATH), "devices": "\n".join(devices)}
        return self.connection.defineXML(_DOMAIN.format(name=name, boot=boot, memory=memory, **words))

    def domain(self, name: str) -> Any:
        """The domain as the daemon that runs now knows it."""
        return self.connection.lookupByName(name)

    def pid(self, name: str) -> int:
        """Of the qemu of a domain."""
        return int((self.folder / "run/qemu" / f"{name}.pid").read_text())

    def kill_machine(self, name: str) -> None:
        """As by the kernel; return when libvirt knows, if it is there."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        wait_ended(pid)
        deadline = time.monotonic() + PATIENCE_S
        while self.connection is not None and self.domain(name).isActive():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def end_domains(self) -> None:
        """End all, and forget them."""
        for domain in self.connection.listAllDomains():
            with contextlib.suppress(binding().libvirtError):
                domain.destroy()
            domain.undefine()

    def end(self) -> None:
        """End all, and leave nothing; also what libvirt is about to start."""
        if self.process is not None and self.connection is not None:
            self.process.send_signal(signal.SIGCONT)
            with contextlib.suppress(binding().libvirtError):
                self.end_domains()
        self.stop(signal.SIGKILL)
        for note in (self.folder / "run/qemu").glob("*.pid"):
            with contextlib.suppress(ValueError, ProcessLookupError):
                pid = int(note.read_text())
                os.kill(pid, signal.SIGKILL)
                wait_ended(pid)
        self._keeper.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)


def guest(domain: Any, command: str, disk: str = "virtio-disk0") -> str:
    """Have the domain's disk do a command of qemu-io, as its guest would."""
    qemu = sys.modules["libvirt_qemu"]
    where = f"/machine/peripheral/{disk}/virtio-backend"
    said: str = qemu.qemuMonitorCommand(domain, f'qemu-io -d {where} "{command}"', 1)
    assert "failed" not in said, said
    assert "rror" not in said, said
    return said
