"""What a connected repository stands on, and whether that is still what it was when this host connected it.

A repository's identity is in its files, so a copy has it too: one that was restored, cloned or moved. Anchors are what
no copy shares: which inodes its directory, its identity and its lock file are. A host notes them with the connection;
what no longer fits is refused by name until the operator says which one is meant.
Comparing is all that is done here; a format tells the anchors, ``context`` asks for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.errors import Moved
from engine.formats.base import DEVICE

BOOT = "boot"

Anchors = Mapping[str, Any]


def noted(anchors: Anchors, boot: str) -> dict[str, Any]:
    """Return what is to be noted with a connection: the anchors, and the boot in which they were seen."""
    return {**anchors, BOOT: boot} if anchors else {}


def without(known: Anchors, part: str) -> dict[str, Any]:
    """Return the anchors without those of one part, which is about to be another one: its inode, and what tells that
    from earlier ones of its number ("… of PART")."""
    return {name: value for name, value in known.items() if name != part and not name.endswith(f" of {part}")}


def differences(known: Anchors, now: Anchors) -> list[str]:
    """Return how ``now`` differs from what was noted, a part of a sentence each. What only one of them tells is no
    difference: an older program may have noted less."""
    same_boot = known.get(BOOT) == now.get(BOOT)
    found = []
    for name in sorted(known.keys() & now.keys() - {BOOT}):
        if known[name] != now[name] and (name != DEVICE or same_boot):
            what = "it is on another device" if name == DEVICE else f"{name} is another"
            found.append(f"{what} ({now[name]}, it was {known[name]})")
    return found


def moved(repo_id: str, place: str, command: str, differing: list[str]) -> Moved:
    """Return the error for a repository that is not the one that was connected. ``command`` connects it."""
    return Moved(
        f"the repository connected as {repo_id} is not what stands at {place} now: it was replaced, moved or restored: "
        f"{'; '.join(differing)}",
        f"If it is the one to use from now on, on every host: {command} --accept-moved",
    )
