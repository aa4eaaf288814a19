"""States of a power cut that are told apart before they are built: the same states, and never two for one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.disk.files import SimFiles
from sim.disk.nodes import FileNode
from sim.disk.profiles import JOURNAL, POSIX, Profile, crash_states
from sim.disk.storage import SimStorage
from sim.explore.cases.catalog import CASES
from sim.explore.search.canonical import canonical_key
from sim.explore.search.cuts import cuts
from sim.explore.search.explorer import Explorer
from sim.explore.search.frames import Frames

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


@pytest.mark.parametrize("case", ["create-on-base", "merge-begun", "copy-committed"])
def test_a_state_counts_as_what_it_would_count_as_if_it_were_built(case: str):
    """Before effects of a verb or fix, and of the recovery from where it was killed: of all that may be left, none is
    taken for alike that is not, and none that is alike is built."""
    explorer = Explorer(CASES[case], "posix")
    first = explorer.points_of("operation", explorer.driver.world.storage, explorer.driver.models, 0)
    killed = first[len(first) * 2 // 3]
    _, _, found = explorer.look(killed.storage, killed.models, 1)
    points = explorer.points_of(found.fixes[0][1].rule, killed.storage, killed.models, 1)
    told = 0
    for point in (*first[::3], *points[::3]):
        assert Frames(point.storage).plain
        for cut in cuts(point.storage, POSIX):
            assert cut.canonical() == canonical_key(cut.build(), exact=False)
            told += 1
    assert told > 10
