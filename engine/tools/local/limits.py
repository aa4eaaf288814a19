"""What a program may take that reads an image which a stranger has made: memory, time of a processor, files.

A few bytes of a header can make a tool ask for any amount (``qemu-img check`` counts references of a whole file,
however long and empty that is). It fails then, and neither the host nor what else runs there does.
"""

from __future__ import annotations

import contextlib
import os
import resource
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import subprocess

_GIB = 1 << 30
_WORDS_BYTES = 1 << 20


class Limits(NamedTuple):
    """Bounds of one program."""

    memory_bytes: int
    """Of address space."""
    processor_s: int
    """0: no bound, where how long it takes is up to the length of an image."""
    file_bytes: int = _WORDS_BYTES
    """Longest file that it can write: what it says goes into one."""

    def confine(self, process: subprocess.Popen[Any]) -> None:
        """Set the bounds of a process that has just been started; one that is gone needs none. OSError: one that has no
        bounds is ended, it does not run on without them."""
        try:
            self._set(process.pid)
        except OSError:
            process.kill()
            process.communicate()
            raise

    def _set(self, pid: int) -> None:
        wanted = {
            resource.RLIMIT_AS: self.memory_bytes,
            resource.RLIMIT_FSIZE: self.file_bytes,
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_CPU: self.processor_s,
        }
        for kind, bound in wanted.items():
            if kind == resource.RLIMIT_CPU and not bound:
                continue
            with contextlib.suppress(ProcessLookupError):
                _, most = resource.prlimit(pid, kind)
                bound = bound if most == resource.RLIM_INFINITY else min(bound, most)
                resource.prlimit(pid, kind, (bound, bound))

    def exceeded(self, exit_code: int, words: str) -> bool:
        """Whether a program that ended so has come to one of them."""
        return exit_code < 0 or "memory" in words.lower()


def of_readers() -> Limits:
    """Return the bounds of a program that reads a whole image or all of its tables: half of the memory of this host, at
    least 2 GiB and at most 8, and an hour of a processor."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Limits(min(8 * _GIB, max(2 * _GIB, whole // 2)), 3600)


def of_unpackers() -> Limits:
    """Return the bounds of a program that unpacks: what these are told to use at most, and their own."""
    return Limits(2 * _GIB, 0)
