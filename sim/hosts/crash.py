"""Doors that fail at a chosen effect, round the real ones.

Effects are numbered from 1 in the order in which a host causes them: changes to files and volume
groups, and writes, flushes and repairs through qemu's tools. ``Effects`` either counts, or ends the host
just *before* effect number N. Ending means either ``Crashed`` (in this process: every door is
dead from then on, so no clean-up of the dead host can touch the storage) or whatever ``end``
does (a real SIGKILL). What was done before stays: this is the death of a process, not of power.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, cast

from engine.doors import Doors

FILE_EFFECTS = frozenset(
    "create link rename unlink make_directory remove_directory symlink sync_directory clone".split()
)
HANDLE_EFFECTS = frozenset("write_at truncate sync".split())
GROUP_EFFECTS = frozenset(
    "create_group set_system_id create resize change_tags set_autoactivation rename remove sync".split()
)
SESSION_EFFECTS = frozenset("write zero flush".split())
TOOL_EFFECTS = frozenset("repair_leaks repair_all set_backing resize".split())
PASS_WHEN_DEAD = frozenset("close release __exit__".split())


class Crashed(BaseException):
    """The host is dead. No ``Exception``, so nothing that handles errors sees it."""


class Effects:
    """Counts effects and ends the host before number ``crash_at`` (0: never)."""

    def __init__(self, crash_at: int = 0, end: Callable[[], None] | None = None) -> None:
        self.crash_at = crash_at
        self.count = 0
        self.dead = False
        self.names: list[str] = []
        self._end = end

    def step(self, name: str) -> None:
        """Take note that an effect is about to happen, and end the host when it is the one."""
        self.alive()
        self.count += 1
        self.names.append(name)
        if self.count == self.crash_at:
            self.crash()

    def alive(self) -> None:
        """Raise when the host is dead."""
        if self.dead:
            raise Crashed

    def crash(self) -> NoReturn:
        """End the host now."""
        self.dead = True
        if self._end is not None:
            self._end()
        raise Crashed


class _Door:
    """Passes calls on; those in ``counted`` are effects; results in ``wrap`` get a door of their own."""

    def __init__(
        self, inner: Any, effects: Effects, prefix: str, counted: frozenset[str], wrap: dict[str, frozenset[str]]
    ) -> None:
        self._inner = inner
        self._effects = effects
        self._prefix = prefix
        self._counted = counted
        self._wrap = wrap

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._inner, name)
        if not callable(inner):
            return inner

        def call(*arguments: Any, **named: Any) -> Any:
            if name in PASS_WHEN_DEAD:
                return inner(*arguments, **named)
            self._effects.alive()
            if name in self._counted:
                self._effects.step(f"{self._prefix}.{name}")
            arguments = tuple(a._inner if isinstance(a, _Door) else a for a in arguments)
            result = inner(*arguments, **named)
            if name in self._wrap and result is not None:
                return _Door(result, self._effects, f"{self._prefix}.{name}", self._wrap[name], {})
            return result

        return call

    def __enter__(self) -> _Door:
        self._inner.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._inner.__exit__(*error)


def crashing(doors: Doors, effects: Effects) -> Doors:
    """``doors`` whose changing calls go through ``effects``. Leases, clock and ids cause no effect."""
    files = _Door(doors.files, effects, "files", FILE_EFFECTS, {"create": HANDLE_EFFECTS, "open": HANDLE_EFFECTS})
    images = _Door(doors.images, effects, "images", TOOL_EFFECTS, {"open_session": SESSION_EFFECTS})
    groups = _Door(
        doors.volume_groups, effects, "volume_groups", GROUP_EFFECTS, {"open_device": HANDLE_EFFECTS | {"zero"}}
    )
    return doors._replace(files=cast(Any, files), images=cast(Any, images), volume_groups=cast(Any, groups))
