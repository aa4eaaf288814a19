"""Short calls of the engine in threads of their own, so that no key ever waits for storage.

The threads are daemons: quitting does not wait for a repository that does not answer. What they do
may be cut off at any point, as by a crash, and the engine's records are made for that.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from textual.message import Message

Call = Callable[[], Any]
Finish = Callable[[Any, BaseException | None], None]

_TURN = "in turn"


class JobDone(Message):
    """A call has ended; ``error`` is None when it returned ``value``."""

    def __init__(self, finish: Finish, value: Any, error: BaseException | None):
        super().__init__()
        self.finish = finish
        self.value = value
        self.error = error


class Jobs:
    """Calls that are under way, at most one for each name. ``post`` gives a message to the application."""

    def __init__(self, post: Callable[[Message], object]) -> None:
        self._post = post
        self._running: set[str] = set()
        self._waiting: deque[tuple[Call, Finish]] = deque()

    def busy(self, name: str = "") -> bool:
        """Return whether the call of that name is under way; without a name, whether any is."""
        return name in self._running if name else bool(self._running)

    @property
    def deciding(self) -> bool:
        """Whether changes that were given to ``in_turn`` are not all done."""
        return _TURN in self._running or bool(self._waiting)

    def in_turn(self, call: Call, finish: Finish) -> None:
        """Run ``call`` after all that were given before: for changes whose order matters."""
        self._waiting.append((call, finish))
        self._next()

    def _next(self) -> None:
        if not self._waiting or _TURN in self._running:
            return
        call, finish = self._waiting.popleft()

        def ended(value: Any, error: BaseException | None) -> None:
            self._next()
            finish(value, error)

        self.start(_TURN, call, ended)

    def start(self, name: str, call: Callable[[], Any], finish: Callable[[Any, BaseException | None], None]) -> bool:
        """Run ``call`` beside the application, then ``finish`` in it. False, and nothing is done, while
        the call of that name is under way."""
        if name in self._running:
            return False
        self._running.add(name)

        def ended(value: Any, error: BaseException | None) -> None:
            self._running.discard(name)
            finish(value, error)

        def work() -> None:
            value, error = None, None
            try:
                value = call()
            except BaseException as caught:  # noqa: BLE001 - told to the operator by ``finish``, whatever it was
                error = caught
            with contextlib.suppress(RuntimeError):  # the console has ended meanwhile: nobody is to be told
                self._post(JobDone(ended, value, error))

        threading.Thread(target=work, name=f"console-{name}", daemon=True).start()
        return True
