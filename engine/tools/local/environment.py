"""What a process that is started here finds in its environment: nothing that only this session has."""

from __future__ import annotations

import os

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OURS = os.path.abspath(f"{__file__}/../../../..")
"""Where ``engine`` is imported from."""
_KEPT = ("PATH", "HOME")
_KEPT_PREFIXES = ("DISKWRIGHT_", "XDG_")


def of_a_tool() -> dict[str, str]:
    """Return all that a program of the host gets to see: messages in English, UTF-8 names, our search path."""
    return {"LC_ALL": "C.UTF-8", "PATH": os.environ.get("PATH") or _DEFAULT_PATH}


def of_our_own() -> dict[str, str]:
    """Return what another process of ours needs to be the same program."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
    path = [_OURS, os.environ.get("PYTHONPATH", "")]
    return kept | {"LC_ALL": "C.UTF-8", "PYTHONPATH": os.pathsep.join(filter(None, path))}
