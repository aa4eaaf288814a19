"""Who uses a thing: plain data, and how it is told. Doors that can be asked for users return these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_SHOWN = 4


class User(NamedTuple):
    """A process that uses a mount, a file or a device."""

    pid: int
    """0: only its lock is seen, so it runs on another host or may not be looked at from here."""
    command: str
    """Command line of the process, shortened and printable; "" when it is not known. Without a process, what it is."""
    writes: bool = False
    """Whether it may write."""
    host: str = ""
    """On which it runs, where that is another one and says so itself; "" where nothing is known of that."""
    known: bool = True
    """False: whether it uses the thing cannot be told, so it counts as if it did."""


def describe_users(users: Sequence[User]) -> str:
    """Name users in a message: the first of them, and how many more there are."""
    shown = [_one(user) for user in users[:_SHOWN]]
    if len(users) > _SHOWN:
        shown.append(f"{len(users) - _SHOWN} more")
    return ", ".join(shown) or "a process that is not seen from here"


def _one(user: User) -> str:
    if not user.pid:
        return user.command or "a process that is not seen from here"
    return f"process {user.pid}{f' ({user.command})' if user.command else ''}"
