"""qemu-nbd processes: they end with their client however it ends, and leave nothing behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from engine.errors import ToolFailed
from engine.tools.local.leases import OfdLeases
from engine.tools.qemu.images import QemuImageTool
from engine.tools.qemu.nbd import NbdSession
from engine.tools.qemu.server import QemuNbd
from tests.tools.qcow2_kit import MIB, make, qcow2

ROOT = Path(__file__).parents[2]
TIMEOUT_MS = 20_000

CLIENT = """
import json, signal, sys
from engine.doors.images import Layer
from engine.tools.local.leases import OfdLeases
from engine.data.model import VolumeFormat
from engine.tools.qemu.layers import describe
from engine.tools.qemu.images import QemuImageTool
from engine.tools.qemu.server import QemuNbd

image, lock, shake_hands = sys.argv[1], sys.argv[2], sys.argv[3] == "shake"
lease = OfdLeases().try_acquire(lock, 7, shared=False)
layer = Layer(image, VolumeFormat.QCOW2)
if shake_hands:
    session = QemuImageTool([lease.descriptor]).open_session([layer], writable=True, direct=False)
    session.write(0, b"data")
    pid = session._server.pid
else:
    server = QemuNbd(["qemu-nbd", describe([layer], writable=True)], [lease.descriptor])
    pid = server.pid
print(json.dumps([pid, lease.descriptor]), flush=True)
signal.pause()
"""


class Client:
    """A process of its own with a session (or with a server it never spoke to), to be killed."""

    def __init__(self, image: Path, lock: Path, shake_hands: bool) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, image, lock, "shake" if shake_hands else "not"],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        output: IO[bytes] | None = self.process.stdout
        assert output is not None
        self.server_pid, self.lease_descriptor = json.loads(output.readline())
        self.server = os.pidfd_open(self.server_pid)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def server_ends(self) -> bool:
        poll = select.poll()
        poll.register(self.server, select.POLLIN)
        return bool(poll.poll(TIMEOUT_MS))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        if self.process.stdout:
            self.process.stdout.close()
        if not self.server_ends():
            signal.pidfd_send_signal(self.server, signal.SIGKILL)
        os.close(self.server)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make(tmp_path / "image", MIB)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "lock"
    path.touch()
    return path


@pytest.mark.parametrize("shake_hands", [True, False], ids=["in use", "before the handshake"])
def test_a_server_ends_when_its_client_is_killed(image: Path, lock: Path, shake_hands: bool) -> None:
    """SIGKILL of the client, also before it has spoken to its server, ends the server and frees the image's lock."""
    with Client(image, lock, shake_hands) as client:
        client.kill()
        assert client.server_ends()
        QemuImageTool().open_session([qcow2(image)], writable=True, direct=False).close()


def test_a_lease_lives_as_long_as_the_writer(image: Path, lock: Path) -> None:
    """The lease of a killed client stays held while its server, here stopped, may still write; then it is free.
    That also holds for a lease with the descriptor number that the server's socket gets."""
    with Client(image, lock, shake_hands=True) as client:
        assert client.lease_descriptor == 3
        signal.pidfd_send_signal(client.server, signal.SIGSTOP)
        client.kill()
        assert OfdLeases().held(str(lock), 7)
        signal.pidfd_send_signal(client.server, signal.SIGCONT)
        assert client.server_ends()
        assert not OfdLeases().held(str(lock), 7)


def test_readers_get_no_lease(image: Path, lock: Path) -> None:
    """A process that only reads does not keep the lease."""
    lease = OfdLeases().try_acquire(str(lock), 7, shared=False)
    assert lease is not None
    session = QemuImageTool([lease.descriptor]).open_session([qcow2(image)], writable=False, direct=False)
    lease.release()
    assert not OfdLeases().held(str(lock), 7)
    session.close()


def children() -> list[str]:
    """Processes, also dead ones, whose parent we are."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def test_close_ends_the_server_and_leaves_nothing(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session has no name in the file system while it is open; closed, no process and no descriptor is left."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    before = (children(), os.listdir("/proc/self/fd"))
    session = QemuImageTool().open_session([qcow2(image)], writable=True, direct=False)
    assert os.listdir(tmp_path / "temporary") == []
    assert len(children()) == len(before[0]) + 1
    session.write(0, b"data")
    session.close()
    session.close()
    assert (children(), os.listdir("/proc/self/fd")) == before


def test_a_failed_open_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a process nor a descriptor nor a name is left when the server refuses its arguments."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "noise").write_bytes(b"no image")
    before = (children(), os.listdir("/proc/self/fd"))
    with pytest.raises(ToolFailed, match="not in qcow2 format"):
        QemuImageTool().open_session([qcow2(tmp_path / "noise")], writable=True, direct=False)
    assert (children(), os.listdir("/proc/self/fd")) == before
    assert os.listdir(tmp_path / "temporary") == []


def test_what_opens_later_is_open_at_its_first_use(image: Path, tmp_path: Path) -> None:
    """A reader that may open later reads as another one; where it cannot be opened its first use says so, every later
    one too; and nothing is left of one that nobody used."""
    before = (children(), os.listdir("/proc/self/fd"))
    tool = QemuImageTool()
    session = tool.open_session([qcow2(image)], writable=False, direct=False, later=True)
    assert session.read(0, 4096) == bytes(4096) and session.size >= 4096
    session.close()
    tool.open_session([qcow2(image)], writable=False, direct=False, later=True).close()
    (tmp_path / "noise").write_bytes(b"no image")
    failing = tool.open_session([qcow2(tmp_path / "noise")], writable=False, direct=False, later=True)
    for _ in range(2):
        with pytest.raises(ToolFailed, match="not in qcow2 format"):
            failing.read(0, 512)
    failing.close()
    assert (children(), os.listdir("/proc/self/fd")) == before


def test_a_temporary_directory_may_have_a_long_name(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of 107 bytes for a socket's name does not matter; a directory that is missing is told."""
    long = tmp_path / ("x" * 150)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    QemuImageTool().open_session([qcow2(image)], writable=True, direct=False).close()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    with pytest.raises(ToolFailed, match="No such file"):
        QemuImageTool().open_session([qcow2(image)], writable=True, direct=False)


def test_a_server_that_is_killed_is_reported(image: Path) -> None:
    """When the server dies the next call says so, and close still works."""
    session = QemuImageTool().open_session([qcow2(image)], writable=True, direct=False)
    assert isinstance(session, NbdSession)
    server = session._server
    assert isinstance(server, QemuNbd)
    os.kill(server.pid, signal.SIGKILL)
    with pytest.raises(ToolFailed, match=f"{image} is gone"):
        session.read(0, 4096)
        session.read(0, 4096)
    session.close()
    assert server.exit_code == -signal.SIGKILL
