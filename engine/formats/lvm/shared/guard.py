"""Who may change a repository on LVM that several hosts share: sanlock's leases, and the manager in the header.
The leases of tags stand on those of slots, see ``leases``.

LVM lets every host use the group. So nothing of LVM's metadata is changed but under the lease of the
group, by the host that the header names. Records change on any host, under the lease of the records;
its version orders what was written. sanlock kills a process whose host lost its presence.

Order: first leases of tags (only tried), then that of the records, then that of the group.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from engine.doors.leases import Lease
from engine.doors.shared_leases import SharedHost, SharedLease
from engine.doors.users import User
from engine.doors.volume_groups import VolumeGroup
from engine.errors import Conflict, DiskwrightError, Refused
from engine.formats.lvm.group import Group, HostLocks
from engine.formats.lvm.guard import unchanged
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.area import Meta
from engine.formats.lvm.metadata.layout import GROUP_LEASE, RECORDS_LEASE, MetaHeader, tag_lease
from engine.formats.lvm.shared.lease_volume import require_newer, require_there
from engine.formats.lvm.shared.notes import ActiveVolumes, room_for
from engine.formats.lvm.shared.roster import Membership, Roster

_PATIENCE_S = 20.0
_LOOK_AGAIN_S = 0.05


class SharedGuard:
    """Several hosts use the group; this one takes part as ``member``."""

    fencing = "sanlock"

    def __init__(self, group: Group, meta: Meta, member: Membership, chunks: int) -> None:
        """``chunks`` of records there were when ``dw-leases`` was made active."""
        self._group = group
        self._meta = meta
        self._member = member
        self._leases = group.doors.shared_leases
        self._roster = Roster(meta, member.area)
        self._notes = ActiveVolumes(meta, member, self._roster, HostLocks(group.doors, group.run_path("notes")))
        self._filled: dict[int, SharedLease] = {}
        """Leases of slots that this process is about to fill, while it has the lease of the records."""
        self._reserved: dict[str, int] = {}
        """Slots whose leases this process has, for tags that have no record yet."""
        self._changing: SharedLease | None = None
        self._chunks = chunks

    def begin(self) -> None:
        """Have what this host notes be told from what it never noted."""
        self._notes.begin()

    def require_as_new(self, header: MetaHeader) -> None:
        """Return if the leases know what the repository does of this host. Damaged when they are older."""
        known = [self._notes.generation(), self._roster.entries()[self._member.number - 1].dead]
        if header.number == self._member.number:
            known.append(header.generation)
        self._require_newer(max(known), self._member.generation)

    # -- leases of slots

    def try_slot(self, slot: int, shared: bool) -> SharedLease | None:
        """Take the lease of a slot of the records, or return None when it is held."""
        return self._leases.try_acquire(self._member.area, self._key(slot), shared)

    def slot_held(self, slot: int) -> bool:
        """Ask whether a host that is not proven gone has the lease of a slot."""
        return bool(self._leases.holders(self._member.area, self._key(slot)))

    def _key(self, slot: int) -> int:
        """Return the key of a slot's lease. Activates ``dw-leases`` anew where the device is still as short as before
        room was made."""
        if slot >= self._chunks * layout.SLOTS:
            self._group.doors.volume_groups.activate(self._group.name, layout.LEASES)
            self._chunks = self._meta.header().chunks
        return tag_lease(slot)

    def may_fill(self, slot: int) -> bool:
        """Take the lease of a slot unless somebody has it; this process has it from now on."""
        if slot not in self._filled:
            lease = self.try_slot(slot, shared=False)
            if lease is None:
                return False
            self._filled[slot] = lease
        return True

    def set_apart(self, tag: str, slot: int) -> Lease:
        """Keep a slot that ``may_fill`` allowed for a tag without a record, until the lease that is returned is
        released. The caller holds the lock of ``records``."""
        lease = self._filled.pop(slot)
        self._reserved[tag] = slot
        return _Reservation(lease, lambda: self._reserved.pop(tag, None))

    def reserved(self, tag: str) -> int | None:
        """Return the slot that ``set_apart`` keeps for a tag in this process."""
        return self._reserved.get(tag)

    # -- locks

    @contextlib.contextmanager
    def records(self) -> Iterator[MetaHeader]:
        """Hold the lease of the records; ``term`` is the version of that lease."""
        with self._locked(RECORDS_LEASE, "changing the records") as lease:
            try:
                yield self._meta.header()._replace(term=lease.version)
            finally:
                with contextlib.ExitStack() as stack:  # all of them, whatever one says
                    while self._filled:
                        stack.callback(self._filled.popitem()[1].release)

    @contextlib.contextmanager
    def _locked(self, key: int, doing: str) -> Iterator[SharedLease]:
        clock = self._group.doors.clock
        deadline = clock.monotonic() + _PATIENCE_S
        while (lease := self._leases.try_acquire(self._member.area, key, False)) is None:
            if clock.monotonic() > deadline:
                raise self._kept(key, doing)
            clock.sleep(_LOOK_AGAIN_S)
        try:
            self._require_present()
            yield lease
        finally:
            lease.release()

    def _require_present(self) -> None:
        """Raise unless this host takes part with the presence with which the repository was opened: lane and notes are
        those of that presence."""
        if not self._present():
            raise Conflict(
                f"this host has left {self._group.name} since the repository was opened, or come back to it",
                "Try again",
            )

    def _kept(self, key: int, doing: str) -> Conflict:
        holders = self._leases.holders(self._member.area, key)
        who = ", ".join(f"{self._roster.name(host.number)} ({host.state})" for host in holders) or "somebody"
        return Conflict(
            f"host {who} does not finish {doing} in {self._group.name}",
            "See whether a process is stopped there; a host that died is known to be dead after a few minutes",
        )

    def lane(self, version: int) -> int:
        """Return the lane of this host, which never changes."""
        return self._member.number - 1

    def still_ours(self, header: MetaHeader) -> bool:
        """Ask for the presence of this host: a lease is lost with it, and with nothing else."""
        return self._present()

    def require_newer(self, written: int, header: MetaHeader) -> None:
        """Compare versions of the lease of the records."""
        self._require_newer(written, header.term)

    def _require_newer(self, known: int, now: int) -> None:
        if known > now:
            self._require_present()  # else the lease was lost, and somebody else had it since
        require_newer(self._group, known, now)

    def _present(self) -> bool:
        now = self._leases.host(self._member.area, self._member.number)
        return self._leases.joined(self._member.area) == now.number and self._is(now)

    def _is(self, host: SharedHost) -> bool:
        return host.generation == self._member.generation and not host.gone

    def extend(self, header: MetaHeader) -> MetaHeader:
        """Make room for leases first: what counts is the header that tells of them. Refused unless this host is the
        manager."""
        with self._locked(GROUP_LEASE, "changing the volume group") as lease:
            now = self._meta.header()
            self._require_newer(now.term, lease.version)
            if now.chunks == header.chunks:
                self._require_manager(now)
                with self._making_room(now.chunks):
                    self._more_leases(now)
                    now = self._meta.extend(now._replace(term=lease.version), self.lane(lease.version))
        return now._replace(term=header.term)

    @contextlib.contextmanager
    def _making_room(self, chunk: int) -> Iterator[None]:
        """Note, for the body, that this host makes room for a chunk of records: if it were given up meanwhile, its
        zeros might arrive over records that others have put there. Conflict while a host that may go on has noted the
        same room."""
        room = room_for(chunk)
        host = self._notes.writer(room)
        if host:
            raise Conflict(
                f"host {host} was making room for records in {self._group.name}, and may go on",
                "Try again when it is back, or was restarted; or, when it is certainly dead, diskwright srm take REPO "
                f"--dead {host}",
            )
        self._notes.add(room)
        try:
            yield
        finally:
            self._notes.remove(room)

    def _more_leases(self, header: MetaHeader) -> None:
        groups, name, length = self._group.doors.volume_groups, self._group.name, layout.leases_bytes(header.chunks + 1)
        report = self._group.report()
        require_there(report)
        there = report.volumes[layout.LEASES].size
        self._meta.require_chunk(header, beside=max(0, length - there))
        if there < length:
            groups.resize(name, layout.LEASES, length)
            self._group.sync()
        groups.activate(name, layout.LEASES)
        self._leases.make_slots(self._member.area, tag_lease(header.chunks * layout.SLOTS), layout.SLOTS)

    def bad_header_pages(self) -> list[int]:
        """Look at the two pages of this host, which may write the header of another manager anew under the lease of the
        group."""
        lane = self._member.number - 1
        return [page for page in self._meta.bad_header_pages(self._meta.header()) if page // 2 == lane]

    def renew_header(self, change: Callable[[MetaHeader], MetaHeader] = unchanged) -> None:
        """Write the header with a newer version of the lease of the group."""
        with self._locked(GROUP_LEASE, "changing the volume group") as lease:
            header = change(self._meta.header())
            self._become(header, lease, header.manager, header.number, header.generation)

    @contextlib.contextmanager
    def changing(self) -> Iterator[VolumeGroup]:
        """Hold the lease of the group while the header says that this host manages it."""
        if self._changing is not None:
            yield self._group.report()
            return
        with self._locked(GROUP_LEASE, "changing the volume group") as lease:
            header = self._meta.header()
            self._require_newer(header.term, lease.version)
            self._require_manager(header)
            self._changing = lease
            try:
                report = self._group.report()
                require_there(report)
                yield report
            finally:
                self._changing = None

    # -- using volumes

    def using(self, report: VolumeGroup) -> None:
        """Admit every host that takes part. Refused when LVM's mark keeps them away."""
        if report.system_id:
            raise Refused(
                f"LVM's mark of the volume group {report.name} says that it belongs to {report.system_id}",
                f"Take it away there (vgchange --systemid '' {report.name}), for several hosts share it",
            )

    def note(self, volume: str) -> None:
        """Add the volume to the notes of this host."""
        self._require_present()
        self._notes.add(volume)

    def unnote(self, volume: str) -> None:
        """Take the volume out of the notes of this host."""
        self._notes.remove(volume)

    def noted(self) -> frozenset[str]:
        """Read the notes of this host."""
        return self._notes.volumes()

    def hand_out(self, volume: str, writes: bool) -> None:
        """Add that to the notes of this host."""
        self._require_present()
        self._notes.hand_out(volume, writes)

    def handed_out(self) -> frozenset[str]:
        """Read the notes of this host."""
        return self._notes.handed_out()

    def handed_out_elsewhere(self) -> dict[str, tuple[User, ...]]:
        """Read the notes of the other hosts."""
        return self._notes.elsewhere()

    def forget_notes(self) -> None:
        """Clear the notes of this host: nothing is active on it."""
        self._notes.clear()

    def may_be_written(self, volume: str) -> str:
        """Look for a host that noted the volume and is not proven to have stopped."""
        return self._notes.writer(volume)

    # -- the manager

    def host(self) -> str:
        """Read the header."""
        return self._meta.header().manager

    def _manages(self, header: MetaHeader) -> bool:
        host = self._group.doors.ids.host_id
        return (header.manager, header.number, header.generation) == (
            host,
            self._member.number,
            self._member.generation,
        )

    def _is_ours_by_name(self, header: MetaHeader) -> bool:
        """Return whether this host is the manager by its name, and no other number has taken the role."""
        return header.manager == self._group.doors.ids.host_id and header.number in (0, self._member.number)

    def _require_manager(self, header: MetaHeader) -> None:
        if not self._manages(header):
            raise self._meta.not_managed(self._group.report(), header.manager)

    def resume(self, header: MetaHeader) -> MetaHeader:
        """Take the role again when this host has booted or joined again since it became the manager. Returns the header
        as it is then; where that cannot be done now, the next one to open the repository does it."""
        if self._is_ours_by_name(header) and not self._manages(header):
            with contextlib.suppress(DiskwrightError):
                self.take("")
        return self._meta.header()

    def take(self, dead: str) -> None:
        """Write the header, which is the seal. What the manager before has under way is a command that the sanlock of
        its host kills, or that ended."""
        host = self._group.doors.ids.host_id
        with (
            self._locked(RECORDS_LEASE, "changing the records"),
            self._locked(GROUP_LEASE, "changing the volume group") as lease,
        ):
            header = self._meta.header()
            if self._manages(header):
                if dead and not self._roster.bury(dead):
                    raise Refused(
                        f"no host {dead!r:.80} that has fallen silent shares the repository in {self._group.name}",
                        "Give the name that the refusal or the fix told; a host that lives needs nothing",
                    )
                return
            if header.manager not in ("", dead) and not self._is_ours_by_name(header) and not self._gone(header):
                step = f"Release it there; or, when that host is certainly dead, say so: --dead {header.manager}"
                if dead:
                    step = f"Say there that {dead} is dead"
                raise Refused(f"host {header.manager} manages the repository in {self._group.name}", step)
            self._become(header, lease, host, self._member.number, self._member.generation)
            self._roster.bury(dead)

    def _gone(self, header: MetaHeader) -> bool:
        if not header.number:
            return False  # it never took part, so nothing is known of it
        now = self._leases.host(self._member.area, header.number)
        return now.generation > header.generation or now.gone

    def _become(self, header: MetaHeader, lease: SharedLease, manager: str, number: int, generation: int) -> None:
        self._require_newer(header.term, lease.version)
        new = header._replace(manager=manager, number=number, generation=generation, term=lease.version)
        self._meta.write_header(new, self.lane(lease.version))

    def release(self) -> None:
        """Name no manager in the header: any host may take the role then."""
        with self._locked(GROUP_LEASE, "changing the volume group") as lease:
            header = self._meta.header()
            self._require_manager(header)
            self._become(header, lease, "", 0, 0)


class _Reservation:
    """The lease of a slot for a tag that has no record yet."""

    def __init__(self, lease: SharedLease, over: Callable[[], object]) -> None:
        self._lease = lease
        self._over = over

    @property
    def token(self) -> str:
        """Return the token of the lease."""
        return self._lease.token

    def release(self) -> None:
        """Let the slot be given to another tag, unless it was filled."""
        self._over()
        self._lease.release()
