"""What a simulated run must not do: touch the real machine.

While a thread is ``watched``, an audit hook raises ``Escaped`` when it opens a file, changes one,
starts a program or uses a socket. ``Escaped`` is no ``Exception``, so no error handling hides it, and it
is remembered: leaving ``watched`` raises it again. Blind spots: calls without an audit event
(``os.write`` on a descriptor that is open already, ``time.time``); the lint of the engine covers those.
"""

from __future__ import annotations

import contextlib
import datetime  # noqa: F401 - the engine imports it when it needs it first, which would be during a run
import importlib
import pkgutil
import sys
from _thread import get_ident
from collections.abc import Iterator
from typing import Any

import engine

_PREFIXES = ("os.", "subprocess.", "socket.", "shutil.", "tempfile.", "fcntl.", "ctypes.", "glob.", "signal.")
_WHOLE = frozenset({"open", "pty.spawn", "urllib.Request"})
_watched: set[int] = set()
_escapes: list[str] = []
_installed = False


class Escaped(BaseException):
    """An effect that went past the doors."""


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched and (event in _WHOLE or event.startswith(_PREFIXES)) and get_ident() in _watched:
        text = f"{event}{arguments!r:.200}"
        _escapes.append(text)
        raise Escaped(text)


def install() -> None:
    """Set the hook up and import all of the engine, so that no import reads a file during a run. Idempotent."""
    global _installed
    if _installed:
        return
    for module in pkgutil.walk_packages(engine.__path__, "engine."):
        importlib.import_module(module.name)
    for name in ("concurrent.futures.thread", "encodings.idna", "zlib"):
        importlib.import_module(name)
    sys.addaudithook(_hook)
    _installed = True


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Watch this thread. Raises Escaped at the end, even when the first one was swallowed."""
    install()
    me = get_ident()
    if me in _watched:
        yield
        return
    _watched.add(me)
    known = len(_escapes)
    try:
        yield
    finally:
        _watched.discard(me)
    if len(_escapes) > known:
        raise Escaped(_escapes[known])
