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

from collections.abc import Collection, Iterator, Sequence
from itertools import product

from sim.disk import profiles
from sim.disk.content import Content
from sim.disk.nodes import NameOp
from sim.disk.profiles import ALL, Class, Profile
from sim.disk.storage import SimStorage
from sim.explore.search.canonical import canonical_key
from sim.explore.search.counted import LITTER, TEMPORARY
from sim.explore.search.frames import Frame, Frames


class Cut:
    """One state. What is asked of it is found when it is asked for."""

    def __init__(self, storage: SimStorage, frame: Frame, kept: Sequence[NameOp], classes: dict[int, Class]) -> None:
        self._storage, self._frame, self._kept, self._classes = storage, frame, kept, classes

    @property
    def _contents(self) -> dict[int, Content]:
        return {inode: one.content for inode, one in self._classes.items()}

    @property
    def key(self) -> int:
        """Equal for equal names and contents, in this process."""
        return self._frame.total(self._contents)

    def canonical(self) -> bytes:
        """Its ``canonical_key``, not exact."""
        return self._frame.canonical(self._contents) or canonical_key(self.build(), exact=False)

    def build(self) -> SimStorage:
        """The storage."""
        return profiles.SurvivingNames(self._storage, self._kept).build(self._contents)

    def lost(self) -> tuple[str, ...]:
        """What did not survive, one text per operation."""
        survived = {op.sequence for op in self._kept}
        paths = {inode: path for path, inode, _ in self._storage.walk()}
        names = [op.text for op in self._storage.log if op.sequence not in survived]
        data = [
            f"data of {paths.get(inode, f'inode {inode}')}: {one.text}"
            for inode, one in self._classes.items()
            if one.text != ALL
        ]
        return (*names, *data)


class _Killed(Cut):
    """Nothing is lost."""

    def build(self) -> SimStorage:
        return self._storage.clone()

    def canonical(self) -> bytes:
        return canonical_key(self._storage, exact=False)

    def lost(self) -> tuple[str, ...]:
        return ()


def cuts(storage: SimStorage, rules: Profile, boring: Collection[int] = ()) -> Iterator[Cut]:
    """All states, the one in which nothing is lost first; some may come twice."""
    if rules.names == "kept":
        yield _Killed(storage, Frames(storage, now=True).frame(()), (), {})
        return
    frames = Frames(storage)
    classes = {inode: profiles.classes_of(storage, inode, rules) for inode in profiles.dirty_files(storage)}
    for inode in classes.keys() & set(boring):
        classes[inode] = classes[inode][:2]
    for kept in survivors(storage, rules):
        frame = frames.frame(kept)
        changing = [inode for inode in classes if inode in frame.links]
        for chosen in product(*(classes[inode] for inode in changing)):
            yield Cut(storage, frame, kept, dict(zip(changing, chosen, strict=True)))


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
