"""One qemu-nbd process that serves one client and never outlives it.

The socket has no name: it is made in a private directory, connected, and unlinked before the
server starts, so nobody else can connect and nothing is left behind whoever dies. The listening
descriptor is handed over as systemd would (``LISTEN_FDS``).

qemu-nbd without ``--persistent`` ends when its client's socket closes, but only once the client
has shaken hands (measured: a client that dies before leaves it running, lock and all). Until
then a guardian, forked by the same shell, holds the read end of a pipe of ours and kills the
server when the pipe closes without a word.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
from collections.abc import Sequence

from engine.errors import ToolFailed
from engine.tools.local.command import READ_WORDS_BYTES, shortened
from engine.tools.local.environment import of_a_tool

STOP_TIMEOUT_S = 30.0
"""How long a server may take to write out what it knows after its client has gone."""

_WORDS_TIMEOUT_S = 2

# Each request has a buffer of up to 2 MiB. By default glibc maps and unmaps it every time, and the page faults cost
# more than all copying: with these the server needs 0.7 s of processor time per GiB copied and not 1.6 s (measured).
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}

_FIRST_INHERITED = 10  # above everything that the script moves around

# Standard input is the listening socket and standard output the guardian's pipe. The guardian keeps no copy of the
# socket: a server that fails to start must be seen as a closed connection. CHLD is ignored, also after exec, so that
# the kernel reaps the guardian and no zombie is left for an init that may not care.
_SCRIPT = """
trap '' CHLD
exec 3<&0 4<&1 0</dev/null 1>/dev/null
( exec 3<&-; read -r word <&4 || kill -9 $$ ) &
exec 4<&-
export LISTEN_FDS=1 LISTEN_PID=$$
exec "$@"
"""


class QemuNbd:
    """The process. ``connection`` is our end of its socket, to be used and closed by the session."""

    def __init__(self, arguments: Sequence[str], inherit: Sequence[int] = ()) -> None:
        """Start ``arguments`` (qemu-nbd, which finds its socket by itself) with copies of ``inherit`` open in it.

        ToolFailed: no process or socket could be made. What the server thinks of its arguments shows in the handshake.
        """
        self._dismissed = False
        with contextlib.ExitStack() as undo:
            try:
                self._stderr = _kept(undo, os.memfd_create("qemu-nbd-stderr"))
                read_end, self._lifeline = os.pipe()
                _kept(undo, self._lifeline)
                with os.fdopen(read_end):
                    self.connection = self._start(arguments, inherit, read_end, undo)
            except OSError as error:
                raise ToolFailed(f"cannot start {arguments[0]}: {error.strerror}") from None
            undo.pop_all()

    def _start(
        self, arguments: Sequence[str], inherit: Sequence[int], guard: int, undo: contextlib.ExitStack
    ) -> socket.socket:
        import subprocess

        listener, connection = _connected_pair()
        undo.callback(connection.close)
        with listener, contextlib.ExitStack() as copies:
            # The shell moves descriptors around below 10; a lease that happens to be there would be lost.
            leases = [_kept(copies, fcntl.fcntl(d, fcntl.F_DUPFD_CLOEXEC, _FIRST_INHERITED)) for d in inherit]
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT, "sh", *arguments],
                stdin=listener.fileno(),
                stdout=guard,
                stderr=self._stderr,
                env={**of_a_tool(), **_MALLOC},
                pass_fds=leases,
                process_group=0,
            )
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)
        return connection

    def started(self) -> None:
        """Dismiss the guardian: the handshake is done, so the server ends by itself when the socket closes."""
        if not self._dismissed:
            self._dismissed = True
            with contextlib.suppress(BrokenPipeError):
                os.write(self._lifeline, b"\n")

    def words(self) -> str:
        """Return the server's standard error, shortened, after waiting a little for its end."""
        self._wait(_WORDS_TIMEOUT_S)
        return shortened(os.pread(self._stderr, READ_WORDS_BYTES, 0)) if self._stderr >= 0 else ""

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        code: int | None = self._process.poll()
        return code

    def stop(self, patience_s: float = STOP_TIMEOUT_S) -> None:
        """Wait for its end, which the closed socket asked for; kill it when that takes too long. Nobody has what
        was inherited afterwards, the guardian neither."""
        if self._stderr < 0:
            return
        if not self._dismissed or not self._wait(patience_s):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._wait(_WORDS_TIMEOUT_S)  # a process stuck in the kernel must not take us with it
        self.started()
        self._wait_for_guardian()
        os.close(self._lifeline)
        os.close(self._pidfd)
        os.close(self._stderr)
        self._stderr = -1

    def _wait_for_guardian(self) -> None:
        """Wait for the guardian's end: it is the last that has the other end of the pipe, and copies of the leases."""
        poll = select.poll()
        poll.register(self._lifeline, 0)  # only that there is no reader any more
        poll.poll(_WORDS_TIMEOUT_S * 1000)

    def _wait(self, timeout_s: float) -> bool:
        """Tell whether the server has ended within the time; reap it."""
        if self._process.returncode is None and self._stderr >= 0:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if poll.poll(timeout_s * 1000):
                self._process.wait()
        return self._process.returncode is not None


def _kept(undo: contextlib.ExitStack, descriptor: int) -> int:
    undo.callback(os.close, descriptor)
    return descriptor


def _connected_pair() -> tuple[socket.socket, socket.socket]:
    """Return (listening socket with one client waiting, that client); both have no name any more."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        directory = f"{os.environ.get('TMPDIR') or '/tmp'}/diskwright-{os.urandom(8).hex()}"
        os.mkdir(directory, 0o700)
        descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            name = f"/proc/self/fd/{descriptor}/s"  # short: a socket's name has 107 bytes at most
            try:
                listener.bind(name)
                listener.listen(1)
                connection.connect(name)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink("s", dir_fd=descriptor)
        finally:
            os.close(descriptor)
            os.rmdir(directory)
    except BaseException:
        listener.close()
        connection.close()
        raise
    return listener, connection
