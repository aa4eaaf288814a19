"""Simulated leases against locks of the kernel."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.tools.local.leases import OfdLease, OfdLeases
from sim.disk.files import SimFiles
from sim.disk.storage import SimStorage
from sim.hosts.doors.leases import SimLease, SimLeases
from sim.hosts.lock_table import LockTable

PROCESSES = st.integers(0, 3)
KEYS = st.sampled_from([0, 1, (1 << 60) - 1])
FILES = st.sampled_from(["one", "two", "other name of one", "none"])
OPS = st.lists(
    st.one_of(
        st.tuples(st.just("acquire"), PROCESSES, FILES, KEYS, st.booleans()),
        st.tuples(st.just("held"), PROCESSES, FILES, KEYS),
        st.tuples(st.just("release"), PROCESSES, st.integers(0, 5)),
        st.tuples(st.just("spawn"), PROCESSES, PROCESSES),
        st.tuples(st.just("die"), PROCESSES),
        st.tuples(st.just("replace"), st.just("one")),
    ),
    max_size=20,
)


class Kernel:
    """Real locks. A child that inherits a descriptor is a second descriptor of the same open file description."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("one", "two"):
            (root / name).touch()
        os.link(root / "one", root / "other name of one")
        self.door = OfdLeases()
        self.leases: dict[int, list[OfdLease]] = {number: [] for number in range(4)}

    def acquire(self, process: int, file: str, key: int, shared: bool) -> Any:
        lease = self.door.try_acquire(str(self.root / file), key, shared)
        if lease is not None:
            self.leases[process].append(lease)
        return lease is not None

    def held(self, process: int, file: str, key: int) -> Any:
        return self.door.held(str(self.root / file), key)

    def release(self, process: int, index: int) -> Any:
        if index < len(self.leases[process]):
            self.leases[process].pop(index).release()

    def spawn(self, process: int, child: int) -> Any:
        if process == child:
            return
        for lease in self.leases[process]:
            self.leases[child].append(self.door.adopt(str(os.dup(lease.descriptor))))

    def die(self, process: int) -> Any:
        while self.leases[process]:
            self.leases[process].pop().release()

    def replace(self, file: str) -> Any:
        os.unlink(self.root / file)
        (self.root / file).touch()


class Model:
    """Simulated ones."""

    def __init__(self) -> None:
        self.files = SimFiles(SimStorage())
        for name in ("one", "two"):
            self.files.create(f"/{name}").close()
        self.files.link("/one", "/other name of one")
        self.table = LockTable()
        self.doors = [SimLeases(self.table, self.files, number) for number in range(4)]
        self.leases: dict[int, list[Any]] = {number: [] for number in range(4)}

    def acquire(self, process: int, file: str, key: int, shared: bool) -> Any:
        lease = self.doors[process].try_acquire(f"/{file}", key, shared)
        if lease is not None:
            self.leases[process].append(lease)
        return lease is not None

    def held(self, process: int, file: str, key: int) -> Any:
        return self.doors[process].held(f"/{file}", key)

    def release(self, process: int, index: int) -> Any:
        if index < len(self.leases[process]):
            self.leases[process].pop(index).release()

    def spawn(self, process: int, child: int) -> Any:
        if process == child:
            return
        for lease in self.leases[process]:
            if all(own.lock is not lease.lock for own in self.leases[child]):
                self.table.share(lease.lock, child)
                self.leases[child].append(self.doors[child].adopt(lease.token))

    def die(self, process: int) -> Any:
        self.table.bury(process)
        self.leases[process].clear()

    def replace(self, file: str) -> Any:
        self.files.unlink(f"/{file}")
        self.files.create(f"/{file}").close()


def outcome(leg: Any, op: tuple) -> Any:
    try:
        return getattr(leg, op[0])(*op[1:])
    except OSError as error:
        return error.errno


_numbers = count()


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OPS)
def test_leases_behave_as_locks_of_the_kernel(tmp_path: Path, ops):
    """Taking, asking, releasing, inheriting and dying have the same results; locks belong to inodes, not to names."""
    root = tmp_path / str(next(_numbers))
    root.mkdir()
    real, simulated = Kernel(root), Model()
    inherited = False
    try:
        for op in ops:
            if op[0] == "release" and inherited:
                continue  # positions may differ once a process was given a lease twice
            inherited |= op[0] == "spawn"
            assert outcome(simulated, op) == outcome(real, op), op
    finally:
        for process in range(4):
            real.die(process)


def test_a_lease_is_free_when_its_last_owner_is_gone():
    """A spawned process keeps it when its parent dies, and a release in one process is none in the other."""
    files = SimFiles(SimStorage())
    files.create("/locks").close()
    table = LockTable()
    parent, child, other = (SimLeases(table, files, name) for name in ("parent", "child", "other"))
    lease = parent.try_acquire("/locks", 7, False)
    assert isinstance(lease, SimLease)
    table.share(lease.lock, "child")
    table.bury("parent")
    lease.release()
    assert other.held("/locks", 7) and other.try_acquire("/locks", 7, True) is None
    adopted = child.adopt(lease.token)
    adopted.release()
    adopted.release()
    assert not other.held("/locks", 7)
    assert other.try_acquire("/locks", 7, False) is not None


def test_only_who_was_given_a_lease_can_adopt_it():
    """A token means nothing in a process that did not inherit it."""
    files = SimFiles(SimStorage())
    files.create("/locks").close()
    table = LockTable()
    lease = SimLeases(table, files, "parent").try_acquire("/locks", 7, False)
    assert lease is not None
    with pytest.raises(OSError, match="Bad file descriptor"):
        SimLeases(table, files, "stranger").adopt(lease.token)
