"""Rounds of snapshots of two disks of a real qemu-storage-daemon; somebody is killed at a random moment.

``python -m tests.live.groups --rounds 1000 --seed 7``. In each round a guest writes numbered blocks to both disks, each
number to the first one and then to the second, each durable before the next; a group is made of both meanwhile. Who
dies, and what comes then, is as in ``rounds``. It is judged

* that each disk shows the state after its last acknowledged write, or after the one that was under way,
* that both snapshots of a group can be seen, or none, and that they are of one moment: the second one shows the last
  number of the first one, or the one before,
* that all this stays so when every fix that is offered has run.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from engine.api import Engine
from engine.errors import DiskwrightError
from engine.host.state import Prepared
from tests.live.machine import BLOCK, Guest, Machine, content, state_after
from tests.live.rounds import BLOCKS, BOTH, MACHINE, NOBODY, VERB, Rounds, main, patiently

_REQUEST = struct.Struct(">IHHQQI")
_TOLD = struct.Struct(">QQ")


class TwoDisks(Machine):
    """One with a second disk, "second"."""

    def __init__(self, folder: Path, first: Prepared, second: Prepared) -> None:
        driver = "host_device" if Path(second.path).is_block_device() else "file"
        file = {"driver": driver, "filename": second.path}
        node = {"driver": second.format, "node-name": "second", "file": file}
        export = {"type": "nbd", "id": "other", "node-name": "second", "name": "second", "writable": True}
        super().__init__(folder, first.path, first.format, more=[
            "--blockdev", json.dumps(node), "--export", json.dumps(export),
        ])  # fmt: skip


class _Disk:
    """One disk as a guest has it: the least of NBD."""

    def __init__(self, path: Path, export: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._receive(18)
        self._socket.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, len(export)) + export.encode())
        self._receive(10)

    def _receive(self, length: int) -> bytes:
        found = self._socket.recv(length, socket.MSG_WAITALL)
        if len(found) < length:
            raise OSError("the machine has gone")
        return found

    def write(self, start: int, data: bytes) -> None:
        """Durable on return."""
        self._socket.sendall(_REQUEST.pack(0x25609513, 1, 1, 7, start, len(data)) + data)
        if self._receive(16)[4:8] != bytes(4):
            raise OSError("the machine cannot write")


class GuestOfBoth(Guest):
    """Writes each number to the first disk, then to the second; what it tells counts half numbers."""

    @staticmethod
    def _write(machine: Machine, blocks: int, number: int, start: int, writer: int) -> None:
        with suppress(BaseException):
            disks = [_Disk(machine.nbd, name) for name in ("", "second")]
            while True:
                which, at = (number - 1) % 2, (number + 1) // 2
                os.write(writer, _TOLD.pack(number, 0))
                disks[which].write(start + at % blocks * BLOCK, content(at))
                os.write(writer, _TOLD.pack(number, 1))
                number += 1
        os._exit(0)

    def numbers(self, which: int, told: int) -> int:
        """The number of the last write to a disk after ``told``."""
        return (told + 1 - which) // 2


class Groups(Rounds):
    """Rounds of groups in one directory."""

    @property
    def _sizes(self) -> tuple[int, int]:
        """By which it is known of which disk a snapshot is."""
        return self._place.size, 2 * self._place.size

    def play(self) -> list[str]:
        """Play one round and say what went wrong."""
        engine = self._world.engine("host-a")
        strategies = [self._random.choice(["space", "performance"]) for _ in range(2)]
        disks = [
            engine.create_virtual_disk("a", size, options={"strategy": one})
            for size, one in zip(self._sizes, strategies, strict=True)
        ]
        dies = self._random.choice([NOBODY, VERB, VERB, MACHINE, BOTH])
        try:
            problems = self._round(engine, disks, dies)
        finally:
            for disk in disks:
                with suppress(DiskwrightError):
                    engine.teardown_image("a", disk)
            engine.close()
        return [f"{dies}, {strategies}: {problem}" for problem in problems]

    def _round(self, engine: Engine, disks: list[str], dies: str) -> list[str]:
        monitor = f"qmp:{self._folder / 'qmp'}"
        entries = [engine.prepare_image("a", disk, monitor=monitor) for disk in disks]
        machine = TwoDisks(self._folder, *entries)
        guest = GuestOfBoth(machine, BLOCKS, 1)
        guest.wait_for(2 * BLOCKS)
        verb: Callable[[Engine], object] = lambda engine: engine.create_snapshot_group("a", disks)  # noqa: E731
        done = self._acknowledged(verb, machine, dies)
        self.counted[f"{dies}: {'acknowledged' if done else 'not acknowledged'}"] += 1
        guest.wait_for(guest.acknowledged + 4)
        groups = 1
        if dies == VERB and self._random.random() < 0.5:  # the same verb again, beside a machine without holders
            patiently(lambda: verb(engine))
            self.counted["went on"] += 1
            groups = 2
            guest.wait_for(guest.acknowledged + 4)
        machine.kill()
        guest.end()
        for entry in engine.list_prepared():
            engine.teardown_image("a", entry.image)
        seen, problems = self._judged(engine, disks, guest)
        least = [2] if done and groups == 1 else [2 * (groups - 1), 2 * groups]
        if len(seen) not in least:
            problems.append(f"{len(seen)} snapshots are seen, and not {least}")
        self._fix_all(engine)
        again, more = self._judged(engine, disks, guest)
        problems += more
        if again != seen:
            problems.append("a snapshot shows something else than before the fixes, or is gone")
        if left := [image.id for image in engine.inspect_repository("a").images if image.hidden]:
            problems.append(f"hidden data stays: {left}")
        for image in [*disks, *seen]:
            engine.remove_image("a", image)
        self._fix_all(engine)
        return problems

    def _judged(self, engine: Engine, disks: list[str], guest: GuestOfBoth) -> tuple[dict[str, list[int]], list[str]]:
        """The snapshots, and what is wrong."""
        problems = []
        for which, disk in enumerate(disks):
            shown = self._shown(engine, disk)
            told = range(guest.acknowledged, guest.issued + 1)
            if shown not in [state_after(guest.numbers(which, one), BLOCKS) for one in told]:
                problems.append(f"disk {which} shows {shown}; {guest.acknowledged} half writes were acknowledged")
        seen = self._snapshots(engine)
        moments: dict[int, list[int]] = {size: [] for size in self._sizes}
        for image, shown in seen.items():
            moments[engine.get_image_status("a", image).size_bytes].append(max(shown))
            if shown != state_after(max(shown), BLOCKS):
                problems.append(f"snapshot {image} shows {shown}")
        if not of_one_moment(*moments.values()):
            problems.append(f"the snapshots are of several moments: {moments}")
        return seen, problems


def of_one_moment(first: Sequence[int], second: Sequence[int]) -> bool:
    """Whether the last numbers of the snapshots of each disk can be those of groups of both, one after the other."""
    return len(first) == len(second) and all(
        one - other in (0, 1) for one, other in zip(sorted(first), sorted(second), strict=True)
    )


if __name__ == "__main__":
    sys.exit(main([Groups]))
