"""One repository as it was seen at one moment: immutable, and kept with its time when the storage is lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tui.text.statuses import State
from tui.text.words import OLD_AFTER_S
from tui.view.fixes import LOW_SPACE_SHARE, FixRow
from tui.view.images import ImageRow, ImageTable
from tui.view.machines import MachineRow


class Counts(NamedTuple):
    """How many images are in which state."""

    broken: int = 0
    degraded: int = 0
    optimized: int = 0
    removed: int = 0
    unknown: int = 0

    def of(self, state: State) -> int:
        """The count of one of ``statuses.SHOWN``."""
        found: int = getattr(self, state.value)
        return found

    @property
    def total(self) -> int:
        """Images; what is removed is none."""
        return self.broken + self.degraded + self.optimized + self.unknown


class HostOperation(NamedTuple):
    """The last persisted operation on an image. Texts are printable."""

    image: str
    name: str
    verb: str
    host: str
    stage: int
    stages: int
    stage_name: str
    percent: int
    """-1: not known, and then nothing may be shown as a bar."""
    when: float
    """When it was persisted, by that host's clock."""
    last_error: str
    busy: str
    """Who holds the lease, "" for nobody."""
    size_bytes: int
    finished: bool
    stopped: bool = False
    """An operator ended it, which ``last_error`` tells."""

    def old(self, now: float) -> bool:
        """Return whether progress was saved more than a minute ago."""
        return now - self.when > OLD_AFTER_S

    @property
    def lease_held(self) -> bool:
        """Somebody holds the lease of the image: it is not for taking over."""
        return bool(self.busy)


class FindingRow(NamedTuple):
    """Something check saw and offers no fix for."""

    kind: str
    subject: str
    text: str
    size_bytes: int


class TaskRow(NamedTuple):
    """A process of this host that works on the repository."""

    id: str
    pid: int
    image: str
    name: str
    verb: str
    started: float
    images: tuple[str, ...] = ()
    """Every image that it changes, or reads for others."""


class ConstraintRow(NamedTuple):
    """What the repository needs and can do."""

    needs_srm: bool
    shared: bool
    fencing: str
    facts: tuple[tuple[str, str], ...]
    """All of it as (name, value)."""


class RepositoryView(NamedTuple):
    """A repository at ``scanned_at``. While ``problem`` is set everything else is as it was then."""

    name: str
    """Handle of the repository on this host."""
    host: str
    identity: str = ""
    format: str = ""
    place: str = ""
    counts: Counts = Counts()
    total_bytes: int = 0
    free_bytes: int = 0
    scanned_at: float = 0.0
    """Wall time; 0: never read."""
    took_s: float = 0.0
    images: ImageTable = ImageTable()
    fixes: tuple[FixRow, ...] = ()
    """In a safe order to run them in."""
    findings: tuple[FindingRow, ...] = ()
    tasks: tuple[TaskRow, ...] = ()
    operations: tuple[HostOperation, ...] = ()
    """Of all images that are not optimized, whoever worked on them."""
    machines: tuple[MachineRow, ...] = ()
    """What is prepared on this host."""
    constraints: ConstraintRow | None = None
    srm: str = ""
    """Who manages it, "-" when it needs nobody, "?" when it needs somebody and nobody known does."""
    deep: bool = False
    problem: str = ""
    """Why the last look failed, "" when it did not."""
    next_step: str = ""
    problem_at: float = 0.0
    problem_code: str = ""
    """The stable code of the error."""
    read_only: str = ""
    """Why nothing can be changed: "REPLAY", "AFTER PLAN", or ""."""

    @property
    def known(self) -> bool:
        """Whether the repository was read at least once."""
        return self.scanned_at > 0

    @property
    def low_space(self) -> bool:
        """Less than a tenth is free."""
        return self.known and self.free_bytes < self.total_bytes * LOW_SPACE_SHARE

    @property
    def severity(self) -> tuple[int, ...]:
        """How much it needs somebody, to be compared: broken images first, then what could not be read, little
        space, degraded images."""
        unread = self.counts.unknown + bool(self.problem)
        return (self.counts.broken, unread, int(self.low_space), self.counts.degraded)

    def age_s(self, now: float) -> float:
        """Seconds since it was read."""
        return max(0.0, now - self.scanned_at)

    def fix_row(self, key: str) -> FixRow | None:
        """The fix with that key, None when check does not offer it now."""
        return next((row for row in self.fixes if row.key == key), None)

    def fixes_of(self, image: str) -> tuple[FixRow, ...]:
        """Fixes about an image, or that change it."""
        return tuple(row for row in self.fixes if image in (row.target, *row.images))

    def machines_of(self, image: str) -> tuple[MachineRow, ...]:
        """How an image is prepared here, for reading also several times; those that need somebody first."""
        return tuple(row for row in self.machines if row.image == image)

    def machine_above(self, image: str) -> MachineRow | None:
        """The disk with a monitor that is that image or stands on it, None where there is none."""
        return next((row for row in self.machines if row.monitor and row.writable and row.involves(image)), None)

    def runs_elsewhere(self, row: FixRow) -> str:
        """Why a fix cannot run on this host though it could on the manager (SRM), "" when it is no matter of that."""
        if not row.needs_srm or self.srm in ("", "-", self.host):
            return ""
        return "it needs the SRM, and nobody known is it" if self.srm == "?" else f"it needs the SRM, {self.srm}"

    def image(self, id: str) -> ImageRow | None:
        """The row of an image, None when it is not there."""
        return self.images.get(id)


def never_read(name: str, host: str, facts: Mapping[str, str] | None = None) -> RepositoryView:
    """A repository of which nothing is known yet; ``facts``: identity, format and place, where known."""
    return RepositoryView(name, host)._replace(**dict(facts or {}))  # type: ignore[arg-type]


def lost(view: RepositoryView, code: str, message: str, next_step: str, when: float) -> RepositoryView:
    """The view after a look that failed: the old data with its time, and the error."""
    since = view.problem_at if view.problem else when
    return view._replace(problem=message, problem_code=code, next_step=next_step, problem_at=since)
