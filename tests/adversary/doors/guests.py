"""Sites in a lab: hosts are guests, which die and sleep; their storage is NFS, or volume groups of LVM."""

import contextlib
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from tests.adversary.doors.damage import DAMAGES
from tests.adversary.doors.far import FarHands
from tests.adversary.doors.hands import Gone, Hands
from tests.adversary.doors.labs import EXPORT, MOUNT, Lab
from tests.adversary.doors.places import Files, Place
from tests.adversary.oracle.findings import CannotTry

SERVER = "server"
_SLOW = 6.0  # how many times longer a command takes in a guest
_LOST_S = 14.0  # longer than the server keeps the locks of a host that it does not hear of
_ON_FILES = ("power_cut_xfs", "older_source", "locks", "record_late", "host_sleeps")


class _InLab:
    """Guests of a lab; each has hands that change when it boots."""

    lacks: frozenset[str]
    sparing = True

    def __init__(self, lab: Lab, base: Path, command: str, guests: Mapping[str, str]) -> None:
        """`guests` are the guests by the names of their hosts; `base` is where worlds are."""
        self._lab, self._guests = lab, dict(guests)
        self._agent = [sys.executable, "-m", "tests.adversary.doors.agent", str(base), command, str(_SLOW)]
        self._alone = threading.Lock()
        self._hands = {
            guest: self._reach(guest) for guest in [*self._guests.values(), *([SERVER] if lab.server else [])]
        }

    def hosts(self) -> list[tuple[str, Hands, str]]:
        """Return the hosts with their hands of now."""
        return [(name, self._hands[guest], f"state-{name}") for name, guest in self._guests.items()]

    def kill(self, host: str) -> None:
        """Kill the guest of a host, boot it."""
        self.lose_power([self._guests[host]])

    def sleep(self, host: str) -> None:
        """Freeze the guest of a host until its locks are lost."""
        self._lab.do("freeze", self._guests[host])
        threading.Event().wait(_LOST_S)
        self._lab.do("thaw", self._guests[host])

    def lose_power(self, guests: list[str]) -> None:
        """Kill guests at once, then boot them one after another."""
        with self._alone:
            for guest in guests:
                self._lab.do("kill", guest)
            for guest in guests:
                self._lab.do("boot", guest)
                self._hands[guest] = self._reach(guest)

    def _reach(self, guest: str) -> Hands:
        return FarHands(lambda hear: self._lab.begin(guest, self._agent, hear))


class OnNfs(_InLab):
    """Two guests as two hosts, each a client of a server that is a third."""

    most_images, rounds = 5, 5
    lacks = frozenset(("power_cut_xfs",))
    more: Mapping[str, int] = {"host_dies": 4, "host_sleeps": 3}

    def __init__(self, lab: Lab, base: Path, command: str) -> None:
        super().__init__(lab, base, command, {"anna": "host-a", "bert": "host-b"})

    def place(self, directory: Path, kind: str) -> Place:
        """Make a directory of the export."""
        del kind
        return _Export(self, f"{directory.parent.name}-{directory.name}")

    @property
    def server(self) -> str:
        """The address of the server."""
        return self._lab.server

    def first(self) -> Hands:
        """Return the hands of the first host."""
        return self._hands["host-a"]

    def fill(self) -> None:
        """Leave not one free byte on the server."""
        pieces = """
            for size in 64M 4M 256K 4K; do
                n=0
                while fallocate -l $size "$1/filling-$size-$n-$$" 2>/dev/null; do n=$((n+1)); done
            done"""
        self._hands[SERVER].shell(pieces, EXPORT)
        self._hands[SERVER].fill(EXPORT)

    def free(self) -> None:
        """Take what filled the server away."""
        self._hands[SERVER].shell('rm -f "$1"/filling*', EXPORT)

    def lose_all_power(self) -> None:
        """The server and its clients lose their power at once."""
        self.lose_power([SERVER, *self._guests.values()])


class _Export(Files):
    """A directory of the export, which hosts mount themselves; for damage it is looked at where the lab mounts it."""

    format = "nfs-1.0"

    def __init__(self, site: OnNfs, name: str) -> None:
        super().__init__(site.first, Path(MOUNT) / name)
        self._site = site

    def parameters(self, *, making: bool) -> list[str]:
        """Return server, export and the directory in it."""
        del making
        return [f"server={self._site.server}", "export=/", f"directory={self.root.name}"]

    def below(self) -> list[str]:
        """Return where hosts see its files."""
        return [MOUNT, "/run/diskwright/nfs"]

    def cut(self) -> None:
        """Kill everything, and boot."""
        self._site.lose_all_power()

    def fill(self) -> None:
        """Fill the export."""
        self._site.fill()

    def close(self) -> None:
        """Delete it, and what was beside it."""
        with contextlib.suppress(Gone, CannotTry):
            self._site.free()
            self.hands().shell('rm -rf "$1" "$1"-*', str(self.root))


class OnLvm(_InLab):
    """One guest, which manages its volume groups alone."""

    most_images, rounds = 4, 4
    lacks = frozenset((*_ON_FILES, *(f"damage_{what}".replace("-", "_") for what in DAMAGES)))
    more: Mapping[str, int] = {"host_dies": 4}

    def __init__(self, lab: Lab, base: Path, command: str) -> None:
        super().__init__(lab, base, command, {"anna": "host-a"})

    def place(self, directory: Path, kind: str) -> Place:
        """Make a volume group of a disk."""
        del kind
        device = {"main": "/dev/ubda", "other": "/dev/ubdc"}[directory.name]
        return _Group(self, f"{directory.parent.name}{directory.name}".replace("-", ""), device)

    def first(self) -> Hands:
        """Return the hands of the host."""
        return self._hands["host-a"]

    def lose_all_power(self) -> None:
        """The host loses its power."""
        self.lose_power(list(self._guests.values()))


class _Group:
    """A volume group on a disk of its own."""

    format = "lvm-1.0"
    root: Path | None = None

    def __init__(self, site: OnLvm, name: str, device: str) -> None:
        self._site, self._name, self._device = site, name, device
        self._wipe()

    def parameters(self, *, making: bool) -> list[str]:
        """Return the group, and the disk that it is made of."""
        return [f"volume_group={self._name}", *([f"devices={self._device}"] if making else [])]

    def below(self) -> list[str]:
        """Return nothing: the device of a volume that is open cannot be removed."""
        return []

    def left_over(self) -> list[str]:
        """Return the volumes that an empty repository has not, but for those that fill the group."""
        said = self._site.first().shell('lvs --foreign --noheadings -o lv_name "$1"', self._name)
        return [name for name in said.split() if name != "dw-meta" and not name.startswith("filling")]

    def cut(self) -> None:
        """Kill the host, and boot it."""
        self._site.lose_all_power()

    def fill(self) -> None:
        """Take all extents that are free, as another tool that has the right to."""
        script = """
            id=$(vgs --foreign --noheadings -o systemid "$1" | tr -d ' ')
            free=$(vgs --foreign --noheadings -o vg_free_count "$1" | tr -d ' ')
            [ "$free" = 0 ] || lvcreate --config "global{system_id_source=lvmlocal} local{system_id=\\"$id\\"}" \\
                -Zn -Wn -an -l "$free" -n "filling$$" "$1" """
        self._site.first().shell(script, self._name)

    def close(self) -> None:
        """Take the group away."""
        with contextlib.suppress(Gone, CannotTry):
            self._wipe()

    def _wipe(self) -> None:
        script = """
            dmsetup ls | awk -v group="$1-" 'index($1, group) == 1 {print $1}' | xargs -r -n 1 dmsetup remove --retry
            dd if=/dev/zero of="$2" bs=1M count=40 oflag=direct conv=fsync status=none"""
        self._site.first().shell(script, self._name, self._device)
