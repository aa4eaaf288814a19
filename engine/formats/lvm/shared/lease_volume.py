"""``dw-leases``, the volume that sanlock's leases are in: that it is there, long enough, and as new as the records.

What was written last is told by the version of the lease under which it was written, and which presence of a host
noted what by sanlock's count of them. Leases that were made anew, or restored, count from the beginning: then what is
written would be older than what it replaces. So nothing is made anew here, and nothing is written under such a lease.
"""

from __future__ import annotations

from engine.doors.shared_leases import LeaseArea
from engine.doors.volume_groups import VolumeGroup
from engine.errors import Damaged
from engine.formats.lvm.group import Group
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.layout import MetaHeader

_NEXT_STEP = "Make no new one: without the leases that were there nothing tells what is new. Put those back"
_HOW = "docs/lvm.md tells how, under When dw-leases is gone"


def area(group: Group, header: MetaHeader) -> LeaseArea:
    """Return the area, wherever its volume is."""
    return LeaseArea(layout.area_name(header.identity), f"/dev/{group.name}/{layout.LEASES}")


def activate(group: Group, header: MetaHeader, report: VolumeGroup) -> LeaseArea:
    """Return the area of a group, active at the size it has now. Damaged when it is not what the repository has."""
    require_there(report)
    wanted = layout.leases_bytes(header.chunks)
    if report.volumes[layout.LEASES].size < wanted:  # unless it has grown since
        report = group.report()
        require_there(report)
        if report.volumes[layout.LEASES].size < wanted:
            raise Damaged(
                f"{layout.LEASES} of the volume group {report.name} was cut to {report.volumes[layout.LEASES].size} "
                f"bytes, and has leases in {wanted}",
                f"{_NEXT_STEP}; {_HOW}",
            )
    return area(group, header)._replace(path=group.doors.volume_groups.activate(group.name, layout.LEASES))


def require_there(report: VolumeGroup) -> None:
    """Return if the volume is there. Where it is not its place may be free, and sanlock still write to it."""
    if layout.LEASES not in report.volumes:
        raise Damaged(
            f"the volume group {report.name} has no {layout.LEASES}, in which the hosts that share its repository have "
            "their leases",
            f"{_NEXT_STEP}; {_HOW}",
        )


def require_newer(group: Group, known: int, now: int) -> None:
    """Return if a count of sanlock is not lower than one that is known of the same thing."""
    if known > now:
        raise Damaged(
            f"the leases in {layout.LEASES} of the volume group {group.name} are older than its records (they count "
            f"{now}, and the records {known}): they were made anew, or restored",
            f"{_NEXT_STEP}, or restore both of one moment; {_HOW}",
        )
