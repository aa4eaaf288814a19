"""A disk that was used on one host, used on another: real LVM, and qemu's own program on the path that prepare gave."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from sim.lab import Guest
from sim.lab.cluster import SHARED, Cluster

REPO = "san"
GROUP = "moved"
DISK_BYTES = 6 << 20
OLD = ((0x11, 0, 1 << 20), (0x22, 3 << 20, 65536), (0x33, DISK_BYTES - 4096, 4096))
NEW = ((0x44, 512 << 10, 1 << 20), (0x55, 5 << 20, 4096))
"""(byte, start, length); some of the new ones lie over old ones."""

Piece = tuple[int, int, int]


class Disk:
    """A disk in the repository, by id."""

    def __init__(self, image: str) -> None:
        self.image = image

    def used(self, host: Guest, *commands: str) -> str:
        """Run commands of qemu-io on the prepared disk, as its machine would; then it is released. Its format."""
        prepared = json.loads(host.diskwright("prepare", REPO, self.image, "--json").stdout)
        path, format = str(prepared["path"]), str(prepared["format"])
        try:
            words = [word for command in commands for word in ("-c", command)]
            done = host.run(["qemu-io", "-f", format, *words, path], check=False)
            assert done.code == 0 and "verification failed" not in done.stdout, done
        finally:
            host.diskwright("teardown", REPO, self.image)
        return format


def writes(pieces: tuple[Piece, ...]) -> list[str]:
    return [*(f"write -P {byte} {start} {length}" for byte, start, length in pieces), "flush"]


def content(*layers: tuple[Piece, ...]) -> bytes:
    """What the disk has after these writes; zeros elsewhere."""
    data = bytearray(DISK_BYTES)
    for byte, start, length in (piece for pieces in layers for piece in pieces):
        data[start : start + length] = bytes([byte]) * length
    return bytes(data)


def reads(data: bytes) -> list[str]:
    """Commands that compare all of it, in runs of one byte."""
    found, start = [], 0
    while start < len(data):
        rest = data[start:]
        length = len(rest) - len(rest.lstrip(rest[:1]))
        found.append(f"read -P {rest[0]} {start} {length}")
        start += length
    return found


@pytest.fixture
def pair(cluster: Cluster, host: Guest, other: Guest) -> Iterator[tuple[Guest, Guest]]:
    """Two hosts with a repository on a shared disk; the first manages it."""
    host.run(["sh", "-c", f"wipefs -qa {SHARED}"])
    host.diskwright("create-repo", "lvm-1.0", f"volume_group={GROUP}", f"devices={SHARED}")
    for guest in (host, other):
        guest.diskwright("connect", REPO, "lvm-1.0", f"volume_group={GROUP}")
    yield host, other
    for guest in (host, other):
        guest.diskwright("disconnect", REPO, check=False)
    other.run(["sh", "-c", f"vgremove -q -f {GROUP}; wipefs -qa {SHARED}"], check=False)


def test_what_a_machine_wrote_on_one_host_it_reads_on_another(pair: tuple[Guest, Guest]):
    """A raw disk, and a qcow2 one above a snapshot, are prepared, written through qemu-io and released. The role of
    manager moves; on the other host qemu-io reads every byte of them through the paths of that host, and an export
    has the same bytes."""
    first, second = pair
    made = [first.diskwright("create-disk", REPO, str(DISK_BYTES), "--strategy", "performance") for _ in range(2)]
    raw, overlaid = (Disk(done.stdout.strip()) for done in made)
    for disk in (raw, overlaid):
        assert disk.used(first, *writes(OLD)) == "raw"
    first.diskwright("create-snapshot", REPO, overlaid.image, "--strategy", "space")
    assert overlaid.used(first, *writes(NEW)) == "qcow2"
    first.diskwright("srm", "release", REPO)
    second.diskwright("srm", "take", REPO)
    assert raw.used(second, *reads(content(OLD))) == "raw"
    assert overlaid.used(second, *reads(content(OLD, NEW))) == "qcow2"
    for disk, data in ((raw, content(OLD)), (overlaid, content(OLD, NEW))):
        second.diskwright("export", REPO, disk.image, "/tmp/out.raw", "--format", "raw")
        assert second.run(["cat", "/tmp/out.raw"]).output == data
        second.run(["rm", "/tmp/out.raw"])
