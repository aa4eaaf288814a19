"""From an engine to a view: one read-only check, its texts made printable, its images put into columns.

The data form is also what travels from the process that scans to the console, in lines of
JSON that are quick to read one by one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from engine.api import Engine
from engine.data.model import Finding, Fix, ImageReport, OperationStatus, RepositoryReport, Status
from engine.errors import BadRequest, StorageError
from engine.formats.base import Repository
from engine.survey import status, survey
from engine.survey.near import with_all_above
from engine.tools.local.threads import collector_off
from engine.triage import rules
from engine.triage.judge import judge
from engine.triage.view import Graph, View
from tui.text.printable import name_shown, printable
from tui.text.statuses import SHOWN, State
from tui.view import fixes, machines
from tui.view.images import ImageTable
from tui.view.snapshot import (
    ConstraintRow,
    Counts,
    FindingRow,
    HostOperation,
    RepositoryView,
    TaskRow,
)

_OPERATIONS = 1000
"""More operations than anybody reads are not kept as rows; each image still has its own."""


NOT_ASKED = ConstraintRow(False, False, "", ())
"""For a caller of ``gather`` that has the constraints already."""


class Names(NamedTuple):
    """What the records say beside the report."""

    names: Mapping[str, str]
    """From the user data of images, by id."""
    dependants: Mapping[str, int]
    """How many images need one, by id."""


def gather(engine: Engine, repo_id: str, deep: bool = False, known: ConstraintRow | None = None) -> RepositoryView:
    """Look at a repository now. Raises the engine's errors; changes nothing.

    ``known``: its constraints from an earlier look, so that they are not tried out again."""
    clock = engine.doors.clock
    started = clock.monotonic()
    context = engine.context
    repository = context.repository(repo_id)
    with collector_off():
        seen = survey.look(context, repository, deep)
        every = judge(seen)
        report = survey.without_busy(context, repository, every, seen.monitored)
    constraints = known or constraint_row(repository.constraints()._asdict())
    view = _view(engine, repo_id, repository, seen, report, every.fixes)._replace(deep=deep, constraints=constraints)
    return view._replace(took_s=clock.monotonic() - started)


def about(engine: Engine, repo_id: str, image: str, deep: bool = False) -> tuple[ImageReport, RepositoryView] | None:
    """Look at one image now: what ``get_image_status`` says of it, and a view of what is around it, in which its row,
    its fixes and what waits for it are those of ``gather``. None when there is no such image. Where the format knows
    who uses what, no record is read that is about something else."""
    context = engine.context
    repository = context.repository(repo_id)
    near = repository.tags.knows_users
    seen = survey.look(context, repository, deep, only=image if near else None)
    report = judge(seen)
    found = status.part_of(context, repository, report, image)
    if found is None:
        return None
    if near and found.status in (Status.BROKEN, Status.UNKNOWN):
        seen = seen._replace(scan=with_all_above(repository, seen.scan, image))
        report = judge(seen)
    if near:
        report = report._replace(fixes=tuple(_fixes_of(engine, repository, image, report.fixes, deep)))
    every = report.fixes
    report = survey.without_busy(context, repository, report, seen.monitored)
    return found, _view(engine, repo_id, repository, seen, report, every, image)._replace(deep=deep)


def _fixes_of(engine: Engine, repository: Repository, image: str, offered: Iterable[Fix], deep: bool) -> Iterator[Fix]:
    """Those of an image. Whether one of a tag beside it, that it is part of, is offered is seen from there."""
    others = []
    for fix in offered:
        if fix.target == image:
            yield fix
        elif fix.target and image in fix.images:
            others.append(fix.target)
    for other in dict.fromkeys(others):
        for fix in judge(survey.look(engine.context, repository, deep, only=other)).fixes:
            if fix.target == other and image in fix.images:
                yield fix


def _view(
    engine: Engine, repo_id: str, repository: Repository, seen: View, report: RepositoryReport, every: Sequence[Fix],
    only: str = "",
) -> RepositoryView:  # fmt: skip
    """``every``: fixes also of what somebody uses, which the report does not offer. ``only``: of what is prepared, what
    involves that image."""
    names = names_in(seen)
    view = RepositoryView(
        name=printable(repo_id),
        host=engine.doors.ids.host_id,
        identity=repository.identity,
        format=printable(repository.format),
        place=printable(repository.place),
        srm=manager_of(repository),
        tasks=_tasks(engine, repository.identity, names.names),
        scanned_at=engine.doors.clock.wall(),
    )
    view = with_report(view, report, names)
    return _with_machines(engine, repo_id, view, seen.monitored, every, names, only)


def _with_machines(
    engine: Engine, repo_id: str, view: RepositoryView, monitored: Mapping[str, bool], every: Sequence[Fix],
    names: Names, only: str,
) -> RepositoryView:  # fmt: skip
    """The view with what is prepared here, what waits for that, and which fixes a machine does."""
    here = [row for row in machines.noted(engine) if row.repository == view.name]
    if not here:
        return view
    offered = {row.id for row in view.fixes}
    rest = [
        fixes.row(fix, _called(fix, names), 0)
        for fix in every
        if fix.id not in offered and not rules.by_machine(fix.rule, fix.images, monitored, fix.deep)
    ]
    rows = [row._replace(waits=machines.waiting(rest, row)) for row in machines.seen(engine, repo_id, here, only)]
    view = view._replace(machines=machines.ordered(rows))
    return view._replace(fixes=tuple(_beside(view, row, monitored) for row in view.fixes))


def _beside(view: RepositoryView, row: fixes.FixRow, monitored: Mapping[str, bool]) -> fixes.FixRow:
    """The row of a fix with whose machine does it."""
    if not rules.by_machine(row.rule, row.images, monitored, row.deep):
        return row
    above = view.machine_above(row.images[0])
    return row._replace(machine=above.label) if above is not None else row


def manager_of(repository: Repository) -> str:
    """Who manages it as a view says it: a host, "-" where nobody needs to, "?" where nobody known does."""
    if repository.manager is None:
        return "-"
    try:
        return printable(repository.manager.host()) or "?"
    except StorageError:
        return "?"


def names_in(seen: Any) -> Names:
    """Names and dependants of the images of a survey."""
    graph = Graph(seen)
    names = {}
    for tag, entry in seen.scan.tags.items():
        if entry.record is not None and entry.record.name:
            names[tag] = name_shown(entry.record.name)
    return Names(names, {tag: len(above) for tag, above in graph.dependants.items()})


def constraint_row(found: Mapping[str, Any]) -> ConstraintRow:
    """The constraints of a repository as rows."""
    words = {True: "yes", False: "no"}
    facts = tuple(
        (name, words[value] if isinstance(value, bool) else printable(value)) for name, value in found.items()
    )
    return ConstraintRow(bool(found["needs_srm"]), bool(found["shared"]), printable(found["fencing"]), facts)


def _tasks(engine: Engine, identity: str, names: Mapping[str, str]) -> tuple[TaskRow, ...]:
    here = [(task, engine.task_image(task)) for task in engine.list_tasks() if task.repository == identity]
    return tuple(
        TaskRow(
            task.id, task.process.pid, image, names.get(image, image[:8]), printable(task.verb), task.started,
            task.images,
        )
        for task, image in here
    )  # fmt: skip


def with_report(view: RepositoryView, report: RepositoryReport, names: Names) -> RepositoryView:
    """The view with the images, fixes, findings and space of a report."""
    table = ImageTable()
    operations: list[HostOperation] = []
    for image in report.images:
        if not image.hidden:
            _add_image(table, operations, image, names)
    rows = [fixes.row(fix, _called(fix, names), names.dependants.get(fix.target, 0)) for fix in report.fixes]
    operations.sort(key=lambda item: -item.when)
    return view._replace(
        images=table,
        counts=Counts(*(table.count(state) for state in SHOWN)),
        fixes=fixes.with_priorities(rows, report.free_bytes, report.total_bytes),
        findings=tuple(
            FindingRow(printable(item.kind), printable(item.subject), printable(item.text), item.size_bytes)
            for item in report.findings
        ),
        operations=tuple(operations[:_OPERATIONS]),
        total_bytes=report.total_bytes,
        free_bytes=report.free_bytes,
    )


def _called(fix: Fix, names: Names) -> str:
    """What to call what a fix is about: "web-before + web" when it is about two images."""
    others = [image for image in fix.images if image != fix.target]
    return " + ".join(names.names.get(image, image[:8]) for image in (fix.target, *others) if image)


def _add_image(table: ImageTable, operations: list[HostOperation], image: ImageReport, names: Names) -> None:
    state = State.REMOVED if image.removed else State(image.status.value)
    name = names.names.get(image.id, "")
    last = image.operation
    table.add(
        image.id,
        name,
        {
            "reason": printable(image.reason),
            "rule": printable(image.rule),
            "facts": "; ".join(map(printable, image.facts)),
            "strategy": str(image.strategy),
            "busy": printable(image.busy),
            "verb": printable(last.verb) if last else "",
            "host": printable(last.host) if last else "",
            "stage_name": printable(last.stage_name) if last else "",
            "ending": _ending(last) if last else "",
            "remarks": "; ".join(map(printable, image.remarks)),
            "state": SHOWN.index(state),
            "mutable": image.mutable,
            "size_bytes": image.size_bytes,
            "used_bytes": image.used_bytes,
            "dependants": names.dependants.get(image.id, 0),
            "stage": _small(last.stage) if last else 0,
            "stages": _small(last.stages) if last else 0,
            "percent": (last.come_to if image.busy else last.percent) if last else -1,
            "when": last.when if last else 0.0,
            "lost": sum(length for _, length in image.lost),
        },
    )
    if last is not None and (image.busy or state not in (State.OPTIMIZED, State.REMOVED)):
        operations.append(operation_row(image.id, name, last, image.busy, image.size_bytes))


def _ending(last: OperationStatus) -> str:
    if last.stopped:
        return "an operator stopped it"
    return f"last error: {printable(last.last_error)}" if last.last_error else ""


def _small(number: int) -> int:
    """Hostile records may count to anything."""
    return min(number, 1 << 30)


def operation_row(image: str, name: str, last: OperationStatus, busy: str, size_bytes: int) -> HostOperation:
    """The row of the last persisted operation on an image."""
    complete = last.stages == 0 or (last.stage == last.stages and last.percent == 100)
    finished = complete and not busy and not last.last_error
    return HostOperation(
        image, name or image[:8], printable(last.verb), printable(last.host), _small(last.stage), _small(last.stages),
        printable(last.stage_name), last.percent, float(last.when), printable(last.last_error), printable(busy),
        size_bytes, finished, last.stopped,
    )  # fmt: skip


# -- as data


_TABLES = {"images", "fixes", "findings", "tasks", "operations", "machines", "counts", "constraints"}


def to_lines(view: RepositoryView) -> Iterator[str]:
    """The view as lines of JSON; ``from_lines`` of them is equal."""
    head = {name: value for name, value in view._asdict().items() if name not in _TABLES}
    head["counts"] = list(view.counts)
    head["constraints"] = list(view.constraints) if view.constraints else None
    for name in ("findings", "tasks", "operations", "machines"):
        head[name] = [list(item) for item in getattr(view, name)]
    yield json.dumps({"head": head})
    for part in view.images.parts():
        yield json.dumps({"images": part})
    for row in view.fixes:
        yield json.dumps({"fix": fixes.to_data(row), "raw": row.raw.decode()})
    yield json.dumps({"end": True})


def from_lines(lines: Iterable[str | bytes]) -> RepositoryView:
    """The view that ``to_lines`` gave; BadRequest when they are not whole."""
    view: RepositoryView | None = None
    table = ImageTable()
    rows = []
    for line in lines:
        data = json.loads(line)
        if "images" in data:
            table.extend(data["images"])
        elif "fix" in data:
            rows.append(fixes.from_data(data["fix"], data["raw"].encode()))
        elif "head" in data:
            view = _head(data["head"])
        elif "end" in data and view is not None:
            return view._replace(images=table, fixes=tuple(rows))
    raise BadRequest("the view is not whole", "Look again")


def _head(data: dict[str, Any]) -> RepositoryView:
    if data["constraints"] is not None:
        needs_srm, shared, fencing, facts = data["constraints"]
        facts = tuple((name, value) for name, value in facts)
        data["constraints"] = ConstraintRow(needs_srm, shared, fencing, facts)
    data["counts"] = Counts(*data["counts"])
    data["findings"] = tuple(FindingRow(*item) for item in data["findings"])
    tasks = (TaskRow(*item) for item in data["tasks"])
    data["tasks"] = tuple(task._replace(images=tuple(task.images)) for task in tasks)
    data["machines"] = tuple(machines.from_data(item) for item in data["machines"])
    data["operations"] = tuple(HostOperation(*item) for item in data["operations"])
    return RepositoryView(**data)


def report_from_json(data: Mapping[str, Any]) -> RepositoryReport:
    """A report from ``report_to_json``; BadRequest when it is none."""
    try:
        return RepositoryReport(
            tuple(_image_from_json(item) for item in data["images"]),
            tuple(Fix.from_json(item) for item in data["fixes"]),
            tuple(Finding(str(kind), str(about), str(text), int(size)) for kind, about, text, size in data["findings"]),
            int(data["total_bytes"]),
            int(data["free_bytes"]),
        )
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise BadRequest(f"this is no report about a repository ({error!s:.120})") from None


def _image_from_json(data: Mapping[str, Any]) -> ImageReport:
    from engine.data.decoding import operation_status
    from engine.data.model import Strategy

    fields = dict(data)
    fields["status"], fields["strategy"] = Status(fields["status"]), Strategy(fields["strategy"])
    fields["operation"] = operation_status(fields["operation"])
    fields["facts"] = tuple(map(str, fields["facts"]))
    fields["remarks"] = tuple(map(str, fields.get("remarks", ())))
    fields["lost"] = tuple((int(start), int(length)) for start, length in fields["lost"])
    for name in ("size_bytes", "used_bytes"):
        fields[name] = int(fields[name])
    return ImageReport(**fields)
