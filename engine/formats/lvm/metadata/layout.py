"""Where everything is in a repository on LVM: names of volumes, and the layout of ``dw-meta``.

::

    volume group
      dw-meta        records, progress; exists from the moment the repository does
      dw-new         the same, being made: no repository yet
      dw-leases      who may write, between hosts that share it
      dwv-<volume>   data; tags dw.f=<raw|qcow2> and dw.s=<bytes of the image>, born in one command; an adopted one
                     has dw.was=<name> until it is an image: nothing deletes it then, it gets that name again
      dwlost-<volume>  quarantined volumes, tags as before
      dwold-<volume>-<n>  replaced while somebody had it open
    anything else belongs to others

    dw-meta, exclusive (for one host at a time)
      0             two headers of 4 KiB, written in turns; the rest of 1 MiB is unused
      1 MiB + 22 MiB * n   chunk n, for 64 records and 64 progress logs:
                    1 MiB heads     64 x 4 copies x 4 KiB
                    1 MiB progress  64 x 4 lines x 4 KiB
                   20 MiB bodies    64 x 4 copies x 80 KiB, of records that do not fit beside their head

    dw-meta, shared between up to H hosts; each has a number
      0             2 x H headers of 4 KiB
      512 KiB       H pages of 4 KiB: which host has the number
      1 MiB         H x 64 KiB, in whole MiB: volumes that the host has active, two copies of 32 KiB
      chunks        as above, with 2 x H copies
    dw-leases       exists where hosts share: sanlock's area, with slots of 1 MiB: the group, the records, and one
                    for each record

No two writers ever write the same sector at the same time: a page belongs to a *lane*, and each
lane has two of a kind, written in turns. In exclusive mode a lane belongs to every second manager:
copy ``(version & 1) * 2 + (sequence & 1)``; in shared mode to a host: copy ``(number - 1) * 2 +
(sequence & 1)``. So what a host that hung writes when it goes on lands beside what others wrote
meanwhile, with an older stamp. Nothing here has an effect. Names come from strangers: what does not
parse is foreign.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from engine.data.model import MAX_IMAGE_BYTES, VolumeFormat, is_id
from engine.data.records import canonical
from engine.doors.files import Access
from engine.errors import Damaged, Refused
from engine.formats.access import decoded, encoded
from engine.formats.lvm.metadata.pages import PAGE_BYTES, PAYLOAD_BYTES, State, look
from engine.tools.qemu.qcow2 import CLUSTER_BYTES

MAJOR = 1
MINOR = 0

META = "dw-meta"
META_UNFINISHED = "dw-new"
LEASES = "dw-leases"
_VOLUME = re.compile(r"dwv-([0-9a-f]{32})\Z")
_LOST = re.compile(r"dwlost-([0-9a-f]{32})\Z")
_OLD = re.compile(r"dwold-([0-9a-f]{32})-([0-9a-f]{8})\Z")
_FORMAT_TAG = "dw.f="
_SIZE_TAG = "dw.s="
FORMER_TAG = "dw.was="
"""Begins the tag that ``former_tag`` makes."""
AUTOACTIVATED_TAG = "dw.auto"
"""Beside that one: hosts made the volume active by themselves before its adoption."""
_FORMER = re.compile(r"[A-Za-z0-9_+.][A-Za-z0-9_+.-]{0,126}\Z")
_SIZE = re.compile(r"[1-9][0-9]{0,18}\Z")
_VERSION = re.compile(r"(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})\Z")

_MIB = 1 << 20
_START = _MIB
"""Bytes before the first chunk: headers, and the roster of hosts."""
_ROSTER_OFFSET = _MIB // 2
SLOTS = 64
"""Records in each chunk, and as many progress logs."""
LOG_BYTES = 4 * PAGE_BYTES
_LOGS_BYTES = SLOTS * LOG_BYTES
BODY_BYTES = 80 * 1024
MAX_BODY = BODY_BYTES // 512 * PAYLOAD_BYTES
"""Length of the longest record."""
NOTES_BYTES = 32 * 1024
"""Length of one copy of the notes in which a host names its active volumes."""
MAX_CHUNKS = 4096
MIN_HOSTS = 2
MAX_HOSTS = 64
HEADER_PAGES = 2 * MAX_HOSTS
"""Most header pages that a repository has."""

_LEASE_BYTES = _MIB
GROUP_LEASE = 0
RECORDS_LEASE = 1
_TAG_LEASES = 2


# -- names


def volume_name(volume: str) -> str:
    """Return the name of the logical volume that a volume is."""
    return f"dwv-{volume}"


def lost_name(volume: str) -> str:
    """Return the name of the logical volume of a volume in quarantine."""
    return f"dwlost-{volume}"


def old_name(volume: str, number: str) -> str:
    """Return the name of a logical volume that gave its name to another one; ``number`` tells several apart (8 hex
    digits)."""
    return f"dwold-{volume}-{number}"


def parse_volume(name: str) -> str | None:
    """Return the volume that a logical volume's name stands for, None when it stands for none."""
    match = _VOLUME.match(name)
    return match[1] if match else None


def is_lost(name: str) -> bool:
    """Return whether a logical volume stands in quarantine."""
    return _LOST.match(name) is not None


def is_old(name: str) -> bool:
    """Return whether a logical volume was replaced."""
    return _OLD.match(name) is not None


def data_of(name: str) -> str | None:
    """Return the volume whose data a logical volume has, whether it has its name, was replaced or stands in quarantine;
    None when it has that of none."""
    return name.split("-")[1] if parse_volume(name) or is_old(name) or is_lost(name) else None


def is_ours(name: str) -> bool:
    """Return whether a logical volume belongs to a repository."""
    return name in (META, META_UNFINISHED, LEASES) or data_of(name) is not None


def volume_tags(format: VolumeFormat, size: int) -> list[str]:
    """Return the tags with which the logical volume of a volume is made."""
    return [f"{_FORMAT_TAG}{format}", f"{_SIZE_TAG}{size}"]


def size_tag(size: int) -> str:
    """Return the tag that says how many bytes of a volume are the image."""
    return f"{_SIZE_TAG}{size}"


def parse_tags(tags: frozenset[str]) -> tuple[VolumeFormat, int] | None:
    """Return (format, bytes of the image) as tags tell them, the larger of two sizes (a growth was interrupted before
    the smaller one was taken away); None when they make no sense."""
    formats = [tag[len(_FORMAT_TAG) :] for tag in tags if tag.startswith(_FORMAT_TAG)]
    sizes = [tag[len(_SIZE_TAG) :] for tag in tags if tag.startswith(_SIZE_TAG)]
    if len(formats) != 1 or formats[0] not in list(VolumeFormat) or not sizes:
        return None
    if not all(_SIZE.match(size) and int(size) <= 2 * MAX_IMAGE_BYTES for size in sizes):
        return None
    return VolumeFormat(formats[0]), max(map(int, sizes))


def former_tag(name: str) -> str:
    """Return the tag that says which name the logical volume of an adopted volume had: it is nobody's but that owner's
    until the adoption has ended."""
    return f"{FORMER_TAG}{name}"


def parse_former(tags: frozenset[str]) -> str | None:
    """Return the name that a logical volume had before its adoption, None where it is not being adopted. Damaged where
    that is no name of others."""
    names = [tag[len(FORMER_TAG) :] for tag in tags if tag.startswith(FORMER_TAG)]
    if not names:
        return None
    if len(names) != 1 or not _FORMER.match(names[0]) or is_ours(names[0]):
        raise Damaged(f"what a logical volume was called makes no sense: {', '.join(sorted(names))!r:.200}")
    return names[0]


def tags_of_ours(tags: frozenset[str]) -> list[str]:
    """Return those tags that a repository has put there."""
    return sorted(tag for tag in tags if tag.startswith((_FORMAT_TAG, _SIZE_TAG))) + tags_of_adoption(tags)


def tags_of_adoption(tags: frozenset[str]) -> list[str]:
    """Return those that tell how a volume was before its adoption."""
    return sorted(tag for tag in tags if tag.startswith(FORMER_TAG) or tag == AUTOACTIVATED_TAG)


# -- places in dw-meta


class Geometry(NamedTuple):
    """Where everything is in ``dw-meta``. Slots are numbered through all chunks."""

    hosts: int = 0
    """Most hosts that may share the repository, 0: one at a time."""

    @property
    def header_pages(self) -> int:
        """Count the header pages, of 4 KiB each, at the beginning."""
        return 2 * self.hosts or 2

    @property
    def copies(self) -> int:
        """Count the copies of a record."""
        return 2 * self.hosts or 4

    @property
    def slot_bytes(self) -> int:
        """Return the length of the heads of one record."""
        return self.copies * PAGE_BYTES

    @property
    def heads_bytes(self) -> int:
        """Return the length of the heads of one chunk."""
        return SLOTS * self.slot_bytes

    @property
    def chunk_bytes(self) -> int:
        """Return the length of one chunk."""
        return self.heads_bytes + _LOGS_BYTES + SLOTS * self.copies * BODY_BYTES

    def chunk_start(self, chunk: int) -> int:
        """Return where a chunk begins; the heads are first in it."""
        notes = -(-self.hosts * 2 * NOTES_BYTES // _MIB) * _MIB
        return _START + notes + chunk * self.chunk_bytes

    def meta_bytes(self, chunks: int) -> int:
        """Return the length of ``dw-meta`` with so many chunks."""
        return self.chunk_start(chunks)

    def head_offset(self, slot: int, copy: int) -> int:
        """Return where the head of one copy of a record is."""
        return self.chunk_start(slot // SLOTS) + slot % SLOTS * self.slot_bytes + copy * PAGE_BYTES

    def body_offset(self, slot: int, copy: int) -> int:
        """Return where the body of one copy of a record is."""
        bodies = self.chunk_start(slot // SLOTS) + self.heads_bytes + _LOGS_BYTES
        return bodies + (slot % SLOTS * self.copies + copy) * BODY_BYTES

    def line_offset(self, slot: int, line: int) -> int:
        """Return where a line of a progress log is."""
        return self.chunk_start(slot // SLOTS) + self.heads_bytes + slot % SLOTS * LOG_BYTES + line * PAGE_BYTES

    def roster_offset(self, number: int) -> int:
        """Return where the page of the roster is that names the host with ``number`` (from 1 on)."""
        return _ROSTER_OFFSET + (number - 1) * PAGE_BYTES

    def notes_offset(self, number: int, copy: int) -> int:
        """Return where one copy of the notes is in which the host with ``number`` names its active volumes."""
        return _START + ((number - 1) * 2 + copy) * NOTES_BYTES

    def has_place(self, copy: int, version: int, sequence: int) -> bool:
        """Return whether anybody writes a change with that stamp into that copy."""
        if self.hosts:
            return copy & 1 == sequence & 1
        return copy == copy_of(version & 1, sequence)


EXCLUSIVE_GEOMETRY = Geometry()


def copy_of(lane: int, sequence: int) -> int:
    """Return into which copy of its slot a change is written, or on which page a header."""
    return lane * 2 + (sequence & 1)


# -- leases between hosts


def area_name(identity: str) -> str:
    """Return the name of the lease area of the repository; a host may take part in those of several."""
    return f"dw-{identity}"


def tag_lease(slot: int) -> int:
    """Return the key of the lease of the tag in that slot."""
    return _TAG_LEASES + slot


def leases_bytes(chunks: int) -> int:
    """Return the length of ``dw-leases``; in front of the leases hosts show their presence."""
    return (1 + _TAG_LEASES + chunks * SLOTS) * _LEASE_BYTES


# -- the header of dw-meta


class MetaHeader(NamedTuple):
    """What ``dw-meta`` says of the repository."""

    version: str
    """Version of the format, such as "1.0"; the minor may be newer than this program."""
    identity: str
    mode: str
    """"exclusive" or "shared"."""
    chunks: int
    manager: str
    """Host that manages the repository, "" for nobody."""
    term: int
    """Counts managers; where hosts share it, the version of the group's lease."""
    sequence: int
    """Counts headers."""
    hosts: int = 0
    """Most hosts that may share the repository, 0: one at a time. The fields after this are of shared mode."""
    number: int = 0
    """Number of the manager among the hosts."""
    generation: int = 0
    """Generation of the manager's presence: how often that host had joined when it became the manager."""
    nonce: str = ""
    """In exclusive mode: nonce of the host that is the manager, "" when an older program made it that."""
    further: str = "{}"
    """Fields that only a program with a newer minor knows, as JSON; kept."""

    @property
    def geometry(self) -> Geometry:
        """Return where everything is."""
        return Geometry(self.hosts)

    def with_access(self, access: Access) -> MetaHeader:
        """Return the header with a statement whose the volumes are. It is among the further fields, so older programs
        keep it."""
        return self._replace(further=canonical({**json.loads(self.further), _ACCESS_FIELD: encoded(access)}).decode())

    def access(self, place: str) -> Access | None:
        """Return whose the volumes are, None where nobody has stated that. Damaged."""
        said = json.loads(self.further).get(_ACCESS_FIELD, {})
        return decoded(said if isinstance(said, dict) else {"mode": said}, f"{META} of {place}")


EXCLUSIVE = "exclusive"
SHARED = "shared"
MODES = (EXCLUSIVE, SHARED)
_MAGIC_FIELD = "repository"
_ACCESS_FIELD = "access"
_KNOWN = {_MAGIC_FIELD, "format", "identity", "mode", "chunks", "manager", "machine"}
_KNOWN_SHARED = {"hosts", "number", "generation"}


def encode_header(header: MetaHeader) -> bytes:
    """Return the payload of a header page, in one sector. Refused when what a newer program wrote leaves no room for
    it."""
    data = {
        **json.loads(header.further), _MAGIC_FIELD: "diskwright lvm", "format": header.version,
        "identity": header.identity, "mode": header.mode, "chunks": header.chunks, "manager": header.manager,
    }  # fmt: skip
    if header.mode == SHARED:
        data |= {"hosts": header.hosts, "number": header.number, "generation": header.generation}
    elif header.nonce:
        data["machine"] = [header.nonce, header.term]  # an older program keeps it when another term begins
    payload = canonical(data)
    if len(payload) > PAYLOAD_BYTES:
        raise Refused(
            "the header of the repository has no room for this change", "Use the version of diskwright that wrote it"
        )
    return payload


def newest_header(raw: bytes, place: str) -> MetaHeader | None:
    """Return the newest of the headers that ``raw`` begins with, None when there was never one. A header is written
    twice before it counts, so one sound page of a lane tells every header of the lane that counts. Damaged when a lane
    has none, Refused for a newer major, and for a repository that needs what this program does not know."""
    found: MetaHeader | None = None
    bad = []
    for page in range(min(len(raw) // PAGE_BYTES, HEADER_PAGES)):
        state, stamp, payload = look(raw[page * PAGE_BYTES : (page + 1) * PAGE_BYTES])
        if stamp is None:
            bad += [page] if state is State.BAD else []
            continue
        header = _decode_header(payload.rstrip(b"\0"), stamp.version, stamp.sequence, place)
        if found is None or (header.term, header.sequence) > (found.term, found.sequence):
            found = header
    if bad and (found is None or any(page ^ 1 in bad for page in bad if page < found.geometry.header_pages)):
        raise Damaged(f"{META} of {place} does not describe a repository: its checksum is wrong", "Nothing was changed")
    return found


def bad_header_pages(raw: bytes, header: MetaHeader) -> list[int]:
    """Return the numbers of bad header pages: the repository would miss them if another page became bad, too. Older
    programs began with one page of two."""
    pages = range(min(header.geometry.header_pages, len(raw) // PAGE_BYTES))
    states = {page: look(raw[page * PAGE_BYTES : (page + 1) * PAGE_BYTES])[0] for page in pages}
    alone = [page for page in pages if states[page] is State.BLANK and states.get(page ^ 1) is State.WHOLE]
    return sorted([*alone, *(page for page in pages if states[page] is State.BAD)])


def _decode_header(payload: bytes, term: int, sequence: int, place: str) -> MetaHeader:
    try:
        data = json.loads(payload)
        version, identity, mode = data["format"], data["identity"], data["mode"]
        chunks, manager = data["chunks"], data["manager"]
        match, needs = _VERSION.match(version), data.get("needs")
        shared = tuple(data[name] for name in ("hosts", "number", "generation")) if mode == SHARED else (0, 0, 0)
        known = _KNOWN | (_KNOWN_SHARED if mode == SHARED else set())
        further = canonical({name: value for name, value in data.items() if name not in known}).decode()
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Damaged(f"{META} of {place} does not describe a repository") from None
    if match is None:
        raise Damaged(f"{META} of {place} names no format version")
    if int(match[1]) != MAJOR or needs:
        named = ", ".join(map(str, needs)) if isinstance(needs, list) else needs
        what = f"needs {named!s:.200}" if needs else f"has format {version}"
        raise Refused(
            f"the repository in {place} {what}, this program knows {MAJOR}.x",
            "Use a version of diskwright that knows this format",
        )
    if not is_id(identity) or mode not in MODES or not isinstance(manager, str) or len(manager) > 256:
        raise Damaged(f"{META} of {place} does not describe a repository")
    if type(chunks) is not int or not 0 < chunks <= MAX_CHUNKS:
        raise Damaged(f"{META} of {place} does not tell how long it is")
    if any(type(value) is not int or not 0 <= value < 1 << 63 for value in shared):
        raise Damaged(f"{META} of {place} does not tell which hosts share it")
    if mode == SHARED and not (MIN_HOSTS <= shared[0] <= MAX_HOSTS and shared[1] <= shared[0]):
        raise Damaged(f"{META} of {place} does not tell which hosts share it")
    hosts, number, generation = shared
    nonce = _nonce(data.get("machine"), term)
    return MetaHeader(
        version, identity, mode, chunks, manager, term, sequence, hosts, number, generation, nonce, further
    )


def _nonce(machine: object, term: int) -> str:
    """Return the nonce that was written for the manager of that term, "" when it is of an earlier one."""
    if isinstance(machine, list) and len(machine) == 2 and machine[1] == term and is_id(machine[0]):
        return str(machine[0])
    return ""


# -- how much room a qcow2 needs

_ENTRIES = CLUSTER_BYTES // 8
_COUNTS = CLUSTER_BYTES // 2
_SLACK_CLUSTERS = 16
"""A larger table is written before the smaller one is given back."""


def qcow2_bytes(size: int) -> int:
    """Return the bytes that a qcow2 as it is made here may ever occupy when it holds ``size`` bytes of data: everything
    that ``qemu-img measure`` counts, and some clusters more."""
    data = -(-size // CLUSTER_BYTES)
    level2 = -(-data // _ENTRIES)
    level1 = -(-level2 // _ENTRIES)
    clusters = 1 + data + level2 + 2 * level1 + _SLACK_CLUSTERS
    blocks = -(-clusters // _COUNTS)
    while True:
        table = -(-blocks // _ENTRIES)
        whole = clusters + blocks + 2 * table
        needed = -(-whole // _COUNTS)
        if needed <= blocks:
            return whole * CLUSTER_BYTES
        blocks = needed
