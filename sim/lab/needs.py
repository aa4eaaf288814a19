"""What the lab needs of this machine, and the Debian packages that have it."""

from __future__ import annotations

import glob
import os
import shutil

from engine.errors import ToolMissing

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PACKAGES = {
    "linux.uml": "user-mode-linux",
    "modprobe": "kmod",
    "ip": "iproute2",
    "mount": "mount",
}
_LVM = {"lvm": "lvm2", "dmsetup": "dmsetup", "sanlock": "sanlock"}
_NFS = {
    "rpc.nfsd": "nfs-kernel-server",
    "exportfs": "nfs-kernel-server",
    "mount.nfs4": "nfs-common",
    "rpcbind": "rpcbind",
}
_FILE_SYSTEMS = {"mkfs.ext4": "e2fsprogs", "mkfs.xfs": "xfsprogs"}
_ROLES = {"": {}, "lvm": _LVM, "nfs": _NFS, "file systems": _FILE_SYSTEMS}
_MODULES = "/usr/lib/uml/modules/*/modules.dep"


def find(program: str) -> str | None:
    """Path of a program, also of one that only root has in its PATH."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_PATH}")


def missing_packages(*roles: str) -> list[str]:
    """Debian packages that are not installed; roles: lvm, nfs, file systems (a host alone needs none of them)."""
    wanted = dict(_PACKAGES)
    for role in roles:
        wanted |= _ROLES[role]
    missing = {package for program, package in wanted.items() if find(program) is None}
    if not glob.glob(_MODULES):
        missing.add("user-mode-linux")
    return sorted(missing)


def require(*roles: str) -> None:
    """ToolMissing that names the packages, unless everything is there."""
    missing = missing_packages(*roles)
    if missing:
        raise ToolMissing(
            f"the lab needs what is not installed here: {', '.join(missing)}",
            f"As root: apt-get install --no-install-recommends {' '.join(missing)}",
        )


def kernel() -> str:
    """Path of the guests' kernel; ToolMissing when there is none."""
    require()
    found = find("linux.uml")
    assert found is not None
    return found


def modules() -> str:
    """The directory with the kernel's modules; its name is the kernel's release."""
    return os.path.dirname(sorted(glob.glob(_MODULES))[-1])
