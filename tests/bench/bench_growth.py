"""What is done with one image, among few and among many: CPU seconds of one call in a process that knows nothing, and
the records that it reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from engine.api import Engine
from engine.data.model import Fix
from engine.survey import survey
from engine.tools.local.files import RealFiles
from engine.triage.judge import judge
from tests.bench.bench_check import images
from tests.bench.kit import ROUNDS, SCALE, Table, engine_with
from tui.view.gather import about

pytestmark = pytest.mark.bench

_COUNTS = sorted({max(100, round(count * SCALE)) for count in (100, 1_000, 10_000, 100_000)})
_MOST = 1.5
MiB = 1 << 20


class Spent(NamedTuple):
    """What one call took."""

    seconds: float
    records: int


class Place:
    """A repository of many, with a template and a disk on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        engine = engine_with(root, "r")
        self.base = engine.create_snapshot("r", engine.create_virtual_disk("r", MiB))
        self.disk = engine.create_virtual_disk("r", MiB, self.base)
        engine.close()

    def removed(self, engine: Engine) -> str:
        """A disk that was removed just now."""
        image = engine.create_virtual_disk("r", MiB)
        engine.remove_image("r", image)
        return image

    def removed_snapshot(self, engine: Engine) -> str:
        """A snapshot of the disk that was removed just now."""
        image = engine.create_snapshot("r", self.disk)
        engine.remove_image("r", image)
        return image

    def flat_to_be(self, engine: Engine) -> str:
        """A disk that was asked to be flat just now."""
        image = engine.create_virtual_disk("r", MiB, self.base)
        engine.set_strategy("r", image, "performance")
        return image

    def promised(self, engine: Engine) -> str:
        """A copy of the disk that is not made yet."""
        return engine.copy_image("r", self.disk, None, None, {"auto_fix": False})

    def mended(self, engine: Engine, image: str) -> None:
        """Run the fix of an image, found by a look at it alone."""
        engine.run_fix_here("r", self.fix(engine, image))

    def fix(self, engine: Engine, target: str) -> Fix:
        """The fix of an image, found by a look at it alone."""
        fixes = judge(survey.look(engine.context, engine.context.repository("r"), only=target)).fixes
        return next(fix for fix in fixes if fix.target == target)

    def spent(self, prepare: Callable[[Engine], str], work: Callable[[Engine, str], object]) -> Spent:
        """What ``work`` takes in an engine that has just started, at best, with what another one has prepared."""
        found = []
        for _ in range(ROUNDS):
            engine = engine_with(self.root, "r")
            about = prepare(engine)
            engine.close()
            engine = engine_with(self.root, "r")
            with pytest.MonkeyPatch.context() as patch:
                read, records = RealFiles.read_file, 0

                def counted(files: RealFiles, path: str, limit: int) -> bytes:
                    nonlocal records
                    records += "/tags/" in path
                    return read(files, path, limit)  # noqa: B023 - called here

                patch.setattr(RealFiles, "read_file", counted)
                start = time.process_time()
                work(engine, about)
                found.append(Spent(time.process_time() - start, records))
            engine.close()
        return min(found)


def works(place: Place) -> dict[str, Spent]:
    """Of each verb and fix."""
    later = {"auto_fix": False}
    disk, nothing = place.disk, lambda engine: ""
    return {
        "status": place.spent(nothing, lambda engine, _: engine.get_image_status("r", disk)),
        "why": place.spent(nothing, lambda engine, _: about(engine, "r", disk)),
        "create on a base": place.spent(nothing, lambda engine, _: engine.create_virtual_disk("r", MiB, place.base)),
        "create_snapshot": place.spent(nothing, lambda engine, _: engine.create_snapshot("r", place.disk)),
        "copy, committed": place.spent(nothing, lambda engine, _: engine.copy_image("r", disk, None, None, later)),
        "remove": place.spent(
            lambda engine: engine.create_virtual_disk("r", MiB), lambda engine, image: engine.remove_image("r", image)
        ),
        "restore": place.spent(place.removed, lambda engine, image: engine.restore_image("r", image)),
        "user data": place.spent(nothing, lambda engine, _: engine.set_user_data("r", disk, {"at": time.time()})),
        "clean": place.spent(place.removed, place.mended),
        "merge": place.spent(place.removed_snapshot, place.mended),
        "mend": place.spent(place.promised, place.mended),
        "optimize": place.spent(place.flat_to_be, place.mended),
    }


def test_growth(room: Path, table: Table) -> None:
    """At each size; the ratio is that of the largest to the smallest."""
    found: dict[str, list[Spent]] = {}
    for count in _COUNTS:
        root = room / str(count)
        root.mkdir()
        images(root, count)
        for name, spent in works(Place(root)).items():
            found.setdefault(name, []).append(spent)
    for name, all_spent in found.items():
        times = [spent.seconds for spent in all_spent]
        shown = ", ".join(f"{value * 1000:.1f} ms" for value in times)
        read = "/".join(str(spent.records) for spent in all_spent)
        among = f"among {', '.join(f'{count:,}' for count in _COUNTS)} images"
        ratio = times[-1] / times[0]
        table.state(
            f"growth of {name}", f"{shown} ({ratio:.2f}); {read} records", among, "", f"<= {_MOST}", ratio <= _MOST
        )
