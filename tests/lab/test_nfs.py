"""Repositories on NFS with real kernels: mounts, leases and fences between hosts, and a server that dies."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import uuid4

import pytest

from sim.lab import Guest
from sim.lab.channel import Running
from sim.lab.cluster import MOUNT, Cluster
from tests.contracts.source import ROOT

FORMAT = "nfs-1.0"
NAME = "main"
SOURCE = "source"
SOURCE_BYTES = 64 << 20
QUICK = "timeo=10,retrans=1"
"""A call that the server does not answer fails after 2 seconds."""
BACK_WITHIN_S = 120.0
"""The pauses of a client of Linux between two attempts to connect grow up to a minute."""


class Told:
    """A program in a guest, line by line."""

    def __init__(self, guest: Guest, what: str, *arguments: str) -> None:
        self._changed = threading.Condition()
        self._output = b""
        self._read = 0
        words = [sys.executable, "-m", "tests.lab.guest_nfs", what, *arguments]
        self.running: Running = guest.begin(
            words, feed=True, cwd=str(ROOT), environment={"PYTHONPATH": str(ROOT)}, on_output=self._hear
        )

    def _hear(self, kind: int, data: bytes) -> None:
        del kind
        with self._changed:
            self._output += data
            self._changed.notify_all()

    def line(self, timeout_s: float = 120) -> Any:
        """Its next line, as JSON."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._output.count(b"\n") > self._read, timeout_s), self._output
            self._read += 1
            text = self._output.split(b"\n")[self._read - 1]
        if text[:1] not in (b'"', b"{", b"[") and not text.isdigit():
            self.end()
            raise AssertionError(self._output.decode())
        return json.loads(text)

    def go(self) -> None:
        self.running.write(b"\n")

    def end(self) -> None:
        if not self.running.ended:
            self.running.close_input()
            self.running.wait(60)


@pytest.fixture
def tell(shared: dict[str, str]) -> Iterator[Callable[..., Told]]:
    """Starts such programs; none outlives the test, for they have the repository open."""
    started: list[Told] = []

    def start(guest: Guest, what: str, *arguments: str) -> Told:
        started.append(Told(guest, what, *arguments))
        return started[-1]

    yield start
    for told in started:
        told.end()


def words(parameters: dict[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in parameters.items()]


def said(guest: Guest, *arguments: str, timeout_s: float = 180) -> Any:
    """The JSON document of a command that succeeds."""
    return json.loads(guest.diskwright("--json", *arguments, timeout_s=timeout_s).stdout)


def said_when_it_answers(guest: Guest, *arguments: str) -> Any:
    """The same right after a server came back: a client connects again only after pauses that have grown meanwhile."""
    deadline = time.monotonic() + BACK_WITHIN_S
    while (done := guest.diskwright("--json", *arguments, check=False)).code:
        assert done.code == 6 and json.loads(done.stdout)["error"]["code"] == "storage-error", done
        assert time.monotonic() < deadline, done
    return json.loads(done.stdout)


def mounts(guest: Guest) -> list[str]:
    """What the engine has mounted there."""
    lines = guest.run(["cat", "/proc/self/mountinfo"]).stdout.splitlines()
    return [line.split()[4] for line in lines if " /run/diskwright/" in line]


def quick_mount(guest: Guest) -> str:
    """Where the engine has what is mounted with QUICK. A mount of another test has the same files on another device."""
    lines = guest.run(["cat", "/proc/self/mountinfo"]).stdout.splitlines()
    return next(line.split()[4] for line in reversed(lines) if " /run/diskwright/" in line and f",{QUICK}," in line)


@pytest.fixture
def place(cluster: Cluster, host: Guest) -> dict[str, str]:
    """Parameters of a new repository."""
    assert cluster.nfs is not None
    server = cluster.nfs.guest.address
    parameters = {"server": server, "export": "/", "directory": f"ü {uuid4().hex}", "options": QUICK}
    host.diskwright("create-repo", FORMAT, *words(parameters))
    return parameters


@pytest.fixture
def shared(cluster: Cluster, place: dict[str, str]) -> Iterator[dict[str, str]]:
    """It is connected as ``main`` on both hosts."""
    for guest in cluster.hosts:
        guest.diskwright("connect", NAME, FORMAT, *words(place))
    yield place
    for guest in cluster.hosts:
        if guest.state == "running":
            guest.diskwright("disconnect", NAME, check=False)


class Source(NamedTuple):
    """A snapshot on the server."""

    parameters: dict[str, str]
    image: str
    digest: str


@pytest.fixture(scope="module")
def kept_source(session_cluster: Cluster) -> Source:
    """A snapshot of 64 MiB in another repository on the server."""
    host = session_cluster.hosts[0]
    assert session_cluster.nfs is not None
    server = session_cluster.nfs.guest.address
    parameters = {"server": server, "export": "/", "directory": uuid4().hex, "options": QUICK}
    host.diskwright("create-repo", FORMAT, *words(parameters))
    host.diskwright("connect", SOURCE, FORMAT, *words(parameters))
    host.run(["sh", "-c", f"head -c {SOURCE_BYTES} /dev/urandom >/tmp/source.raw"])
    disk = said(host, "import", SOURCE, "/tmp/source.raw", "--format", "raw", "--wait")["image"]
    host.run(["rm", "/tmp/source.raw"])
    image = said(host, "create-snapshot", SOURCE, disk)["image"]
    digest = host.diskwright("digest", SOURCE, image).stdout.split()[-1]
    host.diskwright("disconnect", SOURCE)
    return Source(parameters, image, digest)


@pytest.fixture
def source(cluster: Cluster, kept_source: Source) -> Iterator[Source]:
    """Its repository is connected as ``source`` on both hosts."""
    for guest in cluster.hosts:
        guest.diskwright("connect", SOURCE, FORMAT, *words(kept_source.parameters))
    yield kept_source
    for guest in cluster.hosts:
        if guest.state == "running":
            guest.diskwright("disconnect", SOURCE, check=False)


def begun_copy(host: Guest, watcher: Guest, image: str) -> str:
    """Start a copy into ``main`` and return its id once some of it is recorded."""
    copy: str = said(host, "copy", NAME, image)["image"]
    while True:
        found = said(watcher, "status", NAME, copy)
        if found["status"] == "broken" and found["operation"]["percent"] > 0:
            return copy
        assert found["status"] == "broken", f"the copy was finished before it could be disturbed: {found}"


def mended(guest: Guest, image: str) -> None:
    """Run what check offers until the image is usable: leases of a host that is gone are free only after a while."""
    for _ in range(200):
        guest.diskwright("fix", NAME, "--type", "mend", check=False)
        if said(guest, "status", NAME, image)["status"] == "optimized":
            return
    raise AssertionError(f"{image} was not mended: {guest.diskwright('status', NAME, image).stdout}")


def intact(guest: Guest, source: Source) -> None:
    """All of it is read, and is what it was copied from."""
    assert guest.diskwright("digest", NAME, source.image).stdout.split()[-1] == source.digest


def test_a_host_mounts_what_it_needs_and_leaves_nothing(host: Guest, place: dict[str, str]):
    """create-repo leaves no mount, connect makes one, a second spelling is refused and its mount goes, disconnect
    leaves none; a name with a space and a letter that is not ASCII."""
    assert mounts(host) == []
    host.diskwright("connect", NAME, FORMAT, *words(place))
    assert len(mounts(host)) == 1
    disk = said(host, "create-disk", NAME, "10M")["image"]
    host.diskwright("prepare", NAME, disk, "--", "qemu-io", "-f", "qcow2", "-c", "write -P 7 0 1M", "{}")
    host.diskwright("create-snapshot", NAME, disk)
    for other in (place | {"options": ""}, {"path": f"{MOUNT}/{place['directory']}"}):
        refused = host.diskwright("connect", "again", FORMAT, *words(other), check=False)
        assert refused.code == 4 and NAME in refused.stderr, refused
    assert len(mounts(host)) == 1
    constraints = said(host, "constraints", NAME)
    assert (constraints["shared"], constraints["fencing"]) == (True, "nfs4-lock")
    assert constraints["direct_io"] and constraints["hole_punching"]
    host.diskwright("disconnect", NAME)
    assert mounts(host) == []


def test_a_place_that_is_not_to_be_trusted_is_refused(host: Guest, place: dict[str, str]):
    """By path: a local directory. An export and a directory that are not there. No mount is left."""
    for parameters, code in (
        ({"path": "/tmp/x"}, 2),
        (place | {"export": "/none"}, 3),
        (place | {"directory": "none"}, 3),
    ):
        refused = host.diskwright("connect", NAME, FORMAT, *words(parameters), check=False)
        assert refused.code == code, refused
        assert mounts(host) == []


def test_a_mount_that_is_read_only_can_be_read(cluster: Cluster, host: Guest, place: dict[str, str]):
    """What is mounted read-only can be connected and looked at; what would write is refused."""
    assert cluster.nfs is not None
    cluster.nfs.mount(host, "/mnt/ro", "vers=4.2,ro")
    try:
        host.diskwright("connect", NAME, FORMAT, *words({"path": f"/mnt/ro/{place['directory']}"}))
        assert said(host, "images", NAME)["images"] == []
        assert host.diskwright("create-disk", NAME, "1M", check=False).code != 0
    finally:
        host.diskwright("disconnect", NAME, check=False)
        host.run(["umount", "/mnt/ro"])


def test_hosts_that_change_one_record_lose_nothing(
    host: Guest, other: Guest, shared: dict[str, str], tell: Callable[..., Told]
):
    """Two hosts count one number up as fast as they can: each acknowledged change is in the result, and nothing else
    but changes that were reported as unknown."""
    disk = said(host, "create-disk", NAME, "1M", "--user-data", "0")["image"]
    both = [tell(guest, "add", guest.name, json.dumps(shared), disk, "40") for guest in (host, other)]
    for told in both:
        assert told.line() == "ready"
    for told in both:
        told.go()
    done, unknown = (sum(numbers) for numbers in zip(*(told.line() for told in both), strict=True))
    final = int(other.diskwright("user-data", "get", NAME, disk).stdout)
    assert done <= final <= done + unknown and done + unknown == 80


def test_a_change_is_seen_at_once(host: Guest, other: Guest, shared: dict[str, str], tell: Callable[..., Told]):
    """What one host has published, a process of another host that looked just before sees at its next look."""
    disk = said(host, "create-disk", NAME, "1M", "--user-data", "0")["image"]
    reader = tell(other, "seen", "reader", json.dumps(shared), disk)
    assert reader.line() == 0
    for number in range(1, 8):
        host.diskwright("user-data", "set", NAME, disk, str(number))
        reader.go()
        assert reader.line() == number


def test_a_file_on_the_server_is_adopted_by_any_host(host: Guest, other: Guest, shared: dict[str, str]):
    """link(2) and rename(2) through two clients: in use on the other host it is refused; committed on one, it becomes
    an image on the other, by the path that it has there, and its old name is gone on both."""
    name = f"{uuid4().hex}.qcow2"
    here, there = (f"{quick_mount(guest)}/{name}" for guest in (host, other))
    host.run(["qemu-img", "create", "-q", "-f", "qcow2", here, "1M"])
    other.run(
        ["sh", "-c", f"qemu-nbd -f qcow2 -t -k /tmp/adopt.sock {there} >/dev/null 2>&1 & echo $! >/tmp/adopt.pid"]
    )
    other.run(["sh", "-c", "until test -S /tmp/adopt.sock; do sleep 0.1; done"])
    used = host.diskwright("adopt", NAME, here, "--format", "qcow2", check=False)
    assert used.code == 5 and "in use by a process that is not seen from here" in used.stderr
    other.run(["sh", "-c", "kill $(cat /tmp/adopt.pid); while test -d /proc/$(cat /tmp/adopt.pid); do sleep 0.1; done"])
    (made,) = said(host, "adopt", NAME, here, "--format", "qcow2", "--no-auto-fix")["images"]
    (fix,) = said(other, "check", NAME)["fixes"]
    assert fix["rule"] == "B-ADOPT" and "waits" in str(fix)
    other.diskwright("fix", NAME, fix["id"], "--path", there)
    assert said(host, "status", NAME, made["image"])["status"] == "optimized"
    for guest in (other, host):  # listed: a client opens by a name that it remembers, after it is gone
        assert name not in guest.run(["ls", "-a", quick_mount(guest)]).stdout, guest.address


def test_a_frozen_host_is_fenced(
    host: Guest, other: Guest, shared: dict[str, str], source: Source, tell: Callable[..., Told]
):
    """A host is frozen for longer than its leases live; another takes over; the first wakes up. Whatever it has open
    and locked fails for ever with EIO, a session of qemu-nbd too; what it has open without a lock does not, which
    is why there is no such thing. A copy that it was making is finished by the other, and it stops."""
    directory = f"{MOUNT}/{uuid4().hex}"
    make = "mkdir {0} && cd {0} && touch locks locked free && qemu-img create -q -f raw image.raw 1M"
    host.run(["sh", "-c", f"{make.format(directory)} && qemu-img create -q -f qcow2 image.qcow2 1M"])
    holder = tell(host, "hold", directory)
    assert holder.line() == "ready"
    copy = begun_copy(host, other, source.image)
    host.freeze()
    taker = tell(other, "take", directory)
    assert taker.line() == "taken"
    mended(other, copy)
    host.thaw()
    holder.go()
    told = holder.line()
    assert told.pop("free") == ""
    assert len(told) == 5 and all("Input/output error" in words for words in told.values()), told
    reading = tell(other, "read", directory)
    assert reading.line() == {"locked": "b", "free": "z", "raw": "b", "qcow2": "b"}
    ended(host)
    intact(host, source)


def ended(guest: Guest) -> None:
    """Wait until every task of that host has come to its end."""
    for task in said(guest, "tasks")["tasks"]:
        guest.run(["tail", f"--pid={task['pid']}", "-f", "/dev/null"], timeout_s=150)


def test_a_server_that_dies_stops_a_copy_and_it_goes_on(
    cluster: Cluster, host: Guest, other: Guest, shared: dict[str, str], source: Source
):
    """The copy ends with an operating error in bounded time, and so does a command; other repositories are not affected
    meanwhile. When the server is back another host goes on where it was, and disconnecting leaves no mount."""
    copy = begun_copy(host, other, source.image)
    server = cluster.lab.guest("server")
    server.kill()
    looking = host.begin_diskwright(["images", NAME])
    host.diskwright("create-repo", "localfs-1.0", "path=/tmp/local")
    host.diskwright("connect", "local", "localfs-1.0", "path=/tmp/local")
    assert said(host, "images", "local")["images"] == []
    host.diskwright("disconnect", "local")
    failed = looking.wait(150)
    assert failed.code == 6 and failed.stderr, failed
    ended(host)
    cluster.boot(server.name)
    before = said_when_it_answers(other, "status", NAME, copy)
    assert before["status"] == "broken" and before["operation"]["percent"] > 0, before
    mended(other, copy)
    intact(other, source)
    for name in (NAME, SOURCE):
        host.diskwright("disconnect", name)
    assert mounts(host) == []
