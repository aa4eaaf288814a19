"""What VDSM says of a volume, in a file or in a slot: KEY=VALUE lines up to one that is EOF.

Version 4 has SIZE in blocks of 512 bytes, version 5 has CAP in bytes. Nothing here has an effect.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from engine.audit.model import Candidate, Role, Stated

REMOVED = "_remove_me_"
"""Begins the name of an image whose removal has begun."""
NO_PARENT = "00000000-0000-0000-0000-000000000000"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_FORMATS = {"RAW": "raw", "COW": "qcow2"}
_MEMORY = frozenset({"MEMD", "MEMM"})
_BY_ITSELF = {"OVFS": "definitions of machines", "HEVD": "the hosted engine", "HESD": "the hosted engine"}
"""Kinds of disks (DISKTYPE) that no definition of a machine names, and what needs them."""


class Metadata(NamedTuple):
    """Metadata of a volume."""

    fields: dict[str, str]
    problem: str
    """Why it is not understood; "" where it is."""

    @property
    def parent(self) -> str:
        """What the volume stands on; ``NO_PARENT`` for nothing."""
        return self.fields.get("PUUID", NO_PARENT)

    @property
    def legal(self) -> bool:
        """Whether the volume may be used."""
        return self.fields.get("LEGALITY", "LEGAL") == "LEGAL"


def is_uuid(name: str) -> bool:
    """Tell whether a name is an id, as volumes, images and domains have."""
    return _UUID.match(name) is not None


def candidate(meta: Metadata, source: str, domain: str, image: str, volume: str) -> Candidate:
    """Return what metadata that is understood says of a volume; ``source``: where it stands."""
    kind = meta.fields.get("DISKTYPE", "")
    needed = _BY_ITSELF.get(kind, "a template" if meta.fields.get("VOLTYPE") == "SHARED" else "")
    # This volume alone: others of the image may be needed. Unforced it is refused where one stands on it.
    remedy = (
        "vdsm-client", "Volume", "delete", f"volumeID={volume}", "storagepoolID=POOL", f"storagedomainID={domain}",
        f"imageID={image}", "postZero=false", "force=false",
    )  # fmt: skip
    parent = "" if meta.parent == NO_PARENT else meta.parent
    stated = Stated(source, _FORMATS[meta.fields["FORMAT"]], _size(meta.fields), parent)
    return Candidate(Role.MEMORY if kind in _MEMORY else Role.IMAGE, (image, volume), stated, remedy, needed)


def disagreement(meta: Metadata, below: bool) -> str:
    """Return what metadata says of a volume's place in its chain that is not so, "" for nothing; ``below``: another one
    stands on it."""
    kind = meta.fields.get("VOLTYPE", "")
    if kind == "LEAF" and below:
        return "that it is the top of its chain (LEAF), and another volume stands on it"
    if kind == "INTERNAL" and not below:
        return "that another volume stands on it (INTERNAL), and none does"
    return ""


def parse(data: bytes) -> Metadata:
    """Return the metadata in a file or slot, or why there is none."""
    lines = data.rstrip(b"\0").decode("utf-8", "backslashreplace").split("\n")
    if "EOF" not in lines:
        return Metadata({}, "it does not end with EOF")
    fields: dict[str, str] = {}
    for line in lines[: lines.index("EOF")]:
        key, equals, value = line.partition("=")
        if not equals:
            return Metadata({}, f"the line {line[:60]!r} is not KEY=VALUE")
        fields[key.strip()] = value.strip()
    wrong = [key for key in ("FORMAT", "PUUID") if key not in fields]
    if fields.get("FORMAT", "RAW") not in _FORMATS:
        return Metadata({}, f"FORMAT is {fields['FORMAT'][:20]!r}")
    if not _UUID.match(fields.get("PUUID", NO_PARENT)):
        return Metadata({}, f"PUUID is {fields['PUUID'][:40]!r}, which is no id")
    if _size(fields) < 0:
        wrong.append("CAP")
    return Metadata(fields, f"{' and '.join(wrong)} is missing or no number" if wrong else "")


def _size(fields: dict[str, str]) -> int:
    """The virtual size in bytes, -1 where it is not said."""
    for key, unit in (("CAP", 1), ("SIZE", 512)):
        text = fields.get(key, "")
        if text.isascii() and text.isdigit() and len(text) < 20:
            return int(text) * unit
    return -1
