"""Where a repository on NFS is: its connection parameters, checked, and the mount options that it needs.

Nothing here has an effect. Parameters are hostile text: what is not known to be harmless is refused,
and nothing of them can become another mount option or an argument of a program.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import NamedTuple

from engine.data.records import canonical
from engine.errors import BadRequest

MOUNTS = "/run/diskwright/nfs"
"""Directory in which the engine mounts. A restart of the host leaves nothing of it."""

_MAX_PATH_BYTES = 1024  # NFS4_MAXPATHLEN of Linux's mount data, less the server
_SERVER = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?\Z|\[[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._-]{1,32})?\]\Z"
)
_NUMBER = r"[1-9][0-9]{0,8}"
_FOURS = r"4(?:\.[0-2])?"

# Not among them, because they would break what the format relies on: nolock and local_lock (leases would be this
# host's own), versions below 4 (locks outlive a dead host), ro, lookupcache, nocto and the ac* times (a name that
# another host made would stay unseen).
_OPTIONS = {
    "vers": _FOURS,
    "nfsvers": _FOURS,
    "minorversion": "[0-2]",
    "proto": "tcp6?|rdma6?",
    "port": _NUMBER,
    "sec": "sys|krb5[ip]?",
    "xprtsec": "none|m?tls",
    "clientaddr": r"[0-9A-Fa-f:.]{2,45}",
    "timeo": _NUMBER,
    "retrans": _NUMBER,
    "rsize": _NUMBER,
    "wsize": _NUMBER,
    "nconnect": _NUMBER,
    "max_connect": _NUMBER,
    "acl": "",
    "noacl": "",
    "hard": "",
    "soft": "",
    "resvport": "",
    "noresvport": "",
    "sharecache": "",
    "nosharecache": "",
    "sync": "",
}
"""Options that an operator may add, each with the pattern of its value ("" for no value)."""

_DEFAULTS = (
    ("vers=4", ("vers", "nfsvers", "minorversion")),  # the highest minor version that both know; never 3
    # A call that the server does not answer for 30 seconds is an error (EIO). Not softerr, whose error would be a
    # clearer one: it comes with softreval, which lets what is remembered count while the server is away, no option
    # of Linux 6.1 prevents that, and opening a file did not fail within minutes (measured).
    ("soft", ("hard", "soft")),
    ("timeo=100", ("timeo",)),
    ("retrans=2", ("retrans",)),
    # A name that was not there is asked for again: by default it stays "not there" for up to a minute (measured).
    ("lookupcache=positive", ()),
    ("nosuid", ()),
    ("nodev", ()),
    ("noexec", ()),
    ("retry=0", ()),  # of mount.nfs: else it tries for two minutes
)
"""Option, and the operator's options that replace it."""


class Place(NamedTuple):
    """A directory on NFS. Either ``server`` and what follows, or ``path`` inside a mount of the operator's."""

    server: str = ""
    export: str = ""
    directory: str = ""
    """Path below the export, "" for the export itself."""
    options: tuple[str, ...] = ()
    """Mount options that the operator added."""
    path: str = ""

    @property
    def source(self) -> str:
        """Return what is mounted, such as "server:/export"."""
        return f"{self.server}:{self.export}"

    @property
    def shown(self) -> str:
        """Return the place as messages name it."""
        below = f"/{self.directory}" if self.directory else ""
        return self.path or f"{self.source.removesuffix('/') if below else self.source}{below}"

    @property
    def mount_options(self) -> str:
        """Return all options of the mount."""
        given = {option.partition("=")[0] for option in self.options}
        kept = [option for option, replaced_by in _DEFAULTS if not given & set(replaced_by)]
        return ",".join([*kept, *self.options])

    def mount_point(self, host_id: str) -> str:
        """Return where the export is mounted: another directory for each repository and each host of this machine, so
        nobody's disconnecting touches the mount of another."""
        key = canonical([host_id, self.server, self.export, self.directory, list(self.options)])
        return f"{MOUNTS}/{blake2b(key, digest_size=16).hexdigest()}"

    def root(self, host_id: str) -> str:
        """Return the directory of the repository on this host."""
        if self.path:
            return self.path
        return "/".join(filter(None, [self.mount_point(host_id), self.directory]))


def parse(parameters: dict[str, object]) -> Place:
    """Return what connection parameters of an nfs repository say, or raise BadRequest."""
    if set(parameters) == {"path"}:
        return Place(path=_absolute(parameters["path"], "path"))
    if not {"server", "export"} <= set(parameters) <= {"server", "export", "directory", "options"}:
        given = ", ".join(sorted(map(str, parameters))) or "none"
        raise BadRequest(
            f"an nfs repository takes server and export (and may take directory and options), or path alone; "
            f"given: {given:.200}"
        )
    server = parameters["server"]
    if not isinstance(server, str) or _SERVER.match(server) is None:
        raise BadRequest(
            f"server {server!r:.100} is neither a host name nor an address", "Put an IPv6 address in brackets"
        )
    export = _absolute(parameters["export"], "export", root_too=True)
    directory = _relative(parameters.get("directory", ""))
    return Place(server, export, directory, _options(parameters.get("options", "")))


def _absolute(text: object, name: str, root_too: bool = False) -> str:
    if not isinstance(text, str) or not text.startswith("/"):
        raise BadRequest(f"{name} {text!r:.200} is not an absolute path")
    parts = _parts(text, name)
    if not parts and not root_too:
        raise BadRequest(f"{name} {text!r:.200} does not name a directory of its own")
    return "/" + "/".join(parts)


def _relative(text: object) -> str:
    if not isinstance(text, str) or text.startswith("/"):
        raise BadRequest(f"directory {text!r:.200} is not a path below the export", "Give it without a leading slash")
    return "/".join(_parts(text, "directory"))


def _parts(text: str, name: str) -> list[str]:
    parts = [part for part in text.split("/") if part]
    if "." in parts or ".." in parts:
        raise BadRequest(f"{name} {text!r:.200} does not plainly name a directory", "Give it without . and ..")
    # Lines of the kernel's list of mounts are split at white space; it escapes that, and nothing else is needed here.
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise BadRequest(f"{name} {text!r:.200} has control characters", "Rename the directory")
    try:
        length = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise BadRequest(f"{name} {text!r:.200} is not valid UTF-8", "Rename the directory") from None
    if length > _MAX_PATH_BYTES:
        raise BadRequest(f"{name} {text!r:.80}… has {length} bytes, more than {_MAX_PATH_BYTES}")
    return parts


def _options(text: object) -> tuple[str, ...]:
    if not isinstance(text, str):
        raise BadRequest(f"options {text!r:.100} is not text such as timeo=600,rsize=65536")
    found = tuple(filter(None, text.split(",")))
    for option in found:
        name, equals, value = option.partition("=")
        wanted = _OPTIONS.get(name)
        good = wanted is not None and bool(equals) == bool(wanted) and re.fullmatch(wanted, value) is not None
        if not good:
            raise BadRequest(
                f"mount option {option!r:.100} is not allowed here", f"Allowed: {', '.join(sorted(_OPTIONS))}"
            )
    return found
