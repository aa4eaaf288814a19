"""What decides, for a whole tree, what each name and each content in it counts as: its tags with all their generations.

A ``Context`` is one for all trees with the same tags, so that what a line of a tree comes to is found once and then
looked up: states of one power cut differ in a few files, and mostly not in their tags.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from hashlib import blake2b
from itertools import count

from sim.disk.content import Content
from sim.explore.search.counted import BEFORE, LARGEST_RECORD, Path, Record, layer_of, line_of, record_of, taken_apart

_MAKING = " in the making"
_MOST_NUMBERS = 400_000

_tokens = count(1)


class Tag:
    """The generations of one tag."""

    def __init__(self, key: str, records: dict[int, Record]) -> None:
        self.token = next(_tokens)
        """Another one for each tag with other generations; none is given twice."""
        self.generations = sorted(records)
        self.records = records
        # The newest one has the last word.
        self.ids = [
            (volume, f"{key[-32:]}:{role}") for number in self.generations for volume, role in records[number].ids
        ]

    @property
    def newest(self) -> Record:
        """What counts."""
        return self.records[self.generations[-1]]


_tags: dict[tuple[object, ...], Tag] = {}
_contexts: dict[tuple[object, ...], Context] = {}
_numbers: dict[tuple[object, ...], dict[tuple[object, ...], int]] = {}
"""By what decides about all lines, then by path, content, and the tags that a line depends on besides."""
_known = count(1)


def tag_of(key: str, contents: Mapping[int, Content]) -> Tag:
    """Return the tag with these generations."""
    signature = (key, *sorted((number, content.digest) for number, content in contents.items()))
    known = _tags.get(signature)
    if known is None:
        known = _tags[signature] = Tag(key, {number: record_of(content) for number, content in contents.items()})
    return known


def context_of(
    exact: bool, settled: bool, tags: Mapping[str, Tag], progress: Iterable[tuple[Path, Content]]
) -> Context:
    """Return the context of a tree with these tags by their keys, and all its files of progress. ``settled``: nothing
    that counts is not durable."""
    making: set[str] = set()
    if not exact and any(tag.newest.making for tag in tags.values()):
        making = {tag.newest.making for tag in tags.values()} - {""}
        for path, content in progress:
            tag = tags.get(path.tags[0])
            if tag is not None and line_of(content).cursor:  # what is below it counts
                making.discard(tag.newest.making)
    key = (exact, settled, frozenset([tag.token for tag in tags.values()]), *sorted(making))
    known = _contexts.get(key)
    if known is None:
        known = _contexts[key] = Context(exact, settled, tags, making)
    return known


def _number_of(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="surrogateescape"), digest_size=16).digest(), "big")


def _forget() -> None:
    global _known
    for table in (_tags, _contexts, _numbers):
        table.clear()
    _known = count(1)


class Context:
    """What names and contents count as. See ``sim.explore.search.canonical`` for what makes no difference."""

    def __init__(self, exact: bool, settled: bool, tags: Mapping[str, Tag], making: Collection[str]) -> None:
        self.settled = settled
        self.making = making
        """Volumes of whose content nothing counts."""
        self._exact = exact
        self._tags = tags
        self._ids = {volume: name for _, tag in sorted(tags.items()) for volume, name in tag.ids}
        self.stamps = [
            (f"{key} {rank}", f"{key[:-33]}/{record.stamp.path}", record.stamp)
            for key, tag in tags.items()
            for rank, record in enumerate(reversed([tag.records[number] for number in tag.generations]))
            if record.stamp and not (rank and settled)
        ]
        """What the records that count say of volumes at rest: (whose, path of the volume, what)."""
        self._numbers = _numbers.setdefault((exact, settled, *self._ids.items(), *sorted(making)), {})

    def number(self, path: str, apart: Path, content: Content | str) -> int:
        """What the line of a file comes to; ``content`` of what is no file is what it is instead."""
        what = content if isinstance(content, str) else content.digest
        key = (path, what, *[tag and tag.token for tag in map(self._tags.get, apart.tags)])
        known = self._numbers.get(key)
        if known is None:
            known = self._numbers[key] = _number_of(self.line(path, content))
            if next(_known) > _MOST_NUMBERS:
                _forget()
        return known

    def stamped(self, found: Callable[[str], tuple[int, int] | None]) -> Iterator[int]:
        """What comes of the stamps, given inode and time of the last write of files by their paths. Of a volume that is
        as it was seen it makes no difference how that was."""
        for whose, path, stamp in self.stamps:
            now = found(path)
            same = [now is not None and stamp.inode == now[0], now is not None and stamp.mtime == now[1]]
            raw = [None if equal else number for equal, number in zip(same, stamp[1:], strict=True)]
            yield _number_of(f"{whose} has seen {now is None} {raw}")

    def name(self, path: str) -> str:
        """A path as it counts."""
        kind, root, subject, rest, number, _ = taken_apart(path)
        if kind == "tag":
            tag = self._tags.get(f"{root} {subject}")
            rank = len(tag.generations) - tag.generations.index(number) if tag and number in tag.records else 0
            mark = "t" if not number & ((1 << 48) - 1) else ""
            if rank == 2 and self.settled and tag and tag.generations[-1] & ((1 << 48) - 1):
                return f"{root}/tags/{subject}{BEFORE}"
            return f"{root}/tags/{subject}.{min(rank, 2) if self.settled else rank}{mark}{rest}"
        if kind == "volume":
            return f"{root}/volumes/{self._ids.get(subject, subject)}{rest}"
        if kind == "use":
            tag = self._tags.get(f"{root} {rest}")
            early = number > (tag.generations[-1] if tag else 0)
            return f"{root}/uses/{self._ids.get(subject, subject)}.{rest}.{early}{bool(number)}"
        if kind == "progress":
            tag = self._tags.get(f"{root} {subject}")
            age = tag.newest.epoch - number if tag else 2
            return f"{root}/progress/{subject}.{age}" if tag and age < 2 else f"{root}/progress/old"
        if kind == "temporary":
            return f"{root}/tmp/{rest}"
        return self._renamed(path) if kind == "digests" else path

    def line(self, path: str, content: Content | str) -> str:
        """A name with its content as both count."""
        name = self.name(path)
        if isinstance(content, str):
            return f"{name} {content}"
        kind = taken_apart(path).kind
        if kind == "tag" and self.settled and name.endswith(BEFORE):
            return "kept"  # nobody reads it
        if self._is_litter(kind, path, name):
            if not self._exact:
                return "litter"
            return name.rpartition(".")[0] + ".old" if kind == "progress" else name
        return f"{name} {self.token(path, content)}"

    def _is_litter(self, kind: str, path: str, name: str) -> bool:
        if kind == "temporary" or name.endswith("/progress/old"):
            return True
        if not self.settled:
            return False
        if kind == "use":
            return not self._is_needed(taken_apart(path))
        if kind == "tag":
            return name.endswith((".2", ".2t"))
        if kind == "progress":
            tag = self._tags.get(taken_apart(path).tags[0])
            return tag is None or not tag.newest.working or not name.endswith(".0")
        return False

    def _is_needed(self, use: Path) -> bool:
        """Whether the newest record of the user speaks of the subject; of generation 0, whether that is there."""
        tag = self._tags.get(f"{use.root} {use.rest if use.number else use.id}")
        if tag is None or tag.generations[-1] & ((1 << 48) - 1) == 0:
            return False
        return not use.number or use.id in tag.newest.text

    def token(self, path: str, content: Content) -> str:
        """A content as it counts."""
        apart = taken_apart(path)
        if apart.kind == "tag" and content.size <= LARGEST_RECORD:
            found = record_of(content)
            tag = self._tags.get(apart.tags[0])
            return f"{self._renamed(found.text)} {(tag.newest.epoch if tag else 0) - found.epoch}"
        if apart.kind == "progress":
            return self._renamed(line_of(content).text)
        if apart.kind == "volume" and apart.id in self.making:
            return _MAKING
        if apart.rest == ".qcow2" and not self._exact:
            return self._renamed(layer_of(content))
        return content.digest.hex()

    def _renamed(self, text: str) -> str:
        for volume, name in self._ids.items():
            if volume in text:
                text = text.replace(volume, name)
        return text
