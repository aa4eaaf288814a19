"""What LVM's ``fullreport`` prints, checked and made into a ``VolumeGroup``. Pure."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from engine.doors.volume_groups import LogicalVolume, PhysicalRange, VolumeGroup
from engine.errors import ToolFailed
from engine.tools.lvm.device_mapper import plain

MISSING_DEVICE = "[unknown]"
"""What LVM calls a physical volume that it does not find."""

_JSON_STARTS = (b"{", b"}", b"[", b"]", b",", b'"')
"""Separates lines: each row of a table is one."""

_ACTIVE = "active"
_LINEAR = "linear"
_READ_ONLY = "read-only"

COLUMNS = {
    "vg": "vg_name,vg_uuid,vg_systemid,vg_extent_size,vg_size,vg_free,vg_partial,vg_mda_free,vg_tags",
    "pv": "pv_name,pe_start,pv_missing,pv_uuid",
    "lv": "lv_name,lv_uuid,lv_size,lv_tags,lv_active,lv_device_open,origin,lv_permissions,lv_autoactivation",
    "seg": "lv_name,seg_start,seg_size,segtype,seg_pe_ranges",
    "pvseg": "pv_name,pvseg_start,pvseg_size,segtype",
}


def report_arguments() -> list[str]:
    """Return what ``fullreport`` has to be told to print what ``parse`` reads."""
    arguments = ["--reportformat", "json", "--units", "b", "--nosuffix", "--binary"]
    for kind, columns in COLUMNS.items():
        arguments += ["--configreport", kind, "-o", columns]
    return [*arguments, "-S", "segtype=free"]  # of the last kind only what is not used


class Report(NamedTuple):
    """A report as it was printed."""

    group: VolumeGroup
    uuids: dict[str, str]
    """Uuids of volumes, by their names."""
    room: tuple[PhysicalRange, ...]
    """Where there is free space, in whole extents."""
    starts: dict[str, int]
    """Where the first extent of each device begins."""

    def plain(self, name: str) -> str:
        """Return the uuid of a volume as device-mapper has it, "" when there is no such volume."""
        return plain(self.uuids.get(name, ""))


class _Segment(NamedTuple):
    start: int
    size: int
    kind: str
    place: str


def parse(output: bytes, group: str) -> Report:
    """Return the group in a report. ToolFailed when it is not what ``report_arguments`` ask for."""
    try:
        tables = _tables(output)
        (facts,) = tables["vg"]
        if facts["vg_name"] != group:
            raise ValueError(f"group {facts['vg_name']!r:.40}")
        extent = int(facts["vg_extent_size"])
        starts = {row["pv_name"]: int(row["pe_start"]) for row in tables["pv"] if not _flag(row["pv_missing"])}
        starts.pop(MISSING_DEVICE, None)
        segments: dict[str, list[_Segment]] = {}
        for row in tables["seg"]:
            segment = _Segment(int(row["seg_start"]), int(row["seg_size"]), _text(row["segtype"]), row["seg_pe_ranges"])
            segments.setdefault(row["lv_name"], []).append(segment)
        found = VolumeGroup(
            name=group,
            uuid=_text(facts["vg_uuid"]),
            system_id=_text(facts["vg_systemid"]),
            extent_bytes=extent,
            size=int(facts["vg_size"]),
            free=int(facts["vg_free"]),
            partial=_flag(facts["vg_partial"]) or len(starts) < len(tables["pv"]),
            devices=tuple(starts),
            metadata_free=int(facts["vg_mda_free"]),
            volumes={
                row["lv_name"]: _volume(row, segments.get(row["lv_name"], []), extent, starts) for row in tables["lv"]
            },
            missing=tuple(_text(row["pv_uuid"]) for row in tables["pv"] if row["pv_name"] not in starts),
            tags=_tags(facts["vg_tags"]),
        )
        room = tuple(_room(row, extent, starts) for row in tables.get("pvseg", ()) if row["pv_name"] in starts)
        return Report(found, {row["lv_name"]: _text(row["lv_uuid"]) for row in tables["lv"]}, room, starts)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ToolFailed(f"LVM's report of {group} is not understood: {error!s:.80}") from None


def rows(output: bytes, kind: str, *columns: str) -> list[tuple[str, ...]]:
    """Return these columns of a table of a report in JSON. ToolFailed when they are not there."""
    try:
        return [tuple(_text(row[column]) for column in columns) for row in _tables(output)[kind]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ToolFailed(f"LVM printed something unexpected: {error!s:.80}") from None


def _tables(output: bytes) -> dict[str, list[dict[str, Any]]]:
    """Return the tables, joined over all groups of the report."""
    joined: dict[str, list[dict[str, Any]]] = {}
    for part in json.loads(_without_remarks(output))["report"]:
        for kind, lines in part.items():
            joined.setdefault(kind, []).extend(lines)
    return joined


def _without_remarks(output: bytes) -> bytes:
    """Drop the line of words that LVM prints into its JSON when it has to look twice, however silent it is told to
    be."""
    return b"\n".join(line for line in output.split(b"\n") if line.lstrip()[:1] in _JSON_STARTS)


def _volume(row: dict[str, Any], segments: list[_Segment], extent: int, starts: dict[str, int]) -> LogicalVolume:
    size, origin = int(row["lv_size"]), _text(row["origin"])
    return LogicalVolume(
        name=_text(row["lv_name"]),
        size=size,
        tags=_tags(row["lv_tags"]),
        active=row["lv_active"] == _ACTIVE,
        open=row["lv_device_open"] == "1",
        # A snapshot's segments, linear too, are where it keeps what differs from its origin.
        ranges=_ranges(sorted(segments), size, extent, starts) if not origin else (),
        kind=",".join(sorted({segment.kind for segment in segments})),
        origin=origin,
        uuid=_text(row["lv_uuid"]),
        read_only=row["lv_permissions"] == _READ_ONLY,
        autoactivated=_flag(row["lv_autoactivation"]),
    )


def _ranges(segments: list[_Segment], size: int, extent: int, starts: dict[str, int]) -> tuple[PhysicalRange, ...]:
    """Return where the volume lies; () unless it is linear, whole, and on devices that are all there."""
    found = []
    position = 0
    for segment in segments:
        device, _, extents = segment.place.rpartition(":")
        if segment.kind != _LINEAR or segment.start != position or device not in starts:
            return ()
        first, _, last = extents.partition("-")
        if (int(last) - int(first) + 1) * extent != segment.size:
            raise ValueError(f"{segment.place!r:.60} for {segment.size} bytes")
        found.append(PhysicalRange(device, starts[device] + int(first) * extent, segment.size))
        position += segment.size
    return tuple(found) if position == size else ()


def _room(row: dict[str, Any], extent: int, starts: dict[str, int]) -> PhysicalRange:
    device = row["pv_name"]
    return PhysicalRange(device, starts[device] + int(row["pvseg_start"]) * extent, int(row["pvseg_size"]) * extent)


def _tags(value: Any) -> frozenset[str]:
    return frozenset(filter(None, _text(value).split(",")))


def _flag(value: Any) -> bool:
    """Parse a yes or no as ``--binary`` makes them."""
    if value not in ("0", "1"):
        raise ValueError(f"{value!r:.20} is no flag")
    return bool(value == "1")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value
