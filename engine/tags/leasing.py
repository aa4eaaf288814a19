"""Taking the leases of several tags, or telling who has one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Self

from engine.data import progress
from engine.data.records import Record, VolumeRef
from engine.doors import Doors
from engine.doors.leases import Lease
from engine.doors.processes import ProcessIdentity, ProcessState
from engine.errors import DiskwrightError, ImageBusy, NoLocks
from engine.formats.base import Repository
from engine.gate import gate


class LeaseSet:
    """Leases of some tags of one repository, released together.

    Taken in ascending order and only tried, so two hosts cannot wait for each other.
    """

    def __init__(self, leases: dict[str, Lease]) -> None:
        self.leases = leases

    def release(self) -> None:
        """Give all of them up in this process; idempotent."""
        leases, self.leases = self.leases, {}
        with contextlib.ExitStack() as stack:  # all of them, whatever one says
            for tag in sorted(leases):
                stack.callback(leases[tag].release)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def take(doors: Doors, repository: Repository, exclusive: Iterable[str], shared: Iterable[str] = ()) -> LeaseSet:
    """Take the leases of all these tags, or raise ImageBusy naming who has the first one that is taken. Whatever is
    raised, none of them is held then."""
    wanted = dict.fromkeys(shared, True) | dict.fromkeys(exclusive, False)
    with _all_or_none() as held:
        for tag in sorted(wanted):
            lease = repository.leases.try_acquire(tag, shared=wanted[tag])
            if lease is None:
                raise ImageBusy(
                    f"image {tag} is in use: {holder(doors, repository, tag)}",
                    "Wait for it, or stop it there, and try again",
                )
            held.leases[tag] = lease
    return held


def take_to_read(doors: Doors, repository: Repository, layers: Mapping[str, VolumeRef]) -> LeaseSet:
    """Take the shared leases of all layers, volumes by tag, for one who reads them in this process and changes nothing.
    Where the lock file is missing nobody gets one to change what is read, and whoever has one from before has the data
    locked. Then the data itself is kept locked, as for a machine that reads it: who writes to it is told, others may
    read it, and the file of leases is not made again meanwhile. ImageBusy."""
    try:
        return take(doors, repository, [], layers)
    except NoLocks:
        pass
    with _all_or_none() as held:
        for tag, volume in layers.items():
            (held.leases[tag],) = gate.hold(repository, tag, volume, False)  # of files, which need not be active
    return held


def adopt(repository: Repository, tokens: dict[str, str]) -> LeaseSet:
    """Return the leases that the process which spawned this one has handed over. Superseded when one of them is
    lost. Whatever is raised, this process has none of them then."""
    first: BaseException | None = None
    with _all_or_none() as held:
        for tag in sorted(tokens):
            try:
                held.leases[tag] = repository.leases.adopt(tag, tokens[tag])
            except BaseException as error:  # noqa: BLE001 - raised below; the rest is here already, whatever this one says
                first = first or error
        if first is not None:
            raise first
    return held


@contextlib.contextmanager
def _all_or_none() -> Iterator[LeaseSet]:
    """Yield an empty set; what the body puts into it is given up again where the body raises."""
    held = LeaseSet({})
    with contextlib.ExitStack() as undo:
        undo.callback(held.release)
        yield held
        undo.pop_all()


def hosts_share(repository: Repository) -> bool:
    """Tell whether hosts share a group: a lease there is of one process alone from the moment when that holds it."""
    return repository.manager is not None and repository.constraints().shared


def is_held(repository: Repository, tag: str) -> bool:
    """Ask for whoever only looks whether somebody holds the lease of ``tag``; False where that cannot be asked."""
    with contextlib.suppress(DiskwrightError):
        return repository.leases.held(tag)
    return False


def is_worked_on(doors: Doors, repository: Repository, tag: str) -> bool:
    """Ask for whoever only looks whether a process of this boot of the host works on ``tag``, whoever holds its lease:
    False where that cannot be told."""
    record, line = _told(repository, tag)
    if record is None or record.operation is None or line is None or line.process is None or line.status.last_error:
        return False
    return doors.processes.state(ProcessIdentity(*line.process)) is not ProcessState.GONE


def holder(doors: Doors, repository: Repository, tag: str) -> str:
    """Tell who works on ``tag``, as far as its records can be read and say so. Ask only when its lease is held."""
    record, line = _told(repository, tag)
    if record is None:
        return "somebody holds its lease"
    if record.operation is None and record.prepared_by:  # whatever was done to it last is done
        return f"prepare by host {record.prepared_by}"
    status = line.status if line else record.last
    if status is None:
        return "somebody is reading or changing it"
    text = f"{status.verb} by host {status.host}"
    identity = ProcessIdentity(*line.process) if line and line.process else None
    if identity is not None and identity.boot_id == doors.processes.own().boot_id:
        state = doors.processes.state(identity)
        if state is ProcessState.GONE:
            return "somebody is reading or changing it"
        text += f", process {identity.pid}"
        if state is ProcessState.STOPPED:
            text += ", which is stopped (kill -CONT or end that process)"
    return text


def _told(repository: Repository, tag: str) -> tuple[Record | None, progress.Progress | None]:
    """Return the record of a tag and how far the attempt is that it speaks of, as far as they can be read."""
    record, line = None, None
    with contextlib.suppress(DiskwrightError):
        entry = repository.tags.read(tag)
        record = entry.record if entry else None
        line = progress.decode(repository.progress.read(tag, record.epoch)) if record else None
    return record, line
