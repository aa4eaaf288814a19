"""What a repository format must supply: tags, volumes, progress logs, digest lists, leases, litter; and a manager,
activation and extents where its storage needs them.

Everything else (verbs, fixes, judgement) is written once on top of these interfaces. A part that a format needs not is
None: there is no class of methods that do nothing. The rules
that make crashes harmless are the same in every format:

* **Name before make, unmake before unname.** The record that names a volume is durable before
  the volume exists, and the volume is gone before its record stops naming it.
* **A published generation is the only truth.** ``publish`` either makes exactly the given
  record the newest one or raises; it never merges and never overwrites.
* **Nothing is opened or deleted because of what a file looks like.**

Errors: ``StorageError`` and its kin for the storage, ``Damaged`` for bytes that cannot be
understood, ``Overtaken``/``OutcomeUnknown`` from ``publish``. All calls may be repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

from engine.data.model import Constraints, VolumeFormat
from engine.data.records import Record, VolumeRef
from engine.data.seen import Stamp
from engine.doors.files import Access
from engine.doors.images import Layer
from engine.doors.leases import Lease
from engine.doors.users import User
from engine.formats.adoption import Adoption
from engine.tools.qemu.qcow2 import Header

DEVICE = "device"
"""The anchor whose number means something until the next boot only."""


class TagEntry(NamedTuple):
    """A tag as found on disk."""

    id: str
    generation: int
    record: Record | None
    """None: a tombstone (generation tells) or unreadable (problem tells)."""
    problem: str = ""
    """Why the newest generation cannot be understood or read, "" when fine."""
    unreadable: bool = False
    """The problem is with reading (EIO, EACCES, ESTALE), so nothing may be concluded from it."""

    foreign: bool = False
    """The problem is ours: the record is whole, and another version wrote it."""
    before: Record | None = None
    """The generation before a damaged one, where it is intact."""
    gone: bool = False
    """The problem is that the newest generation is not there, which the one before it tells. It may come back."""
    gap: bool = False
    """Of a tag that was read alone: the generation before it is not there although it is kept. So this one may be what
    was kept, and a newer one be gone; or an older program, which kept none, has written it."""

    @property
    def tombstone(self) -> bool:
        """The tag was purged; only its generation is left."""
        return self.record is None and not self.problem

    @property
    def damaged(self) -> bool:
        """What the storage gives is not what was written, for certain."""
        return bool(self.problem) and not self.unreadable and not self.foreign


class VolumeFacts(NamedTuple):
    """What a cheap look at one volume tells."""

    id: str
    format: VolumeFormat
    present: bool
    length: int = 0
    """Length of the file or device."""
    used: int = 0
    """Bytes it occupies on the storage, blocks that it shares with others (reflink) included."""
    header: Header | None = None
    """Parsed header of a qcow2 volume; alike ones are one object, so its backing name is that of any of them."""
    backing_name: str | None = None
    """The name of what it stands on, by its header."""
    problem: str = ""
    """Why it cannot be what its record says, "" when it can."""
    unreadable: bool = False
    """The problem is with reading, so nothing may be concluded from it."""
    thick: bool = False
    """The volume occupies its whole length, whatever is in it."""
    in_use: int | None = None
    """Of a thick volume: bytes from its start behind which there is nothing, in units in which the storage gives room
    back; None when that is not known."""
    stamp: Stamp | None = None
    """See ``Volumes.stamp``."""


class Litter(NamedTuple):
    """A leftover that no record needs."""

    kind: str
    """"temporary", "old-generation", "progress", "digest", "use" (a name that says that a tag may need another, and it
    does not), "lost" (quarantined volume), "parked" (its space cannot be
    given away yet) or "foreign"."""
    name: str
    """Path inside the repository; the key for ``LitterBox.remove``."""
    size: int
    busy: bool = False
    """Somebody has it locked at this moment."""
    host: str = ""
    """Of something parked: the host whose last write may still arrive there."""


class Missing(NamedTuple):
    """A part of the repository itself that is missing or damaged, and that ``Parts.make`` can make again."""

    name: str
    held: str
    """What it held: "nothing" of worth, "leases", "volumes" (their data is not there), "identity" (of which there is
    another copy), or "names" (which come from the records); "": it never had it."""


class Scan(NamedTuple):
    """One pass over everything, in the order that makes it safe beside live work:
    volumes are listed before tags, so a volume that is listed has its record visible."""

    volumes: dict[str, VolumeFormat]
    tags: dict[str, TagEntry]
    litter: list[Litter]
    unlisted: tuple[tuple[str, str], ...] = ()
    """Directories of tags or volumes that could not be listed, with the reason: what they hold is not known."""
    unread: tuple[tuple[str, str], ...] = ()
    """The same of directories whose content no image needs to be judged."""
    missing: tuple[Missing, ...] = ()
    doubts: Mapping[str, tuple[str, ...]] | None = None
    """By tag or volume those tags that may need it and have a record that cannot be understood; None: each of these may
    need anything."""
    listing: object = None
    """For ``Volumes.facts``: what it would otherwise have to ask for each volume alone."""


def unverified() -> None:
    """For a volume whose name nobody else can have used."""


class Tags(Protocol):
    """The tags of a repository: what says which images there are."""

    @property
    def knows_users(self) -> bool:
        """``users`` reads no other records than it must."""

    def users(self, subject: str) -> dict[str, TagEntry]:
        """Return, read afresh, all tags whose record may need the tag ``subject`` or have the volume of that id taken
        over, now or before a change that is not durable yet: none of these is missing, others may be among them, and
        tombstones. StorageError."""

    def scan(self) -> dict[str, TagEntry]:
        """List all tags afresh. StorageError when some could not be listed: whoever asks for all of them is about to
        conclude something from what is not among them. A record that cannot be understood or read is told as such."""

    def read(self, tag: str) -> TagEntry | None:
        """Return the newest generation of one tag, listed afresh; None when there never was one."""

    def publish(self, record: Record, expected: int) -> int:
        """Make ``record`` the newest generation of its tag, given that ``expected`` is the newest
        now (0: none yet). Durable on return; returns the new generation.

        Atomic. Overtaken: another generation is newer and ours was never visible.
        OutcomeUnknown: ours was visible but is not the newest; touch nothing more."""

    def settle(self, tag: str) -> None:
        """Make what is visible of the tag durable: its writer may have died before it was."""

    def settle_all(self) -> None:
        """Make what is visible of every tag durable: before anything is deleted or overwritten because
        no record needs it, or an older generation that does could come back after a loss of power."""

    def purge(self, tag: str, expected: int) -> None:
        """Replace the tag by a tombstone no stale writer can win against. Raises as ``publish``."""


class Volumes(Protocol):
    """The volumes of a repository: slabs of bytes, of which only records say what they are for."""

    def listing(self) -> object:
        """Return what ``facts`` can use for several volumes: the answers are then as old as the listing."""

    def facts(
        self, volume: str, format: VolumeFormat, listing: object = None, at_rest: Stamp | None = None
    ) -> VolumeFacts:
        """Take a cheap look: presence, size, and the header of a qcow2. Activates nothing. ``at_rest``: is its stamp
        that, that object is given back."""

    def make(
        self,
        volume: VolumeRef,
        size: int,
        backing_format: VolumeFormat | None,
        verify: Callable[[], None] = unverified,
        filled: bool = False,
    ) -> None:
        """Create the volume empty and durable: virtual size ``size`` in bytes (aligned), a qcow2 with a
        parent gets the backing name that ``backing_name(parent)`` tells and ``backing_format``.
        An unfinished volume of that name is replaced. The record of the volume must name it already. ``verify`` is
        called when nobody else can write to the volume any more and nothing was overwritten yet, and raises unless the
        record still says that the volume is the caller's to make: a lease may have been lost meanwhile, and the work
        be done. ``filled``: no image has the volume as its data before each of the ``size`` bytes was written or
        zeroed, so until then a raw one may show what others have left on the storage."""

    def remove(self, volume: str, format: VolumeFormat) -> None:
        """Delete the data, durable on return; success when it is gone already."""

    def quarantine(self, volume: str, format: VolumeFormat) -> None:
        """Move a volume that no record names out of sight, into the "lost" litter. Durable; success when it is there
        already."""

    def put_back(self, volume: str, format: VolumeFormat) -> None:
        """Move a volume out of the "lost" litter to where its record expects it. Durable; success when it is there
        already, StorageError when it is in neither place. Nothing that is there is replaced."""

    def layer(self, volume: VolumeRef) -> Layer:
        """Return the volume as a tool opens it; it is active from then on where there is ``activation``. StorageError
        when the volume is not there, Damaged when it is no such thing."""

    def stamp(self, volume: VolumeRef) -> Stamp | None:
        """Return what is another whenever somebody has written to the volume; None where nothing tells that for
        certain, and where the volume is gone. StorageError when it cannot be asked."""

    def users(self, volume: VolumeRef) -> list[User]:
        """Return who has the volume open now, asked of the data itself and of no lease; empty when nobody has, or when
        it is gone. StorageError when it cannot be asked."""

    def guard(self, volume: VolumeRef, writable: bool) -> Lease | None:
        """Lock the data itself for a machine that it is handed out to, as long as the lease is held, here or by a
        process that inherited it: alone when it is ``writable``, else so that nobody writes to it. None where hosts
        have no locks on data. ImageBusy while somebody has it locked otherwise."""

    def guarded(self, volume: VolumeRef) -> bool:
        """Tell whether somebody has the volume locked by a ``guard`` that is writable: it is handed out, whether or not
        a machine has it open. False where hosts have no locks on data, and when it is gone. StorageError when it cannot
        be asked."""

    def late_writer(self, volume: VolumeRef) -> str:
        """Return the host that used a volume and is not proven to have stopped: what it writes may still arrive there
        although its lease is free. "": only who has the lease can write to it."""


class Activation(Protocol):
    """Volumes that a host can open only while they are active on it."""

    def hold(self, volume: VolumeRef, writable: bool) -> Lease:
        """Keep what ``layer`` made usable on this host usable as long as the lease is held, here or by a process that
        inherited it; and tell other hosts, durably, that it is handed out here, until ``end_unheld`` or ``deactivate``.
        Conflict when somebody is taking the volume away for too long."""

    def shut(self, volume: VolumeRef) -> Lease:
        """Let no tool of qemu on this host open a volume for writing from now on, as long as the lease is held, here or
        by a process that inherited it; who has it open is not hindered. The volume is active, by ``layer``."""

    def handed_out(self) -> frozenset[str]:
        """Return the ids of the volumes of which other hosts are told that they are handed out on this one."""

    def end_unheld(self) -> frozenset[str]:
        """Have what was handed out on this host, is held no more and is open nowhere, be as if it never was; return the
        ids of the volumes that are handed out here after that."""

    def handed_out_elsewhere(self) -> dict[str, tuple[User, ...]]:
        """Return the volumes that other hosts say they have handed out, by id, with who may use them there. What no
        lease is held for may be in use all the same: its holder may be dead. Not those of hosts that are proven to have
        stopped, or are dead as far as can be told."""

    def deactivate(self, every: bool = False) -> list[str]:
        """Undo what ``layer`` had to do, as far as nobody else on this host uses it; return the names of what is still
        in use. ``every``: also what processes that died have left."""


class Extents(Protocol):
    """Room that volumes do not take and give back by themselves. None is taken while the volume of an image is not
    there any more, which may lie in it and be put back: Refused, naming the image."""

    def require_room(self, format: VolumeFormat, size: int) -> None:
        """Return if a volume for an image of ``size`` bytes can be made here and now. Refused naming the manager,
        NoSpace, StorageError."""

    def make_room(self, volume: VolumeRef, size: int, kept: int = 0) -> None:
        """Before it is written: give the volume all the room that an image of ``size`` bytes can need, and a raw one
        that length; what is gained reads as zeros, but for the first ``kept`` bytes, which a machine has. Durable."""

    def reduce(self, volume: VolumeRef) -> int:
        """Take away what is behind the data of a qcow2 volume that is not written any more; return the bytes freed.
        Durable. The caller holds the exclusive lease. Conflict while the volume is in use."""

    def freeze(self, volume: VolumeRef, settle: Callable[[Layer], None]) -> None:
        """Let an image be what it is now, durable, with nothing behind its end: it is not written from here on, and may
        become the base of a longer one. ``settle`` flushes what is active. The caller holds the lease."""


class Progress(Protocol):
    """Progress logs: what one attempt at an operation says while it runs. One writer, who has the tag's lease."""

    def start(self, tag: str, epoch: int) -> None:
        """Create the log of an attempt, with no line and all the room that it will ever need. NoSpace."""

    def write(self, tag: str, epoch: int, sequence: int, line: bytes) -> None:
        """Record line number ``sequence`` (up to 480 bytes of JSON), durable on return. StorageError when there is no
        such log."""

    def read(self, tag: str, epoch: int) -> bytes | None:
        """Return the newest intact line of that attempt, None when there is none."""

    def remove(self, tag: str, epoch: int) -> int | None:
        """Forget the log, not durably: success when it is gone already. Returns the bytes freed, None where nobody
        counts them."""


class Digests(Protocol):
    """Digest lists: digests of the chunks of a volume's logical content. Derived, may be deleted at any time."""

    def write(self, volume: str, data: bytes) -> None:
        """Replace the digest list of a volume: whoever reads gets the old or the new one, whole."""

    def read(self, volume: str) -> bytes | None:
        """Return the digest list or None. Hostile until its root is compared with a record."""

    def remove(self, volume: str) -> int | None:
        """Forget the list, not durably: success when it is gone already. Returns the bytes freed, None where nobody
        counts them."""


class Leases(Protocol):
    """Leases of tags: exclusive to change an image, shared to read it for longer."""

    def try_acquire(self, tag: str, shared: bool = False) -> Lease | None:
        """Take the lease of a tag now, or return None when somebody holds it. Never waits for a holder."""

    def held(self, tag: str) -> bool:
        """Ask whether anybody holds the lease of a tag; takes nothing."""

    def adopt(self, tag: str, token: str) -> Lease:
        """Take over the lease of ``tag`` that the process which spawned this one handed over. Superseded when it is not
        held any more. Adopted once; it is this process that ends if the lease is lost."""


class Manager(Protocol):
    """The role of the one host that may make, remove and resize volumes: the manager (SRM)."""

    def host(self) -> str:
        """Return the host that has the role, "" for nobody known."""

    def take(self, dead: str) -> None:
        """Give the role to this host. ``dead`` asserts that a host, which has it, is dead for certain; Refused
        when there is another and it is not that one. Success when this host has it."""

    def release(self) -> None:
        """Give the role up. Refused when this host has it not, StorageError while it uses what the next one needs."""


class Ballast(Protocol):
    """Room set apart for what frees room."""

    def keep(self) -> None:
        """Set room apart again, as far as there is some. Never raises for the storage."""

    def release(self) -> bool:
        """Let a part of it be used now; False when nothing is left. OSError."""

    def serves(self, path: str) -> bool:
        """Tell whether what is released can be used for files beside ``path``, too. OSError."""


class Parts(Protocol):
    """What a repository has beside its images."""

    def require_unlocked(self, volumes: Mapping[str, VolumeFormat]) -> None:
        """Return if nobody has one of these volumes locked, as a tool that writes or reads it or for a machine: asked
        before the file of leases is made again. ImageBusy naming the volume; Refused naming those that cannot be asked,
        when nobody has the others."""

    def make(self, name: str) -> None:
        """Make a part again that a scan told as missing. Durable; success when it is there. It holds nothing that
        could be lost but what it is empty of then: the volumes, or the leases that others have of the file before."""


class LitterBox(Protocol):
    """What no record needs. ``scan`` lists it."""

    def remove(self, items: Iterable[Litter]) -> int:
        """Remove each item that a fresh look, under its lock where it has one, still finds
        unneeded; return the bytes freed. Never touches "foreign"."""


class Repository(Protocol):
    """An open repository of one format."""

    @property
    def format(self) -> str:
        """Type and version, such as "localfs-1.0"."""

    @property
    def identity(self) -> str:
        """Random id of the storage itself, 32 hex digits; detects a second handle."""

    @property
    def place(self) -> str:
        """Where the repository is, for messages."""

    @property
    def read_errors_count(self) -> bool:
        """An error of reading data means that the data is damaged. Else it may as well be the way to it (a server
        that is away, a lock that was lost), so the image is unknown and nothing of it is given up."""

    @property
    def tags(self) -> Tags:
        """Records, and what is left of purged ones."""

    @property
    def volumes(self) -> Volumes:
        """The data."""

    @property
    def adoption(self) -> Adoption | None:
        """None: what is elsewhere can only be copied here."""

    @property
    def activation(self) -> Activation | None:
        """None: a volume can be opened as it lies."""

    @property
    def extents(self) -> Extents | None:
        """None: volumes grow as they are written and end where their data ends, and there is room until there is
        none."""

    @property
    def progress(self) -> Progress:
        """What running attempts say."""

    @property
    def digests(self) -> Digests:
        """Digest lists of volumes."""

    @property
    def leases(self) -> Leases:
        """Who works on which tag."""

    @property
    def manager(self) -> Manager | None:
        """None: every host that has the repository may do everything."""

    @property
    def ballast(self) -> Ballast | None:
        """None: what frees room needs none there."""

    @property
    def parts(self) -> Parts | None:
        """None: it has none that could be missing alone."""

    @property
    def litter(self) -> LitterBox:
        """Leftovers."""

    def anchors(self) -> dict[str, int | str]:
        """Return what the repository stands on now, as marks by name that no copy of it shares; empty where nothing
        tells a copy, or when it cannot be asked. A few calls. StorageError when it is not there."""

    def give(self, access: Access) -> None:
        """State whose the volumes are: those that are there, and all that will be made. Durable; may be repeated.
        Refused where a format has no such thing, StorageError when a user or group is unknown here."""

    def warnings(self) -> list[str]:
        """Return what this host lacks to keep images and other hosts safe, a sentence each."""

    def constraints(self) -> Constraints:
        """Return what the repository needs and can do."""

    def space(self) -> tuple[int, int]:
        """Return (total, free) bytes."""

    def scan(self) -> Scan:
        """List everything afresh. One unreadable object never stops it."""

    def close(self) -> None:
        """Leave nothing behind on this host. May be repeated."""


def backing_name(parent: str) -> str:
    """The backing name in the qcow2 header of a volume whose parent is the tag ``parent``.

    A bare relative name: qemu resolves it beside the path it was given, so ``prepare``'s run
    directory decides what it means, and opening the bare volume anywhere else fails closed.
    """
    return f"t-{parent}"


def attempt_is_over(entry: TagEntry | None, epoch: int) -> bool:
    """Whether the progress of that epoch can be of no use: no record that still has an operation of
    that epoch. (An executor that has just finished one holds the lease, so its log is busy.)"""
    if entry is None or entry.tombstone:
        return True
    return entry.record is not None and (entry.record.epoch != epoch or entry.record.operation is None)
