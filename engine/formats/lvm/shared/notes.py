"""Which volumes each host that shares a repository may be writing to, as that host says itself.

A host notes a volume durably before it makes it active, and takes the note back afterwards. Notes
are of one presence of the host (sanlock's generation): those of an earlier one are void, for it has
booted or its processes were killed. Each host writes its own two copies in turns, both of them the first time; since
then none is blank. It says so on its page of the roster when it has done that: where both are blank and the page does
not say that they were written, they never were.

Of a volume that is handed out to a machine the notes have one more id, which is computed from that of the volume
(``Mark``). It outlives the holder, as the machine may.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from enum import Enum
from hashlib import blake2b
from typing import NamedTuple

from engine.doors.shared_leases import HostState
from engine.doors.users import User
from engine.errors import Conflict, StorageError, from_os_errors
from engine.formats.lvm.group import HostLocks
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.area import Meta
from engine.formats.lvm.metadata.layout import NOTES_BYTES
from engine.formats.lvm.metadata.pages import (
    PAGE_BYTES,
    PAYLOAD_BYTES,
    SECTOR_BYTES,
    Stamp,
    State,
    is_blank,
    look,
    seal,
    unseal,
)
from engine.formats.lvm.shared.roster import Entry, Membership, Roster

_COUNT = struct.Struct(">4sI")
_MAGIC = b"DWN1"
_ID_BYTES = 16
_PAGE_PAYLOAD_BYTES = PAGE_BYTES // SECTOR_BYTES * PAYLOAD_BYTES
_ROOM = "0" * 24
MAX_NOTES = (NOTES_BYTES // 512 * PAYLOAD_BYTES - _COUNT.size) // _ID_BYTES
_KEY = 0
_PATIENCE_S = 20.0
_LOOK_AGAIN_S = 0.01


def room_for(chunk: int) -> str:
    """Return the id under which notes name the room of a chunk of records that is being made; no volume has it."""
    return _ROOM + f"{chunk:08x}"


class Mark(Enum):
    """What else the notes say of a volume: it may be in use by a machine, also when its lease is free."""

    LENT = b"lent"
    """For reading."""
    HANDED_OUT = b"handed out"
    """For writing."""

    def of(self, volume: str) -> str:
        """Return the id that says so. No volume has it; a program that knows nothing of it takes it for one that is not
        there, and takes it back."""
        return blake2b(bytes.fromhex(volume), digest_size=_ID_BYTES, person=self.value).hexdigest()


class Notes(NamedTuple):
    """The notes of one host: which volumes may be active there."""

    generation: int = 0
    sequence: int = 0
    volumes: frozenset[str] = frozenset()
    damaged: bool = False
    """A copy is damaged, so the host may have noted other volumes too."""

    @property
    def blank(self) -> bool:
        """Whether nothing was ever written there, as far as the copies tell."""
        return not self.sequence and not self.damaged

    @property
    def incomplete(self) -> bool:
        """Whether a copy tells nothing."""
        return self.damaged or not self.sequence

    @property
    def lost(self) -> bool:
        """Whether no copy tells anything: whatever there is may be noted, and handed out."""
        return not self.sequence and self.damaged

    @property
    def active(self) -> frozenset[str]:
        """The volumes themselves."""
        marks = {mark.of(volume) for volume in self.volumes for mark in Mark}
        return frozenset(volume for volume in self.volumes - marks if not volume.startswith(_ROOM))

    def marks(self) -> dict[str, Mark]:
        """Return what is handed out. Where a copy is damaged that may be all of it: the newest mark is lost then, but
        not that the volume is active, which was noted before."""
        found = {}
        for volume in self.active:
            if self.damaged or Mark.HANDED_OUT.of(volume) in self.volumes:
                found[volume] = Mark.HANDED_OUT
            elif Mark.LENT.of(volume) in self.volumes:
                found[volume] = Mark.LENT
        return found


def read_notes(copies: list[bytes]) -> Notes:
    """Return what counts in the copies of the notes of one host, the even one first."""
    found, states = Notes(), []
    for raw in copies:
        state, read = _read(raw)
        states.append(state)
        if read is not None and (read.generation, read.sequence) > (found.generation, found.sequence):
            found = read
    # The first write of all goes to the odd copy, and to the other one then. So a torn one has a whole one beside it
    # unless it is that, and beside a whole one there is no blank one.
    begun = found.sequence or states[0] is not State.BLANK
    sound = State.BAD not in states and (not begun or (found.sequence and State.BLANK not in states))
    return found._replace(damaged=not sound)


def _read(raw: bytes) -> tuple[State, Notes | None]:
    if is_blank(raw):
        return State.BLANK, None
    state, stamp, payload = look(raw)
    if stamp is None:
        return State.BAD, None  # its first sector is blank, and others are not
    magic, count = _COUNT.unpack_from(payload)
    if magic != _MAGIC or count > MAX_NOTES:
        return State.BAD, None
    state, payload = unseal(raw, stamp, _COUNT.size + count * _ID_BYTES)
    if state is not State.WHOLE:
        blank = any(is_blank(raw[at : at + SECTOR_BYTES]) for at in range(0, _length(count), SECTOR_BYTES))
        return State.BAD if blank else state, None
    ids = payload[_COUNT.size :]
    volumes = frozenset(ids[at : at + _ID_BYTES].hex() for at in range(0, len(ids), _ID_BYTES))
    return state, Notes(stamp.version, stamp.sequence, volumes)


def _length(count: int) -> int:
    """Return the bytes of the sectors that so many notes take."""
    return -(-(_COUNT.size + count * _ID_BYTES) // PAYLOAD_BYTES) * SECTOR_BYTES


def _sealed(notes: Notes) -> bytes:
    ids = b"".join(bytes.fromhex(volume) for volume in sorted(notes.volumes))
    payload = _COUNT.pack(_MAGIC, len(notes.volumes)) + ids
    stamp = Stamp(notes.generation, notes.sequence, blake2b(payload, digest_size=8).digest())
    # No sector of a page stays blank: where a torn write takes one more of them, or one less, that is not damage.
    return seal(stamp, payload.ljust(-(-len(payload) // _PAGE_PAYLOAD_BYTES) * _PAGE_PAYLOAD_BYTES, b"\0"))


class ActiveVolumes:
    """The notes of all hosts of one repository; this host's are changed under a lock of this host."""

    def __init__(self, meta: Meta, member: Membership, roster: Roster, locks: HostLocks) -> None:
        self._meta = meta
        self._member = member
        self._roster = roster
        self._locks = locks

    def begin(self) -> None:
        """Have both copies of the notes of this host say something, and its page of the roster that they do. What is
        damaged is written anew: other hosts take nothing back meanwhile. StorageError, Conflict."""
        if self._own().incomplete:  # else no command waits for a process that has stopped while it notes something
            with self._locked():
                if (own := self._own()).incomplete:
                    self._write(own, own.volumes)
        self._roster.say_noted(self._member.number)

    def add(self, volume: str) -> None:
        """Note a volume, durable on return. StorageError, Conflict."""
        self._change(frozenset([volume]), frozenset())

    def remove(self, volume: str) -> None:
        """Take the note of a volume back; success when there is none. StorageError, Conflict."""
        self._change(frozenset(), frozenset([volume, *(mark.of(volume) for mark in Mark)]))

    def hand_out(self, volume: str, writes: bool) -> None:
        """Note a volume, and then that a machine may use it: so no damage of one copy hides both. Durable on return.
        StorageError, Conflict."""
        mark = Mark.HANDED_OUT if writes else Mark.LENT
        self.add(volume)
        self._change(frozenset([mark.of(volume)]), frozenset())

    def handed_out(self) -> frozenset[str]:
        """Return what this host has handed out, held or not. StorageError."""
        return frozenset(self._own().marks())

    def volumes(self) -> frozenset[str]:
        """Return the volumes that this host has noted. StorageError."""
        return self._own().active

    def generation(self) -> int:
        """Return which presence of this host wrote its notes, 0 when none has. StorageError."""
        return self._read(self._entry()).generation

    def clear(self) -> None:
        """Take all notes of this host back: nothing is active here. StorageError, Conflict."""
        with self._locked():
            own = self._own()
            if own.volumes:
                self._write(own, frozenset())

    def _change(self, added: frozenset[str], removed: frozenset[str]) -> None:
        with self._locked():
            own = self._own()
            wanted = (own.volumes | added) - removed
            if wanted != own.volumes or own.damaged:
                self._write(own, wanted)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        clock = self._meta.group.doors.clock
        deadline = clock.monotonic() + _PATIENCE_S
        while (lease := self._locks.try_acquire(_KEY)) is None:
            if clock.monotonic() > deadline:
                raise Conflict(
                    f"another process of this host does not finish noting what is active in {self._meta.group.name}",
                    "See whether one is stopped, and try again",
                )
            clock.sleep(_LOOK_AGAIN_S)
        try:
            yield
        finally:
            lease.release()

    def _own(self) -> Notes:
        """Read the notes of this host; what an earlier presence noted is void."""
        now = self._read(self._entry())
        volumes = now.volumes if now.generation == self._member.generation else frozenset()
        if now.damaged:  # what stood there is lost; what is active is not, and may be handed out
            active = frozenset(self._active())
            volumes |= active | {Mark.HANDED_OUT.of(volume) for volume in active}
        return Notes(self._member.generation, now.sequence, volumes, now.damaged)

    def _active(self) -> Iterator[str]:
        for name, volume in self._meta.group.report().volumes.items():
            id = layout.data_of(name)
            if volume.active and id is not None:
                yield id

    def _write(self, own: Notes, volumes: frozenset[str]) -> None:
        if len(volumes) > MAX_NOTES:
            raise StorageError(
                f"more is active and handed out on this host than {MAX_NOTES} notes can tell, and what is handed out "
                "takes two",
                "Tear some images down here, or end what works on some",
            )
        for sequence in (own.sequence + 1, *([] if own.sequence else [2])):
            new = Notes(self._member.generation, sequence, volumes)
            page = self._meta.geometry.notes_offset(self._member.number, sequence & 1), _sealed(new)
            with from_os_errors("note which volumes are active on this host"):
                self._meta.write(*page)
                self._meta.keep(page)

    def _entry(self) -> Entry:
        return self._roster.entries()[self._member.number - 1]

    def _read(self, entry: Entry) -> Notes:
        """Read the notes of the host with that page of the roster."""
        with from_os_errors("read which volumes are active"):
            raw = self._meta.read(self._meta.geometry.notes_offset(entry.number, 0), 2 * NOTES_BYTES)
        notes = read_notes([raw[:NOTES_BYTES], raw[NOTES_BYTES:]])
        return notes._replace(damaged=True) if notes.blank and (entry.noted or entry.damaged) else notes

    # -- the other hosts

    def _others(self) -> Iterator[tuple[Entry, Notes]]:
        for entry in self._roster.entries():
            if entry.number != self._member.number:
                yield entry, self._read(entry)

    def writer(self, volume: str) -> str:
        """Return the other host that may still write to a volume whose lease is free or ours, "" for none.
        StorageError."""
        for entry, notes in self._others():
            if (volume in notes.volumes or notes.damaged) and not self._has_stopped(entry, notes):
                return entry.called
        return ""

    def elsewhere(self) -> dict[str, tuple[User, ...]]:
        """Return what other hosts have handed out, with who may use it there: every volume where a host's notes are
        lost. Not what a dead host did: whoever deletes that is told by ``writer`` to put it away. StorageError."""
        found: dict[str, tuple[User, ...]] = {}
        for entry, notes in self._others():
            marks = notes.marks()
            if (marks or notes.lost) and self._may_run(entry, notes):
                name = entry.called
                for volume, mark in marks.items():
                    user = User(0, f"host {name}, where it is handed out", mark is Mark.HANDED_OUT, name)
                    found[volume] = (*found.get(volume, ()), user)
                for volume in self._volumes_there() if notes.lost else ():
                    user = User(0, f"host {name}, whose notes of that are damaged", True, name, known=False)
                    found[volume] = (*found.get(volume, ()), user)
        return found

    def _volumes_there(self) -> set[str]:
        names = self._meta.group.report().volumes
        return {volume for volume in map(layout.data_of, names) if volume is not None}

    def _may_run(self, entry: Entry, notes: Notes) -> bool:
        """Return whether a machine may run on a host that was there when it wrote its notes: it has not come anew, is
        not gone, and nobody has said that it is dead. Notes that are lost do not tell when that was."""
        host = self._meta.group.doors.shared_leases.host(self._member.area, entry.number)
        since = not notes.lost and host.generation > notes.generation
        return not since and not host.gone and host.generation > entry.dead

    def _has_stopped(self, entry: Entry, notes: Notes) -> bool:
        """Return whether a host cannot write any more what it noted. Without a watchdog a host that is only silent may
        go on, and its last write arrive, unless somebody says that it is dead. One that is there renews its presence,
        so those of its processes that had a lease have ended."""
        host = self._meta.group.doors.shared_leases.host(self._member.area, entry.number)
        since = not notes.damaged and host.generation > notes.generation
        if since or host.state in (HostState.LIVE, HostState.FREE):
            return True
        return host.generation <= entry.dead
