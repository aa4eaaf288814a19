"""One claimed attempt at an operation on a tag.

The claimant holds the tag's lease and owns its epoch: it raised the epoch in the record, so an
older executor finds out at its next step and stops. Removal and a newer claim raise it again,
and then this attempt is over: ``Superseded``, and nothing more is touched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Self

from engine.data import progress
from engine.data.model import OperationStatus
from engine.data.records import Operation, Record
from engine.errors import Damaged, DiskwrightError, Stopped, Superseded
from engine.formats.base import Repository
from engine.tags import changes, seen, sessions
from engine.tags.context import Context


class Attempt:
    """Progress, guarded changes and the last error of one attempt.

    As a context manager it persists the error that ends it (``fail``)."""

    def __init__(
        self,
        context: Context,
        repository: Repository,
        tag: str,
        verb: str,
        stages: tuple[str, ...],
        also: Callable[[], None] | None = None,
        session: bool = False,
    ) -> None:
        """``session``: a machine has the image open, and goes on."""
        self.context = context
        self.repository = repository
        self.tag = tag
        self.verb = verb
        self.stages = stages
        self.epoch = 0
        self.cursor = 0
        self.also = also
        """Called at every step too: checks the attempt that this one works for."""
        self._session = session
        self._target = ""
        self._stage = 0
        self._percent = -1
        self._sequence = 0
        self._logging = False
        self._resumable = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, DiskwrightError):
            self.fail(error)

    def join(self, record: Record) -> None:
        """Work in the present epoch without a claim: for work that is short and has no cursor. What ``record`` names is
        durably named on return: the host that wrote it may have died before it was."""
        self.repository.tags.settle(self.tag)
        self.epoch = record.epoch

    def claim(self, derive: Callable[[Record], Record] = lambda record: record) -> Record:
        """Take the operation over: epoch raised, the cursor of the attempt before kept in the
        record, ``derive`` applied. What is persisted of the progress never falls back, unless the
        work starts over. Durable on return. Superseded when the tag is being deleted."""
        before = 0

        def claimed(record: Record) -> Record:
            nonlocal before
            if record.purging:
                raise Superseded(f"image {self.tag} is being deleted")
            before = record.epoch
            known = _last_status(self.repository, record)
            record = derive(with_cursor(self.repository, record))
            self._go_on_from(known if record.operation and record.operation.cursor else None)
            if not self._session:
                record = sessions.closed(self.context.doors, record)
            return record._replace(epoch=record.epoch + 1, last=self.status())

        record = changes.change(self.repository, self.tag, claimed)
        self.epoch = record.epoch
        self._follow(record)
        self.cursor = record.operation.cursor if record.operation else 0
        self.repository.progress.start(self.tag, self.epoch)
        self._logging = True
        self._write_line("")
        with contextlib.suppress(DiskwrightError):  # only litter
            self.repository.progress.remove(self.tag, before)
        return record

    def take_over(self) -> Record:
        """Claim the operation as the record has it. Superseded when somebody else has finished it: whoever lost the
        lease unnoticed finds out here."""

        def still_unfinished(record: Record) -> Record:
            unfinished(record, self.verb)
            return record

        return self.claim(still_unfinished)

    def status(self, last_error: str = "", stopped: bool = False) -> OperationStatus:
        """Return the attempt's stage and percent as they are persisted, with ``last_error``."""
        return OperationStatus(
            verb=self.verb,
            host=self.context.doors.ids.host_id,
            stage=self._stage + 1,
            stages=len(self.stages),
            percent=self._percent,
            last_error=last_error,
            when=self.context.doors.clock.wall(),
            stage_name=self.stages[self._stage],
            stopped=stopped,
        )

    def _go_on_from(self, known: OperationStatus | None) -> None:
        self._stage, self._percent = 0, -1
        if known is not None and known.verb == self.verb and known.stage_name in self.stages:
            self._stage, self._percent = self.stages.index(known.stage_name), known.percent

    def stage(self, name: str) -> None:
        """Enter a stage, or stay in a later one that an attempt before this one had reached. Durable on return."""
        self.check()
        if self.stages.index(name) > self._stage:
            self._stage, self._percent = self.stages.index(name), -1
            self._write_line("")

    def start_over(self) -> None:
        """Begin at cursor 0: what was done so far does not count any more."""
        self.cursor = 0
        self._go_on_from(None)

    def checkpoint(self, cursor: int, percent: int) -> None:
        """Record that everything below ``cursor`` is durable. Raises Stopped or Superseded."""
        self.cursor, self._percent = cursor, percent
        self._write_line("")
        self.check()

    def check(self) -> None:
        """Raise if the operator asked to stop, or if the attempt is no longer ours."""
        if self.context.stopping():
            raise Stopped(f"{self.verb} of image {self.tag} was stopped by the operator", "Run its fix to go on")
        self.context.require_connected(self.repository)
        self._ours(changes.read(self.repository, self.tag).record)
        if self.also is not None:
            self.also()

    def publish(self, derive: Callable[[Record], Record]) -> Record:
        """Change the record if the attempt is still ours. Durable on return."""

        def guarded(record: Record) -> Record:
            self._ours(record)
            return derive(record)

        record = changes.change(self.repository, self.tag, guarded)
        self._follow(record)
        return record

    def _follow(self, record: Record) -> None:
        """Have the progress log be about the volume that ``record`` says is being written."""
        self._resumable = record.operation is not None
        self._target = record.operation.target if record.operation else ""

    def finish(self, derive: Callable[[Record], Record]) -> Record:
        """Publish the result together with the final status; the progress log goes. Nothing writes to the volume any
        more, and all of it is durable."""
        self._stage, self._percent = len(self.stages) - 1, 100
        record = self.publish(lambda record: seen.noted(self.repository, derive(record))._replace(last=self.status()))
        if self._logging:
            with contextlib.suppress(DiskwrightError):  # only litter
                self.repository.progress.remove(self.tag, self.epoch)
        return record

    def fail(self, error: DiskwrightError) -> None:
        """Persist the reason where it can still be written; never raises for the storage."""
        if isinstance(error, Superseded):
            return
        if error.lost_writes:
            self._give_volume_up()
        stopped = isinstance(error, Stopped)
        if self._logging and self._resumable:  # the log outlives the attempt, and has its room already
            with contextlib.suppress(DiskwrightError):
                self._write_line(error.message, stopped)
                return
        ended(self.repository, self.tag, self.status(error.message[:200], stopped))

    def _give_volume_up(self) -> None:
        """Have another volume filled from 0: nothing in this one can be relied on after a flush of it failed."""

        def afresh(record: Record) -> Record | None:
            self._ours(record)
            operation = record.operation
            if operation is None or operation.attempt is None or operation.verb == "adopt":  # a file of the user's
                return None
            fresh = operation.attempt._replace(id=self.context.doors.ids.new_id())
            scrap = (*record.scrap, operation.attempt)
            return record._replace(operation=operation._replace(attempt=fresh, cursor=0, made=""), scrap=scrap)

        with contextlib.suppress(DiskwrightError):  # then the next attempt goes on in it, as after a power cut
            self._follow(changes.change(self.repository, self.tag, afresh))
            self.start_over()

    def _ours(self, record: Record) -> None:
        if record.epoch != self.epoch or record.purging:
            who = record.last.host if record.last else "another host"
            raise Superseded(f"{self.verb} of image {self.tag} was cancelled or taken over by {who}")

    def _write_line(self, error: str, stopped: bool = False) -> None:
        if not self._logging:
            return
        self._sequence += 1
        line = progress.Progress(
            self.status(error, stopped), self.cursor, self._target, self.context.doors.processes.own()
        )
        self.repository.progress.write(self.tag, self.epoch, self._sequence, progress.encode(line))


def unfinished(record: Record, verb: str) -> Operation:
    """Return the operation of a record that is still to be finished. Superseded when it is not there any more,
    Damaged when it names no volume."""
    operation = record.operation
    if operation is None or operation.verb != verb:
        raise Superseded(f"the {verb} of image {record.id} was finished by somebody else")
    if operation.attempt is None:
        raise Damaged(f"image {record.id} is not complete and its record does not say what is missing")
    return operation


def ended(repository: Repository, tag: str, status: OperationStatus) -> None:
    """Persist in the record how an attempt ended, and its cursor: its log says less now and goes. The
    caller holds the lease. Never raises for the storage."""
    before = 0

    def over(record: Record) -> Record:
        nonlocal before
        before = record.epoch
        return with_cursor(repository, record)._replace(epoch=record.epoch + 1, last=status)

    with contextlib.suppress(DiskwrightError):
        changes.change(repository, tag, over)
        repository.progress.remove(tag, before)


def not_begun(repository: Repository, tag: str, error: DiskwrightError) -> None:
    """Persist why the work that a verb has committed was not begun. The caller holds the lease. Never raises for the
    storage."""

    def with_error(record: Record) -> Record | None:
        if record.last is None:
            return None
        return record._replace(last=record.last._replace(last_error=f"it was not begun: {error.message}"[:200]))

    with contextlib.suppress(DiskwrightError):
        changes.change(repository, tag, with_error)


def _last_status(repository: Repository, record: Record) -> OperationStatus | None:
    line = _newest_line(repository, record)
    return line.status if line else record.last


def _newest_line(repository: Repository, record: Record) -> progress.Progress | None:
    """Return the newest progress line; None also when the log cannot be read: then work is done again, and an image
    with a bad log is not stuck."""
    with contextlib.suppress(DiskwrightError):
        if record.operation is not None:
            return progress.decode(repository.progress.read(record.id, record.epoch))
    return None


def with_cursor(repository: Repository, record: Record) -> Record:
    """Return ``record`` with the cursor of its newest progress line in its operation."""
    line = _newest_line(repository, record)
    if (
        record.operation is None
        or line is None
        or line.volume != record.operation.target
        or line.cursor <= record.operation.cursor
    ):
        return record
    return record._replace(operation=record.operation._replace(cursor=line.cursor))
