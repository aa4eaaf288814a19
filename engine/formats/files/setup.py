"""Creating and opening the directory of a repository of files.

``repository.json`` is linked last, after everything else is durable: a directory without it
is no repository, and creating there again completes what was begun.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable

from engine.doors import Doors
from engine.doors.files import Access, Entry, Kind
from engine.errors import (
    BadRequest,
    Conflict,
    Damaged,
    DiskwrightError,
    NotFound,
    Refused,
    StorageError,
    from_os_error,
    from_os_errors,
)
from engine.formats.files import layout
from engine.formats.files.ballast import Ballast
from engine.formats.files.parts import Parts, read_identity
from engine.formats.files.tree import Tree, kind_text

_BEGUN = {**dict.fromkeys(layout.DIRECTORIES, Kind.DIRECTORY), layout.LOCKS_FILE: Kind.FILE}


def create_tree(doors: Doors, root: str, access: Access | None = None) -> None:
    """Make a new repository at ``root``, durable on return; its parent directory exists. ``access``: of its volumes.

    Atomic: until the last step there is none. Conflict: something else is there already.
    """
    tree = Tree(doors, root)
    with from_os_errors(f"create a repository at {root}"):
        _make_root(tree)
        for name in layout.DIRECTORIES:
            with contextlib.suppress(FileExistsError):
                tree.files.make_directory(tree.path(name))
        with contextlib.suppress(FileExistsError), tree.files.create(tree.path(layout.LOCKS_FILE)) as handle:
            handle.sync()
        if access is not None:
            _try(tree, access)
        tree.files.sync_directory(root)
        identity = tree.doors.ids.new_id()
        text = layout.encode_identity(identity, access)
        _commit(tree, text)
    Parts(tree, identity, lambda: text).keep_copy()
    Ballast(tree).keep()


def _make_root(tree: Tree) -> None:
    """An empty or begun directory whose own name is durable."""
    parent = tree.root.rpartition("/")[0] or "/"
    try:
        tree.files.make_directory(tree.root)
    except FileExistsError:
        _require_begun(tree)
    except FileNotFoundError:
        raise _no_place(tree, parent) from None
    tree.files.sync_directory(parent)


def _no_place(tree: Tree, path: str) -> DiskwrightError:
    """Why no directory could be made in ``path``: there is none, or one that takes no new names, as those of /proc."""
    try:
        tree.files.stat(tree.files.resolve(path))
    except FileNotFoundError:
        return NotFound(f"the directory {path} does not exist", "Create it first")
    return Refused(f"no directory can be made in {path}", "Choose a place in a file system that keeps files")


def _require_begun(tree: Tree) -> None:
    kind = tree.files.stat(tree.root).kind
    if kind is not Kind.DIRECTORY:
        raise Conflict(f"{tree.root} is {kind_text(kind)}, not a directory", "Choose another path")
    entries = sorted(tree.files.list_directory(tree.root))
    if {layout.IDENTITY_FILE, layout.COPY_FILE}.intersection(entry.name for entry in entries):
        raise Conflict(f"there is a repository at {tree.root} already", "Connect it, or choose another path")
    for entry in entries:
        if {**_BEGUN, layout.BALLAST_FILE: Kind.FILE}.get(entry.name) is not entry.kind:
            raise Conflict(f"{tree.root} is not empty: it has {entry.name!r:.80}", "Choose an empty directory")
        if entry.kind is Kind.DIRECTORY and entry.name != "tmp" and tree.files.list_directory(tree.path(entry.name)):
            raise Conflict(
                f"{tree.root} has no {layout.IDENTITY_FILE} but {entry.name} is not empty",
                f"If it is a repository that lost its {layout.IDENTITY_FILE}, restore that file",
            )


def _try(tree: Tree, access: Access) -> None:
    """Give a file away as volumes will be, and let their users through to them."""
    path, lease = tree.claim_temporary("probe")
    try:
        with tree.files.create(path) as handle:
            handle.give(access)
    finally:
        with contextlib.suppress(OSError):
            tree.files.unlink(path)
        lease.release()
    for name in ("", "/volumes"):
        tree.files.let_pass(f"{tree.root}{name}")


def _commit(tree: Tree, text: bytes) -> None:
    temporary = tree.write_temporary("repository", text)
    try:
        tree.files.link(temporary.path, tree.path(layout.IDENTITY_FILE))
        tree.files.sync_directory(tree.root)
    except FileExistsError:
        found = tree.files.stat(tree.path(layout.IDENTITY_FILE))
        if (found.inode, found.device) != (temporary.inode, temporary.device):
            raise Conflict(f"somebody else has just created a repository at {tree.root}", "Connect it") from None
        tree.files.sync_directory(tree.root)
    finally:
        tree.discard(temporary)


def open_tree(doors: Doors, root: str) -> layout.Identity:
    """Look at what is at ``root`` and return who it is. Nothing is changed.

    What can be made again (``parts``) may be missing. NotFound: no directory, or one that is no repository. Damaged: a
    part is not what it must be, or the records are gone. Refused: a newer major version.
    """
    tree = Tree(doors, root)
    kinds = _kinds(_list_root(tree))
    found = read_identity(tree, kinds)
    if found is None:
        begun = all(_BEGUN.get(name) is kind for name, kind in kinds.items()) and kinds
        raise NotFound(
            f"{root} is not a repository: it has no {layout.IDENTITY_FILE}",
            "Its creation was interrupted: create it again" if begun else "Create one, or give the right path",
        )
    if layout.TAGS not in kinds:
        raise Damaged(
            f"directory {tree.path(layout.TAGS)} of the repository is missing, which held the records of all images",
            "Restore it from a backup, or mount what belongs there",
        )
    for name, kind in _BEGUN.items():
        if kinds.get(name, kind) is not kind:
            raise Damaged(
                f"{kind} {tree.path(name)} of the repository is {kind_text(kinds[name])}", "Put back what was there"
            )
    if layout.ACCESS_FILE not in kinds:
        return found
    try:
        with from_os_errors(f"read {tree.path(layout.ACCESS_FILE)}"):
            raw = tree.files.read_file(tree.path(layout.ACCESS_FILE), layout.MAX_IDENTITY_BYTES)
        return found._replace(access=layout.decode_access(raw, root))
    except (Damaged, StorageError) as error:  # images can be read all the same
        return found._replace(unclear=f"whose new volumes are is not known: {error.message}")


def give(tree: Tree, access: Access) -> None:
    """State whose the volumes of a repository are, and give those to him that are there. Durable; may be repeated."""
    with from_os_errors(f"give the volumes in {tree.root} to others"):
        _try(tree, access)
        temporary = tree.write_temporary("access", layout.encode_access(access))
        try:
            tree.files.rename(temporary.path, tree.path(layout.ACCESS_FILE))
            tree.files.sync_directory(tree.root)
        finally:
            tree.discard(temporary)
        for shard in tree.files.list_directory(tree.path("volumes")):
            if shard.kind is Kind.DIRECTORY and layout.is_shard(shard.name):
                _give_all(tree, f"volumes/{shard.name}", access)


def _give_all(tree: Tree, shard: str, access: Access) -> None:
    tree.files.let_pass(tree.path(shard))
    for entry in tree.files.list_directory(tree.path(shard)):
        if entry.kind is Kind.FILE and layout.parse_volume_name(entry.name, shard[-2:]) is not None:
            with contextlib.suppress(FileNotFoundError), tree.files.open(tree.path(f"{shard}/{entry.name}")) as handle:
                handle.give(access)
                handle.sync()


def _list_root(tree: Tree) -> list[Entry]:
    try:
        return tree.files.list_directory(tree.root)
    except FileNotFoundError:
        raise NotFound(f"there is no directory {tree.root}", "Give the path of a repository, or create one") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise BadRequest(
                f"{tree.root} is not a directory (symbolic links are not followed)", "Give the path itself"
            ) from None
        raise from_os_error(error, f"open the repository at {tree.root}") from error


def _kinds(entries: Iterable[Entry]) -> dict[str, Kind]:
    return {entry.name: entry.kind for entry in entries}
