"""Which processes of this host use something below a directory, or have a file open: what /proc tells.

Only names of links are read, so a server that is away does not block the look. Processes that end meanwhile, or that
may not be looked at, are left out.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from engine.doors.users import User
from engine.tools.local.openers import command_of

_PROC = "/proc"


def users(path: str, also: str = "") -> list[User]:
    """Return processes other than this one that use ``path`` or anything below it, or have the file ``also`` open."""
    found = []
    for name in os.listdir(_PROC):
        if name.isdigit() and int(name) != os.getpid() and _uses(name, path, also):
            found.append(User(int(name), command_of(name)))
    return sorted(found)


def _uses(process: str, path: str, also: str) -> bool:
    return any(used in (path, also) or used.startswith(f"{path}/") for used in _links(process))


def _links(process: str) -> Iterator[str]:
    """Return what a process has open, runs and stands in."""
    names = ["cwd", "root", "exe"]
    for folder in ("fd", "map_files"):
        with contextlib.suppress(OSError):
            names += [f"{folder}/{name}" for name in os.listdir(f"{_PROC}/{process}/{folder}")]
    for name in names:
        with contextlib.suppress(OSError):
            yield os.readlink(f"{_PROC}/{process}/{name}")
