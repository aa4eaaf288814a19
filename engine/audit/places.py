"""The names below the given places, all of them listed once, and what a name leads to: by looking them up, not by
opening anything.

A name from an image or a definition is only ever looked for among the names that were listed. What leads out of all
given places stays a name. Symbolic links are followed in the same way, as text.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from engine.doors.files import Kind, Stat
from engine.doors.trees import Tree
from engine.doors.volume_groups import VolumeGroup
from engine.tools.lvm.names import MAPPER, unmapped

_MAX_LINKS = 40
"""As the kernel."""
_MAX_DEPTH = 64
"""Directories below a place; deeper ones count as unreadable."""


class Where(StrEnum):
    """What became of a name."""

    FOUND = "found"
    MISSING = "missing"
    """Its directory was listed, and the name is not in it."""
    OUTSIDE = "outside"
    """It leads out of every given place."""
    UNREADABLE = "unreadable"
    """A directory on the way could not be listed."""
    CIRCLE = "circle"
    """Links lead to links for ever."""


class Name(NamedTuple):
    """One name below a given place."""

    path: str
    tree: Tree
    inside: str
    """The same, relative to the tree."""
    stat: Stat
    target: str
    """Of a symbolic link."""


class Lead(NamedTuple):
    """Where a name leads: to ``name``, or to nothing that is known, at ``path``."""

    where: Where
    path: str
    name: Name | None = None


class Places:
    """All names below the given places."""

    def __init__(self, trees: Sequence[Tree], progress: Callable[[int], None] = lambda _: None) -> None:
        """List everything. ``progress`` is told how many names there are so far."""
        self.names: dict[str, Name] = {}
        self.unreadable: dict[str, str] = {}
        """Directories that could not be listed, with the reason."""
        self.children: dict[str, list[str]] = {}
        """Names in each directory that was listed, ascending."""
        self.groups: dict[str, VolumeGroup] = {}
        """Of the given places those that are volume groups, by their paths."""
        self._roots: dict[str, str] = {}
        self._aliases: dict[str, str] = {}
        for tree in trees:
            root = tree.names[0]
            for name in tree.names:
                self._roots[name] = root
            if tree.group is not None:
                self.groups[root] = tree.group
            if root not in self.children and root not in self.unreadable:
                self._list(tree, root, "", 0, progress)

    @property
    def roots(self) -> list[str]:
        """The true paths of the given places."""
        return list(dict.fromkeys(self._roots.values()))

    def alias(self, aliases: Iterable[tuple[str, str]]) -> None:
        """Let further paths mean given places, where names lead."""
        self._aliases.update(aliases)

    def roots_below(self, directory: str) -> list[str]:
        """The true paths of the places that are somewhere below a directory, by any of their names."""
        return list(dict.fromkeys(root for name, root in self._roots.items() if name.startswith(f"{directory}/")))

    def files(self, below: str = "") -> Iterator[Name]:
        """All regular files, those below one directory where that is named; directory by directory."""
        todo = [below] if below else self.roots[::-1]
        seen = set()
        while todo:
            path = todo.pop()
            if path in seen:
                continue
            seen.add(path)
            folders = []
            for child in self.children.get(path, ()):
                name = self.names[posixpath.join(path, child)]
                if name.stat.kind is Kind.FILE:
                    yield name
                elif name.stat.kind is Kind.DIRECTORY:
                    folders.append(name.path)
            todo += reversed(folders)

    def lead(self, name: str, directory: str) -> Lead:
        """Return where a name leads that was written in a file of ``directory``."""
        todo = list(reversed(posixpath.join(directory, name).split("/")))
        at, links = "/", 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                at = posixpath.dirname(self._true(at))
                continue
            at = self._true(posixpath.join(at, part))
            found = self.names.get(at)
            if found is not None and found.target:
                links += 1
                if links > _MAX_LINKS:
                    return Lead(Where.CIRCLE, at)
                todo += reversed(found.target.split("/"))
                at = "/" if found.target.startswith("/") else posixpath.dirname(at)
            elif found is not None and todo and found.stat.kind is not Kind.DIRECTORY:
                return Lead(Where.MISSING, at)
        return self._at(at)

    def _true(self, path: str) -> str:
        """Of several names of a place or of a logical volume that in the given place."""
        if path.startswith(MAPPER):
            group, volume = unmapped(path.removeprefix(MAPPER))
            root = f"/dev/{group}"
            return f"{root}/{volume}" if volume and root in self.groups else path
        return self._roots.get(path) or self._aliases.get(path, path)

    def _at(self, path: str) -> Lead:
        found = self.names.get(path)
        if found is not None:
            return Lead(Where.FOUND, path, found)
        above = posixpath.dirname(path)
        while above != "/" and above not in self.children and above not in self.unreadable:
            above = posixpath.dirname(above)
        if above in self.unreadable:
            return Lead(Where.UNREADABLE, path)
        return Lead(Where.MISSING if above in self.children else Where.OUTSIDE, path)

    def _list(self, tree: Tree, path: str, inside: str, depth: int, progress: Callable[[int], None]) -> None:
        try:
            if depth > _MAX_DEPTH:
                raise OSError(f"it is more than {_MAX_DEPTH} directories below the place")
            members = sorted(tree.list(inside))
        except OSError as error:
            self.unreadable[path] = error.strerror or str(error)
            return
        self.children[path] = [member.name for member in members]
        folders = []
        for member in members:
            name = Name(
                posixpath.join(path, member.name), tree, posixpath.join(inside, member.name), member.stat, member.target
            )
            self.names[name.path] = name
            if member.stat.kind is Kind.DIRECTORY:
                folders.append(name)
        progress(len(self.names))
        for folder in folders:
            if folder.path not in self.children:
                self._list(tree, folder.path, folder.inside, depth + 1, progress)
