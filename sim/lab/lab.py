"""A lab: a directory, a switch, and guests that die with the process that made it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from engine.errors import BadRequest, NotFound, from_os_error
from sim.lab import keeper as keeper_module
from sim.lab.errors import LabError
from sim.lab.guest import Disk, Guest
from sim.lab.needs import require

MAX_GUESTS = 32
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}\Z")
_MAX_DIRECTORY = 60  # a socket's name has 107 bytes, and there is more to it than the directory


class Lab:
    """A context manager. Leaving it kills all guests; so does the end of this process, whatever ends it.

    ``directory`` keeps disks and consoles; none: a temporary one, deleted at the end. ToolMissing when this
    machine cannot run guests."""

    def __init__(self, directory: str | None = None) -> None:
        require()
        self.temporary = directory is None
        self.directory = os.path.realpath(directory or tempfile.mkdtemp(prefix="diskwright-lab-"))
        check_directory(self.directory)
        for name in ("hosts", "disks", "uml", "net"):
            os.makedirs(f"{self.directory}/{name}", exist_ok=True)
        self.guests: dict[str, Guest] = {}
        self._ports: set[str] = set()
        self._lock = threading.RLock()
        self._keeper = self._start_keeper()

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill everything. Idempotent."""
        with self._lock:
            for guest in self.guests.values():
                guest.kill()
            if self._keeper.stdin is not None and self._keeper.stdout is not None:
                self._keeper.stdin.close()
                self._keeper.wait()
                self._keeper.stdout.close()
            if self.temporary:
                shutil.rmtree(self.directory, ignore_errors=True)

    # -- what is in it

    def disk(self, name: str, size_bytes: int, shared: bool = False) -> Disk:
        """A disk file of that name, made (sparse, all zeros) when it is not there yet."""
        check_name(name)
        path = f"{self.directory}/disks/{name}"
        try:
            with open(path, "ab") as stream:
                if stream.tell() < size_bytes:
                    stream.truncate(size_bytes)
        except OSError as error:
            raise from_os_error(error, f"make the disk {name} of the lab") from error
        return Disk(path, shared)

    def add(self, name: str, disks: Sequence[Disk] = (), memory: str = "512M") -> Guest:
        """A host that is switched off; its number, and so its address, is the next free one."""
        check_name(name)
        with self._lock:
            if name in self.guests:
                raise BadRequest(f"the lab has a host {name} already")
            if len(self.guests) >= MAX_GUESTS:
                raise BadRequest(f"a lab has at most {MAX_GUESTS} hosts")
            guest = self.guests[name] = Guest(self, name, len(self.guests) + 1, disks, memory)
            return guest

    def boot(self, name: str, disks: Sequence[Disk] = (), memory: str = "512M") -> Guest:
        """Add a host, or take the one of that name that is off, and boot it. LabError when it does not boot."""
        guest = self.guests.get(name) or self.add(name, disks, memory)
        guest.boot()
        return guest

    def boot_all(self, guests: Sequence[Guest]) -> None:
        """Boot hosts at once."""
        for guest in guests:
            guest.start()
        for guest in guests:
            guest.wait_ready()

    def guest(self, name: str) -> Guest:
        """The host of that name; NotFound."""
        if name not in self.guests:
            raise NotFound(f"the lab has no host {name!r:.60}", f"It has {', '.join(self.guests) or 'none'}")
        return self.guests[name]

    # -- for guests

    def hosts_file(self) -> str:
        """Names and addresses that a guest shall know: all numbers have one, also of hosts that come later."""
        names = "".join(f"{guest.address} {name}\n" for name, guest in self.guests.items())
        return f"127.0.0.1 localhost\n::1 localhost\n{names}"

    def port(self, name: str) -> str:
        """The socket of the switch for a host's network card."""
        path = f"{self.directory}/net/{name}"
        with self._lock:
            if name not in self._ports:
                if os.path.exists(path):
                    os.unlink(path)
                self.keeper("port", name, path)
                self._ports.add(name)
        return path

    def keeper(self, *words: str) -> None:
        """Tell the keeper, and wait until it is done."""
        with self._lock:
            assert self._keeper.stdin and self._keeper.stdout
            try:
                self._keeper.stdin.write(" ".join(words).encode() + b"\n")
                self._keeper.stdin.flush()
                answer = self._keeper.stdout.readline()
            except (OSError, ValueError):
                answer = b""
            if answer != b"ok\n":
                raise LabError(f"the keeper of the lab is gone: it did not {words[0]} {words[1]}", "Start another lab")

    def _start_keeper(self) -> subprocess.Popen[bytes]:
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        more = ["--temporary"] if self.temporary else []
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(keeper_module.__file__), root, self.directory, *more],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
        )


def check_name(name: Any) -> None:
    """BadRequest unless it can name a host or a disk."""
    if not isinstance(name, str) or not _NAME.match(name):
        raise BadRequest(f"{name!r:.60} cannot name a host or a disk", "Use up to 31 of a-z, 0-9 and -")


def check_directory(path: str) -> None:
    """BadRequest unless a lab can be there."""
    if len(path) > _MAX_DIRECTORY or not re.match(r"[\w./@%+-]+\Z", path, re.ASCII):
        raise BadRequest(
            f"{path!r:.100} cannot hold a lab", f"Use a directory with at most {_MAX_DIRECTORY} plain characters"
        )
