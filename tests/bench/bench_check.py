"""check at scale, and the start of the command."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from engine.data.model import OperationStatus, Strategy, VolumeFormat
from engine.data.records import Record, VolumeRef, encode, next_generation
from engine.data.seen import Seen, Stamp
from engine.formats.base import backing_name
from engine.formats.files.layout import use_name
from engine.tools.qemu.qcow2 import fresh_image
from tests.bench.kit import SCALE, GiB, Table, command, drop_caches, engine_with, side_by_side

pytestmark = pytest.mark.bench

_INFOS = max(20, round(200 * min(1, SCALE)))

# Imports are over when it says "ready"; what it measures is the verb, its connection to the repository included.
_CHILD = """
import json, resource, sys, time
from engine.api import Engine
from engine.assembly import real_doors
doors = real_doors("bench")
print("ready", flush=True)
sys.stdin.readline()
start = time.perf_counter()
report = Engine(doors, sys.argv[1]).inspect_repository("r")
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([seconds, peak, len(report.images), len(report.fixes), len(report.findings)]))
"""


class Run(NamedTuple):
    """One check in a process of its own."""

    seconds: float
    peak_bytes: int


def images(root: Path, count: int) -> list[str]:
    """A repository at ``root/r`` with ``count`` images in order, half of them disks over the other half's snapshots.
    Written without a single sync: this is not what is measured. Returns the paths of the volumes."""
    engine = engine_with(root, "r")
    new_id = engine.doors.ids.new_id
    engine.close()
    top = root / "r"
    paths: list[str] = []

    def shard(kind: str, name: str) -> Path:
        folder = top / kind / name[:2]
        folder.mkdir(exist_ok=True)
        return folder

    def add(tag: str, parent: str, mutable: bool) -> None:
        volume = VolumeRef(new_id(), VolumeFormat.QCOW2, parent)
        last = OperationStatus("create_disk", "host.example.org", 1, 1, 100, "", 1.7e9, "make volume")
        path = shard("volumes", volume.id) / f"{volume.id}.qcow2"
        image = fresh_image(GiB, backing_name(parent) if parent else None, "qcow2" if parent else None)
        with path.open("wb") as file:
            for offset, data in image.pieces:
                file.seek(offset)
                file.write(data)
            file.truncate(image.length)
        found = path.stat()
        seen = Seen(volume.id, 1, 0, Stamp(found.st_ino, found.st_mtime_ns, found.st_size))
        about = {"name": f"image {len(paths)}"}
        record = Record(tag, True, mutable, GiB, True, volume, Strategy.SPACE, last=last, user_data=about, seen=seen)
        record = record._replace(content=new_id() if mutable else "")
        (shard("tags", tag) / f"{tag}.{next_generation(0):016x}").write_bytes(encode(record))
        if parent:
            (shard("tags", parent) / use_name(parent, tag, next_generation(0))).touch()
        paths.append(str(path))

    for _ in range(count // 2):
        base = new_id()
        add(base, "", mutable=False)
        add(new_id(), base, mutable=True)
    return paths


def check(root: Path, count: int, cold: bool) -> Run:
    """One check of everything in a fresh process; ``cold`` forgets the files between its imports and its work."""
    arguments = [sys.executable, "-c", _CHILD, str(root / "state-bench")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin and child.stdout and child.stdout.readline() == "ready\n"
        assert not cold or drop_caches()
        answer, _ = child.communicate("go\n")
    seconds, peak, found, fixes, findings = json.loads(answer)
    assert (found, fixes, findings) == (count, 0, 0)
    return Run(seconds, peak * 1024)


def infos(paths: list[str], cold: bool) -> float:
    """``qemu-img info`` of some of the volumes, one process each."""
    step = max(1, len(paths) // _INFOS)
    if cold:
        drop_caches()
    command("qemu-img", "--version")  # the program itself is not what is cold
    return sum(command("qemu-img", "info", "-f", "qcow2", path) for path in paths[::step][:_INFOS])


def test_check(room: Path, table: Table) -> None:
    """The whole repository, from connecting to the list of fixes."""
    few, many = room / "few", room / "many"
    sizes = {few: max(200, round(10_000 * SCALE)), many: max(2000, round(100_000 * SCALE))}
    paths: dict[Path, list[str]] = {}
    for root, count in sizes.items():
        root.mkdir()
        paths[root] = images(root, count)
    runs: dict[Path, list[Run]] = {few: [], many: []}
    for cold, goal in ((False, 0.005), (True, 0.02)):
        heat = "cold" if cold else "warm"
        if cold and not drop_caches():
            table.missing("check, cold", "only root may drop the caches")
            continue
        for root, count in sizes.items():

            def ours(root: Path = root, count: int = count, cold: bool = cold) -> float:
                runs[root].append(check(root, count, cold))
                return runs[root][-1].seconds

            def theirs(root: Path = root, cold: bool = cold) -> float:
                return infos(paths[root], cold)

            rounds = 3
            if not cold:
                ours()
            left, right = side_by_side(ours, theirs, rounds)
            against = f"qemu-img info of each, extrapolated from {_INFOS}"
            table.compare(f"check of {count:,} images, {heat}", left, against, right, goal, count / _INFOS)
    growth(table, sizes, runs, few, many)


def growth(table: Table, sizes: dict[Path, int], runs: dict[Path, list[Run]], few: Path, many: Path) -> None:
    """Ten times the images: how much more time and memory."""
    ratio = min(run.seconds for run in runs[many]) / min(run.seconds for run in runs[few])
    peaks = [max(run.peak_bytes for run in runs[root]) / (1 << 20) for root in (few, many)]
    table.state(
        f"growth of check from {sizes[few]:,} to {sizes[many]:,} images", f"{ratio:.1f} times the time", "images",
        f"{sizes[many] / sizes[few]:.0f} times", "", None,
    )  # fmt: skip
    table.state("peak memory of check, fresh process", f"{peaks[0]:.0f} MB and {peaks[1]:.0f} MB", "", "", "", None)


def test_command_start(room: Path, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """``diskwright images`` of 12 images, from start to exit."""
    work = "diskwright images, 12 images"
    if find_spec("tui.cli.main") is None:
        table.missing(work, "tui/cli/main.py does not exist yet")
        return
    root = room / "cli"
    root.mkdir()
    images(root, 12)
    monkeypatch.delenv("DISKWRIGHT_STATE")
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(room / "bytecode"))  # an installed program is compiled; so is this
    monkeypatch.setenv("XDG_STATE_HOME", str(root))
    (root / "diskwright").mkdir()
    (root / "state-bench").rename(root / "diskwright" / "bench")
    entry = "import sys; from tui.cli.main import main; sys.exit(main())"
    start = ["-c", entry, "--host", "bench", "images", "r"]

    def ours() -> float:
        return command(sys.executable, *start)

    def theirs() -> float:
        return command(sys.executable, "-c", "pass")

    ours()
    left, right = side_by_side(ours, theirs, 10)
    table.compare(work, left, "python -c pass", right, 6)
