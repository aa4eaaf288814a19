"""What a power cut may leave: exactly the legal states, for each call of the file door."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.disk.files import SimFiles
from sim.disk.nodes import DirectoryNode, FileNode, LinkNode
from sim.disk.profiles import POSIX, TooManyPending, crash_states, one_state, pending_count
from sim.disk.storage import SimStorage
from sim.hosts.tape import Tape, explore

State = frozenset
MAX = POSIX._replace(max_pending=12)


def fresh(*, old: bytes = b"old!" * 256) -> tuple[SimStorage, SimFiles]:
    """Two directories and one durable file."""
    storage = SimStorage()
    files = SimFiles(storage)
    files.make_directory("/d")
    files.make_directory("/e")
    with files.create("/d/old") as handle:
        handle.write_at(0, old)
    storage.settle()
    return storage, files


def told(content: bytes) -> str:
    """A content in a few letters: empty, z(eros), o(ld), n(ew), each with its length in sectors."""
    if not content:
        return "empty"
    text = ""
    for start in range(0, len(content), 512):
        piece = content[start : start + 512]
        text += {0: "z", ord("o"): "o", ord("n"): "n"}.get(piece[0], "?")
    return text


def shown(storage: SimStorage) -> State:
    found = set()
    for path, _, node in storage.walk():
        if isinstance(node, FileNode):
            found.add(f"{path}={told(node.content.read(0, 1 << 20))}")
        elif isinstance(node, LinkNode):
            found.add(f"{path}->{node.target}")
        elif path not in ("/d", "/e"):
            found.add(f"{path}/")
    return frozenset(found)


def states(act: Callable[[SimFiles], object], profile=MAX) -> list[State]:
    storage, files = fresh()
    act(files)
    found = [shown(state.storage) for state in crash_states(storage, profile)]
    assert len(found) == len(set(found)), "a state is told twice"
    assert found[0] == shown(storage), "the first state is the one in which nothing is lost"
    return found


def sets(*found: Iterable[str]) -> set[State]:
    return {frozenset(one) for one in found}


OLD = "/d/old=oo"
NEW = b"new!" * 256


def write(files: SimFiles, path: str, *, new: bool = True, offset: int = 0, data: bytes = NEW, sync: bool = False):
    with files.create(path) if new else files.open(path, True) as handle:
        handle.write_at(offset, data)
        if sync:
            handle.sync()


def test_an_overwrite_in_place_may_be_old_new_or_torn_between_sectors():
    """Each prefix of 512-byte sectors, and the size never changes."""
    found = states(lambda f: write(f, "/d/old", new=False))
    assert set(found) == sets({OLD}, {"/d/old=nn"}, {"/d/old=no"})


def test_an_append_may_leave_zeros_where_the_data_should_be():
    """Old size, new size with data, new size with zeros; what was durable is never touched."""
    found = states(lambda f: write(f, "/d/old", new=False, offset=1024))
    assert set(found) == sets({OLD}, {"/d/old=oonn"}, {"/d/old=oozz"})


def test_a_new_file_that_was_not_synced():
    """No name; or the name with nothing, zeros, or the data in it. Name and content are independent."""
    found = states(lambda f: write(f, "/d/new"))
    assert set(found) == sets({OLD}, {OLD, "/d/new=empty"}, {OLD, "/d/new=zz"}, {OLD, "/d/new=nn"})


def test_a_synced_file_has_its_content_but_perhaps_no_name():
    """fsync of the file says nothing about its name; sync of the directory does."""
    assert set(states(lambda f: write(f, "/d/new", sync=True))) == sets({OLD}, {OLD, "/d/new=nn"})

    def both(files: SimFiles) -> None:
        write(files, "/d/new", sync=True)
        files.sync_directory("/d")

    assert set(states(both)) == sets({OLD, "/d/new=nn"})


def test_a_named_file_may_be_empty_when_only_its_directory_was_synced():
    """sync of the directory says nothing about the content."""

    def act(files: SimFiles) -> None:
        write(files, "/d/new")
        files.sync_directory("/d")

    assert set(states(act)) == sets({OLD, "/d/new=empty"}, {OLD, "/d/new=zz"}, {OLD, "/d/new=nn"})


def test_several_writes_may_leave_a_hole():
    """All, nothing, sizes alone, all but the first, all but the last."""

    def act(files: SimFiles) -> None:
        with files.create("/d/new") as handle:
            files.sync_directory("/d")
            for number in range(4):
                handle.write_at(number * 512, b"n" * 512)

    texts = ["nnnn", "empty", "zzzz", "znnn", "nnnz"]
    assert set(states(act)) == sets(*({OLD, f"/d/new={text}"} for text in texts))


@pytest.mark.parametrize(("size", "after"), [(512, ["o", "oz"]), (2048, ["oozz"])])
def test_a_truncation_happened_or_not(size: int, after: list[str]):
    """Old or new size; growth reads as zeros. A file may be as long as it was, and what is to go zeros already."""
    found = states(lambda f: f.open("/d/old", True).truncate(size))
    assert set(found) == sets({OLD}, *({f"/d/old={text}"} for text in after))


def test_shrinking_and_then_writing_beyond():
    """Old, shrunk only, grown again with zeros, grown again with data; the old tail never comes back after zeros."""

    def act(files: SimFiles) -> None:
        handle = files.open("/d/old", True)
        handle.truncate(512)
        handle.write_at(1024, b"n" * 512)

    found = set(states(act))
    assert sets({OLD}, {"/d/old=o"}, {"/d/old=ozz"}, {"/d/old=ozn"}) <= found
    assert found <= sets({OLD}, *({f"/d/old={text}"} for text in ["o", "oz", "ozz", "ozn", "oon"]))


def test_a_rename_in_one_directory_is_atomic():
    """The old name or the new one, never both and never none; an old target whole until then."""
    found = states(lambda f: f.rename("/d/old", "/d/x"))
    assert set(found) == sets({OLD}, {"/d/x=oo"})

    def replace(files: SimFiles) -> None:
        write(files, "/d/new", sync=True)
        files.sync_directory("/d")
        files.rename("/d/new", "/d/old")

    assert set(states(replace)) == sets({OLD, "/d/new=nn"}, {"/d/old=nn"})


def test_a_rename_of_an_unsynced_file_over_an_old_one_may_leave_it_empty():
    """The new name is durable and the content is not: the old content is gone."""

    def act(files: SimFiles) -> None:
        write(files, "/d/new")
        files.rename("/d/new", "/d/old")
        files.sync_directory("/d")

    assert set(states(act)) == sets({"/d/old=empty"}, {"/d/old=zz"}, {"/d/old=nn"})


def test_a_rename_across_directories_is_never_no_name():
    """Old name, new name or both, until both directories are synced; syncing the source commits both halves."""
    move = lambda f: f.rename("/d/old", "/e/x")  # noqa: E731
    assert set(states(move)) == sets({OLD}, {OLD, "/e/x=oo"}, {"/e/x=oo"})

    def then(directory: str) -> Callable[[SimFiles], None]:
        def act(files: SimFiles) -> None:
            move(files)
            files.sync_directory(directory)

        return act

    assert set(states(then("/e"))) == sets({OLD, "/e/x=oo"}, {"/e/x=oo"})
    assert set(states(then("/d"))) == sets({"/e/x=oo"})


def test_names_in_different_directories_and_of_different_files_are_independent():
    """link, unlink and mkdir survive each for itself."""

    def act(files: SimFiles) -> None:
        files.link("/d/old", "/e/second")
        files.unlink("/d/old")
        files.make_directory("/e/sub")

    expected = []
    for linked in (True, False):
        for unlinked in (True, False):
            for made in (True, False):
                names = {"/e/second=oo"} if linked else set()
                names |= set() if unlinked else {OLD}
                names |= {"/e/sub/"} if made else set()
                expected.append(names)
    assert set(states(act)) == sets(*expected)


def test_a_removed_file_comes_back_whole():
    """An unlink that was not synced: the name is back with its durable content, also while somebody has it open."""

    def act(files: SimFiles) -> None:
        handle = files.open("/d/old")
        files.unlink("/d/old")
        assert handle.read_at(0, 3) == b"old"

    assert set(states(act)) == sets(set(), {OLD})


def test_what_is_in_a_directory_that_is_lost_is_lost():
    """A synced directory inside one whose name is not durable may be gone with all that is in it."""

    def act(files: SimFiles) -> None:
        files.make_directory("/e/sub")
        write(files, "/e/sub/x", sync=True)
        files.sync_directory("/e/sub")

    assert set(states(act)) == sets({OLD}, {OLD, "/e/sub/", "/e/sub/x=nn"})


def test_a_symbolic_link_is_a_name():
    """There or not."""
    assert set(states(lambda f: f.symlink("t", "/e/l"))) == sets({OLD}, {OLD, "/e/l->t"})


def test_a_failed_sync_loses_the_data_for_good():
    """After EIO the file reads as written, a later sync succeeds, and after a crash the data is not there."""
    storage, files = fresh()
    handle = files.open("/d/old", True)
    handle.write_at(0, NEW)
    storage.lose_pending(handle.inode)
    assert handle.read_at(0, 3) == b"new"
    handle.sync()
    assert {shown(s.storage) for s in crash_states(storage)} == sets({OLD})
    handle.write_at(512, b"n" * 512)
    handle.sync()
    assert {shown(s.storage) for s in crash_states(storage)} == sets({"/d/old=on"})


def test_passing_files_come_back_alone_or_together():
    """Files that were made and removed are one bit each and count as one operation together."""

    def act(files: SimFiles) -> None:
        for name in "xyz":
            write(files, f"/e/{name}", sync=True)
            files.unlink(f"/e/{name}")

    storage, files = fresh()
    act(files)
    assert len(storage.log) == 6 and pending_count(storage) == 1
    x, y, z = "/e/x=nn", "/e/y=nn", "/e/z=nn"
    assert set(states(act)) == sets({OLD}, {OLD, x}, {OLD, y}, {OLD, z}, {OLD, x, y, z})


def test_too_many_pending_operations_are_named():
    """More than allowed is an error that names each; the limit can be set."""
    storage, files = fresh()
    for number in range(9):
        files.make_directory(f"/e/{number}")
    with pytest.raises(TooManyPending, match="9 operations are not durable, over 8") as caught:
        next(crash_states(storage))
    assert all(f"mkdir /e/{number}" in str(caught.value) for number in range(9))
    assert len(list(crash_states(storage, MAX))) == 512


def test_a_journal_loses_a_suffix():
    """Names are lost from the end only, and a sync of any file commits all before it."""

    def act(files: SimFiles) -> None:
        files.make_directory("/e/1")
        files.make_directory("/e/2")
        files.rename("/d/old", "/e/x")

    assert set(states(act, "journal")) == sets(
        {OLD}, {OLD, "/e/1/"}, {OLD, "/e/1/", "/e/2/"}, {"/e/x=oo", "/e/1/", "/e/2/"}
    )

    def then_sync(files: SimFiles) -> None:
        act(files)
        write(files, "/e/other", sync=True)
        files.make_directory("/e/3")

    base = {"/e/x=oo", "/e/1/", "/e/2/", "/e/other=nn"}
    assert set(states(then_sync, "journal")) == sets(base, base | {"/e/3/"})


def test_a_journal_still_loses_data():
    """Content of a file is independent of a later sync of another."""

    def act(files: SimFiles) -> None:
        write(files, "/d/old", new=False)
        write(files, "/e/other", sync=True)

    found = set(states(act, "journal"))
    assert found == sets(*({f"/d/old={text}", "/e/other=nn"} for text in ("oo", "nn", "no")))


def test_a_kill_loses_nothing_and_a_later_power_cut_may():
    """After the death of a process everything is there, and still not durable."""
    storage, files = fresh()
    write(files, "/d/new")
    (state,) = crash_states(storage, "process")
    assert shown(state.storage) == shown(storage)
    assert len(list(crash_states(state.storage))) == 4


OPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["create", "unlink", "mkdir", "rmdir"]), st.sampled_from(["/d/a", "/d/b", "/e/a"])),
        st.tuples(
            st.sampled_from(["link", "rename"]), st.sampled_from(["/d/a", "/d/old"]), st.sampled_from(["/d/b", "/e/a"])
        ),
        st.tuples(st.just("write"), st.sampled_from(["/d/a", "/d/old"]), st.sampled_from([0, 512, 4096])),
        st.tuples(st.just("truncate"), st.sampled_from(["/d/a", "/d/old"]), st.sampled_from([0, 512, 4096])),
        st.tuples(st.sampled_from(["sync", "sync_directory"]), st.sampled_from(["/d/a", "/d/old", "/d", "/e"])),
    ),
    max_size=6,
)


def run(files: SimFiles, ops: list[tuple]) -> None:
    for kind, path, *rest in ops:
        try:
            if kind == "create":
                files.create(path).close()
            elif kind == "unlink":
                files.unlink(path)
            elif kind == "mkdir":
                files.make_directory(path)
            elif kind == "rmdir":
                files.remove_directory(path)
            elif kind in ("link", "rename"):
                getattr(files, kind)(path, rest[0])
            elif kind == "sync_directory":
                files.sync_directory(path)
            else:
                with files.open(path, True) as handle:
                    if kind == "write":
                        handle.write_at(rest[0], b"n" * 512)
                    elif kind == "truncate":
                        handle.truncate(rest[0])
                    else:
                        handle.sync()
        except OSError:
            continue


@given(OPS)
def test_every_state_is_a_sound_file_system(ops):
    """Names lead to nodes, link counts and used room are right, nothing is pending, and fingerprints tell states apart;
    the journal's names are among the subsets, and a crash of a crash state leaves it as it is."""
    storage, files = fresh()
    run(files, ops)
    texts: dict[object, bytes] = {}
    for state in crash_states(storage, MAX):
        check(state.storage)
        assert state.fingerprint == state.storage.fingerprint()
        assert texts.setdefault(with_links(state.storage), state.fingerprint) == state.fingerprint
        assert [again.fingerprint for again in crash_states(state.storage)] == [state.fingerprint]
    assert len(set(texts.values())) == len(texts)
    assert all(with_links(state.storage) in texts for state in crash_states(storage, "journal"))


def with_links(storage: SimStorage) -> object:
    """What is there, and which names are one file."""
    names: dict[int, set[str]] = {}
    for path, inode, _ in storage.walk():
        names.setdefault(inode, set()).add(path)
    return shown(storage), frozenset(map(frozenset, names.values()))


def check(storage: SimStorage) -> None:
    counts: dict[int, int] = {}
    used = 4096
    assert not storage.log and not storage.dirty and not storage.pending()
    for path, inode, node in storage.walk():
        counts[inode] = counts.get(inode, 0) + 1
        assert storage.stat(path).inode == inode
        if isinstance(node, DirectoryNode):
            used += 4096
            assert node.names == node.durable
        elif isinstance(node, FileNode) and counts[inode] == 1:
            used += node.content.allocated
            assert node.content is node.durable
    for inode, count in counts.items():
        node = storage.nodes[inode]
        assert isinstance(node, DirectoryNode) or node.links == count
    assert storage.capacity - storage.space("/").free_bytes == used
    assert storage.nodes.keys() == {1, *counts}


@given(OPS, OPS)
def test_a_clone_is_independent(ops, later):
    """What happens after a clone changes only the one to which it happens."""
    storage, files = fresh()
    run(files, ops)
    before = storage.fingerprint(), sorted(storage.pending())
    copy = storage.clone()
    run(SimFiles(copy), later)
    assert (storage.fingerprint(), sorted(storage.pending())) == before
    other, other_files = fresh()
    run(other_files, [*ops, *later])
    assert other.fingerprint() == copy.fingerprint()


@given(OPS)
def test_the_tape_reaches_all_states(ops):
    """Drawing one state choice by choice can give every enumerated state, and 0 always means that nothing is lost."""
    storage, files = fresh()
    run(files, ops)
    if len(storage.log) + len(storage.dirty) > 6:
        return
    enumerated = {state.fingerprint for state in crash_states(storage, MAX)}
    drawn = set()
    for tape in explore():
        state, lost = one_state(storage, MAX, tape.choose)
        check(state)
        if not any(tape.values):
            assert not lost and state.fingerprint() == storage.fingerprint()
        drawn.add(state.fingerprint())
    assert enumerated <= drawn
    assert next(crash_states(storage, MAX)).fingerprint in drawn
    assert one_state(storage, MAX, Tape().choose)[0].fingerprint() == storage.fingerprint()


def test_fingerprints_know_hard_links_and_not_inode_numbers():
    """Two names of one file differ from two equal files; equal trees made in another order are equal."""
    prints = []
    for kind in ("link", "copy", "other order"):
        storage = SimStorage()
        files = SimFiles(storage)
        if kind == "other order":
            write(files, "/y")
            write(files, "/x")
        else:
            write(files, "/x")
            if kind == "link":
                files.link("/x", "/y")
            else:
                write(files, "/y")
        prints.append(storage.fingerprint())
    assert prints[0] != prints[1]
    assert prints[1] == prints[2]


def test_what_no_crash_can_bring_back_is_forgotten():
    """Files and directories that are durably gone cost nothing and count as nothing, whatever was pending in them."""
    storage, files = fresh()
    nodes = len(storage.nodes)
    for number in range(20):
        files.make_directory("/e/sub")
        write(files, "/e/sub/x")
        files.rename("/e/sub/x", "/d/x")
        files.unlink("/d/x")
        files.remove_directory("/e/sub")
        with files.create(f"/d/{number}") as handle:
            files.unlink(f"/d/{number}")
            files.sync_directory("/d")
            assert handle.stat().links == 0
        files.sync_directory("/e")
    assert len(storage.nodes) == nodes
    assert not storage.pending() and not storage.dirty
