"""Volumes active on this host: who uses them, and when they may be deactivated.

Whoever uses a volume on this host holds a shared lock on it (``hold``), and so does every process that goes on using
it; who gets the exclusive one may deactivate it.
"""

from __future__ import annotations

import contextlib

from engine.data.records import VolumeRef
from engine.doors.files import Access
from engine.doors.images import Layer
from engine.doors.leases import Lease
from engine.doors.users import User
from engine.errors import Conflict, StorageError, from_os_errors
from engine.formats.files.layout import lease_key
from engine.formats.lvm.group import Group, HostLocks
from engine.formats.lvm.guard import Guard
from engine.formats.lvm.metadata import layout

_PATIENCE_S = 20.0
_LOOK_AGAIN_S = 0.02


class Activation:
    """The volumes of one repository, as far as this host uses them."""

    def __init__(self, group: Group, guard: Guard) -> None:
        self._group = group
        self._groups = group.doors.volume_groups
        self._guard = guard
        self._users = HostLocks(group.doors, group.run_path("users"))
        self._used: dict[str, tuple[Lease, Layer]] = {}
        self._noted: set[str] = set()
        self.access: Access | None = None
        """Whose the volumes are, where that is stated."""
        self.some_active = False
        """When a volume was made here, others were active: what uses them may be dead."""

    def hold(self, volume: VolumeRef, writable: bool) -> Lease:
        """Take a shared lock of this host, and tell the others. Then give the device to those whose the volumes are."""
        lease = self.keep(volume)
        try:
            self._guard.hand_out(volume.id, writable)
            layer = self.layer(volume.id)
            if self.access is not None and layer is not None:
                with (
                    from_os_errors(f"give volume {volume.id} to others"),
                    self._groups.open_device(layer.path) as device,
                ):
                    device.give(self.access)
        except BaseException:
            lease.release()
            raise
        return lease

    def keep(self, volume: VolumeRef) -> Lease:
        """Take a shared lock of this host for who makes a volume or uses it himself. Waits a moment for somebody who is
        just deactivating it. Conflict."""
        clock = self._group.doors.clock
        deadline = clock.monotonic() + _PATIENCE_S
        while (lease := self._users.try_acquire(lease_key(volume.id), shared=True)) is None:
            if clock.monotonic() > deadline:
                raise Conflict(f"volume {volume.id} is being taken away by another process of this host", "Try again")
            clock.sleep(_LOOK_AGAIN_S)
        return lease

    def shut(self, volume: VolumeRef) -> Lease:
        """Lock the device as a qemu does that lets nobody write. Conflict when somebody has it locked otherwise."""
        layer = self.layer(volume.id)
        assert layer is not None, "what is not active cannot be locked"
        with from_os_errors(f"lock volume {volume.id}"):
            lease = self._group.doors.leases.guard(layer.path, writable=False, device=True)
        if lease is None:
            raise Conflict(f"volume {volume.id} is locked by another process of this host", "Try again")
        return lease

    def try_alone(self, volume: str) -> Lease | None:
        """Take the exclusive lock on a volume, or return None while a process of this host uses it."""
        return self._users.try_acquire(lease_key(volume))

    def layer(self, volume: str) -> Layer | None:
        """Return what ``activate`` returned, None when it was let go since."""
        used = self._used.get(volume)
        return used[1] if used is not None else None

    def activate(self, volume: VolumeRef, name: str, length: int) -> Layer:
        """Make a volume usable here, and keep it so until it is let go. ``length``: of a raw image, else 0."""
        lease = self.keep(volume)
        try:
            self.note(volume.id)
            path = self._groups.activate(self._group.name, name)
        except BaseException:
            lease.release()
            raise
        layer = Layer(path, volume.format, True, length)
        self._used[volume.id] = lease, layer
        return layer

    def lengthened(self, volume: str, length: int) -> None:
        """Remember that a raw image in a volume is longer now."""
        if volume in self._used:
            lease, layer = self._used[volume]
            self._used[volume] = lease, layer._replace(length=length)

    def let_go(self, volume: str) -> None:
        """Give up what ``activate`` holds; the volume stays active."""
        used = self._used.pop(volume, None)
        if used is not None:
            used[0].release()

    def deactivate(self, every: bool = False) -> list[str]:
        """Look at the whole group only when this object has used or made something; what processes that died left is
        then found too."""
        if not self._used and not self.some_active and not every:
            for volume in list(self._noted):  # made, and never active
                self._forget(volume)
            return []
        for volume in list(self._used):
            self.let_go(volume)
        self.some_active = False
        active: dict[str, list[str]] = {}
        for found in self._group.report().volumes.values():
            volume_id = layout.data_of(found.name)
            if found.active and volume_id is not None:
                active.setdefault(volume_id, []).append(found.name)
        busy = self._deactivate_together(active)
        # Also of volumes that other hosts have removed since, or that a process noted and then died.
        for volume in self._guard.noted() - active.keys():
            self._forget(volume)
        if every:
            self.end_unheld()
        return busy

    def _deactivate_together(self, active: dict[str, list[str]]) -> list[str]:
        """Deactivate volumes by one command, each under all names that it has, and take their notes back; return the
        names of what somebody uses. Nobody can begin to use one in between."""
        busy: list[str] = []
        alone: dict[str, list[str]] = {}
        with contextlib.ExitStack() as locked:
            for volume, names in active.items():
                lease = self.try_alone(volume)
                if lease is None:
                    busy += names
                else:
                    locked.callback(lease.release)
                    alone[volume] = names
            every = [name for names in alone.values() for name in names]
            # A program that knows nothing of our locks may have one open.
            stay = self._groups.deactivate_each(self._group.name, every) if every else []
            for volume, names in alone.items():
                left = [name for name in names if name in stay]
                if not left and not self._unnoted(volume):
                    left = names
                busy += left
        return busy

    def _unnoted(self, volume: str) -> bool:
        try:
            self.unnote(volume)
        except StorageError:
            return False
        return True

    def handed_out(self) -> frozenset[str]:
        """Read the notes of this host."""
        return self._guard.handed_out()

    def end_unheld(self) -> frozenset[str]:
        """Take the exclusive locks first, then look what is active: nobody can come in between."""
        with contextlib.ExitStack() as locked:
            alone = []
            for volume in self._guard.handed_out():
                lease = self.try_alone(volume)
                if lease is not None:
                    locked.callback(lease.release)
                    alone.append(volume)
            if alone:
                self._end(alone)
        return self._guard.handed_out()

    def _end(self, volumes: list[str]) -> None:
        """Deactivate volumes that nobody holds, and take their notes back, but for those that somebody has open."""
        active = [found for found in self._group.report().volumes.values() if found.active]
        for volume in volumes:  # another host may have put it away, and made it anew
            mine = [found for found in active if layout.data_of(found.name) == volume]
            if not any(found.open for found in mine):
                with contextlib.suppress(StorageError):  # somebody has opened it at this moment
                    for found in mine:
                        self._groups.deactivate(self._group.name, found.name)
                    self.unnote(volume)

    def handed_out_elsewhere(self) -> dict[str, tuple[User, ...]]:
        """Believe what the other hosts say."""
        return self._guard.handed_out_elsewhere()

    def _forget(self, volume: str) -> None:
        """Take back the note of a volume that was not active, if nobody uses it."""
        lease = self.try_alone(volume)
        if lease is None:
            return
        try:
            # It may be handed out since we looked: ``end_unheld`` looks under the lock.
            with contextlib.suppress(StorageError):
                if volume not in self._guard.handed_out():
                    self.unnote(volume)
        finally:
            lease.release()

    def note(self, volume: str) -> None:
        """Tell other hosts that this one may write to a volume, before it can."""
        self._guard.note(volume)
        self._noted.add(volume)

    def unnote(self, volume: str) -> None:
        """Take the note back: this host cannot write to the volume any more."""
        self._noted.discard(volume)
        self._guard.unnote(volume)
