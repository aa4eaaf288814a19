"""What an operator does when LVM cannot read a group after a power cut, as docs/lvm.md has it.

LVM writes a change as text into each metadata area and then the headers that refer to it, without a flush in
between. A device whose cache loses any of that may keep the headers alone. The text before is where it was.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess

_LISTED = re.compile(r"metadata at (\d+) length \d+ crc (\w+) vg (\S+) seqno (\d+)")
_FILE = "/tmp/lvm-metadata"


def unreadable(device: str, group: str) -> bool:
    """LVM does not see the group on its one device: no metadata area has the text that its header refers to."""
    found = _lvm("vgs", "--foreign", "--noheadings", "-o", "vg_name", "--devices", device)
    return "bad metadata text" in found.stderr and group not in found.stdout.split()


def repair(device: str, group: str) -> bool:
    """Put back the newest state of the group that both areas of its one device have alike: what was durable is in
    both, and pvck takes a torn text for a whole one. False: there is none."""
    one, other = (_listed(device, group, area) for area in (1, 2))
    if not (common := one.keys() & other.keys()):
        return False
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_FILE)  # pvck writes to no file that is there
    place = f"metadata_offset={one[max(common)]}"
    _lvm("pvck", "--dump", "metadata_search", "--settings", place, "--file", _FILE, device)
    return not _lvm("pvck", "--yes", "--repairtype", "metadata", "--file", _FILE, device).returncode


def _listed(device: str, group: str, area: int) -> dict[tuple[int, str], str]:
    """Where states of the group begin, by their number and checksum."""
    output = _lvm("pvck", "--dump", "metadata_search", "--settings", f"mda_num={area}", device).stdout
    found = _LISTED.findall(output)
    return {(int(number), checksum): offset for offset, checksum, name, number in found if name == group}


def _lvm(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["lvm", *words], capture_output=True, text=True, check=False)
