"""The usual lab: hosts with one shared disk, and on request an NFS server whose export all of them mount."""

from __future__ import annotations

import string
from typing import Any

from engine.errors import BadRequest
from sim.lab.guest import Guest
from sim.lab.lab import MAX_GUESTS, Lab
from sim.lab.needs import require
from sim.lab.nfs import EXPORT, NfsServer

SERVER = "server"
MOUNT = "/srv/nfs"
SHARED = "/dev/ubda"
"""The disk that all hosts share."""
PRIVATE = "/dev/ubdb"
"""The disk that each has for itself."""
SHARED_TOO = "/dev/ubdc"
"""Another disk that all hosts share."""
DEFAULT_DISK_BYTES = 2 << 30
MIN_DISK_BYTES = 64 << 20
MAX_HOSTS = min(26, MAX_GUESTS - 1)


def host_names(count: int) -> list[str]:
    """host-a, host-b, …"""
    if not 1 <= count <= MAX_HOSTS:
        raise BadRequest(f"a lab has 1 to {MAX_HOSTS} hosts, not {count}")
    return [f"host-{letter}" for letter in string.ascii_lowercase[:count]]


def check_disk(size_bytes: int) -> None:
    """BadRequest for a disk that is too small to be of use."""
    if size_bytes < MIN_DISK_BYTES:
        raise BadRequest(f"a disk of the lab has at least {MIN_DISK_BYTES >> 20} MiB")


class Cluster:
    """Hosts in a lab, all alike; the server is not one of them. ``mounted``: they mount the export at ``MOUNT``."""

    def __init__(
        self,
        lab: Lab,
        names: list[str],
        nfs: bool = False,
        disk_bytes: int = DEFAULT_DISK_BYTES,
        memory: str = "512M",
        mounted: bool = True,
    ) -> None:
        check_disk(disk_bytes)
        require(*(("lvm", "nfs", "file systems") if nfs else ("lvm", "file systems")))
        self.lab = lab
        self.nfs: NfsServer | None = None
        self._mounted = mounted
        if nfs:
            guest = lab.add(SERVER, [lab.disk("export", disk_bytes)], memory)
            self.nfs = NfsServer(guest, "/dev/ubda")
        shared = lab.disk("shared", disk_bytes, shared=True)
        too = lab.disk("shared-too", disk_bytes, shared=True)
        self.hosts = [lab.add(name, [shared, lab.disk(f"{name}-private", disk_bytes), too], memory) for name in names]

    def up(self) -> None:
        """Boot what is off, all at once; then serve and mount. LabError when one does not come up."""
        guests = [*self.hosts, *([self.nfs.guest] if self.nfs else [])]
        off = [guest for guest in guests if guest.state == "off"]
        self.lab.boot_all(off)
        if self.nfs and self.nfs.guest in off:
            self.nfs.start()
        for host in self.hosts:
            if self.nfs and host in off:
                self._mount(host)

    def boot(self, name: str) -> Guest:
        """Boot one that is off and bring it to where it was: the server serves, a host has its mount."""
        guest = self.lab.guest(name)
        guest.boot()
        if self.nfs and guest is self.nfs.guest:
            self.nfs.start()
        elif self.nfs and self.nfs.guest.state == "running":
            self._mount(guest)
        return guest

    def _mount(self, host: Guest) -> None:
        assert self.nfs is not None
        if self._mounted:
            self.nfs.mount(host, MOUNT)

    def status(self) -> list[dict[str, Any]]:
        """Name, state, address, boot_id ("" when off), what it is and its disks, of each guest."""
        return [
            {
                "name": guest.name,
                "state": guest.state,
                "address": guest.address,
                "cut": guest.cable_cut,
                "boot_id": guest.facts.get("boot_id", "") if guest.state in ("running", "frozen") else "",
                "role": "nfs server" if self.nfs and guest is self.nfs.guest else "host",
                "disks": [disk.path for disk in guest.disks],
                "console": guest.log_path,
            }
            for guest in self.lab.guests.values()
        ]

    @property
    def export(self) -> str:
        """What a host mounts: address and path."""
        return f"{self.nfs.guest.address}:/" if self.nfs else ""


__all__ = ["EXPORT", "MOUNT", "PRIVATE", "SERVER", "SHARED", "SHARED_TOO", "Cluster", "host_names"]
