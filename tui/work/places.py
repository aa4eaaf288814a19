"""What has to be told of a repository to connect or create it: a field for each parameter of its type."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple


class Field(NamedTuple):
    """One parameter as a field to fill in."""

    name: str
    hint: str
    """What belongs there; begins with the default where there is one."""
    needed: bool = False
    choices: tuple[str, ...] = ()
    """All that may be given; () for any text."""
    low: int = 0
    high: int = 0
    """The range of a number; 0 and 0 for what is none."""


_PATH = Field("path", "its directory, such as /srv/images", needed=True)
FIELDS: Mapping[str, tuple[Field, ...]] = {
    "localfs": (_PATH,),
    "nfs": (
        Field("server", "a name or address, such as nas.example"),
        Field("export", "what it exports, such as /srv/images"),
        Field("directory", "none, or a directory below the export"),
        Field("options", "none, or mount options such as timeo=600"),
        Field("path", "or instead of all these: a directory in an NFSv4 mount of yours"),
    ),
    "lvm": (
        Field("volume_group", "its name, such as vmdisks", needed=True),
        Field("devices", "none, or to make that group: /dev/sdb,/dev/sdc"),
        Field("files", "none, or a group on files: /srv/one.img,/srv/two.img"),
        Field("file_bytes", "none, or to make the files: bytes of each", low=1, high=1 << 62),
        Field("sector_bytes", "512, or 4096", choices=("512", "4096")),
        Field("shared", "no, or yes: several hosts use it at a time (sanlock)", choices=("no", "yes")),
        Field("hosts", "8, or to make a shared one for more or fewer hosts, 2 to 64", low=2, high=64),
    ),
}
"""By type, in the order of the dialog."""
PATHS = ("path", "devices", "files")
"""Fields in which paths of this host belong, one or several with commas between."""
OTHER = (Field("parameters", "KEY=VALUE KEY=VALUE", needed=True),)
"""For a type that has no fields of its own here."""


class Problem(NamedTuple):
    """A field that is not right, and why."""

    field: str
    text: str


def fields_of(format: str) -> tuple[Field, ...]:
    """The fields of a format such as "nfs-1.0"."""
    return FIELDS.get(format.partition("-")[0], OTHER)


def problem(format: str, values: Mapping[str, str]) -> Problem | None:
    """The first field that cannot be right, None when the engine is to be asked. ``values`` are by field,
    "" for what was left empty."""
    for field in fields_of(format):
        value = values.get(field.name, "")
        if field.needed and not value:
            return Problem(field.name, f"{field.name} is needed")
        if value and field.choices and value not in field.choices:
            return Problem(field.name, f"{field.name} is {' or '.join(field.choices)}")
        if value and field.high and not _within(value, field):
            return Problem(field.name, f"{field.name} is a number{_range(field)}")
    if fields_of(format) is OTHER:
        return _not_pairs(values.get("parameters", "").split())
    return _together(format.partition("-")[0], {name for name, value in values.items() if value not in ("", "no")})


def _within(value: str, field: Field) -> bool:
    return value.isascii() and value.isdecimal() and len(value) < 20 and field.low <= int(value) <= field.high


def _range(field: Field) -> str:
    return f" from {field.low} to {field.high}" if field.high < 1 << 62 else " of bytes"


def _together(type: str, given: set[str]) -> Problem | None:
    """What does not go together."""
    if type == "nfs" and "path" in given and len(given) > 1:
        return Problem("path", "path stands alone: leave the other fields empty, or path")
    if type == "nfs" and "path" not in given:
        missing = next((name for name in ("server", "export") if name not in given), "")
        return Problem(missing, f"{missing} is needed (or path alone)") if missing else None
    if type == "lvm" and {"devices", "files"} <= given:
        return Problem("files", "the group is made of devices or of files: leave one empty")
    if type == "lvm" and "hosts" in given and "shared" not in given:
        return Problem("shared", "hosts goes with shared yes")
    if type == "lvm" and "file_bytes" in given and "files" not in given:
        return Problem("files", "file_bytes goes with files")
    return None


def _not_pairs(words: list[str]) -> Problem | None:
    keys = [word.partition("=")[0] for word in words]
    for word, key in zip(words, keys, strict=True):
        if "=" not in word or not key:
            return Problem("parameters", f"{word!r:.80} is not KEY=VALUE")
        if keys.count(key) > 1:
            return Problem("parameters", f"{key!r:.60} was given twice")
    return None


def given(format: str, values: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters for the engine: what was filled in and has no ``problem``, paths made absolute."""
    if fields_of(format) is OTHER:
        pairs = (word.partition("=") for word in values.get("parameters", "").split())
        return absolute({key: value for key, _, value in pairs})
    return absolute({field.name: value for field in fields_of(format) if (value := values.get(field.name))})


def absolute(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters with paths that do not depend on the current directory; ~ is the user's home."""
    found = dict(parameters)
    for name in PATHS:
        if found.get(name):
            parts = [found[name]] if name == "path" else [part for part in found[name].split(",") if part]
            found[name] = ",".join(os.path.abspath(os.path.expanduser(part)) for part in parts)
    return found
