"""The states of a power cut, told apart before they are built.

``sim.disk.profiles.crash_states`` builds each state and then finds that most are known. Here a state is
first described by a number that is a sum over its names and contents, so that one of the next
states costs only the directories and files in which it differs. Same rules, same states, same order;
a test compares the two. Small files whose removal is lost (temporary ones, superseded records, progress of
attempts that are over, digests) come back each alone when nothing else is lost, and otherwise all at once
or not at all: they know nothing of each other, nor of anything else. (``boring`` files are those of
whose content nothing counts; of them all or nothing is lost.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import product
from typing import NamedTuple

from sim.disk import profiles
from sim.disk.content import Content
from sim.disk.nodes import ROOT, DirectoryNode, FileNode, NameOp
from sim.disk.profiles import ALL, Class, Profile
from sim.disk.storage import SimStorage
from sim.disk.tree import changed
from sim.explore.search.canonical import LITTER, TEMPORARY


class Cut(NamedTuple):
    """One state."""

    key: int
    """Equal for equal names and contents, in this process."""
    build: Callable[[], SimStorage]
    lost: Callable[[], tuple[str, ...]]
    """What did not survive, one text per operation."""


def cuts(storage: SimStorage, rules: Profile, boring: Collection[int] = ()) -> Iterator[Cut]:
    """All states, the one in which nothing is lost first; some may come twice."""
    if rules.names == "kept":
        whole = _Sums(storage, now=True)
        yield Cut(whole.total, storage.clone, tuple)
        return
    sums = _Sums(storage, now=False)
    classes = {inode: profiles.classes_of(storage, inode, rules) for inode in profiles.dirty_files(storage)}
    for inode in classes.keys() & set(boring):
        classes[inode] = classes[inode][:2]
    for kept in survivors(storage, rules):
        names, links = sums.after(kept)
        changing = [inode for inode in classes if inode in links]
        for chosen in product(*(classes[inode] for inode in changing)):
            contents = dict(zip(changing, chosen, strict=True))
            yield Cut(
                names + sum(sums.difference(links[inode], inode, one.content) for inode, one in contents.items()),
                lambda kept=kept, contents=contents: _build(storage, kept, contents),  # type: ignore[misc]
                lambda kept=kept, contents=contents: _lost(storage, kept, contents),  # type: ignore[misc]
            )


def pending_count(storage: SimStorage) -> int:
    """How many operations are not durable, where the changes of one file's content are one, and so are all removals
    of small leftovers."""
    _, lasting, removals = _sorted(storage)
    return len(lasting) + bool(removals) + len(profiles.dirty_files(storage))


def _sorted(storage: SimStorage) -> tuple[set[int], list[NameOp], list[NameOp]]:
    """(temporary files coming and going, what matters, removals of small leftovers one by one)."""
    passing, others = profiles.apart(storage.log)
    together = {op.sequence for op in (*passing, *others) if TEMPORARY.match(op.text) and op.text.startswith("unlink")}
    removals = [op for op in (*passing, *others) if op.sequence not in together]
    small = [op for op in removals if LITTER.match(op.text) or op in passing]
    lasting = [op for op in others if not LITTER.match(op.text) and not TEMPORARY.match(op.text)]
    return together, lasting, small


def _build(storage: SimStorage, kept: Sequence[NameOp], contents: dict[int, Class]) -> SimStorage:
    return profiles.SurvivingNames(storage, kept).build({inode: one.content for inode, one in contents.items()})


def _lost(storage: SimStorage, kept: Sequence[NameOp], contents: dict[int, Class]) -> tuple[str, ...]:
    survived = {op.sequence for op in kept}
    paths = {inode: path for path, inode, _ in storage.walk()}
    names = [op.text for op in storage.log if op.sequence not in survived]
    data = [
        f"data of {paths.get(inode, f'inode {inode}')}: {one.text}"
        for inode, one in contents.items()
        if one.text != ALL
    ]
    return (*names, *data)


def survivors(storage: SimStorage, rules: Profile) -> Iterator[list[NameOp]]:
    if rules.names in ("suffix", "none"):
        yield from profiles.survivors(storage, rules)
        return
    together, others, small = _sorted(storage)
    apart = {removal.sequence for removal in small}
    everything = apart | together
    for mask in range((1 << len(others)) - 1, -1, -1):
        lost = {op.sequence for bit, op in enumerate(others) if not mask >> bit & 1}
        if any(op.needs in lost and op.sequence not in lost for op in others):
            continue
        backs = [set[int](), everything] if everything else [set[int]()]
        if not lost and len(everything) > 1:
            backs[1:1] = [{sequence} for sequence in apart] + [together]
        for back in backs:
            gone = lost | back
            yield [op for op in storage.log if op.sequence not in gone]


class _Sums:
    """A sum over a whole tree. Directories in and below which no name changes are summed up once."""

    def __init__(self, storage: SimStorage, now: bool) -> None:
        self._nodes = storage.nodes
        self._now = now
        self._dirty = storage.dirty
        self._moving = {ROOT}
        for op in storage.log:
            inode = op.directory
            while inode not in self._moving:
                self._moving.add(inode)
                node = self._nodes.get(inode)
                inode = node.parent if isinstance(node, DirectoryNode) else ROOT
        self._still: dict[int, tuple[int, list[tuple[int, str]]]] = {}
        self._by_directory: dict[int, list[NameOp]] = {}
        self._links: list[tuple[int, str]] = []
        self.total = self._directory(ROOT, "") if now else 0

    def _directory(self, inode: int, path: str) -> int:
        node = self._nodes[inode]
        assert isinstance(node, DirectoryNode)
        names = node.names if self._now else node.durable
        if inode in self._by_directory:
            names = changed(node.durable, self._by_directory[inode])
        total = 0
        for name, child in names.items():
            below = self._nodes[child]
            where = f"{path}/{name}"
            if isinstance(below, FileNode):
                total += _line(where, below.content if self._now else below.durable)
                if child in self._dirty:
                    self._links.append((child, where))
            elif isinstance(below, DirectoryNode):
                total += hash(where) + (self._directory if child in self._moving else self._unmoved)(child, where)
            else:
                total += hash(f"{where}\n{below[0]}")
        return total

    def _unmoved(self, inode: int, path: str) -> int:
        known = self._still.get(inode)
        if known is None:
            before = len(self._links)
            total = self._directory(inode, path)
            known = self._still[inode] = total, self._links[before:]
        else:
            self._links += known[1]
        return known[0]

    def after(self, kept: Sequence[NameOp]) -> tuple[int, dict[int, list[str]]]:
        """(sum with all contents as they are durable, paths of each changed file) if these changes of names survive."""
        self._by_directory = {}
        for op in kept:
            self._by_directory.setdefault(op.directory, []).append(op)
        self._links = []
        total = self._directory(ROOT, "")
        links: dict[int, list[str]] = {}
        for inode, path in self._links:
            links.setdefault(inode, []).append(path)
        return total, links

    def difference(self, paths: list[str], inode: int, content: Content) -> int:
        """What another content of a file adds."""
        node = self._nodes[inode]
        assert isinstance(node, FileNode)
        if content is node.durable:
            return 0
        return sum(_line(path, content) - _line(path, node.durable) for path in paths)


def _line(path: str, content: Content) -> int:
    # Not the hash of a pair: in a sum, two pairs that exchange their halves often come to the same.
    return hash(content.digest + path.encode(errors="surrogateescape"))
