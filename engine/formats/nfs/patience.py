"""A server that is away is asked once, not once for each thing that is to be tidied up.

A call over a soft mount that is not answered fails after half a minute. Whoever ends because of that wants to leave
its reason behind, to give up what it holds, to look again: each of these would wait as long. So after one call that
failed so late all others of the repository fail at once, for a while. What a server denies root is told as such.
"""

from __future__ import annotations

import contextlib
import errno
import math
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from engine.doors import Doors
from engine.doors.clock import Clock
from engine.doors.files import FileHandle, Files
from engine.doors.leases import Leases
from engine.errors import ROOT_SQUASH
from engine.tools.local.threads import no_longer_than

LATE_S = {errno.ETIMEDOUT: 1.0, errno.EIO: 8.0}
"""A call that fails so after so many seconds has waited for the server. A disk that the server cannot read is sooner,
and says nothing about the rest."""
REST_S = 20.0
"""So long nothing is asked after that."""

_CLOSE_S = 1.0

_T = TypeVar("_T")


class Patience:
    """What one open repository knows of its server."""

    def __init__(self, clock: Clock, privileged: Callable[[], bool]) -> None:
        """``privileged``: tells whether root asks, whom no mode of a file binds but a server may."""
        self._clock = clock
        self._privileged = privileged
        self._until = float("-inf")

    @property
    def away(self) -> bool:
        """Whether the server did not answer a moment ago."""
        return self._clock.monotonic() < self._until

    def call(self, work: Callable[..., _T], *arguments: Any, **named: Any) -> _T:
        """Call ``work``; raise OSError at once while the server is known to be away."""
        if self.away:
            raise OSError(errno.ETIMEDOUT, "the server did not answer a moment ago")
        began = self._clock.monotonic()
        try:
            return work(*arguments, **named)
        except OSError as error:
            now = self._clock.monotonic()
            if now - began >= LATE_S.get(error.errno or 0, math.inf):
                self._until = now + REST_S
            if error.errno in (errno.EACCES, errno.EPERM) and self._privileged():
                raise type(error)(error.errno, ROOT_SQUASH, error.filename) from error
            raise


class _Door:
    """A door whose calls are made with patience."""

    def __init__(self, inner: Any, patience: Patience) -> None:
        self._inner = inner
        self._patience = patience

    def __getattr__(self, name: str) -> Any:
        call, patience = getattr(self._inner, name), self._patience

        def made(*arguments: Any, **named: Any) -> Any:
            return patience.call(call, *arguments, **named)

        self.__dict__[name] = made  # the next time it is found without us
        return made


class _Handle(_Door):
    """An open file."""

    def close(self) -> None:
        if self._patience.away:  # it would be told what was not written
            no_longer_than(_CLOSE_S, self._inner.close)
        else:
            self._inner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            with contextlib.suppress(OSError):  # the first error is the one to report
                self.close()


class _Files(_Door):
    """The file door. Handles are not those of the door itself: repositories never give them back to it."""

    def open(self, path: str, writable: bool = False) -> FileHandle:
        return self._handle(self._patience.call(self._inner.open, path, writable))

    def create(self, path: str) -> FileHandle:
        return self._handle(self._patience.call(self._inner.create, path))

    def _handle(self, inner: FileHandle) -> FileHandle:
        return cast(FileHandle, _Handle(inner, self._patience))


def with_patience(doors: Doors) -> Doors:
    """Return the doors for one repository on a server: its files and leases with patience, the others as they are."""
    patience = Patience(doors.clock, doors.files.privileged)
    files, leases = cast(Files, _Files(doors.files, patience)), cast(Leases, _Door(doors.leases, patience))
    return doors._replace(files=files, leases=leases)
