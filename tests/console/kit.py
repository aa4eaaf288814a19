"""A console whose repositories, runs and clock are given, and its screen as text."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from textual.widgets import Input

from engine.data.model import (
    Fix,
    FixCost,
    FixType,
    ImageReport,
    OperationStatus,
    RepositoryReport,
    Risk,
    Status,
    Strategy,
    Wait,
    WaitKind,
)
from tui.console.app import ConsoleApp, Options
from tui.console.site import Site
from tui.text.words import RunState
from tui.view.estimates import TimeRange
from tui.view.gather import Names, with_report
from tui.view.snapshot import ConstraintRow, RepositoryView
from tui.work.config import Config
from tui.work.runs import Run, RunStep
from tui.work.scanner import RepositoryEntry

NOW = 1_735_732_800.0  # 2025-01-01 12:00:00 UTC
GiB = 1 << 30
MiB = 1 << 20
GOLDENS = Path(__file__).parent / "goldens"
UPDATE = "DISKWRIGHT_UPDATE_GOLDENS"
PATIENCE_S = 60.0


def ident(number: int) -> str:
    return f"{number:08x}" * 4


def image(
    number: int, status: str = "optimized", reason: str = "", rule: str = "", size: int = 10 * GiB, **more: Any
) -> ImageReport:
    """An image; ``removed=True`` for one that is removed."""
    fields: dict[str, Any] = {
        "facts": (f"fact of {rule}",) if rule else (), "mutable": True, "used_bytes": size // 5,
        "strategy": Strategy.SPACE, "removed": False, "hidden": False, "operation": None, "busy": "", **more,
    }  # fmt: skip
    return ImageReport(ident(number), Status(status), reason, rule, size_bytes=size, **fields)


def operation(verb: str, host: str, stage: int, stages: int, percent: int, age_s: float, error: str = "") -> Any:
    return OperationStatus(verb, host, stage, stages, percent, error, NOW - age_s, "copy data")


def fix(number: int, type: FixType, rule: str, target: int, why: str, before: str, after: str, **more: Any) -> Fix:
    cost = more.pop("cost", FixCost())
    return Fix(
        f"{number:016x}", type, rule, ident(target) if target else "", "5" * 32, (), {"n": number}, why,
        images=(ident(target),) if target else (), status_before=before, status_after=after, cost=cost, **more,
    )  # fmt: skip


def cost(peak: int, freed: int = 0, io: int = 0, eta: float | None = None) -> FixCost:
    return FixCost(read_bytes=io // 2, write_bytes=io // 2, peak_extra_bytes=peak, reclaimed_bytes=freed, eta_s=eta)


NAMES = {
    ident(1): "web-db", ident(2): "mail-spool", ident(3): "erp-data", ident(4): "ci-4411", ident(5): "base-f38",
    **{ident(10 + n): f"web-{n:02d}" for n in range(1, 6)}, **{ident(20 + n): f"app-{n:02d}" for n in range(12)},
}  # fmt: skip


def sample_report() -> RepositoryReport:
    """Three broken, five degraded, thirteen optimized, one removed."""
    images = [
        image(1, "broken", "Copy has not finished at 41 %", "B-COPY", 10 * GiB,
              operation=operation("copy", "host-b", 2, 3, 41, 249)),
        image(2, "broken", "Import has not finished", "B-IMPORT", 2 * GiB,
              operation=operation("import", "host-a", 2, 3, -1, 30)),
        image(3, "broken", "Copy has not finished; it waits for its source", "B-COPY", 40 * GiB,
              operation=operation("copy", "host-c", 1, 3, -1, 4000, "the source is not connected")),
        image(4, "optimized", "Removed, it can be restored", "", 48 * GiB, removed=True),
        image(5, "optimized", "", "", 12 * GiB, mutable=False),
        *(image(10 + n, "degraded", "Usable, but it is an overlay and wants performance", "O-FLAT", 18 * GiB,
                strategy=Strategy.PERFORMANCE,
                operation=operation("optimize", "host-b", 2, 3, 12, 600) if n == 1 else None)
          for n in range(1, 6)),
        *(image(20 + n, size=8 * GiB) for n in range(12)),
    ]  # fmt: skip
    optimize = [
        fix(20 + n, FixType.OPTIMIZE, "O-FLAT", 10 + n, "An overlay that wants performance", "degraded", "optimized",
            cost=cost(18 * GiB, io=36 * GiB, eta=420))
        for n in range(1, 6)
    ]  # fmt: skip
    fixes = [
        fix(1, FixType.MEND, "B-COPY", 1, "Copy has not finished at 41 %; it goes on there", "broken", "optimized",
            cost=cost(4 * GiB, io=12 * GiB, eta=120)),
        fix(2, FixType.MEND, "B-IMPORT", 2, "Import has not finished", "broken", "optimized",
            cost=cost(0, io=GiB, eta=20)),
        fix(3, FixType.MEND, "B-COPY", 3, "Copy has not finished", "broken", "optimized",
            cost=cost(22 * GiB, io=44 * GiB, eta=540), wait=Wait(WaitKind.SOURCE, "99", "image 99 to copy from")),
        fix(4, FixType.CLEAN, "C-REMOVED", 4, "Removed; nothing needs it", "removed", "gone",
            cost=cost(0, freed=9 * GiB + 600 * MiB, eta=5), risk=Risk.IRREVERSIBLE),
        fix(5, FixType.MERGE, "M-CHAIN", 5, "Hidden data with one dependant", "optimized", "optimized",
            cost=cost(0, freed=GiB, io=2 * GiB, eta=60), risk=Risk.IRREVERSIBLE),
        *optimize,
    ]  # fmt: skip
    return RepositoryReport(tuple(sorted(images, key=lambda i: i.id)), tuple(fixes), (), 200 * GiB, 12 * GiB)


def sample_view(name: str = "pool-nfs", report: RepositoryReport | None = None, **more: Any) -> RepositoryView:
    base = RepositoryView(
        name=name, host="host-a", identity="5" * 32, format="nfs-1.0", place="/srv/pool", scanned_at=NOW - 3,
        took_s=0.4, srm="-", constraints=ConstraintRow(False, True, "nfs4-lock", ()),
    )  # fmt: skip
    names = Names(NAMES, {ident(5): 3})
    return with_report(base, report or sample_report(), names)._replace(**more)


def run_step(number: int, type: str, target: int, state: RunState, **more: Any) -> RunStep:
    name = NAMES.get(ident(target), "-")
    more.setdefault("reason", "")
    more.setdefault("started", NOW - 90 if state is not RunState.WAITING else 0.0)
    more.setdefault("ended", NOW - 85 if state is RunState.DONE else 0.0)
    return RunStep(
        number, f"key{number}", type, "RULE", ident(target), name, state, attempts=1, error="", code="", **more
    )


def sample_run() -> Run:
    steps = (
        run_step(1, "clean", 4, RunState.DONE, freed_bytes=9 * GiB),
        run_step(2, "mend", 1, RunState.RUNNING, stage=2, stages=3, stage_name="copy data", percent=41,
                 saved_at=NOW - 2, bytes_done=4 * GiB, bytes_total=10 * GiB, rate=96.0 * MiB,
                 left=TimeRange(60.0, 130.0, "rate")),
        run_step(3, "mend", 2, RunState.WAITING, reason="waits for step 2 (same image)"),
    )  # fmt: skip
    return Run(
        "a" * 32, "3f2a" * 4, "pool-nfs", "5" * 32, "host-a", NOW - 95, 0.0, RunState.RUNNING, "", steps, True, 4242,
        NOW - 2, False,
    )  # fmt: skip


class FixedSite(Site):
    """Repositories that are as given, whatever is looked at; decisions are really saved below ``state``."""

    def __init__(self, state: Path, views: Sequence[RepositoryView] = (), runs: Sequence[Run] = ()) -> None:
        super().__init__("host-a", str(state), lambda: self.time)
        self.time = NOW
        self.fixed = {view.name: view for view in views}
        self.fixed_runs = tuple(runs)
        self.scans = 0

    def reload(self) -> bool:
        self.entries = tuple(
            RepositoryEntry(view.name, view.format, view.place, view.identity) for view in self.fixed.values()
        )
        self.current = self.current or self.worst()
        return True

    def scan(self, name: str, deep: bool = False) -> RepositoryView:
        del deep
        self.scans += 1
        return self.fixed[name]

    def poll(self) -> bool:
        changed = super().poll()
        changed = changed or self.runs != self.fixed_runs
        self.runs = self.fixed_runs
        return changed


def console(site: Site, config: Config = Config(), **options: Any) -> ConsoleApp:  # noqa: B008 - immutable
    return ConsoleApp(site, config, Options(**options))


@asynccontextmanager
async def running(app: ConsoleApp, size: tuple[int, int] = (80, 24)):
    """The console, idle, at a size."""
    async with app.run_test(size=size) as pilot:
        await idle(pilot)
        yield pilot


async def idle(pilot: Pilot[Any]) -> None:
    """Wait until no call is under way and everything is drawn."""
    app = pilot.app
    assert isinstance(app, ConsoleApp)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        await pilot.pause()
        if not app.jobs.busy() and not app.jobs.deciding:
            return
        await pilot.pause(0.01)
    raise AssertionError("a call never came to its end")


async def press(pilot: Pilot[Any], *keys: str) -> None:
    """Press keys one after the other, each when everything before it has settled; letters that are typed
    into a field at once."""
    waiting: list[str] = []
    for key in keys:
        if len(key) == 1 and isinstance(pilot.app.focused, Input):
            waiting.append(key)
            continue
        if waiting:
            await pilot.press(*waiting)
            waiting = []
        await pilot.press(key)
        await idle(pilot)
    if waiting:
        await pilot.press(*waiting)
        await idle(pilot)


def screen_lines(app: ConsoleApp) -> list[str]:
    """The screen as it is, a string for each line."""
    return [line.rstrip() for line in app.screen_text().split("\n")]


def screen_text(app: ConsoleApp) -> str:
    return "\n".join(screen_lines(app)) + "\n"


def told(app: ConsoleApp) -> str:
    """What the last message says."""
    return app.messages.last.text if app.messages.last is not None else ""


def golden(name: str, text: str) -> None:
    """Compare with what was accepted; the environment variable DISKWRIGHT_UPDATE_GOLDENS=1 accepts."""
    path = GOLDENS / f"{name}.txt"
    if os.environ.get(UPDATE):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"no golden {name}: look at the screen, then accept it with {UPDATE}=1"
    assert text == path.read_text(encoding="utf-8"), f"{name} looks different; {UPDATE}=1 accepts it"
