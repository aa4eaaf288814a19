"""Whose the data of a repository is: owner, group and mode of its volumes.

They are stated when it is created, or later at a connect, and every volume that is made gets them, whoever makes it.
Names are kept as they were given: each host knows users by its own numbers.
"""

from __future__ import annotations

import re
from typing import Any

from engine.doors.files import Access
from engine.errors import BadRequest, Damaged

PARAMETERS = ("owner", "group", "mode")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?\Z")
_MODE = re.compile(r"0?[0-7]{3}\Z")
_USUAL_MODE = 0o660


def take_out(parameters: dict[str, object]) -> tuple[dict[str, object], Access | None]:
    """Return parameters without these, and what these say: None when none is given. BadRequest."""
    given = {name: parameters[name] for name in PARAMETERS if name in parameters}
    rest = {name: value for name, value in parameters.items() if name not in given}
    return rest, _parsed(given)


def _parsed(given: dict[str, Any]) -> Access | None:
    for name in ("owner", "group"):
        value = given.get(name, "")
        if name in given and not (isinstance(value, str) and _NAME.match(value)):
            raise BadRequest(f"{name} {value!r:.80} cannot be a {name}", "Give a name or a number")
    mode = given.get("mode", "")
    if "mode" in given and not (isinstance(mode, str) and _MODE.match(mode)):
        raise BadRequest(f"mode {mode!r:.80} is not the mode of a file", "Give three octal digits, such as 660")
    if not given:
        return None
    return Access(given.get("owner", ""), given.get("group", ""), int(mode, 8) if mode else _USUAL_MODE)


def encoded(access: Access | None) -> dict[str, str]:
    """Return the fields of ``repository.json``; what is not said has none."""
    if access is None:
        return {}
    said = {"owner": access.owner, "group": access.group, "mode": f"{access.mode:03o}"}
    return {name: value for name, value in said.items() if value}


def decoded(data: dict[str, Any], place: str) -> Access | None:
    """Return what the fields of ``repository.json`` say. Damaged."""
    try:
        return _parsed({name: data[name] for name in PARAMETERS if name in data})
    except BadRequest as error:
        raise Damaged(f"{place} has no valid access: {error.message}", "Put back what was there") from None
