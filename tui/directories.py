"""Where this user keeps what is ours: data, state and settings (XDG Base Directory Specification 0.8).

Nothing is made or read here.
"""

from __future__ import annotations

import os


def user_directory(variable: str, default: str) -> str:
    """Return our folder in one of the user's base directories; a value that is not absolute is to be ignored."""
    base = os.environ.get(variable, "")
    return os.path.join(base if os.path.isabs(base) else os.path.expanduser(f"~/{default}"), "diskwright")
