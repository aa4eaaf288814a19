"""Repositories of diskwright among what is audited: their files are known, and ``check`` looks at them.

Who refers to a volume is in the records of its repository, which no audit reads: to it each volume would be an orphan,
and each chain broken, because headers there name what no directory has.
"""

from __future__ import annotations

import posixpath

from engine.audit.model import Candidate, Role
from engine.audit.places import Places
from engine.formats.files import layout


def of_repositories(places: Places) -> dict[str, Candidate]:
    """Return the files that are parts of repositories, by path; what lies beside the parts is not among them."""
    names = [name.path for name in places.files()]
    roots = {posixpath.dirname(path) for path in names if posixpath.basename(path) == layout.IDENTITY_FILE}
    part = Candidate(Role.REPOSITORY, needed_by="a repository")
    return {path: part for path in names if _is_volume(path) or (roots and _is_part(path, roots))}


def _is_volume(path: str) -> bool:
    """Known by itself too: the directory that was given may be one inside a repository."""
    directory, _, name = path.rpartition("/")
    parsed = layout.parse_volume_name(name)
    return parsed is not None and posixpath.basename(directory) in (parsed[0][:2], "lost")


def _is_part(path: str, roots: set[str]) -> bool:
    above, _, name = path.rpartition("/")
    while above:
        if above in roots and name in layout.PARTS:
            return True
        above, _, name = above.rpartition("/")
    return False
