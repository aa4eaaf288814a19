"""Writing what is shown, reports of errors and runbooks to files of the operator's."""

from __future__ import annotations

import os

from tui.console.shell import Shell
from tui.directories import user_directory


def write(shell: Shell, name: str, form: str, text: str) -> None:
    """Write a new file below the user's data directory, beside the console, and tell where it is."""
    from tui.view.export import write as write_file

    folder = user_directory("XDG_DATA_HOME", ".local/share") + "/exports"
    shell.do(
        "export", lambda: write_file(folder, name, form, text),
        lambda path: shell.tell(f"Written: {_at_home(path)}"), "The file could not be written",
    )  # fmt: skip


def _at_home(path: str) -> str:
    """As a shell takes it, and short enough for a line."""
    home = os.path.expanduser("~")
    return f"~{path.removeprefix(home)}" if path.startswith(f"{home}/") else path
