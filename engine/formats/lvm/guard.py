"""Who may change a repository on LVM: the lock of the records, the right to change the group, who uses a volume.

The leases of tags and the role of the manager are not here. One class for each way of sharing. ``exclusive``: LVM's
system ID says which host may use the group at all, and LVM itself refuses every other; so locks are those of that
host's kernel, as on files, and that host is the manager.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

from engine.doors.leases import Lease
from engine.doors.users import User
from engine.doors.volume_groups import VolumeGroup
from engine.errors import Conflict, DiskwrightError
from engine.formats.lvm.group import NOBODY, Group, HostLocks
from engine.formats.lvm.metadata.area import Meta
from engine.formats.lvm.metadata.layout import MetaHeader

_RECORDS_KEY = 1 << 61  # above every key of a tag
_PATIENCE_S = 20.0
_LOOK_AGAIN_S = 0.01


def unchanged(header: MetaHeader) -> MetaHeader:
    """Return the header as it is."""
    return header


class Guard(Protocol):
    """Locks of one repository, as this host takes them."""

    fencing: str
    """As in ``Constraints``."""

    def records(self) -> contextlib.AbstractContextManager[MetaHeader]:
        """Hold the lock under which records change for the body: nobody else writes any. ``term`` of the header is the
        version to write with. Refused where this host may write no record; Conflict when the lock is held too long."""

    def lane(self, version: int) -> int:
        """Return where in a slot a change under that version of the lock is written."""

    def extend(self, header: MetaHeader) -> MetaHeader:
        """Make room for more records, while this process holds the lock of ``records``. NoSpace; Refused naming the
        manager where this host is not it."""

    def reserved(self, tag: str) -> int | None:
        """Return the slot that was set apart when this process took the lease of a tag without a record; None: none
        was."""

    def may_fill(self, slot: int) -> bool:
        """Return whether this process may put a tag into a slot that no tag has, while it holds the lock of
        ``records``."""

    def still_ours(self, header: MetaHeader) -> bool:
        """Return whether the lock that ``records`` gave was not taken away meanwhile."""

    def require_newer(self, written: int, header: MetaHeader) -> None:
        """Return if what is written under that lock counts as newer than what was written under its version
        ``written``. Damaged."""

    def changing(self) -> contextlib.AbstractContextManager[VolumeGroup]:
        """Hold the right to change LVM's metadata of the group for the body, which gets a fresh report. Refused naming
        the manager when this host is not it; Conflict when another process keeps it for too long. May be nested. What
        takes long and changes no metadata (zeroing, copying) does not belong in the body."""

    def using(self, report: VolumeGroup) -> None:
        """Return if this host may activate volumes. Refused."""

    def note(self, volume: str) -> None:
        """Tell the other hosts, durably, that this one makes a volume active; to be called before it does. May be
        repeated."""

    def unnote(self, volume: str) -> None:
        """Take a note back, after the volume was made inactive or before it is known that it ever was active."""

    def noted(self) -> frozenset[str]:
        """Return the volumes that this host has noted, also by processes that ended before they could take that
        back."""

    def hand_out(self, volume: str, writes: bool) -> None:
        """Tell the other hosts, durably, that a machine of this one may use a volume, until ``unnote``. ``writes``: it
        may write too. May be repeated."""

    def handed_out(self) -> frozenset[str]:
        """Return the volumes of which this host has said that."""

    def handed_out_elsewhere(self) -> dict[str, tuple[User, ...]]:
        """See ``engine.formats.base.Activation.handed_out_elsewhere``."""

    def may_be_written(self, volume: str) -> str:
        """Return another host from which a write to the volume may still arrive, although nobody holds a lease: it had
        the volume active and is not proven to have stopped. "" when there is none."""

    def bad_header_pages(self) -> list[int]:
        """Return the numbers of header pages that are damaged and that this host may write anew."""

    def renew_header(self, change: Callable[[MetaHeader], MetaHeader] = unchanged) -> None:
        """Write the header once more, onto both pages, with what ``change`` makes of its further fields. Refused where
        this host may not."""


class ExclusiveGuard:
    """Only one host may use the group."""

    fencing = "exclusive"

    def __init__(self, group: Group, meta: Meta) -> None:
        self._group = group
        self._meta = meta
        self._locks = HostLocks(group.doors, group.run_path("locks"))

    @contextlib.contextmanager
    def records(self) -> Iterator[MetaHeader]:
        """Lock one byte of a file of this host; the version counts the managers there were."""
        lease = self._wait()
        try:
            yield self._own_header()
        finally:
            lease.release()

    def _wait(self) -> Lease:
        clock = self._group.doors.clock
        deadline = clock.monotonic() + _PATIENCE_S
        while (lease := self._locks.try_acquire(_RECORDS_KEY)) is None:
            if clock.monotonic() > deadline:
                raise Conflict(
                    f"another process of this host does not finish changing the records in {self._group.name}",
                    "See whether one is stopped, and try again",
                )
            clock.sleep(_LOOK_AGAIN_S)
        return lease

    def _own_header(self) -> MetaHeader:
        header = self._meta.header()
        if self._group.manages(header):
            return header
        report = self._group.report()
        if report.system_id != self._group.doors.volume_groups.system_id:
            raise self._meta.not_managed(report, header.manager)
        # Taking over was interrupted after its seal, the system ID.
        ids = self._group.doors.ids
        return self._meta.write_header(header._replace(manager=ids.host_id, nonce=ids.host_nonce, term=header.term + 1))

    def lane(self, version: int) -> int:
        """Return one of two lanes, which managers have in turn."""
        return version & 1

    def extend(self, header: MetaHeader) -> MetaHeader:
        """Make the room at once: this host is the manager."""
        return self._meta.extend(header)

    def reserved(self, tag: str) -> int | None:
        """Return None: leases here are of tags, not of slots."""
        return None

    def may_fill(self, slot: int) -> bool:
        """Return True: the lock of the records is enough."""
        return True

    def still_ours(self, header: MetaHeader) -> bool:
        """Return whether no host took the group over since."""
        now = self._meta.header()
        return (now.term, now.manager, now.nonce) == (header.term, header.manager, header.nonce)

    def require_newer(self, written: int, header: MetaHeader) -> None:
        """Return: reading back tells."""

    def bad_header_pages(self) -> list[int]:
        """Look at both pages, which are the manager's."""
        header = self._meta.header()
        return self._meta.bad_header_pages(header) if self._group.manages(header) else []

    def renew_header(self, change: Callable[[MetaHeader], MetaHeader] = unchanged) -> None:
        """Write the header under the lock of the records."""
        with self.records() as header:
            self._meta.write_header(change(header))

    @contextlib.contextmanager
    def changing(self) -> Iterator[VolumeGroup]:
        """Ask for LVM's mark; LVM itself locks the commands of one host against each other."""
        report = self._group.report()
        self.using(report)
        yield report

    def using(self, report: VolumeGroup) -> None:
        """Admit the manager alone."""
        if not self._group.is_ours(report):
            manager = ""
            with contextlib.suppress(DiskwrightError):
                manager = managing_host(self._group, self._meta)
            raise self._meta.not_managed(report, manager)

    def note(self, volume: str) -> None:
        """Note nothing: LVM lets no other host use the volume."""

    def unnote(self, volume: str) -> None:
        """Do nothing: nothing was noted."""

    def noted(self) -> frozenset[str]:
        """Return nothing: nothing was noted."""
        return frozenset()

    def hand_out(self, volume: str, writes: bool) -> None:
        """Tell nobody: LVM lets no other host use the group."""

    def handed_out(self) -> frozenset[str]:
        """Return nothing: nothing was said."""
        return frozenset()

    def handed_out_elsewhere(self) -> dict[str, tuple[User, ...]]:
        """Return nothing: no other host can use the group."""
        return {}

    def may_be_written(self, volume: str) -> str:
        """Return "": no other host could write to it."""
        return ""


def managing_host(group: Group, meta: Meta) -> str:
    """Return the host that manages an exclusive repository, "" for nobody: as the header says, or as LVM's mark does
    where that is of another."""
    report = group.report()
    header = meta.header()
    host = group.doors.ids.host_id
    if group.is_ours(report):
        return host
    if report.system_id == NOBODY:
        return ""
    if not report.system_id:
        return header.manager  # somebody took the mark away; that changes no manager
    return header.manager if header.manager != host else report.system_id
