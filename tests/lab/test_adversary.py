"""The adversary in a lab: short stories here, long ones by ``make adversary FORMAT=nfs`` (``lvm``)."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sim.lab import wire
from sim.lab.channel import Running
from sim.lab.cluster import Cluster
from sim.lab.errors import GuestDied
from tests.adversary import judging
from tests.adversary.doors.guests import OnLvm, OnNfs
from tests.adversary.outside import OUTSIDE
from tests.adversary.verbs import VERBS
from tests.adversary.world import Action, World

MIB = 1 << 20


class ThisLab:
    """The cluster of the tests, as the adversary wants a lab."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._begun: list[Running] = []
        self.server = cluster.nfs.guest.address if cluster.nfs else ""

    def begin(self, host: str, argv: list[str], hear: Callable[[bytes], None]) -> Running:
        """Start a program there."""

        def said(kind: int, data: bytes) -> None:
            if kind == wire.OUT and data:
                hear(data)

        running = self._cluster.lab.guest(host).begin(argv, feed=True, on_output=said)
        threading.Thread(target=self._wait, args=(running, hear)).start()
        self._begun.append(running)
        return running

    def _wait(self, running: Running, hear: Callable[[bytes], None]) -> None:
        with contextlib.suppress(GuestDied):
            running.wait()
        hear(b"")

    def do(self, what: str, host: str) -> None:
        """Kill it, boot it."""
        if what == "boot":
            self._cluster.boot(host)
        else:
            getattr(self._cluster.lab.guest(host), what)()

    def close(self) -> None:
        """End what was begun; the cluster stays."""
        for running in self._begun:
            if not running.ended:
                running.close_input()


@pytest.fixture
def lab(cluster: Cluster) -> Iterator[ThisLab]:
    found = ThisLab(cluster)
    yield found
    found.close()


COMMAND = str(shutil.which("diskwright", path=str(Path(sys.executable).parent)))


def played(world: World, *rounds: list[Action]) -> None:
    """Play rounds of a story, which shows nothing wrong; look at its end, for commands are slow here."""
    for actions in rounds:
        assert not world.play(actions), world.log
    assert not judging.look(world, world.hosts[0], {"main"}), world.log
    assert not world.noted


def act(verb: str, **what: object) -> Action:
    return {"do": verb, "repo": "main", "image": "disk", "host": 0, **what}


def a_lost_write_is_told(world: World) -> None:
    """What was acknowledged and is not there is found."""
    world.model.repositories["main"]["disk"].contents[0].write(99, 7, 1, certain=True, durable=True)
    world.model.repositories["main"]["disk"].checked = False
    found = judging.look(world, world.hosts[0], {"main"})
    assert [one.kind for one in found] == ["content"] and "not write 99" in found[0].says


def test_the_adversary_plays_on_nfs(lab: ThisLab, tmp_path: Path):
    """Two clients write one disk in turn; the host of a machine dies while the other one takes a snapshot. Nothing is
    wrong; and a write that is lost would be told."""
    site = OnNfs(lab, tmp_path, COMMAND)
    world = World(tmp_path / "world", site, {"main": "directory"}, VERBS | OUTSIDE)
    try:
        played(
            world,
            [act("create_disk", **{"as": "disk", "size": MIB, "wait": True})],
            [act("machine_start", host=1, **{"as": "machine"})],
            [act("machine_write", machine="machine", extents=[[3, 17]])],
            [act("host_dies", host=1, ms=0), act("snapshot", **{"as": "snapshot"})],
            [act("write", host=1, extents=[[0, 4]], flush=True)],
        )
        assert [one.code for one in world.log if one.argv[0] == "prepare"] == [0, 0]
        a_lost_write_is_told(world)
    finally:
        world.close()


def test_the_adversary_plays_on_lvm(lab: ThisLab, tmp_path: Path):
    """A machine outlives its holder, and its disk is not sealed. Nothing is wrong; a write that is lost is told."""
    site = OnLvm(lab, tmp_path, COMMAND)
    world = World(tmp_path / "world", site, {"main": "directory"}, VERBS | OUTSIDE)
    try:
        played(
            world,
            [act("create_disk", **{"as": "disk", "size": MIB, "wait": True})],
            [act("machine_start", **{"as": "machine"})],
            [act("machine_write", machine="machine", extents=[[3, 17]])],
            [act("holder_kill", machine="machine")],
            [act("snapshot", **{"as": "snapshot"})],
            [act("machine_write", machine="machine", extents=[[5, 1]])],
        )
        (refused,) = [one.code for one in world.log if one.argv[0] == "create-snapshot"]
        assert refused
        world.teardown_all()
        a_lost_write_is_told(world)
    finally:
        world.close()
