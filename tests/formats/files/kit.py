"""What tests of repositories of files share: writing into one as a stranger, and calls that fail."""

from __future__ import annotations

import os
from collections.abc import Callable

from tests.formats.kit import LocalStorage


def write(local: LocalStorage, name: str, content: bytes) -> None:
    path = f"{local.path}/{name}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


def raises(error: OSError) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act
