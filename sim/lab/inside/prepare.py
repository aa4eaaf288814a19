"""Makes a freshly booted kernel a host: private directories, devices, names, network, LVM without udev.

The root is this machine's file tree, read-only. Whatever programs write to goes to memory, except
``/run/lab/keep`` (the host's own, survives its death) and ``/run/lab/share`` (the outside sees it).
"""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import termios
import tty
from typing import Any

MASKED = ("/run", "/tmp", "/srv", "/mnt", "/media", "/var/tmp", "/var/lib/nfs")
KEEP = "/run/lab/keep"
SHARE = "/run/lab/share"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_MS_RDONLY, _MS_BIND = 1, 4096
_NODES = {"/dev/loop-control": (10, 237), "/dev/mapper/control": (10, 236), "/dev/fuse": (10, 229)}
"""The kernel loads the module when one of these is opened; on other hosts udev makes them."""
_MODULES = "/run/lab/modules"
_LVM_CONFIG = """\
activation { udev_sync=0 udev_rules=0 monitoring=0 }
devices {
    obtain_device_list_from_udev=0 external_device_info_source="none" use_devicesfile=0
    types=["ubd", 16] scan=["/dev"] global_filter=["a|^/dev/ubd|", "a|^/dev/loop|", "a|^/dev/mapper/lab-|", "r|.*|"]
}
global { use_lvmpolld=0 use_lvmlockd=0 }
backup { backup=0 archive=0 }
"""
_MODPROBE = f"""\
#!/bin/sh
exec /sbin/modprobe -d {_MODULES} "$@"
"""


def prepare(config: dict[str, Any]) -> dict[str, Any]:
    """Do all of it; returns the facts that the lab wants to know."""
    _mounts(config)
    _own_files(config)
    _modules()
    _network(config)
    os.environ.clear()
    os.environ.update(_environment(config))
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
        boot_id = stream.read().strip()
    return {"boot_id": boot_id, "release": os.uname().release, "pid": os.getpid()}


def open_line() -> int:
    """The serial line, raw. It is this process's own: no program inherits it."""
    line = os.open("/dev/ttyS0", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    tty.setraw(line, termios.TCSANOW)
    return line


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2); OSError names the target."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)


def _mounts(config: dict[str, Any]) -> None:
    mount("proc", "/proc", "proc")
    mount("sys", "/sys", "sysfs")
    for folder, kind in (("/dev/pts", "devpts"), ("/dev/shm", "tmpfs")):
        os.makedirs(folder, exist_ok=True)
        mount(kind, folder, kind)
    _fewer_nodes()
    for folder in filter(os.path.isdir, MASKED):
        mount("tmpfs", folder, "tmpfs", 0, "mode=1777" if folder.endswith("tmp") else "mode=755")
    for target, source in ((KEEP, config["keep"]), (SHARE, config["share"])):
        os.makedirs(target)
        mount("none", target, "hostfs", 0, source)
    for folder in config["expose"]:
        if not os.path.exists(folder):  # it is below one of those that have just been masked
            os.makedirs(folder)
            mount("none", folder, "hostfs", _MS_RDONLY, folder)
    for folder in ("/run/lock", "/run/sanlock", "/run/lvm", "/run/rpcbind", f"{KEEP}/home", f"{KEEP}/state"):
        os.makedirs(folder, exist_ok=True)
    _nfs_folders()


def _fewer_nodes() -> None:
    """LVM looks at every device node in every command, which costs more than all else it does."""
    for name in os.listdir("/dev"):
        if name.startswith("tty") and name not in ("tty", "ttyS0"):
            os.unlink(f"/dev/{name}")


def _nfs_folders() -> None:
    if os.path.ismount("/var/lib/nfs"):
        for name in ("v4recovery", "rpc_pipefs", "sm", "sm.bak", "nfsdcld"):
            os.mkdir(f"/var/lib/nfs/{name}")
        for name in ("etab", "rmtab", "xtab"):
            _write(f"/var/lib/nfs/{name}", "")


def _own_files(config: dict[str, Any]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    name = config["name"].encode()
    libc.sethostname(name, len(name))
    os.mkdir("/run/lab/etc")
    os.mkdir("/run/lab/lvm")
    _write("/run/lab/lvm/lvm.conf", _LVM_CONFIG)
    for path, text in (
        ("/etc/machine-id", f"{config['machine_id']}\n"),
        ("/etc/hostname", f"{config['name']}\n"),
        ("/etc/hosts", config["hosts"]),
    ):
        _cover(path, _write(f"/run/lab/etc/{os.path.basename(path)}", text))
    _cover("/etc/lvm", "/run/lab/lvm")


def _cover(path: str, ours: str) -> None:
    """Show our file or directory in the place of the machine's, where it has one."""
    if os.path.exists(path):
        mount(ours, path, "none", _MS_BIND)


def _modules() -> None:
    """Modules are loaded by the kernel, when something asks for them."""
    os.makedirs(f"{_MODULES}/lib/modules")
    release = os.uname().release
    os.symlink(f"/usr/lib/uml/modules/{release}", f"{_MODULES}/lib/modules/{release}")
    helper = _write("/run/lab/modprobe", _MODPROBE)
    os.chmod(helper, 0o755)
    _write("/proc/sys/kernel/modprobe", helper)
    os.makedirs("/dev/mapper", exist_ok=True)
    for path, numbers in _NODES.items():
        if not os.path.exists(path):
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(*numbers))


def _network(config: dict[str, Any]) -> None:
    subprocess.run([_program("modprobe"), "-d", _MODULES, "ipv6"], check=True)
    commands = [
        "link set lo up",
        f"link set vec0 address {config['mac']}",
        f"address add {config['address']}/24 dev vec0",
        f"address add {config['address6']}/64 dev vec0 nodad",
        "link set vec0 up",
    ]
    subprocess.run([_program("ip"), "-batch", "-"], input="\n".join(commands).encode() + b"\n", check=True)


def _program(name: str) -> str:
    return next(path for folder in PATH.split(":") if os.path.exists(path := f"{folder}/{name}"))


def _environment(config: dict[str, Any]) -> dict[str, str]:
    return {
        "PATH": f"{os.path.dirname(config['executable'])}:{PATH}",
        "HOME": f"{KEEP}/home",
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
        "PYTHONPATH": config["root"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "LVM_SYSTEM_DIR": "/run/lab/lvm",
        "MODPROBE_OPTIONS": f"-d {_MODULES}",
        "DISKWRIGHT_HOST": config["name"],
        "DISKWRIGHT_STATE": f"{KEEP}/state",
    }


def _write(path: str, text: str) -> str:
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
    return path
