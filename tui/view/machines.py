"""Images that are prepared on this host, and the machines that have them open: from notes, records, and what the kernel
tells of their data. A machine itself is asked by ``asked`` alone, for an operator who wants that: its monitor may have
one client at a time, and a snapshot would find it taken.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from engine.api import Engine
from engine.data.amounts import human
from engine.data.model import VolumeFormat
from engine.data.records import Record
from engine.doors.hypervisor import Job, Monitor, Node
from engine.doors.processes import ProcessState
from engine.doors.users import User, describe_users
from engine.errors import DiskwrightError
from engine.formats.base import Repository
from engine.gate import gate
from engine.host.state import Prepared
from engine.triage.rules import BESIDE
from tui.text.amounts import moment
from tui.text.printable import name_shown, printable
from tui.view.fixes import FixRow

_MOST_LAYERS = 64
_TOLD_LAYERS = 4
_TOLD_WAITS = 6
_LAYERS = frozenset(map(str, VolumeFormat))


class MachineState(StrEnum):
    """What is known of the machine of a prepared image."""

    UNHELD = "no holder"
    """A process has it open, and the holder that kept its lease is dead."""
    UNKNOWN = "unknown"
    """Who has it open could not be asked."""
    LEFT = "left over"
    """The holder is dead, and nobody has it open."""
    RUNS = "runs"
    """A process has it open."""
    READY = "not open"
    """It is prepared, and nobody has it open."""


SEVERITY = tuple(MachineState)
"""What needs somebody comes first."""


class UserRow(NamedTuple):
    """Who has the data of an image open."""

    pid: int
    """0: it is not seen from here which process."""
    command: str
    """Printable, "" when it is not known."""
    writes: bool

    @property
    def program(self) -> str:
        """The process and its program: "4242 qemu-system-x86_64"."""
        if not self.pid:
            return self.command or "somebody"
        words = self.command.split()
        return " ".join([str(self.pid), *(word.rpartition("/")[2] for word in words[:1])])


class MachineRow(NamedTuple):
    """An image that is prepared on this host. Texts are printable."""

    key: str
    """The path of this preparation, which no other has."""
    repository: str
    """Its name here, "" where it is not connected any more."""
    image: str
    name: str
    writable: bool
    format: str
    path: str
    """For a machine."""
    monitor: str
    """How to speak to the machine, "" when nobody has said."""
    since: float
    """When it was prepared, 0.0: not noted."""
    holder: int
    """The process that keeps its lease."""
    held: bool
    """That lives."""
    state: MachineState = MachineState.UNKNOWN
    users: tuple[UserRow, ...] = ()
    below: tuple[tuple[str, str], ...] = ()
    """Id and name of each layer below it, the nearest first."""
    work: str = ""
    """What a task of this host does to it or to a layer below, "" for nothing."""
    worked_on: str = ""
    """The image that this is noted of."""
    waits: tuple[str, ...] = ()
    """Fixes that cannot be run as long as it is prepared."""
    problem: str = ""
    """Why something of this could not be read."""

    @property
    def label(self) -> str:
        """What to call it."""
        return name_shown(self.name) or self.image[:8]

    @property
    def who(self) -> str:
        """Who has it open, in a few words; "" for nobody."""
        first = next((user for user in self.users if user.writes), self.users[0] if self.users else None)
        more = f" and {len(self.users) - 1} more" if len(self.users) > 1 else ""
        return f"{first.program}{more}" if first is not None else ""

    @property
    def in_brief(self) -> str:
        """Its machine in a few words."""
        words = {
            MachineState.UNHELD: f"{self.who}, NO HOLDER",
            MachineState.RUNS: self.who,
            MachineState.READY: "nobody has it open",
            MachineState.LEFT: "nobody; its holder is dead",
        }
        return words.get(self.state, "?")

    def involves(self, image: str) -> bool:
        """Whether it is that image, or stands on it."""
        return image == self.image or any(image == tag for tag, _ in self.below)


def noted(engine: Engine) -> tuple[MachineRow, ...]:
    """What this host has noted, by repository and image; no storage is touched. StorageError when nothing tells which
    notes there are."""
    handles = {connection.identity: name for name, connection in engine.list_repositories().items()}
    entries = [entry for entry, _ in engine.state.entries()]
    rows = [_noted(engine, entry, handles.get(entry.repository, "")) for entry in entries]
    return tuple(sorted(rows, key=lambda row: (row.repository, row.image, row.key)))


def _noted(engine: Engine, entry: Prepared, handle: str) -> MachineRow:
    held = engine.doors.processes.state(entry.process) is not ProcessState.GONE
    return MachineRow(
        printable(entry.path), printable(handle), entry.image, "", entry.writable, printable(entry.format),
        printable(entry.given), printable(entry.monitor), entry.since, entry.process.pid, held,
        problem="" if handle else "its repository is not connected here",
    )  # fmt: skip


def seen(engine: Engine, repo_id: str, rows: Iterable[MachineRow], only: str = "") -> tuple[MachineRow, ...]:
    """These rows of a repository with what its records and its data tell now; what cannot be read is told in the row.
    Reads the records of each chain, and asks the kernel who has each image open. ``only``: of those that involve that
    image."""
    try:
        repository = engine.context.repository(repo_id)
    except DiskwrightError as error:
        return tuple(row._replace(problem=printable(error.message)) for row in rows)
    found = (_seen(repository, row, only) for row in rows)
    return tuple(row for row in found if not only or row.involves(only))


def _seen(repository: Repository, row: MachineRow, only: str) -> MachineRow:
    try:
        chain = _chain(repository, row.image)
        if not chain:
            return row._replace(problem="its record cannot be read")
        below = tuple((one.id, printable(one.name)) for one in chain[1:])
        row = row._replace(name=printable(chain[0].name), below=below)
        if chain[0].volume is None or (only and not row.involves(only)):
            return row
        found = gate.users(repository, chain[0].volume)
    except DiskwrightError as error:
        return row._replace(problem=printable(error.message))
    users = tuple(UserRow(user.pid, printable(user.command), user.writes) for user in found)
    states = {
        (True, True): MachineState.RUNS, (True, False): MachineState.READY,
        (False, True): MachineState.UNHELD, (False, False): MachineState.LEFT,
    }  # fmt: skip
    return row._replace(users=users, state=states[row.held, bool(users)], problem="")


def _chain(repository: Repository, image: str) -> list[Record]:
    """The records of an image and of what is below it, as far as they can be read."""
    found: dict[str, Record] = {}
    while image and image not in found and len(found) <= _MOST_LAYERS:
        entry = repository.tags.read(image)
        if entry is None or entry.record is None:
            break
        found[image] = entry.record
        image = entry.record.volume.parent if entry.record.volume else ""
    return list(found.values())


def ordered(rows: Iterable[MachineRow]) -> tuple[MachineRow, ...]:
    """What needs somebody first, then by name."""
    return tuple(sorted(rows, key=lambda row: (SEVERITY.index(row.state), row.label, row.repository, row.key)))


# -- in words


def told(row: MachineRow) -> list[tuple[str, str]]:
    """All that is known of it: labels and sentences, the same on the screen and from the command line."""
    kind = f"{row.format}, {'read-write' if row.writable else 'read-only'}"
    since = [("Since", f"prepared at {moment(row.since)}")] if row.since else []
    below = [("Below", _below(row))] if row.below else []
    return [*of_use(row), *below, *since, ("Path", f"{row.path} ({kind})")]


def of_use(row: MachineRow) -> list[tuple[str, str]]:
    """Of those the ones about who uses it, and what that means for others."""
    lines = [("Used", _users(row))]
    if row.writable:
        lines.append(("Via", row.monitor or "no monitor is known; attach tells one, and it is worked on while it runs"))
    lines.append(("Holder", f"process {row.holder} {'keeps its lease' if row.held else 'is dead'}"))
    if row.state is MachineState.UNHELD:
        lines.append(("", "A take-over puts a new holder beside the machine, at the same path; nothing is interrupted"))
    if row.work:
        lines.append(("Work", row.work))
    if row.waits:
        more = f" and {len(row.waits) - _TOLD_WAITS} more" if len(row.waits) > _TOLD_WAITS else ""
        lines.append(("Waits", f"until it is torn down: {', '.join(row.waits[:_TOLD_WAITS])}{more}"))
    if row.problem:
        lines.append(("Wrong", row.problem))
    return lines


def _users(row: MachineRow) -> str:
    if not row.users:
        known = row.state in (MachineState.READY, MachineState.LEFT)
        return "nobody has it open" if known else "who has it open could not be asked"
    return ", ".join(f"{describe_users([User(*user)])} {'writes' if user.writes else 'reads'}" for user in row.users)


def _below(row: MachineRow) -> str:
    names = [name_shown(name) or f"{tag[:8]} (no name)" for tag, name in row.below[:_TOLD_LAYERS]]
    more = f" and {len(row.below) - _TOLD_LAYERS} more" if len(row.below) > _TOLD_LAYERS else ""
    return f"{len(row.below)} layer{'' if len(row.below) == 1 else 's'}: {', '.join(names)}{more}"


def take_over_command(row: MachineRow) -> list[str]:
    """The words of the command that puts a new holder beside the machine."""
    return ["prepare", row.repository or "REPO", row.image, "--take-over", *([] if row.writable else ["--read-only"])]


# -- what a machine does to fixes


def beside(row: FixRow) -> str:
    """What a fix that a running machine does means for its guest, "" for any other."""
    if not row.machine:
        return ""
    room = f" Up to {human(row.peak_bytes)} more are taken until the fix after it." if row.peak_bytes else ""
    if row.rule in BESIDE:
        return (
            f"The machine of {row.machine} does it while it runs: each write of its guest goes into both volumes, and "
            "waits for both; in the end the guest stands still as long as one record takes."
        )
    return (
        f"The machine of {row.machine} does it while it runs: its guest goes on, and waits for no switch. It comes to "
        f"an end however much the guest writes, for that need not be moved.{room}"
    )


def waiting(fixes: Iterable[FixRow], row: MachineRow) -> tuple[str, ...]:
    """Those of the ``fixes`` that are not offered which are about that image, or a layer below it."""
    return tuple(f"{fix.what} ({fix.rule})" for fix in fixes if any(row.involves(image) for image in fix.images))


def noticed(rule: str) -> str:
    """What the guest notices of a fix that its machine does, as the end of a sentence."""
    return "stands still for a moment in the end" if rule in BESIDE else "waits for no switch"


# -- asking the machine itself


def asked(engine: Engine, row: MachineRow) -> list[str]:
    """Ask the machine behind the monitor what it has open and does now: a sentence each. For moments only, because its
    monitor may have one client. ToolFailed when it does not answer, ToolMissing."""
    with contextlib.closing(engine.doors.hypervisors.connect(row.monitor)) as monitor:
        return [*_opened(monitor), *_jobs(monitor.jobs())]


def _opened(monitor: Monitor) -> list[str]:
    nodes = monitor.nodes()
    layers = [node for node in nodes if node.format in _LAYERS] or nodes
    if not layers:
        return ["It has nothing open."]
    return [f"It has {len(layers)} layer{'' if len(layers) == 1 else 's'} open:", *map(_node, layers)]


def _node(node: Node) -> str:
    flushes = "" if node.flushes else ", flushes nothing (cache=unsafe)"
    does = "writes" if node.writable else "reads"
    return printable(f"{does} {node.path or node.name} ({node.format}, {human(node.size)}{flushes})")


def _jobs(jobs: Mapping[str, Job]) -> list[str]:
    if not jobs:
        return ["It has no job under way."]
    return [printable(f"job {name}: {job.kind}, {job.status}{_share(job)}{_why(job)}") for name, job in jobs.items()]


def _share(job: Job) -> str:
    return f", {min(100, job.done * 100 // job.total)} %" if job.total > 0 else ""


def _why(job: Job) -> str:
    return f", it failed: {job.error:.200}" if job.error else ""


# -- as data


def from_data(data: Sequence[Any]) -> MachineRow:
    """A row from its JSON form, which is the list of its fields."""
    row = MachineRow(*data)
    return row._replace(
        state=MachineState(row.state),
        users=tuple(UserRow(*user) for user in row.users),
        below=tuple((tag, name) for tag, name in row.below),
        waits=tuple(row.waits),
    )
