"""Repositories with real images, an oracle for their content, and recovery by another host."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from engine.api import Engine
from engine.assembly import real_doors
from engine.data.model import Fix, RepositoryReport, Risk, Status
from engine.doors.leases import Leases
from engine.tools.local.leases import OfdLeases
from sim.hosts.crash import Effects, crashing

MiB = 1 << 20
SIZE = 3 * MiB
MAX_FIXES = 40


class World:
    """Repositories below one directory that can be copied whole, and engines of several hosts on them."""

    def __init__(self, root: Path, *repositories: str) -> None:
        self.root = root
        self.names = repositories or ("a",)
        self.effects = Effects()
        self._leases: Leases | None = None

    def create(self) -> World:
        self.root.mkdir()
        engine = self.engine("setup")
        for name in self.names:
            engine.create_repository("localfs-1.0", {"path": str(self.root / name)})
        engine.close()
        return self

    def copy(self, root: Path) -> World:
        subprocess.run(["cp", "-a", "--sparse=always", str(self.root), str(root)], check=True)
        for state in root.glob("state-*"):
            shutil.rmtree(state)
        return World(root, *self.names)

    def engine(self, host: str, crash_at: int | None = None) -> Engine:
        """An engine with everything connected; with ``crash_at`` its effects count from here."""
        doors = real_doors(host)
        state = str(self.root / f"state-{host}")
        engine = Engine(doors, state)
        if not engine.list_repositories():
            for name in self.names:
                if (self.root / name).exists():
                    engine.connect_storage_repository(name, "localfs-1.0", {"path": str(self.root / name)})
        if crash_at is None:
            return engine
        self.effects = Effects(crash_at)
        self._leases = doors.leases
        return Engine(crashing(doors, self.effects), state)

    def bury(self) -> None:
        """Do what the kernel does for a dead process: let its leases go."""
        assert isinstance(self._leases, OfdLeases)
        while self._leases.descriptors:
            os.close(self._leases.descriptors.pop())


def write(engine: Engine, repo: str, disk: str, *commands: str) -> None:
    """Write into a disk as its machine would: prepared, through qemu-io."""
    prepared = engine.prepare_image(repo, disk)
    try:
        arguments = [part for command in commands for part in ("-c", command)]
        subprocess.run(
            ["qemu-io", "-f", prepared.format, *arguments, prepared.path], check=True, stdout=subprocess.DEVNULL
        )
    finally:
        engine.teardown_image(repo, disk)


@contextlib.contextmanager
def as_it_rots(path: str | Path) -> Iterator[None]:
    """What the body does to a file is done without a write that its file system knows of."""
    before = os.stat(path)
    yield
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@contextlib.contextmanager
def as_a_stranger(path: str | Path) -> Iterator[None]:
    """What the body does to a file is a write that its time tells of, however coarse the times of its file system."""
    before = os.stat(path)
    yield
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 10 * 10**9))


def content(engine: Engine, repo: str, image: str, scratch: Path) -> bytes:
    """What a reader of the image sees."""
    target = scratch / f"{repo}-{image}.out"
    engine.export_image(repo, image, str(target), "raw")
    data = target.read_bytes()
    target.unlink()
    return data


def contents(engine: Engine, repo: str, scratch: Path) -> dict[str, bytes]:
    """Content of every image that is visible and usable."""
    return {
        image.id: content(engine, repo, image.id, scratch)
        for image in engine.list_images(repo)
        if not image.removed and image.status in (Status.OPTIMIZED, Status.DEGRADED)
    }


def settle(engine: Engine, repo: str) -> tuple[RepositoryReport, list[str]]:
    """Run every fix that can run and loses nothing, until none is left."""
    ran: list[str] = []
    for _ in range(MAX_FIXES):
        report = engine.inspect_repository(repo)
        todo: list[Fix] = [fix for fix in report.fixes if not fix.waits_for and fix.risk is not Risk.LOSES_DATA]
        if not todo:
            return report, ran
        engine.run_fix_here(repo, todo[0])
        ran.append(todo[0].rule)
    raise AssertionError(f"no end of fixes: {ran}")


def nothing_left_over(world: World, engine: Engine, repo: str) -> None:
    """Every file in the repository is an image's or a tombstone, and every image is in order."""
    report = engine.inspect_repository(repo)
    assert not report.fixes, [f"{fix.rule} {fix.why} {fix.waits_for}" for fix in report.fixes]
    root = world.root / repo
    named = {
        f"{volume.id}.{volume.format}"
        for entry in engine.context.repository(repo).tags.scan().values()
        if entry.record
        for volume in entry.record.volumes()
    }
    volumes = {path.name for path in (root / "volumes").glob("*/*")}
    assert volumes == named
    for folder in ("tmp", "progress", "lost"):
        assert not list((root / folder).iterdir()), folder
    assert {path.name for path in (root / "digests").iterdir()} <= {name.partition(".")[0] for name in named}
    for image in report.images:
        if not image.removed and not image.hidden:
            assert image.status in (Status.OPTIMIZED, Status.DEGRADED), image
