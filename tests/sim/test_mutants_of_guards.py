"""Guards of the engine are taken away one by one, and the simulator finds each: what no sync and no order of writes is.

Others of the kind stand beside what they are about: leases in test_lease_monitor, the identities of fixes in
test_staleness, the questions of the gate in test_machines, machines and operators in test_fuzz_outside.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import json
from collections.abc import Callable, Container
from typing import Any

import pytest

from engine.copying import pump
from engine.data import decoding, records
from engine.data.digests import CHUNK_BYTES
from engine.data.model import Status
from engine.errors import DiskwrightError
from engine.fixes import import_image
from engine.host import preparing
from engine.host.state import HostState
from engine.tags import changes, seen
from engine.tools.local.hashing import HashThread
from engine.triage import rules
from sim.disk.files import Fault
from sim.disk.nodes import DataOp
from sim.explore.cases.case import prepared
from sim.explore.cases.catalog import ALL
from sim.explore.cases.driver import FILES, Driver, read
from sim.explore.cases.fixtures.images import a_disk, data
from sim.explore.oracle.reference import USABLE
from sim.explore.search import calls
from sim.explore.search.explorer import EFFECTS, EffectRecorder, Explorer
from sim.hosts.crash import Crashed
from sim.hosts.processes import HOLDER, Hook, SimProcess
from sim.hosts.world import World
from tests.sim.mutants_kit import hit, patched, without_if


def explored(name: str) -> bool:
    return bool(Explorer(ALL[name], "process", max_violations=1, recover=False).run().violations)


def test_a_reflink_of_the_top_layer_alone_is_found():
    """What shows through it would be missing in the copy."""
    with patched("engine.fixes.fill", "_reflink", without_if("len(source.layers) != 1")) as hits:
        assert explored("mend-copy-of-layers-reflink")
    assert hits


def seals_a_mixture(at: int) -> bool:
    """Whether an import whose file is changed before effect ``at`` is sealed, and is not what the file began as."""
    driver = prepared(ALL["mend-import"])
    storage, path = driver.world.storage, f"{FILES}/source.raw"
    inode, node = storage.file(path)
    change = DataOp(0, "write", 0, 4, b"new!")
    engine = driver.engine()
    driver.world.process_of(engine).hook = before(at, EFFECTS, lambda process: storage.change(inode, change, path))
    with contextlib.suppress(DiskwrightError):
        driver.fix("a", rules.B_IMPORT)
    other = driver.world.host("two")
    (report,) = other.list_images("a")
    return report.status in USABLE and not read(other, "a", report.id, node.content.size).same(node.content)


def before(at: int, calls: Container[str], act: Callable[[SimProcess], object]) -> Hook:
    """Have something happen before the how manieth of some calls."""
    number = itertools.count(1)

    def hook(process: SimProcess, call: str, what: str) -> Fault:
        if call in calls and next(number) == at:
            act(process)
        return Fault.NONE

    return hook


def test_an_import_whose_file_changes_is_not_sealed(monkeypatch: pytest.MonkeyPatch):
    """Unless it has been read by then; one that does not look again is found."""
    moments = range(4, 40, 3)
    assert not any(map(seals_a_mixture, moments))
    monkeypatch.setattr(import_image, "_require_unchanged", lambda *arguments: None)
    monkeypatch.setattr(import_image, "_require_same", lambda *arguments: None)
    assert any(map(seals_a_mixture, moments))


# -- obligations: after an acknowledged removal


def effects_after_a_removal(at: int) -> list[str]:
    """The effects that a mend of a copy has on its repository when another host has removed the image before effect
    ``at``, up to its end."""
    driver = prepared(ALL["mend-copy-windows"])
    world = driver.world
    (image,) = [key[1] for key in driver.model.images if key[0] == "b"]
    happened: list[str] = []

    def hook(process: SimProcess, call: str, what: str) -> Fault:
        if call in EFFECTS and process.host.name == "one" and what.startswith("/srv/b"):
            happened.append(f"{call} {what}")
            if len(happened) == at:
                world.hook, process.hook = None, None
                world.host("two").remove_image("b", image)
                process.hook = hook
        return Fault.NONE

    engine = driver.engine()
    world.process_of(engine).hook = hook
    with contextlib.suppress(DiskwrightError):
        driver.fix("b", rules.B_COPY)
    return happened[at:]


MOST_AFTER = 24
"""A step of a copy, and what tidies up behind it."""


def late_work() -> bool:
    """Whether some removal is not noticed for long."""
    return any(len(effects_after_a_removal(at)) > MOST_AFTER for at in (20, 30))


def test_who_works_on_an_image_that_is_removed_notices_soon():
    """At its next step."""
    assert not late_work()


def test_a_removal_that_raises_no_epoch_is_found(monkeypatch: pytest.MonkeyPatch):
    """The attempt would go on to its end."""
    monkeypatch.setattr(seen, "in_next_epoch", lambda record: record)
    assert late_work()


# -- notes of a host


def test_a_note_that_is_written_in_place_is_found(monkeypatch: pytest.MonkeyPatch):
    """A power cut leaves half of it."""

    def in_place(state: HostState, name: str, data: Any) -> None:
        state._make_directories(name.rpartition("/")[0])
        files, path = state._doors.files, f"{state.directory}/{name}"
        with contextlib.suppress(FileExistsError):
            files.create(path).close()
        with files.open(path, writable=True) as handle:
            handle.truncate(0)
            handle.write_at(0, json.dumps(data).encode())
            handle.sync()
        files.sync_directory(path.rpartition("/")[0])

    assert not calls.notes()
    monkeypatch.setattr(HostState, "_write", in_place)
    assert calls.notes()


class Everything:
    """Has each call in it."""

    def __contains__(self, call: object) -> bool:
        return True


def unknown_holders() -> list[int]:
    """The calls of a teardown before which it can be killed so that a holder is left that no note names."""
    found = []
    for at in range(1, 1000):
        world = World(least_ids=True)
        world.create("a")
        driver = Driver(world)
        a_disk(driver)
        engine, disk = driver.engine(), driver.named["disk"]
        engine.prepare_image("a", disk)
        process = world.process_of(engine)
        process.hook = before(at, Everything(), lambda one: one.kill())
        try:
            engine.teardown_image("a", disk)
        except Crashed:
            named = {entry.process.pid for entry in world.host("one").list_prepared()}
            holders = [pid for pid, one in world.machine("one").processes.items() if one.name == HOLDER]
            if not named.issuperset(holders):
                found.append(at)
        else:
            return found
    raise AssertionError("a teardown has no end")


def test_a_holder_is_never_forgotten_before_it_ends(monkeypatch: pytest.MonkeyPatch):
    """Wherever the teardown is killed; one that forgets first is found."""
    assert not unknown_holders()
    ends = preparing._undo

    def forgets_first(context: Any, state: Any, entry: Any) -> None:
        state.forget_prepared(entry)
        ends(context, state, entry)

    monkeypatch.setattr(preparing, "_undo", forgets_first)
    assert unknown_holders()


# -- progress


def progress_is_lost() -> bool:
    """Whether what is persisted of a copy on LVM is ever less than it was, or is not seen before the end."""
    explorer = Explorer(ALL["lvm:mend-copy-windows"])
    base = explorer.driver
    (image,) = [key[1] for key in base.model.images if key[0] == "b"]
    points = explorer.points_of("operation", base.world.storage, base.models, 0)
    seen_before = [-1]
    for point in points[::4]:
        world = base.world.fork(point.storage.clone(), EffectRecorder())
        report = next(one for one in world.host("two").list_images("b") if one.id == image)
        if report.status is Status.BROKEN and report.operation is not None:
            seen_before.append(report.operation.percent)
    return seen_before != sorted(seen_before) or seen_before[-1] <= 0


def test_the_progress_that_counts_is_the_newest():
    """The oldest of the lines of a log says nothing yet."""

    def oldest(node: ast.stmt) -> list[ast.stmt] | None:
        if isinstance(node, ast.If) and "<= best" in ast.unparse(node.test):
            return [hit(), ast.parse(ast.unparse(node).replace("<= best", ">= best")).body[0]]
        return None

    assert not progress_is_lost()
    with patched("engine.formats.lvm.metadata.progress", "read_log", oldest) as hits:
        assert progress_is_lost()
    assert hits


# -- digests


def rot_that_is_not_seen() -> list[int]:
    """The chunks of a snapshot with a digest in which a deep check finds no flipped byte."""
    driver = Driver(World(least_ids=True))
    driver.world.create("a")
    disk = driver.create("a", 3 * CHUNK_BYTES, strategy="performance")
    for chunk in range(3):
        driver.write("a", disk, chunk * CHUNK_BYTES, data(1 + chunk))
    snapshot = driver.snapshot("a", disk)
    driver.record_digest("a", snapshot)
    repository = driver.engine().context.repository("a")
    volume = changes.read(repository, snapshot).record.volume
    assert volume is not None
    path = repository.volumes.layer(volume).path
    driver.close()
    unseen = []
    for chunk in range(3):
        world = driver.world.fork(driver.world.storage.clone())
        inode, _ = world.storage.file(path)
        world.storage.change(inode, DataOp(0, "write", chunk * CHUNK_BYTES + 5, 1, b"?"), path)
        (report,) = [
            one for one in world.host("two").inspect_repository("a", {"deep": True}).images if one.id == snapshot
        ]
        if report.status is not Status.BROKEN:
            unseen.append(chunk)
    return unseen


def test_a_deep_check_sees_rot_in_each_chunk(monkeypatch: pytest.MonkeyPatch):
    """Also in the last one; one that leaves it out is found."""
    assert not rot_that_is_not_seen()
    whole = pump._grouped

    def but_the_last(stream: Any) -> Any:
        groups = list(whole(stream))
        return groups[:-1]

    monkeypatch.setattr(pump, "_grouped", but_the_last)
    assert rot_that_is_not_seen()


def intact_and_called_broken(failing: int = 0) -> bool:
    """Whether a copy that was made with digests, or its source, is broken to a deep check that hashes in turn; after a
    run in which the hashing of a chunk has failed for want of memory, and whatever that left to do."""
    driver = prepared(ALL["mend-copy-windows"])
    whole, count = pump._digest_work, itertools.count(1)

    def work(chunk: int, parts: list[Any]) -> Callable[[], bytes]:
        return no_memory if next(count) == failing else whole(chunk, parts)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(MemoryError):
        patch.setattr(pump, "_digest_work", work)
        driver.fix("b", rules.B_COPY)
    for fix in driver.on("two").engine().check_storage_repository("b"):
        driver.engine().run_fix_here("b", fix)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pump, "HashThread", InTurn)
        host = driver.world.host("two")
        for repo in ("a", "b"):
            found += [report.status for report in host.inspect_repository(repo, {"deep": True}).images]
    return Status.BROKEN in found


def no_memory() -> bytes:
    raise MemoryError


class InTurn:
    """Hashes at once, in the thread that asks."""

    def __init__(self, done: Callable[[int, bytes], None]) -> None:
        self._done = done

    def submit(self, index: int, work: Callable[[], bytes]) -> None:
        self._done(index, work())

    def drain(self) -> None:
        """Nothing is left."""

    def close(self) -> None:
        """Nothing runs."""


def test_digests_whose_results_are_dropped_or_exchanged_are_found(monkeypatch: pytest.MonkeyPatch):
    """An intact image would be called broken by them."""
    assert not intact_and_called_broken()

    def exchanged(thread: HashThread) -> None:
        taken = list(thread._queue)
        thread._queue.clear()
        for (index, _), (_, future) in zip(taken, reversed(taken), strict=True):
            thread._done(index, future.result())

    for drain in (lambda thread: thread._queue.clear(), exchanged):
        with monkeypatch.context() as patch:
            patch.setattr(HashThread, "drain", drain)
            assert intact_and_called_broken()


def test_an_error_of_the_thread_that_hashes_is_not_lost(monkeypatch: pytest.MonkeyPatch):
    """Nothing is sealed then, and another run goes on; one that drops the error is found, at each chunk."""
    assert not any(map(intact_and_called_broken, (1, 2, 3)))

    def dropping(thread: HashThread) -> None:
        index, future = thread._queue.popleft()
        if future.exception() is None:
            thread._done(index, future.result())

    monkeypatch.setattr(HashThread, "_take", dropping)
    assert all(map(intact_and_called_broken, (1, 2, 3)))


# -- counters at their limits


def unreadable_records() -> list[str]:
    """The verbs that leave a record which nobody can read, of an image whose counters cannot rise any more."""
    found = []
    most = (1 << 63) - 1
    for verb in ("remove", "write", "snapshot"):
        driver = Driver(World(least_ids=True))
        driver.world.create("a")
        a_disk(driver)
        disk, engine = driver.named["disk"], driver.engine()
        repository = engine.context.repository("a")
        changes.change(repository, disk, lambda record: record._replace(epoch=most, write_epoch=most))
        with contextlib.suppress(DiskwrightError):
            if verb == "remove":
                driver.remove("a", disk)
            elif verb == "write":
                driver.write("a", disk, 0, data(1))
            else:
                driver.snapshot("a", disk)
        if any(entry.record is None for entry in repository.tags.scan().values()):
            found.append(verb)
    return found


def test_no_verb_writes_a_record_that_nobody_can_read(monkeypatch: pytest.MonkeyPatch):
    """Whoever made its counters so high; an ``encode`` that lets them pass is found."""
    assert not unreadable_records()
    monkeypatch.setattr(records, "MOST", 1 << 80)
    monkeypatch.setattr(decoding._whole_number, "__defaults__", (1 << 63,))
    assert unreadable_records() == ["remove", "write"]
