"""The manager of a repository that one host at a time may use: whom LVM's system ID names.

Handing the group over is one change of the system ID, which is the seal; the header follows.
"""

from __future__ import annotations

from engine.doors.volume_groups import VolumeGroup
from engine.errors import Conflict, Refused
from engine.formats.lvm import setup
from engine.formats.lvm.group import NOBODY, Group
from engine.formats.lvm.guard import ExclusiveGuard, managing_host
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.area import Meta
from engine.formats.lvm.volumes.activation import Activation


class ExclusiveManager:
    """The role of the manager of one repository."""

    def __init__(self, group: Group, meta: Meta, guard: ExclusiveGuard, activation: Activation) -> None:
        self._group = group
        self._meta = meta
        self._guard = guard
        self._activation = activation

    def host(self) -> str:
        """Compare LVM's mark with the header."""
        return managing_host(self._group, self._meta)

    def take(self, dead: str) -> None:
        """Change LVM's mark, which is the seal: what the manager before had under way ends there."""
        report = self._group.report()
        groups, host = self._group.doors.volume_groups, self._group.doors.ids.host_id
        if report.system_id != groups.system_id:
            manager = self.host() or report.system_id
            asserted = bool(dead) and dead in (manager, report.system_id)
            if report.system_id != NOBODY and not self._was_ours(report) and not asserted:
                twin = f", another host that is called {host} too," if manager == report.system_id else ""
                raise Refused(
                    f"host {manager}{twin} manages the repository in {report.name}",
                    f"Release it there; or, when that host is certainly dead, say so: --dead {manager}",
                )
            groups.set_system_id(report.name, groups.system_id, report.system_id)
            self._group.sync()
            if not self._group.is_ours(self._group.report()):  # LVM has no lock between hosts
                raise Conflict(f"another host took the repository in {report.name} over at this moment", "Ask it who")
            self._meta.close()
        with self._guard.records() as header:
            if not self._group.manages(header):
                nonce = self._group.doors.ids.host_nonce
                self._meta.write_header(header._replace(manager=host, nonce=nonce, term=header.term + 1))

    def _was_ours(self, report: VolumeGroup) -> bool:
        """Return whether this host is the manager although LVM's mark is not its own: somebody took the mark away, or
        an older program set it."""
        header = self._meta.header()
        by_name = header.manager == self._group.doors.ids.host_id and not header.nonce
        unmarked = not report.system_id and (by_name or self._group.manages(header))
        return unmarked or self._group.managed_by_name(report, header)

    def release(self) -> None:
        """Let no volume stay active here, where the next one is the only host to use them; then let nobody use the
        group until a host takes it."""
        self._require_ours()
        if self._activation.deactivate(every=True):
            raise setup.still_in_use(self._group.name)
        self._meta.close()
        setup.deactivate_meta(self._group)
        self._require_ours()
        groups = self._group.doors.volume_groups
        groups.set_system_id(self._group.name, NOBODY, groups.system_id)
        self._group.sync()
        if any(layout.is_ours(volume.name) and volume.active for volume in self._group.report().volumes.values()):
            # A process of this host was quicker than LVM's mark, after which none can begin to use any.
            self.take("")
            raise setup.still_in_use(self._group.name)

    def _require_ours(self) -> None:
        report = self._group.report()
        if not self._group.is_ours(report):
            raise self._meta.not_managed(report, self.host())
