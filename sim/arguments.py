"""What the commands of the simulator have in common: how wrong usage is told."""

from __future__ import annotations

import argparse
from typing import NoReturn

from engine.errors import BadRequest


class Parser(argparse.ArgumentParser):
    """A parser that raises BadRequest instead of ending the process."""

    def __init__(self, program: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=program,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise it; argparse would print its own words and exit."""
        raise BadRequest(message, f"See {self.prog} --help")
