"""What a guest feels of a snapshot and a merge of its running disk, against the same asked of the machine by hand.

The guest writes 4 KiB at a time, each made durable; how long each took is told. By hand nothing is recorded,
verified or synced beside what the machine does itself.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median

import pytest

from engine.api import Engine
from engine.data.model import VolumeFormat
from engine.doors.images import Layer
from engine.triage.rules import M_CHAIN
from tests.bench.kit import ROUNDS, SCALE, MiB, Table, delete, engine_with, timed, write_disk, write_pieces
from tests.live.machine import Machine

pytestmark = pytest.mark.bench

_PIECE = 16 * MiB
_SIZE = max(4, round(64 * SCALE)) * _PIECE
_STARTS = list(range(0, _SIZE, _PIECE))
_SNAPSHOTS = 5
_ENTRY = struct.Struct("dd")
_QUIET_S = 1.0


class Guest:
    """A process that writes and notes when each write began, and how long it took."""

    def __init__(self, machine: Machine, notes: Path) -> None:
        self._notes = notes
        self._pid = os.fork()
        if not self._pid:
            with contextlib.suppress(BaseException):
                session = machine.session()
                with open(notes, "wb", buffering=0) as stream:
                    number = 0
                    while True:
                        start = time.monotonic()
                        session.write(number % 8 * 4096, os.urandom(4096))
                        session.flush()
                        stream.write(_ENTRY.pack(start, time.monotonic() - start))
                        number += 1
            os._exit(0)

    def took(self, start: float, end: float) -> list[float]:
        """Seconds of each write that was under way at a moment between the two."""
        raw = self._notes.read_bytes()
        whole = len(raw) // _ENTRY.size * _ENTRY.size
        return [took for begun, took in _ENTRY.iter_unpack(raw[:whole]) if begun < end and begun + took > start]

    def end(self) -> None:
        """It ends with its machine."""
        os.waitpid(self._pid, 0)


class _Ours:
    name = "ours"

    def __init__(self, room: Path, engine: Engine) -> None:
        self._engine = engine
        self._disk = engine.create_virtual_disk("a", _SIZE, options={"strategy": "space"})
        write_disk(engine, "a", self._disk, _STARTS, _PIECE)
        entry = engine.prepare_image("a", self._disk, monitor=f"qmp:{room / 'qmp'}")
        self.machine = Machine(room, entry.path, entry.format)
        self._made: list[str] = []

    def snapshot(self) -> None:
        self._made.append(self._engine.create_snapshot("a", self._disk))

    def merge(self) -> float:
        for one in self._made:
            self._engine.remove_image("a", one)
        (fix,) = (fix for fix in self._engine.check_storage_repository("a") if fix.rule == M_CHAIN)
        return timed(lambda: self._engine.run_fix_here("a", fix))

    def close(self) -> None:
        self._engine.teardown_image("a", self._disk)
        delete(self._engine, "a", self._disk)


class _ByHand:
    name = "by hand"

    def __init__(self, room: Path, engine: Engine) -> None:
        self._room, self._top, self._made = room, "disk", 0
        path = room / "disk.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), str(_SIZE)], check=True)
        write_pieces([Layer(str(path), VolumeFormat.QCOW2)], _STARTS, _PIECE)
        self.machine = Machine(room, str(path), "qcow2")

    def snapshot(self) -> None:
        self._made += 1
        name = f"over{self._made}"
        path = str(self._room / f"{name}.qcow2")
        below = ["-u", "-b", "x", "-F", "qcow2"]
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *below, path, str(_SIZE)], check=True)
        file = {"driver": "file", "filename": path}
        self.machine.ask("blockdev-add", driver="qcow2", node_name=name, file=file, backing=None)
        self.machine.ask("blockdev-snapshot", node=self._top, overlay=name)
        self._top = name

    def merge(self) -> float:
        def stream() -> None:
            self.machine.ask("block-stream", job_id="job", device=self._top, auto_dismiss=False)
            while self.machine.ask("query-jobs")[0]["status"] != "concluded":
                time.sleep(0.02)
            with open(self._room / f"{self._top}.qcow2", "rb") as file:
                os.fsync(file.fileno())  # as ours does: a power cut would lose it

        return timed(stream)

    def close(self) -> None:
        for path in self._room.glob("*.qcow2"):
            path.unlink()


@contextlib.contextmanager
def _running(room: Path, kind: type[_Ours] | type[_ByHand], engine: Engine) -> Iterator[tuple[_Ours | _ByHand, Guest]]:
    """A machine whose guest writes."""
    side = kind(room, engine)
    guest = Guest(side.machine, room / "notes")
    try:
        time.sleep(_QUIET_S)
        yield side, guest
    finally:
        side.machine.kill()
        guest.end()
        side.close()


def _longest(room: Path, kind: type[_Ours] | type[_ByHand], engine: Engine) -> list[float]:
    """The longest write beside each of some snapshots."""
    with _running(room, kind, engine) as (side, guest):
        found = []
        for _ in range(_SNAPSHOTS):
            start = time.monotonic()
            side.snapshot()
            end = time.monotonic()
            time.sleep(_QUIET_S / 2)
            found.append(max(guest.took(start, end)))
        return found


def test_stall_of_a_snapshot(room: Path, table: Table) -> None:
    """How long the guest waits for one write at most, and how long it does when nothing happens."""
    engine = engine_with(room, "a")
    ours, theirs, quiet = [], [], []
    for _ in range(ROUNDS):
        ours += _longest(room, _Ours, engine)
        theirs += _longest(room, _ByHand, engine)
        with _running(room, _ByHand, engine) as (_, guest):
            now = time.monotonic()
            quiet += guest.took(now - _QUIET_S / 2, now)
    table.compare("longest write of a guest beside a snapshot", ours, "`blockdev-snapshot` by hand", theirs, None)
    table.state("a write of it when nothing happens", _spread(quiet), "", "", "", None)


def test_merge(room: Path, table: Table) -> None:
    """A live merge of a layer full of data, and what the guest's writes take meanwhile."""
    engine = engine_with(room, "a")
    seconds: dict[type, list[float]] = {_Ours: [], _ByHand: []}
    writes: dict[type, list[float]] = {_Ours: [], _ByHand: []}
    for number in range(ROUNDS):
        for kind in (_Ours, _ByHand) if number % 2 else (_ByHand, _Ours):
            with _running(room, kind, engine) as (side, guest):
                side.snapshot()
                os.sync()
                start = time.monotonic()
                seconds[kind].append(side.merge())
                writes[kind].append(mean(guest.took(start, time.monotonic())))
    work = f"live merge of {_SIZE // MiB} MiB"
    table.compare(work, seconds[_Ours], "`block-stream` by hand", seconds[_ByHand], 1.1)
    table.compare("a write of the guest meanwhile", writes[_Ours], "the same", writes[_ByHand], 1.1)


def _spread(values: list[float]) -> str:
    values = sorted(values)
    return f"{median(values) * 1000:.1f} ms, of a hundred the longest {values[len(values) * 99 // 100] * 1000:.0f} ms"
