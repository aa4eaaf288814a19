"""An NFS server in a guest, and its clients. NFS 4.2 only, as the engine wants it.

The server remembers its clients in ``/run/lab/keep``, so after its death and a new boot they can reclaim
their locks within the grace time.
"""

from __future__ import annotations

from sim.lab.channel import Done
from sim.lab.guest import Guest
from sim.lab.needs import require

EXPORT = "/srv/export"
_START_TIMEOUT_S = 60.0
_OPTIONS = "rw,no_root_squash,insecure,fsid=0,no_subtree_check"

_START = """\
set -e
device=$1 kind=$2 lease=$3 grace=$4
mkdir -p /srv/export /run/lab/keep/nfsdcld
if ! mountpoint -q /srv/export; then
    if [ "$device" = tmpfs ]; then
        mount -t tmpfs tmpfs /srv/export
    else
        blkid -p "$device" >/dev/null || mkfs."$kind" -q "$device"
        mount "$device" /srv/export
    fi
fi
mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd
mountpoint -q /var/lib/nfs/rpc_pipefs || mount -t rpc_pipefs rpc_pipefs /var/lib/nfs/rpc_pipefs
mountpoint -q /var/lib/nfs/nfsdcld || mount --bind /run/lab/keep/nfsdcld /var/lib/nfs/nfsdcld
pidof nfsdcld >/dev/null || nfsdcld
pidof rpcbind >/dev/null || rpcbind -w
exportfs -i -o "$5" '*:/srv/export'
pidof rpc.mountd >/dev/null || rpc.mountd -N 2 -N 3
if [ "$(cat /proc/fs/nfsd/threads)" = 0 ]; then
    echo "$lease" >/proc/fs/nfsd/nfsv4leasetime
    echo "$grace" >/proc/fs/nfsd/nfsv4gracetime
    rpc.nfsd -N 3 8
fi
"""
_STOP = "rpc.nfsd 0"
_WITHDRAW = "exportfs -u '*:/srv/export' && exportfs -f"
_OFFER = "exportfs -i -o \"$1\" '*:/srv/export'"


class NfsServer:
    """A guest that exports one directory; ``device`` is a disk of it (formatted when it is empty) or ``tmpfs``.
    After the guest has died: boot it, then ``start``."""

    def __init__(
        self, guest: Guest, device: str = "tmpfs", file_system: str = "ext4", lease_s: int = 10, grace_s: int = 10
    ) -> None:
        require("nfs")
        self.guest = guest
        self._arguments = (device, file_system, str(lease_s), str(grace_s), _OPTIONS)

    def start(self) -> None:
        """Mount the storage and serve it. Idempotent; CommandFailed says what went wrong."""
        self._do(_START, *self._arguments)

    def stop(self) -> None:
        """Stop serving; the storage stays mounted. Clients wait, or get errors if they are mounted so."""
        self._do(_STOP)

    def restart(self) -> None:
        """Stop and start: clients reclaim what they hold, in the grace time."""
        self.stop()
        self.start()

    def withdraw(self) -> None:
        """The export is gone: clients get ESTALE."""
        self._do(_WITHDRAW)

    def offer(self) -> None:
        """Export it again."""
        self._do(_OFFER, _OPTIONS)

    def mount(self, client: Guest, path: str, options: str = "vers=4.2") -> None:
        """Mount the export in another guest; makes the directory."""
        client.run(["mkdir", "-p", path])
        client.run(["mount", "-t", "nfs4", "-o", options, f"{self.guest.address}:/", path])

    def _do(self, script: str, *arguments: str) -> Done:
        return self.guest.run(["/bin/sh", "-c", script, "sh", *arguments], timeout_s=_START_TIMEOUT_S)
