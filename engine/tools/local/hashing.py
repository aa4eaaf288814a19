"""A thread that hashes while the copy waits for the disk.

Order of results is the order of submission, so a copy is as deterministic with it as without.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

_MAX_QUEUED = 8


class HashThread:
    """Computes in a second thread; results come back in order."""

    def __init__(self, done: Callable[[int, bytes], None]) -> None:
        self._done = done
        self._pool = ThreadPoolExecutor(1)
        self._queue: deque[tuple[int, Future[bytes]]] = deque()

    def submit(self, index: int, work: Callable[[], bytes]) -> None:
        """Queue ``work``; waits for older work when the queue is full."""
        while len(self._queue) >= _MAX_QUEUED:
            self._take()
        self._queue.append((index, self._pool.submit(work)))

    def drain(self) -> None:
        """Wait for all queued work and deliver its results."""
        while self._queue:
            self._take()

    def close(self) -> None:
        """End the thread; queued work is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _take(self) -> None:
        index, future = self._queue.popleft()
        self._done(index, future.result())
