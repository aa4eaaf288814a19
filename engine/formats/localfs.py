"""The format ``localfs``: a directory of one host's own file system.

Only one host may have it connected; the leases are locks of that host's kernel, so a holder
keeps them as long as it or a child of it lives and nobody can write after losing one.
"""

from __future__ import annotations

from engine.doors import Doors
from engine.doors.files import Abilities
from engine.errors import BadRequest
from engine.formats import files_layout, files_setup
from engine.formats.filestore import FileStore
from engine.model import ALIGNMENT_BYTES, MAX_IMAGE_BYTES, Constraints

VERSION = (files_layout.MAJOR, files_layout.MINOR)

_NOTHING_SPECIAL = Abilities(direct_io=False, reflink=False, hole_punching=False, max_file_bytes=MAX_IMAGE_BYTES)


class LocalRepository(FileStore):
    """An open repository on a local file system."""

    type_name = "localfs"
    _abilities: Abilities | None = None

    def constraints(self) -> Constraints:
        """Tried out at the first call, with a file in ``tmp``. Where that is impossible (full, or
        read-only) the answer is that it can do nothing special, and the next call tries again."""
        can = self._abilities or self._probe()
        return Constraints(
            needs_srm=False,
            alignment_bytes=ALIGNMENT_BYTES,
            max_image_bytes=min(MAX_IMAGE_BYTES, can.max_file_bytes),
            direct_io=can.direct_io,
            reflink=can.reflink,
            hole_punching=can.hole_punching,
            discard=can.hole_punching,
            write_zeroes=can.hole_punching,
            shared=False,
            fencing="kernel-lock",
        )

    def _probe(self) -> Abilities:
        path, lease = self._tree.claim_temporary("probe")
        try:
            self._abilities = self._files.probe(path)
        except OSError:
            return _NOTHING_SPECIAL
        finally:
            lease.release()
        return self._abilities


def require_path(parameters: dict[str, object]) -> str:
    """The directory that connection parameters of a local repository name, or BadRequest."""
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
    files_setup.create_tree(doors, require_path(parameters))


def open(doors: Doors, parameters: dict[str, object], threads: bool) -> LocalRepository:
    """Open the repository in a directory."""
    root = require_path(parameters)
    return LocalRepository(doors, root, files_setup.open_tree(doors, root), threads)


def detach(doors: Doors, parameters: dict[str, object]) -> None:
    """Nothing was done to this host."""
