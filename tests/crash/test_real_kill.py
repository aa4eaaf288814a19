"""Processes that really get a SIGKILL, and other hosts that go on where those were.

Each victim is ``python -m sim.hosts.victim``: it dies just before an effect that is named, so every run
dies at the same place. How much is read again is counted at the door through which it is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from engine.api import Engine
from engine.assembly import real_doors
from engine.copying.pump import MIN_WINDOW_BYTES
from engine.data.model import Strategy
from engine.doors.images import Chain
from engine.errors import ToolFailed
from engine.tags.attempt import with_cursor
from sim.hosts.victim import Outcome, sacrifice
from tests.contracts.source import ROOT
from tests.crash.kit import MiB, World, content, nothing_left_over, settle, write

KiB = 1024
WRITE, FLUSH = "images.open_session.write", "images.open_session.flush"
LINK = "files.link"
COPY_BYTES = 48 * MiB
MERGE_BYTES = 24 * MiB
BLOCK_BYTES = 64 * KiB

assert 16 * MiB == MIN_WINDOW_BYTES, "the expected cursors below are multiples of this"


class Counting:
    """The images door; notes which ranges are streamed from sessions that only read, and of which repository."""

    def __init__(self, inner: Any, root: Path) -> None:
        self._inner = inner
        self._root = root
        self._read: dict[str, list[tuple[int, int]]] = {}

    def of(self, repo: str) -> list[tuple[int, int]]:
        """Return the ranges (start, length) that were read of images of a repository, in order."""
        return self._read.setdefault(repo, [])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def open_session(self, chain: Chain, writable: bool, direct: bool, later: bool = False) -> Any:
        session = self._inner.open_session(chain, writable, direct, later)
        return session if writable else CountingSession(session, self.of(self._repository(chain)))

    def _repository(self, chain: Chain) -> str:
        (repo,) = {Path(layer.path).relative_to(self._root).parts[0] for layer in chain}
        return repo


class CountingSession:
    def __init__(self, inner: Any, ranges: list[tuple[int, int]]) -> None:
        self._inner = inner
        self._ranges = ranges

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def stream(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        for start, data in self._inner.stream(ranges):
            self._ranges.append((start, len(data)))
            yield start, data


class Template(NamedTuple):
    """A world to be copied for each death, and what the uninterrupted work did in one."""

    world: World
    image: str
    expected: bytes
    whole: Outcome

    def seal(self) -> dict[str, Any]:
        """Tell when the result is published: at the first link after the last flush. Links are counted, and no other
        effects: work that takes longer records its progress more often."""
        last = len(self.whole.effects) - self.whole.effects[::-1].index(FLUSH)
        return {"before": LINK, "nth": self.whole.effects[:last].count(LINK) + 1}


def state(world: World, host: str) -> str:
    """State directory of a host that has everything connected."""
    world.engine(host).close()
    return str(world.root / f"state-{host}")


def die_in_fix(world: World, repo: str, rule: str, image: str, kill: dict[str, Any] | None) -> Outcome:
    arguments = {"repo_id": repo, "rule": rule, "image": image}
    return sacrifice("host-a", state(world, "host-a"), "run_fix", arguments, kill)


def counting_engine(world: World) -> tuple[Engine, Counting]:
    """Another host, whose reading is counted."""
    doors = real_doors("host-b")
    images = Counting(doors.images, world.root)
    return Engine(doors._replace(images=images), state(world, "host-b")), images


def cursor(engine: Engine, repo: str, tag: str) -> int:
    """Where the next executor will go on: from the record and its progress log."""
    repository = engine.context.repository(repo)
    entry = repository.tags.read(tag)
    assert entry is not None and entry.record is not None
    operation = with_cursor(repository, entry.record).operation
    return operation.cursor if operation else -1


def exactly(read: list[tuple[int, int]], start: int, end: int) -> bool:
    """Say whether what was read is everything from ``start`` to ``end``, each byte once and in order."""
    at = start
    for begin, length in read:
        if begin != at:
            return False
        at += length
    return at == end


def run_rule(engine: Engine, repo: str, rule: str, image: str) -> None:
    fixes = [f for f in engine.check_storage_repository(repo) if (f.rule, f.target) == (rule, image)]
    assert len(fixes) == 1
    engine.run_fix_here(repo, fixes[0])


# -- the victim itself


def run_victim(spec: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sim.hosts.victim", "/dev/stdin"],
        input=json.dumps(spec),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_victim_dies_by_sigkill_before_the_effect_that_was_named(tmp_path: Path):
    """Named by number or by name and count, or by a call, the effect has not happened; unnamed, the verb is done
    and its result and effects are told."""
    template = World(tmp_path / "template").create()
    spec = {"host": "h", "verb": "create_virtual_disk", "arguments": {"target_repo_id": "a", "size": MiB}}
    done = run_victim({**spec, "state": state(template.copy(tmp_path / "whole"), "h")})
    said = json.loads(done.stdout)
    assert done.returncode == 0 and len(said["result"]) == 32 and said["calls"] > len(said["effects"])
    seal = said["effects"].index("files.link") + 1
    for name, kill in (("number", {"before": seal}), ("name", {"before": "files.link"}), ("call", {"before_call": 1})):
        world = template.copy(tmp_path / name)
        done = run_victim({**spec, "state": state(world, "h"), "kill": kill})
        assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGKILL, "", "")
        assert world.engine("other").list_images("a") == []
    world = template.copy(tmp_path / "second")
    done = run_victim({**spec, "state": state(world, "h"), "kill": {"before": "files.link", "nth": 2}})
    assert done.returncode == -signal.SIGKILL
    assert len(world.engine("other").list_images("a")) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"verb": "format_disk"}, "format_disk"),
        ({"arguments": {"sizes": 1}}, "arguments do not fit"),
        ({"kill": {"after": 3}}, "kill knows"),
        ({"arguments": {"target_repo_id": "nowhere", "size": MiB}}, "nowhere"),
    ],
)
def test_a_victim_that_cannot_do_its_work_says_so(tmp_path: Path, change: dict[str, Any], words: str):
    """A wrong spec, or an error of the engine, is one JSON object and an exit code, never a death or a traceback."""
    spec = {"host": "h", "state": str(tmp_path / "s"), "verb": "create_virtual_disk", "arguments": {}, **change}
    done = run_victim(spec)
    assert done.returncode in (2, 3) and done.stderr == ""
    assert words in json.loads(done.stdout)["error"]


# -- copy


@pytest.fixture(scope="module")
def copying(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A snapshot in "a" whose 48 MiB are all to be read (4 KiB of data in each block), its copy committed in "b"."""
    tmp = tmp_path_factory.mktemp("copy")
    world = World(tmp / "template", "a", "b").create()
    engine = world.engine("setup")
    disk = engine.create_virtual_disk("a", COPY_BYTES, options={"strategy": "performance"})
    prepared = engine.prepare_image("a", disk)
    with open(prepared.path, "r+b") as stream:
        for block in range(COPY_BYTES // BLOCK_BYTES):
            stream.seek(block * BLOCK_BYTES)
            stream.write(random.Random(block).randbytes(4 * KiB))
    engine.teardown_image("a", disk)
    snapshot = engine.create_snapshot("a", disk)
    engine.copy_image("b", snapshot, options={"auto_fix": False, "strategy": "performance"})
    expected = content(engine, "a", snapshot, tmp)
    engine.close()
    whole = die_in_fix(world.copy(tmp / "whole"), "b", "B-COPY", snapshot, None)
    assert not whole.killed and whole.effects.count(FLUSH) == COPY_BYTES // MIN_WINDOW_BYTES
    return Template(world, snapshot, expected, whole)


COPY_DEATHS = [
    ("first write", {"before": WRITE}, 0),
    ("in the middle", {"before": WRITE, "nth": 12}, 16 * MiB),
    ("first flush", {"before": FLUSH, "nth": 1}, 0),
    ("second flush", {"before": FLUSH, "nth": 2}, 16 * MiB),
    ("last flush", {"before": FLUSH, "nth": 3}, 32 * MiB),
    ("seal", None, COPY_BYTES),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kill", "reached"), [d[1:] for d in COPY_DEATHS], ids=[d[0] for d in COPY_DEATHS])
def test_a_killed_copy_goes_on_elsewhere_and_reads_nothing_twice(
    copying: Template, kill: dict[str, Any] | None, reached: int, tmp_path: Path
):
    """After SIGKILL another host resumes at the recorded cursor: of the source it reads exactly what lies above it,
    of the target what lies below it, for the digests; and the copy has the content of the source."""
    world = copying.world.copy(tmp_path / "world")
    assert die_in_fix(world, "b", "B-COPY", copying.image, kill or copying.seal()).killed
    engine, images = counting_engine(world)
    report = engine.get_image_status("b", copying.image)
    assert report.status == "broken" and report.operation is not None and report.operation.host == "host-a"
    assert report.operation.percent == (reached * 100 // COPY_BYTES if 0 < reached < COPY_BYTES else -1)
    assert cursor(engine, "b", copying.image) == reached

    run_rule(engine, "b", "B-COPY", copying.image)

    assert exactly(images.of("a"), reached, COPY_BYTES)
    assert exactly(images.of("b"), 0, reached)
    assert content(engine, "b", copying.image, tmp_path) == copying.expected
    settle(engine, "b")
    nothing_left_over(world, engine, "b")
    kept = engine.context.repository("b").tags.scan()[copying.image].record
    assert kept is not None and kept.digest == engine.record_digest("b", copying.image)
    engine.close()


# -- merge


@pytest.fixture(scope="module")
def merging(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A disk whose removed base takes 24 MiB of its upper layer: a merge down."""
    tmp = tmp_path_factory.mktemp("merge")
    world = World(tmp / "template", "a").create()
    engine = world.engine("setup")
    disk = engine.create_virtual_disk("a", MERGE_BYTES + MiB, options={"strategy": "performance"})
    write(engine, "a", disk, "write -P 1 0 1M", f"write -P 2 {MERGE_BYTES} 1M")
    snapshot = engine.create_snapshot("a", disk, options={"strategy": "space"})
    write(engine, "a", disk, *(f"write -P {10 + index} {index}M 1M" for index in range(MERGE_BYTES // MiB)))
    engine.remove_image("a", snapshot)
    expected = content(engine, "a", disk, tmp)
    engine.close()
    whole = die_in_fix(world.copy(tmp / "whole"), "a", "M-CHAIN", snapshot, None)
    assert not whole.killed and whole.effects.count(FLUSH) == 2
    return Template(world, snapshot, expected, whole)


MERGE_DEATHS = [
    ("first write", {"before": WRITE}, 0),
    ("above the cursor", {"before": WRITE, "nth": 10}, 16 * MiB),
    ("last flush", {"before": FLUSH, "nth": 2}, 16 * MiB),
    ("seal", None, MERGE_BYTES + MiB),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kill", "reached"), [d[1:] for d in MERGE_DEATHS], ids=[d[0] for d in MERGE_DEATHS])
def test_a_killed_merge_reads_right_at_once_and_goes_on_elsewhere(
    merging: Template, kill: dict[str, Any] | None, reached: int, tmp_path: Path
):
    """After SIGKILL in a merge down the disk is usable and reads the same; another host goes on at the cursor,
    reads nothing below it again, and leaves one layer."""
    world = merging.world.copy(tmp_path / "world")
    assert die_in_fix(world, "a", "M-CHAIN", merging.image, kill or merging.seal()).killed
    engine, images = counting_engine(world)
    disk = next(image.id for image in engine.list_images("a") if not image.removed)
    assert content(engine, "a", disk, tmp_path) == merging.expected
    assert cursor(engine, "a", disk) == reached
    images.of("a").clear()

    run_rule(engine, "a", "M-CHAIN", merging.image)

    assert exactly(images.of("a"), reached, max(reached, MERGE_BYTES))
    assert content(engine, "a", disk, tmp_path) == merging.expected
    settle(engine, "a")
    nothing_left_over(world, engine, "a")
    assert len(list((world.root / "a" / "volumes").glob("*/*"))) == 1
    engine.close()


# -- clean


@pytest.mark.slow
def test_a_killed_clean_goes_on_and_frees_everything(tmp_path: Path):
    """SIGKILL before any effect of a clean: the removed image is still offered or wholly gone, never restorable
    once its deletion was committed, and another host frees all of it."""
    template = World(tmp_path / "template").create()
    engine = template.engine("setup")
    disk = engine.create_virtual_disk("a", MiB)
    write(engine, "a", disk, "write -P 5 0 512k")
    engine.remove_image("a", disk)
    engine.close()
    whole = die_in_fix(template.copy(tmp_path / "whole"), "a", "C-REMOVED", disk, None)
    numbers = [number for number, name in enumerate(whole.effects, 1) if name in ("files.link", "files.unlink")]
    assert len(numbers) >= 4
    for number in numbers:
        world = template.copy(tmp_path / f"at-{number}")
        assert die_in_fix(world, "a", "C-REMOVED", disk, {"before": number}).killed
        engine = world.engine("host-b")
        settle(engine, "a")
        nothing_left_over(world, engine, "a")
        assert list((world.root / "a" / "volumes").glob("*/*")) == []
        assert engine.list_images("a") == []
        engine.close()


# -- check


def fingerprint(root: Path) -> dict[str, tuple[int, int, int, int, str]]:
    """Everything that a write below ``root`` would change, but access times."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in ("", *names):
            path = os.path.join(folder, name)
            stat = os.lstat(path)
            data = hashlib.sha256(Path(path).read_bytes()).hexdigest() if name else ""
            found[path] = (stat.st_mode, stat.st_nlink, stat.st_mtime_ns, stat.st_ctime_ns, data)
    return found


@pytest.mark.slow
def test_check_changes_nothing_wherever_it_is_killed(tmp_path: Path):
    """Check, plain and deep, killed before calls all over its run or not at all, leaves each byte, name and
    modification time of a repository that has everything to find as it was."""
    world = World(tmp_path / "world").create()
    engine = world.engine("setup")
    disk = engine.create_virtual_disk("a", 2 * MiB)
    write(engine, "a", disk, "write -P 5 0 1M")
    snapshot = engine.create_snapshot("a", disk)
    engine.record_digest("a", snapshot)
    engine.set_strategy("a", disk, Strategy.PERFORMANCE)
    gone = engine.create_virtual_disk("a", MiB)
    engine.remove_image("a", gone)
    engine.close()
    assert die_in_fix(world, "a", "O-FLAT", disk, {"before": WRITE}).killed
    home = state(world, "host-b")
    before = fingerprint(world.root / "a")
    for deep in (False, True):
        arguments = {"repo_id": "a", "deep": deep}
        whole = sacrifice("host-b", home, "check", arguments)
        assert {"O-FLAT", "C-REMOVED"} <= set(whole.result)
        assert whole.effects == []
        assert fingerprint(world.root / "a") == before
        for number in range(1, whole.calls, max(1, whole.calls // 6)):
            assert sacrifice("host-b", home, "check", arguments, {"before_call": number}).killed
            assert fingerprint(world.root / "a") == before, number


class WithoutDirectIo(Counting):
    """The images door on storage that refuses O_DIRECT, as some do."""

    def open_session(self, chain: Chain, writable: bool, direct: bool, later: bool = False) -> Any:
        if direct:
            raise ToolFailed("cannot open it: Invalid argument")
        return super().open_session(chain, writable, direct, later)


def test_a_deep_check_reads_through_the_cache_where_it_must(tmp_path: Path):
    """Where files cannot be opened for direct I/O a deep check still reads them, and finds nothing wrong."""
    world = World(tmp_path / "world").create()
    engine = world.engine("setup")
    disk = engine.create_virtual_disk("a", MiB)
    write(engine, "a", disk, "write -P 5 0 512k")
    engine.record_digest("a", engine.create_snapshot("a", disk))
    engine.close()
    doors = real_doors("host-b")
    images = WithoutDirectIo(doors.images, world.root)
    other = Engine(doors._replace(images=images), state(world, "host-b"))
    report = other.inspect_repository("a", {"deep": True})
    assert {image.status for image in report.images} == {"optimized"} and report.fixes == ()
    assert sum(length for _, length in images.of("a")) == MiB // 2
    other.close()
