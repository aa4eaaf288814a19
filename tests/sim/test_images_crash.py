"""What is left of images when a process, the power or the storage fails under the simulated image tool."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from itertools import compress, product
from pathlib import Path

import pytest

from engine.doors.files import Files
from engine.doors.images import Layer, Session
from engine.errors import BadRequest, NoSpace, ToolFailed
from engine.tools.local.files import RealFiles
from engine.tools.qemu.images import QemuImageTool
from sim.disk.files import Fault, SimFiles
from sim.disk.profiles import crash_states
from sim.disk.storage import SimStorage
from sim.hosts.crash import Crashed, Effects
from sim.qemu.images import SimImageTool
from sim.qemu.layers import ImageLocks
from sim.qemu.qcow2.cache import Cache
from tests.sim.images_kit import CLUSTER, MIB, QCOW2, RAW, SparseFiles, Step, crashing_files, make_layer

SIZE = 1 << 40
SEQUENCE: list[Step] = [
    ("write", 0, b"a" * 3 * CLUSTER),
    ("flush",),
    ("write", 4 * CLUSTER + 100, b"b" * 5000),
    ("zero", CLUSTER, CLUSTER),
    ("write", 8 * CLUSTER, b"c" * 2 * CLUSTER),  # takes the cluster that was freed
    ("write", 100, b"d" * 1000),
    ("flush",),
    ("zero", 0, 2 * CLUSTER),
    ("write", 520 * MIB, b"e" * 4096),  # a second L2 table, in place of freed data
    ("zero", 520 * MIB, CLUSTER),
    ("write", 9 * CLUSTER, b"f" * 512),
    ("write", 520 * MIB + CLUSTER, b"g" * CLUSTER),
    ("flush",),
    ("write", 0, b"h" * CLUSTER),
]


class Expected:
    """What must be read of the clusters that the sequence touches: what was flushed, or what was asked for since."""

    def __init__(self) -> None:
        self._flushed: dict[int, bytes] = {}
        self._now: dict[int, bytes] = {}
        self._between: dict[int, set[bytes]] = {}

    def started(self, step: Step) -> None:
        if step[0] == "flush":
            return
        data = step[2] if step[0] == "write" else bytes(step[2])
        for start in range(step[1] // CLUSTER * CLUSTER, step[1] + len(data), CLUSTER):
            old = self._now.get(start, bytes(CLUSTER))
            first, last = max(start, step[1]), min(start + CLUSTER, step[1] + len(data))
            new = old[: first - start] + data[first - step[1] : last - step[1]] + old[last - start :]
            self._between.setdefault(start, set()).add(new)
            self._now[start] = new

    def finished(self, step: Step) -> None:
        if step[0] == "flush":
            self._flushed = dict(self._now)
            self._between = {}

    def verify(self, session: Session) -> None:
        for start in self._now:
            if start not in self._between:
                assert session.read(start, CLUSTER) == self._flushed[start], hex(start)


def tell(files: Files, layer: Layer, expected: Expected | None = None) -> None:
    """Play the sequence in one session that is never closed properly."""
    tool = SimImageTool(files)
    try:
        session = tool.open_session([layer], True, False)
        for step in SEQUENCE:
            if expected is not None:
                expected.started(step)
            getattr(session, step[0])(*step[1:])
            if expected is not None:
                expected.finished(step)
    finally:
        tool.abandon()


def test_a_killed_writer_leaves_leaks_at_worst(tmp_path: Path):
    """Before whichever effect the process is killed: qemu finds no corruption, and what was flushed is there."""
    real, crashes = QemuImageTool(), 0
    effects = Effects()
    for number in range(1, 200):
        layer = Layer(str(tmp_path / f"image{number}"), QCOW2)
        make_layer(SparseFiles(), layer, SIZE)
        effects, expected = Effects(number), Expected()
        try:
            tell(crashing_files(effects), layer, expected)
        except Crashed:
            crashes += 1
        assert real.check(layer).corruptions == 0, effects.names
        reader = SimImageTool(SparseFiles()).open_session([layer], False, False)
        expected.verify(reader)
        reader.close()
        if not effects.dead:
            break
    assert not effects.dead and crashes > 40


class Watched:
    """A gate that looks at every state which the power could leave before each change."""

    dead = False

    def __init__(self, storage: SimStorage, expected: Expected) -> None:
        self.states = 0
        self.leaks = 0
        self._storage = storage
        self._expected = expected
        self._seen: set[bytes] = set()

    def enter(self, call: str, what: str) -> Fault:
        if call in ("handle.sync", "handle.write_at") and what == "/image":
            for state in (*(state.storage for state in crash_states(self._storage)), *self._subsets()):
                self._look(state)
        return Fault.NONE

    def _subsets(self) -> Iterator[SimStorage]:
        """Whichever of the unsynced writes survive: more than the crash model's classes."""
        inode, node = self._storage.file("/image")
        assert len(node.pending) <= 8
        for chosen in product((False, True), repeat=len(node.pending)):
            content = node.durable
            for op in compress(node.pending, chosen):
                content = op.apply(content)
            state = self._storage.clone()
            state.nodes[inode] = node._replace(content=content, durable=content, pending=())
            yield state

    def _look(self, storage: SimStorage) -> None:
        self.states += 1
        tool, layer = SimImageTool(SimFiles(storage)), Layer("/image", QCOW2)
        found = tool.check(layer)
        assert found.corruptions == 0, found.detail
        self.leaks += found.leaked_clusters
        reader = tool.open_session([layer], False, False)
        self._expected.verify(reader)
        reader.close()


def cut_power_everywhere() -> Watched:
    storage, expected = SimStorage(), Expected()
    layer = Layer("/image", QCOW2)
    make_layer(SimFiles(storage), layer, SIZE)
    storage.settle()
    gate = Watched(storage, expected)
    tell(SimFiles(storage, gate), layer, expected)
    return gate


def test_a_power_cut_leaves_leaks_at_worst():
    """Whatever subset of the unsynced changes survives: no corruption, and what was flushed is there."""
    gate = cut_power_everywhere()
    assert gate.states > 200 and gate.leaks > 0


def test_an_image_without_the_sync_before_l2_entries_is_torn_by_a_power_cut(monkeypatch: pytest.MonkeyPatch):
    """The look above is no formality: a cache that does not wait for the other is found out."""
    monkeypatch.setattr(Cache, "after", lambda self, other: None)
    with pytest.raises(AssertionError, match=r"ERROR cluster \d+ refcount=0 reference=1"):
        cut_power_everywhere()


def test_the_same_bytes_on_simulated_and_on_real_files(tmp_path: Path):
    """An image is the same file, byte for byte, whichever door it was written through."""
    storage = SimStorage()
    for files, path in ((SimFiles(storage), "/image"), (SparseFiles(), str(tmp_path / "image"))):
        layer = Layer(path, QCOW2)
        make_layer(files, layer, SIZE)
        tell(files, layer)
    content = (tmp_path / "image").read_bytes()
    assert SimFiles(storage).read_file("/image", 1 << 30) == content


def sim_image(size: int = SIZE, capacity: int | None = None) -> tuple[SimFiles, Layer]:
    storage = SimStorage() if capacity is None else SimStorage(capacity)
    files = SimFiles(storage)
    layer = Layer("/image", QCOW2)
    make_layer(files, layer, size)
    return files, layer


def test_a_full_storage_ends_writing_but_not_reading():
    """NoSpace, again at every later write and flush; what was flushed is read, and the image is sound."""
    files, layer = sim_image(capacity=2 * MIB)
    tool = SimImageTool(files)
    session = tool.open_session([layer], True, False)
    session.write(0, b"kept" * 1024)
    session.flush()
    with pytest.raises(NoSpace):
        session.write(CLUSTER, b"x" * 4 * MIB)
    for again in (lambda: session.write(0, b"x"), lambda: session.zero(0, 1), session.flush):
        with pytest.raises(NoSpace):
            again()
    assert session.read(0, 4096) == b"kept" * 1024
    session.close()
    assert tool.check(layer).corruptions == 0


def test_what_is_zeroed_is_used_again():
    """Clusters that zeroing freed take the next data: the file does not grow, and its room is given back at once."""
    files, layer = sim_image()
    session = SimImageTool(files).open_session([layer], True, False)
    session.write(0, b"x1" * 4 * CLUSTER)
    session.flush()
    full = files.stat("/image")
    session.zero(0, 8 * CLUSTER)
    session.flush()
    assert files.stat("/image").allocated == full.allocated - 8 * CLUSTER
    session.write(MIB, b"y1" * 4 * CLUSTER)
    session.flush()
    session.close()
    assert files.stat("/image")[1:3] == full[1:3]


class Failing:
    """A gate that lets one kind of call fail from its nth time on."""

    dead = False

    def __init__(self, call: str, nth: int, code: int) -> None:
        self._call, self._left, self._code = call, nth, code

    def enter(self, call: str, what: str) -> Fault:
        if call == self._call:
            self._left -= 1
            if self._left <= 0:
                if call == "handle.sync":
                    return Fault.SYNC_FAILS
                raise OSError(self._code, "injected", what)
        return Fault.NONE


@pytest.mark.parametrize(("call", "code", "kind"), [
    ("handle.write_at", errno.EIO, ToolFailed),
    ("handle.write_at", errno.EDQUOT, NoSpace),
    ("handle.sync", errno.EIO, ToolFailed),
])  # fmt: skip
def test_an_error_at_any_call_is_told_until_the_session_ends(call: str, code: int, kind: type[Exception]):
    """Whichever write or sync fails: an error of the right kind at that call or the next flush, and at every later
    flush; the image is never corrupted by it."""
    failures = nth = 0
    for nth in range(1, 100):
        files, layer = sim_image()
        files.gate = Failing(call, nth, code)
        session = SimImageTool(files).open_session([layer], True, False)
        failures = 0
        for step in SEQUENCE:
            try:
                getattr(session, step[0])(*step[1:])
                assert not failures
            except kind:
                failures += 1
        session.close()
        files.gate.enter = lambda call, what: Fault.NONE  # type: ignore[method-assign]
        assert SimImageTool(files).check(layer).corruptions == 0
        if not failures:
            break
    assert not failures and nth > 5


def test_reading_errors_concern_that_read_only():
    """A read that fails is ToolFailed; the next one may succeed, and writing goes on."""
    files, layer = sim_image()
    tool = SimImageTool(files)
    session = tool.open_session([layer], True, False)
    session.write(0, b"x" * CLUSTER)
    gate = Failing("handle.read_at", 1, errno.EIO)
    for handle in files.handles:
        handle._gate = gate
    with pytest.raises(ToolFailed, match="EIO"):
        session.read(0, 10)
    gate._call = ""
    assert session.read(0, 10) == b"x" * 10
    session.flush()
    session.close()


def test_an_abandoned_tool_frees_its_locks_and_writes_nothing():
    """As a host that died: another process may write at once, and what was not flushed is not there."""
    files, layer = sim_image()
    locks = ImageLocks()
    dead, other = SimImageTool(files, locks), SimImageTool(files, locks)
    session = dead.open_session([layer], True, False)
    session.write(0, b"x" * CLUSTER)
    with pytest.raises(ToolFailed, match="lock"):
        other.open_session([layer], True, False)
    dead.abandon()
    session.close()
    taken = other.open_session([layer], True, False)
    assert taken.read(0, 1) == b"\0"
    taken.close()


def test_locks_are_on_the_file_and_not_on_its_name():
    """A renamed image is still locked."""
    files, layer = sim_image()
    tool = SimImageTool(files)
    session = tool.open_session([layer], True, False)
    files.rename("/image", "/other")
    with pytest.raises(ToolFailed, match="lock"):
        tool.map_layer(Layer("/other", QCOW2))
    session.write(0, b"x")
    session.close()
    assert tool.check(Layer("/other", QCOW2)).allocated_clusters == 1


def test_misuse_is_refused():
    """Ranges outside, a session that is over, writing to a reader, an empty chain, a raw layer above another."""
    files, layer = sim_image(MIB)
    tool = SimImageTool(files)
    session = tool.open_session([layer], False, False)
    for wrong in ((-1, 1), (MIB, 1), (0, MIB + 1)):
        with pytest.raises(BadRequest):
            session.read(*wrong)
    with pytest.raises(ToolFailed):
        session.write(0, b"x")
    session.close()
    session.close()
    with pytest.raises(ToolFailed):
        session.read(0, 1)
    for chain in ([], [Layer("/image", RAW), layer]):
        with pytest.raises(BadRequest):
            tool.map_chain(chain)
    for path in ("/missing", "/"):
        with pytest.raises(ToolFailed):
            tool.open_session([Layer(path, QCOW2)], False, False)
    with pytest.raises(ToolFailed):
        tool.check(Layer("/image", RAW))
    with pytest.raises(BadRequest):
        tool.set_backing(layer, "x", None)


def test_large_images_cost_what_they_hold():
    """A chain of a 1 TiB qcow2 image on a 1 TiB raw file with some data takes few calls and little room."""
    files, layer = sim_image()
    base = Layer("/base", RAW)
    make_layer(files, base, SIZE)
    tool = SimImageTool(files)
    for chain in ([base], [layer, base]):
        session = tool.open_session(chain, True, False)
        for number in range(8):
            session.write(number << 36, b"data" * 1024)
        session.zero(SIZE - MIB, MIB)
        session.flush()
        session.close()
    extents = tool.map_chain([layer, base])
    assert len(extents) < 40
    assert sum(extent.length for extent in extents) == SIZE
    assert files.stat("/base").allocated == 8 * 4096
    assert files.stat("/image").size < 4 * MIB


def test_the_tool_needs_nothing_beyond_the_file_door(tmp_path: Path):
    """It works on real files as they are, and leaves no descriptor open."""
    layer = Layer(str(tmp_path / "image"), QCOW2)
    make_layer(RealFiles(), layer, SIZE)
    before = len(list(Path("/proc/self/fd").iterdir()))
    tell(RealFiles(), layer)
    tool = SimImageTool(RealFiles())
    assert tool.check(layer).corruptions == 0
    with pytest.raises(BadRequest):
        tool.map_chain([Layer(layer.path, RAW), layer])
    assert len(list(Path("/proc/self/fd").iterdir())) == before
