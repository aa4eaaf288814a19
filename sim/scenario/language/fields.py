"""What words of the scenario format are made of: verbs, fields, and fields that many verbs have."""

from __future__ import annotations

from typing import NamedTuple

BACKENDS = ("sim", "local", "lab")


class Field(NamedTuple):
    """One field of a verb."""

    kind: str
    """How its value is written; see KINDS in ``schema``."""
    about: str
    required: bool = False
    choices: tuple[str, ...] = ()


class Verb(NamedTuple):
    """What a step may do."""

    about: str
    fields: dict[str, Field]
    short: str = ""
    """The field that a value without fields stands for."""
    interruptible: bool = False
    """crash, freeze and stop may stand beside it."""
    backends: tuple[str, ...] = BACKENDS


IMAGE = Field("image", "which one", True)
IN = Field("repository", "where, if not where the name was given")
PLACE = Field("repository", "where", True)

PIECE = {
    "pattern": Field("text", "a name for the bytes, `zeros`, or a byte as `0x5a`", True),
    "at": Field("size", "first byte (default 0)"),
    "length": Field("size", "how many bytes", True),
    "every": Field("size", "again every so many bytes"),
    "times": Field("count", "so many times"),
}
