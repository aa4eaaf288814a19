"""Measuring side by side, and the table that comes out. No goal is asserted: a table with a miss is a result."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

from engine.api import Engine
from engine.assembly import real_doors
from engine.data.model import FixType
from engine.doors.images import Layer
from engine.tools.qemu.images import QemuImageTool

KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30

SCALE = float(os.environ.get("BENCH_SCALE", "1"))
"""Below 1: smaller data, to see that a benchmark works. Its numbers mean nothing."""

ROUNDS = 3
PIECES = max(2, round(64 * SCALE))
PIECE_BYTES = 16 * MiB
STRIDE_BYTES = 64 * MiB
SIZE = PIECES * STRIDE_BYTES
"""4 GiB, a quarter of it data."""


class Row(NamedTuple):
    """One line of the table."""

    work: str
    ours: str
    against: str
    theirs: str
    ratio: str
    goal: str
    verdict: str


class Table:
    """Collects rows and writes them as Markdown."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def compare(
        self, work: str, ours: list[float], against: str, theirs: list[float], goal: float | None, per: float = 1
    ) -> None:
        """Times in seconds. ``per``: theirs was measured on that fraction of the work only."""
        ratio = min(ours) / (min(theirs) * per)
        middle = median(ours) / (median(theirs) * per)
        verdict = "no goal" if goal is None else ("pass" if ratio <= goal else "MISS")
        self.rows.append(
            Row(
                work,
                _times(ours),
                against,
                _times([value * per for value in theirs]),
                f"{ratio:.3f} ({middle:.3f})",
                "" if goal is None else f"<= {goal}",
                verdict,
            )
        )

    def state(self, work: str, ours: str, against: str, theirs: str, goal: str, passed: bool | None) -> None:
        """Something that is no ratio of times."""
        verdict = "" if passed is None else ("pass" if passed else "MISS")
        self.rows.append(Row(work, ours, against, theirs, "", goal, verdict))

    def missing(self, work: str, why: str) -> None:
        """Something that could not be measured here, and why."""
        self.rows.append(Row(work, f"not measured: {why}", "", "", "", "", ""))

    def markdown(self) -> str:
        """Header, rows, and the conditions."""
        head = ["work", "ours", "against", "theirs", "ratio", "goal", ""]
        lines = [" | ".join(head), "|".join("---" for _ in head), *(" | ".join(row) for row in self.rows)]
        scaled = "" if SCALE == 1 else f" BENCH_SCALE={SCALE}: not the sizes named, for smoke use only."
        note = f"Times: smallest (median) of {ROUNDS} interleaved repetitions. {machine()}{scaled}"
        return "\n".join(f"| {line} |" if "---" not in line else f"|{line}|" for line in lines) + f"\n\n{note}"


def machine() -> str:
    """Cores and memory, nothing else."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GiB
    return f"Machine: {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB of memory."


def _times(values: list[float]) -> str:
    def text(value: float) -> str:
        return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.2f} ms" if value < 0.1 else f"{value * 1000:.0f} ms"

    return f"{text(min(values))} ({text(median(values))})"


def side_by_side(
    ours: Callable[[], float], theirs: Callable[[], float], rounds: int = ROUNDS
) -> tuple[list[float], list[float]]:
    """Both in turn, each time the other one first. A callable returns the seconds that count."""
    left: list[float] = []
    right: list[float] = []
    for number in range(rounds):
        for mine in (True, False) if number % 2 else (False, True):
            os.sync()  # what was written before must not be paid for by who comes next
            (left if mine else right).append((ours if mine else theirs)())
    return left, right


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def command(*arguments: str) -> float:
    """Seconds that a command takes, start and end included."""
    return timed(lambda: subprocess.run(arguments, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))


def drop_caches() -> bool:
    """Forget what the kernel has cached of files; False when we may not."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")
    except OSError:
        return False
    return True


def engine_with(root: Path, *repositories: str, host: str = "bench") -> Engine:
    """An engine with these repositories below ``root``, made when they are not there."""
    engine = Engine(real_doors(host), str(root / f"state-{host}"))
    for name in repositories:
        if not (root / name).exists():
            engine.create_repository("localfs-1.0", {"path": str(root / name)})
        if name not in engine.list_repositories():
            engine.connect_storage_repository(name, "localfs-1.0", {"path": str(root / name)})
    return engine


def finish(engine: Engine, repo: str, image: str) -> None:
    """Run the fix that makes a committed image usable."""
    for fix in engine.check_storage_repository(repo):
        if fix.target == image and fix.type is FixType.MEND:
            engine.run_fix_here(repo, fix)
            return
    raise AssertionError(f"no mend for {image}")


def delete(engine: Engine, repo: str, image: str) -> None:
    """Remove an image and give its space back."""
    engine.remove_image(repo, image)
    for fix in engine.check_storage_repository(repo):
        if fix.target == image and fix.type is FixType.CLEAN:
            engine.run_fix_here(repo, fix)


def layer_of(engine: Engine, repo: str, image: str) -> Layer:
    """The volume of an image, as a tool opens it."""
    repository = engine.context.repository(repo)
    entry = repository.tags.read(image)
    assert entry and entry.record and entry.record.volume
    return repository.volumes.layer(entry.record.volume)


def chain_of(engine: Engine, repo: str, image: str) -> list[Layer]:
    """All layers of an image, top first."""
    from engine.tags import chains, changes

    repository = engine.context.repository(repo)
    return chains.layers(repository, chains.load(repository, changes.read(repository, image).record))


def write_pieces(chain: list[Layer], starts: list[int], length: int) -> None:
    """Random data at ``starts``; durable on return."""
    session = QemuImageTool().open_session(chain, writable=True, direct=False)
    try:
        for start in starts:
            session.write(start, os.urandom(length))
        session.flush()
    finally:
        session.close()


def write_disk(engine: Engine, repo: str, disk: str, starts: list[int], length: int) -> None:
    """The same into a disk, which is prepared for it: what nobody had prepared is not taken for its content."""
    engine.prepare_image(repo, disk)
    write_pieces(chain_of(engine, repo, disk), starts, length)
    engine.teardown_image(repo, disk)


def data_disk(engine: Engine, repo: str, strategy: str = "performance") -> str:
    """A disk with ``PIECES`` pieces of random data, a quarter of its size."""
    disk = engine.create_virtual_disk(repo, SIZE, options={"strategy": strategy})
    write_disk(engine, repo, disk, [n * STRIDE_BYTES for n in range(PIECES)], PIECE_BYTES)
    return disk


class Setting(NamedTuple):
    """Repository a has a raw disk with data, at ``path``; what is copied or imported goes to b."""

    root: Path
    engine: Engine
    disk: str
    path: str


def setting_in(root: Path) -> Setting:
    """Make both in a directory."""
    engine = engine_with(root, "a", "b")
    disk = data_disk(engine, "a")
    return Setting(root, engine, disk, layer_of(engine, "a", disk).path)
