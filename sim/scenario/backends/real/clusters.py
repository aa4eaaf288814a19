"""The machines that scenarios of the lab are played on: one cluster, used by one scenario after the other, for each
thread that plays some.

Where things are in a guest: ``/srv/local`` is ext4 on the host's own disk (repositories of the format for local
files, image files), ``/run/lab/keep/scenario`` what the host notes for itself.
"""

from __future__ import annotations

import atexit
import shutil
from threading import get_ident

from engine.errors import Refused
from sim.lab.cluster import PRIVATE, SHARED, SHARED_TOO, Cluster, host_names
from sim.lab.guest import Guest
from sim.lab.lab import Lab
from sim.lab.nfs import EXPORT
from sim.scenario.language.model import Scenario

LOCAL = "/srv/local"
FOLDER = "scenario"
TOP = f"/run/lab/keep/{FOLDER}"
GROUPS = {"scenario": SHARED, "scenario-too": SHARED_TOO}
"""Volume groups that LVM repositories are in, with their devices; on as many as the scenario has such repositories."""
DISK_BYTES = 1 << 30
_FEWEST_HOSTS = 2

_FRESH = f"""\
set -e
umount -q {LOCAL} || true
mkfs.ext4 -qF -m 0 {PRIVATE}
mkdir -p {LOCAL} && mount {PRIVATE} {LOCAL}
mkdir -p {LOCAL}/srv {LOCAL}/scratch
"""
_MOUNT = f"mkdir -p {LOCAL} && mount {PRIVATE} {LOCAL}"
_FRESH_GROUP = """\
set -e
vgremove -qff -y "$1" >/dev/null 2>&1 || true
wipefs -qaf "$2"
pvcreate -qff -y --metadatasize 16m "$2" >/dev/null
vgcreate -q "$1" "$2" >/dev/null
"""

_clusters: dict[int, Cluster] = {}  # by thread


def cluster_for(scenario: Scenario) -> Cluster:
    """The cluster, running, with all that the scenario needs and nothing of the one before; booted when there is none
    yet, or the one there is has too few hosts."""
    nfs = any(plan.format.startswith("nfs") for plan in scenario.repositories)
    found = _clusters.get(get_ident())
    if found and (len(found.hosts) < len(scenario.hosts) or (nfs and not found.nfs)):
        close()
        found = None
    if found is None:
        lab = Lab()
        try:
            names = host_names(max(_FEWEST_HOSTS, len(scenario.hosts)))
            found = Cluster(lab, names, nfs, DISK_BYTES, mounted=False)
            found.up()
        except BaseException:
            lab.close()
            raise
        _clusters[get_ident()] = found
    _refresh(found, scenario)
    return found


def begin_sanlock(guest: Guest) -> None:
    """Start its daemon, without a watchdog: a host that freezes goes on."""
    words = ["sanlock", "daemon", "-w", "0", "-o", "1", "-h", "0", "-l", "0", "-U", "root", "-G", "root"]
    guest.run([*words, "-e", guest.name])


def is_shared(scenario: Scenario) -> bool:
    """Whether its hosts need sanlock."""
    return any(plan.shared for plan in scenario.repositories)


def groups(scenario: Scenario) -> dict[str, str]:
    """The volume group of each repository on LVM; Refused when there are too many."""
    names = [plan.name for plan in scenario.repositories if plan.format.startswith("lvm")]
    if len(names) > len(GROUPS):
        raise Refused(f"the lab has room for {len(GROUPS)} repositories on LVM, not for {len(names)}")
    return dict(zip(names, GROUPS, strict=False))


def close() -> None:
    """Kill this thread's cluster, if there is one."""
    found = _clusters.pop(get_ident(), None)
    if found is not None:
        found.lab.close()


def close_all() -> None:
    """Kill those of all threads."""
    while _clusters:
        _clusters.popitem()[1].lab.close()


atexit.register(close_all)


def _refresh(cluster: Cluster, scenario: Scenario) -> None:
    for guest in cluster.lab.guests.values():
        if guest.cable_cut:
            guest.mend()
        if guest.state == "frozen":
            guest.kill()
    cluster.up()
    for guest in cluster.hosts[: len(scenario.hosts)]:
        shutil.rmtree(f"{guest.keep}/{FOLDER}", ignore_errors=True)
        guest.run(["/bin/sh", "-c", _FRESH])
        guest.run(["mkdir", "-p", *(f"{TOP}/{name}" for name in ("state", "ids", "work"))])
        if is_shared(scenario):
            begin_sanlock(guest)
    for name in groups(scenario).values():
        cluster.hosts[0].run(["/bin/sh", "-c", _FRESH_GROUP, "sh", name, GROUPS[name]])
    if cluster.nfs:
        cluster.nfs.offer()
        cluster.nfs.guest.run(["/bin/sh", "-c", f"rm -rf {EXPORT}/* && chmod 755 {EXPORT}"])


def revive(cluster: Cluster, guest: Guest, shared: bool) -> None:
    """Boot a host that is off, with its disk where it was."""
    cluster.boot(guest.name)
    guest.run(["/bin/sh", "-c", _MOUNT])
    if shared:
        begin_sanlock(guest)
