"""States of a power cut that are told apart before they are built: the same states, and never two for one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sim.disk.files import SimFiles
from sim.disk.nodes import FileNode
from sim.disk.profiles import JOURNAL, POSIX, Profile, crash_states
from sim.disk.storage import SimStorage
from sim.explore.search.cuts import cuts

PATHS = ["/d/a", "/d/b", "/e/a", "/e/b"]
OPS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(PATHS), st.binary(min_size=1, max_size=3)),
    st.tuples(st.just("rename"), st.sampled_from(PATHS), st.sampled_from(PATHS)),
    st.tuples(st.just("link"), st.sampled_from(PATHS), st.sampled_from(PATHS)),
    st.tuples(st.just("unlink"), st.sampled_from(PATHS), st.none()),
    st.tuples(st.just("sync"), st.sampled_from(PATHS), st.none()),
    st.tuples(st.just("sync_directory"), st.sampled_from(["/d", "/e"]), st.none()),
)


def do(files: SimFiles, what: str, path: str, other: object) -> None:
    if what == "write":
        try:
            handle = files.create(path)
        except FileExistsError:
            handle = files.open(path, True)
        with handle:
            assert isinstance(other, bytes)
            handle.write_at(0, other)
    elif what == "sync":
        with files.open(path, True) as handle:
            handle.sync()
    elif other is None:
        getattr(files, what)(path)
    else:
        getattr(files, what)(path, other)


def after(ops: list[tuple[str, str, object]]) -> SimStorage:
    storage = SimStorage()
    files = SimFiles(storage)
    for folder in ("/d", "/e"):
        files.make_directory(folder)
    for path in PATHS[:2]:
        do(files, "write", path, b"old")
    storage.settle()
    for op in ops:
        try:
            do(files, *op)
        except OSError:
            continue
    return storage


def tree(storage: SimStorage) -> frozenset[tuple[str, bytes]]:
    return frozenset(
        (path, node.content.digest if isinstance(node, FileNode) else b"") for path, _, node in storage.walk()
    )


@settings(max_examples=60)
@given(st.lists(OPS, max_size=6), st.sampled_from([POSIX, JOURNAL]))
def test_the_states_are_those_of_the_plain_enumeration(ops: list[tuple[str, str, object]], profile: Profile):
    """No more and no fewer, and each key stands for one tree of names and contents."""
    storage = after(ops)
    rules = profile._replace(max_pending=30)
    found = [(cut.key, tree(cut.build())) for cut in cuts(storage, rules)]
    assert {one for _, one in found} == {tree(state.storage) for state in crash_states(storage, rules)}
    assert len({key for key, _ in found}) == len(dict(found)) == len(set(found)) == len({one for _, one in found})


def test_files_that_exchange_their_contents_are_another_state():
    """Sums of hashes of pairs come to the same in a third of such cases, which were then passed over."""
    keys = set()
    for number in range(64):
        for first, second in ((b"1", b"2"), (b"2", b"1")):
            storage = after([("write", "/d/a", b"%d-" % number + first), ("write", "/d/b", b"%d-" % number + second)])
            storage.settle()
            keys |= {cut.key for cut in cuts(storage, POSIX)}
    assert len(keys) == 128
