"""What the tests of repository formats share: storages to test, and a file door that tells and fails."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

from engine.data.model import OperationStatus, Strategy, VolumeFormat
from engine.data.records import Record, VolumeRef
from engine.doors import Doors
from engine.doors.files import Abilities, Access, Entry, FileHandle, Files, RunPlace, Space, Stat, Unlocked
from engine.doors.mounts import Mount, Mounts
from engine.doors.shared_leases import SharedLeases
from engine.doors.users import User
from engine.doors.volume_groups import VolumeGroups
from engine.errors import NotFound
from engine.formats.base import Repository
from engine.formats.lvm.repository import LvmRepository
from engine.formats.registry import create_repository, open_repository
from engine.tools.local.clock import RealClock, RealIds
from engine.tools.local.files import RealFiles
from engine.tools.local.leases import OfdLeases
from engine.tools.local.processes import RealProcesses
from engine.tools.lvm.volume_groups import LvmVolumeGroups
from engine.tools.nfs.mounts import NfsMounts
from sim.hosts.world import SHARED, World
from tests.formats.lvm.kit import FileGroups, GroupState, emptied

T1 = "1" * 32
T2 = "12" + "2" * 30
V1 = "a" * 32
V2 = "ab" + "b" * 30
SIZE = 10 * 1024 * 1024


def real_doors(
    host: str = "host-1",
    files: Files | None = None,
    groups: VolumeGroups | None = None,
    mounts: Mounts | None = None,
    shared: SharedLeases | None = None,
) -> Doors:
    """The doors of this machine; nothing in these tests uses the image tool."""
    nothing = cast(Any, None)
    processes = RealProcesses()
    clock, ids = RealClock(), RealIds(host)
    return Doors(
        files or RealFiles(), OfdLeases(), nothing, processes, clock, ids, mounts or NfsMounts(()), groups or nothing,
        shared or nothing, nothing,
    )  # fmt: skip


def record(tag: str = T1, **fields: Any) -> Record:
    """A whole disk without data, changed by ``fields``."""
    plain = Record(tag, strong=True, mutable=True, size=SIZE, whole=True, volume=None, strategy=Strategy.SPACE)
    return plain._replace(**fields)


def raw(volume: str = V1) -> VolumeRef:
    return VolumeRef(volume, VolumeFormat.RAW, "")


def qcow2(volume: str = V1, parent: str = "") -> VolumeRef:
    return VolumeRef(volume, VolumeFormat.QCOW2, parent)


def status(text: str = "") -> OperationStatus:
    return OperationStatus("copy", "host-1", 1, 2, 50, text, 1.5)


class Storage(Protocol):
    """Storage of one format with one repository on it."""

    def open(self, files: Files | None = None) -> Repository:
        """A further handle, as another process has one."""


class LocalStorage:
    """A directory."""

    format = "localfs-1.0"

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "repository")
        self.parameters: dict[str, object] = {"path": self.path}
        create_repository(self.format, self.parameters, real_doors())

    def open(self, files: Files | None = None) -> Repository:
        """Over the file door ``files`` if given."""
        return open_repository(self.format, self.parameters, real_doors(files=files))


class LvmStorage:
    """A volume group whose volumes are files; a real one where ``DISKWRIGHT_TEST_LVM_DEVICE`` names a device (in the
    lab), emptied for each test."""

    format = "lvm-1.0"
    opened: ClassVar[list[Repository]] = []
    """On real LVM, so far: while they are open their volumes cannot be removed."""
    known: ClassVar[dict[str, VolumeGroups]] = {}
    """Real LVM as each host has it: it need not find the devices again."""

    def __init__(self, directory: Path) -> None:
        device = os.environ.get("DISKWRIGHT_TEST_LVM_DEVICE")
        self.state = GroupState(directory)
        self._real = bool(device)
        self.parameters: dict[str, object] = {"volume_group": "dwtest"}
        if self._real:
            while self.opened:
                self.opened.pop().close()
            with contextlib.suppress(NotFound):
                emptied(self.groups("host-1"), "dwtest")
                return
        create_repository(self.format, {**self.parameters, "devices": [device or "/dev/one"]}, self.doors())

    def groups(self, host: str) -> VolumeGroups:
        """LVM as that host has it."""
        if not self._real:
            return FileGroups(self.state, host)
        return self.known.setdefault(host, LvmVolumeGroups(host))

    def doors(self, host: str = "host-1", files: Files | None = None) -> Doors:
        """Of a host that sees the group."""
        return real_doors(host, files, self.groups(host))

    def open(self, files: Files | None = None, host: str = "host-1") -> Repository:
        """On a host."""
        repository = open_repository(self.format, self.parameters, self.doors(host, files))
        if self._real:
            self.opened.append(repository)
        return repository


class SharedLvmStorage:
    """A volume group of the simulator that several hosts share. The host that opens it first manages it."""

    format = "lvm-1.0"

    def __init__(self, directory: Path) -> None:
        self.parameters: dict[str, object] = {"volume_group": "a"}
        self.world = World(format=SHARED)
        self.world.create("a")
        self.world.manage("host-1")

    def open(self, files: Files | None = None, host: str = "host-1") -> LvmRepository:
        """In a process of its own of a host."""
        assert files is None, "these files are simulated"
        doors = self.world.machine(host).process("direct").doors
        return cast(LvmRepository, open_repository(self.format, self.parameters, doors))


class PretendedMounts:
    """Takes any directory for one in an NFS mount, and mounts nothing."""

    def at(self, path: str) -> Mount | None:
        return None

    def holding(self, path: str) -> Mount | None:
        return Mount("server:/export", "/", "nfs4", ("rw", "vers=4.2", "local_lock=none"))

    def mount_nfs(self, source: str, path: str, options: str) -> None:
        raise AssertionError("nothing is mounted here")

    def unmount(self, path: str) -> None:
        raise AssertionError("nothing is mounted here")

    def users(self, path: str, also: str = "") -> list[User]:
        raise AssertionError("nothing is mounted here")


class NfsStorage:
    """A directory in an NFS mount of the operator: a real one where ``DISKWRIGHT_TEST_NFS`` names one (in the lab)."""

    format = "nfs-1.0"

    def __init__(self, directory: Path) -> None:
        real = os.environ.get("DISKWRIGHT_TEST_NFS")
        self.mounts: Mounts = NfsMounts(()) if real else PretendedMounts()
        self.path = f"{real}/{RealIds('').new_id()}" if real else str(directory / "repository")
        self.parameters: dict[str, object] = {"path": self.path}
        create_repository(self.format, self.parameters, real_doors(mounts=self.mounts))

    def open(self, files: Files | None = None) -> Repository:
        """Over the file door ``files`` if given."""
        return open_repository(self.format, self.parameters, real_doors(files=files, mounts=self.mounts))


STORAGES: dict[str, Callable[[Path], Storage]] = {
    "localfs-1.0": LocalStorage,
    "lvm-1.0": LvmStorage,
    "lvm-1.0 shared": SharedLvmStorage,
    "nfs-1.0": NfsStorage,
}
"""Formats whose storage can be made here; the conformance suite runs over all."""

SIMULATED = frozenset(["lvm-1.0 shared"])
"""Those that are nowhere on this machine, and whose doors are for one thread."""

MANAGED = sorted(name for name in STORAGES if name.startswith("lvm"))
"""Those with a manager, activation and extents."""


class SpyHandle:
    """Tells the spy what is written."""

    def __init__(self, spy: SpyFiles, handle: FileHandle, path: str) -> None:
        self._spy = spy
        self.handle = handle
        self._path = path

    def read_at(self, offset: int, length: int) -> bytes:
        return self.handle.read_at(offset, length)

    def write_at(self, offset: int, data: bytes) -> None:
        self._spy.call("write", self._path, lambda: self.handle.write_at(offset, data))

    def truncate(self, size: int) -> None:
        self._spy.call("truncate", self._path, lambda: self.handle.truncate(size))

    def lock(self) -> bool:
        return cast(bool, self._spy.call("lock", self._path, self.handle.lock))

    def give(self, access: Access) -> None:
        self.handle.give(access)

    def sync(self) -> None:
        self._spy.call("sync", self._path, self.handle.sync)

    def stat(self) -> Stat:
        return self.handle.stat()

    def held_path(self) -> str:
        return self.handle.held_path()

    def close(self) -> None:
        self.handle.close()

    def __enter__(self) -> SpyHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SpyFiles:
    """The real files, with a log of effects and a hook before and after each call.

    ``before`` may raise instead of the call, ``after`` may raise although it was done.
    """

    EFFECTS = frozenset(
        "create write truncate sync link rename unlink make_directory remove_directory sync_directory".split()
    )

    def __init__(self, root: str = "") -> None:
        self._real = RealFiles()
        self._root = root
        self.log: list[str] = []
        self.before: Callable[[str, str], None] = lambda verb, name: None
        self.after: Callable[[str, str], None] = lambda verb, name: None

    def call(self, verb: str, path: str, work: Callable[[], Any], further: str = "") -> Any:
        name = self._short(path)
        self.before(verb, name)
        result = work()
        if verb in self.EFFECTS:
            self.log.append(f"{verb} {name}" + (f" {self._short(further)}" if further else ""))
        self.after(verb, name)
        return result

    def _short(self, path: str) -> str:
        """Path inside the repository, with the random part of temporary names left out."""
        if path != self._root and not path.startswith(f"{self._root}/"):
            return path
        name = path[len(self._root) + 1 :] or "."
        return f"tmp/*{name[36:]}" if name.startswith("tmp/") else name

    def run_place(self) -> RunPlace:
        return self._real.run_place()

    def privileged(self) -> bool:
        return self._real.privileged()

    def list_directory(self, path: str, having: str = "") -> list[Entry]:
        return cast("list[Entry]", self.call("list", path, lambda: self._real.list_directory(path, having)))

    def users(self, path: str, unlocked: Unlocked = Unlocked.NOBODY) -> list[User]:
        return cast("list[User]", self.call("users", path, lambda: self._real.users(path, unlocked)))

    def stat(self, path: str) -> Stat:
        return cast(Stat, self.call("stat", path, lambda: self._real.stat(path)))

    def read_file(self, path: str, limit: int) -> bytes:
        return cast(bytes, self.call("read", path, lambda: self._real.read_file(path, limit)))

    def look(self, path: str, length: int) -> tuple[Stat, bytes]:
        with self.open(path) as handle:
            return handle.stat(), handle.read_at(0, length)

    def open(self, path: str, writable: bool = False) -> FileHandle:
        return SpyHandle(self, self.call("open", path, lambda: self._real.open(path, writable)), path)

    def open_source(self, path: str) -> FileHandle:
        return SpyHandle(self, self.call("open", path, lambda: self._real.open_source(path)), path)

    def create(self, path: str) -> FileHandle:
        return SpyHandle(self, self.call("create", path, lambda: self._real.create(path)), path)

    def link(self, source: str, target: str) -> None:
        self.call("link", source, lambda: self._real.link(source, target), target)

    def rename(self, source: str, target: str) -> None:
        self.call("rename", source, lambda: self._real.rename(source, target), target)

    def unlink(self, path: str) -> None:
        self.call("unlink", path, lambda: self._real.unlink(path))

    def make_directory(self, path: str) -> None:
        self.call("make_directory", path, lambda: self._real.make_directory(path))

    def let_pass(self, path: str) -> None:
        self.call("let_pass", path, lambda: self._real.let_pass(path))

    def remove_directory(self, path: str) -> None:
        self.call("remove_directory", path, lambda: self._real.remove_directory(path))

    def resolve(self, path: str) -> str:
        return RealFiles().resolve(path)

    def symlink(self, target: str, path: str) -> None:
        self.call("symlink", path, lambda: self._real.symlink(target, path))

    def sync_directory(self, path: str) -> None:
        self.call("sync_directory", path, lambda: self._real.sync_directory(path))

    def space(self, path: str) -> Space:
        return self._real.space(path)

    def clone(self, source: FileHandle, target: FileHandle) -> bool:
        assert isinstance(source, SpyHandle) and isinstance(target, SpyHandle)
        return self._real.clone(source.handle, target.handle)

    def inode_generation(self, path: str) -> int | None:
        return self._real.inode_generation(path)

    def probe(self, path: str) -> Abilities:
        return cast(Abilities, self.call("probe", path, lambda: self._real.probe(path)))


def once(verb: str, action: Callable[[], None], name: str = "") -> Callable[[str, str], None]:
    """A hook that acts at the first call of ``verb`` (on a name that contains ``name``) only."""
    done = False

    def hook(seen: str, path: str) -> None:
        nonlocal done
        if seen == verb and name in path and not done:
            done = True
            action()

    return hook


def failing(verb: str, number: int, name: str = "") -> Callable[[str, str], None]:
    """A hook that raises OSError at every call of ``verb`` on a name that contains ``name``."""

    def hook(seen: str, path: str) -> None:
        if seen == verb and name in path:
            raise OSError(number, os.strerror(number), path)

    return hook


def names_below(path: str) -> set[str]:
    """All files below a directory, as paths inside it."""
    return {os.path.relpath(os.path.join(folder, name), path) for folder, _, files in os.walk(path) for name in files}
