"""Every state that a power cut may leave, under the rules of one kind of file system.

``posix`` (what must be survived): of the changes of names any subset survives, of each file's
content one of a few classes, all independent of each other. Durable are only the content of a
file after its own sync and the names in a directory after its own sync. A rename is one change;
across directories the old name is never lost without the new one being there.

``journal`` (ext4, xfs): changes of names (and of size alone) are lost as a suffix only, and a sync
of anything commits all earlier ones. Contents as in ``posix``.

``nfs`` (NFS with a synchronous export): names are never lost, since the server has them before it answers; contents
as in ``posix`` up to their sync, or to the close of the file, which flushes it. And what one host does to names
others may see late (``sim.disk.nfs_view``).

``process``: a process was killed and the machine goes on: nothing is lost.

Classes of what may be left of a file whose content was changed since its last sync: nothing of it;
all; all but the first or the last change (a hole); sizes alone (zeros where data should be); up to
each truncation or change of the whole; and of a change that overwrites a small file in place each prefix of 512-byte
sectors (torn). ALICE's garbage in appended blocks is left out: no journalling file system that
orders data shows it. Mixes of blocks beyond these classes are left out to keep the number of states
enumerable; what is collapsed into classes counts as one pending operation. Files that were made and
removed again (temporary ones) come back each alone or all at once, not in every combination.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

from sim.disk.content import Content
from sim.disk.nodes import ROOT, DataOp, DirectoryNode, FileNode, NameOp, Node
from sim.disk.storage import SimStorage
from sim.disk.tree import DIRECTORY_BYTES, changed


class Profile(NamedTuple):
    """The rules of one kind of storage."""

    name: str
    names: str
    """subset, suffix, none or kept: which changes of names may be lost; kept: no content either."""
    max_pending: int = 8
    """More at once is an error of the engine's discipline, and too many to enumerate."""
    sector: int = 512
    torn_bytes: int = 64 * 1024
    """Files up to this length may have torn overwrites."""
    remote: bool = False
    """Hosts see the storage through caches of their own, and closing a file flushes it."""


POSIX = Profile("posix", "subset")
JOURNAL = Profile("journal", "suffix")
PROCESS = Profile("process", "kept")
NFS = Profile("nfs", "none", remote=True)
PROFILES = {profile.name: profile for profile in (POSIX, JOURNAL, PROCESS, NFS)}


class TooManyPending(AssertionError):
    """More operations are not durable than the profile allows; the text names them."""


class CrashState(NamedTuple):
    """A storage as it is found after a power cut: everything in it is durable, nothing is open."""

    storage: SimStorage
    lost: tuple[str, ...]
    """What did not survive, one text per operation; empty in the first state."""
    kept: tuple[str, ...]
    fingerprint: bytes


class Class(NamedTuple):
    """One thing that may be left of a changed file."""

    content: Content
    text: str


ALL = "all"


def crash_states(storage: SimStorage, profile: Profile | str = POSIX) -> Iterator[CrashState]:
    """All distinct states, the one in which nothing is lost first. TooManyPending before the first one.

    ``storage`` is not changed, and must not be while the iterator is in use."""
    rules = PROFILES[profile] if isinstance(profile, str) else profile
    if rules.names == "kept":
        state = storage.clone()
        yield CrashState(state, (), (), state.fingerprint())
        return
    _require_few(storage, rules)
    classes = {inode: classes_of(storage, inode, rules) for inode in dirty_files(storage)}
    paths = {inode: path for path, inode, _ in storage.walk()} if classes else {}
    seen: set[bytes] = set()
    for kept in survivors(storage, rules):
        frame = SurvivingNames(storage, kept)
        lost_names = [op.text for op in storage.log if op not in kept]
        kept_names = [op.text for op in kept]
        changing = [inode for inode in classes if inode in frame.links]
        for chosen in product(*(classes[inode] for inode in changing)):
            state = frame.build(dict(zip(changing, (c.content for c in chosen), strict=True)))
            fingerprint = state.fingerprint()
            if fingerprint in seen:
                continue
            seen.add(fingerprint)
            lost, survived = list(lost_names), list(kept_names)
            for inode, one in zip(changing, chosen, strict=True):
                what = f"data of {paths.get(inode, f'inode {inode}')}"
                if one.text == ALL:
                    survived.append(what)
                else:
                    lost.append(f"{what}: {one.text}")
            yield CrashState(state, tuple(lost), tuple(survived), fingerprint)


def one_state(
    storage: SimStorage, profile: Profile | str, choose: Callable[[int, str], int]
) -> tuple[SimStorage, list[str]]:
    """Return one of the states, each decision taken by ``choose(options, label)``, and what was lost. 0 keeps
    everything.

    Any number of operations may be pending."""
    rules = PROFILES[profile] if isinstance(profile, str) else profile
    if rules.names == "kept":
        return storage.clone(), []
    if rules.names == "none":
        kept = list(storage.log)
    elif rules.names == "suffix":
        forced = sum(op.sequence <= storage.synced for op in storage.log)
        count = len(storage.log) - choose(len(storage.log) - forced + 1, "names lost")
        while count < len(storage.log) and storage.log[count].needs:
            count -= 1
        kept = storage.log[:count]
    else:
        kept, lost_sequences = [], set[int]()
        for op in storage.log:
            if op.needs in lost_sequences or choose(2, f"lost: {op.text}"):
                lost_sequences.add(op.sequence)
            else:
                kept.append(op)
    frame = SurvivingNames(storage, kept)
    lost = [op.text for op in storage.log if op not in kept]
    contents = {}
    for inode in storage.dirty:
        if inode in frame.links:
            classes = classes_of(storage, inode, rules)
            chosen = classes[choose(len(classes), f"data of inode {inode}")]
            contents[inode] = chosen.content
            if chosen.text != ALL:
                lost.append(f"data of inode {inode}: {chosen.text}")
    return frame.build(contents), lost


def pending_count(storage: SimStorage) -> int:
    """How many operations are not durable, after collapsing: the changes of one file's content are one, and so are
    all files that were made and removed again without either being durable."""
    passing, others = apart(storage.log)
    return bool(passing) + len(others) + len(dirty_files(storage))


def _require_few(storage: SimStorage, rules: Profile) -> None:
    count = pending_count(storage)
    if count > rules.max_pending:
        listed = "\n  ".join(storage.pending())
        raise TooManyPending(f"{count} operations are not durable, over {rules.max_pending}:\n  {listed}")


def dirty_files(storage: SimStorage) -> list[int]:
    """Files whose content may differ from state to state: those that are in any state at all."""
    named = {inode for op in storage.log for change in op.changes for inode in change[1:]}
    found = []
    for inode in storage.dirty:
        node = storage.nodes[inode]
        if inode in named or (isinstance(node, FileNode) and node.links):
            found.append(inode)
    return found


# -- names


def survivors(storage: SimStorage, rules: Profile) -> Iterator[list[NameOp]]:
    """The sets of changes of names that may survive, the whole one first."""
    log = storage.log
    if rules.names == "none":
        yield list(log)
        return
    if rules.names == "suffix":
        forced = sum(op.sequence <= storage.synced for op in log)
        for count in range(len(log), forced - 1, -1):
            # Both halves of a rename are one transaction.
            if count < len(log) and log[count].needs:
                continue
            yield log[:count]
        return
    passing, others = apart(log)
    for mask in range((1 << len(others)) - 1, -1, -1):
        lost = {op.sequence for bit, op in enumerate(others) if not mask >> bit & 1}
        if any(op.needs in lost and op.sequence not in lost for op in others):
            continue
        for back in _reappearing(passing):
            gone = lost | back
            yield [op for op in log if op.sequence not in gone]


def apart(log: Sequence[NameOp]) -> tuple[list[NameOp], list[NameOp]]:
    """(removals of files that were made and removed again, every operation that has to do with neither). Whatever of
    such a pair survives, the name is there or is not: one bit, and not two."""
    touching: dict[tuple[int, str], list[NameOp]] = {}
    for op in log:
        for name, _, _ in op.changes:
            touching.setdefault((op.directory, name), []).append(op)
    needed = {op.needs for op in log}
    pending = {op.sequence for op in log}
    removals, paired = [], set[int]()
    for ops in touching.values():
        if len(ops) != 2 or len(ops[0].changes) + len(ops[1].changes) != 2:
            continue
        (_, before, made), (_, removed, after) = ops[0].changes[0], ops[1].changes[0]
        if before or after or made != removed or ops[0].sequence in needed or ops[1].needs in pending:
            continue
        removals.append(ops[1])
        paired |= {ops[0].sequence, ops[1].sequence}
    return removals, [op for op in log if op.sequence not in paired]


def _reappearing(removals: Sequence[NameOp]) -> Iterator[set[int]]:
    """Which of the removals are lost, so that what they removed is back: none, each alone, all at once. Leftovers of
    this kind know nothing of each other, and verbs leave one each; so not every subset of them."""
    yield set()
    for removal in removals:
        yield {removal.sequence}
    if len(removals) > 1:
        yield {removal.sequence for removal in removals}


class SurvivingNames:
    """The names of one state; contents are put in later."""

    def __init__(self, storage: SimStorage, kept: Sequence[NameOp]) -> None:
        self._storage = storage
        by_directory: dict[int, list[NameOp]] = {}
        for op in kept:
            by_directory.setdefault(op.directory, []).append(op)
        self._nodes: dict[int, Node] = {}
        self.links: dict[int, int] = {}
        """Names of each inode that is not a directory."""
        self._used = 0
        todo = [(ROOT, ROOT)]
        found = {ROOT}
        while todo:
            inode, parent = todo.pop()
            node = storage.nodes[inode]
            assert isinstance(node, DirectoryNode)
            names = changed(node.durable, by_directory[inode]) if inode in by_directory else node.durable
            twice = []
            for name, child in names.items():
                below = storage.nodes[child]
                if not isinstance(below, DirectoryNode):
                    self.links[child] = self.links.get(child, 0) + 1
                    self._nodes[child] = below
                elif child in found:
                    twice.append(name)
                else:
                    found.add(child)
                    todo.append((child, inode))
            if twice:  # half a move: a directory has one name only
                names = {name: child for name, child in names.items() if name not in twice}
            if names is not node.names or names is not node.durable or node.parent != parent:
                node = DirectoryNode(names, names, parent)
            self._nodes[inode] = node
            self._used += DIRECTORY_BYTES

    def build(self, contents: dict[int, Content]) -> SimStorage:
        """The state with these contents for files that were changed."""
        state = self._storage.blank()
        nodes = self._nodes.copy()
        used = self._used
        for inode, links in self.links.items():
            node = nodes[inode]
            if isinstance(node, FileNode):
                content = contents.get(inode, node.durable)
                used += content.allocated
                if node.links != links or node.content is not content or node.pending or node.tainted:
                    nodes[inode] = FileNode(content, content, (), False, links, node.mtime)
            elif not isinstance(node, DirectoryNode) and node.links != links:
                nodes[inode] = node._replace(links=links)
        state.nodes = nodes
        state._used = used
        state.synced = state.sequence
        return state


# -- contents


def classes_of(storage: SimStorage, inode: int, rules: Profile) -> list[Class]:
    """What may be left of a changed file, all of it first; what is alike is told once."""
    node = storage.nodes[inode]
    assert isinstance(node, FileNode)
    base, ops = node.durable, list(node.pending)
    if rules.names == "suffix":
        while ops and ops[0].kind == "truncate" and ops[0].sequence <= storage.synced:
            base = ops.pop(0).apply(base)
    found: list[Class] = []
    possible = _sectors if inode in storage.devices else _possible
    for one in possible(node, base, ops, rules):
        if not any(one.content.same(other.content) for other in found):
            found.append(one)
    return found


def _possible(node: FileNode, base: Content, ops: list[DataOp], rules: Profile) -> Iterator[Class]:
    whole = _applied(base, ops) if node.tainted else node.content
    yield Class(whole, "what a failed sync had not written" if node.tainted else ALL)
    yield Class(base, "all of it")
    written = [op for op in ops if op.kind != "truncate"]
    if len(written) > 1:
        for missing in (written[0], written[-1]):
            rest = [op for op in ops if op is not missing]
            yield Class(_applied(base, rest, whole.size), f"a hole: {missing}")
    yield Class(_sizes_alone(base, ops), "all but the size")
    for count, op in enumerate(ops, 1):
        if op.kind in ("truncate", "clone") and count < len(ops):
            yield Class(_applied(base, ops[:count]), f"everything after: {op}")
    yield from _wiped(base, ops, rules.sector)
    if node.content.size <= rules.torn_bytes and base.size:
        yield from _torn(base, ops, rules.sector)


def _wiped(base: Content, ops: Sequence[DataOp], sector: int) -> Iterator[Class]:
    """Before a file is shorter, what is behind its new end in the last block may be zeros already (seen on xfs)."""
    for count, op in enumerate(ops):
        if op.kind != "truncate":
            continue
        before = _applied(base, ops[:count])
        end = min(before.size, -(-op.length // _BLOCK_BYTES) * _BLOCK_BYTES)
        for cut in range(op.length + sector - op.length % sector, end + sector, sector):
            wiped = before.fill(op.length, min(cut, end) - op.length, 0) if op.length < end else before
            yield Class(wiped, f"the size, with zeros up to {min(cut, end)}: {op}")


_BLOCK_BYTES = 4096
_ALONE = 4
"""So many writes to a device are also left out, or kept, one by one."""


def _sectors(node: FileNode, base: Content, ops: list[DataOp], rules: Profile) -> Iterator[Class]:
    """What may be left of writes to a device: all, none, all but one, one alone; and one that is small torn, with
    those before it there and those after it there or not."""
    whole = _applied(base, ops) if node.tainted else node.content
    yield Class(whole, "what a failed sync had not written" if node.tainted else ALL)
    yield Class(base, "all of it")
    chosen = range(len(ops)) if len(ops) <= _ALONE else (0, len(ops) - 2, len(ops) - 1)
    for index in chosen:
        yield Class(_applied(base, [*ops[:index], *ops[index + 1 :]]), f"a hole: {ops[index]}")
        if len(ops) > 2:
            yield Class(_applied(base, [ops[index]]), f"all but: {ops[index]}")
    for index in chosen:
        op = ops[index]
        if op.kind != "clone" and op.length <= 2 * rules.torn_bytes:
            for part, text in _parts(op, rules.sector):
                yield Class(_applied(base, [*ops[:index], part]), f"{text}, and everything after")
                yield Class(_applied(base, [*ops[:index], part, *ops[index + 1 :]]), text)


def _parts(op: DataOp, sector: int) -> Iterator[tuple[DataOp, str]]:
    """Beginnings and ends of a write, cut between two sectors."""
    cuts = range(sector, op.length, sector)
    for cut in cuts if len(cuts) <= 8 else (cuts[0], cuts[len(cuts) // 2], cuts[-1]):
        data = op.data
        head, tail = (data[:cut], data[cut:]) if isinstance(data, bytes) else (data, data)
        yield op._replace(length=cut, data=head), f"torn, without what follows {cut}: {op}"
        end = op._replace(offset=op.offset + cut, length=op.length - cut, data=tail)
        yield end, f"torn, without the first {cut}: {op}"


def _applied(base: Content, ops: Sequence[DataOp], size: int | None = None) -> Content:
    for op in ops:
        base = op.apply(base)
    return base if size is None else base.truncate(size)


def _sizes_alone(base: Content, ops: Sequence[DataOp]) -> Content:
    for op in ops:
        if op.kind == "truncate":
            base = base.truncate(op.length)
        elif op.kind == "clone":
            continue  # all or nothing
        elif op.kind != "punch" and op.offset + op.length > base.size:
            base = base.truncate(op.offset + op.length)
    return base


def _torn(base: Content, ops: Sequence[DataOp], sector: int) -> Iterator[Class]:
    """The last change that overwrites what was durable, cut between two sectors."""
    for index in range(len(ops) - 1, -1, -1):
        op = ops[index]
        if isinstance(op.data, bytes) and op.offset < base.size:
            break
    else:
        return
    before = _applied(base, ops[:index])
    first_cut = (op.offset // sector + 1) * sector
    cuts = range(first_cut, op.offset + op.length, sector)
    for cut in cuts if len(cuts) <= 8 else (cuts[0], cuts[len(cuts) // 2], cuts[-1]):
        yield Class(before.write(op.offset, op.data[: cut - op.offset]), f"torn at {cut}: {op}")
