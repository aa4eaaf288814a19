"""The last persisted state of one image's work, read by itself: for bars, beside what is prepared, and as evidence
before a take-over."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from engine.api import Engine
from engine.data import progress
from engine.data.model import OperationStatus
from engine.data.records import Record
from engine.doors.processes import ProcessIdentity, ProcessState
from engine.errors import DiskwrightError, NotFound
from engine.formats.base import Repository
from engine.host.state import Task
from engine.tags import leasing
from tui.text.amounts import compact, moment
from tui.text.printable import printable
from tui.text.words import OLD_AFTER_S, doing
from tui.view.gather import operation_row
from tui.view.machines import MachineRow
from tui.view.snapshot import HostOperation


def operation(engine: Engine, repo_id: str, image: str) -> HostOperation | None:
    """What was last persisted of the work on an image, None when nothing is recorded or it is gone.

    One record and its progress are read, so this can be asked often. Raises StorageError."""
    repository = engine.context.repository(repo_id)
    found = _record(repository, image)
    last = _last(repository, found) if found is not None else None
    if found is None or last is None:
        return None
    busy = leasing.holder(engine.doors, repository, image) if repository.leases.held(image) else ""
    return operation_row(image, printable(found.name), last, busy, found.size)


def at_work(
    engine: Engine, rows: Iterable[MachineRow], percents: Mapping[str, int] | None = None
) -> tuple[MachineRow, ...]:
    """These rows of prepared images with what tasks of this host do to each, or to a layer below it. ``percents``: how
    far tasks have come, by id, as far as that is known."""
    tasks = [(task, engine.task_image(task)) for task in engine.list_tasks()]
    return tuple(_at_work(engine, row, tasks, percents or {}) for row in rows)


def _at_work(
    engine: Engine, row: MachineRow, tasks: Sequence[tuple[Task, str]], percents: Mapping[str, int]
) -> MachineRow:
    for task, image in tasks:
        found = next((one for one in (image, *task.images) if row.involves(one)), "")
        if printable(task.repo_id) == row.repository and found:
            rate = f", {compact(task.rate)}/s at most" if task.rate else ""
            how_far = percents[task.id] if task.id in percents else percent(engine, task)
            what = f"{what_of(task, how_far)}{rate}, process {task.process.pid}"
            return row._replace(work=what, worked_on=found)
    return row


def what_of(task: Task, percent: int) -> str:
    """What a task does, as people call it, and how far it has come: "merge 41 %"."""
    return doing(task.rule, printable(task.verb)) + (f" {percent} %" if percent >= 0 else "")


def percent(engine: Engine, task: Task) -> int:
    """How far a task has come with what it does now, -1 where that is not known."""
    for image in dict.fromkeys((engine.task_image(task), *task.images)):
        with contextlib.suppress(DiskwrightError):
            found = operation(engine, task.repo_id, image) if image else None
            if found is not None and found.percent >= 0 and found.busy and not found.finished:
                return found.percent
    return -1


def _record(repository: Repository, image: str) -> Record | None:
    entry = repository.tags.read(image)
    return entry.record if entry is not None else None


def _last(repository: Repository, record: Record) -> OperationStatus | None:
    line = _line(repository, record)
    return line.status if line is not None else record.last


def _line(repository: Repository, record: Record) -> progress.Progress | None:
    if record.operation is None:
        return None
    with contextlib.suppress(DiskwrightError):
        return progress.decode(repository.progress.read(record.id, record.epoch))
    return None


class Evidence(NamedTuple):
    """What tells whether the one who works on an image is still there."""

    operation: HostOperation | None
    lease_held: bool
    holder: str
    process: str
    """What this host knows of the executor's process, "" when it is another host's."""
    allowed: bool
    """Nobody holds the lease, so work can go on here."""
    lines: tuple[str, ...]
    """All of it in sentences."""


def evidence(engine: Engine, repo_id: str, image: str) -> Evidence:
    """The evidence for a take-over, read now. NotFound when there is no such image; StorageError."""
    repository = engine.context.repository(repo_id)
    record = _record(repository, image)
    if record is None:
        raise NotFound(f"there is no image {image} in {repo_id} that can be read", "Look again")
    last, line = _last(repository, record), _line(repository, record)
    held = repository.leases.held(image)
    holder = printable(leasing.holder(engine.doors, repository, image)) if held else ""
    row = operation_row(image, printable(record.name), last, holder, record.size) if last else None
    process = _process(engine, line)
    now = engine.doors.clock.wall()
    return Evidence(row, held, holder, process, not held, tuple(_sentences(row, held, holder, process, now)))


def _process(engine: Engine, line: progress.Progress | None) -> str:
    if line is None or line.process is None or line.status.host != engine.doors.ids.host_id:
        return ""
    identity = ProcessIdentity(*line.process)
    state = engine.doors.processes.state(identity)
    return f"process {identity.pid} {'has ended' if state is ProcessState.GONE else f'is {state}'}"


def _sentences(row: HostOperation | None, held: bool, holder: str, process: str, now: float) -> list[str]:
    lines = []
    if row is not None:
        stage = f"stage {row.stage}/{row.stages} {row.stage_name}" if row.stages else "no stage"
        share = f"{row.percent} %" if row.percent >= 0 else "no % is given"
        lines.append(f"{row.host} worked on it: {row.verb}, {stage}, {share}.")
        age = now - row.when
        old = " That is OLD." if age > OLD_AFTER_S else ""
        lines.append(f"It saved last at {moment(row.when)}, {_age(age)} ago.{old}")
    if held:
        lines.append(f"Its lease is held: {holder}. Taking over is not possible while that is so.")
    else:
        lines.append("Nobody holds its lease: no process that could still write to it is left.")
    if process:
        lines.append(f"On this host, {process}.")
    return lines


def _age(seconds: float) -> str:
    if seconds < 0:
        return "by a clock that is ahead of ours, 0 s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
