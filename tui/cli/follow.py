"""Following work that goes on in another process: a bar on a terminal, sentences elsewhere.

What is shown is what the work persisted. Ctrl-C ends the following and never the work.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

from engine.data.amounts import human
from engine.errors import Conflict, DiskwrightError, Refused, StorageError
from tui.cli.render import columns, is_terminal
from tui.cli.session import Session, image_json, usable
from tui.text.amounts import compact
from tui.text.printable import cut, printable, quoted
from tui.text.words import doing

if TYPE_CHECKING:
    from engine.data.model import ImageReport
    from engine.host.state import Task

INTERRUPTED = 130
_INTERVAL_S = 0.25
"""At most four updates a second."""
_POLL_SHARE = 5
"""Looking takes at most one part in so many of the time."""
_BAR_CELLS = 20
_NAME_COLUMNS = 20
_NARROW_COLUMNS = 100
"""Below this width the bar is half as long and stages have no names, so that the time left can be read."""

Event = dict[str, Any]


class Bar:
    """One line on a terminal's standard error that is written over and over; nothing elsewhere."""

    def __init__(self) -> None:
        self.active = is_terminal(sys.stderr)
        self._shown = False
        self._next = 0.0
        encoding = (getattr(sys.stderr, "encoding", None) or "ascii").lower()
        self._full, self._empty = ("━", "─") if encoding.startswith("utf") else ("#", ".")

    def percent(self, label: str, percent: int) -> None:
        """Show a percentage, at most four times a second."""
        if self.active and time.monotonic() >= self._next:
            self._next = time.monotonic() + _INTERVAL_S
            self.show(f"{label}  {self.cells(percent)} {max(percent, 0):3d} %")

    def cells(self, percent: int) -> str:
        """The bar itself."""
        length = _BAR_CELLS // 2 if self.narrow else _BAR_CELLS
        full = max(0, min(length, percent * length // 100))
        return self._full * full + self._empty * (length - full)

    @property
    def narrow(self) -> bool:
        """Whether there is too little room for everything."""
        return columns(sys.stderr) < _NARROW_COLUMNS

    def show(self, text: str) -> None:
        """Replace the line."""
        if self.active:
            self._shown = True
            self._write(f"\r{cut(text, columns(sys.stderr) - 1, '')}\x1b[K")

    def clear(self) -> None:
        """Take the line away, so that other text can be written."""
        if self._shown:
            self._shown = False
            self._write("\r\x1b[K")

    @staticmethod
    def _write(text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            return


class Speed:
    """Rate and remaining time from percentages that were seen, told once they mean something."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def text(self, percent: int, size_bytes: int, now: float) -> str:
        """Bytes, rate and time left of ``size_bytes`` at ``percent``."""
        done = size_bytes * percent // 100
        words = f"{compact(done)} of {human(size_bytes)}"
        if self._first is None or percent < self._first[1]:
            self._first = (now, percent)
        started, begun = self._first
        if percent <= begun or now - started < 1:
            return words
        rate = size_bytes * (percent - begun) / 100 / (now - started)
        left = (size_bytes - done) / rate if rate else 0.0
        return f"{words}  {compact(int(rate))}/s  {int(left) // 60}:{int(left) % 60:02d} left"


class Follower:
    """Follows one task until its process has ended."""

    def __init__(self, session: Session, task: Task, on_event: Callable[[Event], None] = lambda event: None) -> None:
        self._session = session
        self._task = task
        self._on_event = on_event
        self._image = task.image
        self._bar = Bar()
        self._speed = Speed()
        self._next = 0.0
        self.events: list[Event] = []

    def run(self) -> list[Event]:
        """Return all events once the task has ended. KeyboardInterrupt leaves the task running."""
        try:
            self._session.engine.wait_for_task(self._task, self._tick)
            self._take_events()
            self._session.followed(self._task.id)
        finally:
            self._bar.clear()
        return self.events

    def _tick(self) -> None:
        started = time.monotonic()
        if started < self._next:
            return
        self._take_events()
        if self._bar.active:
            self._show()
        spent = time.monotonic() - started
        self._next = started + max(_INTERVAL_S, spent * _POLL_SHARE)

    def _take_events(self) -> None:
        fresh = self._session.engine.task_events(self._task)[len(self.events) :]
        for event in fresh:
            self.events.append(event)
            if event.get("event") == "start":
                self._image = str(event.get("image", ""))
                self._speed = Speed()
            self._bar.clear()
            self._on_event(event)

    def _show(self) -> None:
        doing_now = doing(self._task.rule, printable(self._task.verb))
        label = f"{doing_now} {self._image[:8]}".strip()
        try:
            status = self._session.engine.get_image_status(self._task.repo_id, self._image) if self._image else None
        except DiskwrightError:
            status = None  # hidden data, or gone meanwhile: only the name is shown
        operation = status.operation if status else None
        called = (
            cut(printable(status.name), _NAME_COLUMNS // (1 + self._bar.narrow))
            if status and status.name
            else self._image[:8]
        )
        if status is None or operation is None or operation.when < self._task.started:
            self._bar.show(f"{doing_now} {called}" if status else label)  # what is recorded is an earlier operation
            return
        label = f"{printable(operation.verb)} {called}"  # what people asked for, not the kind of fix it takes
        stage = f"  {operation.stage}/{operation.stages}" if operation.stages else ""
        if stage and not self._bar.narrow:
            stage += f" {printable(operation.stage_name)}"
        if operation.percent < 0:
            self._bar.show(f"{label}{stage}")
            return
        speed = self._speed.text(operation.percent, status.size_bytes, time.monotonic())
        self._bar.show(f"{label}{stage}  {self._bar.cells(operation.percent)} {operation.percent:3d} %  {speed}")


def failures(events: list[Event]) -> list[Event]:
    """What went wrong in a task: its failed fixes, and a process that ended before it was done."""
    found = [event for event in events if event.get("event") == "failed"]
    if not any(event.get("event") == "end" for event in events) and not found:
        said = [str(event.get("error", "")) for event in events if event.get("event") == "output"]
        last = f" Its last words: {said[-1]}" if said and said[-1] else ""
        text = f"the process ended before its work was done; what it did is kept.{last}"
        found.append({"event": "failed", "fix": "", "error": text, "code": StorageError.code})
    return found


def exit_code(code: object) -> int:
    """The exit code that belongs to the stable code of an error."""
    return next((kind.exit_code for kind in _kinds(DiskwrightError) if kind.code == code), 1)


def _kinds(kind: type[DiskwrightError]) -> Iterator[type[DiskwrightError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def follow_all(session: Session, find: Callable[[Collection[str]], Task | None]) -> list[Event]:
    """Follow what ``find`` finds, given the ids of the tasks that were followed, one after the other; return what went
    wrong in the last. A batch that came upon an image may have failed because the verb's own work has it."""
    followed: set[str] = set()
    failed: list[Event] = []
    while (task := find(followed)) is not None:
        followed.add(task.id)
        failed = failures(Follower(session, task).run())
    return failed


def wait_for_image(session: Session, repo_id: str, image: str, document: dict[str, Any]) -> int:
    """Follow the work on an image that was just committed; 0 when it is usable afterwards.

    ``document`` is completed with the final status and written as JSON."""
    name = quoted(repo_id)
    try:
        failed = follow_all(session, lambda followed: session.task_on(repo_id, image, followed))
        report = session.engine.get_image_status(repo_id, image)
    except KeyboardInterrupt:
        session.out.document({**document, "detached": True})
        session.out.say(
            f"Detached, work goes on. Look: diskwright status {name} {image}. End it: diskwright stop {name} {image}"
        )
        return INTERRUPTED
    session.out.document({**document, "detached": False, "status": image_json(report)})
    if usable(report):
        session.out.say(f"{session.out.status(report.status)}: {printable(report.reason)}")
        return 0
    error = _why_not(report, failed)
    session.out.say(f"diskwright: {printable(str(error))}")
    return error.exit_code


def _why_not(report: ImageReport, failed: list[Event]) -> DiskwrightError:
    """The error that says why an image is not usable although its work was waited for."""
    look = f"diskwright why tells what to do with {report.id}"
    if failed:
        error = DiskwrightError(str(failed[0].get("error", "")).rstrip(". "), look)
        error.exit_code = exit_code(failed[0].get("code"))
        return error
    if report.busy:
        return Conflict(f"image {report.id} is worked on elsewhere: {report.busy}", "Wait for that")
    return Refused(f"image {report.id} is not usable yet: {report.reason}", look)
