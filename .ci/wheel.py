"""What a wheel has beside the packages: the manual page, what shells complete with, and the scenarios.

All but the scenarios is written by the programs themselves while the wheel is built, so it says what they do. An
editable install has none of it: there the checkout is used.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPLETIONS = {
    "bash": "share/bash-completion/completions/diskwright",
    "zsh": "share/zsh/site-functions/_diskwright",
    "fish": "share/fish/vendor_completions.d/diskwright.fish",
}


def _texts() -> dict[str, str]:
    """What is written, by its place below the environment."""
    from tui.cli.completion import script
    from tui.cli.manual import page
    from tui.cli.schema import VERSION, schema

    texts = {"share/man/man1/diskwright.1": page()} | {place: script(shell) for shell, place in COMPLETIONS.items()}
    return texts | {f"share/diskwright/json-schema-{VERSION}.json": json.dumps(schema(), indent=1) + "\n"}


class Generated(BuildHookInterface):  # type: ignore[type-arg]
    """Adds what is written anew at each build."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the files, and have the wheel install them below the environment's ``share``."""
        if self.target_name != "wheel" or version == "editable":
            return
        sys.path.insert(0, self.root)  # as long as anything is imported: commands are when their turn comes
        try:
            texts = _texts()
        finally:
            sys.path.remove(self.root)
        self._made = tempfile.TemporaryDirectory()
        for number, (place, text) in enumerate(texts.items()):
            file = Path(self._made.name) / str(number)
            file.write_text(text, encoding="utf-8")
            build_data["shared_data"][str(file)] = place
        build_data["force_include"][str(Path(self.root) / "scenarios")] = "sim/scenarios"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was written."""
        if made := getattr(self, "_made", None):
            made.cleanup()
