"""What came of a scenario: verdict, events for the trace, and what two backends must agree on."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, NamedTuple

from engine.api import Engine
from engine.data.model import ImageReport, Status
from engine.errors import DiskwrightError
from sim.scenario.backends.operations import read
from sim.scenario.language.patterns import MAX_BYTES

PASSED, VIOLATED, WRONG, SKIPPED = "passed", "violated", "wrong", "skipped"


class ExpectationViolated(Exception):
    """Something is not as the scenario expects it."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


class Verdict(NamedTuple):
    """How a scenario ended."""

    path: str
    title: str
    backend: str
    result: str
    """PASSED, VIOLATED, WRONG or SKIPPED."""
    line: int = 0
    message: str = ""
    seconds: float = 0.0
    events: tuple[dict[str, Any], ...] = ()
    outcome: dict[str, Any] | None = None
    """The same on every backend; None when it did not come to its end."""


def state_of(image: ImageReport | None) -> str:
    """The status that expectations are about."""
    if image is None:
        return "gone"
    if image.removed:
        return "removed"
    return "hidden" if image.hidden else str(image.status)


def usable(image: ImageReport) -> bool:
    """Whether it can be read now."""
    return not image.removed and not image.hidden and image.status in (Status.OPTIMIZED, Status.DEGRADED)


def of_repository(engine: Engine, repo: str, names: dict[str, str]) -> Any:
    """What a repository has become, without what differs from world to world: ids, times, bytes occupied.

    ``names`` are the images' by id."""
    try:
        report = engine.inspect_repository(repo)
    except DiskwrightError as error:
        return {"error": error.code}
    images = [_of_image(engine, repo, image, names.get(image.id, "")) for image in report.images]
    return {
        "images": sorted(images, key=lambda image: [str(value) for value in image.values()]),
        "fixes": sorted(f"{fix.rule}{' waits' if fix.waits_for else ''}" for fix in report.fixes),
        "findings": sorted(finding.kind for finding in report.findings),
    }


def _of_image(engine: Engine, repo: str, image: ImageReport, name: str) -> dict[str, Any]:
    digest = ""
    if usable(image) and image.size_bytes <= MAX_BYTES:
        try:
            digest = blake2b(read(engine, repo, image.id), digest_size=16).hexdigest()
        except DiskwrightError as error:
            digest = error.code
    return {
        "name": name,
        "state": state_of(image),
        "status": str(image.status),
        "rule": image.rule,
        "size": image.size_bytes,
        "lost": [list(part) for part in image.lost],
        "content": digest,
    }
