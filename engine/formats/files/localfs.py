"""The format ``localfs``: a directory of one host's own file system.

Only one host may have it connected; the leases are locks of that host's kernel, so a holder
keeps them as long as it or a child of it lives and nobody can write after losing one. So a file system that other
hosts can have mounted too is refused, unless the operator says that none has.
"""

from __future__ import annotations

from engine.doors import Doors
from engine.errors import BadRequest, from_os_errors
from engine.formats import access
from engine.formats.files import layout, setup
from engine.formats.files.progress import ProgressLogs
from engine.formats.files.repository import FileStore
from engine.formats.files.tree import Tree
from engine.formats.files.volumes import Volumes

VERSION = (layout.MAJOR, layout.MINOR)


_ONE_HOST = "one_host"
"""The parameter by which an operator says that no other host uses the storage."""
_OF_MANY_HOSTS = frozenset(
    "9p afs beegfs ceph cifs coda gfs2 gpfs lustre nfs nfs4 ocfs2 orangefs pvfs2 smb3 smbfs vboxsf virtiofs".split()
)
"""File systems whose data other hosts may change: with locks of this host's kernel two would write at once."""


class LocalRepository(FileStore):
    """An open repository on a local file system."""

    type_name = "localfs"
    shared = False
    fencing = "kernel-lock"
    read_errors_count = True


def require_path(parameters: dict[str, object]) -> str:
    """Return the directory that connection parameters of a local repository name, or raise BadRequest."""
    if not {"path"} <= set(parameters) <= {"path", _ONE_HOST}:
        given = ", ".join(sorted(map(str, parameters))) or "none"
        raise BadRequest(
            f"a localfs repository takes the parameter path (and may take one_host), given: {given:.200}",
            "owner, group and mode can be stated too",
        )
    if parameters.get(_ONE_HOST, "yes") != "yes":
        raise BadRequest(f"one_host is {parameters[_ONE_HOST]!r:.40}", "Say one_host=yes, or leave it out")
    path = parameters["path"]
    if not isinstance(path, str) or not path.startswith("/"):
        raise BadRequest(f"path {path!r:.200} is not an absolute path")
    parts = [part for part in path.split("/") if part]
    if not parts or "\0" in path or "." in parts or ".." in parts:
        raise BadRequest(f"path {path!r:.200} does not plainly name a directory", "Give it without . and ..")
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRequest(f"path {path!r:.200} is not valid UTF-8", "Rename the directory") from None
    return "/" + "/".join(parts)


def _require_own(doors: Doors, root: str, parameters: dict[str, object]) -> None:
    """Return if the directory is on a file system of this host alone, or the operator says so."""
    if _ONE_HOST in parameters:
        return
    with from_os_errors(f"look at {root}"):
        found = doors.mounts.holding(doors.files.resolve(root))
    if found is None or not (found.type in _OF_MANY_HOSTS or found.type.partition(".")[0] == "fuse"):
        return
    instead = "Use the format nfs-1.0; or, " if found.type in ("nfs", "nfs4") else "Use a local file system; or, "
    raise BadRequest(
        f"{root} is on {found.type} ({found.source:.200}), which other hosts may use at the same time, and localfs has "
        "locks of this host only",
        f"{instead}when no other host ever uses it, say so: one_host=yes",
    )


def create(doors: Doors, parameters: dict[str, object]) -> None:
    """Make an empty repository in a directory."""
    rest, given = access.take_out(parameters)
    root = require_path(rest)
    _require_own(doors, root, rest)
    setup.create_tree(doors, root, given)


def open(doors: Doors, parameters: dict[str, object], threads: bool) -> LocalRepository:
    """Open the repository in a directory."""
    root = require_path(parameters)
    found = setup.open_tree(doors, root)
    tree = Tree(doors, root, found.access)
    _require_own(doors, root, parameters)
    return LocalRepository(tree, found, threads, Volumes(tree, _ONE_HOST not in parameters), ProgressLogs(tree))


def detach(doors: Doors, parameters: dict[str, object]) -> None:
    """Do nothing: nothing was done to this host."""


def reached(doors: Doors, parameters: dict[str, object]) -> object:
    """Return None: ``detach`` takes nothing away."""
    return None
