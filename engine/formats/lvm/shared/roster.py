"""Which host has which number in a repository that hosts share, and how a host takes part and leaves.

Each number has a page of its own in ``dw-meta``. Only the host that takes part in the lease area
with that number writes it, which sanlock keeps to one at a time. A host keeps its number for ever
unless it leaves in order: what one that died had under way may still arrive in its lane, so nobody
else gets that lane.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import NamedTuple

from engine.data.records import canonical
from engine.doors.shared_leases import HostState, LeaseArea
from engine.errors import Conflict, Damaged, DiskwrightError, Refused, from_os_errors
from engine.formats.lvm.metadata import layout
from engine.formats.lvm.metadata.area import Meta
from engine.formats.lvm.metadata.pages import PAGE_BYTES, Stamp, State, look, seal

_MAX_HOST_CHARACTERS = 256


class Membership(NamedTuple):
    """How this host takes part."""

    area: LeaseArea
    number: int
    generation: int


class Entry(NamedTuple):
    """A page of the roster."""

    number: int
    host: str = ""
    """"": nobody ever had the number."""
    left: bool = False
    """The host left in order: nothing that it began is under way."""
    damaged: bool = False
    dead: int = 0
    """An operator has said that this presence of the host, and any before it, is dead for certain."""
    nonce: str = ""
    """Of the host; "" when an older program wrote the page: the first host of that name that joins has the number."""
    noted: bool = False
    """Both copies of its notes were written since it joined (``notes``): where they are blank they are lost."""

    @property
    def called(self) -> str:
        """The host, by its number where the page does not tell its name."""
        return self.host or f"number-{self.number}"

    def is_of(self, host: str, nonce: str) -> bool:
        """Return whether that host has the number."""
        return self.host == host and self.nonce in ("", nonce)

    def free_for(self, host: str, nonce: str) -> bool:
        """Return whether that host may try to get the number."""
        return not self.damaged and (not self.host or self.left or self.is_of(host, nonce))


def read_entry(number: int, raw: bytes) -> Entry:
    """Return what a page says."""
    state, stamp, payload = look(raw)
    if stamp is None:
        return Entry(number, damaged=state is State.BAD)
    try:
        data = json.loads(payload.rstrip(b"\0"))
        host, left, dead, nonce = data["host"], data["left"], data.get("dead", 0), data.get("nonce", "")
        noted = data.get("noted") is True
        if not isinstance(host, str) or not 0 < len(host) <= _MAX_HOST_CHARACTERS or not isinstance(left, bool):
            raise ValueError("it makes no sense")
        if type(dead) is not int or not 0 <= dead < 1 << 63 or not isinstance(nonce, str):
            raise ValueError("it makes no sense")
    except (ValueError, TypeError, KeyError, RecursionError):
        return Entry(number, damaged=True)
    return Entry(number, host, left, dead=dead, nonce=nonce, noted=noted)


class Roster:
    """The numbers of one repository."""

    def __init__(self, meta: Meta, area: LeaseArea) -> None:
        self._meta = meta
        self._area = area
        self._leases = meta.group.doors.shared_leases
        self._host = meta.group.doors.ids.host_id
        self._nonce = meta.group.doors.ids.host_nonce

    # -- looking

    def entries(self) -> list[Entry]:
        """Read the entries of all numbers, in order. StorageError."""
        geometry = self._meta.geometry
        with from_os_errors(f"read which hosts share {self._meta.group.name}"):
            raw = self._meta.read(geometry.roster_offset(1), geometry.hosts * PAGE_BYTES)
        return [
            read_entry(number, raw[(number - 1) * PAGE_BYTES : number * PAGE_BYTES])
            for number in range(1, geometry.hosts + 1)
        ]

    def name(self, number: int) -> str:
        """Return the host of a number, for messages."""
        return self.entries()[number - 1].called

    # -- taking part

    def member(self) -> Membership | None:
        """Return how this host takes part now, as sanlock has it; None when it does not take part. StorageError,
        ToolMissing."""
        number = self._leases.joined(self._area)
        return self._member(number) if number else None

    def join(self) -> Membership:
        """Take part, as the number that this host has or a new one. Success at once when it does already, else sanlock
        takes 20 s. Refused when all numbers are taken; Damaged when it cannot be told whose number it is that it takes
        part with; Conflict; StorageError without sanlock's daemon."""
        present = self._leases.joined(self._area)
        if present and self._registered(present):
            return self._member(present)
        if present:
            self._leases.leave(self._area)  # somebody else's: we died before we had looked
        tried: set[int] = set()
        while True:
            number = self._next(tried)
            tried.add(number)
            own = self._is_own(self.entries()[number - 1])
            try:
                self._leases.join(self._area, number)
            except Conflict:
                if own and not self._leases.joined(self._area):
                    raise Conflict(
                        f"another host takes part in the repository in {self._meta.group.name} as {self._host}",
                        "Give each host an id of its own",
                    ) from None
                if number == self._leases.joined(self._area) or not self._leases.joined(self._area):
                    continue
                return self.join()  # another process of this host was quicker, with another number
            if self._registered(number):
                return self._member(number)
            self._leases.leave(self._area)

    def _next(self, tried: set[int]) -> int:
        """Choose a number: that of this host, one that nobody ever had, or one that was given back. Each host tries
        them in an order of its own: who loses a number to another one that joins at the same time is told only after
        minutes."""
        free = [entry for entry in self.entries() if entry.free_for(self._host, self._nonce)]
        entries = [entry for entry in free if entry.number not in tried]
        entries.sort(key=lambda entry: blake2b(f"{self._host} {entry.number}".encode(), digest_size=8).digest())
        for wanted in (self._is_own, lambda e: not e.host, lambda e: e.left):
            for entry in entries:
                if wanted(entry):
                    return entry.number
        known = self.entries()
        hosts = ", ".join(f"{entry.called} (damaged)" if entry.damaged else entry.called for entry in known)
        lost = [entry.called for entry in known if entry.damaged]
        raise Refused(
            f"the repository in {self._meta.group.name} has no number left for this host: {hosts} share it",
            "Disconnect it on one of them that needs it no more; one that died keeps its number until it comes back"
            + (
                f". When what had a damaged one is certainly dead: diskwright srm take REPO --dead {lost[0]}"
                if lost
                else ""
            ),
        )

    def _is_own(self, entry: Entry) -> bool:
        return entry.is_of(self._host, self._nonce)

    def _registered(self, number: int) -> bool:
        """Write this host onto the page of its number, False when the number is of another host. Nobody else writes
        that page while this host has the number in the lease area."""
        if number > self._meta.geometry.hosts:
            return False
        found = self.entries()[number - 1]
        if found.damaged:  # what this host has under way is in that lane, or what another one had
            raise Damaged(
                f"{layout.META} of {self._meta.group.name} does not tell any more whose number {number} is, with which "
                "this host takes part",
                "Stop what uses it on this host, disconnect it and connect it again: then it gets another number",
            )
        if not found.free_for(self._host, self._nonce):
            return False
        if (found.host, found.nonce) != (self._host, self._nonce) or found.left:
            self._write(Entry(number, self._host, nonce=self._nonce))
        return True

    def _member(self, number: int) -> Membership:
        return Membership(self._area, number, self._leases.host(self._area, number).generation)

    def _write(self, entry: Entry) -> None:
        more = {"dead": entry.dead, "nonce": entry.nonce, "noted": entry.noted}
        said = {name: value for name, value in more.items() if value}
        payload = canonical({"host": entry.host, "left": entry.left} | said)
        stamp = Stamp(1, int(entry.left), blake2b(payload, digest_size=8).digest())
        with from_os_errors(f"write which hosts share {self._meta.group.name}"):
            page = self._meta.geometry.roster_offset(entry.number), seal(stamp, payload)
            self._meta.write(*page)
            self._meta.keep(page)

    def say_noted(self, number: int) -> None:
        """Say on the page of this host, which has that number, that its notes were written. StorageError."""
        found = self.entries()[number - 1]
        if not found.noted and not found.damaged and self._is_own(found):
            self._write(found._replace(noted=True))

    def bury(self, host: str) -> bool:
        """Believe an operator that what another host had under way is over; False, and nothing is changed, for one that
        lives or that nobody knows. The caller holds the lease of the group; that host writes its page no more. A
        number whose page is damaged is free then."""
        own = self._leases.joined(self._area)
        named = [entry for entry in self.entries() if host and entry.called == host and entry.number != own]
        found = [(entry, self._leases.host(self._area, entry.number)) for entry in named]
        silent = [(entry, seen) for entry, seen in found if seen.state is not HostState.LIVE]
        for entry, seen in silent:
            known = entry._replace(host=host, left=True) if entry.damaged else entry
            self._write(known._replace(dead=seen.generation))
        return bool(silent)

    # -- leaving

    def leave(self) -> None:
        """Take part no more, and give the number back: nothing of this host is under way. Success when it does not take
        part. Conflict while a process of this host holds a lease."""
        number = self._leases.joined(self._area)
        if not number:
            return
        ours = self._is_own(self.entries()[number - 1])
        if ours:
            self._write(Entry(number, self._host, left=True, nonce=self._nonce))
        try:
            self._leases.leave(self._area)
        except DiskwrightError:
            if ours:
                self._write(Entry(number, self._host, nonce=self._nonce))
            raise
