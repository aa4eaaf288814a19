"""Power cuts of a real kernel: what dm-log-writes says that a disk could have lost, in use again and judged.

Unlike the death of a host, which loses memory only, this finds a flush that is missing. ``micro``: small sequences of
file operations, or of changes of a volume group, against the simulation's models. ``verbs``: every verb and fix of the
engine, whose acknowledged work must be there, readable and right, and whose leftovers must be cleaned by its own fixes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

from engine.errors import BadRequest
from sim.lab import wire
from sim.lab.cluster import PRIVATE, SHARED_TOO
from sim.lab.errors import LabError
from sim.lab.guest import Guest
from sim.lab.needs import require

KINDS = ("micro", "verbs")
PLACES = ("ext4", "xfs", "lvm")
PROGRESS = b"progress: "
"""A line of standard error that begins so tells how far it is."""
_TIMEOUT_S = 6 * 3600.0
_PRELOAD = ["engine.api", "engine.assembly", "sim.trials.inside.powercut.main"]

Tell = Callable[[str], None]


class Report(NamedTuple):
    """What came of one run."""

    kind: str
    on: str
    states: int
    """Power cuts that were looked at."""
    seconds: float
    repaired: int
    """So many times LVM could not read a group before its own tools had put back the last state."""
    wrong: tuple[str, ...]


def cut(
    guest: Guest,
    kind: str,
    on: str,
    most_states: int,
    seed: int = 0,
    *,
    profile: str = "journal",
    careless: bool = False,
    tell: Tell = lambda line: None,
) -> Report:
    """Record on a host, whose private disk and one of the shared disks are overwritten, and judge at most so many
    states, chosen by ``seed``. LabError: it cannot be done. ``tell`` hears how far it is, in a thread of the lab.

    To see that the judge judges: with the ``profile`` "process" nothing may be lost, and ``careless`` makes verbs sync
    nothing; the first that is wrong ends it then. ``on``: a file system, or volume groups ("lvm")."""
    if kind not in KINDS or on not in PLACES:
        raise BadRequest(f"there are no power cuts of {kind!r:.40} on {on!r:.40}", "See sim.trials.powercut")
    require("lvm", "file systems")
    asked = {
        "kind": kind, "on": on, "log_disk": PRIVATE, "room_disk": SHARED_TOO,
        "most_states": most_states, "seed": seed, "profile": profile, "careless": careless,
    }  # fmt: skip
    output, errors = bytearray(), bytearray()

    def hear(kind: int, data: bytes) -> None:
        if kind == wire.ERR and data.startswith(PROGRESS):
            tell(data.decode(errors="replace").splitlines()[-1].removeprefix(PROGRESS.decode()))
        else:
            (output if kind == wire.OUT else errors).extend(data)

    words = [json.dumps(asked)]
    running = guest.begin_call("sim.trials.inside.powercut.main:main", words, preload=_PRELOAD, on_output=hear)
    done = running.wait(_TIMEOUT_S)
    if done.code:
        raise LabError(
            f"the power cuts on {guest.name} ended with {done.code}: {errors[-900:].decode(errors='replace')}"
        )
    answer = json.loads(output)
    return Report(kind, on, answer["states"], answer["seconds"], answer["repaired"], tuple(answer["wrong"]))
