"""Where the links to prepared images stand: a directory for each preparation, gone when the host boots. And what is
noted of a preparation.

What is in one is written by ``paths``, which preparation has which is noted by ``state``. The directory of a disk is
found by names that stay the same, too, ``disks/<repository>/<name>``, for what is written into the configuration of a
machine. Names come from users: only a harmless one is a file name here. One that leads to another disk is left alone.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence, Set
from hashlib import sha256
from typing import NamedTuple

from engine.doors import Doors
from engine.doors.files import Kind, make_directories, replace_link
from engine.doors.processes import ProcessIdentity

_DIGITS = 12
_HARMLESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
"""With no ~, as ``replace_link`` needs it."""


class Prepared(NamedTuple):
    """An image that is prepared on this host."""

    repository: str
    image: str
    process: ProcessIdentity
    path: str
    format: str
    writable: bool
    monitor: str = ""
    """How to speak to the machine that has it open (``engine.doors.hypervisor``), "" when nobody has said."""
    names: tuple[str, ...] = ()
    """Of a disk: paths that lead to the directory of its links, the same each time it is prepared."""
    since: float = 0.0
    """When it was prepared, 0.0: not noted."""
    switch: tuple[str, ...] = ()
    """Of a disk that goes on in another volume at this moment (``engine.host.live.switches``)."""

    @property
    def run(self) -> str:
        """The directory of its links, which no other preparation has."""
        return self.path.rpartition("/")[0]

    @property
    def given(self) -> str:
        """The path for a machine, by the last of its names."""
        return f"{self.names[-1]}/{self.path.rpartition('/')[2]}" if self.names else self.path


class RunDirectories:
    """The run directories of a host, whose notes are in ``directory``."""

    def __init__(self, doors: Doors, directory: str) -> None:
        self._doors = doors
        self._directory = directory

    def make(self, repository: str, name: str, kept: Set[str] | None) -> str:
        """Make an empty run directory of that name and return its path. It is gone when the host boots, or is called
        otherwise then: nobody finds there what was prepared before. Others are removed that are not ``kept`` (None: all
        are) and lead to nothing that is in use. OSError."""
        top, boot = self._place()
        run = f"{top}{boot}/{repository}/{name}"
        self.remove(run)
        for old in (top, f"{self._directory}/run") if kept is not None else ():
            self._sweep(old, kept or set())
        make_directories(self._doors.files, run)
        self._let_pass(run)
        return run

    def _let_pass(self, directory: str) -> None:
        place = self._doors.files.run_place().path
        if place:  # a machine may be another user's
            parts = directory.split("/")
            for count in range(place.count("/") + 1, len(parts)):
                self._doors.files.let_pass("/".join(parts[: count + 1]))

    def name(self, run: str, repository: tuple[str, str], disk: str, name: str) -> tuple[str, ...]:
        """Have the run directory of a disk found by its id and, where nothing else has that, by a name; return these
        paths, as far as that works. ``repository``: its handle and its identity. Nobody else uses the disk.

        None where a boot leaves what is there: a machine that starts before the disk is prepared must not find it."""
        place = self._doors.files.run_place()
        if not (place.path and place.cleared):
            return ()
        folder = f"{place.path}/diskwright/disks/{next(one for one in repository if _HARMLESS.fullmatch(one))}"
        names = [disk, *([name] if _HARMLESS.fullmatch(name) and len(name) != len(disk) else [])]
        with contextlib.suppress(OSError):
            make_directories(self._doors.files, folder)
            self._let_pass(folder)
        return tuple(link for one in names if self._named(link := f"{folder}/{one}", run, one == disk))

    def _named(self, link: str, run: str, own: bool) -> bool:
        with contextlib.suppress(OSError):  # the path of the run directory does
            return self._lead(link, run, own)
        return False

    def _lead(self, link: str, run: str, own: bool) -> bool:
        """Have a link lead to a run directory; ``own``: wherever it led. Whether it does."""
        files = self._doors.files
        try:
            files.symlink(run, link)
        except FileExistsError:
            leads = self._leads(link)
            if leads and leads != files.resolve(run) and not own:
                return False
            replace_link(files, run, link)
        return True

    def _leads(self, link: str) -> str:
        """Where a link leads to, "" for nowhere."""
        try:
            resolved = self._doors.files.resolve(link)
            self._doors.files.stat(resolved)
        except FileNotFoundError:
            return ""
        return resolved

    def unname(self, run: str, links: Sequence[str]) -> None:
        """Remove the names of a run directory, as far as they lead there."""
        for link in links:
            with contextlib.suppress(OSError):
                if self._leads(link) == self._doors.files.resolve(run) != link:
                    self._doors.files.unlink(link)
                    self._doors.files.remove_directory(link.rpartition("/")[0])

    def remove(self, run: str) -> None:
        """Remove the links in a run directory, and what is empty then of it and of those above it, up to ``run``. Only
        links are ours: the note that names it may be of a program that did not seal it."""
        with contextlib.suppress(OSError):
            for entry in self._doors.files.list_directory(run):
                if entry.kind is Kind.SYMLINK:
                    self._doors.files.unlink(f"{run}/{entry.name}")
        with contextlib.suppress(OSError):
            while not run.endswith("/run"):
                self._doors.files.remove_directory(run)
                run = run.rpartition("/")[0]

    def _place(self) -> tuple[str, str]:
        """Return the directory of this host's run directories, and what this boot has below it ("" where a boot clears
        it). Hosts of one machine have different ones."""
        place = self._doors.files.run_place()
        boot = "" if place.cleared else f"/{self._doors.processes.own().boot_id}"
        if not place.path:
            return f"{self._directory}/run", boot
        own = sha256(self._directory.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGITS]
        return f"{place.path}/diskwright/run/{own}", boot

    def _sweep(self, directory: str, kept: Set[str]) -> None:
        """Remove what is not ``kept`` or in use, and what is empty then."""
        with contextlib.suppress(OSError):
            entries = self._doors.files.list_directory(directory)
            links = [f"{directory}/{entry.name}" for entry in entries if entry.kind is Kind.SYMLINK]
            if any(self._is_used(link) for link in links):
                return
            for link in links:
                self._doors.files.unlink(link)
            for entry in entries:
                if entry.kind is not Kind.SYMLINK and (path := f"{directory}/{entry.name}") not in kept:
                    self._sweep(path, kept)
            self._doors.files.remove_directory(directory)

    def _is_used(self, link: str) -> bool:
        """Whether a link leads to what somebody has open; nobody notes that whose note was lost, and a machine looks
        for its layers there again."""
        try:
            return bool(self._doors.files.users(self._doors.files.resolve(link)))
        except FileNotFoundError:
            return False
        except OSError:
            return True  # for all that can be told; the next boot clears it
