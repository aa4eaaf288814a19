"""Leftovers in a repository on LVM: finding them in a scan, removing them after a fresh look."""

from __future__ import annotations

from collections.abc import Iterable

from engine.data.model import is_id
from engine.doors.volume_groups import VolumeGroup
from engine.errors import Conflict, DiskwrightError, StorageError
from engine.formats.base import Leases, Litter, TagEntry, attempt_is_over
from engine.formats.files import layout as files_layout
from engine.formats.lvm.digests import HostDigests
from engine.formats.lvm.group import Group
from engine.formats.lvm.guard import Guard
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.layout import LOG_BYTES
from engine.formats.lvm.metadata.pages import PAGE_BYTES
from engine.formats.lvm.metadata.progress import ProgressLogs
from engine.formats.lvm.metadata.records import Records
from engine.formats.lvm.volumes.volumes import Volumes

TEMPORARY = "temporary"
PROGRESS = "progress"
DIGEST = "digest"
LOST = "lost"
FOREIGN = "foreign"
PARKED = "parked"
_BAD_HEADER = f"{layout.META}: damaged header page "
_FORMER = "the former name of "


class LitterBox:
    """The leftovers of one repository."""

    def __init__(
        self,
        group: Group,
        guard: Guard,
        leases: Leases,
        records: Records,
        logs: ProgressLogs,
        volumes: Volumes,
        digests: HostDigests,
    ) -> None:
        self._group = group
        self._guard = guard
        self._leases = leases
        self._records = records
        self._logs = logs
        self._volumes = volumes
        self._digests = digests

    # -- finding

    def find(self, report: VolumeGroup, tags: dict[str, TagEntry]) -> list[Litter]:
        """Return what no record of ``tags`` needs, in a group that was listed before them."""
        return [
            *self._in_group(report),
            *self._headers(),
            *_formers(report, tags),
            *self._progress(tags),
            *self._unneeded_digests(report, tags),
        ]

    def _in_group(self, report: VolumeGroup) -> list[Litter]:
        found = []
        for name, volume in sorted(report.volumes.items()):
            if name in (layout.META, layout.LEASES):
                continue
            host = self._waits_for(name)
            if host:
                found.append(Litter(PARKED, name, volume.size, True, host))
            elif layout.is_lost(name):
                found.append(Litter(LOST, name, volume.size))
            elif layout.is_old(name) or name == layout.META_UNFINISHED:
                found.append(Litter(TEMPORARY, name, volume.size, volume.open))
            elif layout.parse_volume(name) is None or layout.parse_tags(volume.tags) is None:
                found.append(Litter(FOREIGN, name, volume.size))
        return found

    def _headers(self) -> list[Litter]:
        """Find header pages to be written anew: the other page of each lane still tells everything, and losing that one
        too would leave nothing to read."""
        return [Litter(TEMPORARY, f"{_BAD_HEADER}{page}", PAGE_BYTES) for page in self._guard.bad_header_pages()]

    def _waits_for(self, name: str) -> str:
        """Return the host whose last write to a volume that was put away may still come, "" for none."""
        if not layout.is_old(name) and not layout.is_lost(name):
            return ""
        try:
            return self._guard.may_be_written(_volume_of(name))
        except DiskwrightError:
            return ""  # not known: looked at again before it is removed

    def _progress(self, tags: dict[str, TagEntry]) -> list[Litter]:
        found = []
        for log in self._logs.all():
            if attempt_is_over(tags.get(log.tag), log.epoch) and self._over_now(log.tag, log.epoch):
                name = files_layout.progress_path(log.tag, log.epoch)
                found.append(Litter(PROGRESS, name, LOG_BYTES, self._held(log.tag)))
        return found

    def _over_now(self, tag: str, epoch: int) -> bool:
        try:
            return attempt_is_over(self._records.read(tag), epoch)
        except DiskwrightError:
            return False  # nothing may be concluded from what cannot be read

    def _held(self, tag: str) -> bool:
        try:
            return self._leases.held(tag)
        except DiskwrightError:
            return True  # not known to be free

    def _unneeded_digests(self, report: VolumeGroup, tags: dict[str, TagEntry]) -> list[Litter]:
        try:
            lists = self._digests.all()
        except OSError:
            return []
        if not lists:
            return []
        named = {ref.id for entry in tags.values() if entry.record for ref in entry.record.volumes()}
        return [
            Litter(DIGEST, files_layout.digests_path(volume), size)
            for volume, size in lists
            if volume not in named and layout.volume_name(volume) not in report.volumes
        ]

    # -- removing

    def remove(self, items: Iterable[Litter]) -> int:
        """Remove each after a fresh look. Names are parsed again: they may come from another host."""
        freed = 0
        changed = False
        for item in items:
            gained = None
            if item.kind == PROGRESS:
                gained = self._remove_progress(item.name)
            elif item.kind == DIGEST:
                gained = self._remove_digest(item.name)
            elif item.kind == TEMPORARY and item.name.startswith(_BAD_HEADER):
                gained = self._renew_header(item.name)
            elif item.kind == TEMPORARY and item.name.startswith(_FORMER):
                gained = self._forget_former(item.name)
            elif _is_removable(item.kind, item.name):
                gained = self._remove_volume(item.name)
            if gained is not None:
                freed += gained
                changed = changed or item.kind != DIGEST
        if changed:
            self._records.settle_all()
            self._group.sync()
        return freed

    def _remove_progress(self, name: str) -> int | None:
        directory, _, rest = name.rpartition("/")
        parsed = files_layout.parse_progress_name(rest)
        if directory != "progress" or parsed is None:
            return None
        lease = self._leases.try_acquire(parsed[0])
        if lease is None:
            return None  # somebody may be about to claim that epoch
        try:
            return self._logs.remove(*parsed) or None if self._over_now(*parsed) else None
        finally:
            lease.release()

    def _renew_header(self, name: str) -> int | None:
        if name not in {item.name for item in self._headers()}:
            return None
        self._guard.renew_header()
        return 0

    def _forget_former(self, name: str) -> int | None:
        with self._guard.changing() as report:
            if not any(item.name == name for item in _formers(report, self._records.scan())):
                return None
            volume = name.removeprefix(_FORMER)
            tags = layout.tags_of_adoption(report.volumes[volume].tags)
            self._group.doors.volume_groups.change_tags(self._group.name, volume, [], tags)
            return 0

    def _remove_digest(self, name: str) -> int | None:
        directory, _, volume = name.rpartition("/")
        if directory != "digests" or not is_id(volume):
            return None
        if layout.volume_name(volume) in self._group.report().volumes:
            return None
        return self._digests.remove(volume)

    def _remove_volume(self, name: str) -> int | None:
        with self._guard.changing() as report:
            found = report.volumes.get(name)
            if found is None:
                return None
            try:
                if name == layout.META_UNFINISHED:
                    self._group.doors.volume_groups.remove(self._group.name, name)
                elif not self._volumes.remove_unused(_volume_of(name), found):
                    return None
            except Conflict:
                return None
            except StorageError:
                if found.open:
                    return None  # it goes when it is closed
                raise
            return found.size


def _formers(report: VolumeGroup, tags: dict[str, TagEntry]) -> list[Litter]:
    """Find what is left of adoptions that have ended: a tag, for which the image would be given back, not deleted."""
    records = [entry.record for entry in tags.values() if entry.record is not None]
    images = {record.volume.id for record in records if record.volume is not None and record.operation is None}
    marked = {layout.volume_name(id) for id in images} & set(report.volumes)
    return [
        Litter(TEMPORARY, f"{_FORMER}{name}", 0)
        for name in sorted(marked)
        if any(tag.startswith(layout.FORMER_TAG) for tag in report.volumes[name].tags)
    ]


def _volume_of(name: str) -> str:
    """Return the id in the name of a volume that was put away."""
    return name.split("-")[1]


def _is_removable(kind: str, name: str) -> bool:
    if kind == LOST:
        return layout.is_lost(name)
    return kind == TEMPORARY and (layout.is_old(name) or name == layout.META_UNFINISHED)
