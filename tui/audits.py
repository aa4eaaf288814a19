"""Audits, as both faces run and show them: over which directories, what was found as rows, and why each is there.

What an audit is, and what it finds, is in ``engine.audit``. Texts of rows and explanations are printable.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable
from typing import NamedTuple

from engine.audit.model import Audited, AuditReport, Finding
from engine.data.amounts import human
from engine.doors.trees import Tree
from engine.errors import BadRequest, NotFound, ToolMissing, from_os_error
from tui.text.amounts import compact
from tui.text.printable import printable, typed
from tui.text.rules import EVERY
from tui.text.statuses import ATTENTION, COUNTED, State
from tui.view.facts import Fact
from tui.view.why import Explanation, Line

Progress = Callable[[str, int, int], None]
VOLUME_GROUP = "vg:"
"""What the name of a volume group begins with among paths."""
_GROUP = re.compile(r"(?:vg:|/dev/)([^/]+)/*\Z")


class Request(NamedTuple):
    """What is to be looked at."""

    places: tuple[str, ...]
    """Directories of images, and volume groups (``vg:NAME``)."""
    definitions: tuple[str, ...] = ()
    """Where machines are defined."""
    complete: bool = False
    """Somebody says that nothing else refers to the images."""
    deep: bool = False

    @property
    def command(self) -> str:
        """The command that does the same."""
        words = [word for path in self.definitions for word in ("--vms", path)]
        flags = [*["--complete"] * self.complete, *["--deep"] * self.deep]
        return shlex.join(["diskwright", "audit", *self.places, *words, *flags])


class Row(NamedTuple):
    """A file, for a table."""

    key: str
    state: State
    rule: str
    """"" where nothing was found."""
    path: str
    reason: str
    held_bytes: int
    """By what was found, or by the image."""
    finding: Finding | None
    image: Audited | None


def require(request: Request, host: str) -> None:
    """Return if an audit of these can begin. BadRequest, NotFound, StorageError."""
    _require_sense(request)
    with contextlib.ExitStack() as stack:
        _open_all(stack, request, host)


def _require_sense(request: Request) -> None:
    if not request.places:
        raise BadRequest("an audit needs a directory", "Give the one that has the images")
    if request.complete and not request.definitions:
        raise BadRequest("--complete says that --vms names all that refers to the images", "Give --vms PATH too")


def _open_all(stack: contextlib.ExitStack, request: Request, host: str) -> tuple[list[Tree], list[Tree]]:
    places = [_opened(stack, _place(path, host)) for path in request.places]
    return places, [_opened(stack, _directory(path)) for path in request.definitions]


def run(request: Request, host: str, progress: Progress) -> AuditReport:
    """Look at all of it; change nothing. Errors as ``require``; what ``progress`` raises ends it. ``host``: what LVM is
    to call this one."""
    from engine.audit.audit import audit
    from engine.tools.qemu.images import QemuImageTool

    _require_sense(request)
    with contextlib.ExitStack() as stack:
        places, definitions = _open_all(stack, request, host)
        tool = QemuImageTool() if request.deep else None
        return audit(places, definitions, request.complete, tool, progress)


def _opened(stack: contextlib.ExitStack, place: Tree) -> Tree:
    return stack.enter_context(contextlib.closing(place))


def _place(path: str, host: str) -> Tree:
    """A volume group (``vg:NAME``, or ``/dev/NAME`` where LVM knows one) or a directory as a tree. NotFound,
    BadRequest, StorageError."""
    group = _GROUP.match(path)
    if group is None:
        return _directory(path)
    from engine.audit.group_tree import GroupTree
    from engine.tools.lvm.volume_groups import LvmVolumeGroups

    try:
        return GroupTree(LvmVolumeGroups(host), group[1])
    except (NotFound, BadRequest, ToolMissing):
        if path.startswith(VOLUME_GROUP):
            raise
        return _directory(path)  # /dev/shm


def _directory(path: str) -> Tree:
    """A directory as a tree. NotFound, BadRequest (it is none), StorageError."""
    from engine.tools.local.trees import RealTree

    try:
        return RealTree(path)
    except FileNotFoundError:
        raise NotFound(f"there is no directory {path!r:.200}", "Give the right path") from None
    except (NotADirectoryError, ValueError):
        raise BadRequest(f"{path!r:.200} is no directory", "Give the directory that has the files") from None
    except OSError as error:
        raise from_os_error(error, f"open {path!r:.200}") from error


def counts(report: AuditReport) -> str:
    """Return how many images there are, of which status, and what else."""
    states = [image.status for image in report.images]
    parts = [f"{number} {state}" for state in COUNTED if (number := sum(one == state for one in states))]
    others = ", ".join(f"{count} {role}" for role, count in report.others.items())
    used = human(sum(image.used_bytes for image in report.images))
    noun = "image" if len(states) == 1 else "images"
    found = f"{len(states)} {noun} in {used}" + (f": {', '.join(parts)}" if parts else "")
    return f"{found}. Other files: {others}." if others else f"{found}."


def rows(report: AuditReport, every: bool) -> tuple[Row, ...]:
    """Return what was found, the worst first; ``every``: also the images of which nothing is told."""
    images = {image.path: image for image in report.images}
    found = [_of_finding(number, one, images.get(one.path)) for number, one in enumerate(report.findings)]
    if every:
        told = {one.path for one in report.findings}
        found += [_of_image(image) for image in report.images if image.path not in told]
    return tuple(sorted(found, key=lambda row: ATTENTION.index(row.state)))


def _of_finding(number: int, found: Finding, image: Audited | None) -> Row:
    state, path = State(found.status.value), printable(found.path)
    return Row(str(number), state, found.rule, path, printable(found.reason), found.size_bytes, found, image)


def _of_image(image: Audited) -> Row:
    state, path = State(image.status.value), printable(image.path)
    return Row(image.path, state, image.rule, path, printable(image.reason), image.used_bytes, None, image)


def explain(row: Row) -> Explanation:
    """Return why a file is told of, and what to do there."""
    lines = []
    if row.image is not None:
        lines.append(Line("State", _what(row.image)))
        if row.image.used_by:
            lines.append(Line("Users", printable(", ".join(row.image.used_by))))
    lines.append(Line("Why", f"{row.reason}{f'; rule {row.rule}' if row.rule else ''}"))
    if row.finding is not None and row.finding.size_bytes:
        lines.append(Line("Holds", compact(row.finding.size_bytes)))
    lines.append(Line("Action", _action(row)))
    evidence = row.finding.evidence if row.finding is not None else ()
    facts = tuple(Fact("audit", printable(f"{what}: {says}")) for what, says in evidence)
    return Explanation("", row.path, row.state, tuple(lines), facts, ())


def _what(image: Audited) -> str:
    size = f"{image.format or 'format not known'}, {compact(image.size_bytes)}, {compact(image.used_bytes)} used"
    names = f"; {len(image.names)} names" if len(image.names) > 1 else ""
    return f"{size}{names}" + (f"; stands on {printable(image.parent)}" if image.parent else "")


def _action(row: Row) -> str:
    """What the rule says is to be heeded first, then the command."""
    if row.finding is None:
        return "None is needed"
    rule, command = EVERY.get(row.rule), row.finding.command
    words = [rule.stuck] if rule is not None and rule.stuck else []
    return " ".join([*words, *([f"Type there: {typed(command)}"] if command else [])]) or "None is known here"
