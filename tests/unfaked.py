"""What pyfakefs does not fake: these calls would reach the real system with the number of a fake descriptor.

A real file was overwritten that way, so each of them raises under pyfakefs (``tests.conftest`` sees to it).
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from pyfakefs.fake_io import FakeFcntlModule

UNFAKED = (
    "pread preadv pwrite pwritev readv writev posix_fallocate copy_file_range splice lockf "
    "fstatvfs statvfs mkfifo sendfile"
).split()

_REAL = {"os": os}
"""In a container, where pyfakefs does not find and replace it."""


class Unfaked(AssertionError):
    """A call that would have gone to the real system."""


def _refuse(name: str) -> Callable[..., None]:
    def call(*arguments: object, **options: object) -> None:
        raise Unfaked(f"{name} is not faked")

    return call


def refuse_all(patch: pytest.MonkeyPatch) -> None:
    """Let each of them raise from now on."""
    for name in UNFAKED:
        patch.setattr(_REAL["os"], name, _refuse(name))
    patch.setattr(_REAL["os"], "posix_fadvise", lambda *arguments: None)  # an advice, which may be ignored
    for name in ("fcntl", "ioctl", "flock", "lockf"):  # faked as calls that always succeed and do nothing
        patch.setattr(FakeFcntlModule, name, _refuse(f"fcntl.{name}"))
