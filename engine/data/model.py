"""The words of the product as plain data: ids, statuses, strategies, fixes, reports.

Nothing here has an effect. Sizes are in bytes, times in seconds since the epoch and for
people only: no decision of the engine depends on a clock.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any, NamedTuple

from engine.errors import BadRequest

ALIGNMENT_BYTES = 4096
"""Virtual sizes are rounded up to this; the exact size stays in the record."""

MAX_IMAGE_BYTES = 1 << 53
"""Largest image: fits every file system here and every JSON reader exactly."""

MAX_USER_DATA_BYTES = 64 * 1024
"""Largest ``user_data``, counted as canonical JSON."""

_ID = re.compile(r"[0-9a-f]{32}\Z")


class Status(StrEnum):
    """The engine's judgement of an image, by a policy that may change between versions."""

    OPTIMIZED = "optimized"
    DEGRADED = "degraded"
    BROKEN = "broken"
    UNKNOWN = "unknown"
    """Not one of the three: it could not be read just now, and nothing may be concluded."""


class FixType(StrEnum):
    """What a fix is for; the operator prioritises by it."""

    CLEAN = "clean"
    OPTIMIZE = "optimize"
    MERGE = "merge"
    MEND = "mend"


class Strategy(StrEnum):
    """What to value when there are two ways of doing the same."""

    SPACE = "space"
    PERFORMANCE = "performance"


class VolumeFormat(StrEnum):
    """How the bytes of a volume are laid out; stated by the record, never probed."""

    RAW = "raw"
    QCOW2 = "qcow2"


class FileFormat(StrEnum):
    """How an image file of a user's may be laid out that is no volume; stated, never probed."""

    VMDK = "vmdk"
    VHDX = "vhdx"
    VHD = "vhd"
    VDI = "vdi"


class Packing(StrEnum):
    """How a raw image file may be compressed as a whole; in a format it stands behind it: ``raw.xz``."""

    XZ = "xz"
    GZ = "gz"
    ZST = "zst"


OVA = "ova"
"""An archive of VMDK files. Which of them is meant, ``ova:2`` says; ``ova`` alone is the only one."""

ADOPTED = "adopted"
"""What a record has as the format of a file that becomes a volume as it is. A program that knows no adoption
understands no record that has this, and so deletes none of these files."""

ADOPTED_VOLUME = "adopted volume"
"""The same of a logical volume, for a program that adopts files alone: it does not know by what mark a volume is its
owner's until the image counts."""

SNAPSHOT, GROUP = "create_snapshot", "snapshot_group"
"""A snapshot that was begun, alone or as one of several that count together."""

MAX_GROUP = 256
"""Most snapshots of one group."""

VERBS = frozenset("create_disk copy import adopt merge optimize restore_data revert".split()) | {SNAPSHOT, GROUP}
"""What a record may have as its unfinished operation. One that has another was written by a newer program, which alone
knows what it may need: it is not understood."""


def is_import_format(text: str) -> bool:
    """Tell whether ``text`` names a format of which a disk can be imported."""
    kind, colon, number = text.partition(":")
    if kind == OVA:
        return not colon or (number.isascii() and number.isdigit() and 0 < len(number) <= 3)
    return text in (*VolumeFormat, *FileFormat) or packing_of(text) is not None


def packing_of(format: str) -> Packing | None:
    """Return how a file of an import format is compressed; None where it is not."""
    return next((packing for packing in Packing if format == f"{VolumeFormat.RAW}.{packing}"), None)


class Risk(StrEnum):
    """What a fix can cost if the operator regrets it."""

    REVERSIBLE = "reversible"
    REWRITES_BASE = "rewrites a base"
    IRREVERSIBLE = "irreversible"
    LOSES_DATA = "loses data"


class WaitKind(StrEnum):
    """What a fix can wait for. None of it comes by running the fix again."""

    ROOM = "room"
    """Free space."""
    SOURCE = "source"
    """An image, or a file, to copy from."""
    PATH = "path"
    """The word of an operator that a file of this host may be read."""
    BASE = "base"
    """The image's base, which is gone."""
    REPLICA = "replica"
    """A connected repository that has the same snapshot intact."""
    HOST = "host"
    """A host that may still write to the volume."""
    RECORD = "record"
    """A record that cannot be understood, and may need what would be deleted."""
    DATA = "data"
    """Data that cannot be seen, so that nobody can be asked who uses it."""


class Wait(NamedTuple):
    """What a fix waits for: decisions look at ``kind``, people read ``text``."""

    kind: WaitKind
    subject: str
    """Id of the image, name of the host, path of the file or directory, or number of bytes, by ``kind``."""
    text: str
    """Goes on from "it waits for ..."."""


def is_id(text: object) -> bool:
    """Tell whether ``text`` is an id as we write them: 32 lower-case hexadecimal digits."""
    return isinstance(text, str) and _ID.match(text) is not None


def require_id(text: object, what: str) -> str:
    """Return ``text`` if it is an id, else raise BadRequest naming ``what``."""
    if isinstance(text, str) and is_id(text):
        return text
    raise BadRequest(f"{what} {text!r:.80} is not an id", "An id is 32 hexadecimal digits")


def require_size(size: object) -> int:
    """Return ``size`` if an image can have it, else raise BadRequest."""
    if isinstance(size, bool) or not isinstance(size, int):
        raise BadRequest(f"size {size!r:.80} is not a whole number of bytes")
    if size <= 0:
        raise BadRequest(f"size {size} is not positive")
    if size > MAX_IMAGE_BYTES:
        raise BadRequest(f"size {size} is over the limit of {MAX_IMAGE_BYTES} bytes")
    return size


def require_path(path: object) -> str:
    """Return ``path`` if a file of this host can have it: absolute, UTF-8, no NUL. Else BadRequest."""
    if not isinstance(path, str) or not path.startswith("/"):
        raise BadRequest(f"the path {path!r:.200} is not absolute")
    if "\0" in path or (not path.isascii() and path != path.encode("utf-8", "replace").decode()):
        raise BadRequest(f"the path {path!r:.200} is not the name of a file", "Use UTF-8 without NUL")
    return path


def aligned(size: int) -> int:
    """Return the virtual size of a volume that holds ``size`` bytes."""
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


class Constraints(NamedTuple):
    """What a repository needs and can do, probed when it was connected."""

    needs_srm: bool
    alignment_bytes: int
    max_image_bytes: int
    direct_io: bool
    reflink: bool
    hole_punching: bool
    discard: bool
    write_zeroes: bool
    shared: bool
    """More than one host may have it connected."""
    fencing: str
    """How a writer that lost its lease is stopped: "kernel-lock", "nfs4-lock", "exclusive", "sanlock" (killed, and what
    it had under way may still arrive where the host has no watchdog), "none"."""


class OperationStatus(NamedTuple):
    """The last persisted operation on an image: what a crash leaves behind."""

    verb: str
    host: str
    stage: int
    stages: int
    percent: int
    """-1 when no progress is known for the stage, else 0 to 100."""
    last_error: str
    when: float
    stage_name: str = ""
    stopped: bool = False
    """An operator ended it, which ``last_error`` says: nothing failed."""

    @property
    def come_to(self) -> int:
        """How far it is while somebody works on it, in percent; -1 where that is not known, or it has ended."""
        ended = self.last_error or (self.stage == self.stages and self.percent == 100)
        return -1 if ended else self.percent

    def to_json(self) -> dict[str, Any]:
        """Return it as it is persisted: ``stopped`` stands there only where it is so; older programs pass over it."""
        data = self._asdict()
        if not self.stopped:
            del data["stopped"]
        return data


class ImageReport(NamedTuple):
    """An image as triage judges it."""

    id: str
    status: Status
    reason: str
    """One sentence."""
    rule: str
    """Rule code behind the reason, "" when optimized."""
    facts: tuple[str, ...]
    mutable: bool
    size_bytes: int
    used_bytes: int
    """Bytes that this image's own volumes occupy; at most, where files can share blocks (reflink): each volume is
    asked by itself, so a shared block counts for each of them."""
    strategy: Strategy
    removed: bool
    """Removed, still holding space (not an image status)."""
    hidden: bool
    """Weak and never shown as an image: data that something else still needs."""
    operation: OperationStatus | None
    busy: str
    """Who works on it now, "" for nobody."""
    lost: tuple[tuple[int, int], ...] = ()
    """Byte ranges (start, length) whose data is known to be gone and read as zeros."""
    name: str = ""
    """What people call it: ``name`` in its user data."""
    remarks: tuple[str, ...] = ()
    """Sentences about where it came from: what an import left out, what its file looked like."""


class FixCost(NamedTuple):
    """What a fix costs and gives. Estimates; recomputed at every check, not part of its identity."""

    read_bytes: int = 0
    write_bytes: int = 0
    peak_extra_bytes: int = 0
    fits: bool = True
    reclaimed_bytes: int = 0
    """Freed by this fix itself; at most, where files can share blocks: what another volume shares stays."""
    reclaimed_later_bytes: int = 0
    """Freed by fixes that it unlocks; not additive over fixes."""
    exact: bool = True
    """The bytes are what volumes occupy, and not an estimate."""
    eta_s: float | None = None
    """From throughput measured on this host, None: no estimate."""


class Fix(NamedTuple):
    """Something ``check`` found and the operator may run. ``to_json`` carries it to any host.

    ``id`` is a hash over the rule, the target and the generations of everything the rule
    looked at: if any of that changes the fix is stale. Costs and progress are not part of it.
    """

    id: str
    type: FixType
    rule: str
    target: str
    """The tag (an image's id) the fix is about, or "" for the repository itself."""
    repository: str
    """Identity of the storage that the fix was computed from."""
    reads: tuple[tuple[str, str], ...]
    plan: dict[str, Any]
    why: str
    facts: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    unavailable: tuple[str, ...] = ()
    """Images that cannot be prepared or changed while it runs."""
    cost: FixCost = FixCost()
    risk: Risk = Risk.REVERSIBLE
    status_before: str = ""
    status_after: str = ""
    needs_srm: bool = False
    wait: Wait | None = None
    """An unmet outside condition; None when it can run now."""
    depends_on: tuple[str, ...] = ()
    unlocks: tuple[str, ...] = ()
    deep: bool = False
    """Found only by a deep check, so it is recomputed by one."""

    @property
    def irreversible(self) -> bool:
        """Whether what it does cannot be undone: a removed image is deleted, images become one, data are given up."""
        return self.risk is not Risk.REVERSIBLE

    @property
    def waits_for(self) -> str:
        """What it waits for, in words; "" when it can run now."""
        return self.wait.text if self.wait is not None else ""

    def to_json(self) -> dict[str, Any]:
        """Return the fix as JSON data; ``from_json`` of it on any host is equal."""
        data = self._asdict()
        data["cost"] = self.cost._asdict()
        data["wait"] = self.wait._asdict() if self.wait is not None else None
        data["waits_for"] = self.waits_for
        return data

    @staticmethod
    def from_json(data: object) -> Fix:
        """Rebuild a fix, or raise BadRequest when ``data`` is not one."""
        try:
            fields = dict(data)  # type: ignore[call-overload]
            fields["type"] = FixType(fields["type"])
            fields["risk"] = Risk(fields["risk"])
            fields["cost"] = FixCost(**fields["cost"])
            if not isinstance(fields.pop("waits_for", ""), str):  # for readers, and all that older versions wrote
                raise TypeError("text expected")
            wait = fields.get("wait")
            fields["wait"] = None if wait is None else _wait(**wait)
            fields["reads"] = tuple((str(k), str(v)) for k, v in fields["reads"])
            for name in ("facts", "images", "unavailable", "depends_on", "unlocks"):
                fields[name] = tuple(str(item) for item in fields[name])
            fix = Fix(**fields)
            words = (fix.id, fix.rule, fix.target, fix.repository, fix.why, fix.status_before, fix.status_after)
            if not all(isinstance(text, str) for text in words):
                raise TypeError("text expected")
            if not all(isinstance(number, int | float | None) for number in fix.cost):
                raise TypeError("the cost is not made of numbers")
            if not isinstance(fix.plan, dict):
                raise TypeError("plan is not an object")
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise BadRequest(f"this is not a fix ({error!s:.120})", "Send a fix exactly as check returned it") from None
        return fix


def _wait(kind: str, subject: str, text: str) -> Wait:
    if not isinstance(subject, str) or not isinstance(text, str):
        raise TypeError("text expected")
    return Wait(WaitKind(kind), subject, text)


class Finding(NamedTuple):
    """Something check saw and offers no fix for: foreign files, unreadable records, live work."""

    kind: str
    """"unknown", "foreign", "busy" or "note"."""
    subject: str
    text: str
    size_bytes: int = 0


class RepositoryReport(NamedTuple):
    """Everything one read-only check saw."""

    images: tuple[ImageReport, ...]
    fixes: tuple[Fix, ...]
    findings: tuple[Finding, ...]
    total_bytes: int
    free_bytes: int
