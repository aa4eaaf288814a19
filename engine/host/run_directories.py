"""Where the links to prepared images stand: a directory for each preparation, gone when the host boots.

What is in one is written by ``paths``, which preparation has which is noted by ``state``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Set
from hashlib import sha256

from engine.doors import Doors
from engine.doors.files import Kind, make_directories

_DIGITS = 12


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
        place = self._doors.files.run_place().path
        if place:  # a machine may be another user's
            parts = run.split("/")
            for count in range(place.count("/") + 1, len(parts)):
                self._doors.files.let_pass("/".join(parts[: count + 1]))
        return run

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
