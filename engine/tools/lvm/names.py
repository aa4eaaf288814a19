"""Names that LVM accepts. Everything is checked before it becomes a part of a command."""

from __future__ import annotations

import re
from hashlib import blake2b

from engine.errors import BadRequest

# Compiled when they are first used: most commands have nothing to do with LVM.
_NAME = r"[A-Za-z0-9_+.][A-Za-z0-9_+.-]*"
_TAG = r"[A-Za-z0-9_+./=!:&#][A-Za-z0-9_+./=!:&#-]*"
_DEVICE = r"/dev/[A-Za-z0-9_+.:@=/#-]+"
_SYSTEM_ID = r"[A-Za-z0-9_.+][A-Za-z0-9_.+-]*"
_NOT_PLAIN = r"[^A-Za-z0-9_.-]"

_RESERVED_STARTS = ("snapshot", "pvmove")
_RESERVED_PARTS = """
_cdata _cmeta _corig _cpool _cvol _imeta _iorig _mimage _mlog _pmspare _rimage _rmeta _tdata _tmeta _vdata _vorigin
""".split()
MAX_NAME_BYTES = 63
"""Device-mapper allows 127 for group and volume together, with each hyphen doubled and one between them."""
MAX_TAG_BYTES = 1024
MAX_SYSTEM_ID_BYTES = 128
MAPPER = "/dev/mapper/"
"""The directory in which device-mapper has a device of each logical volume that is active."""


def check_group(name: str) -> str:
    """Return the name of a volume group, or raise BadRequest."""
    if not re.fullmatch(_NAME, name) or name in {".", ".."} or _mapped_bytes(name) > MAX_NAME_BYTES:
        raise BadRequest(f"{name!r:.80} cannot name a volume group", "Use letters, digits and _ . + -")
    return name


def check_volume(name: str) -> str:
    """Return the name of a logical volume, or raise BadRequest."""
    reserved = name.startswith(_RESERVED_STARTS) or any(part in name for part in _RESERVED_PARTS)
    if not re.fullmatch(_NAME, name) or name in {".", ".."} or reserved or _mapped_bytes(name) > MAX_NAME_BYTES:
        raise BadRequest(f"{name!r:.80} cannot name a logical volume", "Use letters, digits and _ . + -")
    return name


def check_tag(tag: str) -> str:
    """Return a tag of a volume, or raise BadRequest."""
    if not re.fullmatch(_TAG, tag) or len(tag) > MAX_TAG_BYTES:
        raise BadRequest(f"{tag!r:.80} cannot be a tag in LVM", "Use letters, digits and _ + . - / = ! : & #")
    return tag


def check_device(path: str) -> str:
    """Return the name of a device as it can stand in a list for LVM (which splits at commas), or raise BadRequest."""
    if not re.fullmatch(_DEVICE, path) or ".." in path.split("/"):
        raise BadRequest(f"{path!r:.200} cannot name a device", "Use its name in /dev")
    return path


def check_system_id(system_id: str) -> str:
    """Return LVM's mark of a host, "" for none, or raise BadRequest."""
    fits = re.fullmatch(_SYSTEM_ID, system_id) and len(system_id) <= MAX_SYSTEM_ID_BYTES
    if system_id and (not fits or system_id.startswith("localhost")):  # LVM ignores that name: every host has it
        raise BadRequest(f"{system_id!r:.200} cannot mark a host in LVM", "Use letters, digits and _ . + -")
    return system_id


def system_id_of(host: str, nonce: str = "") -> str:
    """Return the mark of a host of that name: different names have different marks, and a mark can be read. With the
    ``nonce`` of a host it is that host's alone; without, older programs mark hosts so."""
    if nonce:  # no escaped name has "+." in it
        return f"{_mark(host, MAX_SYSTEM_ID_BYTES - 18)}+.{nonce[:16]}"
    return _mark(host, MAX_SYSTEM_ID_BYTES)


def _mark(host: str, limit: int) -> str:
    escaped = "diskwright." + re.sub(
        _NOT_PLAIN, lambda found: "".join(f"+{byte:02x}" for byte in found[0].encode()), host
    )
    if len(escaped) <= limit:
        return escaped
    # "++" stands in no escaped name, so a shortened one equals none that fits.
    return f"{escaped[: limit - 38]}++{blake2b(host.encode(), digest_size=16).hexdigest()}"


def unmapped(name: str) -> tuple[str, str]:
    """Return the group and the volume of which device-mapper makes a name: hyphens are doubled in both, and one stands
    between. The volume is "" where it is a name of something else."""
    group, _, volume = name.replace("--", "\0").partition("-")
    return group.replace("\0", "-"), volume.replace("\0", "-")


def _mapped_bytes(name: str) -> int:
    return len(name) + name.count("-")
