"""The network of the lab, and the NFS server in it."""

from __future__ import annotations

import threading

from sim.lab import Guest
from sim.lab.cluster import MOUNT, Cluster

_SERVE = """
import socket
with socket.create_server(("", 7)) as server:
    print("up", flush=True)
    connection, _ = server.accept()
    with connection:
        connection.sendall(b"hello")
"""
_ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], 7), timeout=float(sys.argv[2])) as connection:
    print(connection.recv(100).decode())
"""


def test_a_pulled_cable_stops_the_packets(host: Guest, other: Guest):
    """Nothing arrives at a host whose cable is pulled; commands do, and packets again when it is plugged in."""
    listens = threading.Event()
    server = other.begin(["python3", "-c", _SERVE], on_output=lambda kind, said: listens.set())
    assert listens.wait(60)
    other.cut()
    assert host.python(_ASK, "host-b", "1", check=False).code == 1
    assert other.run(["echo", "here"]).stdout == "here\n"
    other.mend()
    assert host.python(_ASK, "host-b", "60").stdout == "hello\n"
    server.checked(60)


def test_both_hosts_see_one_export(cluster: Cluster, host: Guest, other: Guest):
    """It is NFS 4.2, and what one writes and closes the other reads when it opens."""
    assert "vers=4.2" in host.run(["grep", MOUNT, "/proc/mounts"]).stdout
    host.run(["sh", "-c", f"rm -f {MOUNT}/* 2>/dev/null; echo one >{MOUNT}/from-a"])
    assert other.run(["sh", "-c", f"ls {MOUNT} >/dev/null; cat {MOUNT}/from-a"]).stdout == "one\n"


def test_a_restarted_server_goes_on(cluster: Cluster, host: Guest):
    """Clients wait for a server that is stopped and started, and for one that died and booted: nothing is lost."""
    assert cluster.nfs is not None
    host.run(["sh", "-c", f"echo before >{MOUNT}/kept && sync -f {MOUNT}"])
    cluster.nfs.restart()
    assert host.run(["cat", f"{MOUNT}/kept"]).stdout == "before\n"
    cluster.nfs.guest.kill()
    waiting = host.begin(["sh", "-c", f"echo after >{MOUNT}/later; cat {MOUNT}/kept {MOUNT}/later"])
    cluster.boot(cluster.nfs.guest.name)
    assert waiting.checked(120).stdout == "before\nafter\n"


def test_a_withdrawn_export_is_stale(cluster: Cluster, host: Guest):
    """Clients get ESTALE until it is offered again."""
    assert cluster.nfs is not None
    cluster.nfs.withdraw()
    try:
        assert "Stale file handle" in host.run(["ls", MOUNT], check=False).stderr
    finally:
        cluster.nfs.offer()
    host.run(["ls", MOUNT])


def test_volume_groups_are_seen_by_all_hosts(host: Guest, other: Guest):
    """LVM works without udev: what one host makes on the shared disk the other lists and activates."""
    host.run(["sh", "-c", "wipefs -qa /dev/ubda; pvcreate -qff -y /dev/ubda && vgcreate -q lab /dev/ubda"])
    host.run(["sh", "-c", "lvcreate -q -y -an -L 8M -n one lab"])
    assert other.run(["lvs", "--noheadings", "-o", "lv_name", "lab"]).stdout.split() == ["one"]
    other.run(["sh", "-c", "lvchange -ay lab/one && test -b /dev/lab/one && lvchange -an lab/one"])
    host.run(["sh", "-c", "vgremove -q -f lab && pvremove -q /dev/ubda"])
