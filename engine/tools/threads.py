"""How much of a machine a long piece of reading uses: its threads, and its garbage collector."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


def map_in_threads(work: Callable[[_T], _R], items: Iterable[_T], threads: int) -> list[_R]:
    """``[work(item) for item in items]`` in so many threads; the order stays, the first error is raised."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


@contextlib.contextmanager
def collector_off() -> Iterator[None]:
    """No garbage collection meanwhile: building thousands of records that all stay sets it off again
    and again (a third of a scan's time), and there are no cycles in them to find."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
