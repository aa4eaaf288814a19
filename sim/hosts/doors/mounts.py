"""The mount door of a simulated host: ``server:/export`` is a directory of the shared storage.

An export appears on the host at the mount point, with the same inodes as under its own path, where it is
seen too as if another NFS mount were there. Which server it is makes no difference. Modelled: what is mounted
where, that an export must be there, that a mount point with open files is in use, and that a death of the host
unmounts everything. Not modelled: a server that is away, options, caches, locks that expire.
"""

from __future__ import annotations

import contextlib

from engine.doors.files import Kind
from engine.doors.mounts import Mount
from engine.doors.users import User, describe_users
from engine.errors import Conflict, NotFound, StorageError
from sim.hosts.processes import SimProcess

_SHOWN = ("rw", "vers=4.2", "local_lock=none")


class SimMounts:
    """The mount door of one process."""

    def __init__(self, process: SimProcess) -> None:
        self._process = process
        self._host = process.host
        self._table = process.host.mounts

    def at(self, path: str) -> Mount | None:
        self._process.enter("mounts.at", path)
        return self._mount(path)

    def holding(self, path: str) -> Mount | None:
        self._process.enter("mounts.holding", path)
        inside = [point for point in self._table.binds if path == point or path.startswith(f"{point}/")]
        if inside:
            return self._mount(max(inside, key=len))
        world = self._host.world
        shared = self._process.files.storage_of(path) is world.storage and world.is_exported(path)
        return Mount("simulated", "/", "nfs4" if shared else "ext4", _SHOWN)

    def mount_nfs(self, source: str, path: str, options: str) -> None:
        self._process.enter("mounts.mount_nfs", path)
        there = self._mount(path)
        if there is not None:
            if there.source == source:
                return
            raise Conflict(f"{there.source} is mounted at {path}", "Unmount it")
        export = "/" + source.partition(":/")[2]
        if self._kind(export) is not Kind.DIRECTORY:
            raise NotFound(
                f"cannot mount {source}: No such file or directory", "Give the path as the server exports it"
            )
        parts = path.split("/")
        for count in range(2, len(parts) + 1):
            with contextlib.suppress(FileExistsError):
                self._host.run_storage.make_directory("/".join(parts[:count]))
        self._table.binds[path] = (self._host.world.storage, export.rstrip("/"))
        self._table.sources[path] = source

    def unmount(self, path: str) -> None:
        self._process.enter("mounts.unmount", path)
        used = [p for p in self._host.processes.values() if self._uses(p, path, "")]
        if used:
            who = describe_users([User(process.identity.pid, process.name) for process in used])
            raise StorageError(f"{path} is in use by {who}", "Wait for it or end it, then try again")
        self._table.binds.pop(path, None)
        self._table.sources.pop(path, None)
        with contextlib.suppress(FileNotFoundError):
            self._host.run_storage.remove_directory(path)

    def users(self, path: str, also: str = "") -> list[User]:
        self._process.enter("mounts.users", path)
        others = [process for process in self._host.processes.values() if process is not self._process]
        return [User(process.identity.pid, process.name) for process in others if self._uses(process, path, also)]

    def _uses(self, process: SimProcess, path: str, also: str) -> bool:
        if any(handle.path.startswith(f"{path}/") for handle in process.files.handles):
            return True
        if not also:
            return False
        storage, inside = process.files.locate(also)
        file = (storage.device, storage.stat(inside).inode)
        return any(lock.place[:2] == file for lock in self._host.world.locks.owned(process))

    def _mount(self, path: str) -> Mount | None:
        source = self._table.sources.get(path)
        return Mount(source, path, "nfs4", _SHOWN) if source is not None else None

    def _kind(self, path: str) -> Kind | None:
        try:
            return self._host.world.storage.stat(path).kind
        except OSError:
            return None
