"""How much of a machine a long piece of reading uses: its threads, and its garbage collector."""

from __future__ import annotations

import contextlib
import gc
import resource
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

_COLD_S_PER_FILE = 100e-6
_COLD_WAITS_PER_FILE = 0.25
"""The kernel reads ahead: of many small files that were made together it waits for some."""
_SAMPLE_FILES = 128
_THREADS = 8
_AHEAD = 4 * _THREADS

_T = TypeVar("_T")
_R = TypeVar("_R")


def map_files(
    work: Callable[[_T], _R], items: Sequence[_T], files_in: Callable[[_R], int], now: Callable[[], float]
) -> Iterator[_R]:
    """Yield ``work(item) for item in items``, in order, where ``work`` reads small files, ``files_in(result)`` of them.

    Storage that turns out to be slow (cold) is read by several threads ahead of the caller, fast one by the caller's
    own: then threads only take the interpreter away from each other. For the same reason ``work`` should do little
    beside reading. The first error is raised."""
    files_slow = waits = 0
    for position, item in enumerate(items):
        started, waited = now(), _waits()
        result = work(item)
        spent, files = now() - started, files_in(result)
        if spent > files * _COLD_S_PER_FILE:  # in a row: one that was slow may just have had to wait
            files_slow, waits = files_slow + files, waits + _waits() - waited
        else:
            files_slow = waits = 0
        yield result
        if files_slow >= _SAMPLE_FILES:
            if waits >= files_slow * _COLD_WAITS_PER_FILE:
                yield from _in_threads(work, items[position + 1 :])
                return
            files_slow = waits = 0  # slow, but not because of the storage: others have the processors


def _waits() -> int:
    """How often this thread has gone to sleep: for the storage, but not for a processor, which others took away."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def _in_threads(work: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
    from concurrent.futures import Future, ThreadPoolExecutor

    ahead: deque[Future[_R]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            for item in items:
                ahead.append(pool.submit(work, item))
                if len(ahead) > _AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def at_once(work: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
    """Return ``work(item) for item in items``, done at once by a thread for each: for a few that may wait long."""
    if len(items) < 2:
        return [work(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(work, items))


def no_longer_than(seconds: float, work: Callable[[], object]) -> None:
    """Have ``work`` done, and wait for it so long: what takes longer goes on by itself and ends with the process. An
    OSError of it is swallowed."""
    import threading

    def run() -> None:
        with contextlib.suppress(OSError):
            work()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)


@contextlib.contextmanager
def collector_off() -> Iterator[None]:
    """Keep the garbage collector from running meanwhile: building thousands of records that all stay sets it off again
    and again (a third of a scan's time), and there are no cycles in them to find."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
