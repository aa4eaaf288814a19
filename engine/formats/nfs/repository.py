"""The format ``nfs``: a directory of an NFS server, shared by hosts that need not know each other.

On the server it looks as ``localfs`` does. What differs is who may write: leases are locks of the
server, which it gives to another host when it has not heard of ours for the length of its lease. A
host that was cut off or frozen so long may go on at any moment. So whoever writes data has a lock on
that very file, taken before it verified that the work is still its own; then the server refuses
its writes for ever (EIO). Files are made and published by names that cannot replace others.

NFS lies about time: an absent name is asked for again in a fresh listing of its directory before anything
is concluded, and sizes are those of an opened file, never of a remembered one.

An export is mounted by the engine when it is first needed and unmounted by ``detach``. Every open
repository holds a shared lock on a file beside the mount point; whoever unmounts has it alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from engine.doors import Doors
from engine.doors.leases import Lease
from engine.doors.mounts import Mount
from engine.doors.users import describe_users
from engine.errors import BadRequest, Conflict, DiskwrightError, StorageError, from_os_errors
from engine.formats import access
from engine.formats.files import layout, setup
from engine.formats.files.repository import FileStore
from engine.formats.files.tree import Tree
from engine.formats.nfs import place as nfs_place
from engine.formats.nfs.patience import with_patience
from engine.formats.nfs.place import Place
from engine.formats.nfs.progress import NfsProgressLogs
from engine.formats.nfs.volumes import NfsVolumes

VERSION = (layout.MAJOR, layout.MINOR)

_USERS, _MOUNTER = 0, 1  # bytes of the lock file beside a mount point
_PATIENCE_S = 90.0  # longer than a mount or an unmount may take while the server is away
_READERS_S = 3.0  # so long a check may take that is under way
_LOOK_AGAIN_S = 0.05


class NfsRepository(FileStore):
    """An open repository on NFS."""

    type_name = "nfs"
    shared = True
    fencing = "nfs4-lock"
    read_errors_count = False

    def __init__(self, doors: Doors, where: Place, found: layout.Identity, threads: bool, using: Lease | None) -> None:
        """``using`` keeps the mount in place until ``close``."""
        tree = Tree(with_patience(doors), where.root(doors.ids.host_id), found.access)
        super().__init__(tree, found, threads, NfsVolumes(tree), NfsProgressLogs(tree))
        self._where = where
        self._using = using

    @property
    def place(self) -> str:
        """Server, export and directory; or the path in the operator's mount."""
        return self._where.shown

    def warnings(self) -> list[str]:
        """Look at the mount: one that is soft by nobody's choice is told."""
        where, host_id = self._where, self._tree.doors.ids.host_id
        mounts = self._tree.doors.mounts
        found = mounts.holding(where.path) if where.path else mounts.at(where.mount_point(host_id))
        if found is None or "soft" not in found.options or "soft" in where.options:
            return []
        choice = "mount it" if where.path else "connect it with options="
        meant = "" if where.path else "; options=soft says that this is meant"
        return [
            "the mount is soft: a machine gets errors of reading and writing when the server is away for longer than "
            f"that allows (usually 30 seconds). For machines that shall wait {choice}{' ' if where.path else ''}hard; "
            f"commands wait too, then{meant}"
        ]

    def close(self) -> None:
        """Let the mount stay; anybody may take it away now."""
        if self._using is not None:
            self._using.release()
            self._using = None


def create(doors: Doors, parameters: dict[str, object]) -> None:
    """Make an empty repository in a directory of an export. The mount is taken away again."""
    rest, given = access.take_out(parameters)
    where = nfs_place.parse(rest)
    using = _attach(doors, where)
    try:
        with _named(where, doors):
            setup.create_tree(doors, where.root(doors.ids.host_id), given)
    finally:
        if using is not None:
            using.release()
            with contextlib.suppress(StorageError):  # somebody uses it already; whoever is last takes it away
                detach(doors, rest)


def open(doors: Doors, parameters: dict[str, object], threads: bool) -> NfsRepository:
    """Open the repository, mounted first where that is ours to do."""
    where = nfs_place.parse(parameters)
    using = _attach(doors, where)
    try:
        with _named(where, doors):
            found = setup.open_tree(doors, where.root(doors.ids.host_id))
            if found.access is not None and not where.path:
                for directory in (nfs_place.MOUNTS.rpartition("/")[0], nfs_place.MOUNTS):
                    doors.files.let_pass(directory)
        return NfsRepository(doors, where, found, threads, using)
    except BaseException:
        if using is not None:
            using.release()
        raise


def detach(doors: Doors, parameters: dict[str, object]) -> None:
    """Unmount what ``open`` mounted. StorageError while a repository that was opened from there is open on this host,
    or a program has a file of it open."""
    where = nfs_place.parse(parameters)
    if where.path or doors.mounts.at(where.mount_point(doors.ids.host_id)) is None:
        return
    point = where.mount_point(doors.ids.host_id)
    with from_os_errors(f"lock the mount point of {where.shown}"):
        lock = _lock_file(doors, point)
        alone = _soon(doors, _READERS_S, lambda: doors.leases.try_acquire(lock, _USERS, shared=False))
    if alone is None:
        who = describe_users(doors.mounts.users(point, lock))
        raise StorageError(
            f"another command of this host works with {where.shown}: {who}", "Wait for it or end it, then try again"
        )
    try:
        doors.mounts.unmount(point)
    finally:
        alone.release()


def reached(doors: Doors, parameters: dict[str, object]) -> object:
    """Return the mount point; of an operator's mount nothing."""
    where = nfs_place.parse(parameters)
    return None if where.path else where.mount_point(doors.ids.host_id)


def _attach(doors: Doors, where: Place) -> Lease | None:
    """Mount the export unless it is mounted, by us or by the operator. What we mounted stays at least until the lease
    is released."""
    if where.path:
        _require_nfs(_holding(doors, where.path), where.path)
        return None
    point = where.mount_point(doors.ids.host_id)
    with from_os_errors(f"lock the mount point of {where.shown}"):
        lock = _lock_file(doors, point)
        using = _wait(doors, where, lambda: doors.leases.try_acquire(lock, _USERS, shared=True))
        try:
            if doors.mounts.at(point) is None:
                alone = _wait(doors, where, lambda: doors.leases.try_acquire(lock, _MOUNTER, shared=False))
                try:
                    doors.mounts.mount_nfs(where.source, point, where.mount_options)
                finally:
                    alone.release()
            _require_nfs(doors.mounts.at(point), where.source)
        except BaseException:
            using.release()
            raise
    return using


def _wait(doors: Doors, where: Place, take: Callable[[], Lease | None]) -> Lease:
    lease = _soon(doors, _PATIENCE_S, take)
    if lease is None:
        raise Conflict(f"another command of this host mounts or unmounts {where.shown} all the time", "Try again")
    return lease


def _soon(doors: Doors, patience_s: float, take: Callable[[], Lease | None]) -> Lease | None:
    deadline = doors.clock.monotonic() + patience_s
    while (lease := take()) is None and doors.clock.monotonic() <= deadline:
        doors.clock.sleep(_LOOK_AGAIN_S)
    return lease


def _lock_file(doors: Doors, point: str) -> str:
    """Return the path of an empty file beside the mount point, made where it is missing; never unlinked, for then two
    processes could have it locked."""
    mounts = point.rpartition("/")[0]
    for directory in (mounts.rpartition("/")[0], mounts):
        with contextlib.suppress(FileExistsError):
            doors.files.make_directory(directory)
    with contextlib.suppress(FileExistsError):
        doors.files.create(f"{point}.lock").close()
    return f"{point}.lock"


def _holding(doors: Doors, path: str) -> Mount | None:
    found = doors.mounts.holding(path)
    if found is not None and found.type == "autofs":
        with from_os_errors(f"look into {path}"):
            doors.files.list_directory(path)  # makes the automounter mount it
        found = doors.mounts.holding(path)
    return found


def _require_nfs(found: Mount | None, subject: str) -> None:
    """Raise BadRequest unless a mount is one that leases can be trusted on. The options of our own mounts cannot be
    otherwise."""
    if found is None or found.type not in ("nfs", "nfs4"):
        kind = f"on {found.type}" if found else "mounted"
        raise BadRequest(
            f"{subject} is {'' if found else 'not '}{kind}, not on NFS",
            "Give the path inside an NFS mount, without symbolic links; or server and export",
        )
    options = dict(option.partition("=")[::2] for option in found.options)
    if found.type != "nfs4":
        version = options.get("vers", "3")
        raise BadRequest(
            f"{subject} is mounted with NFS version {version}, whose locks outlive a dead host",
            "Mount it with vers=4.2",
        )
    if options.get("local_lock", "none") != "none" or "nolock" in options:
        raise BadRequest(f"{subject} is mounted with locks of this host only", "Mount it without local_lock and nolock")


@contextlib.contextmanager
def _named(where: Place, doors: Doors) -> Iterator[None]:
    """Name the export in errors of the body, not the directory where it happens to be mounted."""
    try:
        yield
    except DiskwrightError as error:
        error.message = error.message.replace(where.root(doors.ids.host_id), where.shown)
        raise
