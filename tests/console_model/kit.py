"""What the tests of the console's model share: synthetic views, and hosts with real repositories."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from engine.api import Engine
from engine.assembly import real_doors
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
from tui.view.gather import Names, with_report
from tui.view.snapshot import RepositoryView, never_read

GIB = 1 << 30
NOW = 1_800_000_000.0
FREE = FixCost()


def image_id(number: int) -> str:
    return f"{number:032x}"


def image(number: int, status: Status = Status.OPTIMIZED, **values: Any) -> ImageReport:
    found: dict[str, Any] = {
        "id": image_id(number), "status": status, "reason": f"it is {status}", "rule": "", "facts": (),
        "mutable": True, "size_bytes": GIB, "used_bytes": GIB // 2, "strategy": Strategy.SPACE, "removed": False,
        "hidden": False, "operation": None, "busy": "",
    }  # fmt: skip
    return ImageReport(**(found | values))


def operation(host: str = "host-b", percent: int = 41, **values: Any) -> OperationStatus:
    found: dict[str, Any] = {
        "verb": "copy", "host": host, "stage": 2, "stages": 3, "percent": percent, "last_error": "",
        "when": NOW - 30, "stage_name": "copy data",
    }  # fmt: skip
    return OperationStatus(**(found | values))


def fix(number: int, type: str = "mend", target: int = 0, cost: FixCost = FREE, **values: Any) -> Fix:
    """A fix with the id ``number``; its target is the image of that number unless another is named."""
    target_id = image_id(target or number)
    peak = cost.peak_extra_bytes
    room = None if cost.fits else Wait(WaitKind.ROOM, str(peak), f"{peak} bytes of free space")
    found: dict[str, Any] = {
        "id": f"{number:016x}", "type": FixType(type), "rule": f"{type[0].upper()}-{number}", "target": target_id,
        "repository": "e" * 32, "reads": ((f"tag:{target_id}", "1"),), "plan": {}, "why": "It is not in order",
        "images": (target_id,), "cost": cost, "status_before": "broken", "status_after": "optimized",
        "waits_for": "",
    }  # fmt: skip
    found |= values
    waits = found.pop("waits_for")
    found.setdefault("wait", Wait(WaitKind.SOURCE, "", waits) if waits else room)
    return Fix(**found)


def clean(number: int, frees: int, target: int = 0, **values: Any) -> Fix:
    """A fix that frees ``frees`` bytes by deleting a removed image."""
    told: dict[str, Any] = {"status_before": "removed", "status_after": "gone", "risk": Risk.IRREVERSIBLE} | values
    return fix(number, "clean", target, FixCost(reclaimed_bytes=frees), **told)


def taking(number: int, peak: int, target: int = 0, free: int = 100 * GIB, **values: Any) -> Fix:
    """A mend that needs ``peak`` bytes."""
    cost = FixCost(read_bytes=peak, write_bytes=peak, peak_extra_bytes=peak, fits=peak <= free, exact=False)
    return fix(number, "mend", target, cost, **values)


def view(
    images: Iterable[ImageReport] = (),
    fixes: Iterable[Fix] = (),
    free: int = 100 * GIB,
    total: int = 200 * GIB,
    names: dict[str, str] | None = None,
    dependants: dict[str, int] | None = None,
    **values: Any,
) -> RepositoryView:
    """A view of a repository that does not exist."""
    report = RepositoryReport(tuple(images), tuple(fixes), (), total, free)
    base = never_read("main", "host-a")._replace(
        identity="e" * 32, format="localfs-1.0", place="/srv/main", scanned_at=NOW, srm="-", **values
    )
    return with_report(base, report, Names(names or {}, dependants or {}))


def engine_of(state: str, host: str = "host-a") -> Engine:
    return Engine(real_doors(host), f"{state}/{host}")


def until(engine: Engine, condition: Callable[[], Any], patience_s: float = 60.0) -> Any:
    """Wait for something that another process does; returns what ``condition`` found."""
    clock = engine.doors.clock
    deadline = clock.monotonic() + patience_s
    while not (found := condition()):
        assert clock.monotonic() < deadline, "it did not happen"
        clock.sleep(0.01)
    return found
