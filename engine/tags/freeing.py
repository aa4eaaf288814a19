"""Work that frees room, on a storage that may be full."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from engine.errors import NoSpace, from_os_errors
from engine.formats.base import Repository

_T = TypeVar("_T")


def freeing(repository: Repository, work: Callable[[], _T]) -> _T:
    """Return what ``work`` returns. While it fails because the storage is full it gets room that was set apart for it,
    and is called again. The room is set apart anew at the end. For nothing but what frees room, or leads to that.

    NoSpace: nothing is set apart any more, and not one block is free."""
    ballast = repository.ballast
    if ballast is None:
        return work()
    used = False
    try:
        while True:
            try:
                return work()
            except NoSpace as error:
                with from_os_errors("release room that was set apart"):
                    released = ballast.release()
                if not released:
                    step = f"Delete or move something else on the storage of {repository.place}, or make that larger"
                    raise NoSpace(error.message, f"{step}; a few hundred KiB are enough. Then try again") from error
                used = True
    finally:
        if used:
            ballast.keep()
