"""One host of a lab: boots, runs commands, freezes, dies, boots again with the same disks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from engine.errors import Refused
from sim.lab import inside, sessions, wire
from sim.lab.channel import Channel, Done, Running, shown
from sim.lab.errors import LabError
from sim.lab.needs import kernel

BOOT_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 120.0
_SHUTDOWN_TIMEOUT_S = 20.0
_CONSOLE_TAIL_BYTES = 3000
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_PRELOAD = (
    "engine.api engine.assembly engine.formats.files.localfs tui.cli.session tui.cli.arguments tui.cli.help "
    "tui.cli.follow tui.cli.commands.repositories tui.cli.commands.images tui.cli.commands.look tui.cli.commands.fix"
).split()
# The keeper can find the guest before the guest exists, whenever its starter is killed.
_START = 'echo "$$" >"$0" && exec "$@"'


class Disk(NamedTuple):
    """A disk file. It is ``/dev/ubda``, ``/dev/ubdb``, … in a guest, in the order in which it was given."""

    path: str
    shared: bool
    """Several guests may have it at once; who writes where is up to them."""


class Home(Protocol):
    """What a host needs of the lab that it is in."""

    directory: str
    """Where hosts, disks and sockets are."""

    def hosts_file(self) -> str:
        """Return the names and addresses that each host shall know, as ``/etc/hosts`` has them."""

    def port(self, name: str) -> str:
        """Return the socket of the switch for a host's network card; make it when there is none yet."""

    def keeper(self, *words: str) -> None:
        """Tell the process that keeps the switch, and wait until it has obeyed."""


class Guest:
    """A host. Made by ``Lab.boot``; every method may be called from any thread."""

    def __init__(self, lab: Home, name: str, number: int, disks: Sequence[Disk], memory: str) -> None:
        self._lab = lab
        self.name = name
        self.number = number
        self.address = f"10.77.0.{number}"
        self.address6 = f"fd00:5d::{number:x}"
        self.disks = tuple(disks)
        self.memory = memory
        self.folder = f"{lab.directory}/hosts/{name}"
        self.log_path = f"{self.folder}/console.log"
        self.share = f"{self.folder}/share"
        """A directory of this machine that is ``/run/lab/share`` in the guest."""
        self.keep = f"{self.folder}/keep"
        """``/run/lab/keep`` in the guest: what this host remembers across its deaths."""
        self._machine_id = uuid.uuid4().hex
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._frozen = False
        self.cable_cut = False
        """Whether its network cable is pulled."""
        for path in (self.folder, self.share, self.keep):
            os.makedirs(path, exist_ok=True)

    # -- life

    @property
    def state(self) -> str:
        """off, booting, running or frozen."""
        if self._channel is None or not self._channel.alive:
            return "off"
        if self._frozen:
            return "frozen"
        return "running" if self._channel.facts else "booting"

    def start(self) -> None:
        """Switch it on; ``wait_ready`` waits for it. Refused when it is on."""
        if self.state != "off":
            raise Refused(f"{self.name} is {self.state}", "Kill it first")
        self._frozen = False
        ours, theirs = socket.socketpair()
        with theirs, open(self.log_path, "ab") as log:
            try:
                process = subprocess.Popen(
                    ["/bin/sh", "-c", _START, f"{self.folder}/pid", *self._command_line(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(theirs.fileno(),),
                    cwd="/",
                    env={"PATH": "/usr/bin:/bin"},
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise
        self._pin(process.pid)
        self._process = process
        self._channel = Channel(self.name, ours, os.pidfd_open(process.pid), lambda: self._bury(process))

    def wait_ready(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """Wait until it takes commands; LabError with the end of its console when it does not."""
        channel = self._on()
        if not channel.wait_ready(timeout_s):
            self.kill()
            raise LabError(f"{self.name} did not boot; its console ends: {self.console()[-_CONSOLE_TAIL_BYTES:]}")

    def boot(self) -> None:
        """Switch it on and wait until it takes commands."""
        self.start()
        self.wait_ready()

    def kill(self) -> None:
        """The host dies: its page cache is gone, what it had given to its disks stays. Returns when no process
        of it is left. Idempotent."""
        if self._process is not None:
            sessions.end(self._process.pid)
        if self._channel is not None:
            self._channel.join()

    def shutdown(self) -> None:
        """Switch it off in good order; file systems are left clean. Refused when it is frozen."""
        channel = self._awake()
        channel.send(0, wire.HALT)
        timer = threading.Timer(_SHUTDOWN_TIMEOUT_S, self.kill)
        timer.start()
        channel.join()
        timer.cancel()

    def freeze(self) -> None:
        """Time stops for the host. Its network card and disks stay where they are."""
        self._signal(signal.SIGSTOP)
        self._frozen = True

    def thaw(self) -> None:
        """Time goes on; for the host it was one long moment."""
        self._signal(signal.SIGCONT)
        self._frozen = False

    def cut(self) -> None:
        """Pull its network cable."""
        self._lab.port(self.name)
        self._lab.keeper("cut", self.name)
        self.cable_cut = True

    def mend(self) -> None:
        """Plug it in again."""
        self._lab.port(self.name)
        self._lab.keeper("mend", self.name)
        self.cable_cut = False

    def console(self) -> str:
        """What its kernel said, in all its lives."""
        with open(self.log_path, encoding="utf-8", errors="replace") as stream:
            return stream.read()

    @property
    def facts(self) -> dict[str, Any]:
        """boot_id and release of the life that runs."""
        return dict(self._on().facts)

    # -- commands

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout_s: float | None = COMMAND_TIMEOUT_S,
        data: bytes | None = None,
        environment: Mapping[str, str] | None = None,
        cwd: str = "/",
    ) -> Done:
        """Run a program to its end, with ``data`` as its standard input. CommandFailed when its exit code is not
        0 and ``check``; GuestDied; LabError when it is not there, or took longer: it is killed then."""
        running = self.begin(argv, feed=data is not None, environment=environment, cwd=cwd)
        if data is not None:
            running.write(data)
            running.close_input()
        return running.checked(timeout_s) if check else running.wait(timeout_s)

    def begin(
        self,
        argv: Sequence[str],
        *,
        feed: bool = False,
        environment: Mapping[str, str] | None = None,
        cwd: str = "/",
        on_output: Callable[[int, bytes], None] | None = None,
    ) -> Running:
        """Start a program and return at once. ``on_output`` gets what it writes, as kind
        (wire.OUT or wire.ERR) and bytes, in a thread of the lab; it must not talk to the guest."""
        spec = _spec(argv=list(argv), input=feed, environment=environment, cwd=cwd)
        return self._awake().start(spec, shown(argv), on_output)

    def begin_call(
        self,
        function: str,
        arguments: Sequence[str] = (),
        *,
        environment: Mapping[str, str] | None = None,
        preload: Sequence[str] = (),
        feed: bool = False,
        on_output: Callable[[int, bytes], None] | None = None,
    ) -> Running:
        """Start ``module:function`` with a list of words, in a fork of a process that has imported the module: ten
        times as fast as a program. Its result is the exit code."""
        spec = _spec(
            call=function, arguments=list(arguments), environment=environment, preload=list(preload), input=feed
        )
        return self._awake().start(spec, shown([function, *arguments]), on_output)

    def begin_diskwright(self, words: Sequence[str], on_output: Callable[[int, bytes], None] | None = None) -> Running:
        """Start a command of diskwright on this host, which has its own name and notes."""
        return self.begin_call("tui.cli.main:main", words, preload=_PRELOAD, on_output=on_output)

    def diskwright(self, *words: str, check: bool = True, timeout_s: float | None = COMMAND_TIMEOUT_S) -> Done:
        """Run a command of diskwright on this host to its end."""
        running = self.begin_diskwright(words)
        return running.checked(timeout_s) if check else running.wait(timeout_s)

    def python(
        self, source: str, *arguments: str, check: bool = True, timeout_s: float | None = COMMAND_TIMEOUT_S
    ) -> Done:
        """Run Python text; ``sys.argv[1:]`` are the arguments."""
        running = self._awake().start(_spec(source=source, arguments=list(arguments)), "python")
        return running.checked(timeout_s) if check else running.wait(timeout_s)

    # -- details

    def _on(self) -> Channel:
        if self._channel is None or not self._channel.alive:
            raise Refused(f"{self.name} is off", "Boot it first")
        return self._channel

    def _awake(self) -> Channel:
        channel = self._on()
        if self._frozen:
            raise Refused(f"{self.name} is frozen", "Thaw it first, or kill it")
        return channel

    def _signal(self, number: int) -> None:
        self._on()
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)  # only the main one: stopping those it traces is a panic

    def _pin(self, pid: int) -> None:
        """A guest's processes take turns all the time. On one processor that costs a third of what it does on two,
        the one waking the other (measured: 0.14 s instead of 0.42 for a command of LVM)."""
        processors = sorted(os.sched_getaffinity(0))
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(pid, {processors[self.number % len(processors)]})

    def _bury(self, process: subprocess.Popen[bytes]) -> None:
        sessions.end(process.pid)
        process.wait()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.folder}/pid")

    def _command_line(self, line: int) -> list[str]:
        config = self._write_config()
        where = os.path.dirname(inside.__file__)
        links = {"python": os.path.realpath(sys.executable), "init.py": f"{where}/init.py"}
        for name, target in links.items():  # the kernel splits its command line at blanks
            with contextlib.suppress(FileExistsError):
                os.symlink(target, f"{self._lab.directory}/{name}")
        words = [
            kernel(),
            f"mem={self.memory}",
            f"umid={self.name}",
            f"uml_dir={self._lab.directory}/uml",
            "root=/dev/root rootfstype=hostfs rootflags=/ ro quiet",
            "con=null con0=null,fd:1",
            "pty.legacy_count=0",  # 512 device nodes fewer: LVM looks at each of them in every command
            f"ssl0=fd:{line}",
            f"vec0:transport=bess,dst={self._lab.port(self.name)},depth=128",
        ]
        for index, disk in enumerate(self.disks):
            words.append(f"ubd{index}{'c' if disk.shared else ''}d={disk.path}")
        words.append(f"init={self._lab.directory}/python -- -I -S {self._lab.directory}/init.py {config}")
        return [part for word in words for part in word.split(" ")]

    def _write_config(self) -> str:
        base = {os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, _ROOT)}
        config = {
            "name": self.name,
            "address": self.address,
            "address6": self.address6,
            "mac": f"02:77:00:00:00:{self.number:02x}",
            "machine_id": self._machine_id,
            "hosts": self._lab.hosts_file(),
            "keep": self.keep,
            "share": self.share,
            "root": _ROOT,
            "path": [_ROOT, *(path for path in sys.path if os.path.isabs(path) and os.path.exists(path))],
            "executable": sys.executable,
            "expose": sorted(base | {os.path.dirname(os.path.abspath(sys.executable))}),
        }
        path = f"{self.folder}/config.json"
        with open(path, "w", encoding="utf-8") as stream:
            json.dump(config, stream)
        return path


def _spec(environment: Mapping[str, str] | None = None, cwd: str = "/", **more: Any) -> dict[str, Any]:
    return {"cwd": cwd, "environment": dict(environment or {}), "input": False, **more}
