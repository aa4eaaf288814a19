"""The format ``localfs``: a directory of one host's own file system.

Only one host may have it connected; the leases are locks of that host's kernel, so a holder
keeps them as long as it or a child of it lives and nobody can write after losing one.
"""

from __future__ import annotations

from engine.doors import Doors
from engine.errors import BadRequest
from engine.formats.files import layout, setup
from engine.formats.files.progress import ProgressLogs
from engine.formats.files.repository import FileStore
from engine.formats.files.tree import Tree
from engine.formats.files.volumes import Volumes

VERSION = (layout.MAJOR, layout.MINOR)


class LocalRepository(FileStore):
    """An open repository on a local file system."""

    type_name = "localfs"
    shared = False
    fencing = "kernel-lock"
    read_errors_count = True


def require_path(parameters: dict[str, object]) -> str:
    """Return the directory that connection parameters of a local repository name, or raise BadRequest."""
    if set(parameters) != {"path"}:
        given = ", ".join(sorted(map(str, parameters))) or "none"
        raise BadRequest(f"a localfs repository takes exactly the parameter path, given: {given:.200}")
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


def create(doors: Doors, parameters: dict[str, object]) -> None:
    """Make an empty repository in a directory."""
    setup.create_tree(doors, require_path(parameters))


def open(doors: Doors, parameters: dict[str, object], threads: bool) -> LocalRepository:
    """Open the repository in a directory."""
    root = require_path(parameters)
    found, tree = setup.open_tree(doors, root), Tree(doors, root)
    return LocalRepository(tree, found, threads, Volumes(tree), ProgressLogs(tree))


def detach(doors: Doors, parameters: dict[str, object]) -> None:
    """Do nothing: nothing was done to this host."""


def reached(doors: Doors, parameters: dict[str, object]) -> object:
    """Return None: ``detach`` takes nothing away."""
    return None
