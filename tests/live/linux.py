"""A real Linux guest for tests: Debian's kernel, busybox, a virtio disk, emulated by qemu-system-x86_64.

It writes numbered blocks, each with fsync, and says on its console which are done and how long its disk is. Booted
again it goes on behind the last one that it finds. The parts are unpacked by the set-up into ``.venv/guest``; nothing
of them is installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from tests.live.domain import Daemon

BLOCK = 4096
BLOCKS = 16
PARTS = Path(sys.prefix) / "guest"
"""Where the set-up puts a kernel, its modules, and a busybox that needs no libraries."""

_MODULES = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk")
"""In the order in which they need each other."""
_KERNEL = PARTS / "vmlinuz"
_WORDS = "console=ttyS0 quiet panic=-1"
_MEMORY_MIB = 128
_PATIENCE_S = 300.0
_INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t sysfs sys /sys
mount -t proc proc /proc
for module in {" ".join(_MODULES)}; do insmod /$module.ko; done
number=1
for at in $(seq 0 {BLOCKS - 1}); do
    found=$(echo $(dd if=/dev/vda bs={BLOCK} skip=$at count=1 2>/dev/null | head -c 15))
    [ "${{found:-0}}" -lt $number ] || number=$((found + 1))
done
while :; do
    yes "$(printf %15d $number)" | head -c {BLOCK} > /block
    dd if=/block of=/dev/vda bs={BLOCK} seek=$((number % {BLOCKS})) conv=notrunc,fsync 2>/dev/null || break
    read sectors < /sys/block/vda/size
    echo "ACK $number $sectors"
    number=$((number + 1))
done
echo FAILED
sleep 1000
"""


Entry = tuple[str, int, bytes]
"""Of an archive: a path, its mode, what is there."""


class LinuxGuest(ABC):
    """A machine with one disk, whose guest writes from the moment it is up."""

    init = _INIT
    modules: Sequence[str] = _MODULES

    def __init__(self, folder: Path) -> None:
        """Make what it boots, and boot it."""
        self._console, self._initramfs = folder / "console", folder / "initramfs"
        self._initramfs.write_bytes(_initramfs(self.init, self.modules, self.besides()))
        self.acknowledged = self._before = 0
        """The number of the last write that was flushed; and of that before its machine was started."""
        self.sectors = 0
        """How long the guest found its disk then."""
        self.boot()

    def boot(self) -> None:
        """Start its machine, which does not run."""
        self._before = self.acknowledged
        self._console.unlink(missing_ok=True)
        self.start_machine()

    def besides(self) -> list[Entry]:
        """What it boots besides."""
        return []

    @abstractmethod
    def start_machine(self) -> None:
        """Start it; the guest boots."""

    @abstractmethod
    def require_running(self) -> None:
        """Return if its machine has not ended."""

    @abstractmethod
    def end_machine(self) -> None:
        """As by the kernel: nothing is written back."""

    def look(self) -> None:
        """Read what its console shows by now."""
        lines = self._console.read_text("ascii", "replace").split("\n")[:-1] if self._console.exists() else []
        assert not any(line.startswith("FAILED") for line in lines), "a write of the guest failed"
        for words in (line.split() for line in lines):
            if len(words) == 3 and words[0] == "ACK":
                self.acknowledged, self.sectors = int(words[1]), int(words[2])
                assert self.acknowledged > self._before, "what was acknowledged before it was booted is missing"

    def wait_for(self, number: int, sectors: int = 0) -> None:
        """Until a write is acknowledged, on a disk of that length if one is given."""
        deadline = time.monotonic() + _PATIENCE_S
        while self.acknowledged < number or (sectors and self.sectors != sectors):
            self.require_running()
            assert time.monotonic() < deadline, f"write {number} is not acknowledged"
            time.sleep(0.02)
            self.look()

    def go_on(self, writes: int = 3) -> None:
        """Until so many more writes are acknowledged."""
        self.look()
        self.wait_for(self.acknowledged + writes)

    def kill(self) -> None:
        """Kill its machine."""
        self.end_machine()
        self.look()


class OfQemu(LinuxGuest):
    """One that was started by nobody but us, with a monitor."""

    devices: tuple[str, ...] = ()
    """What it has besides."""

    def __init__(self, folder: Path, path: str, format: str) -> None:
        disk = {"driver": format, "node-name": "disk", "file": {"driver": "file", "filename": path}}
        self._words = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-accel", "tcg", "-m", str(_MEMORY_MIB),
            "-display", "none", "-kernel", str(_KERNEL), "-initrd", str(folder / "initramfs"), "-append", _WORDS,
            "-no-reboot", "-chardev", f"file,id=console,path={folder / 'console'}", "-serial", "chardev:console",
            "-qmp", f"unix:{folder / 'guest.qmp'},server=on,wait=off",
            "-blockdev", json.dumps(disk), "-device", "virtio-blk-pci,drive=disk",
            *(word.format(folder=folder) for word in self.devices),
        ]  # fmt: skip
        super().__init__(folder)

    def start_machine(self) -> None:
        self._process = subprocess.Popen(self._words, stdin=subprocess.DEVNULL)

    def require_running(self) -> None:
        assert self._process.poll() is None, "the machine has ended"

    def end_machine(self) -> None:
        self._process.kill()
        self._process.wait()


class OfLibvirt(LinuxGuest):
    """A domain, defined as its disk's element says."""

    elements = ""
    """What it has besides."""

    def __init__(self, folder: Path, daemon: Daemon, name: str, disk: str) -> None:
        self._daemon, self._name = daemon, name
        boot = f"<kernel>{_KERNEL}</kernel><initrd>{folder / 'initramfs'}</initrd><cmdline>{_WORDS}</cmdline>"
        console = f"<serial type='file'><source path='{folder / 'console'}'/></serial>{self.elements}"
        daemon.define(name, disk, console, boot=boot, memory=_MEMORY_MIB)
        super().__init__(folder)

    def start_machine(self) -> None:
        self._daemon.domain(self._name).create()

    def require_running(self) -> None:
        assert self._daemon.domain(self._name).isActive(), "the machine has ended"

    def end_machine(self) -> None:
        self._daemon.kill_machine(self._name)


def shows(data: bytes) -> int:
    """Return the number of the last write that the blocks show; AssertionError if they show no state of a moment."""
    found = [_number(data[start : start + BLOCK]) for start in range(0, BLOCKS * BLOCK, BLOCK)]
    last = max(found)
    wanted = [max((n for n in range(max(1, last - BLOCKS + 1), last + 1) if n % BLOCKS == i), default=0)
              for i in range(BLOCKS)]  # fmt: skip
    assert found == wanted, f"no state of a moment: {found}"
    return last


def _number(block: bytes) -> int:
    if not block.strip(b"\0"):
        return 0
    number = int(block[:15])
    assert block == b"%15d\n" % number * (BLOCK // 16), f"write {number} is torn"
    return number


def _initramfs(init: str, modules: Sequence[str], besides: list[Entry]) -> bytes:
    """An archive in the format of cpio that the kernel takes ("newc")."""
    entries = [(name, 0o40755, b"") for name in ("bin", "dev", "sys", "proc")]
    entries += [("init", 0o100755, init.encode()), ("bin/busybox", 0o100755, (PARTS / "busybox").read_bytes())]
    entries += [(f"{name}.ko", 0o100644, (PARTS / f"{name}.ko").read_bytes()) for name in modules]
    entries += besides
    return b"".join(_entry(*entry) for entry in [*entries, ("TRAILER!!!", 0, b"")])


def _entry(name: str, mode: int, data: bytes) -> bytes:
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return b"".join(part + bytes(-len(part) % 4) for part in (head, data))
