"""The diskwright storage engine: repositories that hold only images, and every verb crash-safe.

Import :class:`engine.api.Engine` to use it from Python. The package never imports the
console (``tui``) or the simulator (``sim``); a contract in CI keeps that so.
"""

__version__ = "0.1.0"
