"""A real Linux guest for tests: Debian's kernel, busybox, a virtio disk, emulated by qemu-system-x86_64.

It writes numbered blocks, each with fsync, and says on its console which are done and how long its disk is. The parts
are unpacked by the set-up into ``.venv/guest``; nothing of them is installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

BLOCK = 4096
BLOCKS = 16
PARTS = Path(sys.prefix) / "guest"
"""Where the set-up puts a kernel, its modules, and a busybox that needs no libraries."""

_MODULES = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk")
"""In the order in which they need each other."""
_PATIENCE_S = 300.0
_INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t sysfs sys /sys
mount -t proc proc /proc
for module in {" ".join(_MODULES)}; do insmod /$module.ko; done
read first < /first
number=$first
while :; do
    yes "$(printf %015d $number)" | head -c {BLOCK} > /block
    dd if=/block of=/dev/vda bs={BLOCK} seek=$((number % {BLOCKS})) conv=notrunc,fsync 2>/dev/null || break
    read sectors < /sys/block/vda/size
    echo "ACK $number $sectors"
    number=$((number + 1))
done
echo FAILED
sleep 1000
"""


class LinuxGuest:
    """A machine with one disk, whose guest writes from the moment it is up."""

    def __init__(self, folder: Path, path: str, format: str, first: int = 1) -> None:
        """Boot it; the guest's first write has the number ``first``."""
        self._qmp, self._console = folder / "guest.qmp", folder / f"console.{first}"
        self._qmp.unlink(missing_ok=True)
        initramfs = folder / "initramfs"
        initramfs.write_bytes(_initramfs(first))
        disk = {"driver": format, "node-name": "disk", "file": {"driver": "file", "filename": path}}
        words = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-accel", "tcg", "-m", "128", "-display", "none",
            "-kernel", str(PARTS / "vmlinuz"), "-initrd", str(initramfs), "-append", "console=ttyS0 quiet panic=-1",
            "-no-reboot", "-chardev", f"file,id=console,path={self._console}", "-serial", "chardev:console",
            "-qmp", f"unix:{self._qmp},server=on,wait=off",
            "-blockdev", json.dumps(disk), "-device", "virtio-blk-pci,drive=disk",
        ]  # fmt: skip
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
        self.acknowledged = first - 1
        """The number of the last write that was flushed."""
        self.sectors = 0
        """How long the guest found its disk then."""

    @property
    def monitor(self) -> str:
        return f"qmp:{self._qmp}"

    def look(self) -> None:
        """Read what its console shows by now."""
        lines = self._console.read_text("ascii", "replace").split("\n")[:-1] if self._console.exists() else []
        assert not any(line.startswith("FAILED") for line in lines), "a write of the guest failed"
        for words in (line.split() for line in lines):
            if len(words) == 3 and words[0] == "ACK":
                self.acknowledged, self.sectors = int(words[1]), int(words[2])

    def wait_for(self, number: int, sectors: int = 0) -> None:
        """Until a write is acknowledged, on a disk of that length if one is given."""
        deadline = time.monotonic() + _PATIENCE_S
        while self.acknowledged < number or (sectors and self.sectors != sectors):
            assert self.process.poll() is None, "the machine has ended"
            assert time.monotonic() < deadline, f"write {number} is not acknowledged"
            time.sleep(0.02)
            self.look()

    def go_on(self, writes: int = 3) -> None:
        """Until so many more writes are acknowledged."""
        self.look()
        self.wait_for(self.acknowledged + writes)

    def kill(self) -> None:
        """As by the kernel: nothing is written back."""
        self.process.kill()
        self.process.wait()
        self.look()


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
    assert block == b"%015d\n" % number * (BLOCK // 16), f"write {number} is torn"
    return number


def _initramfs(first: int) -> bytes:
    """An archive in the format of cpio that the kernel takes ("newc")."""
    entries = [(name, 0o40755, b"") for name in ("bin", "dev", "sys", "proc")]
    entries += [("init", 0o100755, _INIT.encode()), ("first", 0o100644, b"%d\n" % first)]
    entries += [("bin/busybox", 0o100755, (PARTS / "busybox").read_bytes())]
    entries += [(f"{name}.ko", 0o100644, (PARTS / f"{name}.ko").read_bytes()) for name in _MODULES]
    return b"".join(_entry(*entry) for entry in [*entries, ("TRAILER!!!", 0, b"")])


def _entry(name: str, mode: int, data: bytes) -> bytes:
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return b"".join(part + bytes(-len(part) % 4) for part in (head, data))
