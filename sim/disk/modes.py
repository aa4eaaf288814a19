"""What an operator has taken from everybody with ``chmod``: objects that the users of the engine have no right to.

As for a user that is not root, or is not on the server: a directory without rights lets nobody list it or pass through
it, one for reading only lets nobody change its names, a file without rights cannot be opened. Who has a file open
already goes on. Modes that files have otherwise are not modelled.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from sim.disk.nodes import fail

_READS = frozenset(
    "files.open files.read_file files.list_directory files.sync_directory files.users leases.try_acquire "
    "leases.guard leases.guarded leases.held".split()
)
_CHANGES_NAMES = frozenset(
    "files.create files.link files.rename files.unlink files.make_directory files.remove_directory "
    "files.symlink".split()
)
_BY_PATH = ("files.", "leases.")


class Modes:
    """The modes of objects that are not as they were made, for all hosts."""

    def __init__(self, place: Callable[[str], str]) -> None:
        """``place``: where on the shared storage a path of a host is."""
        self._place = place
        self.taken: dict[str, bool] = {}
        """Whether an object can be read still, by its path."""

    def take(self, path: str, readable: bool) -> None:
        """Leave no rights to an object, or, of a directory, those of reading."""
        self.taken[path] = readable

    def give_back(self, path: str) -> None:
        """Have it as it was made. Nothing when it is."""
        self.taken.pop(path, None)

    def require(self, call: str, what: str) -> None:
        """Raise EACCES when nobody has the right to what a process is about to do."""
        if not call.startswith(_BY_PATH):
            return
        paths = self._place(what).split(" ")
        for path in paths:
            changes = call in _CHANGES_NAMES and not (call == "files.link" and path is not paths[-1])
            if any(_forbids(taken, readable, call, path, changes) for taken, readable in self.taken.items()):
                raise fail(errno.EACCES, path)


def _forbids(taken: str, readable: bool, call: str, path: str, changes: bool) -> bool:
    if path == taken:
        return not readable and call in _READS
    if not path.startswith(f"{taken}/"):
        return False
    return not readable or (changes and "/" not in path[len(taken) + 1 :])
